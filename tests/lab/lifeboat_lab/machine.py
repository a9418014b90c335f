# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Machines that really boot: QEMU, from their own disk by GRUB, or into the rescue system.

    images = ensure()
    with Machine("web1", [images.disk("gpt")], workdir=Path("/tmp/lab/web1")) as machine:
        machine.next_boot = lambda: Rescue(authorized_keys=(key,))     # what whoever starts it next shall boot
        machine.power_on()
        …ssh root@{machine.address} -p {machine.port}…
        machine.next_boot = Installed
        machine.reset()                                                # hard; the guest's own `reboot` does the same

power_on, power_off, reset and soft_off only press buttons: they return at once, and what they cause is in `boots`
(one Boot for each start of the machine), `running` and, for whoever wants to wait, in wait_for_boot(number) and
wait_for_off(). Any thread may press. What went wrong behind a button is in `errors`, and is raised by both waits.

A machine made with resumes=True does not boot its rescue system: it resumes a copy of one that has booted, in a tenth of the
time (see snapshots). And power_on(Running("gpt")) resumes an installed system that has been running for a while. Where that
cannot be done (hardware virtualisation, disks that are not virtio-blk), they boot. `Boot.resumed` says which it was.
With machine.direct = "gpt" an installed system with that layout boots a kernel and a small initramfs that QEMU hands over: faster,
for tests whose claim is neither its boot loader nor its own initramfs.

Before each boot the disks are copied (`Boot.disks`), so that a test can compare what a session left.
What the guest writes to its console is in `Boot.console`, a file.

A server's disks are qcow2 overlays: the images given are never written. Everything else is in workdir.

A machine made with hotplug=True takes further disks while it runs, and gives them back:

    machine.plug("usb", overlay(image, workdir / "usb.qcow2"), serial="stick1")
    machine.unplug("usb")
    written(workdir / "usb.qcow2")               # where a byte was written, or nothing

The ways in which real servers disappoint are in `machine.faults`.

When a machine is on but its sshd is not up, a connection to its port is taken and then reset, or hangs: that is how
QEMU's user network shows a port that nobody listens on, or that a firewall drops.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import shlex
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import cpio, qemu, snapshots
from .images import File, Images, LabError, ensure, prepare
from .qmp import Qmp
from .recipe import PARAMETERS, PATH
from .server import Boot, Faults, Installed, Rescue, Server
from .snapshots import Agent
from .waiting import until

KEPT_DISKS = 6  # copies of the disks, of so many boots
PORTS = 4  # for hot-plugged disks that need a slot of their own
UNSAFE = {"direct": False, "no-flush": True}  # as cache=unsafe
DEVICES = {"virtio-blk": "virtio-blk-pci", "virtio-scsi": "scsi-hd", "nvme": "nvme"}


@dataclass(frozen=True)
class Running:
    """The installed system as it is some time after its boot: for the first start of a machine, where the boot is not the claim.

    layout: the disk of the lab that the machine's one disk is a copy of. files: what prepare() has put into it, which must
    be such as matters to a running system, and not to one that boots. What else was changed on the disk is lost.
    """

    layout: str
    files: Mapping[str, File]


