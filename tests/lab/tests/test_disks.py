# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The zoo's images hold what they are said to hold, and its judge sees what it must see."""

from __future__ import annotations

import re

import pytest

from disks import IMAGES, CommandError, Zoo, changed, listing, same, snapshot
from disks.probe import DOUBLE, probe, said_by
from lifeboat_lab.images import LabError

pytest_plugins = "disks.fixtures"


def plain(uuid: str) -> str:
    return re.sub("[-:]", "", uuid)


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_is_what_it_says(zoo: Zoo, name: str) -> None:
    image, said = IMAGES[name], said_by(zoo, name)
    assert {where: table for where, table in said["tables"].items() if where.isdigit()} == {
        str(number): image.table[number] for number in image.present if image.table[number]}
    found = {(where, kind): (plain(uuid), label) for where, kind, uuid, label in said["contents"]}
    expected = {(content.where, content.type): (plain(content.uuid), content.label) for content in image.contents}
    assert found.keys() == expected.keys()
    for key, (uuid, label) in expected.items():
        assert found[key] == (uuid if uuid != "*" else found[key][0], label), key

    for system, seen in zip(image.systems, said["systems"], strict=name not in DOUBLE):
        assert re.search(f'^ID="?{system.id}"?$', seen["release"], re.M) and seen["hostname"] == system.hostname
        assert seen["shell"] and seen["links"] == 2
        # the boot loader's files, or else the table, say how it boots
        loaders = {"i386-pc": "bios", "x86_64-efi": "uefi"}
        assert {loaders[name] for name in seen["grub"]} == {system.boot_mode} - {"unknown"}
        for mount in system.mounts:
            kind, uuid, root = seen["mounts"][mount.path]
            assert (kind, uuid) == (mount.type, mount.uuid)
            assert mount.subvolume is None or root == f"/{mount.subvolume}"
        lines = [line.split() for line in seen["fstab"].splitlines() if line.strip() and not line.startswith("#")]
        found_points, left_out = [], set()
        for what, point in ((words[0].replace("\\040", " "), words[1].replace("\\040", " ")) for words in lines):
            key = next((key for key in (f"{what} {point}", what) if key in system.left_out), None)
            if key:
                left_out.add(key)
            else:
                found_points.append(point)
        assert left_out == system.left_out.keys()
        assert sorted(found_points) == sorted(mount.path for mount in system.mounts)


@pytest.mark.parametrize("name", sorted(DOUBLE))
def test_what_is_there_twice_can_be_told_apart_by_its_disk(zoo: Zoo, name: str) -> None:
    with zoo.plugged(name) as there:
        with pytest.raises(CommandError):  # for LVM itself cannot
            there.guest.run("vgchange --activate y vg0 && test -b /dev/vg0/root")
        for number, system in enumerate(there.image.systems):
            there.guest.run("vgchange -qq --activate n || true")
            there.guest.run(f"vgchange -qq --devices {there.device(f'{number}.2')} --activate y vg0")
            [said] = probe(there, systems=[[("/", "lv:vg0/root", "ext4", None)]])["systems"]
            assert said["hostname"] == system.hostname
            assert said["mounts"]["/"][1] == system.root.uuid


def test_a_degraded_array_is_degraded(zoo: Zoo) -> None:
    with zoo.plugged("raid1-lvm-degraded", active=True) as there:
        assert "inactive" in there.guest.run("cat /proc/mdstat")  # the kernel waits for the other half
        there.guest.run("mdadm --run /dev/md127")
        assert "degraded" in there.guest.run("mdadm --detail /dev/md127")


@pytest.mark.parametrize("kind", ["ext4", "xfs", "f2fs"])
def test_a_dirty_journal_holds_what_came_last(zoo: Zoo, kind: str) -> None:
    with zoo.plugged(f"dirty-{kind}") as there:
        late = there.image.after_replay
        assert late not in listing(there.guest, there.device("0.2"), kind)
        there.guest.run(f"mount {there.device('0.2')} /mnt && cat /mnt{late} && umount /mnt")
        assert late in listing(there.guest, there.device("0.2"), kind)
    assert 0 in there.written()


def test_what_cannot_be_read_cannot_be_read(zoo: Zoo) -> None:
    for name, offset in (("bad-data", 66 << 20), ("bad-table", 0)):
        with zoo.plugged(name) as there:
            read = f"dd if={there.device('0')} bs=4096 iflag=direct count=1 status=none of=/dev/null skip="
            with pytest.raises(CommandError, match="error reading"):
                there.guest.run(f"{read}{offset // 4096}")
            there.guest.run(f"{read}{(offset >> 12) + 512}")
        assert there.written() == {}


def test_a_disk_of_two_paths_is_one_disk(zoo: Zoo) -> None:
    with zoo.plugged("multipath") as there:
        one, other = there.devices[0].split()
        about = "lsblk --nodeps --noheadings --output SERIAL,WWN "
        assert there.guest.run(about + one) == there.guest.run(about + other) != "\n"
        there.guest.run(f"printf x | dd of={one}2 bs=1 seek=4096 conv=fsync,notrunc status=none; blockdev --flushbufs {other}")
        assert there.guest.run(f"dd if={other}2 bs=1 skip=4096 count=1 status=none") == "x"


