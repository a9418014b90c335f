# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which file systems hold an installed system, found by reading them. Private to this collection."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import struct
import typing as t

from ..._errors import LifeboatError, TargetError
from .. import _target
from .._child import NoLoop, apart, mount_for_a_look
from .._command import Runner
from .._kernel import Kernel
from . import _fstab
from ._devices import BIOS_BOOT, ESP, EXT, MOUNTABLE, Device, Devices
from ._ext4_listing import listings
from ._superblock import has_orphans, has_quota, is_dirty, needs_replay

_TOP_LEVEL = 5  # of a btrfs, the id of the subvolume that all others are in
# What installers call the subvolume of the root. It may be a snapshot by now: one goes back to a snapshot by making one of it.
_USUAL_ROOTS = ("@", "@rootfs", "root")
# What an installed system may be recognised on. ntfs is not mounted for that.
READABLE = (*MOUNTABLE, "ntfs", "ufs")
# The driver of ext4 knows the options that we need, and mounts all three.
_DRIVERS = {"ext2": "ext4", "ext3": "ext4"}

_OS_KEYS = ("id", "id_like", "name", "version", "version_id", "pretty_name")
_OS_RELEASE = ("etc/os-release", "usr/lib/os-release", "lib/os-release")  # the last one: a /usr of its own
_OLD_RELEASE = ("etc/redhat-release", "etc/SuSE-release", "etc/debian_version")
_SHELLS = ("bin/sh", "usr/bin/sh", "usr/bin/bash", "bin/bash")
# Where all that is read of a system begins: these, and kernels.
_TOP = frozenset(("bin", "sbin", "lib", "usr", "etc", "boot", "grub", "grub2", "EFI", "efi"))
# elf.h: e_machine, and whether the data are big-endian.
_MACHINES = {(3, False): "i386", (62, False): "x86_64", (40, False): "armv7l", (183, False): "aarch64",
             (243, False): "riscv64", (21, False): "ppc64le", (21, True): "ppc64", (22, True): "s390x",
             (258, False): "loongarch64"}
_KERNEL = re.compile(r"(?:vmlinuz|vmlinux|Image|kernel)-(?P<version>.+?)(?:\.old|\.bak)?\Z")
_MOST_SUBVOLUMES = 1000
_KEY = re.compile(r"[a-z0-9@.-]+ [A-Za-z0-9+/]+=*\Z")


@dataclasses.dataclass
class Subvolume:
    """A subvolume of a btrfs. path from the top of the file system. default: it is mounted where none is asked for."""

    id: int
    path: str
    snapshot: bool
    default: bool
    content: Content | None = None


@dataclasses.dataclass
class Content:
    """What one file system was found to hold.

    unread: why it could not be read, or "". listed: its top directory was listed and has nothing of interest, so that it was
    not mounted to be read. replay: whether its journal must be replayed before it is whole; dirty: whether it was not unmounted,
    or notes an error (None: not known). quiet: the option that keeps a btrfs from a replay here. degraded: it lacks disks.
    quota: quotas are on in an XFS. root: it looks like the root of an installed system. damage: what else could not be read,
    or "". subvolumes: of a btrfs, whose other fields speak of the top of the file system. The rest is what was found, as far
    as it is there.
    """

    unread: str = ""
    listed: bool = False
    replay: bool | None = None
    dirty: bool | None = None
    quiet: str = ""
    degraded: bool = False
    quota: bool = False
    root: bool = False
    os: dict[str, str] = dataclasses.field(default_factory=dict)
    hostname: str = ""
    arch: str = ""
    fstab: str = ""
    kernels: list[dict[str, t.Any]] = dataclasses.field(default_factory=list)
    grub: list[str] = dataclasses.field(default_factory=list)
    efi: list[str] = dataclasses.field(default_factory=list)
    crypttab: str = ""
    mdadm: str = ""
    damage: str = ""
    subvolumes: list[Subvolume] = dataclasses.field(default_factory=list)
    host_keys: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class System:
    """One installed system. notes: what is odd about it, in sentences."""

    id: str
    root: Device
    content: Content
    fstab: list[_fstab.Entry]
    crypttab: list[_fstab.Encrypted]
    notes: list[str]
    arch: str
    kernels: list[dict[str, t.Any]]
    boot_mode: str
    subvolume: Subvolume | None = None

    @property
    def mountable(self) -> bool:
        """Whether storage_mount can mount it."""
        return self.content.os.get("family") not in ("windows", "bsd") and not self.root.unsupported

    def as_result(self) -> dict[str, t.Any]:
        """JSON data for the result of a module."""
        return {
            "id": self.id, "root": self.root.name, "uuid": self.root.tag.get("UUID"),
            "subvolume": self.subvolume.path if self.subvolume else None,
            "label": self.root.tag.get("LABEL"), "os": self.content.os, "mountable": self.mountable,
            "hostname": self.content.hostname or None, "arch": self.arch or None, "boot_mode": self.boot_mode,
            "kernels": self.kernels, "fstab": [entry.as_result() for entry in self.fstab],
            "crypttab": [entry.as_result() for entry in self.crypttab],
            "ssh_host_keys": self.content.host_keys, "notes": self.notes,
        }

    def __str__(self) -> str:
        return f"{self.id} ({self.content.os.get('pretty_name', 'unknown system')} on {self.root.name})"


