# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which block devices there are, what is on each, and which belong to the rescue system. Private to this collection."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import typing as t

from ..._errors import TargetError
from .. import _target
from .._command import Runner
from .._kernel import Kernel, Mount

MOUNTABLE = ("ext2", "ext3", "ext4", "xfs", "vfat", "btrfs", "f2fs")
EXT = ("ext2", "ext3", "ext4")

# What is no file system, but a part of something or a wrapping, and why nothing is read of it as it is.
_WRAPPED = {
    "linux_raid_member": "It is a member of an md array.", "LVM2_member": "It is a physical volume of LVM.",
    "crypto_LUKS": "It is an encrypted container (LUKS).", "bcache": "It is a part of a bcache device.",
    "mpath_member": "It is a path of a multipath device.", "drbd": "It is a DRBD device.",
    "zfs_member": "It belongs to a ZFS pool, which is not supported.", "BitLocker": "It is encrypted by BitLocker.",
    "LVM1_member": "It is a physical volume of LVM 1, which no current kernel reads.",
    "ddf_raid_member": "It is a member of an array of a RAID controller (DDF).",
    "isw_raid_member": "It is a member of an array of a RAID controller (Intel).",
}

# Where people mount things by hand. A mount elsewhere belongs to the rescue system.
_BY_HAND = ("/mnt", "/media", "/run/media")

_COLUMNS = "NAME,MAJ:MIN,TYPE,SIZE,RO,SERIAL,WWN,TRAN,MODEL"

ESP = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
BIOS_BOOT = "21686148-6449-6e6f-744e-656564454649"


@dataclasses.dataclass
class Device:
    """One block device.

    number: "major:minor". kind: as lsblk says: disk, part, loop, raid1, lvm, crypt… size: bytes. on: the devices that
    it lies on (its disk, the members of its array). tag: what `blkid -p` says, such as TYPE, UUID, PART_ENTRY_UUID.
    by_id: names in /dev/disk/by-id. mounted: where its whole file system is mounted, or "". ours: mounted by
    storage_mount. used: why it must not be mounted, or "". rescue: why it belongs to the rescue system, or "".
    name: its path where the installed system is at home, which differs where it was built for looking; path is where it
    is now. layer, facts: what it is a volume of, see _layers. snapshot: why its content is an old one of another, or "".
    part_of: another device that speaks for the same file system, or "". path_of: a disk that it is another path of, or
    that its disk is, or "". why: why nothing was built on it, or "".
    """

    path: str
    number: str
    kind: str
    size: int = 0
    read_only: bool = False
    serial: str = ""
    wwn: str = ""
    transport: str = ""
    model: str = ""
    on: list[str] = dataclasses.field(default_factory=list)
    below: list[str] = dataclasses.field(default_factory=list)
    tag: dict[str, str] = dataclasses.field(default_factory=dict)
    by_id: list[str] = dataclasses.field(default_factory=list)
    mounted: str = ""
    ours: bool = False
    used: str = ""
    rescue: str = ""
    name: str = ""
    layer: str = ""
    facts: dict[str, t.Any] = dataclasses.field(default_factory=dict)
    snapshot: str = ""
    part_of: str = ""
    mixed: bool = False
    path_of: str = ""
    why: str = ""

    def __post_init__(self) -> None:
        self.name = self.name or self.path

    @property
    def type(self) -> str:
        """Type of its content as blkid names it, or ""."""
        return self.tag.get("TYPE", "")

    @property
    def partition(self) -> int | None:
        """Its number in the partition table."""
        number = self.tag.get("PART_ENTRY_NUMBER", "")
        return int(number, 0) if re.match(r"(0x[0-9a-fA-F]+|[0-9]+)\Z", number) else None

    @property
    def unsupported(self) -> str:
        """Why this collection cannot mount it, or ""."""
        if self.type in _WRAPPED:
            return self.why or _WRAPPED[self.type]
        if self.snapshot:
            return self.snapshot
        if self.path_of:
            return f"It is another path of {self.path_of}."
        if self.mixed:
            return "Its disks and copies of them are both attached, and the kernel cannot distinguish them."
        if self.part_of:
            return f"It is a part of the file system that {self.part_of} speaks for."
        if self.type and self.type not in MOUNTABLE and self.type != "swap":
            return f"{self.type} is not supported."
        return ""


