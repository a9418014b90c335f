# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who is at work on the disks: one call at a time, and one job at a time. Private to this collection.

A call holds the lock of run_dir while it runs; the kernel gives that back when it dies. A job (a run of a playbook) holds the
target from mounting to unmounting, over many calls, by a note in run_dir. When its controller dies the note stays, so it
gets stale: nobody of that job has called for a while, and nothing runs in the target.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import time
import typing as t

from .._errors import Busy, TargetError
from .._wait import Backoff, Wait
from . import _target

# Seconds. A job's tasks call often, or run in the target where they are seen.
STALE = 3600.0

_FILE, _NOTE = "storage.lock", "job.json"


def _now() -> float:
    # Since boot: the clock of a rescue system may be set while it runs.
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _directory(run_dir: str) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(run_dir, 0o700)
    status = os.lstat(run_dir)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise TargetError(f"{run_dir} is not a directory that only its owner can write to.")


def _read(file: str) -> dict[str, t.Any]:
    try:
        with open(file, "rb") as source:
            found = json.load(source)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _age(since: t.Any) -> str:
    seconds = max(0.0, _now() - since) if isinstance(since, (int, float)) else 0.0
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


@contextlib.contextmanager
def locked(run_dir: str, patience: float = 10.0) -> t.Iterator[int]:
    """Hold the lock of run_dir, which is made if need be. Raise Busy when somebody else holds it for longer than patience.

    Gives the descriptor: the lock is held until that is closed in all processes that have it.
    """
    _directory(run_dir)
    path = os.path.join(run_dir, _FILE)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)

    def take() -> bool | None:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        return True

    def late() -> Exception:
        holder = _read(path)
        who = f"Process {holder['pid']}" if "pid" in holder else "Another process"
        return Busy(f"{who} has been at work on the disks here for {_age(holder.get('since'))}.", "This call changed nothing.",
                    "Run it again when that has ended.")

    try:
        Wait(patience, Backoff(0.05, 0.5)).until(take, late)
        os.ftruncate(fd, 0)
        os.pwrite(fd, json.dumps({"pid": os.getpid(), "since": _now()}).encode(), 0)
        yield fd
    finally:
        os.close(fd)


class Job:
    """A job, and its note. owner: what tells it apart from others, "" for a call that belongs to none."""

    def __init__(self, run_dir: str, owner: str):
        self.owner = owner
        self._file = os.path.join(run_dir, _NOTE)
        self._used = os.path.join(run_dir, _target.NAMESPACE_USED)

    def admit(self, at_work: t.Callable[[], bool], take_over: t.Container[str] = ()) -> None:
        """Raise Busy where another job holds the target. at_work: whether something runs in it.

        take_over: owners that are known to be gone, or "*".
        """
        note = _read(self._file)
        owner = note.get("owner", "")
        if not owner or owner == self.owner or owner in take_over or "*" in take_over:
            return
        if self._silence(note) > STALE and not at_work():
            return
        raise Busy(f"The target belongs to another job, {owner}, since {_age(note.get('since'))}; its last sign of life was "
                   f"{_age(_now() - self._silence(note))} ago.", "This call changed nothing.",
                   "Wait until that has ended; or, if it is dead, set take_over=true (mount_and_chroot_take_over=true, "
                   "exit_rescue_take_over=true of the roles).", {"owner": owner})

    def _silence(self, note: dict[str, t.Any]) -> float:
        """Seconds since the job called, or something of it entered the target's namespace."""
        silence: float = _now() - note.get("last", 0)
        try:
            return min(silence, max(0.0, time.time() - os.stat(self._used).st_mtime))
        except OSError:
            return silence

    def hold(self) -> None:
        """Note that the target is this job's, and that it has called."""
        note = _read(self._file)
        if not self.owner:
            return
        since = note.get("since", _now()) if note.get("owner") == self.owner else _now()
        temporary = self._file + ".new"
        with contextlib.suppress(FileNotFoundError):  # there is one where somebody was killed right here
            os.unlink(temporary)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w") as file:
            json.dump({"owner": self.owner, "since": since, "last": _now()}, file)
        os.rename(temporary, self._file)

    def release(self) -> None:
        """The target is nobody's."""
        with contextlib.suppress(FileNotFoundError):  # nor was it before
            os.unlink(self._file)
