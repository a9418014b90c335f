# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Looks at a machine from outside, and trusts nothing of the product: what is mounted, mapped, assembled there.

    before = snapshot(guest)
    …
    assert same(before, snapshot(guest)) == []

and with listing and changed, which files of a file system are no longer as they were.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

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

    digest: sha256 of the content, target of a link, numbers of a device.
    """

    kind: str
    mode: int
    uid: int
    gid: int
    links: int
    size: int
    digest: str
    xattrs: dict[str, str]


# Runs in the machine.
LOOK = r"""
import json, os, re, subprocess

def out(*argv):
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    return done.stdout.decode(errors="replace")

def walk(devices, above=""):
    for device in devices:
        yield device
        yield from walk(device.get("children", []))

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
found["mappings"] = [line for line in out("dmsetup", "table").splitlines() if line != "No devices found"]
found["loops"] = ["%s: %s offset %s" % (loop["name"], loop["back-file"], loop["offset"])
                  for loop in json.loads(out("losetup", "--json", "--list", "--output", "NAME,BACK-FILE,OFFSET") or
                                         '{"loopdevices": []}')["loopdevices"]]
with open("/proc/mdstat") as lines:
    found["arrays"] = [line.strip() for line in lines if re.match(r"md\S* : ", line)]
with open("/proc/swaps") as lines:
    found["swaps"] = [line.split()[0] for line in lines][1:]
tree = json.loads(out("lsblk", "--json", "--bytes", "--output", "NAME,MAJ:MIN,TYPE,RO,SIZE,FSTYPE"))["blockdevices"]
found["devices"] = sorted({"%s %s %s %s %s" % (device["name"], device["maj:min"], device["type"], device["size"],
                                               "ro" if device["ro"] in (True, "1") else "rw") for device in walk(tree)
                           if device["type"] != "loop" or device["size"]})
# the sequence number grows with each change of the group's metadata
fields = "pv_name,pv_uuid,vg_name,vg_uuid,vg_seqno,pv_missing"
if any(device["fstype"] == "LVM2_member" for device in walk(tree)):
    found["groups"] = [" ".join(line.split()) for line in out("pvs", "--readonly", "--noheadings", "-o", fields).splitlines()]
print(json.dumps(found))
"""

# Runs in the machine, in a mount namespace of its own.
LIST = r"""
import hashlib, json, os, stat, subprocess, sys

kind, options, device = sys.argv[1:]
subprocess.run(["mount", "-t", "tmpfs", "none", "/mnt"], check=True)
os.mkdir("/mnt/list")
subprocess.run(["mount", "-t", kind, "-o", options, device, "/mnt/list"], check=True)
base = b"/mnt/list"
files = {}
letters = {stat.S_IFREG: "-", stat.S_IFDIR: "d", stat.S_IFLNK: "l", stat.S_IFCHR: "c", stat.S_IFBLK: "b", stat.S_IFIFO: "p",
           stat.S_IFSOCK: "s"}

def add(path):
    status = os.lstat(path)
    letter, digest = letters[stat.S_IFMT(status.st_mode)], ""
    if letter == "-":
        with open(path, "rb") as file:
            digest = hashlib.sha256(file.read()).hexdigest()
    elif letter == "l":
        digest = os.fsdecode(os.readlink(path))
    elif letter in "cb":
        digest = "%d:%d" % (os.major(status.st_rdev), os.minor(status.st_rdev))
    try:
        xattrs = {name: os.getxattr(path, name, follow_symlinks=False).hex() for name in os.listxattr(path, follow_symlinks=False)}
    except OSError:
        xattrs = {}
    files[os.fsdecode(path[len(base):]) or "/"] = (letter, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid,
                                                  0 if letter == "d" else status.st_nlink,
                                                  0 if letter == "d" else status.st_size, digest, xattrs)

add(base)
for folder, folders, names in os.walk(base):
    for name in folders + names:
        add(os.path.join(folder, name))
print(json.dumps(files))
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


def listing(guest: Guest, device: str, kind: str, options: str = "") -> dict[str, File]:
    """Return all files of a file system, which is mounted read-only for it, and without a replay of its journal."""
    quiet = {"ext4": "ro,noload", "ext3": "ro,noload", "xfs": "ro,norecovery,nouuid", "btrfs": "ro,rescue=nologreplay"}.get(kind, "ro")
    words = f"{quiet},{options}" if options else quiet
    # the program comes by standard input, which unshare hands on
    said = guest.run(f"unshare --mount python3 - '{kind}' '{words}' '{device}'", stdin=LIST.encode())
    found: dict[str, list[Any]] = json.loads(said)
    return {path: File(*values) for path, values in found.items()}


def changed(before: dict[str, File], after: dict[str, File]) -> list[str]:
    """Return the paths of what is not as it was."""
    return sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
