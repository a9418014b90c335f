# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""fstab as people, tools and attackers write it."""

from __future__ import annotations

import random
import time

import pytest

from ansible_collections.lifeboat.rescue.plugins.module_utils._rescue._storage import _fstab
from ansible_collections.lifeboat.rescue.plugins.module_utils._rescue._storage._devices import Device, Devices


def partition(disk, number, fstype, **tags):
    return Device(f"{disk.path}{number}", f"8:{number}", "part", 1 << 30, on=[disk.path], rescue=disk.rescue,
                  tag={"TYPE": fstype, "PART_ENTRY_NUMBER": str(number), **tags})


@pytest.fixture
def devices():
    """The installed system's disk is vdb here, and was sda there. vda is the rescue system's."""
    own = Device("/dev/vda", "254:0", "disk", rescue="It is mounted at /.")
    disk, other = Device("/dev/vdb", "254:16", "disk"), Device("/dev/vdc", "254:32", "disk")
    return Devices([
        own, partition(own, 1, "ext4", UUID="rescue-uuid", LABEL="both"), disk, other,
        partition(disk, 1, "ext4", UUID="aaaa-root", LABEL="root", PART_ENTRY_UUID="part-1", PART_ENTRY_NAME="a name"),
        partition(disk, 2, "xfs", UUID="bbbb-var", LABEL="both"),
        partition(disk, 5, "swap", UUID="cccc-swap"),
        partition(disk, 7, "vfat", UUID="DDDD-EEEE", LABEL="EFI"),
        partition(other, 1, "ext4", UUID="twin", LABEL="two words"), partition(other, 2, "ext3", UUID="twin"),
        partition(other, 3, "btrfs", UUID="ffff-btrfs"), partition(other, 4, "LVM2_member", UUID="gggg-lvm"),
    ], {"by-id": {"ata-DISK-part2": "/dev/vdb2"}, "by-path": {}})


def resolve(devices, *lines, root="/dev/vdb1"):
    entries, _dummy = _fstab.parse("\n".join(lines).encode("utf-8", "surrogateescape"))
    notes = _fstab.resolve(entries, devices.all[root], devices)
    return entries, notes


