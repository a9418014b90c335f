# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Work in a mount namespace of its own, so that nothing can be left mounted. Private to this collection."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
import select
import signal
import typing as t

from .._errors import LifeboatError, TargetError
from .._wait import Deadline
from ._loop import loop_over

_CLONE_NEWNS = 0x00020000  # linux/sched.h
# linux/mount.h
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_PRIVATE = 0x1, 0x2, 0x4, 0x8, 0x4000, 0x40000


def apart(work: t.Callable[[], t.Any], timeout: float = 300.0) -> t.Any:
    """Call work() in a child process with its own mount namespace. Return what it returns, which must be JSON data.

    When the child ends, by whatever way, the kernel unmounts all that it mounted. Errors of the collection come
    through as TargetError. Raise it as well when the child dies or takes longer than timeout seconds.
    """
    source, sink = os.pipe()
    pid = os.fork()
    if pid == 0:
        answer = b""
        try:
            os.close(source)
            answer = _answer(work)
            with os.fdopen(sink, "wb") as file:
                file.write(answer)
        finally:
            os._exit(0 if answer else 1)
    os.close(sink)
    try:
        data = _read(source, Deadline(timeout))
    finally:
        os.close(source)
        if os.waitpid(pid, os.WNOHANG)[0] == 0:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    try:
        answer = json.loads(data)
    except ValueError:
        raise TargetError(f"Reading the disks did not end within {timeout:g} s, or its process was killed.") from None
    if "error" in answer:
        raise TargetError(answer["error"])
    return answer["value"]


def _answer(work: t.Callable[[], t.Any]) -> bytes:
    try:
        _leave_mount_namespace()
        answer = {"value": work()}
    except LifeboatError as exc:
        answer = {"error": str(exc)}
    except Exception as exc:
        answer = {"error": f"Reading the disks failed: {type(exc).__name__}: {exc}"}
    return json.dumps(answer).encode()


class NoLoop(OSError):
    """No loop device could be made: the kernel has none, or may not."""


def mount_for_a_look(device: str, place: str, fstype: str, options: str, loop: bool = False) -> None:
    """Mount a file system, read-only; with loop, over a loop device that is read-only too, and goes with the mount.

    mount(2): a rescue system may have a hundred devices, and mount(8), which looks for each at all the loop devices that there
    are, would take most of the time. Raises OSError, NoLoop where there was no loop device.
    """
    with contextlib.ExitStack() as opened:
        source = device
        if loop:
            try:
                source = opened.enter_context(loop_over(device))
            except OSError as exc:
                raise NoLoop(*exc.args) from exc
        _mount(source, place, fstype, _MS_RDONLY | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, options)


def _leave_mount_namespace() -> None:
    try:
        if _libc().unshare(_CLONE_NEWNS) != 0:
            raise _errno()
        _mount("none", "/", None, _MS_REC | _MS_PRIVATE, None)
    except OSError as exc:
        raise TargetError(f"This needs root, and a mount namespace: {exc.strerror}.") from None


def _mount(source: str, place: str, fstype: str | None, flags: int, options: str | None) -> None:
    """mount(2). Raises OSError."""
    fstype_, options_ = (None if word is None else os.fsencode(word) for word in (fstype, options))
    if _libc().mount(os.fsencode(source), os.fsencode(place), fstype_, ctypes.c_ulong(flags), options_) != 0:
        raise _errno()


@functools.lru_cache(None)
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _errno() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


def _read(source: int, deadline: Deadline) -> bytes:
    data = bytearray()
    while not deadline.passed:
        if select.select([source], [], [], deadline.left)[0]:
            chunk = os.read(source, 1 << 16)
            if not chunk:
                break
            data += chunk
    return bytes(data)