class Devices:
    """All block devices, in the order of lsblk."""

    def __init__(self, devices: t.Iterable[Device], links: t.Mapping[str, t.Mapping[str, str]] | None = None):
        self.all = {device.path: device for device in devices}
        self._links = links or {}

    def __iter__(self) -> t.Iterator[Device]:
        return iter(self.all.values())

    def disks_of(self, device: Device) -> list[Device]:
        """The devices at the bottom: those that lie on nothing."""
        if not device.on:
            return [device]
        return [disk for path in device.on for disk in self.disks_of(self.all[path])]

    def disk_of(self, device: Device) -> Device:
        """The disk that it is on (the first one, if on several)."""
        return self.disks_of(device)[0]

    def tagged(self, tag: str, value: str) -> list[Device]:
        """Devices with this blkid tag. UUIDs in whatever case. Snapshots have it from what they are of, and are not told.

        Of a file system on several, one is told for what they have in common.
        """
        own = [device for device in self if not device.snapshot and not device.path_of
               and not (device.part_of and tag in ("UUID", "LABEL"))]
        if tag in ("UUID", "PART_ENTRY_UUID"):
            return [device for device in own if device.tag.get(tag, "").lower() == value.lower()]
        return [device for device in own if device.tag.get(tag) == value]

    def volumes(self, group: str, volume: str) -> list[Device]:
        """Logical volumes of this name, in groups of this name."""
        return [device for device in self if (device.facts.get("vg"), device.facts.get("lv")) == (group, volume)]

    def below(self, device: Device) -> set[str]:
        """The layers that it needs, its own one included."""
        return {device.layer} - {""} | {layer for path in device.on for layer in self.below(self.all[path])}

    def stack(self, devices: t.Iterable[Device]) -> list[Device]:
        """These and all that they lie on, each once."""
        found: dict[str, Device] = {}
        todo = list(devices)
        while todo:
            device = todo.pop()
            if device.path not in found:
                found[device.path] = device
                todo += [self.all[path] for path in device.on]
        return list(found.values())

    def members(self, device: Device) -> list[Device]:
        """It, and the other devices of its file system, of which there are some of a btrfs only."""
        return [device, *(other for other in self if other.part_of == device.path and not other.rescue)]

    def speaker(self, device: Device) -> Device:
        """It, or the one that speaks for the file system that it is a part of."""
        return self.all[device.part_of] if device.part_of and not device.mixed else device

    def used(self, device: Device) -> str:
        """Why its file system must not be mounted, or ""."""
        return next((member.used for member in self.members(device) if member.used), "")

    def as_options(self, device: Device) -> list[str]:
        """What tells the kernel of the other devices of its file system, as nobody else may have."""
        return [f"device={other.path}" for other in self.members(device)[1:] if "," not in other.path]

    def linked(self, kind: str, name: str) -> Device | None:
        """The device behind a name in /dev/disk/<kind>."""
        return self.all.get(self._links.get(kind, {}).get(name, ""))

    def named(self, path: str) -> Device | None:
        """The device at a path of the rescue system's /dev, links followed."""
        return self.all.get(path) or self.all.get(os.path.realpath(path))

    def candidates(self) -> list[Device]:
        """Those that may belong to an installed system."""
        return [device for device in self if not device.rescue and not device.path_of]


class Built(t.Protocol):
    """What was built on the devices, see _layers.Layers.

    hidden: overlay to the device that it is over. facts: device to what it is.
    """

    hidden: dict[str, str]
    facts: dict[str, dict[str, t.Any]]


class Standing:
    """What was built before, and stands: Journal.layers. Without that: nothing."""

    def __init__(self, standing: t.Mapping[str, t.Any] | None = None) -> None:
        self.hidden: dict[str, str] = dict((standing or {}).get("hidden", {}))
        self.facts: dict[str, dict[str, t.Any]] = dict((standing or {}).get("facts", {}))


def discover(run: Runner, kernel: Kernel, ours: t.Container[tuple[str, str]], built: Built) -> Devices:
    """Look at every block device. ours: (number, mount point) of what storage_mount has mounted."""
    listing = run(["lsblk", "--json", "--bytes", "--paths", "--output", _COLUMNS]).out
    try:
        tree = json.loads(listing)["blockdevices"]
    except (ValueError, KeyError, TypeError):
        raise TargetError("lsblk printed something that is not its JSON.") from None
    found: dict[str, Device] = {}
    _flatten(tree, None, found, built.hidden)
    # A loop device over a block device is a second view of the same thing. One over a file of ours lies below an overlay.
    views = {path for path in found if found[path].kind == "loop" and
             kernel.backing(path).startswith(("/dev/", f"{_target.RUN_DIR}/"))}
    while views:
        # And all that lies on one.
        found = {path: device for path, device in found.items() if path not in views}
        views = {path for path, device in found.items() if not found.keys() >= set(device.on)}
    for path, tags in _probe(run, list(found.values())):
        if path in found:
            found[path].tag = tags
    _drop_insides(found, built.facts)
    for device in found.values():
        device.below = [path for path in device.below if path in found]
        facts = built.facts.get(device.path)
        if facts:
            device.facts, device.layer, device.name = facts, facts["layer"], facts["name"]
            device.snapshot = facts.get("snapshot", "")
    for device in found.values():
        whole = found[device.on[0]] if device.kind == "part" and device.on else None
        if whole and whole.name != whole.path:
            # A partition of what has another name at home.
            device.name = f"{whole.name}{'p' if whole.name[-1:].isdigit() else ''}{device.partition}"
    links = {kind: kernel.links(kind) for kind in ("by-id", "by-path")}
    for name, path in links["by-id"].items():
        if path in found:
            found[path].by_id.append(name)
    devices = Devices(found.values(), links)
    _mark_paths(devices)
    _mark_used(devices, kernel, ours, set(built.hidden.values()))
    return devices


