# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the kernel of the rescue system says, read and never changed. Private to this collection.

Tests give the rest of this package another Kernel.
"""

from __future__ import annotations

import os
import re
import stat
import typing as t

_OCTAL = re.compile(rb"\\([0-3][0-7]{2})")


def unescape(field: bytes) -> str:
    r"""A field as fstab(5) and /proc write it: "\040" is a space. Bytes that are no UTF-8 become surrogates."""
    plain = _OCTAL.sub(lambda match: bytes([int(match.group(1), 8)]), field)
    return plain.decode("utf-8", "surrogateescape")


class Mount(t.NamedTuple):
    """A line of mountinfo. device is "major:minor", root the directory of the file system that is mounted."""

    device: str
    root: str
    point: str
    options: str
    fstype: str
    source: str


class Process(t.NamedTuple):
    """A process that uses something. why is a phrase such as "has /x open"."""

    pid: int
    command: str
    why: str

    def __str__(self) -> str:
        return f"{self.command} (pid {self.pid}) {self.why}"


class Kernel:
    """The kernel that runs."""

    def mounts(self) -> list[Mount]:
        """What is mounted in this mount namespace, oldest first."""
        with open("/proc/self/mountinfo", "rb") as file:
            return [mount for line in file for mount in _mount(line)]

    def is_on(self, path: str, device: str) -> bool:
        """Whether a path of the rescue system is on the file system of a device ("major:minor")."""
        return _device_of(path) == device

    def device_of(self, path: str) -> str:
        """The number of the device of what is at a path, as its files have it, or ""."""
        return _device_of(path)

    def swaps(self) -> list[str]:
        """Devices and files that are swapped to."""
        try:
            with open("/proc/swaps", "rb") as file:
                return [unescape(line.split()[0]) for line in file.read().splitlines()[1:] if line.split()]
        except OSError:
            return []

    def claimed(self, path: str) -> bool:
        """Whether a block device is taken: mounted (in whatever namespace), part of another device, being checked."""
        try:
            os.close(os.open(path, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC | os.O_NONBLOCK))
        except OSError as exc:
            return exc.errno == 16  # EBUSY
        return False

    def head(self, path: str, offset: int, count: int) -> bytes:
        """Bytes of a block device; fewer, or none, where it cannot be read."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return b""
        try:
            return os.pread(fd, count, offset)
        except OSError:
            return b""
        finally:
            os.close(fd)

    def links(self, kind: str) -> dict[str, str]:
        """Names in /dev/disk/<kind> and the device that each leads to."""
        top = os.path.join("/dev/disk", kind)
        try:
            return {name: os.path.realpath(os.path.join(top, name)) for name in sorted(os.listdir(top))}
        except OSError:
            return {}

    def backing(self, path: str) -> str:
        """File behind a loop device, or ""."""
        try:
            with open(f"/sys/class/block/{os.path.basename(path)}/loop/backing_file", "rb") as file:
                return file.read().rstrip(b"\n").decode("utf-8", "surrogateescape")
        except OSError:
            return ""

    def holders(self, path: str) -> list[str]:
        """Names of the devices that the kernel has built on one."""
        return sorted(_names(f"{sys_of(path)}/holders"))

    def lies_on(self, path: str, others: t.Sequence[str]) -> bool:
        """Whether a device is built on one of these others, and so is the one that we know."""
        names = {os.path.basename(os.path.realpath(sys_of(other))) for other in others}
        return bool(names.intersection(_names(f"{sys_of(path)}/slaves")))

    def mapping(self, name: str) -> str:
        """What the device mapper calls a device such as "dm-0", or ""."""
        return _line(f"/sys/class/block/{name}/dm/name")

    def array(self, path: str) -> dict[str, str]:
        """What the kernel says of an md array, {} where it is none. Names as in its /sys/block/…/md."""
        top = f"{sys_of(path)}/md"
        if not os.path.isdir(top):
            return {}
        return {name: _line(f"{top}/{name}") for name in ("array_state", "degraded", "level", "metadata_version", "raid_disks")}

    def arrays(self) -> list[str]:
        """Names of all md arrays, such as "md127"."""
        return [name for name in _names("/sys/class/block") if re.match(r"md[0-9]+\Z", name)]

    def openers(self, devices: t.Mapping[str, str]) -> dict[str, list[Process]]:
        """Who writes to, or checks, block devices. devices: "major:minor" to path. Return path to processes."""
        found: dict[str, list[Process]] = {}
        for pid in self._pids():
            command = _command(pid)
            for fd in _names(f"/proc/{pid}/fd"):
                try:
                    status = os.stat(f"/proc/{pid}/fd/{fd}")
                except OSError:
                    continue
                path = devices.get(_number(status.st_rdev)) if stat.S_ISBLK(status.st_mode) else None
                if path and (_writes(pid, fd) or re.search(r"fsck|repair|btrfs|badblocks", command)):
                    found.setdefault(path, []).append(Process(pid, command, f"has {path} open"))
                    break
        return found

    def users(self, devices: t.Container[str], namespace: tuple[int, int] | None) -> list[Process]:
        """Who keeps file systems ("major:minor") busy, or is in a mount namespace (device and inode of its file)."""
        found = []
        for pid in self._pids():
            why = _why_busy(pid, devices, namespace)
            if why:
                found.append(Process(pid, _command(pid), why))
        return found

    def mounters(self, devices: t.Container[str]) -> list[Process]:
        """Who has one of these devices ("major:minor") mounted in a mount namespace of its own."""
        found = []
        own = os.stat("/proc/self/ns/mnt").st_ino
        for pid in self._pids():
            try:
                if os.stat(f"/proc/{pid}/ns/mnt").st_ino == own:
                    continue
                with open(f"/proc/{pid}/mountinfo", "rb") as file:
                    mounts = [mount for line in file for mount in _mount(line) if mount.device in devices]
            except OSError:
                continue
            if mounts:
                found.append(Process(pid, _command(pid), f"has {mounts[0].source} mounted in its own namespace"))
        return found

    def _pids(self) -> list[int]:
        return [int(name) for name in _names("/proc") if name.isdigit() and int(name) != os.getpid()]


