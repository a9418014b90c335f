# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The fstab of an installed system: read as input that may be wrong or hostile, resolved against what is really there.

Private to this collection. Nothing here runs a command or opens a file.
"""

from __future__ import annotations

import dataclasses
import posixpath
import re
import typing as t

from ._devices import Device, Devices
from ._kernel import unescape

LARGEST = 256 * 1024  # bytes that are read
MOST = 1000  # lines that are told

RESOLVED, SKIPPED, UNRESOLVED = "resolved", "skipped", "unresolved"

_TAGS = {"UUID": "UUID", "LABEL": "LABEL", "PARTUUID": "PART_ENTRY_UUID", "PARTLABEL": "PART_ENTRY_NAME"}
_BY = {"by-uuid": "UUID", "by-label": "LABEL", "by-partuuid": "PARTUUID", "by-partlabel": "PARTLABEL"}
_NETWORK = ("nfs", "nfs4", "cifs", "smbfs", "smb3", "ncpfs", "ceph", "glusterfs", "lustre", "afs", "9p", "davfs",
            "fuse.sshfs", "fuse.s3fs", "fuse.glusterfs", "fuse.rclone", "ocfs2", "gfs2", "sshfs")
_KERNEL = ("proc", "sysfs", "tmpfs", "devpts", "devtmpfs", "cgroup", "cgroup2", "securityfs", "debugfs", "tracefs",
           "configfs", "efivarfs", "binfmt_misc", "hugetlbfs", "mqueue", "ramfs", "rootfs", "selinuxfs", "usbfs",
           "fusectl", "rpc_pipefs", "pstore", "bpf", "autofs", "none")
# sda1, vdb, xvda15, hdc3 · nvme0n1p2, mmcblk0p1, md0p1, nbd0p1, loop0p3, rd/c0d0p1, cciss/c0d0p2
_NODE = re.compile(r"/dev/(?:(?P<a>(?:s|h|v|xv)d[a-z]+)(?P<na>[0-9]{0,4})"
                   r"|(?P<b>nvme[0-9]+n[0-9]+|mmcblk[0-9]+|nbd[0-9]+|loop[0-9]+|(?:rd|ida|cciss)/c[0-9]+d[0-9]+)"
                   r"(?:p(?P<nb>[0-9]{1,4}))?)\Z")
_FIRST = re.compile(r"(?:(?:s|h|v|xv)da|nvme0n1|mmcblk0|nbd0|(?:rd|ida|cciss)/c0d0)\Z")


@dataclasses.dataclass
class Entry:
    """One line. line counts from 1; status is RESOLVED, SKIPPED or UNRESOLVED, with the reason of the latter two.

    device is the path in the rescue system of what the line means, where that is known. A reason that comes with
    RESOLVED tells what made it known. needed is False where the installed system boots without it.
    """

    line: int
    spec: str = ""
    file: str = ""
    vfstype: str = "auto"
    options: str = "defaults"
    device: str | None = None
    status: str = UNRESOLVED
    reason: str = ""

    @property
    def option_list(self) -> list[str]:
        return [option for option in self.options.split(",") if option]

    @property
    def needed(self) -> bool:
        return not {"nofail", "noauto"}.intersection(self.option_list)


def parse(data: bytes) -> tuple[list[Entry], bool]:
    """The lines of a fstab that are not empty and no comment, and whether some were left out as too many."""
    cut = len(data) > LARGEST
    if cut:
        data = data[:data.rfind(b"\n", 0, LARGEST) + 1]
    entries: list[Entry] = []
    for number, line in enumerate(data.split(b"\n"), 1):
        fields = [field for field in re.split(rb"[ \t]+", line.strip(b" \t\r")) if field]
        if not fields or fields[0].startswith(b"#"):
            continue
        if len(entries) == MOST:
            return entries, True
        plain = [unescape(field) for field in fields[:4]]
        entry = Entry(number, *plain[:2])
        if len(plain) < 2:
            entry.reason = "The line has only one field."
        elif any("\0" in field for field in plain):
            entry.reason = "The line has a NUL byte in it."
        entry.vfstype, entry.options = [*plain[2:], *["auto", "defaults"][len(plain[2:]):]][:2]
        entries.append(entry)
    return entries, cut


def resolve(entries: t.Sequence[Entry], root: Device, devices: Devices) -> list[str]:
    """Find out what each line means, for the system whose root file system is root. Return what is odd about it all."""
    notes: list[str] = []
    disks = _disks(entries, root, devices)
    points: set[str] = set()
    for entry in entries:
        if entry.reason:
            continue
        _resolve(entry, root, devices, disks)
        if entry.status == RESOLVED and entry.file == "/" and entry.device != root.path:
            notes.append(f"Line {entry.line} of fstab says that / is {entry.device}, but it was found on {root.path}.")
            entry.status, entry.reason = SKIPPED, f"The root file system is {root.path}."
        if entry.status == RESOLVED and entry.file in points:
            entry.status, entry.reason = SKIPPED, "An earlier line has the same mount point."
        if entry.status == RESOLVED:
            points.add(entry.file)
    if not any(entry.file == "/" and entry.status == RESOLVED for entry in entries):
        notes.append(f"No line of fstab that could be resolved is for /, which was found on {root.path}.")
    return notes


def _resolve(entry: Entry, root: Device, devices: Devices, disks: t.Mapping[str, Device]) -> None:
    why = _not_a_device(entry)
    if why:
        entry.status, entry.reason = SKIPPED, why
        return
    device, reason = _find(entry.spec, entry.vfstype, root, devices, disks)
    entry.reason = reason
    if device is None:
        return
    entry.device = device.path
    options = entry.option_list
    if entry.vfstype == "swap" or entry.file in ("none", "swap") or "swap" in options or device.type == "swap":
        entry.status, entry.reason = SKIPPED, "It is swap space."
    elif not entry.file.startswith("/"):
        entry.reason = "The mount point is no absolute path."
    elif ".." in entry.file.split("/"):
        entry.reason = "The mount point has '..' in it."
    elif device.unsupported:
        entry.reason = device.unsupported
    elif not device.type:
        entry.reason = f"No file system was found on {device.path}."
    elif not _same_type(entry.vfstype, device.type):
        entry.reason = f"It is said to be {entry.vfstype}, but there is {device.type} on {device.path}."
    elif "noauto" in options:
        entry.status, entry.reason = SKIPPED, "It is marked noauto."
    else:
        entry.file = posixpath.normpath(entry.file).replace("//", "/")
        entry.status = RESOLVED


def _not_a_device(entry: Entry) -> str:
    options = entry.option_list
    if {"bind", "rbind"}.intersection(options):
        return "It is a bind mount."
    if entry.vfstype in _NETWORK or "_netdev" in options or entry.spec.startswith("//") or \
            re.match(r"[^/=]+:", entry.spec):
        return "It is a network file system."
    if entry.vfstype in _KERNEL and entry.spec != "/" and not entry.spec.startswith("/dev/") and "=" not in entry.spec:
        return "It has no device."
    if entry.vfstype in ("ignore", "xx"):
        return "It is marked to be ignored."
    if entry.spec.startswith("/") and not entry.spec.startswith("/dev/"):
        return "It is a file, not a device."
    return ""


def _same_type(said: str, found: str) -> bool:
    families = ({"ext2", "ext3", "ext4"}, {"vfat", "msdos", "fat"})
    return any(each in ("auto", found) or any({each, found} <= family for family in families)
               for each in said.split(","))


def _find(spec: str, vfstype: str, root: Device, devices: Devices,
          disks: t.Mapping[str, Device]) -> tuple[Device | None, str]:
    """The device that spec means, or None, and why."""
    tag, equals, value = spec.partition("=")
    if equals and tag in _TAGS:
        if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        return _find_tagged(tag, value, root, devices)
    kind, slash, name = spec[len("/dev/disk/"):].partition("/") if spec.startswith("/dev/disk/") else ("", "", "")
    if slash and kind in _BY:
        return _find_tagged(_BY[kind], _udev(name), root, devices)
    if slash and kind in ("by-id", "by-path"):
        device = devices.linked(kind, name)
        if device is None:
            return None, f"The rescue system has no {spec}."
        return _not_of_rescue(device, "")
    match = _NODE.match(spec)
    if match:
        return _find_node(match, vfstype, devices, disks)
    if re.match(r"/dev/(mapper/|md|dm-|bcache|[^/]+/[^/]+\Z)", spec):
        return None, "Devices of LVM, md, LUKS and the like are not supported yet."
    return None, "It names no device that this collection knows how to find."


def _find_tagged(tag: str, value: str, root: Device, devices: Devices) -> tuple[Device | None, str]:
    found = [device for device in devices.tagged(_TAGS[tag], value) if value]
    mine = [device for device in found if not device.rescue]
    if root in mine:
        return root, ""
    if len(mine) == 1:
        return mine[0], ""
    if mine:
        return None, f"Several have this {tag}: {', '.join(device.path for device in mine)}."
    if found:
        return _not_of_rescue(found[0], "")
    return None, f"Nothing has this {tag}."


def _find_node(match: t.Match[str], vfstype: str, devices: Devices,
               disks: t.Mapping[str, Device]) -> tuple[Device | None, str]:
    """A kernel's name proves nothing in another system. It is taken only where one disk alone can be meant."""
    name, number = match.group("a") or match.group("b"), match.group("na") or match.group("nb")
    disk = disks.get(name)
    if disk is None:
        return None, f"Which disk the installed system calls {name} cannot be told from here."
    for device in devices:
        if number and device.partition == int(number) and device.on == [disk.path]:
            break
        if not number and device is disk:
            break
    else:
        return None, f"{disk.path}, taken for {name}, has no such partition."
    if not _same_type(vfstype, device.type) and vfstype != "swap":
        return None, f"It is said to be {vfstype}, but there is {device.type or 'nothing known'} on {device.path}."
    return _not_of_rescue(device, f"{disk.path} is what the installed system calls {name}.")


