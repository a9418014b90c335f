# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Boxes: servers as namespaces of the Linux that runs the tests, with a real sshd. They start in under a second.

    with Box("web1", Path("/tmp/lab/web1")) as box:                     # or Box(…, systems=Systems(installed="trixie"))
        box.next_boot = lambda: Rescue(authorized_keys=(key,))
        box.power_on()
        …ssh root@{box.address} -p {box.port}…

The interface is that of `machine.Machine`. A box has its own processes, mounts, network, name, boot id and uptime; the kernel is
that of the machine that runs the tests. The root file system is an overlay over a tree of `trees`: what the installed system
writes is kept from boot to boot, as if all of it had been synced; what the rescue system writes is gone with it. /proc/mounts says
of / what it says on a machine (`rescue / overlay`, `/dev/vda3 / ext4`). It has no disk, no systemd (process 1 keeps an sshd
running, and shuts down when reboot, shutdown or systemctl ask for it), and its packet filter is not in the way of its own sshd.

A reset ends all processes at once, and resets the connections. While a box is off, its port refuses; while it is on and its sshd
is not up, a connection is taken and then reset, or hangs: as with a machine.

It works as root and as an ordinary user who has sub-ids. Nothing outlives the process that made the box, however that ends:
all mounts are in namespaces, what is written is in memory; only the consoles' logs are in workdir.
"""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from . import boxed
from .images import File, Images, LabError
from .machine import personal_files
from .recipe import PATH
from .server import Boot, Faults, Installed, Rescue, Server
from .trees import ensure_tree, namespace_prefix

RESCUE_HOSTNAME = "rescue-customer-eu"  # whichever system it is; as `recipe` has it
START_SECONDS = 30.0  # for what takes a fraction of one


class Systems(NamedTuple):
    """Which systems a box has, as names of trees."""

    installed: str = "bookworm"
    rescue: str = "rescue"


@dataclass
class BoxFaults(Faults):
    """As those of a machine, and two of a box.

    boot_time: so many seconds pass after power-on before the kernel starts; nobody answers then.
    silent: when the power is cut, connections stay open and say nothing more, as those of a real server; else they are reset.
    """

    boot_time: float = 0
    silent: bool = False


class Box(Server):
    """A server. See the module."""

    faults: BoxFaults
    disks: tuple[Path, ...] = ()

    def __init__(self, name: str, workdir: Path, *, address: str | None = None, port: int | None = None,
                 next_boot: Callable[[], Installed | Rescue] = Installed, systems: Systems | None = None,
                 files: Mapping[str, File] | None = None, images: Images | None = None):
        """Make the box; it is off.

        files: put into the installed system before its first boot, as by images.prepare().
        """
        self.trees = {kind: ensure_tree(tree, images) for kind, tree in (systems or Systems())._asdict().items()}
        self._files: dict[str, File] = dict(files or {})
        self._holder: subprocess.Popen[bytes] | None = None
        self._number = 0  # of the boot that runs, 0: it is off
        self._pid: int | None = None
        self._is_cut = False  # a button was pressed, so a reboot of the guest's own in the same moment counts for nothing
        self._file: list[str | None] = []
        super().__init__(name, workdir, address=address, port=port, next_boot=next_boot, faults=BoxFaults())

    @property
    def running(self) -> bool:
        """Whether the box is on."""
        return self._number != 0

    @property
    def pid(self) -> int | None:
        """Process 1 of the box as it is seen outside; None when it is off, or before its kernel has started."""
        return self._pid

    @property
    def host_keys(self) -> tuple[str, ...]:
        """Public SSH host keys of the installed system (lines "type key comment")."""
        return self.trees["installed"].host_keys

    def soft_off(self) -> None:
        """Press the power button: the system shuts itself down."""
        self._order(lambda: self._send(order="soft_off") if self.running else None)

    def read(self, path: str, timeout: float = START_SECONDS) -> bytes | None:
        """What is in a file of the installed system, whether it runs or not; None where there is no such file."""
        def ask() -> None:
            self._send(order="read", path=path)

        self._file.clear()
        self._order(ask)
        self._wait(lambda: bool(self._file), timeout, f"does not say what is in {path}")
        data = self._file.pop()
        return None if data is None else base64.b64decode(data)

    # --------------------------------------------------------------------------------------------- in the box's own thread

    def _start(self, boot: Installed | Rescue | None) -> None:
        boot = self._take_boot(boot)
        number = len(self.boots) + 1
        kind = "rescue" if isinstance(boot, Rescue) else "installed"
        console = self._workdir / f"console-{number}.log"
        console.touch(0o600)
        files: dict[str, File] = {}
        host_keys: tuple[str, ...] = ()
        password, delay = None, 0.0
        if isinstance(boot, Rescue):
            if boot.job:
                raise LabError("A box runs no job.")
            host_keys, personal, password = personal_files(boot, 0)
            files = {path: File(text.encode(), mode) for path, (text, mode) in personal.items()}
            files["/etc/hostname"] = File(RESCUE_HOSTNAME.encode() + b"\n")
            delay = boot.ssh_delay + self.faults.ssh_delay
        else:
            files, self._files = self._files, {}
        order = boxed.Boot(kind=kind, tree=str(self.trees[kind].root), address=self.address, port=self.port,
                           files={path: (base64.b64encode(file.data).decode(), file.mode) for path, file in files.items()},
                           password=password, root=("/dev/vda3", "ext4"), console=str(console.absolute()),
                           boot_time=self.faults.boot_time, ssh_delay=delay)
        with self._changed:
            self._number, self._pid = number, None
        try:
            self._send(order="start", number=number, boot=order._asdict())
        except LabError:
            self._number = 0
            raise
        self._began(Boot(number, kind, time.time(), (), console, host_keys))

    def _stop(self) -> None:
        with self._changed:
            if not self.running:
                return
            self._is_cut = True
        self._send(order="cut", silent=self.faults.silent)
        with self._changed:
            ended = self._changed.wait_for(lambda: not self.running, START_SECONDS)
            self._is_cut = False
        if not ended:
            raise LabError(f"{self.name} did not end within {START_SECONDS:g} s.")

    def _end(self) -> None:
        holder = self._holder
        if holder is None:
            return
        assert holder.stdin
        with contextlib.suppress(BrokenPipeError):  # it has ended already
            holder.stdin.close()  # which ends it, and the box with it
        try:
            holder.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            holder.kill()
            holder.wait()

    def _send(self, **order: Any) -> None:
        """Give the holder an order. What is secret goes through its standard input, and is no argument of a process."""
        if self._holder is None:
            directory = self._workdir / "mounts"
            directory.mkdir(exist_ok=True)
            with open(self._workdir / "box.log", "wb") as log:
                # its own session: Ctrl-C is for us, who end it in order
                argv = [*namespace_prefix(), sys.executable, "-I", "-S", boxed.__file__, str(directory.absolute())]
                self._holder = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True,
                                                env={"PATH": PATH})
            threading.Thread(target=self._listen, args=(self._holder,), daemon=True, name=f"box {self.name}").start()
        assert self._holder.stdin
        try:
            self._holder.stdin.write(json.dumps(order).encode() + b"\n")
            self._holder.stdin.flush()
        except BrokenPipeError:
            raise LabError(f"{self.name} ended by itself, see {self._workdir}/box.log") from None

    def _listen(self, holder: subprocess.Popen[bytes]) -> None:
        """Take what the holder says, in a thread of its own. After a reboot of the guest's own, start again."""
        assert holder.stdout
        with holder.stdout as events:
            for line in events:
                self._note(json.loads(line))
        with self._changed:
            if not self._closed:
                self.errors.append(f"the box ended by itself, see {self._workdir}/box.log")
            self._number, self._pid = 0, None
            self._changed.notify_all()

    def _note(self, event: dict[str, Any]) -> None:
        with self._changed:
            if event["event"] == "file":
                self._file.append(event["data"])
            elif event["number"] == self._number and event["event"] == "up":
                self._pid = event["pid"]
            elif event["number"] == self._number:
                self._number, self._pid = 0, None
                if event["how"] == "failed":
                    self.errors.append(f"boot {event['number']} ended by itself ({event['text']}); see box.log and the console's log "
                                       f"in {self._workdir}")
                elif event["how"] == "reboot" and not self._is_cut:
                    # unless somebody switches it on first
                    self._order(lambda: None if self.running else self._start(None))
            self._changed.notify_all()
