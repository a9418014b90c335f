# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Finding, mounting and leaving each image of the zoo, in a machine; judged by what the recipe put there and by a verifier
that trusts nothing of the collection.
"""

from __future__ import annotations

import collections
import json
import re
from typing import Any

import pytest

from disks import IMAGES, Guest, System, There, Zoo, all_files, altered, same, snapshot
from disks.module import call, keys
from disks.verify import Listings

pytest_plugins = "disks.fixtures"

# What a line of fstab that is left out must say of itself.
REASONS = {"swap": "swap|a file", "noauto": "noauto", "missing": "Nothing has|has no|cannot be told|No ", "network": "network",
           "pseudo": "no device", "second": "earlier line|The root file system|Nothing has|has no", "short": "",
           "bind": "bind", "loop": "a file"}
FAMILIES = {"Windows": "windows", "FreeBSD": "bsd"}


def expected(there: There) -> list[System]:
    """The installed systems, in an order of their own."""
    return sorted(there.image.systems, key=lambda system: (system.hostname, system.root.uuid))


def check(there: There, info: dict[str, Any]) -> None:
    """What storage_info says against what the recipe put there."""
    others = [FAMILIES[reason.split(",")[0]] for reason in there.image.not_systems.values() if reason.split(",")[0] in FAMILIES]
    assert [each["os"]["family"] for each in info["systems"] if not each["mountable"]] == others
    found = sorted((system for system in info["systems"] if system["mountable"]), key=lambda system: (system["hostname"], system["id"]))
    assert len(found) == len(there.image.systems), [(each["id"], each["root"], each["hostname"]) for each in found]
    for told, system in zip(found, expected(there), strict=True):
        assert (told["os"]["id"], told["hostname"], told["mountable"]) == (system.id, system.hostname, True)
        assert told["boot_mode"] == system.boot_mode
        assert told["arch"] == "x86_64" and told["kernels"] and all(kernel["initramfs"] for kernel in told["kernels"])
        root = system.root
        assert told["uuid"] == root.uuid
        assert told["root"] == there.device(root.where) if root.where[0].isdigit() else told["root"]
        resolved = {entry["file"]: entry for entry in told["fstab"] if entry["status"] == "resolved"}
        wanted = {mount.path: mount for mount in system.mounts}
        # a fstab may not have the root at all
        assert resolved.keys() | {"/"} == wanted.keys(), told["fstab"]
        for path, entry in resolved.items():
            assert entry["uuid"] == wanted[path].uuid, entry
        uuids = {content.where: content.uuid for content in there.image.contents}
        assert {entry["name"]: (entry["status"], entry["uuid"]) for entry in told["crypttab"]} == {
            secret.opened.partition(":")[2]: ("resolved", uuids[secret.where]) for secret in there.image.secrets}
        for entry in told["fstab"]:
            if entry["status"] == "resolved":
                assert entry["spec"] not in system.left_out and f"{entry['spec']} {entry['file']}" not in system.left_out
                continue
            kind = system.left_out.get(f"{entry['spec']} {entry['file']}") or system.left_out[entry["spec"]]
            assert entry["reason"] and re.search(REASONS[kind], entry["reason"]), entry


def check_state(there: There, info: dict[str, Any]) -> None:
    """What was unmounted is clean, and what was pulled out is not."""
    told = [each["dirty"] for each in info["filesystems"] if not each["rescue"] and re.match("ext|xfs|vfat", each["type"])]
    assert set(told) <= {None, there.image.pulled}
    replay = [each["needs_replay"] for each in info["filesystems"] if each["type"] in ("ext4", "xfs", "btrfs") and not each["rescue"]]
    assert set(replay) <= {None, there.image.pulled}


@pytest.mark.parametrize("name", [name for name, image in IMAGES.items() if not image.systems])
def test_where_nothing_can_be_mounted(zoo: Zoo, name: str, record_property: Any) -> None:
    with zoo.plugged(name) as there:
        look(there, record_property)
        refused = call(there.guest, "storage_mount", luks=keys(there))
        assert refused.get("failed") and refused["failure"]["state"] == "Nothing was mounted."
        assert there.left() == []
    assert there.written() == {}


def look(there: There, record_property: Any) -> dict[str, Any]:
    info = call(there.guest, "storage_info", luks=keys(there))
    assert not info.get("failed"), info
    record_property("info", info["took"])
    check(there, info)
    check_state(there, info)
    assert there.left() == []
    # Nothing of the rescue system's is ever a candidate.
    assert all(disk["rescue"] == (disk["serial"] == "rescue") for disk in info["disks"] if disk["serial"])
    return info


def mounted(guest: Guest, path: str = "/mnt/target") -> dict[str, tuple[str, str, str]]:
    """What is mounted below a path, by findmnt: type, UUID and root in the file system."""
    lines = guest.run(f"findmnt --noheadings --raw --submounts --mountpoint {path} --output TARGET,FSTYPE,UUID,FSROOT").splitlines()
    return {words[0].replace("\\x20", " ")[len(path):] or "/": (words[1], words[2], words[3]) for words in map(str.split, lines)}


def systems() -> list[tuple[str, int]]:
    return [(name, number) for name, image in IMAGES.items() for number, dummy in enumerate(sorted(
        image.systems, key=lambda system: (system.hostname, system.root.uuid)))]


@pytest.mark.parametrize("mode", ["ro", "rw"])
@pytest.mark.parametrize(("name", "number"), systems())
def test_it_is_mounted_and_left_clean(zoo: Zoo, name: str, number: int, mode: str, record_property: Any) -> None:
    """Check mode, mount, again; unmount, again."""
    visit(zoo, name, number, mode, False, record_property)


@pytest.mark.parametrize("mode", ["ro", "rw"])
@pytest.mark.parametrize(("name", "number"), [("raid1-lvm", 0), ("raid1-lvm-degraded", 0), ("raid1-090", 0), ("thin-lvm", 0),
                                              ("cloned-lvm", 0), ("cloned-lvm", 1)])
def test_what_the_rescue_system_has_activated_is_left_as_found(zoo: Zoo, name: str, number: int, mode: str,
                                                               record_property: Any) -> None:
    visit(zoo, name, number, mode, True, record_property)


def visit(zoo: Zoo, name: str, number: int, mode: str, active: bool, record_property: Any) -> None:
    # Both are one visit of one image; whether the first has written is judged before the second does.
    with zoo.plugged(name, active, "first" if mode == "ro" else "second") as there:
        if mode == "ro" and active:
            there.set_aside()  # what the rescue system wrote when it activated something is not ours
        system = expected(there)[number]
        guest, luks = there.guest, keys(there)
        before = all_files(guest, there.image) if mode == "rw" and there.image.pulled else []
        chosen = None
        if mode == "ro" or active or len(there.image.systems) > 1:  # else it has been looked at, and there is nothing to choose
            info = look(there, record_property)
            chosen = sorted(info["systems"], key=lambda each: (each["hostname"] or "", each["id"]))[number]["id"]
        arguments = {"mode": mode, "luks": luks, "system": chosen, "degraded": "degraded" in name, "partial": "partial" in name,
                     "owner": "the test"}
        planned = call(guest, "storage_mount", check_mode=True, **arguments)
        assert planned.get("changed") is True, planned
        assert there.left() == []

        done = call(guest, "storage_mount", **arguments)
        assert done.get("changed") is True, done
        record_property("mount", done["took"])
        seen = mounted(guest)
        # The driver of ext4 mounts them all.
        assert {path: each[:2] for path, each in seen.items()} == {
            mount.path: (re.sub("^ext[23]$", "ext4", mount.type), mount.uuid) for mount in system.mounts}
        for mount in system.mounts:
            assert mount.subvolume is None or seen[mount.path][2] == f"/{mount.subvolume}"
        assert guest.run("cat /mnt/target/etc/hostname").strip() == system.hostname
        assert guest.run("nsenter --mount=/run/lifeboat/target.ns sh -c 'read -r name < /etc/hostname; echo $name'").strip() == \
            system.hostname
        assert [each["target"] for each in planned["mounts"]] == [each["target"] for each in done["mounts"]]
        again = call(guest, "storage_mount", **arguments)
        assert again.get("changed") is False, again

        left = call(guest, "storage_mount", state="unmounted", owner="the test")
        assert left.get("clean") is True, left
        assert call(guest, "storage_mount", state="unmounted", owner="the test")["changed"] is False
        assert (there.left() if mode == "ro" or not active else but_for_arrays(there.left())) == []
        if mode == "rw":
            check_files(there, before)
        else:
            assert there.set_aside() == {}


def check_files(there: There, before: Listings) -> None:
    """All files are as they were, in the systems that were mounted and in all others."""
    image, after = there.image, all_files(there.guest, there.image)
    before = before or there.golden.files(image)
    there_now, there_then = (collections.Counter((kind, uuid) for kind, uuid, _files in each) for each in (after, before))
    # each path of a disk shows it once more, and a disk that is not there, or cannot be read, shows nothing
    paths = max(disk.paths for disk in image.disks)
    if image.only or any(disk.bad for disk in image.disks):
        assert set(there_now) == {(content.type, content.uuid) for content in image.contents if (content.type, content.uuid) in there_then}
    else:
        assert there_now == {each: count * paths for each, count in there_then.items()}
    late = [f"{content.type} {content.uuid}: {image.after_replay}" for content in image.contents]
    assert altered(before, after) == (late if image.pulled else [])


def but_for_arrays(lines: list[str]) -> list[str]:
    """Leave out what the first write to an array changes of it: it is there in another state, and so told twice."""
    arrays = [(match[1], match[2]) for line in lines if (match := re.match(r"(?:array|device) is (new|gone): (md\d+) ", line))]
    changed = {name for state, name in arrays if state == "new"} & {name for state, name in arrays if state == "gone"}
    return [line for line in lines if not any(re.match(rf"(array|device) is (new|gone): {name} ", line) for name in changed)]


@pytest.mark.parametrize(("name", "lacks", "ask"), [("raid1-lvm-degraded", "lacks 1 of its 2 disks", "degraded=true"),
                                                    ("lvm-partial", "vg0 lacks 1 of its disks", "partial=true")])
def test_what_lacks_disks_is_built_only_when_asked(zoo: Zoo, name: str, lacks: str, ask: str) -> None:
    with zoo.plugged(name) as there:
        refused = call(there.guest, "storage_mount")
        assert refused["failed"] and lacks in refused["msg"] and ask in refused["msg"]
        assert there.left() == []
    assert there.written() == {}


def test_a_devices_file_hides_nothing(zoo: Zoo) -> None:
    with zoo.plugged("twin-vg-one") as there:
        guest = there.guest
        guest.run("mkdir -p /etc/lvm/devices; printf 'VERSION=1.1.1\\nIDTYPE=devname IDNAME=/dev/none DEVNAME=/dev/none PVID=none\\n' "
                  "> /etc/lvm/devices/system.devices")
        try:
            assert "vg0" not in guest.run("vgs --config 'devices { use_devicesfile=1 }'")
            done = call(guest, "storage_mount")
            assert done.get("changed"), done
            assert call(guest, "storage_mount", state="unmounted")["clean"]
            assert there.left() == []
        finally:
            guest.run("rm -r /etc/lvm/devices/system.devices")


# Programs that, the first time that they are run, have something done to half arrays behind the back of who looks.
BEHIND = {
    # As rescue systems do when they have waited half a minute for the other half.
    "started": ("lsblk", 'lsblk "$@"; for array in /dev/md12?; do mdadm --run --quiet $array; done >/dev/null 2>&1'),
    # As udev does when it comes late to an event of a member.
    "taken": ("dmsetup", 'for member in /dev/sd??; do mdadm --incremental --quiet $member; done >/dev/null 2>&1; dmsetup "$@"'),
}
STATES = "cat /sys/block/md*/md/array_state"


@pytest.mark.parametrize("mode", ["ro", "rw"])
@pytest.mark.parametrize("behind", BEHIND)
def test_half_an_array_that_is_touched_meanwhile_is_looked_at_again(zoo: Zoo, behind: str, mode: str) -> None:
    with zoo.plugged("raid1-lvm-degraded", active=True) as there:
        guest, (program, script) = there.guest, BEHIND[behind]
        for check_mode in (True, False):
            assert set(guest.run(STATES).split()) == {"inactive"}
            guest.run(f"cat > /usr/local/sbin/{program}; chmod +x /usr/local/sbin/{program}",
                      stdin=f"#!/bin/sh\nrm /usr/local/sbin/{program}\n{script}\n".encode())
            done = call(guest, "storage_mount", check_mode=check_mode, mode=mode, degraded=True)
            assert done.get("changed"), done
            assert {each["target"][len("/mnt/target"):] or "/" for each in done["mounts"]} == {
                mount.path for mount in there.image.systems[0].mounts}
            assert guest.run(f"ls /usr/local/sbin/{program}", check=False) == "", "it was not run"
            if behind == "started":
                assert not {"inactive"} & set(guest.run(STATES).split())
            if check_mode:
                # As it was, for the next one.
                guest.run("udevadm settle; lvm vgchange -qq --activate n; for array in /sys/block/md*; do "
                          "echo inactive > $array/md/array_state; done")
        assert guest.run("cat /mnt/target/etc/hostname").strip() == expected(there)[0].hostname
        assert call(guest, "storage_mount", state="unmounted")["clean"]


def test_of_two_groups_of_one_name_one_is_set_aside(zoo: Zoo) -> None:
    with zoo.plugged("twin-vg") as there:
        guest = there.guest
        guest.run(f"vgchange -qq --devices {there.device('1.2')} --activate y vg0; udevadm settle")
        was = snapshot(guest)
        first, second = there.image.systems
        for system in (first, second):
            [told] = [each for each in call(guest, "storage_info")["systems"] if each["hostname"] == system.hostname]
            done = call(guest, "storage_mount", system=told["id"])
            assert done.get("changed") and done["system"]["hostname"] == system.hostname, done
            assert guest.run("cat /mnt/target/etc/hostname").strip() == system.hostname
            assert call(guest, "storage_mount", state="unmounted")["clean"]
            assert same(was, snapshot(guest)) == []

        # What is in use is not set aside.
        guest.run("mkdir /mnt/hand; mount /dev/vg0/root /mnt/hand")
        was = snapshot(guest)
        [told] = [each for each in call(guest, "storage_info")["systems"] if each["hostname"] == first.hostname]
        refused = call(guest, "storage_mount", system=told["id"])
        assert refused.get("failed") and "Its volume group vg0 cannot be activated" in refused["msg"], refused
        assert same(was, snapshot(guest)) == []
        guest.run("umount /mnt/hand; rmdir /mnt/hand")


def test_locked_containers_are_told(zoo: Zoo) -> None:
    with zoo.plugged("lvm-on-luks") as there:
        info = call(there.guest, "storage_info")
        [container] = info["containers"]
        assert (container["open"], container["key"], info["systems"]) == (False, None, [])
        [locked] = [each for each in info["filesystems"] if each["type"] == "crypto_LUKS"]
        assert locked["reason"] == "It is locked, and no key for it was given."
        wrong = call(there.guest, "storage_info", luks=[{"passphrase": "wrong horse"}])
        [locked] = [each for each in wrong["filesystems"] if each["type"] == "crypto_LUKS"]
        assert "none of the keys that were given opens it" in locked["reason"] and "wrong horse" not in json.dumps(wrong)
        right = call(there.guest, "storage_info", luks=[{"passphrase": "wrong horse"}, {"passphrase": "correct horse"}])
        assert right["containers"][0]["key"] == "passphrase" and len(right["systems"]) == 1
        assert there.left() == []
    assert there.written() == {}


# A server of keys in the rescue system itself: tang, which serves one connection, and a program that hands it each.
TANG = """
set -e
mkdir /run/tang
/usr/libexec/tangd-keygen /run/tang
setsid python3 -c '
import socketserver, subprocess
class Tang(socketserver.BaseRequestHandler):
    def handle(self):
        subprocess.run(["/usr/libexec/tangd", "/run/tang"], stdin=self.request, stdout=self.request)
