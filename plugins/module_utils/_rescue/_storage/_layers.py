# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What lies between disks and file systems: md arrays, volume groups, encrypted containers. Private to this collection.

To look must not write. But an array that is started, a mirror, a thin pool write to what they lie on, and two volume
groups of one name cannot be active together. So what is built for looking is built on overlays: snapshots of the kernel's
device mapper, which opens what lies below for reading only and keeps what is written in the rescue system's memory. On
them a volume group gets another name, so that it meets no other, and a broken one may be put in order.

Each step is written to the journal before it is taken, and undone in reverse.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import typing as t

from ..._errors import TargetError
from .._command import CommandFailed, Runner
from .._journal import Journal
from .._kernel import Kernel, sys_of
from .._loop import loop_over
from ._devices import Device, Devices

_UDEV = "/run/udev/control"  # there where udev runs
_SETTLED = 30  # seconds for udev to be done with what has happened

# All names that we give begin so; see _RULES.
PREFIX = "lifeboat"

# Of a stack of md on crypt on LVM on md…; no known installer makes more than four.
_ROUNDS = 8

# Room in memory for what is written to one overlay; only what is written takes it.
_ROOM = 64 << 20

# Tells udev to leave our overlays alone: it would assemble and activate what it finds on them.
# 09: before all rules that look for file systems. The flags are those of the rules of the device mapper.
_RULES_FILE = "/run/udev/rules.d/09-lifeboat.rules"
_RULES = (
    f'SUBSYSTEM=="block", ATTR{{dm/name}}=="{PREFIX}*", ENV{{DM_UDEV_DISABLE_SUBSYSTEM_RULES_FLAG}}="1", '
    'ENV{DM_UDEV_DISABLE_DISK_RULES_FLAG}="1", ENV{DM_UDEV_DISABLE_OTHER_RULES_FLAG}="1"\n'
    'SUBSYSTEM=="block", KERNEL=="md9[0-9][0-9]*", ENV{DM_UDEV_DISABLE_OTHER_RULES_FLAG}="1"\n')
_FIRST_ARRAY = 900  # of the numbers that the rule speaks of

# A devices file, or a filter, of the rescue system hides what was not there when it was written. Backups of metadata are
# for who changes them.
_LVM = ('devices {{ use_devicesfile=0 global_filter=[ "a|.*|" ] filter=[ {accept}, "r|.*|" ] }} '
        'backup {{ backup=0 archive=0 }} activation {{ monitoring=0 }}')
_REPORT = ("lvm", "fullreport", "--reportformat", "json", "--units", "b", "--nosuffix",
           "--configreport", "vg", "-o", "vg_name,vg_uuid,vg_missing_pv_count",
           "--configreport", "pv", "-o", "pv_name,pv_uuid",
           "--configreport", "lv", "-o", "lv_name,lv_uuid,lv_role,lv_dm_path,lv_layout,origin,lv_active,lv_health_status",
           "--configreport", "pvseg", "-o", "pvseg_start", "--configreport", "seg", "-o", "seg_start")


def needed(devices: Devices) -> bool:
    """Whether there is anything that is to be built, or explained."""
    return any(device.type in ("linux_raid_member", "LVM2_member", "crypto_LUKS") for device in devices.candidates())


class Key(t.NamedTuple):
    """A key for an encrypted container.

    device: its path or UUID, "" for any. One of passphrase, key_file (in the rescue system) and clevis is given.
    """

    device: str = ""
    passphrase: str | None = None
    key_file: str | None = None
    clevis: bool = False

    def fits(self, device: Device) -> bool:
        """Whether it is meant for this container."""
        return self.device in ("", device.path, device.name, device.tag.get("UUID")) or \
            (self.device.startswith("/dev/") and os.path.realpath(self.device) == device.path)

    def __str__(self) -> str:
        return f"key file {self.key_file}" if self.key_file else "clevis" if self.clevis else "passphrase"

    def __repr__(self) -> str:
        """Which it is, without what is secret of it."""
        return f"{self} for {self.device or 'any'}"


class Group(t.NamedTuple):
    """A volume group that is active, or a part of one: its name, the devices with active volumes, and their PV UUIDs.

    rescue: it belongs to the rescue system.
    """

    name: str
    nodes: list[str]
    uuids: set[str]
    rescue: bool


