# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Mounting an installed system, and leaving no trace of it. Private to this collection."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import posixpath
import signal
import stat
import typing as t

from ..._errors import BadInput, Busy, LifeboatError, TargetError
from ..._wait import Backoff, Wait
from .. import _target
from .._command import CommandFailed, Runner
from .._journal import Journal
from .._kernel import Kernel, Mount, Process
from .._lock import Job, locked
from . import _fstab, _layers
from ._devices import EXT, Built, Device, Devices, Standing, discover
from ._systems import Content, System, look

_KEPT_VFAT = ("uid", "gid", "umask", "fmask", "dmask", "codepage", "iocharset", "shortname")
# Without them, an XFS whose quotas are on would have to count all its files again when the installed system mounts it. Where they are
# not, they would be put on; and an XFS that cannot be written to is not mounted with others than it has.
_XFS_QUOTA = ("uquota", "gquota", "pquota", "usrquota", "grpquota", "prjquota", "quota", "qnoenforce", "uqnoenforce", "gqnoenforce",
              "pqnoenforce")
_XFS_ONLY = (*_XFS_QUOTA, "inode32", "inode64")
_EXT_ONLY = ("acl", "noacl", "user_xattr", "nouser_xattr")
# Options of fstab that are kept. Others (discard, exec, user, x-…) do nothing for a repair or may do harm.
_KEPT = ("ro", "noatime", "nodiratime", "relatime", "strictatime", "lazytime", "sync", "dirsync", "utf8", *_EXT_ONLY, *_XFS_ONLY)

_BY_KERNEL = ("dev", "proc", "sys")
# What the target's /run has from the beginning, see _FURNISH.
_IN_RUN = ("lock", "lvm", "udev")

# Runs in the new namespace, which propagates nothing. $1: the root. $2: which of its directories get the rescue's own.
# $3: whether it has a /run. $4: file to be seen as resolv.conf, $5: where. $6: the policy-rc.d to be hidden. $7: its /tmp,
# where that is to be in memory.
#
# /run is a fresh tmpfs: package scripts must not find the rescue system's pid files (they would stop its sshd) nor its
# systemd, and daemons of the target must not write there. udev and LVM keep their state in it.
#
# At last the target is moved over the root: whoever enters the namespace is in the target without a chroot, and nothing of
# the rescue system can be reached from there.
_FURNISH = """\
set -e
for d in $2; do mount --rbind "/$d" "$1/$d"; done
if [ "$3" = yes ]; then
  mount -t tmpfs -o mode=0755,nosuid,nodev tmpfs "$1/run"
  mkdir -m 1777 "$1/run/lock"
  for d in udev lvm; do
    if [ -d "/run/$d" ]; then mkdir "$1/run/$d"; mount --bind "/run/$d" "$1/run/$d"; fi
  done
fi
if [ -n "$5" ]; then
  case "$5" in
    "$1/run/"*) mkdir -p "${5%/*}"; cat "$4" > "$5" ;;
    *) mount --bind "$4" "$5" ;;
  esac
fi
if [ -n "$6" ]; then
  printf '#!/bin/sh\\nexit 101\\n' > "$1/run/policy-rc.d"
  chmod 0755 "$1/run/policy-rc.d"
  mount --bind "$1/run/policy-rc.d" "$6"
fi
if [ -n "$7" ]; then mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs "$7"; fi
mount --move "$1" /
"""


class Planned(t.NamedTuple):
    """One file system to be mounted. point is its mount point in the target; members are all its devices."""

    device: Device
    point: str
    options: list[str]
    replay: bool | None
    members: list[Device]

    @property
    def fstype(self) -> str:
        # The driver of ext4 knows the options that we need, and mounts all three.
        return "ext4" if self.device.type in EXT else self.device.type

    def is_mounted_as(self, path: str) -> dict[str, str]:
        """A mount of the result."""
        return {"source": self.device.name, "target": posixpath.normpath(path + self.point), "fstype": self.device.type,
                "options": ",".join(self.options)}

    def told(self, path: str) -> str:
        """A line of the diff."""
        will = {True: ", its journal will be replayed", None: ", its log will be replayed if it needs that"}
        replay = will.get(self.replay, "") if "ro" not in self.options and self.device.type != "vfat" else ""
        where = posixpath.normpath(path + self.point)
        return f"{self.device.name} on {where} type {self.device.type} ({','.join(self.options)}){replay}"


