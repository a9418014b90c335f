# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ends steps whose runner is gone: a process of its own, for the runner may be killed without a warning.

    python guard.py MARK DIRECTORY...

A step is known by its environment, which has the run's mark. At the end of standard input those that are still there are ended, and
the directories are removed.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

MARK = "LIFEBOAT_RUN"
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


def steps_of(mark: str) -> set[int]:
    """The sessions whose leader has this mark in its environment."""
    found = set()
    wanted = f"{MARK}={mark}".encode()
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or is somebody else's
            pid = int(path.name)
            if os.getsid(pid) == pid and wanted in (path / "environ").read_bytes().split(b"\0"):
                found.add(pid)
    return found


class Guard:
    """The runner's end of it: a context manager. directories: what to remove if we are gone before it is left."""

    def __init__(self, *directories: Path):
        self.mark = secrets.token_hex(8)
        self._process = subprocess.Popen([sys.executable, __file__, self.mark, *map(str, directories)], stdin=subprocess.PIPE,
                                         stdout=subprocess.DEVNULL, start_new_session=True)

    def __enter__(self) -> Guard:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """End it; nothing is left to be guarded."""
        self._process.kill()
        self._process.communicate()

    def marked(self, environment: Mapping[str, str]) -> dict[str, str]:
        """The environment for a step."""
        return {**environment, MARK: self.mark}


def main() -> None:
    """Wait for the end of standard input."""
    mark, *directories = sys.argv[1:]
    sys.stdin.read()
    for _turn in range(3):  # one may just have been starting
        end_groups(steps_of(mark))
        time.sleep(0.1)
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