# Reading ------------------------------------------------------------------------------------------------------------


def look(run: Runner, kernel: Kernel, devices: Devices) -> tuple[dict[str, Content], list[System]]:
    """Read each file system that may belong to an installed system. Nothing is changed on any.

    Return path to content, and the installed systems.
    """
    contents = _look(run, kernel, devices)
    systems = judge(devices, contents)
    # What a system has in its fstab is mounted too, to know whether it can be.
    meant = {entry.device for system in systems for entry in system.fstab if entry.status == _fstab.RESOLVED}
    rest = [devices.all[path] for path, content in contents.items() if content.listed and path in meant]
    if rest:
        contents.update(_read_all(run, kernel, devices, rest))
    for path, content in contents.items():
        _note_state(kernel, devices.all[path], content)
    return contents, systems


def _look(run: Runner, kernel: Kernel, devices: Devices) -> dict[str, Content]:
    found: dict[str, Content] = {}
    wanted: list[Device] = []
    for device in devices.candidates():
        if device.type not in READABLE or device.part_of or device.mixed or device.snapshot:
            continue
        found[device.path] = Content()
        if devices.used(device) and not device.mounted:
            found[device.path].unread = devices.used(device)
        else:
            wanted.append(device)
    for path, names in listings(run, [device for device in wanted if not device.mounted]).items():
        found[path].listed = not _is_promising(names)
    found.update(_read_all(run, kernel, devices, [device for device in wanted if not found[device.path].listed]))
    return found


def _read_all(run: Runner, kernel: Kernel, devices: Devices, wanted: list[Device]) -> dict[str, Content]:
    answers = apart(lambda: _look_at(run, kernel, devices, wanted)) if wanted else {}
    return {path: _content(answer) for path, answer in answers.items()}


def _note_state(kernel: Kernel, device: Device, content: Content) -> None:
    if content.replay is None:
        content.replay = needs_replay(kernel, device)
    # An XFS that was unmounted has an empty log.
    content.dirty = content.replay if device.type == "xfs" else is_dirty(kernel, device)
    content.quota = has_quota(kernel, device)


def _content(answer: dict[str, t.Any]) -> Content:
    """Undo what became of it on its way from another process."""
    parts = [Subvolume(**{**part, "content": _content(part["content"]) if part["content"] else None})
             for part in answer["subvolumes"]]
    return Content(**{**answer, "subvolumes": parts})


def _look_at(run: Runner, kernel: Kernel, devices: Devices, wanted: list[Device]) -> dict[str, t.Any]:
    """Runs in a mount namespace of its own."""
    scratch = None
    found = {}
    if not os.path.exists("/dev/loop-control"):
        # udev makes it before the module is loaded, but not every rescue system has udev do that.
        run(["modprobe", "-q", "loop"], check=False)
    for number, device in enumerate(wanted):
        content, place = Content(), device.mounted
        if device.type == "ntfs":
            _read_ntfs(run, device, content)
            found[device.path] = dataclasses.asdict(content)
            continue
        if not place:
            scratch = scratch or _scratch(run, wanted)
            place = os.path.join(scratch, str(number))
            os.mkdir(place)
            _mount(kernel, devices, device, place, content)
            if content.unread and device.type == "ufs":
                _read_ufs(kernel, device, content)
        elif not kernel.is_on(place, device.number):
            content.unread = f"Something else is mounted over {place}."
        if not content.unread:
            _try_to_read(place, content)
            if device.type == "btrfs":
                try:
                    content.subvolumes = _subvolumes(run, place, content)
                except (LifeboatError, OSError) as exc:
                    content.unread = str(exc)
        found[device.path] = dataclasses.asdict(content)
    return found