@pytest.mark.parametrize(("line", "device", "status", "reason"), [
    ("UUID=bbbb-var /var xfs defaults 0 2", "/dev/vdb2", "resolved", ""),
    ("UUID=BBBB-VAR /var xfs", "/dev/vdb2", "resolved", ""),
    ('UUID="bbbb-var"\t\t/var\txfs\tdefaults', "/dev/vdb2", "resolved", ""),
    ("UUID=bbbb-var /var", "/dev/vdb2", "resolved", ""),
    ("UUID=bbbb-var", None, "unresolved", "only one field"),
    ("LABEL=two\\040words /data\\040disk ext4 defaults 0 2", "/dev/vdc1", "resolved", ""),
    ("PARTUUID=PART-1 /x ext4", "/dev/vdb1", "resolved", ""),
    ("PARTLABEL=a\\040name /x ext4", "/dev/vdb1", "resolved", ""),
    ("/dev/disk/by-label/two\\x20words /x ext4", "/dev/vdc1", "resolved", ""),
    ("/dev/disk/by-partlabel/a\\x20name /x auto", "/dev/vdb1", "resolved", ""),
    ("/dev/disk/by-uuid/bbbb-var /x xfs", "/dev/vdb2", "resolved", ""),
    ("/dev/disk/by-id/ata-DISK-part2 /x xfs", "/dev/vdb2", "resolved", ""),
    ("/dev/disk/by-id/ata-GONE-part2 /x xfs", None, "unresolved", "has no /dev/disk/by-id/ata-GONE-part2"),
    ("/dev/disk/by-path/../../../etc/passwd /x xfs", None, "unresolved", "has no"),
    ("UUID=nope /x ext4 nofail", None, "unresolved", "Nothing has this UUID"),
    ("UUID= /x ext4", None, "unresolved", "Nothing has this UUID"),
    ("UUID=twin /x ext4", None, "unresolved", "Several have this UUID: /dev/vdc1, /dev/vdc2"),
    # The rescue system's own disk is never meant, not even by a UUID that is on no other.
    ("UUID=rescue-uuid /x ext4", None, "unresolved", "belongs to the rescue system"),
    ("LABEL=both /x xfs", "/dev/vdb2", "resolved", ""),
    ("UUID=aaaa-root /x xfs", "/dev/vdb1", "unresolved", "said to be xfs, but there is ext4"),
    ("LABEL=root /x ext2,ext3", "/dev/vdb1", "resolved", ""),
    ("UUID=cccc-swap none swap sw", "/dev/vdb5", "skipped", "swap"),
    ("UUID=cccc-swap /x ext4", "/dev/vdb5", "skipped", "swap"),
    ("/swapfile none swap sw", None, "skipped", "a file"),
    ("UUID=bbbb-var /var xfs noauto", "/dev/vdb2", "skipped", "noauto"),
    ("UUID=ffff-btrfs /x btrfs subvol=@home", "/dev/vdc3", "unresolved", "has no such subvolume"),
    ("UUID=gggg-lvm /x ext4", "/dev/vdc4", "unresolved", "It is a physical volume of LVM"),
    ("/dev/mapper/vg-root /x ext4", None, "unresolved", "No volume has this name"),
    ("/dev/vg/root /x ext4", None, "unresolved", "No volume group that was found has such a volume"),
    ("/dev/md0 /x ext4", None, "unresolved", "No array that was found has this name"),
    ("/dev/bcache0 /x ext4", None, "unresolved", "knows how to find"),
    ("ZFS=rpool/x /x zfs", None, "unresolved", "It belongs to a ZFS pool, which is not supported, and which is on no disk"),
    ("rpool /x zfs", None, "unresolved", "ZFS pool"),
    ("nas:/export /n nfs defaults", None, "skipped", "network"),
    ("//nas/share /n cifs credentials=/root/c", None, "skipped", "network"),
    ("UUID=bbbb-var /n xfs _netdev", None, "skipped", "network"),
    ("tmpfs /tmp tmpfs size=1G", None, "skipped", "no device"),
    ("proc /proc proc", None, "skipped", "no device"),
    ("/srv/a /srv/b none bind", None, "skipped", "bind"),
    ("/disk.img /x ext4 loop", None, "skipped", "a file"),
    ("UUID=bbbb-var /x/../../../etc xfs", "/dev/vdb2", "unresolved", "'..'"),
    ("UUID=bbbb-var relative xfs", "/dev/vdb2", "unresolved", "no absolute path"),
    ("UUID=bbbb-var /x\\000y xfs", None, "unresolved", "NUL"),
    # What the installed system calls sdb, nobody knows.
    ("/dev/sdb1 /x ext4", None, "unresolved", "cannot be told"),
    ("/dev/sda2 /x xfs", None, "unresolved", "cannot be told"),
])
def test_a_line(devices, line, device, status, reason):
    entry = resolve(devices, line)[0][0]
    assert (entry.device, entry.status) == (device, status), entry.reason
    assert reason in entry.reason
    assert bool(reason) == bool(entry.reason)


def test_names_of_the_kernel_are_taken_where_the_root_shows_what_they_mean(devices):
    entries, notes = resolve(devices, "/dev/sda1 / ext4", "/dev/sda2 /var xfs", "/dev/sda5 none swap sw",
                             "/dev/sda9 /x ext4", "/dev/sda7 /y ext4", "/dev/sdb1 /z ext4")
    assert [(entry.device, entry.status) for entry in entries] == [
        ("/dev/vdb1", "resolved"), ("/dev/vdb2", "resolved"), ("/dev/vdb5", "skipped"),
        (None, "unresolved"), (None, "unresolved"), (None, "unresolved")]
    assert "/dev/vdb is what the installed system calls sda" in entries[1].reason
    assert "no such partition" in entries[3].reason
    assert "but there is vfat" in entries[4].reason
    assert notes == []