socketserver.TCPServer(("127.0.0.1", 7500), Tang).serve_forever()
' </dev/null >/run/tang/log 2>&1 & echo $! > /run/tang/pid
for _ in $(seq 100); do
    if curl -sf http://127.0.0.1:7500/adv >/dev/null; then exit; fi
    sleep 0.1
done
cat /run/tang/log
exit 1
"""
BIND = """
set -e
lvm vgchange -qq --activate y vg0
printf 'open sesame' | clevis luks bind -y -k - -d /dev/vg0/root_enc tang '{"url": "http://127.0.0.1:7500"}'
lvm vgchange -qq --activate n vg0
"""


def test_a_container_is_opened_by_clevis(zoo: Zoo) -> None:
    with zoo.plugged("luks-on-lv") as there:
        guest = there.guest
        guest.run(TANG)
        try:
            guest.run(BIND)
            [_passphrase, key_file] = keys(there)
            luks = [{"clevis": True}, key_file]
            done = call(guest, "storage_mount", luks=luks)
            assert done.get("changed"), done
            assert {path: each[1] for path, each in mounted(guest).items()} == {
                mount.path: mount.uuid for mount in there.image.systems[0].mounts}
            used = {each["uuid"]: each["key"] for each in call(guest, "storage_info", luks=luks)["containers"]}
            assert used == {there.image.contents[2].uuid: "clevis", there.image.contents[3].uuid: "key file /run/key1"}
            assert call(guest, "storage_mount", state="unmounted")["clean"]
            assert there.left() == []
        finally:
            guest.run("kill $(cat /run/tang/pid); rm -r /run/tang")
        # Nobody answers.
        [locked] = [each for each in call(guest, "storage_info", luks=[{"clevis": True}])["filesystems"]
                    if each["uuid"] == there.image.contents[2].uuid]
        assert locked["reason"] == \
            f"It is locked: none of the keys that were given opens it (clevis: {locked['device']} could not be opened.)."
        assert there.left() == []


def test_what_is_mounted_over_overlays_can_be_looked_at(zoo: Zoo) -> None:
    with zoo.plugged("luks-on-lv") as there:
        luks = keys(there)
        done = call(there.guest, "storage_mount", mode="ro", luks=luks)
        assert done.get("changed"), done
        info = call(there.guest, "storage_info", luks=luks)
        assert not info.get("failed"), info
        check(there, info)
        assert {each["mounted"] for each in info["filesystems"]} >= {"/mnt/target"}
        assert call(there.guest, "storage_mount", state="unmounted")["clean"]
        assert there.left() == []
    assert there.written() == {}


@pytest.mark.parametrize(("name", "overlays"), [("raid1-lvm", 5), ("twin-vg", 3)])
def test_what_was_built_for_looking_is_mounted(zoo: Zoo, name: str, overlays: int) -> None:
    """It is built anew only where some of it lies over what the target does not need: of two groups, one is to be mounted."""
    with zoo.plugged(name) as there:
        guest = there.guest
        system = call(guest, "storage_info")["systems"][0]["id"]
        guest.run("cat > /usr/local/sbin/dmsetup; chmod +x /usr/local/sbin/dmsetup",
                  stdin=b'#!/bin/sh\necho "$1" >> /run/calls\nexec /usr/sbin/dmsetup "$@"\n')
        try:
            done = call(guest, "storage_mount", mode="ro", system=system)
            assert done.get("changed"), done
            assert guest.run("cat /run/calls").split().count("create") == overlays
        finally:
            guest.run("rm -f /run/calls /usr/local/sbin/dmsetup")
        assert call(guest, "storage_mount", state="unmounted")["clean"]
        assert there.left() == []
    assert there.written() == {}


# A file system that a check of it finds fault with, so that it asks before it mends, and waits.
FAULT = r"""
set -e
device=$1
debugfs -w -R 'set_inode_field /etc/hostname links_count 9' "$device" 2>/dev/null
(sleep 300 | script --quiet --command "e2fsck -f $device" /dev/null >/dev/null 2>&1) </dev/null >/dev/null 2>&1 &
for _ in $(seq 100); do
    pid=$(pgrep -x e2fsck | tail -1) && [ -n "$(ls -l /proc/$pid/fd 2>/dev/null | grep "$(realpath "$device")\$")" ] && exit 0
    sleep 0.1