def _disks(entries: t.Sequence[Entry], root: Device, devices: Devices) -> dict[str, Device]:
    """Which disk is meant by a kernel's name of a disk, where there is evidence.

    The line for / shows what the disk of the root file system was called. Where there is but one disk, the first name
    of a family can mean no other.
    """
    disk = devices.disk_of(root)
    for entry in entries:
        match = _NODE.match(entry.spec)
        number = (match.group("na") or match.group("nb")) if match else ""
        if entry.file == "/" and match and (int(number) if number else None) == root.partition:
            return {match.group("a") or match.group("b"): disk}
    own = {device.path for each in devices.candidates() for device in devices.disks_of(each)}
    if own != {disk.path}:
        return {}
    names = {match.group("a") or match.group("b") for match in map(_NODE.match, [e.spec for e in entries]) if match}
    return {name: disk for name in names if _FIRST.match(name)} if len(names) == 1 else {}


def _not_of_rescue(device: Device, reason: str) -> tuple[Device | None, str]:
    if device.rescue:
        return None, f"It is on {device.path}, which belongs to the rescue system."
    return device, reason


def _udev(name: str) -> str:
    r"""A name that udev made safe: "\x20" is a space."""
    plain = re.sub(rb"\\x([0-9a-fA-F]{2})", lambda match: bytes([int(match.group(1), 16)]),
                   name.encode("utf-8", "surrogateescape"))
    return plain.decode("utf-8", "surrogateescape")


def essential(point: str) -> bool:
    """Whether a system without this mount point is not the system."""
    return point in ("/", "/usr", "/boot", "/etc", "/var")
