# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Looks at a machine from outside, and trusts nothing of the product: what is mounted, mapped, assembled there.

    before = snapshot(guest)
    …
    assert same(before, snapshot(guest)) == []

and with listing and changed, or all_files and altered, which files are no longer as they were.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from .describe import Image
from .guest import Guest


class Snapshot(NamedTuple):
    """What a machine has, each thing a line that tells all that matters of it, in sets."""

    mounts: frozenset[str]
    mappings: frozenset[str]
    loops: frozenset[str]
    arrays: frozenset[str]
    swaps: frozenset[str]
    devices: frozenset[str]
    groups: frozenset[str]


class File(NamedTuple):
    """One file: kind (the type letter of ls), permission bits, owner, number of links, content, extended attributes.

    digest: MD5 of the content, target of a link, numbers of a device.
    """

    kind: str
    mode: int
    uid: int
    gid: int
    links: int
    size: int
    digest: str
    xattrs: dict[str, str]


# Of each file system: type, UUID, path to file.
Listings = list[tuple[str, str, dict[str, File]]]

# Runs in the machine.
LOOK = r"""
import json, os, re, subprocess

# Programs are run only where there is something that they alone can tell: under emulation each takes as long as all the rest.
def out(*argv):
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    return done.stdout.decode(errors="replace")

def text(*path):
    try:
        with open(os.path.join("/sys/class/block", *path), errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""

def type_of(name):
    if text(name, "partition"):
        return "part"
    if name.startswith("dm-"):
        # as device-mapper's users name themselves: LVM-…, CRYPT-…
        uuid = text(name, "dm/uuid")
        return uuid.split("-")[0].lower() if "-" in uuid else "dm"
    if name.startswith("md"):
        return text(name, "md/level") or "md"
    return "loop" if name.startswith("loop") else "disk"

def is_volume(numbers):
    try:
        with open("/run/udev/data/b" + numbers) as lines:
            return "E:ID_FS_TYPE=LVM2_member\n" in lines
    except OSError:
        return False

blocks = [name for name in sorted(os.listdir("/sys/class/block")) if text(name, "hidden") != "1" and text(name, "size") != "0"]
found = {"mounts": [], "arrays": [], "swaps": [], "devices": [], "groups": []}
# every mount namespace, by the first process that has it
seen = set()
for pid in sorted((int(name) for name in os.listdir("/proc") if name.isdigit())):
    try:
        namespace = os.readlink("/proc/%d/ns/mnt" % pid)
        if namespace in seen:
            continue
        with open("/proc/%d/mountinfo" % pid) as lines, open("/proc/%d/comm" % pid) as comm:
            where = "" if pid == 1 else " in a namespace of " + comm.read().strip()
            for line in lines:
                left, right = line.rstrip("\n").split(" - ")
                number, parent, device, root, point, options = left.split(" ")[:6]
                kind, source, more = right.split(" ", 2)
                found["mounts"].append("%s%s: %s %s %s (%s; %s)%s" % (source, "" if root == "/" else "[%s]" % root, point,
                                                                     kind, device, options, more, where))
        seen.add(namespace)
    except (OSError, ValueError):  # it has ended meanwhile
        pass
found["mappings"] = out("dmsetup", "table").splitlines() if any(
    name.startswith("dm-") for name in os.listdir("/sys/class/block")) else []
found["loops"] = ["/dev/%s: %s offset %s" % (name, text(name, "loop/backing_file"), text(name, "loop/offset"))
                  for name in os.listdir("/sys/class/block") if text(name, "loop/backing_file")]
with open("/proc/mdstat") as lines:
    found["arrays"] = [line.strip() for line in lines if re.match(r"md\S* : ", line)]
with open("/proc/swaps") as lines:
    found["swaps"] = [line.split()[0] for line in lines][1:]
found["devices"] = ["%s %s %s %d %s" % (text(name, "dm/name") or name, text(name, "dev"), type_of(name), int(text(name, "size") or 0) * 512,
                                        "ro" if text(name, "ro") == "1" else "rw") for name in blocks]
# the sequence number grows with each change of the group's metadata
fields = "pv_name,pv_uuid,vg_name,vg_uuid,vg_seqno,pv_missing"
if any(is_volume(text(name, "dev")) for name in blocks):
    found["groups"] = [" ".join(line.split()) for line in out("pvs", "--readonly", "--noheadings", "-o", fields).splitlines()]
print(json.dumps(found))
"""

# The types of file systems whose files are listed; those of QUIET.
LISTED = ("ext2", "ext3", "ext4", "xfs", "btrfs", "vfat", "f2fs")