def test_to_look_writes_nothing_and_one_byte_is_seen(zoo: Zoo) -> None:
    with zoo.plugged("gpt-bios-ext4") as there:
        files = listing(there.guest, there.device("0.2"), "ext4")
        assert there.left() == []
    assert there.written() == {}
    assert files["/etc/shadow"][:3] == ("-", 0o640, 0) and files["/etc/shadow"].gid == 42
    assert files["/srv/odd/first"].links == 2 and files["/srv/odd/new\nline"].xattrs == {"user.zoo": b"here".hex()}
    assert files["/dev/null"].digest == "1:3" and files["/etc/os-release"].digest == "../usr/lib/os-release"

    with zoo.plugged("gpt-bios-ext4") as there:
        there.guest.run(f"printf x | dd of={there.device('0.3')} bs=1 seek=8388609 conv=fsync,notrunc status=none")
    [(start, _length)] = there.written()[0]
    assert start <= (66 << 20) + 8388609 < start + (64 << 10)


def test_what_the_first_of_two_writes_is_seen_before_the_second(zoo: Zoo) -> None:
    """An image that stays plugged in: each of the two has its own layers; and it is plugged in anew for whoever is no second."""
    byte = "printf {} | dd of={} bs=1 seek={} conv=notrunc status=none"
    for name, place in (("gpt-bios-ext4", "0.3"), ("bad-data", "0")):
        with zoo.plugged(name, shared="first") as first:
            assert first.set_aside() == {}
            at = 40 << 20 if place == "0" else 8 << 20
            zoo.guest.run(byte.format("x", first.device(place), at))
            [(start, _length)] = first.set_aside()[0]
            assert start <= at + (0 if place == "0" else 66 << 20) < start + (64 << 10)
            assert first.set_aside() == {}
            before = zoo.guest.run(f"dd if={first.device(place)} bs=1 skip={at} count=1 status=none")
        with zoo.plugged(name, shared="second") as second:
            assert second is first
            assert before == zoo.guest.run(f"dd if={second.device(place)} bs=1 skip={at} count=1 iflag=nocache status=none") == "x"
            assert second.left() == []
        assert second.written() == {}
        with zoo.plugged(name, shared="first") as there:
            assert there is not first
            assert zoo.guest.run(f"dd if={there.device(place)} bs=1 skip={at} count=1 status=none") != "x"
        with zoo.plugged(name) as fresh:
            assert fresh is not there


def test_changed_files_are_seen(zoo: Zoo) -> None:
    with zoo.plugged("gpt-bios-ext4") as there:
        root = there.device("0.2")
        before = listing(there.guest, root, "ext4")
        there.guest.run(f"mount {root} /mnt && umount /mnt")
        assert changed(before, listing(there.guest, root, "ext4")) == []
        there.guest.run(f"mount {root} /mnt; chmod 600 /mnt/etc/hosts; setfattr -n user.zoo -v there '/mnt/srv/odd/-rf'; "
                        "echo x >> /mnt/etc/motd; chown 1 /mnt/etc/group; umount /mnt")
        assert changed(before, listing(there.guest, root, "ext4")) == ["/etc/group", "/etc/hosts", "/etc/motd", "/srv/odd/-rf"]
    assert 0 in there.written()


@pytest.mark.parametrize(("plant", "seen"), [
    ("mount -o ro {root} /mnt", r"mount is new: /dev/sda2: /mnt ext4"),
    ("unshare --mount sh -c 'mount -o ro {root} /mnt; sleep 600' >/dev/null 2>&1 & "
     "sleep 2", r"mount is new: /dev/sda2: /mnt ext4 .* in a namespace of sh"),
    ("dmsetup create planted --table '0 8 linear {root} 0'", "mapping is new: planted: 0 8 linear"),
    ("dmsetup create --readonly planted --table '0 8 linear {root} 0'", "device is new: planted .* dm 4096 ro"),
    ("losetup --read-only --find {root}", "loop is new: /dev/loop0: /dev/sda2 offset 0"),
    ("mkswap -q {data} && swapon {data}", "swap is new: /dev/sda3"),
    ("mdadm --build /dev/md7 --level=linear --force --raid-devices=1 {data}", "array is new: md7 : active linear sda3"),
    ("blockdev --setro {root}", "device is new: sda2 8:2 part 67108864 ro"),
])
def test_what_is_planted_is_seen(zoo: Zoo, plant: str, seen: str) -> None:
    with zoo.plugged("gpt-bios-ext4") as there:
        there.guest.run(plant.format(root=there.device("0.2"), data=there.device("0.3")))
        told = there.left()
        there.guest.run("for pid in $(pgrep -x sleep); do kill $pid; done")
    assert any(re.search(seen, line) for line in told), told
    # and it has been taken down
    assert same(zoo.empty, snapshot(zoo.guest)) == []


def test_a_change_of_volume_groups_is_seen(zoo: Zoo) -> None:
    with zoo.plugged("twin-vg-one") as there:
        there.guest.run("vgchange -qq --addtag here vg0")
        assert [line.partition(":")[0] for line in there.left()] == ["group is new", "group is gone"]


def test_what_cannot_be_taken_down_is_told_and_the_machine_boots_again(zoo: Zoo) -> None:
    number = len(zoo.machine.boots)
    with pytest.raises(LabError, match="could not be taken down, and the machine was booted again: mount is new: none: /opt"), \
            zoo.plugged("whole-disk") as there:
        there.guest.run("mount -t tmpfs none /opt")
    assert len(zoo.machine.boots) == number + 1
    with zoo.plugged("whole-disk") as there:
        assert there.left() == []
