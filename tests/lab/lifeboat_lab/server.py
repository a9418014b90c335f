# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What every stand-in for a server has: buttons, a thread that obeys them, faults, a record of its boots, and an address.

A stand-in says how a boot is begun (_start) and how the power is cut (_stop). The rest is as `machine` tells.
"""

from __future__ import annotations

import abc
import atexit
import errno
import queue
import socket
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from .recipe import LabError


@dataclass(frozen=True)
class Installed:
    """Boot the installed system: BIOS, the disk's boot loader, whatever that finds."""


@dataclass(frozen=True)
class Rescue:
    """Boot the rescue system.

    authorized_keys: public key lines of root. password: of root, plain; None: no log-in by password.
    host_keys: private host keys by kind (as make_host_keys returns); None: new ones, as providers do.
    ssh_delay: sshd starts so many seconds after the rest.
    job: a shell script to be run as root instead of starting sshd.
    """

    authorized_keys: Sequence[str] = ()
    password: str | None = field(default=None, repr=False)
    host_keys: dict[str, str] | None = field(default=None, repr=False)
    ssh_delay: float = 0
    job: str | None = None


@dataclass
class Faults:
    """What goes wrong; each is a number that tests set, and all may change at any time.

    ignore_resets: so many of the next resets do nothing (the old system goes on).
    linger: a reset takes effect so many seconds after it was asked for (the old system goes on until then).
    wrong_boot: so many of the next boots into rescue come up installed.
    ssh_delay: in rescue, sshd starts so many seconds late.
    """

    ignore_resets: int = 0
    linger: float = 0
    wrong_boot: int = 0
    ssh_delay: float = 0


@dataclass(frozen=True)
class Boot:
    """One start of the machine.

    number: 1 for the first. kind: installed or rescue, what really boots. started_at: as time.time().
    disks: copies of the disks as they were before it (gone after KEPT_DISKS further boots); console: what the guest
    said (when resumed, from then on); host_keys: public host keys of the rescue system (lines "type key"), none for the
    installed one. resumed: it did not boot, but goes on from a snapshot.
    """

    number: int
    kind: str
    started_at: float
    disks: tuple[Path, ...]
    console: Path
    host_keys: tuple[str, ...] = ()
    resumed: bool = False


