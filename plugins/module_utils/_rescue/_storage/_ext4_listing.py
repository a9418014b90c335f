# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is at the top of an ext2, ext3 or ext4, without mounting it. Private to this collection."""

from __future__ import annotations

import re
import secrets
import typing as t

from .._command import CommandFailed, Runner
from ._devices import EXT, Device

# One process lists them all, read-only and without a look at the bitmaps. It reads what a hostile disk may say, so that its
# time (seconds, of processor and in all), its memory (KiB) and what it prints (bytes) have an end.
_LIST = "ulimit -t 10; ulimit -v 1048576; timeout 50 debugfs -f - 2>&1 | head -c 4194304"
# What can be written in a line of commands as it is.
_PLAIN = re.compile(r"/dev/[A-Za-z0-9/_.+-]+\Z")
_VERSION = re.compile(r"\ndebugfs [0-9][^\n]*\Z")
# Inode, mode, owner, group, name, size (of a directory: nothing).
_ENTRY = re.compile(r"/[0-9]+/[0-7]+/[0-9]+/[0-9]+/(.*)/[0-9]*/\Z")


def listings(run: Runner, devices: t.Iterable[Device]) -> dict[str, list[str]]:
    """Names in the top directory of each of these that is an ext2, ext3 or ext4. Path to sorted names.

    A hundred of them take a tenth of a second, where mounting them takes seconds. Where anything is odd, which may be a file
    system that is broken, a name with a line feed, a rescue system without debugfs(8): nothing.
    """
    paths = [device.path for device in devices if device.type in EXT and _PLAIN.match(device.path)]
    if not paths:
        return {}
    # A comment is repeated as it is. What is on the disks can look like all the rest, but cannot know this one.
    mark = f"# {secrets.token_hex(16)}"
    commands = [command for path in paths for command in (mark, f"open -c {path}", "ls -p /", "close")]
    try:
        told = run(["/bin/sh", "-c", _LIST], stdin="\n".join([*commands, mark, ""]), check=False, timeout=60).out
    except CommandFailed:  # a disk that does not answer
        return {}
    return _parse(told, paths, mark)


def _parse(told: str, paths: t.Sequence[str], mark: str) -> dict[str, list[str]]:
    # The mark comes before each part, and after the last one, where debugfs came that far.
    version, *parts = f"\n{told}".split(f"\n{mark}\n")
    if len(parts) != len(paths) + 1 or parts.pop() or not _VERSION.match(version):
        return {}
    found = {}
    for path, part in zip(paths, parts):
        # not splitlines(): a name may have other characters that end a line in Python's eyes
        lines = part.split("\n")
        names = {match.group(1) for match in map(_ENTRY.match, lines[2:-2]) if match}
        if lines[:2] + lines[-2:] != [f"debugfs: open -c {path}", "debugfs: ls -p /", "", "debugfs: close"] or \
                len(names) != len(lines[2:-2]) or not {".", ".."} <= names:
            return {}
        found[path] = sorted(names - {".", ".."})
    return found