class Machine(Server):
    """A server. See the module."""

    def __init__(self, name: str, disks: Sequence[Path], workdir: Path, *, address: str | None = None,
                 port: int | None = None, next_boot: Callable[[], Installed | Rescue] = Installed,
                 bus: str = "virtio-blk", rescue_first: bool = False, scratch: Path | None = None, memory: int = 512,
                 images: Images | None = None, hotplug: bool = False, resumes: bool = False):
        """Make the machine; it is off.

        disks: images with the content of its disks, raw or qcow2 (told by the suffix .qcow2).
        address, port: where its port 22 is to be found; by default a 127.0.0.x of its own, and 22 where that is
        allowed, else a high port.
        bus: virtio-blk (vda), virtio-scsi (sda) or nvme (nvme0n1). memory: MiB.
        rescue_first: the disk of the rescue system comes before the server's own.
        scratch: one more disk, with the serial `scratch`: a raw file that the guest writes to directly.
        hotplug: plug() and unplug() work.
        resumes: see the property. Raises LabError.
        """
        if bus not in DEVICES:
            raise ValueError(bus)
        self._images = images or ensure()
        self._bus = bus
        self._rescue_first = rescue_first
        self._scratch = scratch
        self._memory = memory
        self._hotplug = hotplug
        self._plugged: dict[str, list[str]] = {}  # name of what is plugged in to its devices
        self._ports: dict[str, int] = {}  # of these, those that have a slot of their own
        self._deleted: set[str] = set()
        self._nodes: dict[str, list[str]] = {}  # name of what is plugged in to QEMU's block nodes, in the order to delete them
        self._layers: dict[str, tuple[str, Path]] = {}  # name to the node and the file that are written to
        self._qemu: subprocess.Popen[bytes] | None = None
        self._qmp: Qmp | None = None
        self._agent: Agent | None = None
        workdir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.disks = tuple(overlay(disk, workdir / f"disk{number}.qcow2") for number, disk in enumerate(disks))
        # The layout (gpt or mbr) of a virtio-blk disk: its installed system boots without its boot loader. May be set at any time.
        self.direct: str | None = None
        self._rescue_snapshot: Path | None = None
        self.resumes = resumes
        super().__init__(name, workdir, address=address, port=port, next_boot=next_boot, faults=Faults())

    @property
    def resumes(self) -> bool:
        """Whether it need not boot its rescue system, but resumes a snapshot of one; may be set at any time. Raises LabError."""
        return self._rescue_snapshot is not None

    @resumes.setter
    def resumes(self, wanted: bool) -> None:
        self._rescue_snapshot = self._make_rescue_snapshot() if wanted and self.can_resume else None

    @property
    def running(self) -> bool:
        """Whether the machine is on."""
        qemu = self._qemu
        return qemu is not None and qemu.poll() is None

    @property
    def pid(self) -> int | None:
        """The process that is the machine, None when it is off."""
        qemu = self._qemu
        return qemu.pid if qemu is not None and qemu.poll() is None else None

    def power_on(self, boot: Installed | Rescue | Running | None = None) -> None:
        """Switch the machine on, into boot or else into what next_boot says. Nothing happens when it is on."""
        if isinstance(boot, Running) and self.can_resume:
            running_snapshot(self._images, boot.layout, self._memory)  # takes a minute, when it is not there yet
        self._order(lambda: None if self.running else self._start(boot))

    def soft_off(self) -> None:
        """Press the power button: the guest shuts itself down, if it can."""
        qmp = self._qmp
        if qmp is not None:
            qmp.send("system_powerdown")

    def plug(self, name: str, disk: Path, *, bus: str = "virtio-scsi", serial: str = "", wwn: int | None = None,
             bad_sectors: Sequence[int] = (), paths: int = 1) -> None:
        """Give the running machine one more disk; name is for unplug. Raises LabError.

        disk: raw, or qcow2 (told by the suffix .qcow2); it is written to, see overlay(). bus: as that of the machine.
        wwn: its world wide name (virtio-scsi only). bad_sectors: every read that touches one of them (of 512 bytes)
        fails. paths: the guest sees the disk so many times, as with multipath.
        The guest may need a moment to see it. The disk is gone with the next boot.
        """
        qmp = self._monitor()
        node: dict[str, Any] = _node(disk)
        self._nodes[name] = [name]
        self._layers[name] = (name, disk)
        if bad_sectors:
            node = {"driver": "blkdebug", "image": {**node, "node-name": f"{name}-layer"}, "inject-error": [
                {"event": "none", "iotype": "read", "errno": errno.EIO, "sector": sector} for sector in bad_sectors]}
            self._layers[name] = (f"{name}-layer", disk)
        qmp.execute("blockdev-add", **node, node_name=name, cache=UNSAFE)
        self._plugged[name] = devices = []
        for number in range(paths):
            device = f"{name}-{number}"
            options: dict[str, Any] = {"serial": serial} if serial else {}
            if bus == "virtio-scsi":
                options |= {"driver": "scsi-hd", "bus": "plug.0"} | ({"wwn": wwn} if wwn else {})
            else:
                self._ports[device] = min(set(range(PORTS)) - set(self._ports.values()))
                options |= {"driver": DEVICES[bus], "bus": f"port{self._ports[device]}"}
            qmp.execute("device_add", **options, id=device, drive=name, share_rw=paths > 1)
            devices.append(device)

    def set_aside(self, name: str, layer: Path) -> Path:
        """Let what the guest writes to a disk that is plugged in go to a new layer from now on; return the file until now.

        What QEMU was given by then is in that file, which written() can look at. Raises LabError.
        """
        qmp = self._monitor()
        node, until_now = self._layers[name]
        overlay(until_now, layer)
        new = f"{name}-{layer.stem}"
        qmp.execute("blockdev-add", **_node(layer), node_name=new, cache=UNSAFE, backing=None)
        qmp.execute("blockdev-snapshot", node=node, overlay=new)
        # what the devices have is deleted first
        self._nodes[name].insert(0 if node == self._nodes[name][0] else 1, new)
        self._layers[name] = (new, layer)
        return until_now

    def unplug(self, name: str, timeout: float = 60) -> None:
        """Take away what plug() gave, as if it were pulled out: what the guest still has open of it breaks.

        Everything that the guest has written is in the image afterwards. Raises LabError.
        """
        qmp = self._monitor()
        for device in self._plugged.pop(name):
            qmp.execute("device_del", id=device)
            self._wait(functools.partial(self._deleted.__contains__, device), timeout, f"has not let go of {device}")
            self._deleted.discard(device)
            self._ports.pop(device, None)
        refused = ""

        def deleted(node: str) -> bool:
            nonlocal refused
            try:
                qmp.execute("blockdev-del", node_name=node)
            except LabError as exc:
                refused = str(exc)
                return False
            return True

        # The device has been taken away; the last of it ends in a thread of QEMU's own.
        for node in self._nodes.pop(name):
            until(functools.partial(deleted, node), timeout, lambda: refused, every=0.02)
        del self._layers[name]

    def _monitor(self) -> Qmp:
        qmp = self._qmp
        if qmp is None or not self._hotplug:
            raise LabError(f"{self.name} is off, or was not made with hotplug.")
        return qmp

    def wait_for_off(self, timeout: float) -> None:
        """Wait until the machine is off, and its end is recorded. Raises LabError after timeout seconds."""
        self._wait(lambda: self._qemu is None, timeout, "is not off")

    # -------------------------------------------------------------------------------------- in the machine's own thread

    def _start(self, boot: Installed | Rescue | Running | None) -> None:
        if not isinstance(boot, Running):
            boot = self._take_boot(boot)
        number = len(self.boots) + 1
        console = self._workdir / f"console-{number}.log"
        started_at = time.time()
        rescue, snapshot = isinstance(boot, Rescue), None
        identity: dict[str, Any] = {"files": [], "password": None, "job": None}
        host_keys: tuple[str, ...] = ()
        if isinstance(boot, Rescue):
            initrd = self._workdir / "initrd"
            host_keys, files, password = personal_files(boot, self.faults.ssh_delay)
            snapshot = self._rescue_snapshot
            if snapshot:
                identity = {"files": [[path, mode, data] for path, (data, mode) in files.items() if path != JOB_PATH],
                            "password": password, "job": boot.job}
            else:
                write_initrd(self._images, files, password, initrd)
        elif isinstance(boot, Running) and (self.boots or len(self.disks) != 1):
            raise LabError(f"{self.name} has more than one disk, or has been running: it cannot be said to run already.")
        elif isinstance(boot, Running) and self.can_resume:
            snapshot = running_snapshot(self._images, boot.layout, self._memory)
            overlay(snapshot / "disk.qcow2", self.disks[0])
            identity = {"files": [[path, file.mode, file.data.decode(errors="surrogateescape")] for path, file in boot.files.items()],
                        "boot_id": str(uuid.uuid4())}
        disks = self._copy_disks(number)
        record = Boot(number, "rescue" if rescue else "installed", started_at, disks, console, host_keys, bool(snapshot))
        qemu = self._launch(record, self._images.initramfs if snapshot else self._workdir / "initrd", snapshot)
        self._began(record)
        if snapshot:
            self._resume(qemu, record, identity)

    def _launch(self, record: Boot, initrd: Path, snapshot: Path | None = None) -> Qmp:
        """Start QEMU for a boot, and what watches it. snapshot: from where it goes on."""
        with contextlib.ExitStack() as stack:
            ours, theirs, agent_ours, agent_theirs = (
                stack.enter_context(end) for _pair in range(2) for end in socket.socketpair())
            argv = [*self._command(record.console, initrd if record.kind == "rescue" else None),
                    "-chardev", f"socket,id=qmp,fd={theirs.fileno()}", "-mon", "chardev=qmp,mode=control"]
            if self._has_agent(snapshot):
                self._agent = Agent(agent_ours.dup())
                argv += ["-netdev", "user,id=net", "-chardev", f"socket,id=lab,fd={agent_theirs.fileno()}"]
            else:
                argv += ["-netdev", f"user,id=net,hostfwd={self._forward()}"]
            argv += self._devices(record.kind == "rescue", agent=self._has_agent(snapshot))
            if snapshot:
                argv += ["-incoming", f"exec:exec cat {shlex.quote(str(snapshot / 'memory'))}"]
            with open(self._workdir / f"qemu-{record.number}.log", "wb") as log:
                # its own session: Ctrl-C is for us, who end it in order
                self._qemu = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *argv], stdin=subprocess.DEVNULL,
                                              stdout=log, stderr=log, pass_fds=[theirs.fileno(), agent_theirs.fileno()],
                                              start_new_session=True, env={**os.environ, "PATH": PATH})
            self._qmp = Qmp(ours.dup())
        threading.Thread(target=self._watch, args=(self._qemu, self._qmp), daemon=True,
                         name=f"machine {self.name} boot {record.number}").start()
        return self._qmp

    def _has_agent(self, snapshot: Path | None) -> bool:
        return snapshot is not None

    def _forward(self) -> str:
        return f"tcp:{self.address}:{self.port}-:22"

    def _resume(self, qmp: Qmp, record: Boot, identity: dict[str, Any]) -> None:
        """Let a machine go on whose state QEMU has just been given, as the server that it is to be."""
        agent = self._agent
        assert agent is not None
        until(lambda: qmp.execute("query-status")["status"] != "inmigrate", 120, f"{self.name} cannot be resumed.", every=0.02)
        qmp.execute("cont")
        now = time.time()
        agent.tell({**identity, "time": now, "age": now - record.started_at, "noise": os.urandom(64).hex()}, 120)
        # Not before: who connects while the machine does not run yet is forgotten by it, and waits in vain.
        said = qmp.execute("human-monitor-command", command_line=f"hostfwd_add net {self._forward()}")
        if said.strip():
            raise LabError(f"{self.name}: {said.strip()}")
        agent.close()
        self._agent = None

    def _stop(self) -> None:
        qemu, qmp = self._qemu, self._qmp
        if qemu is None or qmp is None:
            return
        qmp.send("quit")  # and not a signal: the overlays' own books must be right
        try:
            qemu.wait(timeout=10)
        except subprocess.TimeoutExpired:
            qemu.kill()
            qemu.wait()
        self._gone()

    def _gone(self) -> None:
        if self._qmp:
            self._qmp.close()
        if self._agent:
            self._agent.close()
            self._agent = None
        with self._changed:
            self._qemu = self._qmp = None
            self._plugged, self._ports, self._deleted, self._nodes, self._layers = {}, {}, set(), {}, {}
            self._changed.notify_all()

    def _watch(self, qemu: subprocess.Popen[bytes], qmp: Qmp) -> None:
        """See how a run of the machine ends, in a thread of its own. After a reboot of the guest's own, start again."""
        reason = None
        for name, data in qmp.events():
            if name == "SHUTDOWN":
                reason = data.get("reason")
            elif name == "DEVICE_DELETED" and "device" in data:
                with self._changed:
                    self._deleted.add(data["device"])
                    self._changed.notify_all()
        qemu.wait()

        def ended() -> None:
            if self._qemu is not qemu:  # a button was pressed meanwhile
                return
            self._gone()
            if reason == "guest-reset":
                self._start(None)
            elif reason is None:
                raise LabError(f"QEMU of {self.name} ended by itself, see {self._workdir}/qemu-{len(self.boots)}.log")

        self._order(ended)

    def _command(self, console: Path, initrd: Path | None) -> list[str]:
        argv = [*qemu.system(), *_acceleration(self._images), "-name", self.name, "-M", "q35",
                "-smp", "1", "-m", str(self._memory), "-nodefaults", "-no-user-config", "-display", "none",
                "-no-reboot", "-chardev", f"file,id=console,path={_quoted(console)}"]
        drives = [f"file={_quoted(disk)},format=qcow2,cache=unsafe,discard=unmap" for disk in self.disks]
        if initrd:
            drives.insert(self._rescue_place(), f"file={_quoted(self._images.rescue)},format=raw,readonly=on")
            argv += ["-kernel", str(self._images.kernel), "-initrd", str(initrd), "-append",
                     "console=ttyS0 reboot=t panic=-1 net.ifnames=0 mitigations=off cryptomgr.notests quiet"]
        elif self.direct:
            argv += ["-kernel", str(self._images.direct_kernel), "-initrd", str(self._images.direct_initramfs), "-append",
                     f"root=UUID={self._images.root_uuid(self.direct)} {PARAMETERS}"]
        if self._scratch:
            drives.append(f"file={_quoted(self._scratch)},format=raw,cache=unsafe")
        for number, drive in enumerate(drives):
            argv += ["-drive", f"if=none,id=disk{number},{drive}"]
        return argv

    def _rescue_place(self) -> int:
        return 0 if self._rescue_first else len(self.disks)

    def _devices(self, rescue: bool, agent: bool) -> list[str]:
        serials = [f"target{number}" for number in range(len(self.disks))]
        if rescue:
            serials.insert(self._rescue_place(), "rescue")
        if self._scratch:
            serials.append("scratch")
        return _device_options(serials, self._bus, self._hotplug, agent)

    @property
    def can_resume(self) -> bool:
        """Whether such a machine can be resumed from a snapshot at all, on this host."""
        return self._bus == "virtio-blk" and _acceleration(self._images)[1] != "kvm"

    def _make_rescue_snapshot(self) -> Path:
        """Return the snapshot of a rescue system in a machine like this one. Raises LabError."""
        def make(place: Path) -> None:
            blank, scratch = place / "blank.img", place / "scratch.img"  # a file that is written to is nobody else's
            for path in (blank, scratch):
                with path.open("wb") as file:
                    file.truncate(64 << 20)
            with _Template("template", [blank] * len(self.disks), place / "machine", rescue_first=self._rescue_first,
                           scratch=scratch if self._scratch else None, memory=self._memory, images=self._images,
                           hotplug=self._hotplug) as machine:
                machine.save_rescue(place / "memory")
            shutil.rmtree(place / "machine")
            blank.unlink()
            scratch.unlink()

        shape = [str(self._memory), *_acceleration(self._images), *self._devices(rescue=True, agent=True)]
        return snapshots.ensure("rescue", [qemu.version(), self._images.directory.name, *shape], make)

    def _copy_disks(self, number: int) -> tuple[Path, ...]:
        directory = self._workdir / f"before-boot-{number}"
        directory.mkdir()
        for disk in self.disks:
            subprocess.run(["cp", "--sparse=always", "--reflink=auto", "--", str(disk), str(directory)], check=True)
        shutil.rmtree(self._workdir / f"before-boot-{number - KEPT_DISKS}", ignore_errors=True)
        return tuple(directory / disk.name for disk in self.disks)