def test_names_of_the_kernel_are_taken_where_there_is_one_disk(devices):
    for path in ("/dev/vdc", "/dev/vdc1", "/dev/vdc2", "/dev/vdc3", "/dev/vdc4"):
        del devices.all[path]
    entries = resolve(devices, "UUID=aaaa-root / ext4", "/dev/nvme0n1p2 /var xfs")[0]
    assert entries[1].device == "/dev/vdb2"
    # Two names cannot both be the only disk, and the second disk is not the first.
    for lines in (["/dev/nvme0n1p2 /var xfs", "/dev/sda7 /efi vfat"], ["/dev/sdb2 /var xfs"]):
        entries, _dummy = resolve(devices, "UUID=aaaa-root / ext4", *lines)
        assert [entry.device for entry in entries[1:]] == [None] * len(lines)


@pytest.mark.parametrize("name", ["hda", "sda", "vda", "xvda", "nvme0n1p", "mmcblk0p", "nbd0p", "rd/c0d0p", "ida/c0d0p", "cciss/c0d0p"])
def test_names_of_every_family(devices, name):
    for path in ("/dev/vdc", "/dev/vdc1", "/dev/vdc2", "/dev/vdc3", "/dev/vdc4"):
        del devices.all[path]
    entries = resolve(devices, "UUID=aaaa-root / ext4", f"/dev/{name}2 /var xfs", f"/dev/{name}5 none swap sw")[0]
    assert [entry.device for entry in entries] == ["/dev/vdb1", "/dev/vdb2", "/dev/vdb5"]
    # The line for / shows which disk that is, also where it is not the first.
    other = name.replace("a", "c") if name.endswith("a") else name.replace("0p", "3p")
    entries = resolve(devices, f"/dev/{other}1 / ext4", f"/dev/{other}2 /var xfs")[0]
    assert [entry.device for entry in entries] == ["/dev/vdb1", "/dev/vdb2"]


def test_two_roots_and_two_of_a_mount_point(devices):
    entries, notes = resolve(devices, "UUID=bbbb-var / xfs", "UUID=aaaa-root / ext4", "LABEL=root / ext4",
                             "LABEL=two\\040words /data ext4", "UUID=bbbb-var /data//. xfs")
    assert [entry.status for entry in entries] == ["skipped", "resolved", "skipped", "resolved", "skipped"]
    assert "Line 1 of fstab says that / is /dev/vdb2" in notes[0]
    assert "No line of fstab" in resolve(devices, "# nothing")[1][0]


def test_comments_and_blanks(devices):
    entries, _dummy = resolve(devices, "", "  # x", "\t", "  UUID=bbbb-var  /var  xfs  ro,nofail # y\r")
    assert [(entry.line, entry.file, entry.options) for entry in entries] == [(4, "/var", "ro,nofail")]
    assert entries[0].needed is False


MD = "15c7609f-285f-51e2-d611-7b50a7226f7b"


def volume(path, group, name, on, layer, **tags):
    shown = f"/dev/mapper/{group.replace('-', '--')}-{name.replace('-', '--')}"
    return Device(path, "253:1", "lvm", 1 << 30, on=[on], tag={"TYPE": "ext4", **tags}, name=shown, layer=layer,
                  facts={"layer": layer, "vg": group, "lv": name})


@pytest.fixture
def layers():
    """What was built for looking: an array, two volume groups of one name, a container that is open and one that is locked."""
    disks = [Device(f"/dev/sd{letter}", f"8:{number}", "disk") for number, letter in enumerate("abcd")]
    array = Device("/dev/md900", "9:900", "raid1", on=["/dev/sda", "/dev/sdb"], tag={"TYPE": "ext4", "UUID": "boot"},
                   name="/dev/md/0", layer=f"md:{MD}:/dev/sda+/dev/sdb", facts={"uuid": MD, "array": "old-host:0"})
    container = Device("/dev/sdd", "8:48", "disk", tag={"TYPE": "crypto_LUKS", "UUID": "c0de"})
    locked = Device("/dev/sde", "8:64", "disk", tag={"TYPE": "crypto_LUKS", "UUID": "10cc"},
                    why="It is locked, and no key for it was given.")
    opened = Device("/dev/mapper/lifeboat-look1-crypt", "253:9", "crypt", on=["/dev/sdd"], tag={"TYPE": "ext4"},
                    name="/dev/mapper/luks-c0de", layer="luks:c0de:/dev/sdd", facts={"container": "/dev/sdd", "key": "passphrase"})
    store = Device("/dev/md901", "9:901", "raid5", on=["/dev/sda", "/dev/sdb"], name="/dev/md/store", layer="md:2:x",
                   facts={"uuid": "2", "array": "any:store"})
    part = Device("/dev/md901p2", "259:1", "part", on=["/dev/md901"], tag={"TYPE": "ext4", "PART_ENTRY_NUMBER": "2"},
                  name="/dev/md/store2")
    tree = Device("/dev/sdf", "8:80", "disk", tag={"TYPE": "btrfs", "UUID": "tree"})
    return Devices([
        *disks[:3], array, store, part, container, locked, opened, tree,
        volume("/dev/mapper/lifeboatlook3-root", "vg0", "root", "/dev/sda", "vg:1:/dev/sda", UUID="root"),
        volume("/dev/mapper/lifeboatlook3-my--data", "vg0", "my-data", "/dev/sda", "vg:1:/dev/sda"),
        volume("/dev/mapper/lifeboatlook9-root", "vg0", "root", "/dev/sdc", "vg:2:/dev/sdc", UUID="twin"),
        volume("/dev/mapper/lifeboatlook9-other", "vg0", "other", "/dev/sdc", "vg:2:/dev/sdc")])


