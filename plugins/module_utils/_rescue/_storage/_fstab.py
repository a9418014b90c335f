# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The fstab and the crypttab of an installed system: read as input that may be wrong or hostile, resolved against what is there.

Private to this collection. Nothing here runs a command or opens a file.
"""

from __future__ import annotations

import dataclasses
import posixpath
import re
import typing as t

from .._kernel import unescape
from ._devices import Device, Devices

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
    RESOLVED tells what made it known. needed is False where the installed system boots without it. name is the device as
    the installed system has it, uuid that of its file system; subvolume the id of what is meant of a btrfs.
    """

    line: int
    spec: str = ""
    file: str = ""
    vfstype: str = "auto"
    options: str = "defaults"
    device: str | None = None
    status: str = UNRESOLVED
    reason: str = ""
    name: str | None = None
    uuid: str | None = None
    subvolume: int | None = None

    def as_result(self) -> dict[str, t.Any]:
        """JSON data for the result of a module."""
        return {"line": self.line, "spec": self.spec, "file": self.file, "vfstype": self.vfstype, "options": self.options,
                "device": self.name or self.device, "uuid": self.uuid, "status": self.status, "reason": self.reason}

    @property
    def option_list(self) -> list[str]:
        return [option for option in self.options.split(",") if option]

    @property
    def needed(self) -> bool:
        return not {"nofail", "noauto"}.intersection(self.option_list)


@dataclasses.dataclass
class Encrypted:
    """One line of crypttab(5): what is encrypted (spec), and what it is called when it is open (file). The rest as in Entry."""

    line: int
    file: str
    spec: str = ""
    key: str = "none"
    options: str = ""
    device: str | None = None
    status: str = UNRESOLVED
    reason: str = ""
    name: str | None = None
    uuid: str | None = None

    def as_result(self) -> dict[str, t.Any]:
        """JSON data for the result of a module."""
        return {"line": self.line, "name": self.file, "spec": self.spec, "options": self.options, "device": self.name or self.device,
                "uuid": self.uuid, "status": self.status, "reason": self.reason}