def _scratch(run: Runner, wanted: list[Device]) -> str:
    """An empty directory in memory, over one that is there in every system and not needed here."""
    for place in ("/media", "/srv", "/opt", "/mnt", "/tmp"):
        if os.path.isdir(place) and not os.path.islink(place) and \
                not any((device.mounted + "/").startswith(place + "/") for device in wanted):
            run(["mount", "-t", "tmpfs", "-o", "mode=0700,nodev,nosuid,noexec", "tmpfs", place])
            return place
    raise TargetError("The rescue system has no directory to mount something on for a moment.")


def _mount(kernel: Kernel, devices: Devices, device: Device, place: str, content: Content) -> None:
    """Mount it so that no byte of it changes, and note how, or why it could not be."""
    # ext4 works off its list of orphaned inodes even with ro,noload, and notes errors, which writes, and XFS replays its log
    # with ro. Only a read-only device holds them back.
    tries: list[tuple[str, bool, bool | None]]
    if device.type in EXT:
        tries = [("noload", True, None)]
        if not has_orphans(kernel, device):
            tries.append(("noload", False, None))
    elif device.type == "xfs":
        tries = [("nouuid", True, False), ("nouuid,norecovery", True, True), ("nouuid,norecovery", False, None)]
    elif device.type == "btrfs":
        # No loop device: the kernel knows a btrfs by its UUID, and would take that for its device from then on.
        quiet = ("rescue=nologreplay", "nologreplay")  # the second one for Linux before 5.9
        tries = [(option, False, None) for option in (*quiet, *(f"{option},degraded" for option in quiet))]
    elif device.type == "ufs":
        tries = [(f"ufstype={kind}", True, None) for kind in ("ufs2", "44bsd")]
    elif device.type == "f2fs":
        tries = [("norecovery", True, None)]
    else:
        tries = [("", False, None)]
    why, looped = "", any(loop for _options, loop, _replay in tries)
    more = [f"subvolid={_TOP_LEVEL}", *devices.as_options(device)] if device.type == "btrfs" else []
    for options, loop, replay in tries:
        if looped and not loop:
            continue
        try:
            mount_for_a_look(device.path, place, _DRIVERS.get(device.type, device.type), ",".join([options, *more]), loop)
        except NoLoop:
            looped = False
        except OSError as exc:
            why = why or exc.strerror or str(exc)
        else:
            content.replay = replay
            if device.type == "btrfs":
                content.quiet, _comma, degraded = options.partition(",")
                content.degraded = bool(degraded)
            return
    content.unread = f"It cannot be mounted: {why}."


def _try_to_read(root: str, content: Content) -> None:
    try:
        _read(root, content)
    except (LifeboatError, OSError) as exc:
        content.unread = str(exc)


def _is_promising(names: t.Collection[str]) -> bool:
    """Whether there is anything to be read below a directory with these names. Of a hundred file systems, most have nothing."""
    return bool(_TOP.intersection(names) or _kernels(sorted(names)))