def sys_of(path: str) -> str:
    """The directory of a block device in sysfs, whatever its node is called, or a path that is not there."""
    try:
        return f"/sys/dev/block/{_number(os.stat(path).st_rdev)}"
    except OSError:
        return "/sys/dev/block/none"


def _line(path: str) -> str:
    """The one line of a file of sysfs, "" where there is none."""
    try:
        with open(path, "rb") as file:
            return file.read().strip().decode("utf-8", "replace")
    except OSError:
        return ""


def _mount(line: bytes) -> t.Iterator[Mount]:
    left, dash, right = line.partition(b" - ")
    fields, rest = left.split(b" "), right.split()
    if dash and len(fields) >= 6 and len(rest) >= 2:
        yield Mount(fields[2].decode(), unescape(fields[3]), unescape(fields[4]), fields[5].decode(),
                    rest[0].decode(), unescape(rest[1]))


def _why_busy(pid: int, devices: t.Container[str], namespace: tuple[int, int] | None) -> str | None:
    base = f"/proc/{pid}"
    for name, why in (("root", "has its root there"), ("cwd", "works there"), ("exe", "runs a program of it")):
        if _device_of(f"{base}/{name}") in devices:
            return why
    for fd in _names(f"{base}/fd"):
        if _device_of(f"{base}/fd/{fd}") in devices:
            return "has a file of it open"
    if namespace is not None:
        try:
            status = os.stat(f"{base}/ns/mnt")
            if (status.st_dev, status.st_ino) == namespace:
                return "runs in the namespace of the target"
        except OSError:
            pass
    try:
        with open(f"{base}/maps", "rb") as file:
            for line in file:
                major, _colon, minor = line.split()[3].partition(b":")
                if f"{int(major, 16)}:{int(minor, 16)}" in devices:
                    return "runs code of it"
    except (OSError, ValueError, IndexError):
        pass
    return None


def _device_of(path: str) -> str:
    try:
        return _number(os.stat(path).st_dev)
    except OSError:
        return ""


def _number(device: int) -> str:
    return f"{os.major(device)}:{os.minor(device)}"


def _names(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def _command(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            return file.read().strip().decode("utf-8", "replace")
    except OSError:
        return "?"


def _writes(pid: int, fd: str) -> bool:
    try:
        with open(f"/proc/{pid}/fdinfo/{fd}", "rb") as file:
            for line in file:
                if line.startswith(b"flags:"):
                    return int(line.split()[1], 8) & os.O_ACCMODE != os.O_RDONLY
    except (OSError, ValueError, IndexError):
        pass
    return False
