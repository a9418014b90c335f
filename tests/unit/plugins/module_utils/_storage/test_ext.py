# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The names at the top of ext file systems: real ones, read by the real debugfs(8); and what a disk may make it print."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import struct
import subprocess

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ansible_collections.lifeboat.rescue.plugins.module_utils import _run
from ansible_collections.lifeboat.rescue.plugins.module_utils._storage import _ext
from ansible_collections.lifeboat.rescue.plugins.module_utils._storage._devices import Device

VERSION = "debugfs 1.47.0 (5-Feb-2023)\n"
PATHS = ["/dev/sda1", "/dev/mapper/vg-home"]
MARK = "# 0123456789abcdef"


def printed(listings):
    """What debugfs prints. listings: path to names."""
    return VERSION + "".join(f"{MARK}\ndebugfs: open -c {path}\ndebugfs: ls -p /\n" + "".join(
        f"/{number}/040755/0/0/{name}/{number % 9 or ''}/\n" for number, name in enumerate([".", "..", *names], 2)
    ) + "\ndebugfs: close\n" for path, names in listings.items()) + f"{MARK}\n"


def parse(told):
    return _ext._parse(told, PATHS, MARK)


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

    class Asked(_run.Runner):
        def __call__(self, argv, **options):
            asked.append(options["stdin"])
            return _run.Result(0, "", "")

    odd = ["/dev/mapper/a b", "/dev/mapper/x\nclose", "/dev/mapper/$(reboot)", "/dev/mapper/'", "/dev/x\n"]
    _ext.listings(Asked(), [Device(path, "1:1", "lvm", tag={"TYPE": "ext4"}) for path in [*odd, PATHS[1]]])
    mark, *commands, end, nothing = asked[0].split("\n")
    assert commands == [f"open -c {PATHS[1]}", "ls -p /", "close"]
    assert mark == end and nothing == "" and re.match("# [0-9a-f]{32}\\Z", mark)
    assert _ext.listings(Asked(), [Device(path, "1:1", "lvm", tag={"TYPE": "ext4"}) for path in odd]) == {}
    assert _ext.listings(Asked(), [Device(PATHS[1], "1:1", "lvm", tag={"TYPE": "xfs"})]) == {}
    _ext.listings(Asked(), [Device(PATHS[1], "1:1", "lvm", tag={"TYPE": "ext4"})])
    assert len(asked) == 2 and not asked[1].startswith(mark)


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Make ext file systems with these names at their top. Files stand for devices, which debugfs does not care about."""
    if not shutil.which("debugfs", path="/usr/sbin:/sbin"):
        pytest.skip("needs debugfs")
    monkeypatch.setattr(_ext, "_PLAIN", re.compile(r"/[A-Za-z0-9/_.+-]+\Z"))

    def make(kind, *names):
        top = tmp_path / f"top{len(list(tmp_path.iterdir()))}"
        top.mkdir()
        for name in names:
            with open(os.path.join(os.fsencode(top), name), "wb"):
                pass
        path = f"{top}.img"
        with open(path, "wb") as file:
            file.truncate(32 << 20)
        subprocess.run(["/sbin/mke2fs", "-q", "-b", "4096", "-O", "^metadata_csum", "-t", kind, "-d", str(top), path], check=True)
        return Device(path, "1:1", "disk", tag={"TYPE": kind})
    return make


def digest(device):
    with open(device.path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def test_real_ones(made):
    devices = [made("ext4", b"etc", b"a b", b"\xff\x85", b"'\"$x"), made("ext2"), made("ext3", *(b"%d" % number for number in range(3000)))]
    before = [digest(device) for device in devices]
    found = _ext.listings(_run.Runner(timeout=60), devices)
    assert found[devices[0].path] == sorted(["etc", "a b", "\udcff\udc85", "'\"$x", "lost+found"])
    assert found[devices[1].path] == ["lost+found"]
    assert len(found[devices[2].path]) == 3001
    assert [digest(device) for device in devices] == before


def test_a_real_name_like_a_command(made):
    liar = made("ext4", b"x\ndebugfs: close")
    assert _ext.listings(_run.Runner(timeout=60), [liar, made("ext4", b"etc")]) == {}


def test_a_broken_one(made):
    broken = made("ext4", b"etc")
    with open(broken.path, "r+b") as file:
        file.seek(1024)
        file.write(bytes(1024))
    assert _ext.listings(_run.Runner(timeout=60), [made("ext4"), broken]) == {}


def test_a_disk_that_does_not_answer(monkeypatch):
    class Waits(_run.Runner):
        def __call__(self, argv, **options):
            raise _run.CommandFailed(f"sh did not end within {options['timeout']} s.")

    assert _ext.listings(Waits(), [Device(PATHS[0], "1:1", "part", tag={"TYPE": "ext4"})]) == {}


def test_one_without_end_ends(made, monkeypatch):
    """A top directory whose tree of extents leads to one and the same block over and over, with a name that speaks for another disk."""
    victim = made("ext4", b"etc", b"usr")
    forged = FORGED.replace(PATHS[1], victim.path).encode()
    endless = made("ext4", *(b"%0100d" % number for number in range(8)), b"f" * len(forged))
    with open(endless.path, "r+b") as file:
        image = file.read()
        file.seek(image.index(b"f" * len(forged)))
        file.write(forged)

    def debugfs(*command):
        return subprocess.run(["/sbin/debugfs", "-w", "-R", " ".join(command), endless.path], check=True, capture_output=True,
                              text=True).stdout

    block, offset = re.search(r"block (\d+), offset 0x([0-9a-f]+)", debugfs("imap", "<2>")).groups()
    names = int(debugfs("bmap", "<2>", "0"))
    free = [int(word) for word in debugfs("ffb", "4").replace(",", " ").split() if word.isdigit()]
    fan = (4096 - 12) // 12
    with open(endless.path, "r+b") as file:
        for depth, at in enumerate([*free, None]):
            # linux/fs/ext4/ext4_extents.h: of the header magic, entries, most, depth; then extents, or what leads to the next depth
            count = 4 if at is None else fan
            step = fan ** depth
            entries = [struct.pack("<IHHI", number, 1, 0, names) if depth == 0 else
                       struct.pack("<IIHH", number * step % (1 << 32), free[depth - 1], 0, 0) for number in range(count)]
            file.seek(at * 4096 if at is not None else int(block) * 4096 + int(offset, 16) + 0x28)
            file.write(struct.pack("<HHHHI", 0xF30A, count, count, depth, 0) + b"".join(entries))
    debugfs("set_inode_field", "<2>", "size", str(1 << 46))
    assert subprocess.run(["timeout", "2", "/sbin/debugfs", "-c", "-R", "ls -p /", endless.path], stdout=subprocess.DEVNULL, check=False,
                          stderr=subprocess.DEVNULL).returncode == 124
    monkeypatch.setattr(_ext, "_LIST", _ext._LIST.replace("ulimit -t 10;", "ulimit -t 1;"))
    assert _ext.listings(_run.Runner(timeout=60), [endless, victim]) == {}
    assert _ext.listings(_run.Runner(timeout=60), [victim]) == {victim.path: ["etc", "lost+found", "usr"]}
