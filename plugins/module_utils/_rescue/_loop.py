# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Loop devices that nobody has to take down. Private to this collection.

By the kernel's own calls and not by losetup(8), which has no word for that, and which takes long where there are many.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import typing as t

# linux/loop.h
_LOOP_SET_FD, _LOOP_SET_STATUS64, _LOOP_CONFIGURE, _LOOP_CTL_GET_FREE = 0x4C00, 0x4C04, 0x4C0A, 0x4C82
_LO_FLAGS_READ_ONLY, _LO_FLAGS_AUTOCLEAR = 1, 4


@contextlib.contextmanager
def loop_over(path: str, read_only: bool = True) -> t.Iterator[str]:
    """The path of a new loop device over a file or a device. It goes when it is neither in here nor used any more.

    Raises OSError.
    """
    with contextlib.ExitStack() as opened:
        flags = os.O_RDONLY if read_only else os.O_RDWR
        below = _opened(opened, path, flags)
        control = _opened(opened, "/dev/loop-control", os.O_RDWR)
        status = struct.pack("=5Q4I64s64s32s2Q", 0, 0, 0, 0, 0, 0, 0, 0,
                             _LO_FLAGS_AUTOCLEAR | (_LO_FLAGS_READ_ONLY if read_only else 0), os.fsencode(path)[:63], b"", b"", 0, 0)
        for _try in range(100):
            device = f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
            # Where that is enough, for reading: closed after writing, it would be looked at by udev once more.
            loop = _opened(opened, device, flags)
            try:
                _configure(loop, below, status)
            except OSError as exc:
                if exc.errno != errno.EBUSY:
                    raise
                continue  # somebody was faster
            yield device
            return
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