def _read(root: str, content: Content) -> None:
    names = set(_target.names(root, "/"))
    if not _is_promising(names):
        return

    def there(*paths: str) -> list[str]:
        """Those that may be there."""
        return [path for path in paths if path.partition("/")[0] in names]

    release = next((path for path in there(*_OS_RELEASE, *_OLD_RELEASE) if _target.status(root, path, follow=False)), "")
    content.root = "etc" in names and bool(_target.status(root, "etc/fstab") or release.startswith("etc/")) and \
        bool({"usr", "bin", "sbin"}.intersection(names))
    if any(_target.status(root, path) for path in there("bin/freebsd-version", "etc/master.passwd")):
        content.root = True
        content.os = {"name": "FreeBSD" if _target.status(root, "bin/freebsd-version") else "BSD", "family": "bsd"}
        return
    for path in there(*_OS_RELEASE):
        content.os = content.os or _os_release(_text(root, path, 65536))
    if not content.os and release in _OLD_RELEASE:
        content.os = _os({"pretty_name": _text(root, release, 65536).strip().partition("\n")[0][:200]})
    if content.root:
        # One byte more than is used, so that it can be told that there was more. What is there and cannot be read is an error.
        content.fstab = _text(root, "etc/fstab", _fstab.LARGEST + 1, cut=True, lenient=False)
        content.crypttab = _text(root, "etc/crypttab", _fstab.LARGEST + 1, cut=True)
        content.mdadm = _text(root, "etc/mdadm/mdadm.conf", 65536) or _text(root, "etc/mdadm.conf", 65536)
        content.hostname = _text(root, "etc/hostname", 4096).strip().partition("\n")[0][:253]
    try:
        if content.root:
            content.host_keys = _host_keys(root)
        content.arch = next((arch for arch in (_arch(root, path) for path in there(*_SHELLS)) if arch), "")
        content.kernels = _kernels(_target.names(root, "boot")) if "boot" in names else []
        content.kernels = content.kernels or _kernels(sorted(names))
        for path in there("boot/grub", "boot/grub2", "grub", "grub2"):
            content.grub += [name for name in _target.names(root, path)
                             if re.match(r"[a-z0-9_]+-(pc|efi|ieee1275|emu|uboot)\Z", name)]
        content.efi = next((found for found in (_target.names(root, path) for path in there("EFI", "efi", "boot/efi/EFI"))
                            if found), [])[:100]
    except (LifeboatError, OSError) as exc:
        content.damage = f"Not all of it can be read: {exc}"


def _read_ufs(kernel: Kernel, device: Device, content: Content) -> None:
    """Few rescue systems can mount it, so where it was mounted last is read from its superblock (sys/ufs/ffs/fs.h)."""
    for offset in (65536, 8192, 0, 262144):  # SBLOCKSEARCH
        block = kernel.head(device.path, offset, 1376)
        if len(block) == 1376 and {0x19540119, 0x011954}.intersection(struct.unpack_from("<I", block, 1372) +
                                                                      struct.unpack_from(">I", block, 1372)):
            content.root = block[212:680].split(b"\0", 1)[0] == b"/"
            content.os = {"name": "BSD", "family": "bsd"} if content.root else {}
            return


def _read_ntfs(run: Runner, device: Device, content: Content) -> None:
    """Not mounted: its driver is mostly a process, which would outlive us."""
    for path in ("/Windows/System32/config", "/WINDOWS/system32/config"):
        done = run(["ntfsls", "--path", path, device.path], check=False)
        if done.rc == 127:
            content.unread = "The rescue system has no program ntfsls to read it with."
        if done.rc == 0 and "SYSTEM" in done.out.upper().split():
            content.root, content.os = True, {"name": "Windows", "family": "windows"}
            return


def _subvolumes(run: Runner, place: str, top: Content) -> list[Subvolume]:
    """The subvolumes of the btrfs whose top is mounted at place, and what those hold that a system may boot from."""
    default = run(["btrfs", "subvolume", "get-default", place]).out.split()
    parts = []
    for line in run(["btrfs", "subvolume", "list", "-q", place]).out.splitlines():
        match = re.match(r"ID (\d+) gen \d+ top level \d+ parent_uuid (\S+) +path (.*)\Z", line)
        if match:
            number, parent, path = match.groups()
            parts.append(Subvolume(int(number), path, parent != "-" or ".snapshots" in path.split("/"),
                                   len(default) > 1 and default[1] == number))
    todo = [part for part in parts if part.default or not part.snapshot or part.path in _USUAL_ROOTS]
    # What was made last has the highest numbers.
    todo = sorted(todo, key=lambda part: (not part.default, part.path not in _USUAL_ROOTS))[:_MOST_SUBVOLUMES]
    ids = {part.path: part.id for part in parts}
    meant = {_fstab.subvolume_of_root(top.fstab, ids)}
    while todo:
        for part in todo:
            part.content = Content()
            at = os.path.join(place, part.path)
            if os.path.isdir(at) and os.path.realpath(at) == os.path.join(os.path.realpath(place), part.path):
                _try_to_read(at, part.content)
                meant.add(_fstab.subvolume_of_root(part.content.fstab, ids))
        # Whatever it is, it is booted where a fstab names it.
        todo = [part for part in parts if part.id in meant and part.content is None]
    return parts