class _Template(Machine):
    """A machine whose state is kept."""

    def _has_agent(self, snapshot: Path | None) -> bool:
        return True

    def save_rescue(self, path: Path) -> None:
        """Boot the rescue system, and write its state to a file. Raises LabError."""
        initrd = self._workdir / "template"
        snapshots.rescue_initrd(self._images.initramfs, initrd)
        record = Boot(1, "rescue", time.time(), (), self._workdir / "console-1.log")
        self._started(record, initrd)
        self._save(path, record)

    def _started(self, record: Boot, initrd: Path) -> tuple[Agent, Qmp]:
        self._order(lambda: self._launch(record, initrd))
        until(lambda: (self._agent and self._qmp) or self.errors, 60, "QEMU does not start.")
        if self._agent is None or self._qmp is None:
            raise LabError(f"No snapshot can be made: {self.errors}")
        return self._agent, self._qmp

    def save_running(self, path: Path, key: Path) -> None:
        """Boot the installed system, which lets that key in, and write its state to a file. Raises LabError."""
        record = Boot(1, "installed", time.time(), (), self._workdir / "console-1.log")
        _agent, qmp = self._started(record, self._workdir)
        qmp.execute("human-monitor-command", command_line=f"hostfwd_add net {self._forward()}")

        known_hosts = self._workdir / "known_hosts"
        known_hosts.write_text("".join(f"* {line}\n" for line in self._images.host_keys))

        def agent_started() -> bool:
            return subprocess.run(
                ["ssh", "-F", "none", "-i", str(key), "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o",
                 f"UserKnownHostsFile={known_hosts}", "-o", "ConnectTimeout=60", "-p", str(self.port), f"root@{self.address}",
                 snapshots.START_RUNNING_AGENT], input=snapshots.RUNNING_AGENT, text=True, capture_output=True, timeout=300,
                check=False).returncode == 0

        until(agent_started, 600, lambda: f"It lets nobody in:\n{record.console.read_text(errors='replace')[-2000:]}", every=0.5)
        self._save(path, record)

    def _save(self, path: Path, record: Boot) -> None:
        """Write the state to a file when the agent is there."""
        agent, qmp = self._agent, self._qmp
        assert agent is not None and qmp is not None
        try:
            agent.wait_for("ready", 300)
        except LabError as error:
            said = record.console.with_name("qemu-1.log").read_text() + record.console.read_text(errors="replace")
            raise LabError(f"{error}\n{said[-2000:]}") from None
        qmp.execute("stop")
        qmp.execute("migrate-set-parameters", max_bandwidth=10**12)
        qmp.execute("migrate", uri=f"exec:cat > {shlex.quote(str(path))}")
        until(lambda: qmp.execute("query-migrate").get("status") in ("completed", "failed"), 120,
              "The state cannot be written.", every=0.05)
        if qmp.execute("query-migrate")["status"] != "completed":
            raise LabError(f"The state cannot be written: {qmp.execute('query-migrate')}")