class Server(abc.ABC):
    """See the module. Any thread may press the buttons; they return at once."""

    def __init__(self, name: str, workdir: Path, *, address: str | None, port: int | None,
                 next_boot: Callable[[], Installed | Rescue], faults: Faults):
        """workdir: what it writes. address, port: where its port 22 is to be found; by default one of its own."""
        self.name = name
        self.next_boot = next_boot
        self.faults = faults
        self.boots: list[Boot] = []
        self.errors: list[str] = []
        self._workdir = workdir
        self._workdir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._changed = threading.Condition()
        self._orders: queue.Queue[Callable[[], object] | None] = queue.Queue()
        self._closed = False
        self._pending_reset: threading.Timer | None = None
        self.address, self.port, self._place = _take_place(address, port)
        # The only thread that starts processes, because they are to end with the thread that started them (PR_SET_PDEATHSIG).
        self._thread = threading.Thread(target=self._obey, name=f"server {name}", daemon=True)
        self._thread.start()
        _open_servers.add(self)

    def __enter__(self) -> Self:
        """Return the server."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close it."""
        self.close()

    @property
    @abc.abstractmethod
    def running(self) -> bool:
        """Whether it is on."""

    @property
    @abc.abstractmethod
    def pid(self) -> int | None:
        """The process that is the server, None when it is off."""

    @abc.abstractmethod
    def soft_off(self) -> None:
        """Press the power button: the system shuts itself down, if it can."""

    @abc.abstractmethod
    def _start(self, boot: Installed | Rescue | None) -> None:
        """Begin a boot, into what _take_boot() returns, and record it with _began()."""

    @abc.abstractmethod
    def _stop(self) -> None:
        """Cut the power, if it is on."""

    def power_on(self, boot: Installed | Rescue | None = None) -> None:
        """Switch it on, into boot or else into what next_boot says. Nothing happens when it is on."""
        self._order(lambda: None if self.running else self._start(boot))

    def power_off(self) -> None:
        """Cut the power. Nothing happens when it is off."""
        self._order(self._stop)

    def reset(self, boot: Installed | Rescue | None = None) -> None:
        """Cut the power and switch on again, into boot or else into what next_boot says at that moment.

        A server that was off is switched on. `faults` may have it do nothing, or later.
        """
        if self.faults.ignore_resets > 0:
            self.faults.ignore_resets -= 1
            return

        def restart() -> None:
            self._stop()
            self._start(boot)

        if self.faults.linger > 0:
            self._pending_reset = threading.Timer(self.faults.linger, self._order, [restart])
            self._pending_reset.daemon = True
            self._pending_reset.start()
        else:
            self._order(restart)

    def wait_for_boot(self, number: int, timeout: float) -> Boot:
        """Return the boot of that number once it has begun. Raises LabError after timeout seconds."""
        self._wait(lambda: len(self.boots) >= number, timeout, f"has not booted {number} times")
        return self.boots[number - 1]

    def wait_for_off(self, timeout: float) -> None:
        """Wait until it is off. Raises LabError after timeout seconds."""
        self._wait(lambda: not self.running, timeout, "is not off")

    def close(self) -> None:
        """End it and give its address back. May be called more than once."""
        if self._closed:
            return
        self._closed = True
        if self._pending_reset:
            self._pending_reset.cancel()
        self._orders.put(None)
        self._thread.join()
        self._place.close()
        _open_servers.discard(self)

    # --------------------------------------------------------------------------------------- for the stand-ins themselves

    def _take_boot(self, boot: Installed | Rescue | None) -> Installed | Rescue:
        """What is to be booted now."""
        boot = boot or self.next_boot()
        if isinstance(boot, Rescue) and self.faults.wrong_boot > 0:
            self.faults.wrong_boot -= 1
            return Installed()
        return boot

    def _began(self, boot: Boot) -> None:
        with self._changed:
            self.boots.append(boot)
            self._changed.notify_all()

    def _wait(self, condition: Callable[[], bool], timeout: float, otherwise: str) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self.errors or condition(), timeout)
            if self.errors:
                raise LabError(f"{self.name}: {'; '.join(self.errors)}")
            if not condition():
                raise LabError(f"{self.name} {otherwise} after {timeout:g} s.")

    def _order(self, order: Callable[[], object]) -> None:
        if not self._closed:
            self._orders.put(order)

    def _obey(self) -> None:
        while (order := self._orders.get()) is not None:
            try:
                order()
            except Exception as error:  # whoever pressed the button is not here to be told
                with self._changed:
                    self.errors.append(str(error))
                    self._changed.notify_all()
        self._end()

    def _end(self) -> None:
        """The last thing that the thread does."""
        self._stop()


_open_servers: weakref.WeakSet[Server] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for server in list(_open_servers):
        server.close()


def _take_place(address: str | None, port: int | None) -> tuple[str, int, socket.socket]:
    """Return an address and a port that are free, and a lock that keeps them ours while the machine is off."""
    addresses = [address] if address else [f"127.0.0.{number}" for number in range(50, 250)]
    for candidate in addresses:
        for number in [port] if port else (22, 2222):
            # The lock is a socket in the abstract namespace: known wherever the port is, gone with its process.
            lock = socket.socket(socket.AF_UNIX)
            try:
                lock.bind(f"\0lifeboat-lab {candidate}:{number}")
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind((candidate, number))
                return candidate, number, lock
            except OSError as error:
                lock.close()
                if error.errno not in (errno.EACCES, errno.EADDRINUSE, errno.EPERM):
                    raise
    raise LabError(f"No free address: {address or '127.0.0.50 to 127.0.0.249'}, port {port or '22 or 2222'}.")
