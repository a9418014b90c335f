# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Work in a mount namespace of its own, so that nothing can be left mounted. Private to this collection."""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import typing as t

from .._errors import LifeboatError, TargetError
from .._wait import Deadline

_CLONE_NEWNS = 0x00020000  # linux/sched.h
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000  # linux/mount.h


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


def _leave_mount_namespace() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    for call in (lambda: libc.unshare(_CLONE_NEWNS),
                 lambda: libc.mount(b"none", b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None)):
        if call() != 0:
            raise TargetError(f"This needs root, and a mount namespace: {os.strerror(ctypes.get_errno())}.")


def _read(source: int, deadline: Deadline) -> bytes:
    data = bytearray()
    while not deadline.passed:
        if select.select([source], [], [], deadline.left)[0]:
            chunk = os.read(source, 1 << 16)
            if not chunk:
                break
            data += chunk
    return bytes(data)
