# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One rescue machine for many tests: images are plugged in, looked at, and taken out again."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from lifeboat_lab.images import Images, LabError
from lifeboat_lab.machine import Machine, overlay, written
from lifeboat_lab.waiting import until

from . import build
from .describe import Image
from .guest import Guest
from .verify import Snapshot, same, snapshot
from .zoo import IMAGES

# Runs in the machine: ends all that lies on the disks with these names, top first.
TAKE_DOWN = r"""
import json, os, subprocess, sys

def quiet(*argv):
    subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

def above(device):
    for child in device.get("children", []):
        yield from above(child)
        yield child

for turn in range(3):
    tree = json.loads(subprocess.run(["lsblk", "--json", "--paths", "--output", "NAME,TYPE"], stdout=subprocess.PIPE, check=True).stdout)
    for disk in tree["blockdevices"]:
        # an array that has lost its disks stands beside them
        if disk["name"] not in sys.argv[1:] and not disk["name"].startswith("/dev/md"):
            continue
        for device in [*above(disk), disk]:
            # not without need: it opens the device for writing, whereupon udev reads its table again
            if any(line.startswith(device["name"] + " ") for line in open("/proc/swaps")):
                quiet("swapoff", device["name"])
            quiet("umount", "--all-targets", "--lazy", device["name"])
            if device["type"] == "loop":
                quiet("losetup", "--detach", device["name"])
            elif device["type"] in ("lvm", "crypt", "dm", "mpath"):
                quiet("dmsetup", "remove", "--retry", device["name"])
            elif device["name"].startswith("/dev/md"):
                quiet("mdadm", "--stop", device["name"])
subprocess.run(["udevadm", "settle"])
"""


class There:
    """An image that is plugged in. image, guest: as they are.

    devices: number of each disk that is there to its path in the machine (of several paths: all of them, with a blank
    between). layers: number of each disk to the file that takes what is written to it (qcow2, over the golden image); a
    machine can be made of them when it is unplugged. golden: what they lie over. before: the machine as it was when it had
    just been plugged in.
    """

    def __init__(self, image: Image, guest: Guest, devices: dict[int, str], layers: dict[int, Path], golden: build.Golden):
        self.image = image
        self.guest = guest
        self.devices = devices
        self.before: Snapshot = snapshot(guest)
        self.layers = layers
        self.golden = golden

    def set_aside(self) -> dict[int, list[tuple[int, int]]]:
        """Return what has been written until now, as written() does, while it stays plugged in; new layers take what comes."""
        # What the machine holds back goes to the disks first; they have it when they are read past its memory.
        paths = " ".join(path for paths in self.devices.values() for path in paths.split())
        self.guest.run(f"sync; for disk in {paths}; do blockdev --flushbufs $disk; done")
        found = {}
        for number, layer in self.layers.items():
            found[number] = written(self.guest.machine.set_aside(f"d{number}", layer.with_name(f"{layer.stem}-next.qcow2")))
            self.layers[number] = layer.with_name(f"{layer.stem}-next.qcow2")
        return {number: extents for number, extents in found.items() if extents}

    def left(self) -> list[str]:
        """Return in sentences what differs in the machine from when the image was plugged in; none: nothing."""
        return same(self.before, snapshot(self.guest))

    def written(self) -> dict[int, list[tuple[int, int]]]:
        """Return what has been written: disk to (start, length) in bytes; {}: not one byte. For when it is unplugged."""
        found = {number: written(layer) for number, layer in self.layers.items()}
        return {number: extents for number, extents in found.items() if extents}

    def device(self, where: str) -> str:
        """Return the path of a disk or partition ("0", "0.3") in the machine."""
        number, _dot, partition = where.partition(".")
        disk = self.devices[int(number)].split()[0]
        return f"{disk}{'p' if partition and disk[-1].isdigit() else ''}{partition}"


