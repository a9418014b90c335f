# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Discovery, from recorded output of commands and a kernel that says what the case tells."""

from __future__ import annotations

import json
import pathlib

import pytest
import yaml

from ansible_collections.lifeboat.rescue.plugins.module_utils import _run
from ansible_collections.lifeboat.rescue.plugins.module_utils._errors import TargetError
from ansible_collections.lifeboat.rescue.plugins.module_utils._storage import _devices, _kernel, _module

CASES = yaml.safe_load((pathlib.Path(__file__).parent / "devices.yml").read_text())


def node(name, number, kind, children=()):
    return {"name": name, "maj:min": number, "type": kind, "size": 1 << 30, "ro": False,
            "children": [node(*child) for child in children]}


class Script(_run.Runner):
    """Plays the conversation: each command that is expected, and what it prints."""

    def __init__(self, conversation):
        super().__init__()
        self.conversation = list(conversation)

    def __call__(self, argv, **options):
        expected, result = self.conversation.pop(0)
        assert list(argv) == expected
        return result


class Said(_kernel.Kernel):
    """A kernel that says what a case tells."""

    def __init__(self, case):
        self.case = case

    def mounts(self):
        return [mount for line in self.case.get("mounts", []) for mount in _kernel._mount(line.encode())]

    def swaps(self):
        return self.case.get("swaps", [])

    def claimed(self, path):
        return path in self.case.get("claimed", [])

    def openers(self, devices):
        return {path: [_kernel.Process(pid, command, "has it open") for pid, command in found]
                for path, found in self.case.get("openers", {}).items() if path in devices.values()}

    def links(self, kind):
        return {}

    def backing(self, path):
        return self.case.get("backing", {}).get(path, "")


def look(device):
    return {"rescue": device.rescue, "used": device.used, "mounted": device.mounted, "ours": device.ours,
            "type": device.type, "partition": device.partition, "unsupported": device.unsupported, "on": device.on,
            "label": device.tag.get("LABEL"), "name": device.tag.get("PART_ENTRY_NAME")}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_devices(case):
    paths = []

    def collect(nodes):
        for each in nodes:
            if each["name"] not in paths and case["expect"].get(each["name"], {}) is not None:
                paths.append(each["name"])
            collect(each["children"])

    tree = [node(*each) for each in case["lsblk"]]
    collect(tree)
    run = Script([
        (["lsblk", "--json", "--bytes", "--paths", "--output", _devices._COLUMNS],
         _run.Result(0, json.dumps({"blockdevices": tree}), "")),
        (["blkid", "-p", "-o", "export", *paths], _run.Result(2, case.get("blkid", ""), "")),
    ][:2 if paths else 1])
    devices = _devices.discover(run, Said(case), {tuple(each) for each in case.get("ours", [])})
    assert not run.conversation
    for path, expected in case["expect"].items():
        if expected is None:
            assert path not in devices.all
        else:
            assert {key: look(devices.all[path])[key] for key in expected} == expected


def test_a_hundred_disks_cost_in_step(monkeypatch):
    """Twice the devices, about twice the work: counted, not timed."""
    def work(count):
        case = {"lsblk": [[f"/dev/sd{number}", f"8:{number}", "disk", [[f"/dev/sd{number}p1", f"9:{number}", "part"]]]
                          for number in range(count)]}
        run = Script([([*["lsblk", "--json", "--bytes", "--paths", "--output"], _devices._COLUMNS], _run.Result(
            0, json.dumps({"blockdevices": [node(*each) for each in case["lsblk"]]}), ""))])
        calls = []
        monkeypatch.setattr(Script, "__call__", lambda self, argv, **options: (
            calls.append(argv), self.conversation.pop(0)[1] if self.conversation else _run.Result(2, "", ""))[1])
        monkeypatch.setattr(Said, "claimed", lambda self, path: calls.append(path))
        _devices.discover(run, Said(case))
        return len(calls)

    assert work(100) == 102
    assert work(200) == 202


@pytest.mark.parametrize("output", ["", "[]", "null", "{}", '{"blockdevices": 3}', "\x00"])
def test_lsblk_gone_mad(output):
    run = Script([(["lsblk", "--json", "--bytes", "--paths", "--output", _devices._COLUMNS],
                   _run.Result(0, output, ""))])
    try:
        assert list(_devices.discover(run, Said({}))) == []
    except TargetError as exc:
        assert "lsblk" in exc.what


def test_names_that_are_no_utf8_can_be_told():
    assert json.dumps(_module.clean({"a": ["x\udcff", ("ä",), 1, None]}), ensure_ascii=False) == \
        '{"a": ["x\\\\xff", ["ä"], 1, null]}'