done
exit 1
"""


@pytest.mark.parametrize(("name", "mode"), [("gpt-bios-ext4", "rw"), ("raid1-lvm", "rw"), ("raid1-lvm", "ro")])
def test_a_check_and_a_mount_exclude_each_other(zoo: Zoo, name: str, mode: str) -> None:
    """In both directions, and also where the file system lies on layers that only one of the two sees."""
    with zoo.plugged(name, active=True) as there:
        guest = there.guest
        device = there.device("0.2") if name == "gpt-bios-ext4" else "/dev/mapper/vg--main-root"
        guest.run(f"sh -s {device}", stdin=FAULT.encode())
        refused = call(guest, "storage_mount", mode=mode)
        assert refused.get("failed") and "e2fsck" in refused["msg"] and f"has {device} open" in refused["msg"], refused
        [told] = [each for each in call(guest, "storage_info")["filesystems"] if each["device"] == device]
        assert "e2fsck (pid " in told["reason"]
        guest.run("pkill -x sleep; pkill -x e2fsck; while pgrep -x e2fsck; do sleep 0.1; done; udevadm settle")

        done = call(guest, "storage_mount", mode=mode)
        assert done.get("changed"), done
        for path in (device, there.device("0.2" if name == "gpt-bios-ext4" else "0.3")):
            said = guest.run(f"e2fsck -fy {path} 2>&1; echo ended $?", check=False)
            assert "is mounted" in said or "is in use" in said, said
            assert said.split()[-1] == "8"
        if name == "raid1-lvm":
            said = guest.run("xfs_repair /dev/mapper/vg--main-var 2>&1; echo ended $?", check=False)
            assert "mounted" in said and said.split()[-1] == "1", said
        assert call(guest, "storage_mount", state="unmounted")["clean"]


# Makes of a disk a server whose owner means harm: the names of its partition, array, volume group and volume are commands.
HOSTILE = r"""
set -e
disk=$1
printf 'label: gpt\nname="$(touch /pwned)"\n' | sfdisk --quiet --wipe always $disk
udevadm settle
yes | mdadm --create /dev/md77 --level=1 --raid-devices=1 --force --homehost=any --name='a;$(touch /pwned)' \
    --metadata=1.2 ${disk}1 >/dev/null 2>&1