class Storage:
    """The disks of the server, and the target.

    run_dir is in the rescue system's memory. patience: seconds to wait for processes to end, or for the kernel. keys: for
    encrypted containers. degraded: arrays may be started without all their disks; partial: the same for volume groups.
    owner: the job that this is done for, see _lock.Job; take_over: owners that are known to be gone, or "*".
    """

    def __init__(self, run: Runner | None = None, kernel: Kernel | None = None, run_dir: str = _target.RUN_DIR,
                 patience: float = 10.0, keys: t.Sequence[_layers.Key] = (), degraded: bool = False, partial: bool = False,
                 owner: str = "", take_over: t.Sequence[str] = ()):
        self.run = run or Runner()
        self.kernel = kernel or Kernel()
        self.run_dir = run_dir
        self.patience = patience
        self.keys = keys
        self.degraded = degraded
        self.partial = partial
        self.job = Job(run_dir, owner)
        self.take_over = take_over
        self.devices = Devices([])
        self.contents: dict[str, Content] = {}
        self.systems: list[System] = []

    # Looking --------------------------------------------------------------------------------------------------------

    def _look(self, journal: Journal) -> None:
        """Find disks, file systems and installed systems. What is built for that is gone afterwards; nothing is changed.

        journal: of the target. To be called with the lock held.
        """
        with self._looking(journal):
            pass

    @contextlib.contextmanager
    def _looking(self, journal: Journal) -> t.Iterator[Journal]:
        """Do what _look does; what is built for it stands within the block, and afterwards only if another journal took it over.

        Gives the journal of what was built.
        """
        looking = self._undo_look()
        self.devices = self._discover(journal, Standing(journal.layers))
        if not _layers.needed(self.devices) and not self._mirrors():
            self._read(None)
            yield looking
            return
        # A target that is mounted may lie on what a look has built: the names of that one are in use.
        tag = "again" if journal.exists else "look"
        looking.begin("", {})
        try:
            self._build(self.devices, journal, _layers.Layers(self.run, self.kernel, looking, tag, self.keys, standing=[journal.layers]))
            yield looking
        finally:
            _layers.undo_all(self.run, self.kernel, looking)

    def _undo_look(self) -> Journal:
        """Take down what a look that was killed has left."""
        looking = Journal(self.run_dir, _target.LOOKING)
        if looking.exists:
            _layers.undo_all(self.run, self.kernel, looking)
        return looking

    def _build(self, devices: Devices, journal: Journal, layers: _layers.Layers) -> None:
        self.devices = layers.build(devices, lambda built: self._discover(journal, built))
        self._read(layers.journal if layers.overlays else None)

    def _discover(self, journal: Journal, built: Built) -> Devices:
        return discover(self.run, self.kernel, {(step["number"], step["target"]) for step in journal.mounts}, built)

    def _mirrors(self) -> list[Device]:
        """The devices of each btrfs that has several. While it is read, it mends one from the other, however it is mounted."""
        found = [self.devices.members(device) for device in self.devices.candidates()
                 if device.type == "btrfs" and not device.part_of and not self.devices.used(device)]
        return [member for members in found if len(members) > 1 for member in members if not member.read_only and not member.ours]

    def _read(self, journal: Journal | None) -> None:
        """journal: where it is written down what is kept from being written to; None: nothing is to be."""
        if journal is not None:
            for member in self._mirrors():
                journal.announce(do="setro", device=member.path)
                self.run(["blockdev", "--setro", member.path])
        self.contents, self.systems = look(self.run, self.kernel, self.devices)

    def info(self) -> dict[str, t.Any]:
        """What storage_info returns."""
        with self._locked():
            self._look(Journal(self.run_dir))
        return {"disks": [self._disk(device) for device in self.devices if not device.on],
                "filesystems": [self._filesystem(device) for device in self.devices if device.type],
                "arrays": [self._array(device) for device in self.devices if "raid_disks" in device.facts],
                "volumes": [self._volume(device) for device in self.devices if "lv" in device.facts],
                "containers": [self._container(device) for device in self.devices if device.type == "crypto_LUKS"],
                "systems": [system.as_result() for system in self.systems]}

    def _disk(self, disk: Device) -> dict[str, t.Any]:
        return {"device": disk.name, "kind": disk.kind, "size": disk.size, "read_only": disk.read_only,
                "model": disk.model or None, "serial": disk.serial or None, "wwn": disk.wwn or None,
                "transport": disk.transport or None, "by_id": disk.by_id, "table": disk.tag.get("PTTYPE"),
                "partitions": [self.devices.all[path].name for path in disk.below if self.devices.all[path].kind == "part"],
                "rescue": bool(disk.rescue), "reason": disk.rescue or None}

    def _filesystem(self, device: Device) -> dict[str, t.Any]:
        content = self.contents.get(device.path, Content())
        reason = device.unsupported or content.unread or device.used
        return {"device": device.name, "on": [self.devices.all[path].name for path in device.on],
                "disk": self.devices.disk_of(device).path, "size": device.size, "kind": device.kind,
                "type": device.type, "uuid": device.tag.get("UUID"), "label": device.tag.get("LABEL"),
                "partuuid": device.tag.get("PART_ENTRY_UUID"), "partlabel": device.tag.get("PART_ENTRY_NAME"),
                "by_id": device.by_id, "mounted": device.mounted or None, "rescue": bool(device.rescue),
                "supported": not device.unsupported, "needs_replay": content.replay, "dirty": content.dirty, "reason": reason or None,
                "subvolumes": [{"id": part.id, "path": part.path, "snapshot": part.snapshot, "default": part.default}
                               for part in content.subvolumes]}

    def _array(self, device: Device) -> dict[str, t.Any]:
        facts = device.facts
        return {"device": device.name, "uuid": facts["uuid"], "name": facts["array"] or None, "level": device.kind,
                "metadata": facts["metadata"], "members": [self.devices.all[path].name for path in device.on],
                "raid_disks": facts["raid_disks"], "degraded": facts["degraded"]}

    @staticmethod
    def _volume(device: Device) -> dict[str, t.Any]:
        facts = device.facts
        return {"device": device.name, "group": facts["vg"], "group_uuid": facts["uuid"], "name": facts["lv"],
                "layout": facts["layout"], "snapshot": bool(device.snapshot), "missing": facts["missing"]}

    def _container(self, device: Device) -> dict[str, t.Any]:
        inside = next((each for each in self.devices if each.facts.get("container") == device.path), None)
        return {"device": device.name, "uuid": device.tag.get("UUID"), "version": device.tag.get("VERSION"),
                "open": inside is not None, "key": inside.facts["key"] if inside else None}

    def choose(self, wanted: str | None) -> System:
        """The installed system that is meant by an id, a device, or by being the only one."""
        listing = "; ".join(map(str, self.systems))
        if wanted is None:
            mountable = [system for system in self.systems if system.mountable]
            if len(mountable) == 1:
                return mountable[0]
            if self.systems:
                raise BadInput(f"There are {len(self.systems)} installed systems: {listing}.", "Nothing was mounted.",
                               "Set system to the id or the root device of the system that you want.",
                               {"systems": [system.as_result() for system in self.systems]})
            raise TargetError(f"No installed system was found.{self._not_looked_into()}", "Nothing was mounted.",
                              "See what lifeboat.rescue.storage_info tells about the disks. Where this is no rescue system, "
                              "enter one first.",
                              {"filesystems": [f"{device.name}: {self._why(device)}" for device in self.devices
                                               if device.type]})
        device = self.devices.named(wanted) if wanted.startswith("/dev/") else None
        device = device and self.devices.speaker(device)
        chosen = [system for system in self.systems if wanted == system.id or system.root is device
                  or wanted == system.root.name]
        if len(chosen) == 1:
            if not chosen[0].mountable:
                raise BadInput(f"{chosen[0]} cannot be mounted here.", "Nothing was mounted.")
            return chosen[0]
        raise BadInput(f"There is no installed system {wanted!r}. There is: {listing or 'none'}.{self._not_looked_into()}",
                       "Nothing was mounted.")

    def _not_looked_into(self) -> str:
        """In sentences, what may hold an installed system that nobody has seen; each is preceded by a blank."""
        hidden = [f" {device.name}: {device.used or self._unread(device)}" for device in self.devices.candidates()
                  if device.type and not device.below and (device.used or self._unread(device))]
        return "".join([" Not looked into:", *hidden]) if hidden else ""

    def _place(self, system: System) -> tuple[t.Any, ...]:
        """What stays the same of a system when its layers are built in another way. Names and numbers of devices do not."""
        places = sorted((sorted(self.devices.below(each)) or [each.path], each.facts.get("lv") or "", each.partition or 0)
                        for each in self.devices.members(system.root))
        return (*places, system.root.tag.get("UUID"), system.subvolume and system.subvolume.id)

    def _unread(self, device: Device) -> str:
        return self.contents.get(device.path, Content()).unread

    def _why(self, device: Device) -> str:
        return device.rescue or device.unsupported or self._unread(device) or device.used or \
            f"{device.type} without an installed system"

    # Planning -------------------------------------------------------------------------------------------------------

    def plan(self, system: System, mode: str, force: bool) -> tuple[list[Planned], list[dict[str, t.Any]]]:
        """What to mount, the shortest path first, and what to skip.

        Raise TargetError when a file system is missing without which the system is not the system, unless force.
        """
        if system.content.unread and not force:
            raise TargetError(f"The installed system {system} could not be read whole. {system.content.unread}", "Nothing was mounted.",
                              "Set force=true to mount what was found of it.")
        first = next((entry for entry in system.fstab if entry.file == "/" and entry.status == _fstab.RESOLVED), None)
        top = system.subvolume.id if system.subvolume else 5 if system.root.type == "btrfs" else None
        plan = [self._planned(system.root, "/", first.option_list if first else [], mode, top)]
        left_out, missing = [], []
        for entry in system.fstab:
            if entry is first or (entry.file == "/" and entry.status == _fstab.SKIPPED):
                continue
            reason = entry.reason
            if entry.status == _fstab.RESOLVED:
                device = self.devices.all[entry.device or ""]
                content = self.contents.get(device.path, Content())
                reason = ("" if device.ours else self.devices.used(device)) or content.unread or (
                    "It lacks some of its disks, and is mounted with degraded=true only." if content.degraded and not self.degraded else "")
                if not reason:
                    plan.append(self._planned(device, entry.file, entry.option_list, mode, entry.subvolume))
                    continue
            left_out.append(_skip(entry, reason))
            # The root file system is there, whatever its line says: this may be why the server does not boot.
            if entry.status != _fstab.SKIPPED and entry.needed and _fstab.essential(posixpath.normpath(entry.file)):
                missing.append(f"{entry.file} ({entry.spec}): {reason}")
        if self.devices.used(system.root):
            raise Busy(f"{system.root.name} cannot be mounted. {self.devices.used(system.root)}", "Nothing was mounted.",
                       "Unmount it, or wait until its check has ended.")
        if missing and not force:
            raise TargetError(f"The installed system would not be complete: {'; '.join(missing)}",
                              "Nothing was mounted.", "Set force=true to mount it without.", {"missing": missing})
        plan.sort(key=lambda planned: len([part for part in planned.point.split("/") if part]))
        return plan, left_out

    def _planned(self, device: Device, point: str, from_fstab: list[str], mode: str,
                 subvolume: int | None = None) -> Planned:
        options = ["ro" if mode == "ro" else "rw"]
        content = self.contents.get(device.path, Content())
        for option in from_fstab:
            name = option.partition("=")[0]
            if (option in _KEPT and not (option in _XFS_ONLY and device.type != "xfs")
                    and not (option in _XFS_QUOTA and (mode == "ro" or not content.quota))
                    and not (option in _EXT_ONLY and device.type not in EXT)
                    and not (option == "utf8" and device.type != "vfat")) or \
                    (device.type == "vfat" and name in _KEPT_VFAT and option.count("=") == 1):
                if option == "ro" and point != "/":
                    options[0] = "ro"
                elif option not in (*options, "ro"):
                    options.append(option)
        # Its /dev comes from the rescue system, so that nothing needs device nodes of a server that may be hostile.
        options.append("nodev")
        if mode == "ro" and device.type in EXT:
            options.append("noload")
        if mode == "ro" and device.type in ("xfs", "f2fs"):
            options.append("norecovery")
        if mode == "ro" and device.type == "btrfs":
            options.append(content.quiet or "nologreplay")
        if content.degraded:
            options.append("degraded")
        if subvolume is not None:
            options.append(f"subvolid={subvolume}")
        uuid = device.tag.get("UUID")
        if device.type == "xfs" and uuid and len(self.devices.tagged("UUID", uuid)) > 1:
            options.append("nouuid")
        return Planned(device, point, options, content.replay, self.devices.members(device))

    # Mounting -------------------------------------------------------------------------------------------------------

    def mount(self, path: str, mode: str = "rw", system: str | None = None, force: bool = False,
              check: bool = False) -> dict[str, t.Any]:
        """Mount an installed system at path. Return the result of the module. With check, change nothing."""
        path = _checked_path(path)
        with self._locked():
            self._admit()
            if check:
                return self._mount(path, mode, system, force, check)
            try:
                # From now on, should we be killed.
                self.job.hold()
                return self._mount(path, mode, system, force, check)
            except BaseException:
                if not os.path.lexists(os.path.join(self.run_dir, _target.JOURNAL)):
                    self.job.release()
                raise

    @contextlib.contextmanager
    def _locked(self) -> t.Iterator[None]:
        """A command of ours that outlives us holds the lock until it has ended."""
        with locked(self.run_dir, self.patience) as fd:
            self.run.shared = (fd,)
            try:
                yield
            finally:
                self.run.shared = ()

    def _admit(self) -> None:
        """Raise Busy where the target is another job's."""
        def at_work() -> bool:
            journal = Journal(self.run_dir)
            return bool(self._users(journal, self._present(journal)))

        self.job.admit(at_work, self.take_over)

    def _mount(self, path: str, mode: str, system: str | None, force: bool, check: bool) -> dict[str, t.Any]:
        journal = Journal(self.run_dir)
        means = [name for name, given in (("force", force), ("degraded", self.degraded), ("partial", self.partial)) if given]
        wanted = {"path": path, "mode": mode, "means": [*means, *map(repr, self.keys)], "lacks": False}
        if journal.result is not None and self._is_wanted(journal, wanted) and self._stands(journal) and \
                self._same(journal.result["system"], system):
            listing = self._listing(journal)
            return {**journal.result, "changed": False, "diff": {"before": listing, "after": listing}}
        before = self._listing(journal)
        if journal.exists and not check:
            # Half mounted by one that was killed, or mounted in another way.
            self._undo(journal, kill=False)
        with self._looking(journal) as looking:
            chosen = self.choose(system)
            plan, left_out = self.plan(chosen, mode, force)
            layers = set().union(*(self.devices.below(member) for each in plan for member in each.members))
            self._whole(layers, plan, mode, force)
            if not journal.exists:
                self._is_free(path)
            if check:
                return {**self._result(path, mode, chosen, left_out, plan), "changed": True, "diff": {
                    "before": before, "after": "".join(each.told(path) + "\n" for each in plan)}}
            is_built = bool(layers) and mode == "ro" and self._is_all_needed(looking, plan)
            if is_built:
                journal.begin(path, wanted, looking)
        if not is_built:
            journal.begin(path, wanted)
        try:
            if layers and not is_built:
                stack = _layers.Layers(self.run, self.kernel, journal, "target", self.keys, overlays=mode == "ro", wanted=layers,
                                       partial=self.partial)
                place = self._place(chosen)
                self._build(self._discover(journal, stack), journal, stack)
                built = next((system for system in self.systems if self._place(system) == place), None)
                if built is None:
                    raise TargetError(" ".join([f"{chosen} cannot be found any more when its arrays and volumes are activated.",
                                                *dict.fromkeys(stack.why.values())]))
                # Its id may be another, where copies of it are not activated.
                chosen = dataclasses.replace(built, id=chosen.id)
                devices = {each.device.tag.get("UUID"): len(each.members) for each in plan}
                plan, left_out = self.plan(chosen, mode, force)
                self._whole(layers, plan, mode, force)
                fewer = [each.device.name for each in plan if len(each.members) < devices.get(each.device.tag.get("UUID"), 0)]
                if fewer:
                    raise TargetError(" ".join([f"Not all devices of the btrfs on {fewer[0]} can be found any more when its arrays and "
                                                "volumes are activated.", *dict.fromkeys(stack.why.values())]))
                if mode == "rw":
                    stack.will_write(self.devices.stack(member for each in plan for member in each.members))
            self._nobody_writes([member for each in plan for member in each.members])
            result = self._result(path, mode, chosen, left_out, plan)
            result["mounts"] = self._mount_all(journal, path, mode, plan, left_out, force)
            result["namespace"], notes = self._make_namespace(journal, path)
            result["notes"] += notes
            skipped = [(entry.spec, entry.file) for entry in chosen.fstab if entry.status == _fstab.SKIPPED]
            journal.wanted["lacks"] = any((each["spec"], each["file"]) not in skipped for each in left_out)
        except (LifeboatError, OSError) as error:
            exc = error if isinstance(error, LifeboatError) else TargetError(f"Mounting failed: {error}.")
            try:
                self._undo(journal, kill=False)
            except LifeboatError as again:
                raise TargetError(exc.what, f"What was mounted before it could not be unmounted: {again.what}",
                                  "Run lifeboat.rescue.storage_mount with state=unmounted.", exc.details) from error
            kind = Busy if isinstance(exc, Busy) else TargetError
            raise kind(exc.what, exc.state or "What was mounted before it was unmounted again.", exc.todo, exc.details) from error
        journal.result = result
        journal.save()
        return {**result, "changed": True, "diff": {"before": before, "after": self._listing(journal)}}

    def _is_all_needed(self, looking: Journal, plan: list[Planned]) -> bool:
        """Whether every device that was touched for looking is one that the target lies on.

        If so, a target that is only read can lie on what was built. A look does not do what partial allows.
        """
        on = {device.path for device in self.devices.stack(member for each in plan for member in each.members)}
        touched = set(looking.layers.get("hidden", {}).values())
        for step in looking.steps:
            touched.update([step["device"]] if step["do"] == "setro" else step["members"] if step["do"] == "start" else [])
        return touched <= on and not self.partial

    @staticmethod
    def _result(path: str, mode: str, chosen: System, left_out: list[dict[str, t.Any]], plan: list[Planned]) -> dict[str, t.Any]:
        # Not "mode": Ansible adds that itself to each result with a path, and means the directory's.
        return {"path": path, "read_only": mode == "ro", "system": chosen.as_result(), "left_out": left_out,
                "ssh_host_keys": chosen.content.host_keys, "namespace": None, "notes": list(chosen.notes),
                "mounts": [each.is_mounted_as(path) for each in plan]}

    def _whole(self, layers: set[str], plan: list[Planned], mode: str, force: bool) -> None:
        """Refuse to mount what lies on an array, a volume group or a btrfs with missing disks, unless that was asked for."""
        lacking = [each.device.name for each in plan if "degraded" in each.options]
        closed = [f"{device.name}: {device.why}" for device in self.devices.candidates() if device.why]
        if lacking and not self.degraded:
            raise TargetError(" ".join([f"The btrfs on {lacking[0]} lacks some of its disks.", *closed]), "Nothing was mounted.",
                              "Set degraded=true to mount it nevertheless.")
        if lacking and closed and mode == "rw" and not force:
            # Two halves that were written to one without the other are no mirror any more.
            raise TargetError(f"The btrfs on {lacking[0]} lacks some of its disks, which may be in what cannot be looked into. "
                              f"{' '.join(closed)}", "Nothing was mounted.",
                              "Give the keys with luks, or set force=true to write to what is there.")
        for device in self.devices:
            if device.layer in layers and device.facts.get("degraded") and not self.degraded:
                raise TargetError(f"The array {device.name} lacks {device.facts['degraded']} of its {device.facts['raid_disks']} "
                                  "disks.", "Nothing was mounted.", "Set degraded=true to mount it nevertheless.")
            if device.layer in layers and device.facts.get("missing") and not self.partial:
                raise TargetError(f"The volume group {device.facts['vg']} lacks {device.facts['missing']} of its disks.",
                                  "Nothing was mounted.", "Set partial=true to mount what is left of it.")

    def _mount_all(self, journal: Journal, path: str, mode: str, plan: list[Planned], left_out: list[dict[str, t.Any]],
                   force: bool) -> list[dict[str, t.Any]]:
        missing = path
        absent = []
        while not os.path.isdir(missing):
            absent.append(missing)
            missing = posixpath.dirname(missing)
        for directory in reversed(absent):
            journal.announce(do="mkdir", path=directory)
            os.mkdir(directory, 0o755)
        done = []
        for planned in plan:
            target = posixpath.normpath(path + planned.point)
            if planned.point != "/":
                reason = self._no_mount_point(path, planned.point)
                if reason:
                    if _fstab.essential(planned.point) and not force:
                        raise TargetError(f"{planned.device.name} cannot be mounted. {reason}", None,
                                          "Set force=true to mount the system without it.")
                    left_out.append({"spec": planned.device.name, "file": planned.point, "reason": reason})
                    continue
            device = planned.device
            for member in planned.members if mode == "ro" else ():
                if not member.read_only:
                    # A file system mounted read-only may still write: ext4 works off its list of orphaned inodes.
                    journal.announce(do="setro", device=member.path)
                    self.run(["blockdev", "--setro", member.path])
                    member.read_only = True
            journal.announce(do="mount", device=device.path, name=device.name, number=device.number, target=target, type=device.type,
                             more={member.number: member.path for member in planned.members[1:]})
            try:
                self.run(["mount", "-t", planned.fstype, "-o", ",".join([*planned.options, *self.devices.as_options(device)]), "--",
                          device.path, target], timeout=1800)
            except CommandFailed as exc:
                if planned.point == "/" or (_fstab.essential(planned.point) and not force) or self._mounted_at(target):
                    raise
                journal.steps.pop()
                journal.save()
                left_out.append({"spec": device.name, "file": planned.point, "reason": f"It cannot be mounted: {exc.what}"})
                continue
            done.append(planned.is_mounted_as(path))
        return done

    @staticmethod
    def _no_mount_point(path: str, point: str) -> str:
        try:
            status = _target.status(path, point, follow=False)
            resolved = _target.resolve(path, point, missing=True)
        except LifeboatError as exc:
            return exc.what
        if resolved != point:
            return f"A symbolic link is in the way to the mount point {point}."
        if status is None:
            return f"The mount point {point} does not exist."
        return "" if stat.S_ISDIR(status.st_mode) else f"The mount point {point} is no directory."

    def _is_free(self, path: str) -> None:
        for mount in self.kernel.mounts():
            if mount.point == path or mount.point.startswith(path + "/"):
                raise Busy(f"{mount.source} is mounted at {mount.point}, but not by storage_mount.",
                           "Nothing was mounted.", "Unmount it, or choose another path.")

    def _nobody_writes(self, devices: list[Device]) -> None:
        numbers = {}
        for device in devices:
            for each in (device, *self.devices.disks_of(device)):
                numbers[each.number] = each.path
        openers = self.kernel.openers(numbers)
        if openers:
            raise Busy("; ".join(str(process) for found in openers.values() for process in found) + ".",
                       "Nothing was mounted.", "Wait until that has ended.")

    # The namespace --------------------------------------------------------------------------------------------------

    def _make_namespace(self, journal: Journal, path: str) -> tuple[str, list[str]]:
        """Make the mount namespace for commands in the target. Return its file and what is missing in it."""
        notes = []
        real = [name for name in (*_BY_KERNEL, "run") if _is_directory(path, name)]
        notes += [f"The target has no directory /{name}: commands in it will do without."
                  for name in (*_BY_KERNEL, "run") if name not in real]
        resolver, at, note = self._resolver(path, "run" in real)
        notes += [note] if note else []
        policy = self._policy(path) if "run" in real else ""
        # What runs in what cannot be written to (Ansible's modules do) needs a place for its files all the same.
        scratch = f"{path}/tmp" if journal.wanted["mode"] == "ro" and _is_directory(path, "tmp") else ""
        file = os.path.join(self.run_dir, _target.NAMESPACE)
        journal.announce(do="namespace", file=file)
        for name in (_target.NAMESPACE, _target.NAMESPACE_ROOT):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self.run_dir, name))
        _target.create(self.run_dir, _target.NAMESPACE_ROOT, f"{path}\n".encode(), 0o600, (os.geteuid(), os.getegid()))
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        # The kernel binds a namespace only where mounts do not propagate, so the file is mounted on itself, as private.
        self.run(["mount", "--bind", file, file])
        self.run(["mount", "--make-private", file])
        self.run(["unshare", f"--mount={file}", "--propagation", "private", "--", "/bin/sh", "-c", _FURNISH, "sh", path,
                  " ".join(name for name in real if name in _BY_KERNEL), "yes" if "run" in real else "no",
                  resolver, at, policy, scratch])
        return file, notes

    def _resolver(self, path: str, has_run: bool) -> tuple[str, str, str]:
        """File to be seen as the target's resolv.conf, where to put it, and what to say if there is none."""
        try:
            with open("/etc/resolv.conf", "rb") as file:
                content = file.read(65536)
        except OSError:
            return "", "", "The rescue system has no resolv.conf: names may not resolve in the target."
        try:
            at = _target.resolve(path, "etc/resolv.conf", missing=True)
            status = _target.status(path, at, follow=False)
        except LifeboatError:
            at, status = "", None
        # What the rescue system itself keeps in there is not to be written to.
        in_memory = has_run and at.startswith("/run/") and at.split("/")[2] not in _IN_RUN
        if not in_memory and not (status and stat.S_ISREG(status.st_mode) and not at.startswith("/run/")):
            return "", "", "The target's etc/resolv.conf leads to no file: names may not resolve in it."
        _target.create(self.run_dir, "resolv.conf", content, 0o644, (os.geteuid(), os.getegid()))
        return os.path.join(self.run_dir, "resolv.conf"), path + at, ""

    @staticmethod
    def _policy(path: str) -> str:
        """The target's policy-rc.d, or "". One that allows nothing takes its place.

        Where there is none, none can be shown without writing to it. Debian's invoke-rc.d starts nothing then either,
        as it finds no run level and no systemd in the /run that it sees.
        """
        try:
            at = _target.resolve(path, "usr/sbin/policy-rc.d")
            status = _target.status(path, at, follow=False)
        except LifeboatError:
            return ""
        return path + at if status is not None and stat.S_ISREG(status.st_mode) and not at.startswith("/run/") else ""

    # Unmounting -----------------------------------------------------------------------------------------------------

    def unmount(self, kill: bool = False, check: bool = False) -> dict[str, t.Any]:
        """Undo exactly what the journal tells, in reverse. Return the result of the module."""
        if check:
            self._admit()
            journal, looking = Journal(self.run_dir), Journal(self.run_dir, _target.LOOKING)
            left = journal.exists or looking.exists
            unmounted = [step["target"] for step in reversed(self._present(journal))]
            return {"changed": left, "unmounted": unmounted, "clean": not left,
                    "diff": {"before": self._listing(journal), "after": ""}}
        with self._locked():
            self._admit()
            left = any(os.path.lexists(os.path.join(self.run_dir, name)) for name in (_target.JOURNAL, _target.LOOKING))
            self._undo_look()
            journal = Journal(self.run_dir)
            before = self._listing(journal)
            unmounted = self._undo(journal, kill) if journal.exists else []
            self.job.release()
        return {"changed": left, "unmounted": unmounted, "clean": True, "diff": {"before": before, "after": ""}}

    def _undo(self, journal: Journal, kill: bool) -> list[str]:
        """Leave the target. Raise Busy, with nothing changed, while it is in use, unless kill."""
        present = self._present(journal)
        self._nothing_foreign(journal)
        self._nobody_uses(journal, present, kill)
        unmounted = []
        while journal.steps:
            step = journal.steps[-1]
            if step["do"] in _layers.STEPS:
                self._given_back(journal)
                _layers.undo(self.run, self.kernel, step)
            elif step["do"] == "mount":
                if step in present:
                    self._umount(step["target"])
                    unmounted.append(step["target"])
                journal.left.update({step["number"]: step["device"], **step.get("more", {})})
            elif step["do"] == "namespace":
                while self._mounted_at(step["file"]):
                    self._umount(step["file"])
                for file in (step["file"], *(os.path.join(self.run_dir, name) for name in (
                        _target.NAMESPACE_ROOT, _target.NAMESPACE_USED))):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(file)
            elif step["do"] == "setro":
                # Nobody waits for what lies on it: a btrfs may be mounted from it at another place still.
                _layers.undo(self.run, self.kernel, step)
            elif step["do"] == "mkdir":
                # This also takes the mount out of namespaces that were copied from ours meanwhile.
                with contextlib.suppress(OSError):
                    os.rmdir(step["path"])
            journal.steps.pop()
            journal.save_if_there_is_room()
        self._given_back(journal)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self.run_dir, "resolv.conf"))
        journal.end()
        return unmounted

    def _umount(self, target: str) -> None:
        try:
            self.run(["umount", "--", target], timeout=1800)
        except LifeboatError as exc:
            raise Busy(f"{target} cannot be unmounted: {exc.what}", "The rest is still mounted.",
                       "Run it again when nothing uses it any more.") from exc

    def _given_back(self, journal: Journal) -> None:
        """Wait until the kernel is through with what was unmounted, and all is on the disks."""
        devices = journal.left
        if not devices:
            return

        def held() -> dict[str, str]:
            return {number: path for number, path in devices.items() if self.kernel.claimed(path)}

        def late() -> LifeboatError:
            # A service's namespace may hold one.
            holders = [str(process) for process in self.kernel.mounters(held())]
            holders += [f"it is mounted at {mount.point} too" for mount in self.kernel.mounts() if mount.device in held()]
            return Busy(f"The kernel still uses {', '.join(held().values())}: {', '.join(holders) or 'nobody can be named'}.",
                        "What storage_mount mounted is unmounted.",
                        "End that, and run lifeboat.rescue.storage_mount with state=unmounted again.")

        Wait(self.patience, Backoff(0.01, 0.5)).until(lambda: None if held() else True, late)
        for path in filter(os.path.exists, devices.values()):
            self.run(["blockdev", "--flushbufs", path])
        journal.left = {}
        journal.save_if_there_is_room()

    def _nothing_foreign(self, journal: Journal) -> None:
        foreign = [mount for mount in self.kernel.mounts() if not any(_is(mount, step) for step in journal.mounts)
                   and journal.path and (mount.point + "/").startswith(journal.path + "/")]
        if foreign:
            raise Busy("Not mounted by storage_mount, but in the target: " +
                       ", ".join(f"{mount.source} at {mount.point}" for mount in foreign) + ".",
                       "Nothing was unmounted.", "Unmount it first.")

    def _nobody_uses(self, journal: Journal, present: list[dict[str, t.Any]], kill: bool) -> None:
        def users() -> list[Process]:
            return self._users(journal, present)

        found = users()
        if not found:
            return
        listing = ", ".join(map(str, found))
        if not kill:
            raise Busy(f"The target is in use: {listing}.", "Nothing was unmounted.",
                       "End these processes, or set kill_processes=true (exit_rescue_kill_processes=true of the role).",
                       {"processes": [{"pid": process.pid, "command": process.command} for process in found]})
        for number in (signal.SIGTERM, signal.SIGKILL):
            for process in users():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, number)
            with contextlib.suppress(Busy):
                wait = Wait(self.patience, Backoff(0.02, 0.5))
                wait.until(lambda: None if users() else True, lambda: Busy("The target is still in use."))
                return
        raise Busy(f"The target is in use by processes that do not end: {', '.join(map(str, users()))}.",
                   "Nothing was unmounted.")

    def _users(self, journal: Journal, present: list[dict[str, t.Any]]) -> list[Process]:
        """Who uses the target."""
        numbers = {step["number"] for step in present} | {self.kernel.device_of(step["target"]) for step in present}
        numbers.discard("")  # of a file system that does not answer any more
        namespace = self._namespace(journal)
        return self.kernel.users(numbers, namespace) if numbers or namespace else []

    # What is there --------------------------------------------------------------------------------------------------

    def _mounted_at(self, path: str) -> list[Mount]:
        return [mount for mount in self.kernel.mounts() if mount.point == os.path.realpath(path)]

    def _present(self, journal: Journal) -> list[dict[str, t.Any]]:
        """The mounts of the journal that the kernel knows."""
        there = self.kernel.mounts()
        return [step for step in journal.mounts if any(_is(mount, step) for mount in there)]

    def _stands(self, journal: Journal) -> bool:
        return len(self._present(journal)) == len(journal.mounts) and self._namespace(journal) is not None

    def _namespace(self, journal: Journal) -> tuple[int, int] | None:
        """Device and inode of the namespace, where it is there."""
        for step in journal.steps:
            if step["do"] == "namespace" and any(mount.fstype == "nsfs" for mount in self._mounted_at(step["file"])):
                status = os.stat(step["file"])
                return status.st_dev, status.st_ino
        return None

    @staticmethod
    def _is_wanted(journal: Journal, wanted: dict[str, t.Any]) -> bool:
        """Whether what is mounted is what is wanted. Where something lacks, more may be had with more means, such as keys."""
        was = journal.wanted
        more = was.get("lacks") and set(was["means"]) < set(wanted["means"])
        return (was["path"], was["mode"]) == (wanted["path"], wanted["mode"]) and not more

    def _same(self, mounted: dict[str, t.Any], wanted: str | None) -> bool:
        return wanted is None or wanted in (mounted["id"], mounted["root"]) or \
            (wanted.startswith("/dev/") and os.path.realpath(wanted) == mounted["root"])

    def _listing(self, journal: Journal) -> str:
        """The mounts of the journal as text for a diff."""
        present = self._present(journal)
        there = self.kernel.mounts()
        options = [next(mount.options for mount in there if _is(mount, step)) for step in present]
        return "".join(f"{step['name']} on {step['target']} type {step['type']} ({each})\n"
                       for step, each in zip(present, options))


def _is(mount: Mount, step: t.Mapping[str, t.Any]) -> bool:
    """Whether a step of the journal made this mount. One of btrfs has a number of its own, not that of its device."""
    return mount.point == step["target"] and (mount.device == step["number"] or mount.fstype == step["type"] == "btrfs")


def _skip(entry: _fstab.Entry, reason: str) -> dict[str, t.Any]:
    return {"spec": entry.spec, "file": entry.file, "reason": reason}


def _is_directory(path: str, name: str) -> bool:
    status = _target.status(path, name, follow=False)
    return status is not None and stat.S_ISDIR(status.st_mode)


def _checked_path(path: str) -> str:
    if not path.startswith("/") or ".." in path.split("/") or posixpath.normpath(path).strip("/") == "":
        raise BadInput(f"path must be an absolute path without '..' and not the root, but it is {path!r}.",
                       "Nothing was mounted.")
    path = "/" + posixpath.normpath(path).strip("/")
    real = os.path.realpath(path)
    if os.path.exists(path) and not os.path.isdir(path):
        raise BadInput(f"{path} is not a directory.", "Nothing was mounted.")
    return real