class Zoo:
    """The machine. It is resumed once; after an image whose leftovers cannot be taken down it is reset."""

    def __init__(self, workdir: Path, lab: Images | None = None, say: Callable[[str], None] = lambda line: None):
        workdir.mkdir(parents=True, exist_ok=True)
        self._workdir = workdir
        self._say = say
        self._number = 0
        self._kept: tuple[str, bool, There] | None = None
        self.machine = Machine("zoo", [], workdir / "machine", images=lab, hotplug=True, memory=768, resumes=True)
        self.guest = Guest(self.machine, workdir)

    def __enter__(self) -> Zoo:
        """Boot it."""
        try:
            self._boot()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        """End it."""
        self.guest.close()
        self.machine.close()

    def _boot(self) -> None:
        self.guest.boot()
        # what is loaded by the first use would be a difference
        self.guest.run("modprobe -a loop dm_mod raid1; dmsetup ls; losetup --list")
        self.empty = snapshot(self.guest)

    def _obey(self, active: bool) -> None:
        """Have the rescue system activate what is plugged in from now on, or leave it as it is."""
        done = "rm -f /run/udev/rules.d/$rule" if active else "ln -sf /dev/null /run/udev/rules.d/$rule"
        # What it has once seen whole, it does not activate again; and the kernel refuses a btrfs that it has seen newer.
        self.guest.run(f"mkdir -p /run/udev/rules.d; for rule in 64-md-raid-assembly.rules 69-lvm.rules; do {done}; done; "
                       "rm -f /run/lvm/pvs_online/* /run/lvm/vgs_online/* /run/lvm/pvs_lookup/*; udevadm control --reload; "
                       "btrfs device scan --forget 2>/dev/null || true")  # where it has seen none, that is an error

    @contextlib.contextmanager
    def plugged(self, name: str, active: bool = False, shared: Literal["first", "second"] | None = None) -> Iterator[There]:
        """Plug in the image of that name, for writing too: what is written goes nowhere. Then take it out.

        active: the rescue system may assemble arrays and activate volume groups, as far as it finds them whole; there are
        rescue systems that do, and others. What is still mounted or mapped at the end is taken down first.
        shared: when the block of the first ends well, the image stays plugged in, for the next one when that is its second:
        the first must have left it as it was, and shown that by left() and set_aside().
        """
        if self._kept:
            kept_name, kept_active, there = self._kept
            self._kept = None
            if (kept_name, kept_active, "second") == (name, active, shared):
                try:
                    yield there
                finally:
                    self._take_out(there.layers, asked=sys.exc_info()[0] is None)
                return
            self._take_out(there.layers, asked=False)
        image = IMAGES[name]
        self._obey(active)
        golden = build.ensure([image], IMAGES, self._say)
        disks = golden.disks(image)
        self._number += 1
        place = self._workdir / f"{self._number}-{name}"
        place.mkdir()
        layers: dict[int, Path] = {}
        keep = False
        try:
            for number in image.present:
                disk = image.disks[number]
                layer = overlay(disks[number], place / f"disk{number}.qcow2")
                self.machine.plug(f"d{number}", layer, bus=disk.bus, serial=image.serial(number), wwn=disk.wwn,
                                  bad_sectors=[offset // 512 for offset in disk.bad], paths=disk.paths)
                layers[number] = layer
            there = There(image, self.guest, self._wait_for(image), layers, golden)
            yield there
            keep = shared == "first"
        finally:
            if keep:
                self._kept = (name, active, there)
            else:
                self._take_out(layers, asked=sys.exc_info()[0] is None)

    def _wait_for(self, image: Image) -> dict[int, str]:
        """Return the paths of the disks when the machine has seen them and udev is done."""
        found: dict[int, str] = {}

        def all_there() -> bool:
            said = [line.split() for line in self.guest.run(
                "udevadm settle; lsblk --nodeps --noheadings --paths --output NAME,SERIAL").splitlines()]
            found.update((number, " ".join(sorted(words[0] for words in said if words[1:] == [image.serial(number)])))
                         for number in image.present)
            return all(len(found[number].split()) == image.disks[number].paths for number in found)

        until(all_there, 120, lambda: f"The machine does not see the disks of {image.name}, only {found}.")
        # Volume groups are activated by services that udev has started.
        self.guest.run("while systemctl list-units --no-legend --all 'lvm-activate-*' | grep -q ' activating '; do sleep 0.1; done; "
                       "udevadm settle")
        return found

    def _take_out(self, layers: dict[int, Path], asked: bool) -> None:
        now = snapshot(self.guest)
        if now[:5] != self.empty[:5]:
            disks = {line.split()[0] for line in now.devices - self.empty.devices if line.split()[2] in ("disk", "loop")}
            self.guest.python(TAKE_DOWN, *(f"/dev/{disk}" for disk in disks))
        for number in layers:
            self.machine.unplug(f"d{number}")
        told: list[str] = []

        def all_gone() -> bool:
            told[:] = same(self.empty, snapshot(self.guest))
            # a device may need a moment to go; what is mounted does not go by itself
            return not told or any(line.startswith("mount is new") for line in told)

        with contextlib.suppress(LabError):  # said below
            until(all_gone, 60)
        if told:
            self._boot()
            if asked:
                raise LabError("This could not be taken down, and the machine was booted again: " + "; ".join(told))