def _flatten(nodes: t.Any, parent: Device | None, found: dict[str, Device],
             overlays: t.Mapping[str, str]) -> None:
    for node in nodes if isinstance(nodes, list) else []:
        if not isinstance(node, dict):
            continue
        path, kind = node.get("name"), str(node.get("type") or "")
        if not isinstance(path, str) or not path.startswith("/dev/") or kind == "rom" or not _int(node.get("size")):
            continue
        if path in overlays:
            # What is built on it is on what it is over. It is listed below that, and below what it keeps its writes in.
            if parent is not None and parent.path == overlays[path]:
                _flatten(node.get("children"), parent, found, overlays)
            continue
        device = found.get(path)
        if device is None:
            serial, wwn, transport, model, number = (str(node.get(key) or "").strip() for key in
                                                     ("serial", "wwn", "tran", "model", "maj:min"))
            device = found[path] = Device(path, number, kind, _int(node.get("size")), node.get("ro") in (True, "1", 1),
                                          serial, wwn, transport, model)
        if parent is not None and parent.path not in device.on and not _lies_on(found, parent, device.path):
            device.on.append(parent.path)
            parent.below.append(path)
        _flatten(node.get("children"), device, found, overlays)


def _lies_on(found: t.Mapping[str, Device], device: Device, path: str) -> bool:
    """Whether a device lies, by whatever way, on another, or is that one: nothing lies on itself."""
    return device.path == path or any(_lies_on(found, found[each], path) for each in device.on)


def _drop_insides(found: dict[str, Device], facts: t.Mapping[str, t.Any]) -> None:
    """Take out what LVM makes volumes of (halves of a mirror, a pool): it may look like the volume itself.

    What is built on it is on what it is on then.
    """
    known = {path for path in found if found[path].kind == "lvm" and path in facts}
    if not known:
        return
    for path in [path for path in found if found[path].kind == "lvm" and path not in known]:
        inside = found.pop(path)
        for device in found.values():
            if path in device.on:
                device.on = list(dict.fromkeys([*(each for each in device.on if each != path), *inside.on]))
            if path in device.below:
                device.below = list(dict.fromkeys([*(each for each in device.below if each != path), *inside.below]))


