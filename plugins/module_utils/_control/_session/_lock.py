# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One job of this controller at a time on one server. Private to this collection."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
import typing as t

from ..._errors import BadInput, Busy
from ..._wait import Backoff, Clock


class Lock:
    """A file that one process holds. The kernel drops the lock with that process, so it cannot be left behind.

    Whoever ends last may remove the file.
    """

    def __init__(self, path: str, tell: t.Callable[[str], None]):
        """tell: takes a line when somebody else is waited for."""
        self.path = path
        self._tell = tell
        self._handle = -1

    @contextlib.contextmanager
    def held(self, timeout: float, clock: Clock) -> t.Iterator[None]:
        """Take it, or Busy after so many seconds. BadInput where the file cannot be made, or locked at all."""
        told: list[bool] = []

        def take() -> bool | None:
            taken = self._take()
            if not taken and not told:
                told.append(True)
                self._tell(f"another job on this controller is using this server ({self._holder()}); waiting for it, for "
                           f"at most {timeout:.0f} s")
            return taken or None

        def on_timeout() -> Exception:
            return Busy(f"Another job has been at work on this server for more than {timeout:g} s ({self._holder()}).",
                        state="This job changed nothing.", todo="Wait for it, or end it, and run this again.")

        try:
            clock.wait(timeout, Backoff(0.2, 2.0)).until(take, on_timeout)
            os.ftruncate(self._handle, 0)
            os.pwrite(self._handle, f"process {os.getpid()} since {time.strftime('%Y-%m-%d %H:%M:%S %z')}\n".encode(), 0)
            yield
        finally:
            self._close()

    def _take(self) -> bool:
        """Whether it was free."""
        while True:
            try:
                if self._handle < 0:
                    os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
                    self._handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            except OSError as exc:
                raise self._unusable(exc) from exc
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(self._handle), os.stat(self.path)):
                    return True
            # Who had it has removed the file. Somebody else may have made a new one since then.
            self._close()

    def _unusable(self, exc: OSError) -> BadInput:
        why = exc.strerror or str(exc)
        if exc.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
            return BadInput(f"The file system of {self.path} cannot lock files: {why}.", state="Nothing was changed.",
                            todo="Name a folder on a local disk in session_dir, or in the host's variable lifeboat_session_dir.")
        return BadInput(f"The folder of sessions cannot be written: {os.path.dirname(self.path)}: {why}.", state="Nothing was changed.",
                        todo="Name one that can in session_dir, or in the host's variable lifeboat_session_dir.")

    def _holder(self) -> str:
        return os.pread(self._handle, 200, 0).decode("utf-8", "replace").strip() or "unknown"

    def _close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