@dataclasses.dataclass
class Names:
    """What the installed system calls things.

    crypttab: its lines. arrays: device of an array to its UUID. subvolumes: device of a btrfs to the paths of its subvolumes and
    their ids.
    """

    crypttab: t.Sequence[Encrypted] = ()
    arrays: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    subvolumes: t.Mapping[str, t.Mapping[str, int]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        self.encrypted = {each.file: each.spec for each in self.crypttab if each.spec}


def parse_crypttab(data: bytes) -> tuple[list[Encrypted], bool]:
    """The lines of a crypttab(5) that are not empty and no comment, and whether some were left out as too many."""
    lines, cut = _lines(data)
    entries = []
    for number, fields in lines:
        # Debian's tools undo \0num, others nothing. No sane name has it without that being meant.
        entry = Encrypted(number, *(unescape(re.sub(rb"\\0([0-3][0-7]{2})", rb"\\\1", field)) for field in fields[:4]))
        if not entry.spec:
            entry.reason = "The line has only one field."
        entries.append(entry)
    return entries, cut


def parse_mdadm_conf(text: str) -> dict[str, str]:
    """UUIDs of arrays by device, from the text of a mdadm.conf(5). A line that begins with a space belongs to the one before."""
    found = {}
    for line in re.sub(r"\n[ \t]+", " ", text).splitlines()[:MOST]:
        words = line.split()
        if len(words) > 1 and len(words[0]) >= 3 and "array".startswith(words[0].lower()):
            uuid = next((word[5:] for word in words[2:] if word.lower().startswith("uuid=")), "")
            if uuid:
                found[words[1] if words[1].startswith("/") else f"/dev/md/{words[1]}"] = uuid
    return found


def parse(data: bytes) -> tuple[list[Entry], bool]:
    """The lines of a fstab(5) that are not empty and no comment, and whether some were left out as too many."""
    lines, cut = _lines(data)
    entries: list[Entry] = []
    for number, fields in lines:
        plain = [unescape(field) for field in fields[:4]]
        entry = Entry(number, plain[0], "".join(plain[1:2]))
        if len(plain) < 2:
            entry.reason = "The line has only one field."
        elif any("\0" in field for field in plain):
            entry.reason = "The line has a NUL byte in it."
        entry.vfstype, entry.options = [*plain[2:], *["auto", "defaults"][len(plain[2:]):]][:2]
        entries.append(entry)
    return entries, cut


def _lines(data: bytes) -> tuple[list[tuple[int, list[bytes]]], bool]:
    """Number and fields of each line that is not empty and no comment, and whether some were left out as too many."""
    cut = len(data) > LARGEST
    if cut:
        data = data[:data.rfind(b"\n", 0, LARGEST) + 1]
    found: list[tuple[int, list[bytes]]] = []
    for number, line in enumerate(data.split(b"\n"), 1):
        fields = [field for field in re.split(rb"[ \t]+", line.strip(b" \t\r")) if field]
        if not fields or fields[0].startswith(b"#"):
            continue
        if len(found) == MOST:
            return found, True
        found.append((number, fields))
    return found, cut


def resolve(entries: t.Sequence[Entry], root: Device, devices: Devices, names: Names | None = None,
            subvolume: str | None = None) -> list[str]:
    """Find out what each line means, for the system whose root file system is root. Return what is odd about it all.

    subvolume: path of the root in a btrfs.
    """
    notes: list[str] = []
    names = names or Names()
    disks = _disks(entries, names.crypttab, root, devices)
    own = names.subvolumes.get(root.path, {}).get(subvolume) if subvolume is not None else None
    points: set[str] = set()
    for entry in entries:
        if entry.reason:
            continue
        _resolve(entry, root, devices, disks, names)
        if entry.device:
            entry.name, entry.uuid = devices.all[entry.device].name, devices.all[entry.device].tag.get("UUID")
        if entry.status == RESOLVED and entry.file == "/":
            if entry.device != root.path:
                notes.append(f"Line {entry.line} of fstab says that / is {entry.name}, but it was found on {root.name}.")
                entry.status, entry.reason = SKIPPED, f"The root file system is {root.name}."
            elif entry.subvolume is not None and entry.subvolume != (own or 5):
                notes.append(f"Line {entry.line} of fstab says that / is another subvolume than the one it was found in, "
                             f"{subvolume or 'the top'}.")
                entry.status, entry.reason = SKIPPED, "The root file system was found in another subvolume."
        if entry.status == RESOLVED and entry.file in points:
            entry.status, entry.reason = SKIPPED, "An earlier line has the same mount point."
        if entry.status == RESOLVED:
            points.add(entry.file)
    if not any(entry.file == "/" and entry.status == RESOLVED for entry in entries):
        notes.append(f"No line of fstab that could be resolved is for /, which was found on {root.name}.")
    return notes


def resolve_crypttab(names: Names, entries: t.Sequence[Entry], root: Device, devices: Devices) -> None:
    """Find out what each line of the crypttab means, for the system whose root file system is root. entries: of its fstab."""
    disks = _disks(entries, names.crypttab, root, devices)
    for entry in names.crypttab:
        if not entry.reason:
            _resolve_encrypted(entry, root, devices, disks, names)


def _resolve_encrypted(entry: Encrypted, root: Device, devices: Devices, disks: t.Mapping[str, Device], names: Names) -> None:
    options = entry.options.split(",")
    if entry.key in ("/dev/urandom", "/dev/random", "/dev/hwrng"):
        entry.status, entry.reason = SKIPPED, "It gets a new key each time, and so holds nothing that was there before."
        return
    if entry.spec.startswith("/") and not entry.spec.startswith("/dev/"):
        entry.status, entry.reason = SKIPPED, "It is a file, not a device."
        return
    device, entry.reason = _find(entry.spec, "auto", root, devices, disks, names)
    if device is None:
        return
    entry.device, entry.name, entry.uuid = device.path, device.name, device.tag.get("UUID")
    if any(option.startswith("header=") for option in options):
        entry.reason = "Its header is elsewhere, which is not supported."
    elif device.type == "crypto_LUKS":
        entry.status = RESOLVED
    elif {"plain", "tcrypt", "bitlk"}.intersection(options) or device.type == "BitLocker":
        entry.reason = "It is encrypted in another way than by LUKS, which is not supported."
    else:
        entry.reason = f"There is {device.type or 'nothing known'} on {device.name}, and no encrypted container (LUKS)."


def subvolume_of_root(text: str, subvolumes: t.Mapping[str, int]) -> int | None:
    """The id of the subvolume that the line for / names in the text of a fstab; None: no line does, or there is no such one."""
    for entry in parse(text.encode("utf-8", "surrogateescape"))[0]:
        if entry.file == "/" and entry.vfstype in ("btrfs", "auto") and not entry.reason:
            return entry.subvolume if _find_subvolume(entry, subvolumes) else None
    return None


def _resolve(entry: Entry, root: Device, devices: Devices, disks: t.Mapping[str, Device], names: Names) -> None:
    why = _not_a_device(entry)
    if why:
        entry.status, entry.reason = SKIPPED, why
        return
    device, reason = _find(entry.spec, entry.vfstype, root, devices, disks, names)
    entry.reason = reason
    if device is None:
        if "noauto" in entry.option_list:
            entry.status, entry.reason = SKIPPED, "It is marked noauto."
        return
    device = devices.speaker(device)
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
        entry.reason = f"No file system was found on {device.name}."
    elif not _same_type(entry.vfstype, device.type):
        entry.reason = f"It is said to be {entry.vfstype}, but there is {device.type} on {device.name}."
    elif device.type == "btrfs" and not _find_subvolume(entry, names.subvolumes.get(device.path, {})):
        entry.reason = f"The btrfs on {device.name} has no such subvolume."
    elif "noauto" in options:
        entry.status, entry.reason = SKIPPED, "It is marked noauto."
    else:
        entry.file = posixpath.normpath(entry.file).replace("//", "/")
        entry.status = RESOLVED


def _find_subvolume(entry: Entry, subvolumes: t.Mapping[str, int]) -> bool:
    """Note which subvolume is meant, if one is. Return whether there is such a one."""
    said = {name: value for name, _equals, value in (option.partition("=") for option in entry.option_list)}
    if "subvol" in said:
        # Where there is a number too, that of what was gone back to is another.
        path = posixpath.normpath(f"/{said['subvol']}").strip("/")
        entry.subvolume = subvolumes.get(path) if path else 5
        return entry.subvolume is not None
    if "subvolid" in said:
        entry.subvolume = int(said["subvolid"]) if re.match(r"[0-9]{1,19}\Z", said["subvolid"]) else -1
        entry.subvolume = entry.subvolume or 5  # 0 means the top as well
        return entry.subvolume == 5 or entry.subvolume in subvolumes.values()
    return True


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


def _pool(spec: str, devices: Devices) -> str:
    """Why a file system of ZFS is not found. Its pool is named as that of the installed system, whoever may have it now."""
    pool = spec[len("ZFS="):] if spec.startswith("ZFS=") else spec
    there = [device.name for device in devices if device.type == "zfs_member" and device.tag.get("LABEL") == pool.split("/")[0]]
    return f"It belongs to a ZFS pool, which is not supported. The pool is on {', '.join(there)}." if there else \
        "It belongs to a ZFS pool, which is not supported, and which is on no disk that was found."


def _same_type(said: str, found: str) -> bool:
    families = ({"ext2", "ext3", "ext4"}, {"vfat", "msdos", "fat"})
    return any(each in ("auto", found) or any({each, found} <= family for family in families)
               for each in said.split(","))


def _find(spec: str, vfstype: str, root: Device, devices: Devices, disks: t.Mapping[str, Device],
          names: Names) -> tuple[Device | None, str]:
    """The device that spec means, or None, and why."""
    if vfstype == "zfs" or spec.startswith("ZFS="):
        return None, _pool(spec, devices)
    tag, equals, value = spec.partition("=")
    if equals and tag in _TAGS:
        if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        return _find_tagged(tag, value, root, devices)
    kind, slash, name = spec[len("/dev/disk/"):].partition("/") if spec.startswith("/dev/disk/") else ("", "", "")
    if slash and kind in _BY:
        return _find_tagged(_BY[kind], _udev(name), root, devices)
    if slash and kind in ("by-id", "by-path"):
        built = _visible(_find_built(name, devices), root, devices) if kind == "by-id" else []
        if built:
            return _one_of(built, root, "Several have this name")
        device = devices.linked(kind, name)
        if device is None:
            return None, f"The rescue system has no {spec}."
        return _not_of_rescue(device, "")
    match = _NODE.match(spec)
    if match:
        return _find_node(match, vfstype, devices, disks)
    if re.match(r"/dev/md(/.+|[0-9]+(p[0-9]+)?|_.+)\Z", spec):
        return _find_array(spec, root, devices, names)
    if spec.startswith("/dev/mapper/"):
        return _find_mapped(spec, root, devices, disks, names)
    match = re.match(r"/dev/([^/]+)/([^/]+)\Z", spec)
    if match:
        return _one_of(_visible(devices.volumes(match.group(1), match.group(2)), root, devices), root,
                       "Several volumes have this name", "No volume group that was found has such a volume.")
    return None, "It names no device that this collection knows how to find."


def _find_built(name: str, devices: Devices) -> list[Device]:
    """What udev would call so in by-id, were it built as the installed system has it."""
    if name.startswith("md-uuid-"):
        return [device for device in devices if device.layer.startswith("md:")
                and _same_uuid(device.facts["uuid"], name[len("md-uuid-"):])]
    if name.startswith("dm-name-"):
        return [device for device in devices if device.layer and device.name == f"/dev/mapper/{name[len('dm-name-'):]}"]
    return []


def _find_array(spec: str, root: Device, devices: Devices, names: Names, parts: bool = True) -> tuple[Device | None, str]:
    arrays = [device for device in devices if device.layer.startswith("md:")]
    short = re.sub(r"\A/dev/md[/_]?", "", spec)
    uuid = next((names.arrays[name] for name in (spec, f"/dev/md{short}", f"/dev/md/{short}") if name in names.arrays), "")
    if uuid:
        return _one_of([device for device in arrays if _same_uuid(device.facts["uuid"], uuid)], root,
                       "Several arrays have its UUID", "There is no array with the UUID that the system's mdadm.conf has for it.")
    found = [device for device in arrays if device.facts["array"].rpartition(":")[2] == short]
    part = re.match(r"(.*?[0-9])p([0-9]{1,4})\Z|(.*?[^0-9])([0-9]{1,4})\Z", short)
    if not found and part and parts:
        # A partition of an array: md0p1, md/name1.
        whole, _reason = _find_array(f"/dev/md/{part.group(1) or part.group(3)}", root, devices, names, parts=False)
        found = [device for device in devices if whole and device.on == [whole.path] and device.kind == "part"
                 and device.partition == int(part.group(2) or part.group(4))]
    return _one_of(found, root, "Several arrays have this name", "No array that was found has this name.")


def _find_mapped(spec: str, root: Device, devices: Devices, disks: t.Mapping[str, Device],
                 names: Names) -> tuple[Device | None, str]:
    found = _visible([device for device in devices if "vg" in device.facts and device.name == spec], root, devices)
    source = names.encrypted.get(spec[len("/dev/mapper/"):])
    if found or source is None:
        return _one_of(found or [device for device in devices if "container" in device.facts and device.name == spec], root,
                       "Several have this name", "No volume has this name, and the system's crypttab does not name it.")
    if source.startswith("/dev/mapper/") and source[len("/dev/mapper/"):] in names.encrypted:
        return None, "Its container is in another container, which is not supported."
    container, reason = _find(source, "auto", root, devices, disks, names)
    if container is None:
        return None, f"Of {source}, which crypttab has for it: {reason}"
    opened = [device for device in devices if device.facts.get("container") == container.path]
    return (opened[0], "") if opened else (None, f"It is in {container.name}. {container.why or 'That is not open.'}")


def _visible(volumes: list[Device], root: Device, devices: Devices) -> list[Device]:
    """Those that the installed system can mean: of groups of the name of one that its root file system is on, only that one."""
    own = {device.facts["vg"]: device.layer for device in devices.stack([root]) if "vg" in device.facts}
    return [device for device in volumes if device.layer == own.get(device.facts.get("vg"), device.layer)]


def _one_of(found: list[Device], root: Device, several: str, none: str = "") -> tuple[Device | None, str]:
    """The one that is meant: of several, the one that is built on what the root file system is built on."""
    if not found:
        return None, none
    mine = [device for device in found if not device.rescue]
    chosen = mine if len(mine) == 1 else [device for device in mine if device.layer == root.layer]
    if len(chosen) == 1:
        return chosen[0], ""
    if mine:
        return None, f"{several}: {', '.join(device.path for device in mine)}."
    return _not_of_rescue(found[0], "")


def _same_uuid(one: str, other: str) -> bool:
    """mdadm writes them in groups of four bytes, others as UUIDs are written."""
    return re.sub("[:-]", "", one).lower() == re.sub("[:-]", "", other).lower() != ""


def _find_tagged(tag: str, value: str, root: Device, devices: Devices) -> tuple[Device | None, str]:
    found = [device for device in devices.tagged(_TAGS[tag], value) if value]
    mine = [device for device in found if not device.rescue]
    if root in mine:
        return root, ""
    if len(mine) == 1:
        return mine[0], ""
    # Of a disk and its copy, each has a system of its own.
    disks = set(map(id, devices.disks_of(root)))
    near = [device for device in mine if disks.issuperset(map(id, devices.disks_of(device)))]
    if len(near) == 1:
        return near[0], f"Several have this {tag}; it is the one on the disk of the root file system."
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


def _disks(entries: t.Sequence[Entry], crypttab: t.Sequence[Encrypted], root: Device, devices: Devices) -> dict[str, Device]:
    """Which disk is meant by a kernel's name of a disk, where there is evidence.

    The line for / shows what the disk of the root file system was called. Where there is but one disk, the first name
    of a family can mean no other.
    """
    disk = devices.disk_of(root)
    # Of what lies on an array, a volume or several disks, the line for / shows of no disk what it was called.
    for entry in entries if not root.layer and len(devices.members(root)) == 1 else ():
        match = _NODE.match(entry.spec)
        number = (match.group("na") or match.group("nb")) if match else ""
        if entry.file == "/" and match and (int(number) if number else None) == root.partition:
            return {match.group("a") or match.group("b"): disk}
    own = {device.path for each in devices.candidates() for device in devices.disks_of(each)}
    if own != {disk.path}:
        return {}
    specs = [*(entry.spec for entry in entries), *(entry.spec for entry in crypttab)]
    names = {match.group("a") or match.group("b") for match in map(_NODE.match, specs) if match}
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
    """Whether a root file system without this mount point is not the system."""
    return point in ("/usr", "/boot", "/etc", "/var")
