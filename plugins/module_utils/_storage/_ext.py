# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is told of an ext2, ext3 or ext4 without mounting it. Private to this collection."""

from __future__ import annotations

import re
import struct
import typing as t

from .._run import Runner
from ._devices import EXT, Device
from ._kernel import Kernel

# One process lists them all, read-only and without a look at the bitmaps. It reads what a hostile disk may say, so that its
# time (seconds of processor), its memory (KiB) and what it prints (bytes) have an end.
_LIST = "ulimit -t 10; ulimit -v 1048576; debugfs -f - 2>&1 | head -c 4194304"
# What can be written in a line of commands as it is.
_PLAIN = re.compile(r"/dev/[A-Za-z0-9/_.+-]+\Z")
_VERSION = re.compile(r"debugfs [0-9]")
# Inode, mode, owner, group, name, size (of a directory: nothing).
_ENTRY = re.compile(r"/[0-9]+/[0-7]+/[0-9]+/[0-9]+/(.*)/[0-9]*/\Z")


def needs_replay(kernel: Kernel, device: Device) -> bool | None:
    """Whether its journal must be replayed before it is whole; None: it is no ext2, ext3 or ext4."""
    block = _superblock(kernel, device)
    return bool(struct.unpack_from("<I", block, 0x60)[0] & 0x4) if block else None  # INCOMPAT_RECOVER


def has_orphans(kernel: Kernel, device: Device) -> bool:
    """Whether there is, or may be, a list of orphaned inodes, which the kernel would work off."""
    block = _superblock(kernel, device)
    if not block:
        return True
    # s_last_orphan, or RO_COMPAT_ORPHAN_PRESENT
    return bool(struct.unpack_from("<I", block, 0xE8)[0] or struct.unpack_from("<I", block, 0x64)[0] & 0x10000)


def _superblock(kernel: Kernel, device: Device) -> bytes:
    """The superblock, or b"" (the offsets: Documentation/filesystems/ext4 of the kernel)."""
    block = kernel.head(device.path, 1024, 1024) if device.type in EXT else b""
    return block if len(block) == 1024 and block[0x38:0x3A] == b"\x53\xef" else b""


def listings(run: Runner, devices: t.Iterable[Device]) -> dict[str, list[str]]:
    """Names in the top directory of each of these that is an ext2, ext3 or ext4. Path to sorted names.

    A hundred of them take a tenth of a second, where mounting them takes seconds. Where anything is odd, which may be a file
    system that is broken, a name with a line feed, a rescue system without debugfs(8): nothing.
    """
    paths = [device.path for device in devices if device.type in EXT and _PLAIN.match(device.path)]
    if not paths:
        return {}
    commands = [command for path in paths for command in (f"open -c {path}", "ls -p /", "close")]
    told = run(["/bin/sh", "-c", _LIST], stdin="\n".join([*commands, ""]), check=False).out
    return _parse(told, paths, commands)


def _parse(told: str, paths: t.Sequence[str], commands: t.Sequence[str]) -> dict[str, list[str]]:
    """Of each command there must be one line that repeats it, in their order, and none too many: a name may look like one."""
    found: dict[str, list[str]] = {path: [] for path in paths}
    seen: list[str] = []
    # not splitlines(): a name may have other characters that end a line in Python's eyes
    for line in told.split("\n"):
        entry = _ENTRY.match(line)
        if line.startswith("debugfs: "):
            seen.append(line[len("debugfs: "):])
        elif entry and seen and len(seen) <= len(commands):
            found[paths[(len(seen) - 1) // 3]].append(entry.group(1))
        elif line and not (_VERSION.match(line) and not seen):
            return {}
    whole = seen == list(commands) and all({".", ".."} <= set(names) for names in found.values())
    return {path: sorted(set(names) - {".", ".."}) for path, names in found.items()} if whole else {}
