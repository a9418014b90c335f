# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The names at the top of real ext file systems, read by the real debugfs(8)."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import struct
import subprocess

import pytest

from ansible_collections.lifeboat.rescue.plugins.module_utils._rescue import _command
from ansible_collections.lifeboat.rescue.plugins.module_utils._rescue._storage import _ext4_listing
from ansible_collections.lifeboat.rescue.plugins.module_utils._rescue._storage._devices import Device


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Make ext file systems with these names at their top. Files stand for devices, which debugfs does not care about."""
    if not shutil.which("debugfs", path="/usr/sbin:/sbin"):
        pytest.skip("needs debugfs")
    monkeypatch.setattr(_ext4_listing, "_PLAIN", re.compile(r"/[A-Za-z0-9/_.+-]+\Z"))

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
    found = _ext4_listing.listings(_command.Runner(timeout=60), devices)
    assert found[devices[0].path] == sorted(["etc", "a b", "\udcff\udc85", "'\"$x", "lost+found"])
    assert found[devices[1].path] == ["lost+found"]
    assert len(found[devices[2].path]) == 3001
    assert [digest(device) for device in devices] == before


def test_a_real_name_like_a_command(made):
    liar = made("ext4", b"x\ndebugfs: close")
    assert _ext4_listing.listings(_command.Runner(timeout=60), [liar, made("ext4", b"etc")]) == {}


def test_a_broken_one(made):
    broken = made("ext4", b"etc")
    with open(broken.path, "r+b") as file:
        file.seek(1024)
        file.write(bytes(1024))
    assert _ext4_listing.listings(_command.Runner(timeout=60), [made("ext4"), broken]) == {}


def test_one_without_end_ends(made, monkeypatch):
    """A top directory whose tree of extents leads to one and the same block over and over, with a name that speaks for another disk."""
    victim = made("ext4", b"etc", b"usr")
    forged = (f"x//\n\ndebugfs: close\n# 0123\ndebugfs: open -c {victim.path}\ndebugfs: ls -p /\n"
              "/2/0/0/0/.//\n/2/0/0/0/..//\n\ndebugfs: close\n# 0123\n").encode()
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
    monkeypatch.setattr(_ext4_listing, "_LIST", _ext4_listing._LIST.replace("ulimit -t 10;", "ulimit -t 1;"))
    assert _ext4_listing.listings(_command.Runner(timeout=60), [endless, victim]) == {}
    assert _ext4_listing.listings(_command.Runner(timeout=60), [victim]) == {victim.path: ["etc", "lost+found", "usr"]}