NAMES = _fstab.Names(
    crypttab=_fstab.parse_crypttab(b"# x\nsecret UUID=c0de none luks\nlocked\t/dev/disk/by-uuid/10cc /key\nlost UUID=gone\nx\n"
                                   b"inner /dev/mapper/secret none\n")[0],
    arrays=_fstab.parse_mdadm_conf(f"HOMEHOST <system>\nARRAY /dev/md7 metadata=1.2\n  UUID={MD.replace('-', ':')}\n"
                                   "array /dev/md/gone uuid=1:2:3:4\nARRAY\n"),
    subvolumes={"/dev/sdf": {"@": 256, "@home": 257, "@/.snapshots/1/snapshot": 260}})


@pytest.mark.parametrize(("line", "device", "reason"), [
    # Two groups have this name; the system's own one is meant.
    ("/dev/mapper/vg0-root / ext4", "/dev/mapper/lifeboatlook3-root", ""),
    ("/dev/vg0/root / ext4", "/dev/mapper/lifeboatlook3-root", ""),
    ("/dev/mapper/vg0-my--data /d ext4", "/dev/mapper/lifeboatlook3-my--data", ""),
    ("/dev/disk/by-id/dm-name-vg0-my--data /d ext4", "/dev/mapper/lifeboatlook3-my--data", ""),
    # This name is the other one's alone, which is another system's.
    ("/dev/vg0/other /d ext4", None, "No volume group that was found has such a volume"),
    ("/dev/mapper/vg0-other /d ext4", None, "No volume has this name"),
    ("/dev/disk/by-id/dm-name-vg0-other /d ext4", None, "The rescue system has no "),
    ("/dev/md0 /boot ext4", "/dev/md900", ""),
    ("/dev/md/0 /boot ext4", "/dev/md900", ""),
    ("/dev/md7 /boot ext4", "/dev/md900", ""),
    (f"/dev/disk/by-id/md-uuid-{MD.replace('-', ':')} /boot ext4", "/dev/md900", ""),
    ("/dev/md/store2 /srv ext4", "/dev/md901p2", ""),
    ("/dev/md/store3 /srv ext4", None, "No array that was found has this name"),
    ("/dev/md0p1 /srv ext4", None, "No array that was found has this name"),
    ("/dev/md/gone /boot ext4", None, "no array with the UUID that the system's mdadm.conf has"),
    ("/dev/md5 /boot ext4", None, "No array that was found has this name"),
    ("/dev/mapper/secret /s ext4", "/dev/mapper/lifeboat-look1-crypt", ""),
    ("/dev/mapper/luks-c0de /s ext4", "/dev/mapper/lifeboat-look1-crypt", ""),
    ("/dev/mapper/locked /s ext4", None, "It is in /dev/sde. It is locked, and no key for it was given."),
    ("/dev/mapper/lost /s ext4", None, "Of UUID=gone, which crypttab has for it: Nothing has this UUID."),
    ("/dev/mapper/inner /s ext4", None, "Its container is in another container"),
    ("UUID=tree /home btrfs subvol=/@home,compress=zstd", "/dev/sdf", ""),
    ("UUID=tree /home btrfs subvolid=257", "/dev/sdf", ""),
    ("UUID=tree /top btrfs subvolid=0", "/dev/sdf", ""),
    ("UUID=tree /home btrfs", "/dev/sdf", ""),
    ("UUID=tree /home btrfs subvol=@gone", None, "no such subvolume"),
    ("UUID=tree /home btrfs subvolid=7", None, "no such subvolume"),
    ("UUID=tree /home btrfs subvolid=../7", None, "no such subvolume"),
])
def test_what_is_built_on_disks_is_found_by_its_names(layers, line, device, reason):
    entries, _cut = _fstab.parse(line.encode())
    _fstab.resolve(entries, layers.all["/dev/mapper/lifeboatlook3-root"], layers, NAMES)
    assert (entries[0].device if entries[0].status == "resolved" else None) == device, entries[0].reason
    assert reason in entries[0].reason
    assert entries[0].name == (layers.all[device].name if device else entries[0].name)