def running_snapshot(images: Images, layout: str, memory: int) -> Path:
    """Return the snapshot of the installed system of a layout, made first where there is none. Raises LabError."""
    def make(place: Path) -> None:
        key = place / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        disk = prepare(images.disk(layout), place / "prepared.img",
                       {"/root/.ssh/authorized_keys": File(key.with_suffix(".pub").read_bytes(), 0o600)})
        with _Template("template", [disk], place / "machine", memory=memory, images=images) as machine:
            machine.save_running(place / "memory", key)
        # The layer has all that differs from the image that all have.
        _qemu_img("rebase", "-q", "-F", "raw", "-b", str(images.disk(layout).absolute()), str(machine.disks[0]))
        machine.disks[0].rename(place / "disk.qcow2")
        (place / "disk.qcow2").chmod(0o444)
        shutil.rmtree(place / "machine")
        for path in (key, key.with_suffix(".pub"), disk):
            path.unlink()

    shape = [str(memory), *_acceleration(images), *_device_options(["target0"], "virtio-blk", hotplug=False, agent=True)]
    return snapshots.ensure(f"running-{layout}", [qemu.version(), images.directory.name, *shape], make)


def _device_options(serials: Sequence[str], bus: str, hotplug: bool, agent: bool) -> list[str]:
    """Return the options of QEMU for the devices; a snapshot is for a machine that has the same ones."""
    argv = ["-serial", "chardev:console", "-device", "virtio-net-pci,netdev=net,romfile=", "-device", "virtio-rng-pci"]
    if bus == "virtio-scsi":
        argv += ["-device", "virtio-scsi-pci"]
    if hotplug:
        argv += ["-device", "virtio-scsi-pci,id=plug"]
        for port in range(PORTS):
            argv += ["-device", f"pcie-root-port,id=port{port},chassis={port + 1},slot={port + 1}"]
    for number, serial in enumerate(serials):
        argv += ["-device", f"{DEVICES[bus]},drive=disk{number},serial={serial}"]
    if agent:
        argv += ["-device", "virtio-serial-pci,id=agent", "-device", "virtserialport,bus=agent.0,chardev=lab,name=lab",
                 "-device", "vmgenid,guid=auto"]
    return argv


