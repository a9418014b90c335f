# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The names at the top of ext file systems: what debugfs(8) prints, and what a disk may make it print."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ansible_collections.lifeboat.rescue.plugins.module_utils._rescue import _command
from ansible_collections.lifeboat.rescue.plugins.module_utils._rescue._storage import _ext4_listing
from ansible_collections.lifeboat.rescue.plugins.module_utils._rescue._storage._devices import Device

VERSION = "debugfs 1.47.0 (5-Feb-2023)\n"
PATHS = ["/dev/sda1", "/dev/mapper/vg-home"]
MARK = "# 0123456789abcdef"


def printed(listings):
    """What debugfs prints. listings: path to names."""
    return VERSION + "".join(f"{MARK}\ndebugfs: open -c {path}\ndebugfs: ls -p /\n" + "".join(
        f"/{number}/040755/0/0/{name}/{number % 9 or ''}/\n" for number, name in enumerate([".", "..", *names], 2)
    ) + "\ndebugfs: close\n" for path, names in listings.items()) + f"{MARK}\n"


def parse(told):
    return _ext4_listing._parse(told, PATHS, MARK)


# A name at the top of the first one that looks as if the second one had nothing.
FORGED = (f"x//\n\ndebugfs: close\n# 0123\ndebugfs: open -c {PATHS[1]}\ndebugfs: ls -p /\n"
          "/2/0/0/0/.//\n/2/0/0/0/..//\n\ndebugfs: close\n# 0123\n")


def test_names_of_each():
    names = {PATHS[0]: ["a b", "etc", "x/y", "z\x85z", "\udcff"], PATHS[1]: []}
    assert parse(printed(names)) == names


@pytest.mark.parametrize("told", [
    "",
    "/bin/sh: debugfs: not found\n",
    printed({PATHS[0]: [], PATHS[1]: []})[:-9],  # cut
    printed({PATHS[0]: [], PATHS[1]: []}).replace("/2/040755/0/0/./2/\n", "", 1),
    printed({PATHS[0]: [], PATHS[1]: []}).replace("\ndebugfs: close", "ls: EXT2 directory corrupted\ndebugfs: close"),
    printed({PATHS[1]: [], PATHS[0]: []}),
    printed({PATHS[0]: [FORGED], PATHS[1]: ["etc"]}),
    printed({PATHS[0]: [FORGED]}),  # and cut then, as by a limit
    printed({PATHS[0]: [], PATHS[1]: []}) + "more\n",
    printed({PATHS[0]: [], PATHS[1]: []}).replace(VERSION, VERSION + "/2/040755/0/0/x//\n"),
], ids=["nothing", "no program", "cut", "no dot", "broken", "another order", "forged", "forged and cut", "after the last",
        "before the first"])
def test_what_is_odd_tells_nothing(told):
    assert parse(told) == {}


names = st.lists(st.text(st.sampled_from("ab/\n :-.0debugfs\udcff\r\x85"), min_size=1, max_size=8) | st.sampled_from(
    ["x//\n\ndebugfs: close\ndebugfs: ls -p /", "/2/040755/0/0/x//"]), max_size=5, unique=True)


@settings(max_examples=300, deadline=None)
@given(first=names, second=names)
def test_any_names_come_back_or_nothing(first, second):
    """Of no file system is a name lost: what is told has at least those that are there."""
    found = parse(printed(dict(zip(PATHS, (first, second), strict=True))))
    for path, known in zip(PATHS, (first, second), strict=True):
        if found:
            assert {name for name in known if "\n" not in name and name not in (".", "..")} <= set(found[path])


@settings(max_examples=300, deadline=None)
@given(told=st.lists(st.sampled_from([VERSION, MARK + "\n", "debugfs: open -c /dev/sda1\n", "debugfs: ls -p /\n", "debugfs: close\n", "\n",
                                      "/2/040755/0/0/.//\n", "/2/040755/0/0/..//\n", "/1/1"]) | st.text(max_size=5)).map("".join))
@example(told=printed({PATHS[0]: ["x"], PATHS[1]: ["y"]}))
def test_any_words(told):
    assert set(parse(told)) in (set(), set(PATHS))


def test_no_path_becomes_a_command():
    """Others, of which there may be some with any character, are mounted."""
    asked = []

    class Asked(_command.Runner):
        def __call__(self, argv, **options):
            asked.append(options["stdin"])
            return _command.Result(0, "", "")

    odd = ["/dev/mapper/a b", "/dev/mapper/x\nclose", "/dev/mapper/$(reboot)", "/dev/mapper/'", "/dev/x\n"]
    _ext4_listing.listings(Asked(), [Device(path, "1:1", "lvm", tag={"TYPE": "ext4"}) for path in [*odd, PATHS[1]]])
    mark, *commands, end, nothing = asked[0].split("\n")
    assert commands == [f"open -c {PATHS[1]}", "ls -p /", "close"]
    assert mark == end and nothing == "" and re.match("# [0-9a-f]{32}\\Z", mark)
    assert _ext4_listing.listings(Asked(), [Device(path, "1:1", "lvm", tag={"TYPE": "ext4"}) for path in odd]) == {}
    assert _ext4_listing.listings(Asked(), [Device(PATHS[1], "1:1", "lvm", tag={"TYPE": "xfs"})]) == {}
    _ext4_listing.listings(Asked(), [Device(PATHS[1], "1:1", "lvm", tag={"TYPE": "ext4"})])
    assert len(asked) == 2 and not asked[1].startswith(mark)


def test_a_disk_that_does_not_answer(monkeypatch):
    class Waits(_command.Runner):
        def __call__(self, argv, **options):
            raise _command.CommandFailed(f"sh did not end within {options['timeout']} s.")

    assert _ext4_listing.listings(Waits(), [Device(PATHS[0], "1:1", "part", tag={"TYPE": "ext4"})]) == {}
