# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Puts GRUB's boot code into a disk image.

grub-bios-setup does the same, but wants block devices. What to write where: grub-core/boot/i386/pc/boot.S,
diskboot.S, include/grub/i386/pc/boot.h and util/setup.c of GRUB 2.
"""

from __future__ import annotations

import struct
from pathlib import Path

SECTOR = 512
BOOT_CODE = 440  # what of the first sector is code; disk id and partition table follow
BPB = slice(0x03, 0x5A)  # BIOS parameter block: belongs to the disk, not to the boot code
KERNEL_SECTOR = 0x5C  # where boot.img reads core.img from
DRIVE_CHECK = 0x66  # two NOPs here: do not trust the drive number of the BIOS blindly
BLOCK_LIST = SECTOR - 12  # in the first sector of core.img: where the rest of it is (sector, length, segment)


def install(disk: Path, boot_img: bytes, core_img: bytes, sector: int) -> None:
    """Write boot_img to the first sector of disk and core_img to the place that starts at sector.

    The place is the BIOS boot partition of a GPT disk, or the gap before the first partition of an MBR disk.
    """
    core = bytearray(core_img + b"\0" * (-len(core_img) % SECTOR))
    struct.pack_into("<Q", core, BLOCK_LIST, sector + 1)
    with disk.open("r+b") as image:
        old = image.read(SECTOR)
        boot = bytearray(boot_img[:BOOT_CODE] + old[BOOT_CODE:])
        boot[BPB] = old[BPB]
        struct.pack_into("<Q", boot, KERNEL_SECTOR, sector)
        struct.pack_into("<H", boot, DRIVE_CHECK, 0x9090)
        image.seek(0)
        image.write(boot)
        image.seek(sector * SECTOR)
        image.write(core)
