# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The words in which an image of the zoo is described: how it is made, and what is to be found on it."""

from __future__ import annotations

import dataclasses
import hashlib
import uuid
from collections.abc import Mapping

from .trees import Tree

# Where something lies: "0" is the first disk, "0.3" its third partition, "md:NAME" an array, "crypt:NAME" an opened
# LUKS container, "lv:VG/LV" a logical volume.
Where = str


@dataclasses.dataclass(frozen=True)
class Disk:
    """One disk. size: MiB. bus: virtio-scsi, virtio-blk or nvme; that it is told as it is built is only for sizes.

    serial: at most 20 characters. wwn: virtio-scsi only. paths: it is seen so many times. bad: byte offsets whose sectors
    cannot be read.
    """

    size: int
    bus: str = "virtio-scsi"
    serial: str = ""
    wwn: int | None = None
    paths: int = 1
    bad: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Content:
    """What the start of a device says: type as blkid names it, UUID and label of what is there ("": none)."""

    where: Where
    type: str
    uuid: str = ""
    label: str = ""


@dataclasses.dataclass(frozen=True)
class Mount:
    """What belongs at path in an installed system. subvolume: of btrfs, as mount takes it; None: the default one."""

    path: str
    where: Where
    type: str
    uuid: str
    subvolume: str | None = None


@dataclasses.dataclass(frozen=True)
class System:
    """An installed system: what its os-release and hostname say, how it boots (bios, uefi, unknown), what is mounted.

    mounts: the root first. left_out: what fstab has besides, each first field (and mount point where that is not
    unique, with a blank between) with the reason: swap, noauto, missing, network, pseudo, second (a later line for the
    same place), short (too few fields), bind, loop.
    secret: key of Image.secrets by which it opens; "" where it is not encrypted.
    """

    id: str
    hostname: str
    boot_mode: str
    mounts: tuple[Mount, ...]
    left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def root(self) -> Mount:
        return self.mounts[0]


@dataclasses.dataclass(frozen=True)
class Secret:
    """What opens the LUKS container at where; opened: the name it has as a Where. key: passphrase or key file's bytes.

    file: the path of the key file in the installed system's crypttab, "" for a passphrase.
    """

    where: Where
    opened: Where
    key: bytes
    file: str = ""


@dataclasses.dataclass(frozen=True)
class Image:
    """One image. See `zoo` for all there are.

    story: why it is here. recipe: a shell script, see builder.sh. trees: what the recipe fills in, by name.
    of: the image whose disks these are, for another look at them; then there is no recipe. only: numbers of the disks
    that are there (all, where that is empty). pulled: the disks are pulled out while all is mounted.
    table: of each disk, gpt, dos or "". contents: of every device that has any, but for what lies inside virtual
    machines or snapshots. systems: the installed ones. not_systems: where something looks like one, with the reason.
    secrets: what is needed to open what is encrypted. after_replay: path of a file of the root that is there once the
    journal has been replayed, and not before.
    """

    name: str
    story: str
    disks: tuple[Disk, ...]
    recipe: str = ""
    trees: Mapping[str, Tree] = dataclasses.field(default_factory=dict)
    of: str = ""
    only: tuple[int, ...] = ()
    pulled: bool = False
    table: tuple[str, ...] = ()
    contents: tuple[Content, ...] = ()
    systems: tuple[System, ...] = ()
    not_systems: Mapping[Where, str] = dataclasses.field(default_factory=dict)
    secrets: tuple[Secret, ...] = ()
    after_replay: str = ""

    @property
    def present(self) -> tuple[int, ...]:
        """Numbers of the disks that are there."""
        return self.only or tuple(range(len(self.disks)))

    def serial(self, number: int) -> str:
        """Return the serial of a disk."""
        return self.disks[number].serial or f"{hashlib.sha256((self.of or self.name).encode()).hexdigest()[:12]}-{number}"


def uid(image: str, what: str) -> str:
    """Return the UUID that something of an image has, the same each time it is built."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"zoo:{image}/{what}"))


def vfat_id(image: str, what: str) -> str:
    """Return the same for a vfat, as blkid prints it."""
    short = uid(image, what).upper()
    return f"{short[:4]}-{short[4:8]}"


def md_id(image: str, what: str) -> str:
    """Return the same for an array, as mdadm takes and prints it."""
    plain = uuid.UUID(uid(image, what)).hex
    return ":".join(plain[start:start + 8] for start in range(0, 32, 8))


def lvm_id(image: str, what: str) -> str:
    """Return the same for a physical volume."""
    digest = hashlib.sha256(f"{image}/{what}".encode()).hexdigest()[:32]
    return "-".join((digest[:6], digest[6:10], digest[10:14], digest[14:18], digest[18:22], digest[22:26], digest[26:]))