def _text(root: str, path: str, limit: int, cut: bool = False, lenient: bool = True) -> str:
    """Content of a file, "" where there is none of at most limit bytes. With cut: its first limit bytes.

    What is there and cannot be read is as good as not there, unless lenient is False; then it raises TargetError.
    """
    try:
        return _target.read(root, path, limit, cut).decode("utf-8", "surrogateescape")
    except LifeboatError as exc:
        if lenient or isinstance(exc, _target.NotThere):
            return ""
        raise


def _os_release(text: str) -> dict[str, str]:
    """os-release(5): assignments as a shell reads them."""
    values = {}
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        if equals and name.lower() in _OS_KEYS:
            try:
                values[name.lower()] = " ".join(shlex.split(value))[:200]
            except ValueError:
                continue
    return _os(values) if values else {}


def _os(values: dict[str, str]) -> dict[str, str]:
    words = f"{values.get('id', '')} {values.get('id_like', '')} {values.get('pretty_name', '')}".lower().split()
    for family, names in (("debian", ("debian", "ubuntu")), ("redhat", ("rhel", "fedora", "centos", "red", "redhat")),
                          ("suse", ("suse", "opensuse", "sles", "sled")), ("arch", ("arch", "archlinux")),
                          ("alpine", ("alpine",)), ("gentoo", ("gentoo",))):
        if any(name in words for name in names):
            return {**values, "family": family}
    return values


def _arch(root: str, path: str) -> str:
    try:
        head = _target.read(root, path, 20, cut=True)
    except LifeboatError:
        return ""
    if len(head) < 20 or head[:4] != b"\x7fELF":
        return ""
    big = head[5] == 2
    machine = struct.unpack_from(">H" if big else "<H", head, 18)[0]
    return _MACHINES.get((machine, big), f"elf-{machine}")


def _kernels(names: list[str]) -> list[dict[str, t.Any]]:
    found = []
    for name in names:
        match = _KERNEL.match(name)
        if match and not name.endswith((".hmac", ".old", ".bak")):
            version = match.group("version")
            images = (f"initrd.img-{version}", f"initramfs-{version}.img", f"initrd-{version}", f"initramfs-{version}")
            found.append({"version": version, "initramfs": any(image in names for image in images)})
    return found[:100]


def _host_keys(root: str) -> list[str]:
    keys: list[str] = []
    for name in _target.names(root, "etc/ssh"):
        if re.match(r"ssh_host_[a-z0-9_]+_key\.pub\Z", name) and len(keys) < 20:
            key = " ".join(_text(root, f"etc/ssh/{name}", 16384).split()[:2])
            if _KEY.match(key):
                keys.append(key)
    return keys


# Judging ------------------------------------------------------------------------------------------------------------


def judge(devices: Devices, contents: t.Mapping[str, Content]) -> list[System]:
    """The installed systems among what was read."""
    roots = [(devices.all[path], part, root) for path, content in contents.items() for part, root in _roots(content)]
    return [_system(devices, contents, root, part, content, sum(other is root for other, _part, _content in roots))
            for root, part, content in roots]