lvm vgcreate -qq --config 'devices { use_devicesfile=0 }' xxtouchxpwnedx /dev/md77
lvm lvcreate -qq --config 'devices { use_devicesfile=0 }' -l 100%FREE -n yytouchypwnedy --wipesignatures n xxtouchxpwnedx
mkfs.ext4 -q -L '-o;$(id)' /dev/xxtouchxpwnedx/yytouchypwnedy
mkdir -p /mnt/make
mount /dev/xxtouchxpwnedx/yytouchypwnedy /mnt/make
cd /mnt/make
mkdir -p etc/ssh usr/bin boot dev proc sys run tmp mnt 'a b' -- --help
cp /bin/busybox usr/bin/sh
ln -s /etc/passwd etc/hostname
ln -s ../../../../etc/shadow etc/crypttab
ln -s /etc mnt/out
mknod disk b 254 0
cp usr/bin/sh suid
chmod 6755 suid
{
    printf 'UUID=%s /boot erofs rw 0 0\n' "$2"
    printf '/dev/vda /usr erofs rw 0 0\n'
    printf 'LABEL=-o;$(id) /mnt/out/x ext4 rw 0 0\nLABEL=x /../../x ext4 rw\n'
    printf 'tmpfs\\040x /a\\040b\\012c ext4 loop=/etc/passwd,exec 0 0\n\000\377\376 junk\n'
    yes 'UUID=$(id) /--help ext4' | head -1000000
} > etc/fstab
cd /
umount /mnt/make
rmdir /mnt/make
lvm vgchange -qq --config 'devices { use_devicesfile=0 }' -an xxtouchxpwnedx
mdadm --stop --quiet /dev/md77
udevadm settle
"""

# Gives a volume group, or a volume, a name that LVM would not give it: argv says which, and the new one, which is as long.
RENAME = r"""
import struct, sys
POLY = [0, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
        0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c]
