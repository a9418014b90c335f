# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""IBM Cloud Classic (SoftLayer), virtual guests and bare metal, by SoftLayer's own client. Private to this collection.

Calls and sentences: the API's reference (https://sldn.softlayer.com/reference/services/). A rescue is one call that reboots;
it lasts for one boot, and no property of a server tells of it. What tells of the call is a transaction, of a reboot of
hardware the list of remote management commands, and of a reboot of a virtual guest nothing at all.
"""

from __future__ import annotations

import contextlib
import math
import typing as t
from datetime import datetime

from ...._errors import BadInput, Busy, NotFound, ProviderError
from ...._wait import Backoff
from .._base import HARDDISK, RESCUE, BootOption, Credentials, Facts, Provider, Server, Task
from .._calls import Transient, at_most_once, is_loopback
from ._client import RIGHTS, Client, Machine, Outstanding, TooSoon

# After a reboot of hardware, SoftLayer refuses further ones for so many seconds (reference, rebootDefault).
REFUSAL_SECONDS = 1200.0
# Whether a reboot of a virtual guest was asked for, only the guest itself can tell, by being up anew, some seconds later.
REBOOT_SHOWS = 180.0
# So long a transaction has to show up after the call that makes it.
TRANSACTION_SECONDS = 10.0
# What stands for the id of a transaction where none shows up; and where not even the call is known to have arrived, so that
# whoever comes next asks again.
NO_TRANSACTION = "none"
NOT_KNOWN = ""
DISK = BootOption("harddisk", HARDDISK, "harddisk", "The installed system")
LINUX = BootOption("rescue", RESCUE, "rescue", "The rescue kernel, for one boot")
# bootToRescueLayer takes the wish for it; by the reference it counts where SoftLayer has installed no system.
WINDOWS = BootOption("windows", RESCUE, "windows", "The rescue environment of Windows, for one boot")
_USERS = ("root", "Administrator")
_TRANSACTIONS = ("mask[id,activeTransaction[id,createDate,elapsedSeconds,transactionStatus[name,friendlyName],transactionGroup[name]],"
                 "lastTransaction[id,createDate,transactionStatus[name,friendlyName],transactionGroup[name]]]")


class SoftLayerProvider(Provider):
    """SoftLayer's virtual guests (`vs:<id>`) and bare metal (`hw:<id>`)."""

    facts = Facts(
        name="softlayer",
        reboot="one_call",
        boot_option_lasts=False,
        hard_reboot=True,
        credentials=("known",),
        tells_armed=False,
        settings=(),
        rights=RIGHTS,
        boots_by=(),
        lets_in_by=(),
        lag=TRANSACTION_SECONDS,
    )

    def __init__(self, params: t.Mapping[str, t.Any]):
        """params: the options `softlayer_*`; what is absent comes from SL_* and ~/.softlayer, as in SoftLayer's client."""
        self._client = Client(self, params)

    # -- names

    def is_local(self) -> bool:
        return is_loopback(self._client.api.transport.endpoint_url)

    def list_servers(self) -> list[str]:
        """Names with domain; where two servers have the same, their ids."""
        return self._client.list_servers()

    def read_servers(self) -> dict[str, Server | None]:
        return {name: self._server(name, data) for name, data in sorted(self._client.named().items())}

    # -- operations

    def read_server(self, name: str) -> Server:
        return self._server(name, self._client.read(name, "mask[id,primaryIpAddress,primaryBackendIpAddress]"))

    @staticmethod
    def _server(name: str, data: t.Mapping[str, t.Any]) -> Server:
        return Server(name=name, address=data.get("primaryIpAddress") or data.get("primaryBackendIpAddress") or "", boot=None,
                      settings={})

    def boot_options(self, name: str, kind: str | None = None) -> list[BootOption]:
        options = [DISK, LINUX] + ([WINDOWS] if self._client.machine(name).kind == "hw" else [])
        return [option for option in options if kind in (None, option.kind)]

    def choose(self, name: str, wanted: str) -> BootOption:
        if wanted == WINDOWS.name and self._client.machine(name).kind == "vs":
            raise BadInput(f"{name} is a virtual guest, which SoftLayer's API boots into a rescue kernel of Linux and into nothing else.",
                           state="Nothing was changed.",
                           todo="Leave the option rescue out. For a guest with Windows the portal has Boot from Image, with an image "
                                "of its own for rescue.")
        return super().choose(name, wanted)

    def is_windows(self, option: BootOption) -> bool:
        return option.id == WINDOWS.id

    # -- rescue and reboot

    def reboot_baseline(self, name: str, known: t.Sequence[str] = ()) -> t.Any:
        """{"transaction": id of the newest one or None, "known": ids of jobs from before, "commands": dates of the reboots of hardware
        or None, "at": seconds}.

        Busy where a transaction is under way, for then a reboot is refused: better before it is announced than after.
        """
        active, newest = self._transactions(name)
        if active:
            raise Busy(f"SoftLayer is at work on {name}: {self._words(active)}.",
                       todo="Wait until that has ended, then run this again.", details={"tasks": [str(active["id"])]})
        return {"transaction": newest["id"] if newest else None, "known": list(known), "commands": self._commands(name),
                "at": self.clock.time()}

    def boot_into(self, name: str, option: BootOption, baseline: t.Any, may_be_repeat: bool = False, password: str | None = None) -> Task:
        if option.kind == HARDDISK:
            return self.reboot_hard(name, baseline, may_be_repeat)
        if option.kind != RESCUE:
            raise BadInput(f"SoftLayer cannot boot {option.name}.", todo="It can boot harddisk and rescue.")
        machine = self._client.machine(name)
        method = "executeRescueLayer" if machine.kind == "vs" else "bootToRescueLayer"
        # Without an argument it is LINUX.
        arguments = ("WINDOWS",) if self.is_windows(option) else ()
        unsure = [may_be_repeat]

        def ask() -> Task:
            try:
                self._accepted(machine, method, *arguments)
            except Outstanding:
                if not unsure[0]:
                    raise
                # Nobody else's was there when the baseline was taken: ours has arrived, and is only not shown yet.
            except TooSoon as exc:
                raise self._too_soon(name, exc) from None
            return self._shown(name, baseline, method)

        # Later the first one may have ended, and not every account is shown that it did.
        return at_most_once(self, self.facts.lag, ask, lambda: self._new_task(name, baseline), unsure,
                            lambda last: self._client.down(f"{method} of {name}", last, unsure[0]), refuses_second=True)

    def reboot_hard(self, name: str, baseline: t.Any, may_be_repeat: bool = False) -> Task:
        machine, method = self._client.machine(name), "rebootDefault"
        unsure = [may_be_repeat]
        # Whether this call is one that may have arrived.
        lost = False

        def asked() -> Task | None:
            task = self._new_task(name, baseline) or self._told_by_commands(name, baseline)
            if task is None and baseline["commands"] is None and (lost or self.clock.time() - baseline["at"] < REBOOT_SHOWS):
                # Nothing tells whether the call arrived but the server itself. A second reboot could hit it while it boots.
                return Task(NOT_KNOWN, "unknown", f"whether {method} arrived is not known; the server itself will tell")
            return task

        def ask() -> Task:
            nonlocal lost
            try:
                self._accepted(machine, method)
            except Transient as exc:
                lost = lost or exc.sent
                raise
            except TooSoon as exc:
                # A lost call may have been noted only now.
                task = self._told_by_commands(name, baseline) if lost else None
                if task is None:
                    raise self._too_soon(name, exc) from None
                return task
            with contextlib.suppress(ProviderError):
                task = self._new_task(name, baseline)
                if task is not None:
                    return task
            return Task(NO_TRANSACTION, "unknown", f"{method} was taken, without a transaction")

        return at_most_once(self, self.facts.lag, ask, asked, unsure,
                            lambda last: self._client.down(f"{method} of {name}", last, unsure[0]))

    def _accepted(self, machine: Machine, method: str, *arguments: str) -> None:
        """Make a call that answers true or false. Not repeated."""
        if not self._client.attempt(machine.service, method, *arguments, id=machine.id):
            raise ProviderError(f"SoftLayer did not carry out {method} of {machine.name}, and does not say why.",
                                todo="Look at the device in the portal; run this again, and open a ticket where that helps nothing.")

    def _shown(self, name: str, baseline: t.Any, method: str) -> Task:
        """The transaction of a call that was taken. It is never worth to fail for."""
        task = Task(NO_TRANSACTION, "unknown", f"{method} was taken, without a transaction")
        try:
            return self.clock.wait(self.facts.lag, Backoff(0.5, 2.0)).until(lambda: self._new_task(name, baseline), TimeoutError)
        except (ProviderError, TimeoutError):
            return task

    def _transactions(self, name: str) -> tuple[dict[str, t.Any] | None, dict[str, t.Any] | None]:
        """The transaction under way, and the newest one of all."""
        data = self._client.read(name, _TRANSACTIONS)
        active = data.get("activeTransaction") or None
        return active, active or data.get("lastTransaction") or None

    def _new_task(self, name: str, baseline: t.Any) -> Task | None:
        """The transaction that has begun since the baseline."""
        active, newest = self._transactions(name)
        if newest is None or newest["id"] == baseline["transaction"] or str(newest["id"]) in baseline.get("known", ()):
            return None
        return self._task(newest, active)

    def _commands(self, name: str) -> list[str] | None:
        """When hardware was sent its last commands; None where nobody tells."""
        machine = self._client.machine(name)
        if machine.kind != "hw":
            return None
        try:
            found = self._client.call(machine.service, "getRecentRemoteManagementCommands", id=machine.id, mask="mask[createDate]")
        except ProviderError:
            return None
        return sorted(command["createDate"] for command in found or [] if command.get("createDate"))

    def _told_by_commands(self, name: str, baseline: t.Any) -> Task | None:
        if baseline["commands"] is None or not set(self._commands(name) or ()) - set(baseline["commands"]):
            return None
        return Task(NO_TRANSACTION, "unknown", "the reboot was taken, without a transaction")

    def _too_soon(self, name: str, exc: TooSoon) -> Busy:
        """The refusal of hardware, with how long it will last."""
        left = REFUSAL_SECONDS
        dates = self._commands(name)
        if dates:
            with contextlib.suppress(ValueError, TypeError):  # a date that cannot be read: then the longest wait is told
                left -= self.clock.time() - max(datetime.fromisoformat(date).timestamp() for date in dates)
        minutes = math.ceil(min(max(left, 60.0), REFUSAL_SECONDS) / 60)
        return Busy(f"SoftLayer reboots {name} not yet: {REFUSAL_SECONDS / 60:.0f} minutes must pass between two reboots of hardware "
                    f"({exc.what})", state="This call changed nothing.",
                    todo=f"Run this again in {minutes} min. A reboot from inside the server is not held off.")

    @staticmethod
    def _words(transaction: t.Mapping[str, t.Any]) -> str:
        status, group = transaction.get("transactionStatus") or {}, transaction.get("transactionGroup") or {}
        words = [group.get("name"), status.get("friendlyName") or status.get("name")]
        return " ".join(filter(None, words)) or "a transaction"

    def _task(self, transaction: t.Mapping[str, t.Any], active: t.Mapping[str, t.Any] | None) -> Task:
        running = active is not None and active["id"] == transaction["id"]
        return Task(str(transaction["id"]), "running" if running else "done", self._words(transaction))

    def read_task(self, name: str, task_id: str) -> Task:
        try:
            active, newest = self._transactions(name)
        except ProviderError as exc:
            return Task(task_id, "unknown", f"not readable: {exc.what}")
        if newest and str(newest["id"]) == task_id:
            return self._task(newest, active)
        if active and task_id in (NO_TRANSACTION, NOT_KNOWN):
            return self._task(active, active)._replace(id=task_id)
        return Task(task_id, "unknown", "SoftLayer shows no such transaction")

    def unfinished_tasks(self, name: str) -> list[Task]:
        active = self._transactions(name)[0]
        return [self._task(active, active)] if active else []

    # -- the log-in: the same as to the installed system, as the portal shows it

    def credentials_baseline(self, name: str) -> t.Any:
        """There is no baseline; but without a password it is better not to begin."""
        if self.read_credentials(name, None) is None:
            raise NotFound(f"SoftLayer shows no password of root for {name}, and its rescue system takes nothing else.",
                           state="Nothing was changed.",
                           todo="Enter one in the portal, at the device's passwords, or let the user see passwords.")
        return None

    def read_credentials(self, name: str, baseline: t.Any) -> Credentials | None:
        data = self._client.read(name, "mask[id,operatingSystem[passwords[username,password]]]")
        known = {login.get("username"): login.get("password") for login in (data.get("operatingSystem") or {}).get("passwords") or []}
        return next((Credentials(user, known[user]) for user in _USERS if known.get(user)), None)
