# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ends steps whose runner is gone: a process of its own, for the runner may be killed without a warning.

    python guard.py DIRECTORY...

Standard input has a line for each process group: +ID when it has begun, -ID when it has ended. At the end of it, those that have
not ended are, and the directories are removed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

PATIENCE = 30.0  # seconds for a process to tidy up


def end_groups(groups: Iterable[int], patience: float = PATIENCE) -> None:
    """End process groups as Ctrl-C does, so that they can tidy up, all at a time; after patience seconds, hard."""
    left = set(groups)
    deadline = time.monotonic() + patience
    for group in left:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGINT)
    while (left := {group for group in left if _leads(group)}) and time.monotonic() < deadline:
        time.sleep(0.05)
    for group in groups:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


def _leads(group: int) -> bool:
    """Whether the process that the group was made for is there and has not ended, whoever its parent is."""
    try:
        return Path(f"/proc/{group}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


class Guard:
    """The runner's end of it: a context manager. directories: what to remove if we are gone before it is left."""

    def __init__(self, *directories: Path):
        self._process = subprocess.Popen([sys.executable, __file__, *map(str, directories)], stdin=subprocess.PIPE, bufsize=0,
                                         stdout=subprocess.DEVNULL, start_new_session=True)

    def __enter__(self) -> Guard:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """End it; nothing is left to be guarded."""
        self._process.kill()
        self._process.communicate()

    def began(self, group: int) -> None:
        self._tell(f"+{group}\n")

    def ended(self, group: int) -> None:
        self._tell(f"-{group}\n")

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode())  # one write(2), so that lanes do not mix theirs


def main() -> None:
    """Wait for the end of standard input."""
    groups: set[int] = set()
    for line in sys.stdin:
        if line.startswith("+"):
            groups.add(int(line[1:]))
        else:
            groups.discard(int(line[1:]))
    end_groups(groups)
    for directory in sys.argv[1:]:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