def _roots(content: Content) -> list[tuple[Subvolume | None, Content]]:
    """What of a file system is the root of an installed system. Of a btrfs, what it boots from, and not what is kept of that."""
    found: dict[int, tuple[Subvolume | None, Content]] = {}
    # What is mounted where no subvolume is asked for speaks for the file system: the top of it, or another.
    if content.root and not any(part.default for part in content.subvolumes):
        found[_TOP_LEVEL] = (None, content)
    found.update((part.id, (part, part.content)) for part in content.subvolumes if part.content and part.content.root)
    ids = {part.path: part.id for part in content.subvolumes}
    named = {number: _fstab.subvolume_of_root(root.fstab, ids) for number, (_part, root) in found.items()}

    def last(number: int) -> int | None:
        """The one at the end of who names whom; None: there is no end."""
        seen = set()
        while named[number] in found and named[number] != number:
            if number in seen:
                return None
            seen.add(number)
            number = t.cast(int, named[number])
        return number

    def is_booted(number: int, part: Subvolume | None) -> bool:
        if part is not None and part.default:
            return True
        if last(number) not in (None, number):
            return False  # it was moved away for another, or is a copy
        if part is None or part.path in _USUAL_ROOTS or number in named.values():
            return True
        # Engines for containers keep theirs in subvolumes below the root.
        above = [f"{other.path}/" if other else "" for each, (other, _content) in found.items() if each != number]
        return not part.snapshot and not part.path.startswith(tuple(above))

    return [root for number, root in found.items() if is_booted(number, root[0])] or list(found.values())


def _system(devices: Devices, contents: t.Mapping[str, Content], root: Device, part: Subvolume | None, content: Content,
            neighbours: int) -> System:
    entries, cut = _fstab.parse(content.fstab.encode("utf-8", "surrogateescape"))
    encrypted, cut_too = _fstab.parse_crypttab(content.crypttab.encode("utf-8", "surrogateescape"))
    notes = [f"The system's {name} is so long that its end was not read." for name, long in (
        ("fstab", cut), ("crypttab", cut_too)) if long]
    names = _fstab.Names(crypttab=encrypted, arrays=_fstab.parse_mdadm_conf(content.mdadm),
                         subvolumes={path: {each.path: each.id for each in found.subvolumes}
                                     for path, found in contents.items() if found.subvolumes})
    notes += [content.damage] if content.damage else []
    notes += _fstab.resolve(entries, root, devices, names, part.path if part else None)
    _fstab.resolve_crypttab(names, entries, root, devices)
    at = {entry.file: _content_of(entry, contents) for entry in entries
          if entry.status == _fstab.RESOLVED or (entry.device and entry.reason == "It is marked noauto.")}
    usr, boot = at.get("/usr", Content()), at.get("/boot", Content())
    content.os = content.os or usr.os
    own = _id(root, devices)
    return System(
        id=f"{own}:{part.path}" if part and neighbours > 1 else own, root=root, content=content, fstab=entries,
        crypttab=encrypted, notes=notes, arch=content.arch or usr.arch, kernels=boot.kernels or content.kernels,
        boot_mode=_boot_mode(root, devices, [content, boot, at.get("/boot/efi", Content()), at.get("/efi", Content())],
                             set(at)), subvolume=part)


def _content_of(entry: _fstab.Entry, contents: t.Mapping[str, Content]) -> Content:
    content = contents.get(entry.device or "", Content())
    part = next((part for part in content.subvolumes if part.id == entry.subvolume), None)
    return part.content or Content() if part else content


def _id(root: Device, devices: Devices) -> str:
    for tag in ("UUID", "PART_ENTRY_UUID"):
        value = root.tag.get(tag, "")
        if value and [device.path for device in devices.tagged(tag, value)] == [root.path]:
            return value
    # Of copies, more than one would have this name, and it may be another's tomorrow.
    alone = [device.path for device in devices if device.name == root.name] == [root.path]
    return root.path if alone and root.path == root.name else f"{root.layer}:{root.name}"


def _boot_mode(root: Device, devices: Devices, contents: list[Content], points: set[str]) -> str:
    """bios or uefi as far as the evidence agrees, else unknown."""
    modes = set()
    for platform in (platform for content in contents for platform in content.grub):
        modes.add("bios" if platform.endswith("-pc") else "uefi" if platform.endswith("-efi") else "unknown")
    if any(content.efi for content in contents):
        modes.add("uefi")
    if not modes:
        disk = devices.disk_of(root)
        types = {device.tag.get("PART_ENTRY_TYPE", "") for device in devices if disk.path in device.on}
        if points.intersection(("/boot/efi", "/efi")) or ESP in types or "0xef" in types:
            modes.add("uefi")
        if BIOS_BOOT in types or disk.tag.get("PTTYPE") == "dos":
            modes.add("bios")
    return modes.pop() if len(modes) == 1 else "unknown"