# Runs in the machine, in a mount namespace of its own: all files of a file system, which is mounted so that nothing is
# replayed.
LIST = r"""
import hashlib, json, os, re, stat, subprocess, sys

QUIET = {"ext2": "noload", "ext3": "noload", "ext4": "noload", "xfs": "norecovery,nouuid",
         "btrfs": "rescue=nologreplay,degraded,subvolid=5", "vfat": "", "f2fs": "norecovery"}
LETTERS = {stat.S_IFREG: "-", stat.S_IFDIR: "d", stat.S_IFLNK: "l", stat.S_IFCHR: "c", stat.S_IFBLK: "b", stat.S_IFIFO: "p",
           stat.S_IFSOCK: "s"}

def quiet(*argv, stdin=b""):
    return subprocess.run(argv, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

def about(path):
    status = os.lstat(path)
    letter, digest = LETTERS[stat.S_IFMT(status.st_mode)], ""
    if letter == "-":
        # By the system's own calls, and the digest that is cheapest under emulation: whoever changes a file here is no forger.
        fd = os.open(path, os.O_RDONLY)
        content = hashlib.md5()
        while data := os.read(fd, 1 << 22):
            content.update(data)
        os.close(fd)
        digest = content.hexdigest()
    elif letter == "l":
        digest = os.fsdecode(os.readlink(path))
    elif letter in "cb":
        digest = "%d:%d" % (os.major(status.st_rdev), os.minor(status.st_rdev))
    try:
        xattrs = {name: os.getxattr(path, name, follow_symlinks=False).hex() for name in os.listxattr(path, follow_symlinks=False)}
    except OSError:
        xattrs = {}
    return (letter, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, 0 if letter == "d" else status.st_nlink,
            0 if letter == "d" else status.st_size, digest, xattrs)

def files(kind, device):
    base = b"/mnt/list"
    os.makedirs(base, exist_ok=True)
    options = ",".join(filter(None, ["ro", QUIET[kind]]))
    subprocess.run(["mount", "-t", "ext4" if kind in ("ext2", "ext3") else kind, "-o", options, device, base], check=True)
    found = {"/": about(base)}
    for folder, folders, names in os.walk(base):
        for name in folders + names:
            path = os.path.join(folder, name)
            found[os.fsdecode(path[len(base):])] = about(path)
    subprocess.run(["umount", base], check=True)
    return found

subprocess.run(["mount", "-t", "tmpfs", "none", "/mnt"], check=True)
"""

# Appended to LIST: the files of one device. argv: its type, its path.
LIST_ONE = """
print(json.dumps(files(*sys.argv[1:])))
"""

# Appended to LIST: the files of every file system that there is, also in arrays, volume groups and containers, which are
# opened for it one after the other and closed again. Of groups of one name only one is open at a time.
# argv: the UUIDs of containers, and the keys to them in hexadecimal digits.
LIST_ALL = r"""
secrets = json.loads(sys.argv[1])
found, seen, undo = [], set(), []
known = None

# What changes which devices there are.
def change(*argv, **options):
    global known
    known = None
    quiet(*argv, **options)

def devices():
    global known
    if known is None:
        quiet("udevadm", "settle")
        known = look()
    return known

def look():
    tree = json.loads(quiet("lsblk", "--json", "--paths", "--output", "NAME,TYPE,FSTYPE,UUID").stdout)["blockdevices"]
    todo, flat = tree, {}
    while todo:
        device = todo.pop(0)
        todo += device.get("children", [])
        flat[device["name"]] = device
    return flat

def note():
    there = devices()
    seen.intersection_update(there)
    for name, device in there.items():
        if name not in seen and device["fstype"] in QUIET and not device.get("children"):
            seen.add(name)
            found.append((device["fstype"], device["uuid"], files(device["fstype"], name)))

def close(last=0):
    while len(undo) > last:
        change(*undo.pop())
    seen.intersection_update(devices())

def assembled(state=""):
    try:
        with open("/proc/mdstat") as lines:
            return set(re.findall(r"^(md\S+) : " + state, lines.read(), re.M))
    except FileNotFoundError:
        return set()

def arrays():
    if any(device["fstype"] == "linux_raid_member" for device in devices().values()):
        for name in assembled("inactive"):
            change("mdadm", "--stop", "/dev/" + name)
        before = assembled()
        change("mdadm", "--assemble", "--scan", "--run", "--readonly")
        undo.extend(("mdadm", "--stop", "/dev/" + name) for name in assembled() - before)

def containers():
    for name, device in devices().items():
        key = secrets.get(device["uuid"])
        if key and not device.get("children"):
            opened = "zoo-%d" % len(undo)
            change("cryptsetup", "open", "--readonly", "--key-file", "-", name, opened, stdin=bytes.fromhex(key))
            undo.append(("cryptsetup", "close", opened))

# An active group hides its copy, of which the kernel cannot have the same volumes too.
def unhide():
    volumes = [(name, device) for name, device in devices().items() if device["fstype"] == "LVM2_member"]
    uuids = [device["uuid"] for name, device in volumes]
    for name, device in volumes:
        if device.get("children") and uuids.count(device["uuid"]) > 1:
            change("vgchange", "-qq", "--activate", "n", "--devices", name)

def groups():
    copies = []
    for name, device in devices().items():
        if device["fstype"] == "LVM2_member" and not device.get("children"):
            copy = next((copy for copy in copies if device["uuid"] not in copy), None)
            if copy is None:
                copy = {}
                copies.append(copy)
            copy[device["uuid"]] = name
    for copy in copies:
        paths = ",".join(copy.values())
        for uuid in quiet("vgs", "--devices", paths, "--noheadings", "-o", "vg_uuid").stdout.decode().split():
            # not watched: dmeventd would stay, and keep this mount namespace
            yield ("--config", "activation { monitoring=0 }", "--devices", paths, "--select", "vg_uuid=" + uuid)

def explore():
    last = len(undo)
    arrays()
    containers()
    note()
    for group in list(groups()):
        inner = len(undo)
        change("vgchange", "-qq", "--activate", "y", *group)
        undo.append(("vgchange", "-qq", "--activate", "n", *group))
        note()
        if any(device["fstype"] == "crypto_LUKS" and not device.get("children") for device in devices().values()):
            explore()
        close(inner)
    close(last)

try:
    unhide()
    explore()
finally:
    close()
print(json.dumps(found))
"""