class Layers:
    """Builds what can be built on the disks, and takes it down again.

    journal: where each step is written to, first. tag: a word that tells our names apart from those of another journal.
    keys: for encrypted containers. overlays: build for looking, so that no byte on the disks changes; else build it as
    the installed system would. wanted: names of the layers to build, as Device.layer has them; None for all.
    partial: activate a volume group without the disks that are missing. standing: layers that other journals built.
    """

    def __init__(self, run: Runner, kernel: Kernel, journal: Journal, tag: str, keys: t.Sequence[Key] = (), *,
                 overlays: bool = True, wanted: t.Container[str] | None = None, partial: bool = False,
                 standing: t.Sequence[t.Mapping[str, t.Any]] = ()):
        self.run = run
        self.kernel = kernel
        self.journal = journal
        self.keys = keys
        self.overlays = overlays
        self._tag = tag
        self._wanted = wanted
        self._partial = partial
        # Overlay to what it is over, device to what is known of it, device to why nothing could be built on it.
        self.hidden: dict[str, str] = {}
        self.facts: dict[str, dict[str, t.Any]] = {}
        self.why: dict[str, str] = {}
        for layers in (*standing, journal.layers):
            self.hidden.update(layers.get("hidden", {}))
            self.facts.update(layers.get("facts", {}))
        self._tried: set[str] = set()
        self._loaded: set[str] = set()
        self._active: dict[str, Group] = {}
        self._hushed = False

    def build(self, devices: Devices, discover: t.Callable[[Layers], Devices]) -> Devices:
        """Build all that can be built on these, and return what there is then. discover: looks at all block devices."""
        for _round in range(_ROUNDS):
            built = [step(devices) for step in (self._explain, self._unlock, self._assemble, self._activate)]
            # Also what was begun and came to nothing.
            self.journal.layers = {"hidden": self.hidden, "facts": self.facts}
            if not any(built):
                break
            self.journal.save()
            devices = discover(self)
        for device in devices:
            device.why = device.why or self.why.get(device.path, "")
        return devices

    def will_write(self, devices: t.Iterable[Device]) -> None:
        """Note which of these the first write will take out of a state that they are to have again afterwards."""
        for device in devices:
            if self.kernel.array(device.path).get("array_state") == "read-auto":
                self.journal.announce(do="auto", node=device.path)

    def _new(self, devices: Devices, kind: str) -> list[Device]:
        """Devices of a kind that nothing is built on, and that were not tried yet."""
        return [device for device in devices.candidates() if device.type == kind and not device.below and not device.mounted
                and device.path not in self._tried]

    def _is_wanted(self, layer: str) -> bool:
        return self._wanted is None or layer in self._wanted

    # Overlays -------------------------------------------------------------------------------------------------------

    def _over(self, device: Device) -> str:
        """The path to build on: an overlay over the device, or, where it is not for looking, the device itself."""
        if not self.overlays:
            return device.path
        self._hush()
        name = f"{PREFIX}-{self._tag}{len(self.journal.steps)}"
        cow = os.path.join(self.journal.run_dir, f"{name}.cow")
        self.journal.announce(do="overlay", name=name, cow=cow)
        fd = os.open(cow, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        os.ftruncate(fd, _ROOM)
        os.close(fd)
        self._load("loop", "dm_snapshot")
        with loop_over(cow, read_only=False) as loop:
            self.run(["dmsetup", "create", name, "--table", f"0 {device.size // 512} snapshot {device.path} {loop} N 8"])
        self.hidden[f"/dev/mapper/{name}"] = device.path
        return f"/dev/mapper/{name}"

    def _hush(self) -> None:
        if self._hushed or not os.path.exists(_UDEV):
            return
        self._hushed = True
        if os.path.exists(_RULES_FILE):
            return  # another journal's, which will be here for longer
        self.journal.announce(do="rules")
        os.makedirs(os.path.dirname(_RULES_FILE), exist_ok=True)
        with open(_RULES_FILE, "w", encoding="ascii") as file:
            file.write(_RULES)
        self.run(["udevadm", "control", "--reload"], check=False)

    def _load(self, *modules: str) -> None:
        for module in modules:
            if module not in self._loaded and not os.path.isdir(f"/sys/module/{module}"):
                # Not every rescue system has udev or the kernel load what is asked for.
                self._loaded.add(module)
                self.run(["modprobe", "-q", module], check=False)

    # Encrypted containers -------------------------------------------------------------------------------------------

    def _unlock(self, devices: Devices) -> bool:
        built = False
        for device in self._new(devices, "crypto_LUKS"):
            uuid = device.tag.get("UUID", "")
            layer = _layer("luks", uuid, devices, [device])
            if not self._is_wanted(layer):
                continue
            self._tried.add(device.path)
            keys = [key for key in self.keys if key.fits(device)]
            self.why[device.path] = "It is locked, and no key for it was given."
            if keys:
                self._load("dm_crypt")
                # The header may belong to somebody who means no good.
                name = f"{PREFIX}-{self._tag}{len(self.journal.steps)}-crypt" if self.overlays else \
                    "luks-" + re.sub("[^0-9A-Za-z-]", "_", uuid)
                if _is_mapped(self.run, name):
                    self.why[device.path] = f"It is locked, and something else is called {name}: a copy of it, which is open."
                    continue
                try:
                    over = self._over(device)
                    self.journal.announce(do="crypt", name=name)
                    opened = next((key for key in keys if self._open(key, device, over, name)), None)
                except (CommandFailed, OSError) as exc:
                    self.why[device.path] = f"It is locked, and cannot be opened: {_reason(exc)}"
                    continue
                if opened:
                    del self.why[device.path]
                    self.facts[f"/dev/mapper/{name}"] = {"layer": layer, "key": str(opened), "container": device.path,
                                                         "name": f"/dev/mapper/luks-{uuid}"}
                    built = True
        return built

    def _open(self, key: Key, device: Device, over: str, name: str) -> bool:
        if key.clevis:
            done = self.run(["clevis", "luks", "unlock", "-d", over, "-n", name], check=False)
        else:
            # A passphrase goes in by standard input; one with a line feed at its end is none.
            done = self.run(["cryptsetup", "open", "--type", "luks", "--tries", "1", "--key-file", key.key_file or "-", "--", over, name],
                            stdin=key.passphrase, check=False)
        if done.rc != 0:
            why = _last(done.err).replace(over, device.name).replace(device.path, device.name)
            self.why[device.path] = f"It is locked: none of the keys that were given opens it ({key}: {why})."
        return done.rc == 0

    # Arrays ---------------------------------------------------------------------------------------------------------

    def _assemble(self, devices: Devices) -> bool:
        arrays: dict[str, list[Device]] = {}
        for device in self._new(devices, "linux_raid_member"):
            arrays.setdefault(device.tag.get("UUID", ""), []).append(device)
        built = False
        # Those that wait for members by their numbers: undone in reverse, they get them again, as mdadm counts from 127 down.
        for uuid, members in sorted(arrays.items(), key=lambda each: self._waiting(each[1])):
            if self._is_wanted(_layer("md", uuid, devices, members)):
                self._tried.update(member.path for member in members)
                self._load("md_mod", "raid0", "raid1", "raid10", "raid456")
                built = self._start_array(uuid, members) or built
        return built

    def _start_array(self, uuid: str, members: list[Device]) -> bool:
        halves = self._waiting(members)
        held = set(halves)
        node = f"/dev/{halves[0]}" if halves else self._free_array()
        try:
            if halves:
                # Its members came one by one, and not all of them: the kernel holds those that did.
                self.journal.announce(do="start", node=node, members=[member.path for member in members], written=not self.overlays)
                if not self.overlays:
                    self.run(["mdadm", "--run", node])
                    return True
                if os.path.exists(_UDEV):
                    # It may still be busy with how they came, and would take them again.
                    self.run(["udevadm", "settle", f"--timeout={_SETTLED}"], check=False)
                # Started as it is, even read-only, it would bring its bitmap up to date.
                self.run(["mdadm", "--stop", node])
                held.clear()
                node = self._free_array()
            nodes = [self._over(member) for member in members]
            self.journal.announce(do="array", node=node, members=nodes)
            self.run(["mdadm", "--assemble", "--run", *(["--readonly"] if self.overlays else []), node, *nodes])
        except (CommandFailed, OSError) as exc:
            if self._are_taken(members, held):
                if self.journal.steps[-1]["do"] == "start" and not self.overlays:
                    self.journal.steps.pop()
                self._tried.difference_update(member.path for member in members)
                return True
            for member in members:
                self.why[member.path] = f"Its array cannot be started: {_reason(exc)}"
            return False
        return True

    def _are_taken(self, members: list[Device], held: t.Container[str]) -> bool:
        """Whether somebody has given these to an array, or has started theirs, since they were looked at. held: arrays that had them.

        udev gives them to one when it is late, and rescue systems start one half a minute after it has come.
        """
        known = {path for member in members for path in member.below}
        for holder, state in self._arrays_of(members).items():
            if holder not in held if state == "inactive" else f"/dev/{holder}" not in known:
                return True
        return False

    def _waiting(self, members: list[Device]) -> list[str]:
        """Names of inactive arrays that have these members already."""
        return [holder for holder, state in self._arrays_of(members).items() if state == "inactive"]

    def _arrays_of(self, members: list[Device]) -> dict[str, str]:
        """Name to state of the arrays that have one of these now."""
        holders = {holder for member in members for holder in self.kernel.holders(member.path)}
        states = {holder: self.kernel.array(f"/dev/{holder}").get("array_state", "") for holder in sorted(holders)}
        return {holder: state for holder, state in states.items() if state}

    def _free_array(self) -> str:
        taken = self.kernel.arrays()
        numbers = range(_FIRST_ARRAY, _FIRST_ARRAY + 100) if self.overlays else range(127, -1, -1)
        return next(f"/dev/md{number}" for number in numbers if f"md{number}" not in taken)

    # Volume groups --------------------------------------------------------------------------------------------------

    def _explain(self, devices: Devices) -> bool:
        """Find out what arrays and volumes that are active are. Return whether some had not been known."""
        new = False
        for device in devices:
            if device.path not in self.facts and self.kernel.array(device.path):
                array = self.kernel.array(device.path)
                members = [devices.all[path] for path in device.on]
                uuid = next((each.tag["UUID"] for each in members if each.type == "linux_raid_member" and "UUID" in each.tag), "")
                name = next((each.tag["LABEL"] for each in members if each.tag.get("LABEL")), "")
                self.facts[device.path] = {
                    "layer": _layer("md", uuid, devices, members), "uuid": uuid, "array": name,
                    "name": self._array_name(device, name), "raid_disks": _number(array, "raid_disks"),
                    "degraded": _number(array, "degraded"), "state": array["array_state"], "metadata": array["metadata_version"]}
                new = True
        active = [device.path for device in devices if device.type == "LVM2_member" and device.below
                  and device.path not in self._tried]
        if active:
            self._tried.update(active)
            for group in self._report(active):
                on = [devices.all[volume["pv_name"]] for volume in group["pv"] if volume["pv_name"] in devices.all]
                self._active[group["vg_uuid"]] = Group(group["vg_name"], [device.path for device in on],
                                                       {device.tag.get("UUID", "") for device in on},
                                                       any(device.rescue for device in on))
                self._learn(group, _layer("vg", group["vg_uuid"], devices, on),
                            {volume["lv_uuid"]: volume["lv_dm_path"] for volume in group["lv"]})
                new = True
        for device in devices:
            if device.kind == "crypt" and device.path not in self.facts and device.on:
                container = devices.all[device.on[0]]
                self.facts[device.path] = {"layer": _layer("luks", container.tag.get("UUID", ""), devices, [container]),
                                           "container": container.path, "key": None, "name": device.path}
                new = True
        return new

    def _array_name(self, device: Device, name: str) -> str:
        """What it is called: as it is, or, where we started it, as it would be."""
        ours = self.overlays and re.match(r"/dev/md9[0-9]{2}\Z", device.path)
        short = name.rpartition(":")[2]
        return f"/dev/md/{short or device.path[len('/dev/md'):]}" if ours else device.path

    def _activate(self, devices: Devices) -> bool:
        built = False
        for copy, volumes in enumerate(_copies(self._new(devices, "LVM2_member"))):
            self._load("dm_mod")
            groups = self._report([device.path for device in volumes])
            known = {volume["pv_name"] for group in groups for volume in group["pv"]}
            self.why.update((device.path, "No volume group that LVM can read is on it.") for device in volumes
                            if device.path not in known)
            for group in groups:
                paths = {volume["pv_name"] for volume in group["pv"]}
                mine = [device for device in volumes if device.path in paths]
                layer = _layer("vg", group["vg_uuid"], devices, mine)
                twin = self._active.get(group["vg_uuid"])
                if twin and not twin.uuids.intersection(device.tag.get("UUID", "") for device in mine):
                    continue  # no copy: disks of it that none of its active volumes lies on
                if self._is_wanted(layer):
                    self._tried.update(device.path for device in mine)
                    built = self._activate_group(group, layer, mine, copy > 0 or twin is not None) or built
        return built

    def _report(self, nodes: t.Sequence[str]) -> list[dict[str, t.Any]]:
        """What LVM says of the volume groups on these devices."""
        out = self.run([*_REPORT, "--config", _config(nodes)], check=False).out
        try:
            report = json.loads(out)["report"]
            return [{**part["vg"][0], "pv": part.get("pv", []), "lv": part.get("lv", [])} for part in report
                    if part.get("vg") and part["vg"][0]["vg_name"]]
        except (ValueError, KeyError, TypeError, IndexError):
            return []

    def _activate_group(self, group: dict[str, t.Any], layer: str, on: list[Device], copy: bool) -> bool:
        name = group["vg_name"]
        missing = _number(group, "vg_missing_pv_count")
        try:
            nodes = [self._over(device) for device in on]
            config = ["--config", _config(nodes)]
            if self.overlays:
                name = f"{PREFIX}{self._tag}{len(self.journal.steps)}"
                if missing:
                    # What is left is put in order, in memory, or it could not be renamed.
                    self.run(["lvm", "vgreduce", *config, "--removemissing", "--force", "--yes", group["vg_name"]])
                if copy:
                    self.run(["lvm", "vgimportclone", *config, "--basevgname", name, *nodes])
                else:
                    self.run(["lvm", "vgrename", *config, group["vg_uuid"], name])
            else:
                self._set_aside(name, group["vg_uuid"])
            # A copy that is made on overlays gets a UUID of its own; there the name is one that nobody else has.
            self.journal.announce(do="group", name=name, nodes=nodes, uuid="" if self.overlays else group["vg_uuid"])
            partial = ["--activationmode", "partial"] if missing and self._partial else []
            done = self.run(["lvm", "vgchange", *config, "--activate", "y", "--poll", "n", *partial, name], check=False)
        except (CommandFailed, OSError) as exc:
            for device in on:
                self.why[device.path] = f"Its volume group {group['vg_name']} cannot be activated: {_reason(exc)}"
            return False
        paths = {volume["lv_uuid"]: volume["lv_dm_path"] for now in self._report(nodes) if now["vg_name"] == name
                 for volume in now["lv"] if volume["lv_active"] == "active"}
        self._learn(group, layer, paths)
        if self.overlays:
            self._freeze(name)
        if done.rc != 0:
            for device in on:
                self.why[device.path] = f"Not all of its volume group {group['vg_name']} can be activated: {_last(done.err)}"
        return bool(paths)

    def _set_aside(self, name: str, uuid: str) -> None:
        """Deactivate active groups of this name, or copies of this group: only one can be active.

        Raises CommandFailed where one is in use.
        """
        for other, twin in self._active.items():
            if twin.name == name or other == uuid:
                if twin.rescue:
                    raise CommandFailed(f"The rescue system itself has a volume group {twin.name}.")
                self.journal.announce(do="aside", name=twin.name, nodes=twin.nodes)
                self.run(["lvm", "vgchange", "--config", _config(twin.nodes), "--activate", "n", twin.name])

    def _freeze(self, group: str) -> None:
        """Have volumes whose halves are not the same stay so, or what there is to copy would fill the overlays."""
        for line in self.run(["dmsetup", "ls", "--target", "raid"], check=False).out.splitlines():
            if _is_volume_of(group, line):
                self.run(["dmsetup", "message", line.split()[0], "0", "frozen"], check=False)

    def _learn(self, group: dict[str, t.Any], layer: str, paths: t.Mapping[str, str]) -> None:
        """Note what the volumes of a group are. paths: UUID of a volume to its device."""
        for volume in group["lv"]:
            path = paths.get(volume["lv_uuid"])
            # Pools, and what they are made of, hold no file systems.
            if path and "public" in volume["lv_role"].split(","):
                self.facts[path] = {
                    "layer": layer, "uuid": group["vg_uuid"], "vg": group["vg_name"], "lv": volume["lv_name"],
                    "layout": volume["lv_layout"],
                    "name": f"/dev/mapper/{_mapper(group['vg_name'], volume['lv_name'])}",
                    "snapshot": f"It is a snapshot of {volume['origin']}." if volume["origin"] and "cache" not in
                                volume["lv_layout"] else "",
                    "health": volume["lv_health_status"], "missing": _number(group, "vg_missing_pv_count")}


# Undoing ------------------------------------------------------------------------------------------------------------


def undo(run: Runner, kernel: Kernel, step: t.Mapping[str, t.Any]) -> None:
    """Undo one step of a journal, if it was taken. Raises LifeboatError."""
    kind = step["do"]
    if kind == "rules":
        with contextlib.suppress(FileNotFoundError):  # announced, and not written
            os.unlink(_RULES_FILE)
        run(["udevadm", "control", "--reload"], check=False)
    elif kind == "overlay":
        _remove_mapping(run, kernel, step["name"])
        with contextlib.suppress(FileNotFoundError):  # announced, and not made
            os.unlink(step["cow"])
    elif kind == "crypt":
        _remove_mapping(run, kernel, step["name"])
    elif kind == "group":
        own = _volumes(run, step["name"], step.get("uuid", ""))
        for volume in own:
            _remove_above(run, kernel, f"/dev/mapper/{volume}", own)
        done = run(["lvm", "vgchange", "--config", _config(step["nodes"]), "--activate", "n", step["name"]], check=False)
        # LVM may not find the group any more: a disk is gone, or somebody has given it another name.
        if done.rc != 0 and _volumes(run, step["name"], step.get("uuid", "")):
            raise CommandFailed(f"The volume group {step['name']} cannot be deactivated: {_last(done.err)}")
    elif kind == "aside":
        # It was not in use. Where it cannot be activated any more, its disk is gone, and that must not keep us here.
        run(["lvm", "vgchange", "--config", _config(step["nodes"]), "--activate", "y", step["name"]], check=False)
    elif kind == "setro":
        if os.path.exists(step["device"]):
            run(["blockdev", "--setrw", step["device"]])
    elif kind == "auto":
        with contextlib.suppress(OSError):  # something else that was found stands on it, and keeps it as it is
            _set_array_state(step["node"], "read-auto")
    elif kind == "array":
        # Another array may have got the number, if ours was never assembled.
        if kernel.array(step["node"]) and kernel.lies_on(step["node"], step["members"]):
            _remove_above(run, kernel, step["node"])
            run(["mdadm", "--stop", step["node"]])
    elif kind == "start":
        # Stopped, the number may be another array's by now; and what was not started for good was started by somebody else.
        active = kernel.array(step["node"]).get("array_state", "inactive") != "inactive"
        if active and step["written"] and kernel.lies_on(step["node"], step["members"]):
            _remove_above(run, kernel, step["node"])
            # Its members know now that they are alone, and would not wait any more for the others.
            try:
                _set_array_state(step["node"], "inactive")
            except OSError as exc:
                raise TargetError(f"The array {step['node']} cannot be stopped: {exc.strerror}.") from exc
        if not any(kernel.holders(member) for member in step["members"]):
            # As it was found: its members wait for the others.
            for member in step["members"]:
                run(["mdadm", "--incremental", "--quiet", member], check=False)


def undo_all(run: Runner, kernel: Kernel, journal: Journal) -> None:
    """Undo a journal that has steps of this module only."""
    while journal.steps:
        undo(run, kernel, journal.steps[-1])
        journal.steps.pop()
        journal.save_if_there_is_room()
    journal.end()


# What others lie on: to be undone when what was mounted is free.
STEPS = ("rules", "overlay", "crypt", "aside", "group", "array", "start", "auto")


def _remove_mapping(run: Runner, kernel: Kernel, name: str) -> None:
    _remove_above(run, kernel, f"/dev/mapper/{name}")
    done = run(["dmsetup", "remove", "--retry", name], check=False)
    if done.rc != 0 and _is_mapped(run, name):
        raise CommandFailed(f"The mapping {name} cannot be removed: {_last(done.err)}")


def _is_mapped(run: Runner, name: str) -> bool:
    return run(["dmsetup", "info", "--noheadings", "--columns", "-o", "name", name], check=False).rc == 0


def _volumes(run: Runner, group: str, uuid: str) -> list[str]:
    """Names of the mappings of a volume group. uuid: of the group; "" where no other can have its name."""
    mark = "LVM-" + uuid.replace("-", "")
    lines = run(["dmsetup", "info", "--columns", "--noheadings", "--separator", " ", "-o", "name,uuid"], check=False).out.splitlines()
    return [line.split()[0] for line in lines if _is_volume_of(group, line) and line.split()[-1].startswith(mark)]


def _is_volume_of(group: str, name: str) -> bool:
    """Whether a mapping, or the line of dmsetup that begins with its name, is one of a volume group."""
    return re.match(re.escape(_mapper(group, "")) + "[^-]", name) is not None


def _remove_above(run: Runner, kernel: Kernel, node: str, own: t.Container[str] = ()) -> None:
    """Take down what something else (udev, say) has built on a device that is ours. own: mappings to be left."""
    for holder in kernel.holders(node):
        if kernel.array(f"/dev/{holder}"):
            _remove_above(run, kernel, f"/dev/{holder}")
            run(["mdadm", "--stop", f"/dev/{holder}"])
        elif kernel.mapping(holder) and kernel.mapping(holder) not in own:
            _remove_mapping(run, kernel, kernel.mapping(holder))


def _set_array_state(node: str, state: str) -> None:
    """See Documentation/admin-guide/md.rst of the kernel: `inactive` keeps the members."""
    with open(f"{sys_of(node)}/md/array_state", "w", encoding="ascii") as file:
        file.write(state)


# Words --------------------------------------------------------------------------------------------------------------


def _copies(volumes: list[Device]) -> list[list[Device]]:
    """Physical volumes, those of copied disks apart: LVM refuses to see the same one twice."""
    sets: list[dict[str, Device]] = []
    for device in volumes:
        uuid = device.tag.get("UUID", device.path)
        place = next((each for each in sets if uuid not in each), None)
        if place is None:
            place = {}
            sets.append(place)
        place[uuid] = device
    return [list(each.values()) for each in sets]


def _config(nodes: t.Sequence[str]) -> str:
    """LVM's settings for commands that are to see these devices only."""
    return _LVM.format(accept=", ".join('"a|^' + re.sub(r"([^\w/-])", r"[\1]", node) + '$|"' for node in nodes))


def _layer(kind: str, uuid: str, devices: Devices, on: t.Sequence[Device]) -> str:
    """A name for what is built on these devices. It tells copies apart, which have the UUID in common, by their disks."""
    disks = sorted({disk.path for device in on for disk in devices.disks_of(device)})
    return f"{kind}:{uuid}:{'+'.join(disks)}"


def _mapper(group: str, volume: str) -> str:
    """The name of a volume for the device mapper."""
    return f"{group.replace('-', '--')}-{volume.replace('-', '--')}"


def _number(values: t.Mapping[str, t.Any], key: str) -> int:
    try:
        return int(values.get(key) or 0)
    except ValueError:
        return 0


def _reason(exc: Exception) -> str:
    return _last(exc.strerror or "" if isinstance(exc, OSError) else str(exc))


def _last(text: str) -> str:
    """The last words of a program, on one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and "Bypassing udev" not in line]
    return lines[-1][:300] if lines else "it did not say why."