@pytest.mark.parametrize(("line", "device", "status", "reason"), [
    ("secret UUID=c0de none luks,discard", "/dev/sdd", "resolved", ""),
    ("secret /dev/disk/by-uuid/C0DE /etc/key", "/dev/sdd", "resolved", ""),
    ("  locked\tUUID=10cc", "/dev/sde", "resolved", ""),
    ("gone UUID=gone none luks", None, "unresolved", "Nothing has this UUID"),
    ("far /dev/sdq1 none luks", None, "unresolved", "Which disk the installed system calls sdq cannot be told"),
    ("alone", None, "unresolved", "The line has only one field."),
    ("swap /dev/sdq2 /dev/urandom swap,cipher=aes-xts-plain64", None, "skipped", "It gets a new key each time"),
    ("image /srv/secret.img none luks", None, "skipped", "It is a file"),
    ("plain /dev/mapper/vg0-my--data none plain", "/dev/mapper/lifeboatlook3-my--data", "unresolved", "in another way than by LUKS"),
    ("wrong UUID=boot none luks", "/dev/md900", "unresolved", "There is ext4 on /dev/md/0, and no encrypted container (LUKS)."),
    ("itself /dev/mapper/itself none", None, "unresolved", "in another container"),
])
def test_a_line_of_crypttab(layers, line, device, status, reason):
    encrypted, cut = _fstab.parse_crypttab(f"# <name> <device>\n\n{line}\n".encode())
    _fstab.resolve_crypttab(_fstab.Names(encrypted), [], layers.all["/dev/mapper/lifeboatlook3-root"], layers)
    told = encrypted[0].as_result()
    assert not cut and len(encrypted) == 1
    assert (told["line"], told["name"], told["spec"]) == (3, *[*line.split(), ""][:2])
    assert (encrypted[0].device, told["status"]) == (device, status), told
    assert reason in told["reason"] and bool(reason) == bool(told["reason"])
    assert told["device"] == (layers.all[device].name if device else None)
    assert told["uuid"] == (layers.all[device].tag.get("UUID") if device else None)
    assert "/etc/key" not in str(told)


def test_crypttab_as_debian_writes_it(layers):
    """Octal digits may have a zero more; and a header elsewhere is no lack of one."""
    spaced = Device("/dev/sdz", "1:1", "disk", tag={"TYPE": "crypto_LUKS", "PART_ENTRY_NAME": "my part"})
    encrypted, _cut = _fstab.parse_crypttab(rb"""
a PARTLABEL=my\040part none
b PARTLABEL=my\0040part none luks
c UUID=boot none luks,header=/boot/header
""")
    _fstab.resolve_crypttab(_fstab.Names(encrypted), [], layers.all["/dev/mapper/lifeboatlook3-root"], Devices([*layers, spaced]))
    assert [(each.line, each.device, each.status) for each in encrypted] == [
        (2, "/dev/sdz", "resolved"), (3, "/dev/sdz", "resolved"), (4, "/dev/md900", "unresolved")]
    assert encrypted[2].reason == "Its header is elsewhere, which is not supported."