def snapshot(guest: Guest) -> Snapshot:
    """Return what the machine has mounted, mapped, assembled and plugged in now, in any mount namespace."""
    found: dict[str, list[str]] = json.loads(guest.python(LOOK))
    return Snapshot(**{name: frozenset(lines) for name, lines in found.items()})


def same(before: Snapshot, after: Snapshot) -> list[str]:
    """Return in sentences what is there and was not, or was and is no more; none: they are the same."""
    told = []
    for name, was, now in zip(before._fields, before, after, strict=True):
        told += [f"{name[:-1]} is new: {line}" for line in sorted(now - was)]
        told += [f"{name[:-1]} is gone: {line}" for line in sorted(was - now)]
    return told


def listing(guest: Guest, device: str, kind: str) -> dict[str, File]:
    """Return all files of a file system, which is mounted read-only for it, and without a replay of its journal."""
    return _files(_look(guest, LIST + LIST_ONE, kind, device))


def all_files(guest: Guest, image: Image) -> Listings:
    """Return all files of all file systems of an image that is plugged in, whatever they lie in.

    What has to be opened for it is closed again; a volume group that is active and has a copy is inactive afterwards.
    """
    uuids = {content.where: content.uuid for content in image.contents}
    keys = json.dumps({uuids[secret.where]: secret.key.hex() for secret in image.secrets})
    return [(kind, uuid, _files(files)) for kind, uuid, files in _look(guest, LIST + LIST_ALL, keys)]


# Before LIST: the mount namespace of its own, as `unshare --mount` makes it.
ALONE = r"""
import ctypes, subprocess
libc = ctypes.CDLL(None, use_errno=True)
if libc.unshare(0x20000):  # CLONE_NEWNS
    raise OSError(ctypes.get_errno(), "unshare")
subprocess.run(["mount", "--make-rprivate", "/"], check=True)
"""


def _look(guest: Guest, program: str, *arguments: str) -> Any:
    # what it answers is the last line; what the programs that it runs complain of comes before
    return json.loads(guest.python(ALONE + program, *arguments, imports=["ctypes"], timeout=300).splitlines()[-1])


def _files(found: dict[str, list[Any]]) -> dict[str, File]:
    return {path: File(*values) for path, values in found.items()}


def altered(before: Listings, after: Listings) -> list[str]:
    """Return in words what of the files in after is not as it was in before, which may have more file systems."""
    told = []
    copies: dict[tuple[str, str], list[dict[str, File]]] = {}
    for kind, uuid, files in after:
        # of copies, the one that it is, which no other can be then; but each path of a disk shows the same ones
        known = copies.setdefault((kind, uuid), [])
        known += [] if known else [each for one, other, each in before if (one, other) == (kind, uuid)]
        if known:
            was = known.pop(min(range(len(known)), key=lambda number: len(changed(known[number], files))))
            told += [f"{kind} {uuid}: {path}" for path in changed(was, files)]
        else:
            told.append(f"{kind} {uuid} is new")
    return told


def changed(before: dict[str, File], after: dict[str, File]) -> list[str]:
    """Return the paths of what is not as it was."""
    return sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
