# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What file systems say of their own state, read without mounting them. Private to this collection.

Sources of the offsets: Documentation/filesystems/ext4 of the kernel, btrfs_tree.h, msdos_fs.h and xfs_format.h of its sources.
"""

from __future__ import annotations

import struct

from .._kernel import Kernel
from ._devices import EXT, Device


def needs_replay(kernel: Kernel, device: Device) -> bool | None:
    """Whether its journal, or log, must be replayed before it is whole; None: that cannot be told from here."""
    block = _ext(kernel, device)
    if block:
        return bool(struct.unpack_from("<I", block, 0x60)[0] & 0x4)  # INCOMPAT_RECOVER
    block = kernel.head(device.path, 65536, 104) if device.type == "btrfs" else b""
    return bool(struct.unpack_from("<Q", block, 96)[0]) if block[64:72] == b"_BHRfS_M" else None  # log_root


def is_dirty(kernel: Kernel, device: Device) -> bool | None:
    """Whether it was not unmounted cleanly, or has errors recorded; None: that cannot be told from here."""
    block = _ext(kernel, device)
    if block:
        state = struct.unpack_from("<H", block, 0x3A)[0]
        return not state & 1 or bool(state & 2) or bool(needs_replay(kernel, device))  # EXT4_VALID_FS, EXT4_ERROR_FS
    block = kernel.head(device.path, 0, 512) if device.type == "vfat" else b""
    if len(block) == 512:
        is_fat32 = struct.unpack_from("<H", block, 0x16)[0] == 0
        return bool(block[0x41 if is_fat32 else 0x25] & 1)  # FAT_STATE_DIRTY
    return None


def has_orphans(kernel: Kernel, device: Device) -> bool:
    """Whether an ext2, ext3 or ext4 has, or may have, a list of orphaned inodes, which the kernel would work off."""
    block = _ext(kernel, device)
    if not block:
        return True
    # s_last_orphan, or RO_COMPAT_ORPHAN_PRESENT
    return bool(struct.unpack_from("<I", block, 0xE8)[0] or struct.unpack_from("<I", block, 0x64)[0] & 0x10000)


def has_quota(kernel: Kernel, device: Device) -> bool:
    """Whether quotas are on in an XFS."""
    block = kernel.head(device.path, 0, 512) if device.type == "xfs" else b""
    return block[:4] == b"XFSB" and len(block) == 512 and struct.unpack_from(">H", block, 176)[0] != 0  # sb_qflags


def _ext(kernel: Kernel, device: Device) -> bytes:
    """The superblock of an ext2, ext3 or ext4, or b""."""
    block = kernel.head(device.path, 1024, 1024) if device.type in EXT else b""
    return block if len(block) == 1024 and block[0x38:0x3A] == b"\x53\xef" else b""
