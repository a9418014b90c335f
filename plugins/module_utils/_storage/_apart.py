# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Work in a mount namespace of its own, so that nothing can be left mounted. Private to this collection."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import functools
import json
import os
import select
import signal
import struct
import typing as t

from .._errors import LifeboatError, TargetError
from .._wait import Deadline

_CLONE_NEWNS = 0x00020000  # linux/sched.h
# linux/mount.h
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_PRIVATE = 0x1, 0x2, 0x4, 0x8, 0x4000, 0x40000
# linux/loop.h
_LOOP_SET_FD, _LOOP_SET_STATUS64, _LOOP_CONFIGURE, _LOOP_CTL_GET_FREE = 0x4C00, 0x4C04, 0x4C0A, 0x4C82
_LO_FLAGS_READ_ONLY, _LO_FLAGS_AUTOCLEAR = 1, 4


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
                source = _loop_over(opened, device)
            except OSError as exc:
                raise NoLoop(*exc.args) from exc
        _mount(source, place, fstype, _MS_RDONLY | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, options)


def _loop_over(opened: contextlib.ExitStack, device: str) -> str:
    """A new loop device over a device. It is gone when it is neither open nor mounted any more."""
    below = _opened(opened, device, os.O_RDONLY)
    control = _opened(opened, "/dev/loop-control", os.O_RDWR)
    status = struct.pack("=5Q4I64s64s32s2Q", 0, 0, 0, 0, 0, 0, 0, 0, _LO_FLAGS_READ_ONLY | _LO_FLAGS_AUTOCLEAR,
                         os.fsencode(device)[:63], b"", b"", 0, 0)
    for _try in range(100):
        path = f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
        # For reading, or udev would look at it once more when it is closed.
        loop = _opened(opened, path, os.O_RDONLY)
        try:
            _configure(loop, below, status)
        except OSError as exc:
            if exc.errno != errno.EBUSY:
                raise
            continue  # somebody was faster
        return path
    raise OSError(errno.EBUSY, "no loop device is free")


def _configure(loop: int, below: int, status: bytes) -> None:
    try:
        # One call, for which the kernel stops the device once and not twice.
        fcntl.ioctl(loop, _LOOP_CONFIGURE, struct.pack("=2I", below, 0) + status + bytes(64))
    except OSError as exc:
        if exc.errno not in (errno.EINVAL, errno.ENOTTY):
            raise
        fcntl.ioctl(loop, _LOOP_SET_FD, below)  # Linux before 5.8
        fcntl.ioctl(loop, _LOOP_SET_STATUS64, status)


def _opened(stack: contextlib.ExitStack, path: str, flags: int) -> int:
    fd = os.open(path, flags | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    return fd


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