def _int(value: t.Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return 0


def _probe(run: Runner, devices: t.Sequence[Device]) -> t.Iterator[tuple[str, dict[str, str]]]:
    """The tags of each device that has some, read from the devices themselves, as udev may be absent or late."""
    # blkid ends at the first device that it knows nothing of, or too much, and is called again for those behind that one; but
    # the first time those without any signature are left out, as far as wipefs can tell.
    bare = {device.path for device in devices if device.kind != "part" and not device.below}
    rest = [device.path for device in devices]
    while rest:
        done = run(["blkid", "-p", "-o", "export", "--", *rest], check=False)
        told = list(_tags(done.out))
        yield from told
        if done.rc == 0:
            return
        last = max((rest.index(path) for path, _tags in told if path in rest), default=-1)
        rest = rest[last + 2:]
        empty = _unmarked(run, [path for path in rest if path in bare])
        bare = set()
        rest = [path for path in rest if path not in empty]


def _unmarked(run: Runner, paths: t.Sequence[str]) -> set[str]:
    """Those that have no signature, none where that cannot be told."""
    if not paths:
        return set()
    done = run(["wipefs", "--no-act", "--noheadings", "--output", "DEVICE", "--", *paths], check=False)
    marked = set(done.out.split())
    return {path for path in paths if os.path.basename(path) not in marked} if done.rc == 0 else set()


def _tags(text: str) -> t.Iterator[tuple[str, dict[str, str]]]:
    tags: dict[str, str] = {}
    for line in [*text.split("\n"), ""]:
        name, equals, value = line.partition("=")
        if equals:
            tags[name] = _unquote(value)
        elif not line and tags:
            yield tags.pop("DEVNAME", ""), tags
            tags = {}


def _unquote(value: str) -> str:
    r"""Undo what blkid does to a value: a backslash before what a shell would read, "\xHH" for bytes not printable."""
    plain = re.sub(rb"\\(?:x([0-9a-fA-F]{2})|(.))",
                   lambda match: bytes([int(match.group(1), 16)]) if match.group(1) else match.group(2),
                   value.encode("utf-8", "surrogateescape"), flags=re.DOTALL)
    return plain.decode("utf-8", "surrogateescape")


def _mark_used(devices: Devices, kernel: Kernel, ours: t.Container[tuple[str, str]], covered: t.Container[str]) -> None:
    mounts: dict[str, list[tuple[Mount, bool]]] = {}
    for mount in kernel.mounts():
        # A mount of btrfs has a number of its own, not that of its device, and may have several, of which it tells one.
        source = devices.named(mount.source) if mount.fstype == "btrfs" else None
        numbers = [device.number for device in _same_btrfs(devices, source)] if source else [mount.device]
        is_ours = any((number, mount.point) in ours for number in numbers)
        for number in numbers:
            mounts.setdefault(number, []).append((mount, is_ours))
    swaps = {os.path.realpath(path) for path in kernel.swaps()}
    unexplained = []
    for device in devices:
        own = ""
        for mount, is_ours in mounts.get(device.number, []):
            if mount.root == "/" and not device.mounted and mount.fstype != "btrfs":
                device.mounted = mount.point
            if is_ours:
                device.ours = True
                continue
            device.used = f"It is mounted at {mount.point}."
            if not any(mount.point == top or mount.point.startswith(top + "/") for top in _BY_HAND):
                own = device.used
        if device.path in swaps:
            own = device.used = "The rescue system swaps to it."
        if device.below and any(devices.all[path].kind != "part" for path in device.below):
            device.used = f"It is part of {device.below[0]}."
        if not device.used and not device.ours and not device.below and device.path not in covered \
                and not kernel.holders(device.path) and kernel.claimed(device.path):
            unexplained.append(device)
        if own:
            _mark_rescue(devices, device, own)
    _mark_parts_of_btrfs(devices)
    if unexplained:
        openers = kernel.openers({device.number: device.path for device in unexplained})
        for device in unexplained:
            if device.path in openers:
                device.used = f"{openers[device.path][0]}."
            else:
                # As with a root file system whose mount the initial RAM disk took out of sight.
                device.used = "The kernel uses it."
                _mark_rescue(devices, device, device.used)


def _mark_paths(devices: Devices) -> None:
    """A disk that is seen twice is one disk, also where nobody has put its paths together."""
    first: dict[tuple[str, ...], Device] = {}
    for device in devices:
        if device.kind == "disk" and device.wwn and all(devices.all[path].kind == "part" for path in device.below):
            # Some makers give all their disks one name. What is on two paths of a disk is the same, too.
            tags = [device.tag.get(tag, "") for tag in ("PTUUID", "TYPE", "UUID", "UUID_SUB")]
            same = (device.wwn, device.serial, str(device.size), *tags)
            other = first.setdefault(same, device)
            if other is not device:
                for each in (device, *(devices.all[path] for path in device.below)):
                    each.path_of = other.path


def _same_btrfs(devices: Devices, source: Device) -> list[Device]:
    """A device of a btrfs and the others of it, which are no copies of it."""
    uuid, own = source.tag.get("UUID"), source.tag.get("UUID_SUB")
    return [device for device in devices if device is source or (
        uuid and device.type == "btrfs" and device.tag.get("UUID") == uuid and device.tag.get("UUID_SUB") != own)]


def _mark_parts_of_btrfs(devices: Devices) -> None:
    """A btrfs on several devices is one file system, of which one device is enough to speak."""
    first: dict[str, Device] = {}
    members: dict[str, list[Device]] = {}
    for device in devices:
        if device.type == "btrfs" and not device.snapshot and not device.path_of and "UUID_SUB" in device.tag:
            members.setdefault(device.tag.get("UUID", device.path), []).append(device)
    for each in members.values():
        if 1 < len({device.tag["UUID_SUB"] for device in each}) < len(each):
            for device in each:
                device.mixed = True
    for device in devices:
        if device.type == "btrfs" and not device.snapshot and not device.path_of and "UUID_SUB" in device.tag:
            other = first.setdefault(device.tag.get("UUID", device.path), device)
            if other is not device and other.tag["UUID_SUB"] != device.tag["UUID_SUB"]:
                device.part_of = other.path


def _mark_rescue(devices: Devices, device: Device, reason: str) -> None:
    disks = {disk.path for disk in devices.disks_of(device)}
    for other in devices:
        if not other.rescue and disks & {disk.path for disk in devices.disks_of(other)}:
            other.rescue = reason if other is device else f"{device.path}: {reason}"
