# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an image says of itself, by the tools of the rescue system alone: what its devices hold, and what its systems are.

An image does not change, so what it said is kept beside it, until the image, its description, or whoever asks is another.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

from lifeboat_lab import qemu
from lifeboat_lab.images import ensure as ensure_lab

from . import build
from .session import There, Zoo
from .zoo import IMAGES

# There the names or UUIDs of volume groups are there twice: nothing opens them all at once.
DOUBLE = {"twin-vg", "cloned-lvm"}

# Runs in the machine: opens all layers, and tells what each device says of itself and what lies in the systems' mounts.
PROBE = r"""
import json, os, re, subprocess, sys

def run(*argv, stdin=b"", check=True):
    done = subprocess.run(argv, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if check and done.returncode:
        sys.exit("%s: %s" % (" ".join(argv), done.stderr.decode(errors="replace")))
    return done.stdout.decode(errors="replace")

def walk(devices):
    for device in devices:
        yield device
        yield from walk(device.get("children", []))

def nodes():
    tree = json.loads(run("lsblk", "--json", "--paths", "--output", "NAME,TYPE"))["blockdevices"]
    volumes = {}
    for line in run("lvs", "--noheadings", "--separator", "|", "-o", "vg_name,lv_name,lv_dm_path", check=False).splitlines():
        group, volume, path = line.strip().split("|")
        volumes[path] = "lv:%s/%s" % (group, volume)
    found = {}
    for device in walk(tree):
        path, kind = device["name"], device["type"]
        array = re.match(r"(/dev/md\d+)(?:p(\d+))?$", path)
        if array:
            about = run("mdadm", "--detail", "--export", array[1], check=False)
            name = re.search(r"^MD_NAME=(?:.*:)?(.*)$", about, re.M)
            found["md:" + (name[1] if name else "") + ("." + array[2] if array[2] else "")] = path
        elif kind == "lvm":
            if path in volumes:
                found[volumes[path]] = path
        elif kind == "crypt":
            found["crypt:" + os.path.basename(path)] = path
        else:
            for number, disk in wanted["disks"].items():
                part = re.match(re.escape(disk) + r"(?:(?:(?<=\d)p|(?<!\d))(\d+))?$", path)
                if part:
                    found[number + ("." + part[1] if part[1] else "")] = path
    return found

def tags(path):
    return dict(line.split("=", 1) for line in run("blkid", "-p", "-o", "export", path, check=False).replace("\\", "").splitlines())

wanted = json.loads(sys.argv[1])
if wanted["open"]:
    for turn in range(2):
        for name in re.findall(r"^(md\S+) : inactive", open("/proc/mdstat").read(), re.M):
            run("mdadm", "--run", "/dev/" + name)
        # of a group that lacks a disk, what is whole is activated all the same
        run("vgchange", "-qq", "--activate", "y", check=wanted["whole"])
        run("udevadm", "settle")
        for where, opened, key in wanted["secrets"]:
            path = nodes().get(where)
            if path and opened not in nodes():
                run("cryptsetup", "open", "--key-file", "-", path, opened.split(":")[1], stdin=bytes.fromhex(key))
    run("udevadm", "settle")
told = {"contents": [], "tables": {}, "systems": [], "known": nodes()}
for where, path in told["known"].items():
    about = tags(path)
    if about.get("PTTYPE"):
        told["tables"][where] = about["PTTYPE"]
    if about.get("TYPE"):
        told["contents"].append([where, about["TYPE"], about.get("UUID", ""), about.get("LABEL", "")])
for mounts in wanted["systems"]:
    seen = {}
    for path, where, kind, subvolume in mounts:
        device = told["known"][where]
        options = "ro" + {"xfs": ",nouuid", "btrfs": ",degraded"}.get(kind, "") + (",subvol=" + subvolume if subvolume else "")
        run("mount", "-t", kind, "-o", options, device, "/mnt" + path)
        # in machine-readable words: a file in a btrfs knows the subvolume by itself
        seen[path] = run("findmnt", "-n", "-r", "-o", "FSTYPE,UUID,FSROOT", "--mountpoint", "/mnt" + path.rstrip("/")).split()
    def text(path):
        try:
            with open("/mnt/" + path, encoding="utf-8") as file:
                return file.read()
        except OSError:
            return ""
    told["systems"].append({"mounts": seen, "release": text("usr/lib/os-release"), "hostname": text("etc/hostname").strip(),
                            "fstab": text("etc/fstab"), "shell": open("/mnt/usr/bin/sh", "rb").read(4) == b"\x7fELF",
                            "grub": [name for place in ("grub", "grub2") if os.path.isdir("/mnt/boot/" + place)
                                     for name in os.listdir("/mnt/boot/" + place) if "-" in name],
                            "links": os.stat("/mnt/srv/odd/first").st_nlink if os.path.exists("/mnt/srv/odd/first") else 2})
    run("umount", "-R", "/mnt")
print(json.dumps(told))
"""


def probe(there: There, **differences: Any) -> dict[str, Any]:
    """Open all layers of an image that is plugged in, and return what there is.

    known: place to device; contents: of each device its place, type, UUID and label; tables: place to type of partition
    table; systems: in their order what is mounted and what a few of their files say. differences: of what is asked, see
    the program.
    """
    image = there.image
    wanted = {"whole": not image.only,
              "disks": {str(number): paths.split()[0] for number, paths in there.devices.items()},
              "open": image.name not in DOUBLE,
              "secrets": [(secret.where, secret.opened, secret.key.hex()) for secret in image.secrets],
              "systems": [[(mount.path, mount.where, mount.type, mount.subvolume) for mount in system.mounts]
                          for system in image.systems if image.name not in DOUBLE], **differences}
    found: dict[str, Any] = json.loads(there.guest.python(PROBE, json.dumps(wanted)))
    return found


def said_by(zoo: Zoo, name: str) -> dict[str, Any]:
    """Return what probe returns of an image; it is plugged in for it unless it has been before."""
    image = IMAGES[name]
    golden = build.ensure([image], IMAGES)
    asked = (PROBE, image, [str(disk) for disk in golden.disks(image)], ensure_lab().directory.name, qemu.version())
    place = build.directory() / f"told-{name}-{hashlib.sha256(repr(asked).encode()).hexdigest()[:16]}.json"
    if not place.exists():
        with zoo.plugged(name, active=name not in DOUBLE) as there:
            found = probe(there)
        scratch = place.with_suffix(f".{os.getpid()}")
        scratch.write_text(json.dumps(found))
        scratch.rename(place)
    os.utime(place)  # it is forgotten as the images are, when nobody asks
    kept: dict[str, Any] = json.loads(place.read_text())
    return kept