def crc(data):  # calc_crc() of LVM
    value = 0xf597a6cf
    for byte in data:
        value ^= byte
        value = (value >> 4) ^ POLY[value & 15]
        value = (value >> 4) ^ POLY[value & 15]
    return value
with open("/dev/md77", "r+b") as disk:
    disk.seek(4096)
    head = bytearray(disk.read(512))
    offset, size = struct.unpack_from("<QQ", head, 40)
    disk.seek(4096 + offset)
    text = disk.read(size)
    new = text.replace(sys.argv[1].encode(), sys.argv[2].encode())
    assert new != text and len(new) == len(text)
    disk.seek(4096 + offset)
    disk.write(new)
    struct.pack_into("<I", head, 56, crc(new))
    struct.pack_into("<I", head, 0, crc(bytes(head[4:])))
    disk.seek(4096)
    disk.write(head)
"""


def test_a_hostile_server_reaches_nothing_outside(zoo: Zoo) -> None:
    with zoo.plugged("whole-disk") as there:
        guest, disk = there.guest, there.device("0")
        rescue = guest.run("blkid -p -o value -s UUID /dev/vda").strip()
        guest.run(f"sh -s {disk} {rescue}", stdin=HOSTILE.encode(), timeout=600)
        before = guest.run("touch /run/stamp; sleep 0.1; ls -A / /etc /mnt | sha256sum")
        for found in (call(guest, "storage_info"), call(guest, "storage_mount", check_mode=True, force=True)):
            assert not found.get("failed"), found
            assert found["took"] < 120
        done = call(guest, "storage_mount", force=True)
        assert done.get("changed"), done
        assert [each["target"] for each in done["mounts"]] == ["/mnt/target"]
        assert done["system"]["hostname"] is None
        # Nothing of its own can be used to reach the disks.
        assert guest.run("head -c 1 /mnt/target/disk 2>&1; echo $?", check=False).split()[-1] == "1"
        assert call(guest, "storage_mount", state="unmounted")["clean"]

        for old, new in (("yytouchypwnedy", "`touch;/pwned`"), ("xxtouchxpwnedx", "$(touch$pwned)")):
            guest.run(f"mdadm --assemble --quiet /dev/md77 {disk}1")
            guest.python(RENAME, old, new)
            guest.run("mdadm --stop --quiet /dev/md77; udevadm settle")
            refused = call(guest, "storage_mount", force=True)
            # LVM itself takes no such name.
            assert refused.get("failed") and "No volume group that LVM can read is on it." in json.dumps(refused), refused

        assert guest.run("find / -xdev -newer /run/stamp -not -type d") == ""
        assert guest.run("ls -A / /etc /mnt | sha256sum") == before


def test_a_half_that_is_locked_is_none_that_is_missing(zoo: Zoo) -> None:
    """Written to without it, a mirror would be two file systems of one name."""
    with zoo.plugged("btrfs-two-luks") as there:
        guest = there.guest
        one = [{**key, "device": there.device("0.3")} for key in keys(there)[:1]]
        for more in ({}, {"degraded": True}):
            refused = call(guest, "storage_mount", luks=one, **more)
            assert refused["failed"] and "lacks some of its disks" in refused["msg"], refused
            assert f"{there.device('1.1')}: It is locked, and no key for it was given." in refused["msg"]
            assert refused["failure"]["state"] == "Nothing was mounted." and there.left() == []
        assert call(guest, "storage_mount", luks=one, degraded=True, mode="ro")["changed"]
        assert guest.run("cat /mnt/target/etc/hostname") == "mirror1\n"
        assert call(guest, "storage_mount", state="unmounted")["clean"]
        assert there.left() == []
    assert there.written() == {}


# The rescue system's own group, on a disk in memory, is in use.
OWN_GROUP = """
set -e
truncate -s 64M /run/own.img
disk=$(losetup --find --show /run/own.img)
pvcreate -qq --devices $disk $disk
vgcreate -qq --devices $disk vg0 $disk
lvcreate -qq -y --devices $disk -L 40m -n own vg0
mkfs.ext4 -q /dev/mapper/vg0-own
mkdir -p /opt/own
mount /dev/mapper/vg0-own /opt/own
"""


def test_a_volume_group_that_is_named_as_the_rescue_systems_own(zoo: Zoo) -> None:
    with zoo.plugged("twin-vg-one") as there:
        guest = there.guest
        guest.run("sh -s", stdin=OWN_GROUP.encode())
        try:
            before = snapshot(guest)
            info = call(guest, "storage_info")
            assert [system["hostname"] for system in info["systems"]] == ["first1"]
            assert [each["rescue"] for each in info["filesystems"] if each["device"] == "/dev/mapper/vg0-own"] == [True]
            refused = call(guest, "storage_mount", mode="rw")
            assert refused["failed"] and "The rescue system itself has a volume group vg0." in refused["msg"], refused
            assert same(before, snapshot(guest)) == []
            assert call(guest, "storage_mount", mode="ro")["changed"]
            assert guest.run("cat /mnt/target/etc/hostname") == "first1\n"
            assert call(guest, "storage_mount", state="unmounted")["clean"]
            assert same(before, snapshot(guest)) == []
        finally:
            guest.run("umount /opt/own; disk=$(losetup --noheadings --output NAME --associated /run/own.img); "
                      "vgchange -qq --activate n --devices $disk; losetup --detach $disk; rm -r /run/own.img /opt/own")
