# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What file systems say of their state, as their own tools have written it."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from ansible_collections.lifeboat.rescue.plugins.module_utils._rescue._kernel import Kernel
from ansible_collections.lifeboat.rescue.plugins.module_utils._rescue._storage._devices import Device
from ansible_collections.lifeboat.rescue.plugins.module_utils._rescue._storage._superblock import (
    has_orphans,
    has_quota,
    is_dirty,
    needs_replay,
)


def tool(name, *arguments):
    program = shutil.which(name, path="/usr/sbin:/sbin:/usr/bin:/bin")
    if not program:
        pytest.skip(f"needs {name}")
    subprocess.run([program, *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image"
    with path.open("wb") as file:
        file.truncate(64 << 20)
    return path


def told(path, kind):
    device = Device(str(path), "1:1", "disk", tag={"TYPE": kind})
    return needs_replay(Kernel(), device), is_dirty(Kernel(), device), has_orphans(Kernel(), device)


@pytest.mark.parametrize(("kind", "change", "expected"), [
    ("ext4", None, (False, False, False)),
    ("ext2", None, (False, False, False)),
    ("ext4", "set_super_value state 0", (False, True, False)),  # it was mounted without a journal, and never unmounted
    ("ext4", "set_super_value state 3", (False, True, False)),  # it was unmounted, but an error was met
    ("ext4", "feature needs_recovery", (True, True, False)),
    ("ext3", "set_super_value last_orphan 12", (False, False, True)),
])
def test_ext(image, kind, change, expected):
    tool("mke2fs", "-q", "-t", kind, image)
    if change:
        tool("debugfs", "-w", "-R", change, image)
    assert told(image, kind) == expected


@pytest.mark.parametrize(("bits", "offset"), [(16, 0x25), (32, 0x41)])
def test_vfat(image, bits, offset):
    tool("mkfs.vfat", "-F", bits, image)
    assert told(image, "vfat")[:2] == (None, False)
    with image.open("r+b") as file:
        file.seek(offset)
        file.write(b"\1")
    assert told(image, "vfat")[:2] == (None, True)


def test_btrfs(image):
    """As btrfs-progs prints it: log_root, at 96 of the superblock."""
    with image.open("r+b") as file:
        file.seek(65536 + 64)
        file.write(b"_BHRfS_M")
    assert told(image, "btrfs")[:2] == (False, None)
    with image.open("r+b") as file:
        file.seek(65536 + 96)
        file.write((30556160).to_bytes(8, "little"))
    assert told(image, "btrfs")[:2] == (True, None)


@pytest.mark.parametrize("on", [False, True])
def test_quotas_of_xfs(image, on):
    """uquota_acct and its like, as xfs_db prints them: sb_qflags."""
    with image.open("r+b") as file:
        file.truncate(512 << 20)
    tool("mkfs.xfs", "-q", image)
    if on:
        tool("xfs_db", "-x", "-c", "sb 0", "-c", "write qflags 0x3", image)
    assert has_quota(Kernel(), Device(str(image), "1:1", "disk", tag={"TYPE": "xfs"})) is on


@pytest.mark.parametrize("kind", ["ext4", "vfat", "btrfs", "xfs"])
def test_what_cannot_be_read_is_not_known(tmp_path, kind):
    assert told(tmp_path / "gone", kind) == (None, None, True)
    (tmp_path / "short").write_bytes(b"x" * 100)
    assert told(tmp_path / "short", kind) == (None, None, True)
