# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""All images of the zoo: how each is made, and what is to be found on it.

In all texts <NAME> stands for a UUID that the image has the same each time it is built; <vfat:NAME>, <md:NAME> and
<pv:NAME> for the same as a vfat, an md array and a physical volume have it. What is in WORDS stays as it is.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from .describe import Content, Disk, Image, Mount, Secret, System, lvm_id, md_id, uid, vfat_id
from .trees import Debian, Plain, Tree

IMAGES: dict[str, Image] = {}

WORDS = "system|type|options"
_KINDS = {None: uid, "vfat": vfat_id, "md": md_id, "pv": lvm_id}


def _filled(value: Any, image: str) -> Any:
    """Return value with the names of UUIDs replaced, whatever it is made of."""
    if isinstance(value, str):
        return re.sub(rf"<(?:(vfat|md|pv):)?(?!(?:{WORDS})>)([a-z][a-z0-9-]*)>", lambda match: _KINDS[match[1]](image, match[2]), value)
    if isinstance(value, tuple):
        return tuple(_filled(part, image) for part in value)
    if isinstance(value, Mapping):
        return {_filled(name, image): _filled(part, image) for name, part in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.replace(value, **{field.name: _filled(getattr(value, field.name), image)
                                             for field in dataclasses.fields(value)})
    return value


def _add(image: Image) -> None:
    IMAGES[image.name] = _filled(image, image.name)


def _again(of: str, **differences: Any) -> None:
    """Add an image that is the disks of another one, seen in another way."""
    image = dataclasses.replace(IMAGES[of], of=of, recipe="", trees={}, **differences)
    IMAGES[image.name] = _filled(image, of)


# One disk, plain partitions ------------------------------------------------------------------------------------------

_add(Image(
    "gpt-bios-ext4", "The plainest server, with a fstab that is not.", (Disk(96),),
    """
gpt $D0 'size=64MiB, type=L' 'size=16MiB, type=L'
ext4 <root> ${P0}2
ext4 <data> -L 'data disk' ${P0}3
at / ${P0}2
at '/srv/my data' ${P0}3
fill root
dd if=/dev/zero of=/target/swapfile bs=64k count=4 status=none
chmod 600 /target/swapfile
mkswap -q /target/swapfile 2>/dev/null
""",
    {"root": Tree("debian", "plain1", "# <file system> <mount point>   <type>  <options>\n\n"
                  "UUID=<root>\t/ \t ext4\terrors=remount-ro 0\t1\n"
                  "LABEL=data\\040disk\t/srv/my\\040data\text4\tdefaults,nofail\t0 2\n"
                  "UUID=0f0f0f0f-1111-2222-3333-444444444444 /mnt/usb ext4 nofail,x-systemd.device-timeout=5 0 0\n"
                  "/swapfile none swap sw 0 0\n"
                  "tmpfs /tmp tmpfs nosuid,nodev 0 0\n"
                  "/dev/sr0 /media/cdrom0 udf,iso9660 user,noauto 0 0\n"
                  "nas.example.com:/export /mnt/nas nfs _netdev 0 0\n"
                  "/srv /mnt/srv none bind 0 0\n", files={"srv/my data/index.html": "<p>\n"})},
    table=("gpt",),
    contents=(Content("0.2", "ext4", "<root>"), Content("0.3", "ext4", "<data>", "data disk")),
    systems=(System("debian", "plain1", "bios", (
        Mount("/", "0.2", "ext4", "<root>"), Mount("/srv/my data", "0.3", "ext4", "<data>")),
        {"UUID=0f0f0f0f-1111-2222-3333-444444444444": "missing", "/swapfile": "swap", "tmpfs": "pseudo", "/dev/sr0": "noauto",
         "nas.example.com:/export": "network", "/srv": "bind"}),),
))

_add(Image(
    "mbr-root7", "Root on the seventh partition, which fstab knows by the names that another kernel gave them.",
    (Disk(128, bus="virtio-blk"),),
    """
mbr $D0 'start=1MiB, size=16MiB, type=83, bootable' 'start=17MiB, type=5' 'start=18MiB, size=8MiB, type=82' \\
    'start=27MiB, size=16MiB, type=83' 'start=44MiB, size=80MiB, type=83'
ext4 <boot> ${P0}1
swap <swap> ${P0}5
mke2fs -q -t ext3 -U <home> ${P0}6
ext4 <root> ${P0}7
at / ${P0}7
at /boot ${P0}1
at /home ${P0}6
fill root
""",
    {"root": Tree("debian", "seven", "/dev/sda7 / ext4 defaults 0 1\n/dev/sda1 /boot ext4 defaults 0 2\n"
                  "/dev/sda6 /home ext3 defaults 0 2\n/dev/sda5 none swap sw 0 0\n")},
    table=("dos",),
    contents=(Content("0.1", "ext4", "<boot>"), Content("0.5", "swap", "<swap>"), Content("0.6", "ext3", "<home>"),
              Content("0.7", "ext4", "<root>")),
    systems=(System("debian", "seven", "bios", (
        Mount("/", "0.7", "ext4", "<root>"), Mount("/boot", "0.1", "ext4", "<boot>"), Mount("/home", "0.6", "ext3", "<home>")),
        {"/dev/sda5": "swap"}),),
))

_add(Image(
    "gpt-uefi", "ESP, /boot of its own, names of partitions; lines of fstab that are too short, and not too short.",
    (Disk(192),),
    """
table gpt $D0 'size=34MiB, type=U, uuid=<esp-part>, name="EFI System"' 'size=24MiB, type=L, uuid=<boot-part>, name="boot"' \\
    'size=120MiB, type=L, uuid=<root-part>, name="root"'
vfat <vfat:esp> -F 16 -n ESP ${P0}1
ext4 <boot> ${P0}2
xfs <root> -L root ${P0}3
at / ${P0}3
at /boot ${P0}2
at /boot/efi ${P0}1 -o quiet
fill root
""",
    {"root": Tree("rocky", "rocky1", "LABEL=root / xfs\nPARTLABEL=boot /boot ext4 defaults\n"
                  "PARTUUID=<esp-part> /boot/efi vfat umask=0077 0\n/dev/disk/by-label/none /mnt/short\n", "uefi")},
    table=("gpt",),
    contents=(Content("0.1", "vfat", "<vfat:esp>", "ESP"), Content("0.2", "ext4", "<boot>"), Content("0.3", "xfs", "<root>", "root")),
    systems=(System("rocky", "rocky1", "uefi", (
        Mount("/", "0.3", "xfs", "<root>"), Mount("/boot", "0.2", "ext4", "<boot>"), Mount("/boot/efi", "0.1", "vfat", "<vfat:esp>")),
        {"/dev/disk/by-label/none": "short"}),),
))

_add(Image(
    "nvme", "Partitions whose names end in p2, on a disk that fstab calls as it is called.", (Disk(160, bus="nvme"),),
    """
table gpt $D0 'size=34MiB, type=U' 'size=110MiB, type=L'
vfat <vfat:esp> -F 16 ${P0}1
ext4 <root> ${P0}2
at / ${P0}2
at /boot/efi ${P0}1 -o quiet
fill root
""",
    {"root": Tree("ubuntu", "nvme1", "/dev/nvme0n1p2 / ext4 defaults 0 1\n/dev/nvme0n1p1 /boot/efi vfat umask=0077 0 1\n", "uefi")},
    table=("gpt",),
    contents=(Content("0.1", "vfat", "<vfat:esp>"), Content("0.2", "ext4", "<root>")),
    systems=(System("ubuntu", "nvme1", "uefi", (
        Mount("/", "0.2", "ext4", "<root>"), Mount("/boot/efi", "0.1", "vfat", "<vfat:esp>"))),),
))

_add(Image(
    "names", "fstab by by-id, by-path, by-partuuid and by-uuid names; two lines for /, the later one of a disk that is not there.",
    (Disk(128, serial="ZOO-NAMES-1"),),
    """
table gpt $D0 'size=64MiB, type=L' 'size=12MiB, type=L' 'size=12MiB, type=L' 'size=12MiB, type=L, uuid=<opt-part>'
ext4 <root> ${P0}1
ext4 <home> ${P0}2
ext4 <srv> ${P0}3
ext4 <opt> ${P0}4
at / ${P0}1
at /home ${P0}2
at /srv ${P0}3
at /opt ${P0}4
fill root
""",
    {"root": Tree("debian", "names1", "/dev/disk/by-uuid/<root> / ext4 defaults 0 1\n"
                  "/dev/disk/by-uuid/12345678-aaaa-bbbb-cccc-1234567890ab / ext4 defaults 0 1\n"
                  "/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_ZOO-NAMES-1-part2 /home ext4 defaults 0 2\n"
                  "/dev/disk/by-path/pci-0000:00:03.0-scsi-0:0:0:0-part3 /srv ext4 defaults 0 2\n"
                  "/dev/disk/by-partuuid/<opt-part> /opt ext4 defaults 0 2\n", boot="")},
    table=("gpt",),
    contents=(Content("0.1", "ext4", "<root>"), Content("0.2", "ext4", "<home>"), Content("0.3", "ext4", "<srv>"),
              Content("0.4", "ext4", "<opt>")),
    systems=(System("debian", "names1", "unknown", (
        Mount("/", "0.1", "ext4", "<root>"), Mount("/home", "0.2", "ext4", "<home>"), Mount("/opt", "0.4", "ext4", "<opt>"),
        Mount("/srv", "0.3", "ext4", "<srv>")), {"/dev/disk/by-uuid/12345678-aaaa-bbbb-cccc-1234567890ab": "second"}),),
))

_add(Image(
    "separate-usr", "/usr on a partition of its own, so that the root alone has no os-release and no shell.", (Disk(128),),
    """
gpt $D0 'size=48MiB, type=L' 'size=48MiB, type=L'
ext4 <root> ${P0}2
ext4 <usr> ${P0}3
at / ${P0}2
at /usr ${P0}3
fill root
""",
    {"root": Tree("debian", "usr1", "UUID=<root> / ext4 defaults 0 1\nUUID=<usr> /usr ext4 defaults 0 2\n")},
    table=("gpt",),
    contents=(Content("0.2", "ext4", "<root>"), Content("0.3", "ext4", "<usr>")),
    systems=(System("debian", "usr1", "bios", (Mount("/", "0.2", "ext4", "<root>"), Mount("/usr", "0.3", "ext4", "<usr>"))),),
))

_add(Image(
    "whole-disk", "Root on a disk without a partition table.", (Disk(64),),
    "ext4 <root> $D0\nat / $D0\nfill root\n",
    {"root": Tree("debian", "whole1", "/dev/vda / ext4 defaults 0 1\n", boot="")},
    table=("",), contents=(Content("0", "ext4", "<root>"),),
    systems=(System("debian", "whole1", "unknown", (Mount("/", "0", "ext4", "<root>"),)),),
))

_add(Image(
    "f2fs", "Root on f2fs, with swap beside it.", (Disk(160),),
    """
gpt $D0 'size=128MiB, type=L' 'size=16MiB, type=S'
mkfs.f2fs -q -f -U <root> ${P0}2
swap <swap> ${P0}3
at / ${P0}2
fill root
""",
    {"root": Tree("debian", "flash1", "UUID=<root> / f2fs defaults 0 1\nUUID=<swap> none swap sw 0 0\n")},
    table=("gpt",), contents=(Content("0.2", "f2fs", "<root>"), Content("0.3", "swap", "<swap>")),
    systems=(System("debian", "flash1", "bios", (Mount("/", "0.2", "f2fs", "<root>"),), {"UUID=<swap>": "swap"}),),
))

# More than one, and the same twice -----------------------------------------------------------------------------------

_add(Image(
    "two-systems", "Two systems on one disk, each with a fstab of its own.", (Disk(160),),
    """
gpt $D0 'size=64MiB, type=L' 'size=64MiB, type=L'
ext4 <old> ${P0}2
ext4 <new> ${P0}3
at / ${P0}2
fill old
umount /target
at / ${P0}3
fill new
""",
    {"old": Tree("debian", "old1", "UUID=<old> / ext4 defaults 0 1\n"),
     "new": Tree("ubuntu", "new1", "UUID=<new> / ext4 defaults 0 1\nUUID=<old> /mnt/old ext4 defaults,ro 0 2\n",
                 files={"mnt/old/.keep": ""})},
    table=("gpt",), contents=(Content("0.2", "ext4", "<old>"), Content("0.3", "ext4", "<new>")),
    systems=(System("debian", "old1", "bios", (Mount("/", "0.2", "ext4", "<old>"),)),
             System("ubuntu", "new1", "bios", (Mount("/", "0.3", "ext4", "<new>"), Mount("/mnt/old", "0.2", "ext4", "<old>")))),
))

_add(Image(
    "twin-vg", "Two disks, each with a volume group vg0, of different UUIDs.", (Disk(96), Disk(96)),
    """
twin() {
    gpt $1 'size=90MiB, type=V'
    pvcreate -qq -y --devices ${1}2 ${1}2
    vgcreate -qq --devices ${1}2 vg0 ${1}2
    lvcreate -qq -y --devices ${1}2 -L 64m -n root vg0
    ext4 $3 /dev/vg0/root
    at / /dev/vg0/root
    fill $2
    umount /target
    vgchange -qq --devices ${1}2 --activate n vg0
}
twin $D0 root0 <first>
twin $D1 root1 <second>
""",
    {"root0": Tree("debian", "first1", "/dev/mapper/vg0-root / ext4 defaults 0 1\n"),
     "root1": Tree("ubuntu", "second1", "/dev/mapper/vg0-root / ext4 defaults 0 1\n")},
    table=("gpt", "gpt"),
    contents=(Content("0.2", "LVM2_member", "*"), Content("1.2", "LVM2_member", "*")),
    systems=(System("debian", "first1", "bios", (Mount("/", "lv:vg0/root", "ext4", "<first>"),)),
             System("ubuntu", "second1", "bios", (Mount("/", "lv:vg0/root", "ext4", "<second>"),))),
))
_again("twin-vg", name="twin-vg-one", story="The first of the twins alone, which is an ordinary LVM server.", only=(0,),
       contents=(Content("0.2", "LVM2_member", "*"), Content("lv:vg0/root", "ext4", "<first>")),
       systems=IMAGES["twin-vg"].systems[:1])

_add(Image(
    "cloned-lvm", "A disk and its clone, used since: every UUID of LVM and of the file systems is there twice.", (Disk(96), Disk(96)),
    """
table gpt $D0 'size=16MiB, type=L' 'size=72MiB, type=V'
ext4 <boot> ${P0}1
pvcreate -qq -y -u <pv:one> --norestorefile ${P0}2
vgcreate -qq vg0 ${P0}2
lvcreate -qq -y -L 64m -n root vg0
ext4 <root> /dev/vg0/root
at / /dev/vg0/root
at /boot ${P0}1
fill root
umount -R /target
vgchange -qq --activate n vg0
sync
dd if=$D0 of=$D1 bs=1M conv=sparse,fsync status=none
partx --update $D1
vgchange -qq --devices ${P1}2 --activate y vg0
mount /dev/vg0/root /target
echo clone2 > /target/etc/hostname
umount /target
vgchange -qq --devices ${P1}2 --activate n vg0
""",
    {"root": Tree("debian", "clone1", "/dev/mapper/vg0-root / ext4 defaults 0 1\nUUID=<boot> /boot ext4 defaults 0 2\n")},
    table=("gpt", "gpt"),
    contents=(Content("0.1", "ext4", "<boot>"), Content("0.2", "LVM2_member", "<pv:one>"),
              Content("1.1", "ext4", "<boot>"), Content("1.2", "LVM2_member", "<pv:one>")),
    systems=(System("debian", "clone1", "bios", (Mount("/", "lv:vg0/root", "ext4", "<root>"), Mount("/boot", "0.1", "ext4", "<boot>"))),
             System("debian", "clone2", "bios", (Mount("/", "lv:vg0/root", "ext4", "<root>"), Mount("/boot", "1.1", "ext4", "<boot>")))),
))

_add(Image(
    "twin-xfs", "Two systems of the same XFS UUID: a rescue image copied from the same image.", (Disk(128), Disk(128)),
    """
twin() {
    gpt $1 'size=120MiB, type=L'
    xfs <root> ${1}2
    at / ${1}2 -o nouuid
    fill $2
    umount /target
}
twin $D0 root0
twin $D1 root1
""",
    {"root0": Tree("rocky", "copy-a", "UUID=<root> / xfs defaults 0 0\n"),
     "root1": Tree("rocky", "copy-b", "UUID=<root> / xfs defaults 0 0\n")},
    table=("gpt", "gpt"), contents=(Content("0.2", "xfs", "<root>"), Content("1.2", "xfs", "<root>")),
    systems=(System("rocky", "copy-a", "bios", (Mount("/", "0.2", "xfs", "<root>"),)),
             System("rocky", "copy-b", "bios", (Mount("/", "1.2", "xfs", "<root>"),))),
))

# Arrays --------------------------------------------------------------------------------------------------------------

_CREATE = "mdadm --create --quiet --run --assume-clean --bitmap=none --homehost=any"

_add(Image(
    "raid1-lvm", "/boot on an array, all else in LVM on another; fstab has the names that the installed system gives them.",
    (Disk(296), Disk(296)),
    f"""
for disk in $D0 $D1; do gpt $disk 'size=16MiB, type=R' 'size=270MiB, type=R'; done
{_CREATE} /dev/md0 --metadata=1.0 --level=1 --raid-devices=2 --uuid=<md:boot> --name=boot ${{P0}}2 ${{P1}}2
{_CREATE.replace('none', 'internal')} /dev/md1 --metadata=1.2 --level=1 --raid-devices=2 --uuid=<md:array> --name=system ${{P0}}3 ${{P1}}3
ext4 <boot> /dev/md0
pvcreate -qq -y -u <pv:main> --norestorefile /dev/md1
vgcreate -qq vg-main /dev/md1
lvcreate -qq -y -L 64m -n root vg-main
lvcreate -qq -y -L 48m -n var vg-main
lvcreate -qq -y -L 128m -n home vg-main
lvcreate -qq -y -L 8m -n swap vg-main
ext4 <root> /dev/vg-main/root
xfs <var> /dev/vg-main/var
mkfs.btrfs -q -f -U <home> /dev/vg-main/home
swap <swap> /dev/vg-main/swap
at / /dev/vg-main/root
at /boot /dev/md0
at /var /dev/vg-main/var
at /home /dev/vg-main/home
fill root
""",
    {"root": Tree("debian", "raid1", "/dev/mapper/vg--main-root / ext4 errors=remount-ro 0 1\n/dev/md0 /boot ext4 defaults 0 2\n"
                  "/dev/vg-main/var /var xfs defaults 0 0\nUUID=<home> /home btrfs defaults 0 0\n"
                  "/dev/mapper/vg--main-swap none swap sw 0 0\n",
                  files={"etc/mdadm/mdadm.conf": "HOMEHOST <system>\nMAILADDR root\n"
                         "ARRAY /dev/md0 metadata=1.0 UUID=<md:boot> name=any:boot\n"
                         "ARRAY /dev/md1 level=raid1 num-devices=2\n   metadata=1.2 UUID=<md:array> name=any:system\n"})},
    table=("gpt", "gpt"),
    contents=(*(Content(f"{disk}.{part}", "linux_raid_member", array, name) for disk in "01"
                for part, array, name in (("2", "<md:boot>", "any:boot"), ("3", "<md:array>", "any:system"))),
              Content("md:boot", "ext4", "<boot>"), Content("md:system", "LVM2_member", "<pv:main>"),
              Content("lv:vg-main/root", "ext4", "<root>"), Content("lv:vg-main/var", "xfs", "<var>"),
              Content("lv:vg-main/home", "btrfs", "<home>"), Content("lv:vg-main/swap", "swap", "<swap>")),
    systems=(System("debian", "raid1", "bios", (
        Mount("/", "lv:vg-main/root", "ext4", "<root>"), Mount("/boot", "md:boot", "ext4", "<boot>"),
        Mount("/home", "lv:vg-main/home", "btrfs", "<home>"), Mount("/var", "lv:vg-main/var", "xfs", "<var>")),
        {"/dev/mapper/vg--main-swap": "swap"}),),
))
_again("raid1-lvm", name="raid1-lvm-degraded", story="The same after its first disk has died.", only=(1,),
       contents=tuple(content for content in IMAGES["raid1-lvm"].contents if not content.where.startswith("0.")))

_add(Image(
    "raid1-090", "An array of the oldest kind, whose superblock is at the end: each half looks like an ext4 of its own.",
    (Disk(80), Disk(80)),
    """
for disk in $D0 $D1; do mbr $disk 'start=1MiB, size=72MiB, type=fd, bootable'; done
mdadm --create --quiet --run --assume-clean /dev/md0 --metadata=0.90 --level=1 --raid-devices=2 --uuid=<md:root> ${P0}1 ${P1}1
ext4 <root> /dev/md0
at / /dev/md0
fill root
""",
    {"root": Tree("debian", "oldraid1", "/dev/md0 / ext4 defaults 0 1\n",
                  files={"etc/mdadm/mdadm.conf": "ARRAY /dev/md0 UUID=<md:root>\n"})},
    table=("dos", "dos"),
    contents=(Content("0.1", "linux_raid_member", "<md:root>"), Content("1.1", "linux_raid_member", "<md:root>"),
              Content("md:", "ext4", "<root>")),
    systems=(System("debian", "oldraid1", "bios", (Mount("/", "md:", "ext4", "<root>"),)),),
))

_add(Image(
    "raid5-partitioned", "Three whole disks, and a partition table in the array; fstab has the name of the array.",
    (Disk(64), Disk(64), Disk(64)),
    f"""
{_CREATE} /dev/md5 --metadata=1.2 --level=5 --raid-devices=3 --uuid=<md:store> --name=store $D0 $D1 $D2
table gpt /dev/md5 'size=64MiB, type=L, uuid=<root-part>' 'size=32MiB, type=L'
ext4 <root> /dev/md5p1
ext4 <data> /dev/md5p2
at / /dev/md5p1
at /srv /dev/md5p2
fill root
""",
    {"root": Tree("debian", "five1", "PARTUUID=<root-part> / ext4 defaults 0 1\n/dev/md/store2 /srv ext4 defaults 0 2\n",
                  files={"etc/mdadm/mdadm.conf": "ARRAY /dev/md/store metadata=1.2 UUID=<md:store> name=any:store\n"})},
    table=("", "", ""),
    contents=(*(Content(disk, "linux_raid_member", "<md:store>", "any:store") for disk in "012"),
              Content("md:store.1", "ext4", "<root>"), Content("md:store.2", "ext4", "<data>")),
    systems=(System("debian", "five1", "bios", (
        Mount("/", "md:store.1", "ext4", "<root>"), Mount("/srv", "md:store.2", "ext4", "<data>"))),),
))

_add(Image(
    "boot-raid1-lvm", "As raid1-lvm, and a whole Debian that boots: its disks must boot again after whatever is done to them.",
    (Disk(1600), Disk(1600)),
    f"""
for disk in $D0 $D1; do gpt $disk 'size=128MiB, type=R' 'size=1460MiB, type=R'; done
{_CREATE} /dev/md0 --metadata=1.0 --level=1 --raid-devices=2 --uuid=<md:boot> --name=boot ${{P0}}2 ${{P1}}2
{_CREATE} /dev/md1 --metadata=1.2 --level=1 --raid-devices=2 --uuid=<md:array> --name=system ${{P0}}3 ${{P1}}3
ext4 <boot> /dev/md0
pvcreate -qq -y -u <pv:main> --norestorefile /dev/md1
vgcreate -qq vg-main /dev/md1
lvcreate -qq -y -L 1000m -n root vg-main
lvcreate -qq -y -L 256m -n var vg-main
lvcreate -qq -y -L 160m -n home vg-main
mke2fs -q -t ext4 -U <root> -E lazy_itable_init=0,lazy_journal_init=0,nodiscard -J size=16 /dev/vg-main/root
xfs <var> /dev/vg-main/var
mkfs.btrfs -q -f -U <home> /dev/vg-main/home
at / /dev/vg-main/root
at /boot /dev/md0
at /var /dev/vg-main/var
at /home /dev/vg-main/home
tar --extract --xattrs --xattrs-include='*' --numeric-owner --same-permissions --file /build/root.tar --directory /target
mkdir -p /target/dev
""",
    {"root": Debian("debian", "bootraid1", "/dev/mapper/vg--main-root / ext4 errors=remount-ro 0 1\n/dev/md0 /boot ext4 defaults 0 2\n"
                    "/dev/vg-main/var /var xfs defaults 0 0\nUUID=<home> /home btrfs defaults 0 0\n",
                    root="/dev/mapper/vg--main-root", boot_uuid="<boot>",
                    files={"etc/mdadm/mdadm.conf": "HOMEHOST <system>\nMAILADDR root\n"
                           "ARRAY /dev/md0 metadata=1.0 UUID=<md:boot> name=any:boot\n"
                           "ARRAY /dev/md1 metadata=1.2 UUID=<md:array> name=any:system\n"})},
    table=("gpt", "gpt"),
    contents=(*(Content(f"{disk}.{part}", "linux_raid_member", array, name) for disk in "01"
                for part, array, name in (("2", "<md:boot>", "any:boot"), ("3", "<md:array>", "any:system"))),
              Content("md:boot", "ext4", "<boot>"), Content("md:system", "LVM2_member", "<pv:main>"),
              Content("lv:vg-main/root", "ext4", "<root>"), Content("lv:vg-main/var", "xfs", "<var>"),
              Content("lv:vg-main/home", "btrfs", "<home>")),
    systems=(System("debian", "bootraid1", "bios", (
        Mount("/", "lv:vg-main/root", "ext4", "<root>"), Mount("/boot", "md:boot", "ext4", "<boot>"),
        Mount("/home", "lv:vg-main/home", "btrfs", "<home>"), Mount("/var", "lv:vg-main/var", "xfs", "<var>"))),),
))
_again("boot-raid1-lvm", name="boot-raid1-lvm-degraded", story="The same after its first disk has died.", only=(1,),
       contents=tuple(content for content in IMAGES["boot-raid1-lvm"].contents if not content.where.startswith("0.")))

# Encrypted -----------------------------------------------------------------------------------------------------------

_FORMAT = "cryptsetup luksFormat -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000"
_KEY = bytes(range(64)) * 2

_add(Image(
    "luks-on-lv", "LUKS2 on a logical volume, opened by a passphrase; LUKS1 on another, by a key file of the first.", (Disk(208),),
    f"""
gpt $D0 'size=16MiB, type=L' 'size=180MiB, type=V'
ext4 <boot> ${{P0}}2
pvcreate -qq -y -u <pv:one> --norestorefile ${{P0}}3
vgcreate -qq vg0 ${{P0}}3
lvcreate -qq -y -L 100m -n root_enc vg0
lvcreate -qq -y -L 48m -n data_enc vg0
printf 'open sesame' | {_FORMAT} --type luks2 --uuid <luks-root> /dev/vg0/root_enc -
printf 'open sesame' | cryptsetup open --key-file - /dev/vg0/root_enc zoo-root
ext4 <root> /dev/mapper/zoo-root
at / /dev/mapper/zoo-root
at /boot ${{P0}}2
tar -xOf /build/root.tar etc/keys/data.key > /build/data.key
{_FORMAT} --type luks1 --uuid <luks-data> /dev/vg0/data_enc /build/data.key
cryptsetup open --key-file /build/data.key /dev/vg0/data_enc zoo-data
ext4 <data> /dev/mapper/zoo-data
at /srv/data /dev/mapper/zoo-data
fill root
""",
    {"root": Tree("debian", "luks1", "/dev/mapper/root_crypt / ext4 defaults 0 1\nUUID=<boot> /boot ext4 defaults 0 2\n"
                  "/dev/mapper/data_crypt /srv/data ext4 defaults 0 2\n",
                  files={"etc/crypttab": "# <target name> <source device> <key file> <options>\n"
                         "root_crypt UUID=<luks-root> none luks\ndata_crypt\t/dev/vg0/data_enc\t/etc/keys/data.key\tluks,timeout=30\n",
                         "etc/keys/data.key": _KEY})},
    table=("gpt",),
    contents=(Content("0.2", "ext4", "<boot>"), Content("0.3", "LVM2_member", "<pv:one>"),
              Content("lv:vg0/root_enc", "crypto_LUKS", "<luks-root>"), Content("lv:vg0/data_enc", "crypto_LUKS", "<luks-data>"),
              Content("crypt:root_crypt", "ext4", "<root>"), Content("crypt:data_crypt", "ext4", "<data>")),
    systems=(System("debian", "luks1", "bios", (
        Mount("/", "crypt:root_crypt", "ext4", "<root>"), Mount("/boot", "0.2", "ext4", "<boot>"),
        Mount("/srv/data", "crypt:data_crypt", "ext4", "<data>"))),),
    secrets=(Secret("lv:vg0/root_enc", "crypt:root_crypt", b"open sesame"),
             Secret("lv:vg0/data_enc", "crypt:data_crypt", _KEY, "/etc/keys/data.key")),
))

_add(Image(
    "lvm-on-luks", "LVM inside LUKS1: without the passphrase nothing is to be seen but /boot.", (Disk(128),),
    f"""
mbr $D0 'start=1MiB, size=16MiB, type=83, bootable' 'size=108MiB, type=83'
ext4 <boot> ${{P0}}1
printf 'correct horse' | {_FORMAT} --type luks1 --uuid <luks> ${{P0}}2 -
printf 'correct horse' | cryptsetup open --key-file - ${{P0}}2 zoo-luks
pvcreate -qq -y -u <pv:one> --norestorefile /dev/mapper/zoo-luks
vgcreate -qq vgcrypt /dev/mapper/zoo-luks
lvcreate -qq -y -L 80m -n root vgcrypt
lvcreate -qq -y -L 8m -n swap vgcrypt
ext4 <root> /dev/vgcrypt/root
swap <swap> /dev/vgcrypt/swap
at / /dev/vgcrypt/root
at /boot ${{P0}}1
fill root
""",
    {"root": Tree("ubuntu", "inner1", "/dev/mapper/vgcrypt-root / ext4 defaults 0 1\nUUID=<boot> /boot ext4 defaults 0 2\n"
                  "/dev/vgcrypt/swap none swap sw 0 0\n", files={"etc/crypttab": "dm_crypt-0 UUID=<luks> none luks,discard\n"})},
    table=("dos",),
    contents=(Content("0.1", "ext4", "<boot>"), Content("0.2", "crypto_LUKS", "<luks>"),
              Content("crypt:dm_crypt-0", "LVM2_member", "<pv:one>"), Content("lv:vgcrypt/root", "ext4", "<root>"),
              Content("lv:vgcrypt/swap", "swap", "<swap>")),
    systems=(System("ubuntu", "inner1", "bios", (Mount("/", "lv:vgcrypt/root", "ext4", "<root>"), Mount("/boot", "0.1", "ext4", "<boot>")),
                    {"/dev/vgcrypt/swap": "swap"}),),
    secrets=(Secret("0.2", "crypt:dm_crypt-0", b"correct horse"),),
))

# As Debian's own hook writes it for an entry with the option initramfs; that one wants to see the device.
_UNLOCK = """#!/bin/sh
[ "$1" = prereqs ] && { echo cryptroot; exit; }
. /usr/share/initramfs-tools/hook-functions
mkdir -p "$DESTDIR/cryptroot/keyfiles"
cp /etc/keys/root.key "$DESTDIR/cryptroot/keyfiles/root_crypt.key"
echo 'root_crypt UUID=<luks> /cryptroot/keyfiles/root_crypt.key luks,discard' > "$DESTDIR/cryptroot/crypttab"
manual_add_modules dm_crypt aes_generic xts ecb cbc sha256_generic algif_skcipher
copy_exec /sbin/cryptsetup
"""
_add(Image(
    "boot-lvm-on-luks", "A whole Debian in LVM inside LUKS2, which boots without a question: the key file is in its initramfs.",
    (Disk(1400),),
    f"""
gpt $D0 'size=128MiB, type=L' 'size=1260MiB, type=L'
ext4 <boot> ${{P0}}2
tar -xOf /build/root.tar ./etc/keys/root.key > /build/root.key
{_FORMAT} --type luks2 --uuid <luks> ${{P0}}3 /build/root.key
printf 'correct horse' | cryptsetup luksAddKey --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file /build/root.key ${{P0}}3 -
cryptsetup open --key-file /build/root.key ${{P0}}3 zoo-luks
pvcreate -qq -y -u <pv:one> --norestorefile /dev/mapper/zoo-luks
vgcreate -qq vgcrypt /dev/mapper/zoo-luks
lvcreate -qq -y -L 1180m -n root vgcrypt
lvcreate -qq -y -L 16m -n swap vgcrypt
mke2fs -q -t ext4 -U <root> -E lazy_itable_init=0,lazy_journal_init=0,nodiscard -J size=16 /dev/vgcrypt/root
swap <swap> /dev/vgcrypt/swap
at / /dev/vgcrypt/root
at /boot ${{P0}}2
tar --extract --xattrs --xattrs-include='*' --numeric-owner --same-permissions --file /build/root.tar --directory /target
mkdir -p /target/dev
""",
    {"root": Debian("debian", "bootluks1", "/dev/mapper/vgcrypt-root / ext4 errors=remount-ro 0 1\nUUID=<boot> /boot ext4 defaults 0 2\n"
                    "/dev/vgcrypt/swap none swap sw 0 0\n", root="/dev/mapper/vgcrypt-root", boot_uuid="<boot>",
                    files={"etc/crypttab": "root_crypt UUID=<luks> /etc/keys/root.key luks,discard,initramfs\n",
                           "etc/keys/root.key": _KEY, "etc/initramfs-tools/hooks/unlock": _UNLOCK})},
    table=("gpt",),
    contents=(Content("0.2", "ext4", "<boot>"), Content("0.3", "crypto_LUKS", "<luks>"),
              Content("crypt:root_crypt", "LVM2_member", "<pv:one>"), Content("lv:vgcrypt/root", "ext4", "<root>"),
              Content("lv:vgcrypt/swap", "swap", "<swap>")),
    systems=(System("debian", "bootluks1", "bios", (
        Mount("/", "lv:vgcrypt/root", "ext4", "<root>"), Mount("/boot", "0.2", "ext4", "<boot>")), {"/dev/vgcrypt/swap": "swap"}),),
    secrets=(Secret("0.3", "crypt:root_crypt", b"correct horse"),),
))

# LVM that is more than volumes ---------------------------------------------------------------------------------------

_add(Image(
    "thin-lvm", "Root on a thin volume, with a thin snapshot of it that looks like a second system.", (Disk(160),),
    """
gpt $D0 'size=150MiB, type=V'
pvcreate -qq -y -u <pv:one> --norestorefile ${P0}2
vgcreate -qq pve ${P0}2
lvcreate -qq -y --type thin-pool -L 100m --poolmetadatasize 4m -Zn -n data pve
lvcreate -qq -y --thin -V 96m -n root pve/data
ext4 <root> /dev/pve/root
at / /dev/pve/root
fill root
umount /target
lvcreate -qq -y --snapshot -n root-before pve/root
""",
    {"root": Tree("debian", "thin1", "/dev/pve/root / ext4 errors=remount-ro 0 1\n")},
    table=("gpt",), contents=(Content("0.2", "LVM2_member", "<pv:one>"), Content("lv:pve/root", "ext4", "<root>")),
    systems=(System("debian", "thin1", "bios", (Mount("/", "lv:pve/root", "ext4", "<root>"),)),),
    not_systems={"lv:pve/root-before": "a snapshot of a system, not to be activated by itself"},
))

_add(Image(
    "lvm-snapshot", "A volume with an old-style snapshot: the same file system twice.", (Disk(128),),
    """
gpt $D0 'size=120MiB, type=V'
pvcreate -qq -y -u <pv:one> --norestorefile ${P0}2
vgcreate -qq vg0 ${P0}2
lvcreate -qq -y -L 64m -n root vg0
ext4 <root> /dev/vg0/root
at / /dev/vg0/root
fill root
umount /target
lvcreate -qq -y --snapshot -L 16m -n before-upgrade vg0/root
at / /dev/vg0/root
echo later > /target/etc/later
""",
    {"root": Tree("debian", "snap1", "/dev/mapper/vg0-root / ext4 errors=remount-ro 0 1\n")},
    table=("gpt",),
    contents=(Content("0.2", "LVM2_member", "<pv:one>"), Content("lv:vg0/root", "ext4", "<root>"),
              Content("lv:vg0/before-upgrade", "ext4", "<root>")),
    systems=(System("debian", "snap1", "bios", (Mount("/", "lv:vg0/root", "ext4", "<root>"),)),),
    not_systems={"lv:vg0/before-upgrade": "a snapshot of a system"},
))

_add(Image(
    "cached-lvm", "Root on a volume with a cache on a second, faster disk.", (Disk(96), Disk(48, bus="nvme")),
    """
gpt $D0 'size=88MiB, type=V'
pvcreate -qq -y -u <pv:slow> --norestorefile ${P0}2
pvcreate -qq -y -u <pv:fast> --norestorefile $D1
vgcreate -qq vg0 ${P0}2 $D1
lvcreate -qq -y -L 64m -n root vg0 ${P0}2
lvcreate -qq -y --type cache-pool -L 16m --poolmetadatasize 8m -n fast vg0 $D1
lvconvert -qq -y --type cache --cachepool vg0/fast --cachemode writethrough vg0/root
ext4 <root> /dev/vg0/root
at / /dev/vg0/root
fill root
""",
    {"root": Tree("debian", "cache1", "/dev/vg0/root / ext4 errors=remount-ro 0 1\n")},
    table=("gpt", ""),
    contents=(Content("0.2", "LVM2_member", "<pv:slow>"), Content("1", "LVM2_member", "<pv:fast>"),
              Content("lv:vg0/root", "ext4", "<root>")),
    systems=(System("debian", "cache1", "bios", (Mount("/", "lv:vg0/root", "ext4", "<root>"),)),),
))

_add(Image(
    "lvm-mirrors", "Root on a volume of the type raid1 whose halves are not yet the same, /var on a mirror that keeps no log: whoever "
    "activates them starts to copy all of one half to the other.", (Disk(256), Disk(256)),
    """
for disk in $D0 $D1; do gpt $disk 'size=240MiB, type=V'; done
pvcreate -qq -y -u <pv:one> --norestorefile ${P0}2
pvcreate -qq -y -u <pv:two> --norestorefile ${P1}2
vgcreate -qq vg0 ${P0}2 ${P1}2
lvcreate -qq -y --type raid1 --mirrors 1 --maxrecoveryrate 1k -L 80m -n root vg0
lvcreate -qq -y --type mirror --mirrors 1 --mirrorlog core --nosync -L 80m -n var vg0
ext4 <root> /dev/vg0/root
xfs <var> /dev/vg0/var
at / /dev/vg0/root
at /var /dev/vg0/var
fill root
umount -R /target
vgchange -qq --activate n vg0
lvchange -qq --maxrecoveryrate 0 vg0/root
""",
    {"root": Tree("debian", "mirrors1", "/dev/vg0/root / ext4 errors=remount-ro 0 1\n/dev/mapper/vg0-var /var xfs defaults 0 0\n")},
    table=("gpt", "gpt"),
    contents=(Content("0.2", "LVM2_member", "<pv:one>"), Content("1.2", "LVM2_member", "<pv:two>"),
              Content("lv:vg0/root", "ext4", "<root>"), Content("lv:vg0/var", "xfs", "<var>")),
    systems=(System("debian", "mirrors1", "bios", (
        Mount("/", "lv:vg0/root", "ext4", "<root>"), Mount("/var", "lv:vg0/var", "xfs", "<var>"))),),
))

_add(Image(
    "lvm-two-disks", "A volume group on two disks: root on the one, /home on the other.", (Disk(96), Disk(48)),
    """
gpt $D0 'size=88MiB, type=V'
pvcreate -qq -y -u <pv:one> --norestorefile ${P0}2
pvcreate -qq -y -u <pv:two> --norestorefile $D1
vgcreate -qq vg0 ${P0}2 $D1
lvcreate -qq -y -L 64m -n root vg0 ${P0}2
lvcreate -qq -y -L 32m -n home vg0 $D1
ext4 <root> /dev/vg0/root
ext4 <home> /dev/vg0/home
at / /dev/vg0/root
at /home /dev/vg0/home
fill root
""",
    {"root": Tree("debian", "wide1", "/dev/vg0/root / ext4 errors=remount-ro 0 1\n/dev/vg0/home /home ext4 defaults 0 2\n")},
    table=("gpt", ""),
    contents=(Content("0.2", "LVM2_member", "<pv:one>"), Content("1", "LVM2_member", "<pv:two>"),
              Content("lv:vg0/root", "ext4", "<root>"), Content("lv:vg0/home", "ext4", "<home>")),
    systems=(System("debian", "wide1", "bios", (
        Mount("/", "lv:vg0/root", "ext4", "<root>"), Mount("/home", "lv:vg0/home", "ext4", "<home>"))),),
))
_WIDE = IMAGES["lvm-two-disks"].systems[0]
_again("lvm-two-disks", name="lvm-partial", story="The same after its second disk has died: what is left of it is whole.", only=(0,),
       contents=(IMAGES["lvm-two-disks"].contents[0], IMAGES["lvm-two-disks"].contents[2]),
       systems=(dataclasses.replace(_WIDE, mounts=_WIDE.mounts[:1], left_out={"/dev/vg0/home": "missing"}),))

# btrfs ---------------------------------------------------------------------------------------------------------------

_add(Image(
    "btrfs-at", "As Ubuntu lays it out: @ and @home, no default subvolume; snapshots of @, each of which looks like a system.",
    (Disk(176),),
    """
gpt $D0 'size=160MiB, type=L'
mkfs.btrfs -q -f -U <root> -L pool ${P0}2
mkdir /build/pool
mount ${P0}2 /build/pool
for name in @ @home @snapshots; do btrfs -q subvolume create /build/pool/$name; done
at / ${P0}2 -o subvol=@
at /home ${P0}2 -o subvol=@home
fill root
mkdir /target/.snapshots
for number in 1 2; do
    mkdir /build/pool/@snapshots/$number
    btrfs -q subvolume snapshot -r /build/pool/@ /build/pool/@snapshots/$number/snapshot
done
echo later > /target/etc/later
umount /build/pool
rmdir /build/pool
""",
    {"root": Tree("ubuntu", "at1", "UUID=<root> / btrfs defaults,subvol=@ 0 1\nUUID=<root> /home btrfs defaults,subvolid=257 0 2\n"
                  "UUID=<root> /.snapshots btrfs subvol=/@snapshots 0 2\nUUID=<root> /mnt/gone btrfs subvol=@gone,nofail 0 0\n")},
    table=("gpt",), contents=(Content("0.2", "btrfs", "<root>", "pool"),),
    systems=(System("ubuntu", "at1", "bios", (
        Mount("/", "0.2", "btrfs", "<root>", "@"), Mount("/.snapshots", "0.2", "btrfs", "<root>", "@snapshots"),
        Mount("/home", "0.2", "btrfs", "<root>", "@home")), {"UUID=<root> /mnt/gone": "missing"}),),
    not_systems={"0.2[@snapshots/1/snapshot]": "a read-only snapshot of a system",
                 "0.2[@snapshots/2/snapshot]": "a read-only snapshot of a system"},
))

_add(Image(
    "btrfs-fedora", "As Fedora lays it out: root and home, named by subvol=, with a /boot of ext4 and an ESP.", (Disk(224),),
    """
table gpt $D0 'size=34MiB, type=U' 'size=24MiB, type=L' 'size=150MiB, type=L'
vfat <vfat:esp> -F 16 ${P0}1
ext4 <boot> ${P0}2
mkfs.btrfs -q -f -U <root> -L fedora ${P0}3
mkdir /build/pool
mount ${P0}3 /build/pool
for name in root home; do btrfs -q subvolume create /build/pool/$name; done
umount /build/pool
rmdir /build/pool
at / ${P0}3 -o subvol=root
at /boot ${P0}2
at /boot/efi ${P0}1 -o quiet
at /home ${P0}3 -o subvol=home
fill root
""",
    {"root": Tree("fedora", "fedora1", "UUID=<root> / btrfs subvol=root,compress=zstd:1 0 0\nUUID=<boot> /boot ext4 defaults 1 2\n"
                  "UUID=<vfat:esp> /boot/efi vfat umask=0077,shortname=winnt 0 2\n"
                  "UUID=<root> /home btrfs subvol=home,compress=zstd:1 0 0\n", "uefi")},
    table=("gpt",),
    contents=(Content("0.1", "vfat", "<vfat:esp>"), Content("0.2", "ext4", "<boot>"), Content("0.3", "btrfs", "<root>", "fedora")),
    systems=(System("fedora", "fedora1", "uefi", (
        Mount("/", "0.3", "btrfs", "<root>", "root"), Mount("/boot", "0.2", "ext4", "<boot>"),
        Mount("/boot/efi", "0.1", "vfat", "<vfat:esp>"), Mount("/home", "0.3", "btrfs", "<root>", "home"))),),
))

_add(Image(
    "btrfs-suse", "As openSUSE lays it out: the root is a snapshot, the default subvolume, which fstab does not name.", (Disk(176),),
    """
gpt $D0 'size=160MiB, type=L'
mkfs.btrfs -q -f -U <root> ${P0}2
mkdir /build/pool
mount ${P0}2 /build/pool
btrfs -q subvolume create /build/pool/@
for name in home var .snapshots; do btrfs -q subvolume create /build/pool/@/$name; done
mkdir /build/pool/@/.snapshots/1 /build/pool/@/.snapshots/2
btrfs -q subvolume create /build/pool/@/.snapshots/1/snapshot
btrfs subvolume set-default /build/pool/@/.snapshots/1/snapshot
at / ${P0}2
at /home ${P0}2 -o subvol=@/home
at /var ${P0}2 -o subvol=@/var
fill root
mkdir /target/.snapshots
btrfs -q subvolume snapshot -r /build/pool/@/.snapshots/1/snapshot /build/pool/@/.snapshots/2/snapshot
umount /build/pool
rmdir /build/pool
""",
    {"root": Tree("opensuse-tumbleweed", "suse1", "UUID=<root> / btrfs defaults 0 0\nUUID=<root> /var btrfs subvol=/@/var 0 0\n"
                  "UUID=<root> /home btrfs subvol=/@/home 0 0\nUUID=<root> /.snapshots btrfs subvol=/@/.snapshots 0 0\n")},
    table=("gpt",), contents=(Content("0.2", "btrfs", "<root>"),),
    systems=(System("opensuse-tumbleweed", "suse1", "bios", (
        Mount("/", "0.2", "btrfs", "<root>"), Mount("/.snapshots", "0.2", "btrfs", "<root>", "@/.snapshots"),
        Mount("/home", "0.2", "btrfs", "<root>", "@/home"), Mount("/var", "0.2", "btrfs", "<root>", "@/var"))),),
    not_systems={"0.2[@/.snapshots/2/snapshot]": "a read-only snapshot of a system"},
))

_add(Image(
    "btrfs-rolled-back", "Gone back to a snapshot: what boots has a parent, what was moved away has none; and a container's root.",
    (Disk(176),),
    """
gpt $D0 'size=160MiB, type=L'
mkfs.btrfs -q -f -U <root> ${P0}2
mkdir /build/pool
mount ${P0}2 /build/pool
for name in @ @home; do btrfs -q subvolume create /build/pool/$name; done
at / ${P0}2 -o subvol=@
at /home ${P0}2 -o subvol=@home
fill root
umount -R /target
mkdir -p /build/pool/snapshots/1
btrfs -q subvolume snapshot /build/pool/@ /build/pool/snapshots/1/@
echo broken > /build/pool/@/etc/hostname
mv /build/pool/@ /build/pool/snapshots/before
btrfs -q subvolume snapshot /build/pool/snapshots/1/@ /build/pool/@
btrfs -q subvolume create /build/pool/@/var/lib/engine
cp -a /build/pool/@/etc /build/pool/@/usr /build/pool/@/var/lib/engine/
: > /build/pool/@/var/lib/engine/etc/fstab
umount /build/pool
rmdir /build/pool
""",
    {"root": Tree("ubuntu", "back1", "UUID=<root> / btrfs defaults,subvol=@ 0 1\nUUID=<root> /home btrfs subvol=@home 0 2\n")},
    table=("gpt",), contents=(Content("0.2", "btrfs", "<root>"),),
    systems=(System("ubuntu", "back1", "bios", (
        Mount("/", "0.2", "btrfs", "<root>", "@"), Mount("/home", "0.2", "btrfs", "<root>", "@home"))),),
    not_systems={"0.2[snapshots/before]": "what was moved away", "0.2[snapshots/1/@]": "a snapshot of a system",
                 "0.2[@/var/lib/engine]": "the root of a container"},
))

_add(Image(
    "btrfs-two-luks", "One btrfs on two disks, as a mirror, each half in a container of its own.", (Disk(152), Disk(152)),
    f"""
gpt $D0 'size=16MiB, type=L' 'size=130MiB, type=L'
table gpt $D1 'size=130MiB, type=L'
ext4 <boot> ${{P0}}2
printf 'correct horse' | {_FORMAT} --type luks2 --luks2-metadata-size 16k --luks2-keyslots-size 256k --uuid <luks-a> ${{P0}}3 -
printf 'correct horse' | {_FORMAT} --type luks2 --luks2-metadata-size 16k --luks2-keyslots-size 256k --uuid <luks-b> ${{P1}}1 -
printf 'correct horse' | cryptsetup open --key-file - ${{P0}}3 zoo-a
printf 'correct horse' | cryptsetup open --key-file - ${{P1}}1 zoo-b
mkfs.btrfs -q -f -U <root> -d raid1 -m raid1 /dev/mapper/zoo-a /dev/mapper/zoo-b
at / /dev/mapper/zoo-a -o device=/dev/mapper/zoo-b
at /boot ${{P0}}2
fill root
""",
    {"root": Tree("debian", "mirror1", "UUID=<root> / btrfs defaults 0 0\nUUID=<boot> /boot ext4 defaults 0 2\n",
                  files={"etc/crypttab": "half_a UUID=<luks-a> none luks\nhalf_b UUID=<luks-b> none luks\n"})},
    table=("gpt", "gpt"),
    contents=(Content("0.2", "ext4", "<boot>"), Content("0.3", "crypto_LUKS", "<luks-a>"), Content("1.1", "crypto_LUKS", "<luks-b>"),
              Content("crypt:half_a", "btrfs", "<root>"), Content("crypt:half_b", "btrfs", "<root>")),
    systems=(System("debian", "mirror1", "bios", (
        Mount("/", "crypt:half_a", "btrfs", "<root>"), Mount("/boot", "0.2", "ext4", "<boot>"))),),
    secrets=(Secret("0.3", "crypt:half_a", b"correct horse"), Secret("1.1", "crypt:half_b", b"correct horse")),
))

_add(Image(
    "btrfs-two-disks", "One btrfs on two disks, as a mirror.", (Disk(152), Disk(152)),
    """
gpt $D0 'size=140MiB, type=L'
table gpt $D1 'size=140MiB, type=L'
mkfs.btrfs -q -f -U <root> -d raid1 -m raid1 ${P0}2 ${P1}1
at / ${P0}2 -o device=${P1}1
fill root
""",
    {"root": Tree("debian", "mirror2", "UUID=<root> / btrfs defaults 0 0\n")},
    table=("gpt", "gpt"), contents=(Content("0.2", "btrfs", "<root>"), Content("1.1", "btrfs", "<root>")),
    systems=(System("debian", "mirror2", "bios", (Mount("/", "0.2", "btrfs", "<root>"),)),),
))
_again("btrfs-two-disks", name="btrfs-degraded", story="The same after its first disk has died.", only=(1,),
       contents=(IMAGES["btrfs-two-disks"].contents[1],),
       systems=(dataclasses.replace(IMAGES["btrfs-two-disks"].systems[0], mounts=(Mount("/", "1.1", "btrfs", "<root>"),)),))

# What cannot be mounted, or not wholly -------------------------------------------------------------------------------

_add(Image("no-disk", "A server whose disks have all died.", ()))

_add(Image(
    "noise", "A disk of random bytes, and one of zeros.", (Disk(16), Disk(16)),
    "head -c 16777216 /dev/urandom > $D0\n", table=("", ""),
))

_PLAIN = IMAGES["gpt-bios-ext4"].systems[0]
_again("gpt-bios-ext4", name="bad-data", story="The superblock of its data partition cannot be read.",
       disks=(Disk(96, bad=tuple(range(66 << 20, (66 << 20) + 8192, 512))),),
       contents=IMAGES["gpt-bios-ext4"].contents[:1],
       systems=(dataclasses.replace(_PLAIN, mounts=_PLAIN.mounts[:1], left_out={**_PLAIN.left_out, "LABEL=data disk": "missing"}),))

_again("gpt-bios-ext4", name="bad-table", story="The beginning of the disk cannot be read, and so its table.",
       disks=(Disk(96, bad=tuple(range(0, 65536, 512))),), table=("",), contents=(), systems=())

_DIRTY = """
gpt $D0 'size=120MiB, type=L'
{make} <root> ${{P0}}2
at / ${{P0}}2
fill root
mkdir /target/var/lib/late
sync
umount /target
at / ${{P0}}2
# what is in the journal and nowhere else when the power goes
echo 'written at the end' > /target/var/lib/late/file
sync /target/var/lib/late/file
"""
for _kind, _make in (("ext4", "ext4"), ("xfs", "xfs"), ("f2fs", "mkfs.f2fs -q -f -U")):
    _add(Image(
        f"dirty-{_kind}", "The power went while it was written to: what came last is only in the journal.", (Disk(128),),
        _DIRTY.format(make=_make),
        {"root": Tree("debian", f"dirty-{_kind}", f"UUID=<root> / {_kind} defaults 0 1\n")}, pulled=True,
        table=("gpt",), contents=(Content("0.2", _kind, "<root>"),),
        systems=(System("debian", f"dirty-{_kind}", "bios", (Mount("/", "0.2", _kind, "<root>"),)),),
        after_replay="/var/lib/late/file",
    ))

_again("gpt-bios-ext4", name="multipath", story="One disk that is seen by two paths, as on a storage network.",
       disks=(Disk(96, serial="ZOO-MULTIPATH", wwn=0x5000C500A0B1C2D3, paths=2),))

# Systems that are no Linux, and what belongs to none -----------------------------------------------------------------

_WINDOWS: dict[str, bytes | str | None] = {
    "Windows/System32/config/SYSTEM": b"regf" + b"\0" * 4092, "Windows/System32/config/SAM": b"regf" + b"\0" * 4092,
    "Windows/System32/ntoskrnl.exe": b"MZ" + b"\0" * 1022, "Windows/System32/winload.efi": b"MZ" + b"\0" * 1022,
    "Windows/explorer.exe": b"MZ" + b"\0" * 1022, "Users/Administrator/NTUSER.DAT": b"regf" + b"\0" * 4092,
    "Program Files/desktop.ini": "[.ShellClassInfo]\r\n", "pagefile.sys": b"\0" * 4096}
_add(Image(
    "windows", "Windows, as it comes on UEFI: ESP, a reserved partition without content, NTFS.", (Disk(128),),
    """
table gpt $D0 'size=34MiB, type=U' 'size=16MiB, type=E3C9E316-0B5C-4DB8-817D-F92DF00215AE' \\
    'size=64MiB, type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7'
vfat <vfat:esp> -F 16 ${P0}1
mkntfs --quiet --fast ${P0}3
at / ${P0}3 -t ntfs-3g
at /esp ${P0}1 -o quiet
fill_plain windows
umount /target/esp
rmdir /target/esp
""",
    {"windows": Plain(files={**_WINDOWS, "esp/EFI/Microsoft/Boot/bootmgfw.efi": b"MZ" + b"\0" * 62})},
    table=("gpt",), contents=(Content("0.1", "vfat", "<vfat:esp>"), Content("0.3", "ntfs", "*")),
    not_systems={"0.3": "Windows, which no chroot of Linux repairs"},
))

_FREEBSD: dict[str, bytes | str | None] = {
    "etc/rc.conf": 'hostname="bsd1"\nsshd_enable="YES"\n', "etc/fstab": "/dev/gpt/rootfs\t/\tufs\trw\t1\t1\n",
    "bin/freebsd-version": '#!/bin/sh\nUSERLAND_VERSION="14.0-RELEASE"\n', "boot/loader": b"\0" * 512,
    "boot/kernel/kernel": b"\x7fELF\x02\x01\x01\x09" + b"\0" * 56, "usr/bin/su": b"\x7fELF\x02\x01\x01\x09" + b"\0" * 56,
    "etc/os-release": 'NAME=FreeBSD\nVERSION="14.0-RELEASE"\nID=freebsd\nPRETTY_NAME="FreeBSD 14.0-RELEASE"\n'}
_UFS = """
mkdir /build/bsd
tar --extract --file /build/bsd.tar --directory /build/bsd
tool makefs -t ffs -o version=2 -s 24m /build/bsd.img /build/bsd
# what FreeBSD writes into the superblock when it mounts it: where it was mounted
python3 - /build/bsd.img <<'END'
import struct, sys
with open(sys.argv[1], "r+b") as file:
    for offset in (65536, 8192):
        file.seek(offset + 1372)
        if file.read(4) == struct.pack("<I", 0x19540119):
            file.seek(offset + 212)
            file.write(b"/\\0")
            sys.exit(0)
    sys.exit("There is no superblock.")
END
"""
_add(Image(
    "freebsd-gpt", "FreeBSD on UFS2, in a GPT.", (Disk(64),),
    """
table gpt $D0 'size=1MiB, type=83BD6B9D-7F41-11DC-BE0B-001560B84F0F' 'size=32MiB, type=516E7CB6-6ECF-11D6-8FF8-00022D09712B, name=rootfs'
""" + _UFS + """
dd if=/build/bsd.img of=${P0}2 bs=1M conv=sparse,fsync status=none
""",
    {"bsd": Plain(files=_FREEBSD)}, table=("gpt",), contents=(Content("0.2", "ufs", "*"),),
    not_systems={"0.2": "FreeBSD, which no chroot of Linux repairs"},
))
_add(Image(
    "freebsd-mbr", "FreeBSD on UFS2, in a BSD label inside an MBR partition.", (Disk(64),),
    """
mbr $D0 'start=1MiB, size=48MiB, type=a5, bootable'
""" + _UFS + """
# the label, as sys/disklabel.h has it: a is the file system, c the whole slice
python3 - ${P0}1 <<'END'
import struct, sys
sectors = 48 * 2048
label = bytearray(148)
struct.pack_into("<IH", label, 0, 0x82564557, 12)
struct.pack_into("<6I", label, 40, 512, 63, 255, 6, 16065, sectors)
struct.pack_into("<HH", label, 72, 3600, 1)
struct.pack_into("<IHHII", label, 132, 0x82564557, 0, 8, 8192, 8192)
for size, offset, kind in ((24 * 2048, 16, 7), (0, 0, 0), (sectors, 0, 0), *[(0, 0, 0)] * 5):
    label += struct.pack("<IIIBBH", size, offset, 0, kind, 0, 0)
checksum = 0
for (word,) in struct.iter_unpack("<H", label):
    checksum ^= word
struct.pack_into("<H", label, 136, checksum)
with open(sys.argv[1], "r+b") as disk:
    disk.seek(512)
    disk.write(label)
END
dd if=/build/bsd.img of=${P0}1 bs=8192 seek=1 conv=sparse,notrunc,fsync status=none
""",
    {"bsd": Plain(files=_FREEBSD)}, table=("dos",), contents=(Content("0.5", "ufs", "*"),),
    not_systems={"0.5": "FreeBSD, which no chroot of Linux repairs"},
))

_add(Image(
    "zfs", "A pool of ZFS, which the rescue system recognises and cannot import: /boot is ext4, all else is in the pool.", (Disk(160),),
    """
gpt $D0 'size=16MiB, type=L' 'size=128MiB, type=6A898CC3-1DD2-11B2-99A6-080020736631'
ext4 <boot> ${P0}2
at / ${P0}2
tar --extract --file /build/root.tar --directory /target --strip-components=1 boot
umount /target
# what OpenZFS tests itself with, without the kernel; it may find fault with itself, but the pool is there. By default it draws
# the kind of the pool, and for one of them a single device is too few.
pool() { [ "$(blkid -p -s TYPE -o value /build/rpool.0a)" = zfs_member ]; }
for turn in 1 2 3; do
    tool ztest -VV -T 5 -P 2 -k 0 -K raidz -p rpool -v 1 -m 1 -r 1 -R 1 -d 1 -t 1 -s 128m -f /build >/build/ztest.log 2>&1 ||
        head -n 5 /build/ztest.log
    ! pool || break
done
pool
dd if=/build/rpool.0a of=${P0}3 bs=1M conv=sparse,fsync status=none
""",
    {"root": Tree("ubuntu", "zfs1", "UUID=<boot> /boot ext4 defaults 0 2\n")},
    table=("gpt",), contents=(Content("0.2", "ext4", "<boot>"), Content("0.3", "zfs_member", "*", "rpool")),
    not_systems={"0.3": "ZFS, which this rescue system does not know"},
))

_add(Image(
    "bcache", "The backing device of a bcache with a cache on another disk: not to be read past its cache.", (Disk(96), Disk(32)),
    """
gpt $D0 'size=80MiB, type=L'
tool make-bcache --bdev ${P0}2 --cache $D1 --bucket 64k >/dev/null
""",
    table=("gpt", ""), contents=(Content("0.2", "bcache", "*"), Content("1", "bcache", "*")),
    not_systems={"0.2": "the backing device of a bcache"},
))