@pytest.mark.parametrize(("second", "expected"), [(False, ["/dev/vda1", "/dev/vda5"]), (True, [None, None])])
def test_names_of_the_kernel_beside_a_root_on_a_volume(second, expected):
    """The line for / shows nothing then; but one disk can only be meant by the first name."""
    disk = Device("/dev/vda", "254:0", "disk", below=["/dev/vda1", "/dev/vda5"])
    boot = Device("/dev/vda1", "254:1", "part", on=["/dev/vda"], tag={"TYPE": "ext4", "PART_ENTRY_NUMBER": "1"})
    part = Device("/dev/vda5", "254:5", "part", on=["/dev/vda"], tag={"TYPE": "crypto_LUKS", "PART_ENTRY_NUMBER": "5"})
    root = volume("/dev/mapper/look-root", "vg0", "root", "/dev/vda5", "vg:1:/dev/vda")
    devices = Devices([disk, boot, part, root, *([Device("/dev/vdb", "254:16", "disk")] if second else [])])
    entries, _cut = _fstab.parse(b"/dev/mapper/vg0-root / ext4\n/dev/sda1 /boot ext4\n")
    names = _fstab.Names(_fstab.parse_crypttab(b"sda5_crypt /dev/sda5 none luks\n")[0])
    _fstab.resolve(entries, root, devices, names)
    _fstab.resolve_crypttab(names, entries, root, devices)
    assert [entries[1].device, names.crypttab[0].device] == expected
    assert entries[0].device == root.path


@pytest.mark.parametrize("spec", ["UUID=tree", "PARTUUID=second", "/dev/mapper/half-b", "LABEL=pool"])
def test_any_device_of_a_btrfs_means_all_of_it(spec):
    def half(letter, **tags):
        return Device(f"/dev/mapper/{letter}", "253:1", "crypt", on=["/dev/vda"], part_of="" if letter == "a" else "/dev/mapper/a",
                      tag={"TYPE": "btrfs", "UUID": "tree", "LABEL": "pool", "UUID_SUB": letter, **tags}, name=f"/dev/mapper/half-{letter}",
                      facts={"container": f"/dev/{letter}"})

    root = half("a")
    devices = Devices([Device("/dev/vda", "254:0", "disk"), root, half("b", PART_ENTRY_UUID="second")])
    entries, _cut = _fstab.parse(f"{spec} / btrfs defaults\n".encode())
    assert _fstab.resolve(entries, root, devices) == []
    assert (entries[0].device, entries[0].status) == ("/dev/mapper/a", "resolved"), entries[0].reason


def test_one_of_several_disks_shows_no_name_of_a_disk():
    """Which of them the line for / meant cannot be told, and so not what sda was."""
    disks = [Device(f"/dev/sd{letter}", f"8:{number}", "disk") for number, letter in enumerate("ab")]
    parts = [Device(f"/dev/sd{letter}2", f"8:{number}2", "part", on=[f"/dev/sd{letter}"], part_of="" if letter == "a" else "/dev/sda2",
                    tag={"TYPE": "btrfs", "UUID": "tree", "UUID_SUB": letter, "PART_ENTRY_NUMBER": "2"})
             for number, letter in enumerate("ab")]
    boots = [Device(f"/dev/sd{letter}1", f"8:{number}1", "part", on=[f"/dev/sd{letter}"], tag={"TYPE": "ext4", "PART_ENTRY_NUMBER": "1"})
             for number, letter in enumerate("ab")]
    entries, _cut = _fstab.parse(b"/dev/sda2 / btrfs\n/dev/sda1 /boot ext4\n")
    _fstab.resolve(entries, parts[0], Devices([*disks, *parts, *boots]))
    assert [(entry.device, entry.status) for entry in entries] == [(None, "unresolved"), (None, "unresolved")]


def test_the_pool_of_zfs_is_named_by_its_disk(devices):
    pool = Device("/dev/vdz", "1:1", "disk", tag={"TYPE": "zfs_member", "LABEL": "rpool"})
    entry = resolve(Devices([*devices, pool]), "rpool/ROOT/home /home zfs")[0][0]
    assert (entry.status, entry.reason) == ("unresolved", "It belongs to a ZFS pool, which is not supported. The pool is on /dev/vdz.")