def overlay(disk: Path, layer: Path) -> Path:
    """Make a layer (a file, qcow2) that takes what is written over disk; return it."""
    _qemu_img("create", "-q", "-f", "qcow2", "-F", "qcow2" if disk.suffix == ".qcow2" else "raw",
              "-b", str(disk.absolute()), str(layer))
    return layer


def written(layer: Path) -> list[tuple[int, int]]:
    """Return what has ever been written to a layer, whatever it was: (start, length) in bytes. No machine may have it."""
    found = json.loads(_qemu_img("map", "--output=json", str(layer)))
    return [(extent["start"], extent["length"]) for extent in found if extent["depth"] == 0 and extent["present"]]


def make_host_keys() -> dict[str, str]:
    """Return new private host keys of SSH by kind."""
    keys = {}
    with tempfile.TemporaryDirectory() as scratch:
        for kind in ("ed25519", "ecdsa"):
            path = Path(scratch) / kind
            subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "", "-f", str(path)], check=True)
            keys[kind] = path.read_text()
    return keys


JOB_PATH = "/lab-job"


def personal_files(boot: Rescue, ssh_delay: float) -> tuple[tuple[str, ...], dict[str, tuple[str, int]], str | None]:
    """Return what makes one boot of the rescue system: public host keys, path to (text, mode), and the hash of the password."""
    keys = boot.host_keys or make_host_keys()
    files = {f"/etc/ssh/ssh_host_{kind}_key": (key, 0o600) for kind, key in keys.items()}
    hashed = None
    if boot.authorized_keys:
        files["/root/.ssh/authorized_keys"] = ("".join(f"{line.strip()}\n" for line in boot.authorized_keys), 0o600)
    if boot.password is not None:
        hashed = subprocess.run(["openssl", "passwd", "-6", "-stdin"], input=boot.password + "\n", text=True,
                                stdout=subprocess.PIPE, check=True).stdout.strip()
    delay = boot.ssh_delay + ssh_delay
    if delay:
        files["/etc/lab-ssh-delay"] = (f"{delay:g}\n", 0o644)
    if boot.job:
        files[JOB_PATH] = (boot.job, 0o755)
    public = []
    for key in keys.values():
        with tempfile.NamedTemporaryFile("w") as file:  # 0600, as ssh-keygen wants it
            file.write(key)
            file.flush()
            done = subprocess.run(["ssh-keygen", "-y", "-f", file.name], stdout=subprocess.PIPE, text=True, check=True)
        public.append(" ".join(done.stdout.split()[:2]))
    return tuple(public), files, hashed


