# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Discovery, from recorded output of commands and a kernel that says what the case tells."""

from __future__ import annotations

import json
import pathlib

import pytest
import yaml

from ansible_collections.lifeboat.rescue.plugins.module_utils._errors import TargetError
from ansible_collections.lifeboat.rescue.plugins.module_utils._rescue import _command, _entry, _kernel
from ansible_collections.lifeboat.rescue.plugins.module_utils._rescue._storage import _devices

CASES = yaml.safe_load((pathlib.Path(__file__).parent / "devices.yml").read_text())


def node(name, number, kind, children=()):
    return {"name": name, "maj:min": number, "type": kind, "size": 1 << 30, "ro": False,
            "children": [node(*child) for child in children]}


class Tools(_command.Runner):
    """Answers as lsblk, wipefs and blkid do. blkid: the paragraphs that it can print."""

    def __init__(self, tree, blkid=""):
        super().__init__()
        self.tree = tree
        self.blkid = {part.split("\n")[0].partition("=")[2]: part for part in blkid.strip().split("\n\n")}
        self.calls = []

    def __call__(self, argv, **options):
        self.calls.append(list(argv))
        program, asked = argv[0], argv[argv.index("--") + 1:] if "--" in argv else []
        if program == "lsblk":
            assert argv[1:] == ["--json", "--bytes", "--paths", "--output", _devices._COLUMNS]
            return _command.Result(0, self.tree if isinstance(self.tree, str) else json.dumps({"blockdevices": self.tree}), "")
        if program == "wipefs":
            assert argv[1:-len(asked)] == ["--no-act", "--noheadings", "--output", "DEVICE", "--"]
            return _command.Result(0, "".join(f"{pathlib.Path(path).name}\n" for path in asked if path in self.blkid), "")
        assert argv[:5] == ["blkid", "-p", "-o", "export", "--"]
        told = []
        for path in asked:
            if path not in self.blkid:
                # As blkid 2.38 does: that is the end.
                return _command.Result(2, "\n\n".join(told), "")
            told.append(self.blkid[path])
        return _command.Result(0, "\n\n".join(told), "")


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

    def holders(self, path):
        return self.case.get("holders", {}).get(path, [])

    def backing(self, path):
        return self.case.get("backing", {}).get(path, "")


def look(device):
    return {"rescue": device.rescue, "used": device.used, "mounted": device.mounted, "ours": device.ours,
            "type": device.type, "partition": device.partition, "unsupported": device.unsupported, "on": device.on,
            "label": device.tag.get("LABEL"), "name": device.tag.get("PART_ENTRY_NAME")}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_devices(case):
    tree = [node(*each) for each in case["lsblk"]]
    run = Tools(tree, case.get("blkid", ""))
    devices = _devices.discover(run, Said(case), {tuple(each) for each in case.get("ours", [])}, _devices.Standing())
    for path, expected in case["expect"].items():
        if expected is None:
            assert path not in devices.all
        else:
            assert {key: look(devices.all[path])[key] for key in expected} == expected


def test_a_hundred_disks_cost_in_step(monkeypatch):
    """Twice the devices, about twice the work: counted, not timed."""
    def work(count):
        disks = [node(f"/dev/sd{number}", f"8:{number}", "disk", [[f"/dev/sd{number}p1", f"9:{number}", "part"]])
                 for number in range(count)]
        looked = []
        monkeypatch.setattr(Said, "claimed", lambda self, path: looked.append(path))
        run = Tools(disks, "\n\n".join(f"DEVNAME=/dev/sd{number}{part}\nTYPE=x" for number in range(count) for part in ("", "p1")))
        _devices.discover(run, Said({}), (), _devices.Standing())
        return len(run.calls), len(looked)

    assert work(100) == (2, 100)
    assert work(200) == (2, 200)


def test_what_is_empty_hides_nothing_behind_it():
    """blkid ends at the first device that it has nothing to say of."""
    disks = [node(f"/dev/sd{letter}", f"8:{number}", "disk") for number, letter in enumerate("abcdef")]
    run = Tools(disks, "DEVNAME=/dev/sdb\nTYPE=ext4\n\nDEVNAME=/dev/sde\nTYPE=xfs")
    found = _devices.discover(run, Said({}), (), _devices.Standing())
    assert [device.type for device in found] == ["", "ext4", "", "", "xfs", ""]
    assert [call[0] for call in run.calls] == ["lsblk", "blkid", "wipefs", "blkid"]


def test_what_blkid_is_confused_by_hides_nothing_behind_it():
    """wipefs finds signatures there, and blkid ends, because there are too many."""
    disks = [node(f"/dev/sd{letter}", f"8:{number}", "disk", [[f"/dev/sd{letter}1", f"9:{number}", "part"]])
             for number, letter in enumerate("abc")]
    run = Tools(disks, "".join(f"DEVNAME=/dev/sd{letter}\nPTTYPE=gpt\n\n" for letter in "abc") + "DEVNAME=/dev/sdc1\nTYPE=xfs")
    found = _devices.discover(run, Said({}), (), _devices.Standing())
    assert [device.type for device in found] == ["", "", "", "", "", "xfs"]
    assert [call[0] for call in run.calls] == ["lsblk", "blkid", "blkid", "blkid"]


@pytest.mark.parametrize(("second", "blkid", "is_one"), [
    ({}, "PTUUID=1", True),
    ({"serial": "other"}, "PTUUID=1", False),
    ({"size": 1 << 31}, "PTUUID=1", False),
    ({}, "PTUUID=2", False),
    ({"wwn": ""}, "PTUUID=1", False),
])
def test_another_path_of_a_disk_says_the_same_of_it(second, blkid, is_one):
    """There are makers that give all their disks one world wide name."""
    disk = {**node("/dev/sda", "8:0", "disk"), "wwn": "0x5000000000000000", "serial": "one"}
    tools = Tools([disk, {**disk, "name": "/dev/sdb", "maj:min": "8:16", **second}],
                  f"DEVNAME=/dev/sda\nPTUUID=1\nPTTYPE=gpt\n\nDEVNAME=/dev/sdb\n{blkid}\nPTTYPE=gpt")
    found = _devices.discover(tools, Said({}), (), _devices.Standing())
    assert [device.path_of for device in found] == ["", "/dev/sda" if is_one else ""]


@pytest.mark.parametrize("output", ["", "[]", "null", "{}", '{"blockdevices": 3}', "\x00"])
def test_lsblk_gone_mad(output):
    try:
        assert list(_devices.discover(Tools(output), Said({}), (), _devices.Standing())) == []
    except TargetError as exc:
        assert "lsblk" in exc.what


def test_names_that_are_no_utf8_can_be_told():
    assert json.dumps(_entry.clean({"a": ["x\udcff", ("ä",), 1, None]}), ensure_ascii=False) == \
        '{"a": ["x\\\\xff", ["ä"], 1, null]}'