def test_which_subvolume_is_meant(layers):
    entries, _cut = _fstab.parse(b"UUID=tree / btrfs subvol=@\nUUID=tree /home btrfs subvol=@home\nUUID=tree /x btrfs\n"
                                 b"UUID=tree /top btrfs subvol=/\n")
    assert _fstab.resolve(entries, layers.all["/dev/sdf"], layers, NAMES, "@") == []
    assert [(entry.subvolume, entry.status) for entry in entries] == [
        (256, "resolved"), (257, "resolved"), (None, "resolved"), (5, "resolved")]
    entries, _cut = _fstab.parse(b"UUID=tree / btrfs subvol=@home\n")
    notes = _fstab.resolve(entries, layers.all["/dev/sdf"], layers, NAMES, "@")
    assert "another subvolume than the one it was found in, @." in notes[0]


def test_a_partition_of_a_partition_of_an_array_is_none(layers):
    [entry] = _fstab.parse(b"/dev/md/0" + b"p1" * 1500 + b" /x ext4 defaults 0 0\n")[0]
    _fstab.resolve([entry], next(iter(layers)), layers, _fstab.Names())
    assert entry.reason == "No array that was found has this name."


def test_noise_in_crypttab_and_mdadm_conf_is_never_an_error(layers):
    source = random.Random(8)
    words = ["ARRAY", " ", "\n", "\t", "UUID=", "c0de", "/dev/mapper/", "secret", "none", "#", "/dev/md0", "\0", "\udcff", "=", ":",
             "luks", "\\", "x" * 50]
    for dummy in range(3000):
        text = "".join(source.choice(words) for dummy in range(source.randrange(60)))
        encrypted, _cut = _fstab.parse_crypttab(text.encode("utf-8", "surrogateescape"))
        names = _fstab.Names(crypttab=encrypted, arrays=_fstab.parse_mdadm_conf(text))
        entries, _cut = _fstab.parse(b"/dev/mapper/secret /a ext4\n/dev/md0 /b ext4\n")
        _fstab.resolve(entries, layers.all["/dev/mapper/lifeboatlook3-root"], layers, names)
        assert all(entry.status in ("resolved", "skipped", "unresolved") for entry in entries)


def test_escapes_come_back():
    name = "/a b\tc\nd\\e\udcff"
    escaped = name.encode("utf-8", "surrogateescape")
    for byte in b"\\ \t\n":
        escaped = escaped.replace(bytes([byte]), b"\\%03o" % byte)
    entries, _dummy = _fstab.parse(b"UUID=x " + escaped + b" ext4")
    assert entries[0].file == name


@pytest.mark.parametrize("line", [b"UUID=x /a ext4\n", b"a b\n", b"\0\xff\n",
                                  b"\\040" * 50 + b" " + b"/x" * 500 + b"\n"])
def test_an_endless_file_ends_soon(devices, line):
    started = time.monotonic()
    entries, cut = _fstab.parse(line * (16000000 // len(line)))
    _fstab.resolve(entries, devices.all["/dev/vdb1"], devices)
    assert cut
    assert len(entries) <= _fstab.MOST
    encrypted, cut = _fstab.parse_crypttab(line * (16000000 // len(line)))
    _fstab.resolve_crypttab(_fstab.Names(encrypted), entries, devices.all["/dev/vdb1"], devices)
    assert cut
    assert len(encrypted) <= _fstab.MOST
    assert time.monotonic() - started < 5


def test_noise_is_never_an_error(devices):
    source = random.Random(7)
    words = ["UUID=", "LABEL=", "/dev/", "disk/by-id/", "sda", "1", "/", "..", "\\040", "\\", "ext4", ",", "=", " ",
             "\t", "\n", "#", "nofail", "bind", "\udcff", "\0", '"', "swap", "none", "nvme0n1p", "mapper/", ":",
             "aaaa-root"]
    for dummy in range(3000):
        text = "".join(source.choice(words) for dummy in range(source.randrange(60)))
        for entry in resolve(devices, text)[0]:
            assert entry.status in ("resolved", "skipped", "unresolved")
            assert (entry.status == "resolved") <= (entry.file.startswith("/") and ".." not in entry.file.split("/"))
            assert entry.device is None or not devices.all[entry.device].rescue
