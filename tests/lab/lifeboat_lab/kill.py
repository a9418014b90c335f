# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs Ansible in a world and kills it, with all of its workers, at a given moment."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from .recipe import LabError
from .waiting import until
from .world import World

# Whether it is time: by the world, and by what Ansible has printed so far.
Moment = Callable[[World, str], bool]


def phase(world: World) -> str:
    """The phase in the record of the one session that there is; empty where there is none."""
    try:
        return str(json.loads(next(world.sessions.rglob("session.json")).read_text())["phase"])
    except (StopIteration, OSError, ValueError):
        return ""


def descendants(pid: int) -> list[int]:
    """Children, and theirs."""
    children: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            children += map(int, path.read_text().split())
    return children + [grandchild for child in children for grandchild in descendants(child)]


def run_and_kill(world: World, program: str, arguments: Sequence[str], moment: Moment, timeout: float = 400) -> str:
    """Run `program`, kill it without a warning at the moment, and return what it had printed.

    Raises LabError where it ended before, or where the moment has not come after so many seconds.
    """
    process = subprocess.Popen(world.command(program, arguments), env=world.ansible_environment(),
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said = bytearray()
    assert process.stdout is not None
    fd = process.stdout.fileno()

    def read() -> None:
        for block in iter(lambda: os.read(fd, 65536), b""):
            said.extend(block)

    reader = threading.Thread(target=read)
    reader.start()

    def has_come() -> bool:
        if moment(world, said.decode(errors="replace")):
            return True
        if process.poll() is not None:
            raise LabError(f"It ended before the moment came:\n{said.decode(errors='replace')}")
        return False

    try:
        until(has_come, timeout, lambda: said.decode(errors="replace"), every=0.01)
    finally:
        # Ansible's workers are in sessions of their own.
        for pid in [process.pid, *descendants(process.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
        # ssh's kept connections hold the pipe a few seconds longer
        reader.join(60)
        process.stdout.close()
    return said.decode(errors="replace")