def write_initrd(images: Images, files: Mapping[str, tuple[str, int]], password: str | None, initrd: Path) -> None:
    """Write the initrd of one boot of the rescue system: what all have, its own files, and the hash of root's password.

    What is secret is in this file, and never an argument of a process.
    """
    entries = [cpio.directory(f"lab{path}", mode) for path, mode in (
        ("", 0o755), ("/root", 0o755), ("/root/etc", 0o755), ("/root/etc/ssh", 0o755), ("/root/root", 0o700),
        ("/root/root/.ssh", 0o700)) if path != "/root/root/.ssh" or "/root/.ssh/authorized_keys" in files]
    entries += [cpio.file(f"lab/root{path}", data.encode(), mode) for path, (data, mode) in files.items()]
    if password is not None:
        entries.append(cpio.file("lab/password", f"{password}\n".encode(), 0o600))
    with open(os.open(initrd, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(images.initramfs.read_bytes())
        file.write(cpio.archive(entries))


def _node(disk: Path) -> dict[str, Any]:
    """Return the options of QEMU's block node for an image."""
    below = {"driver": "file", "filename": str(disk.absolute()), "discard": "unmap"}
    return {"driver": "qcow2" if disk.suffix == ".qcow2" else "raw", "file": below, "discard": "unmap"}


def _quoted(path: Path) -> str:
    """Return path as it stands in a list of options of QEMU."""
    return str(path).replace(",", ",,")


def _qemu_img(*arguments: str) -> str:
    done = subprocess.run([qemu.image_tool(), *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          check=False)
    if done.returncode:
        raise LabError(f"qemu-img {arguments[0]} failed: {done.stdout.strip()}")
    return done.stdout


@functools.cache
def _acceleration(images: Images) -> tuple[str, ...]:
    """Return the options of QEMU for the processor: hardware virtualisation where a Debian kernel runs under it."""
    # tb-size (MiB): with 128, QEMU throws its translated code away several times in one installed boot
    # no svm: or the guest spends seconds on loading kvm
    emulated = ("-accel", "tcg,thread=multi,tb-size=256", "-cpu", "qemu64,-svm")
    hardware = ("-accel", "kvm", "-cpu", "host")
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return emulated
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    known = images.directory.parent / f"kvm-{boot_id}"
    if not known.exists():
        # There are hosts where /dev/kvm opens, and a guest hangs. This one panics, which ends it.
        probe = subprocess.Popen([*qemu.system(), *hardware, "-M", "q35", "-m", "256", "-nodefaults",
                                  "-no-user-config", "-display", "none", "-no-reboot", "-kernel", str(images.kernel),
                                  "-append", "rdinit=/nonexist panic=-1 quiet"],
                                 stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            works = probe.wait(timeout=6) == 0
        except subprocess.TimeoutExpired:
            works = False
        finally:
            with contextlib.suppress(ProcessLookupError):
                probe.kill()
            probe.wait()
        known.write_text("works\n" if works else "does not work\n")
    return hardware if known.read_text() == "works\n" else emulated
