# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""IBM Cloud Classic (SoftLayer), virtual guests and bare metal, by SoftLayer's own client. Private to this collection.

Calls and sentences: the API's reference (https://sldn.softlayer.com/reference/services/). A rescue is one call that reboots;
it lasts for one boot, and no property of a server tells of it. What tells of the call is a transaction, of a reboot of
hardware the list of remote management commands, and of a reboot of a virtual guest nothing at all.
"""

from __future__ import annotations

import collections
import configparser
import contextlib
import logging
import math
import re
import typing as t
from datetime import datetime
from xml.parsers.expat import ExpatError

from ansible.module_utils.basic import missing_required_lib

from ..._errors import BadInput, Busy, MissingLibrary, NotAllowed, NotFound, ProviderError
from ..._wait import Backoff
from ._base import HARDDISK, RESCUE, BootOption, Credentials, Facts, Provider, Server, Task

RESCUE_RIGHT = "OS Reloads and Rescue Kernel"
REBOOT_RIGHT = "IPMI Remote Management"
RIGHTS = (RESCUE_RIGHT, REBOOT_RIGHT, "View Virtual Server Details", "View Hardware Details")
# After a reboot of hardware, SoftLayer refuses further ones for so many seconds (reference, rebootDefault).
REFUSAL_SECONDS = 1200.0
# Whether a reboot of a virtual guest was asked for, only the guest itself can tell, by being up anew, some seconds later.
REBOOT_SHOWS = 180.0
# What stands for the id of a transaction where none shows up; and where not even the call is known to have arrived, so that
# whoever comes next asks again.
NO_TRANSACTION = "none"
NOT_KNOWN = ""
# Seconds that a call may take, where nobody sets it; the client has no limit of its own.
TIMEOUT = 30.0
DISK = BootOption("harddisk", HARDDISK, "harddisk", "The installed system")
LINUX = BootOption("rescue", RESCUE, "rescue", "The rescue kernel, for one boot")
# bootToRescueLayer takes the wish for it; by the reference it counts where SoftLayer has installed no system.
WINDOWS = BootOption("windows", RESCUE, "windows", "The rescue environment of Windows, for one boot")
_LONGEST_ID = 2**31 - 1
_USERS = ("root", "Administrator")
_TRANSACTIONS = ("mask[id,activeTransaction[id,createDate,elapsedSeconds,transactionStatus[name,friendlyName],transactionGroup[name]],"
                 "lastTransaction[id,createDate,transactionStatus[name,friendlyName],transactionGroup[name]]]")


class _Machine(t.NamedTuple):
    """kind: `vs` or `hw`, as in server names."""

    kind: str
    id: int

    @property
    def service(self) -> str:
        return "Virtual_Guest" if self.kind == "vs" else "Hardware_Server"

    @property
    def name(self) -> str:
        return f"{self.kind}:{self.id}"


class _Passing(Exception):
    """A failure that passes: the connection broke, a proxy answered, the API had a fault. sent: the call may have arrived."""

    def __init__(self, text: str, sent: bool):
        super().__init__(text)
        self.sent = sent


class _Outstanding(Busy):
    """Refused because of a transaction under way."""


class _TooSoon(Busy):
    """Refused because hardware was rebooted a short while ago."""


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
    )

    # A call that failed on the way is tried again for so long.
    patience = 60.0
    # So long a transaction has to show up after the call that makes it.
    transaction_shows = 10.0

    def __init__(self, params: t.Mapping[str, t.Any]):
        """params: the options `softlayer_*`; what is absent comes from SL_* and ~/.softlayer, as in SoftLayer's client."""
        try:
            import requests
            import SoftLayer
            import urllib3
        except ImportError as exc:
            raise MissingLibrary(missing_required_lib("SoftLayer", url="https://pypi.org/project/SoftLayer/")) from exc
        self._softlayer = SoftLayer
        self._never_sent = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)
        self._requests = requests
        self._machines: dict[str, _Machine] = {}
        # What the client warns of, we raise. Without a handler it would land in the middle of the user's output.
        logger = logging.getLogger("SoftLayer")
        if not logger.handlers:
            logger.addHandler(logging.NullHandler())
        todo = "Give softlayer_username and softlayer_api_key as options, as SL_USERNAME and SL_API_KEY in the environment, or in " \
               "the section [softlayer] of ~/.softlayer."
        given = {name: params.get(f"softlayer_{name}") for name in ("username", "api_key", "endpoint_url", "timeout", "config_file")}
        try:
            self._client = SoftLayer.create_client_from_env(**given)
        except (configparser.Error, ValueError, OSError) as exc:
            raise BadInput(f"The SoftLayer configuration cannot be read: {self._one_line(str(exc))}.", todo=todo) from exc
        if self._client.auth is None:
            raise BadInput("The SoftLayer credentials are not complete.", todo=todo)
        transport = self._client.transport
        transport.timeout = transport.timeout or TIMEOUT
        # By itself it repeats a GET whose answer was lost. By REST a reboot is a GET.
        transport.client.mount("https://", requests.adapters.HTTPAdapter(max_retries=0))

    # -- calls

    @staticmethod
    def _one_line(text: str) -> str:
        return re.sub(r"\s+", " ", text).strip().rstrip(".")

    def _text(self, exc: t.Any) -> str:
        """The API's sentence; of a page of HTML only the status, of a broken connection only the kind."""
        if getattr(exc, "faultCode", None) == 0:
            return f"no answer ({type(exc.__context__).__name__})"
        text = self._one_line(str(getattr(exc, "faultString", exc)).partition(" :: ")[0])
        return f"HTTP {getattr(exc, 'faultCode', '')}" if "<" in text else text

    def _was_sent(self, exc: BaseException) -> bool:
        """Whether the call may have arrived. The client keeps what really failed only as the context of its own exception."""
        inner = exc.__context__
        if not isinstance(inner, self._requests.exceptions.ConnectionError) or not inner.args:
            return True
        return not isinstance(getattr(inner.args[0], "reason", None), self._never_sent)

    def _judge(self, exc: t.Any, call: str) -> Exception:
        """One of our exceptions for one of the client's. By REST the code of a fault is lost, so its sentence must do."""
        text, code = self._text(exc), getattr(exc, "faultCode", None)
        if "outstanding transaction" in text:
            return _Outstanding(f"SoftLayer refused {call}: {text}.", state="This call changed nothing.",
                                todo="Wait until that has ended, then run this again.")
        if re.search(r"20 minutes|remote management command", text, re.IGNORECASE):
            return _TooSoon(f"SoftLayer refused {call}: {text}.")
        if "do not have permission" in text:
            right = RESCUE_RIGHT if "RescueLayer" in call else REBOOT_RIGHT if "::reboot" in call else None
            needed = f"the permission {right!r}" if right else f"the permissions {', '.join(RIGHTS)}"
            return NotAllowed(f"The SoftLayer user may not call {call}: {text}.",
                              todo=f"Give him {needed}, and access to this device, in the portal.")
        if "ObjectNotFound" in str(code) or "Unable to find object" in text:
            return NotFound(f"SoftLayer: {text}.", todo="It may have been cancelled meanwhile, or these credentials do not see it.")
        if code == 404:
            return BadInput(f"This is no endpoint of the SoftLayer API, for it does not know {call}: {text}.",
                            todo="Check softlayer_endpoint_url, or endpoint_url in ~/.softlayer.")
        if code in (401, 403) or re.search(r"Access Denied|Invalid API token|InvalidUserStatus", f"{text} {code}", re.IGNORECASE):
            return NotAllowed(f"SoftLayer does not accept these credentials at {call}: {text}.",
                              todo="Check softlayer_username and softlayer_api_key, SL_USERNAME and SL_API_KEY, or ~/.softlayer.")
        errors = self._softlayer.exceptions
        passing = (errors.ServerError, errors.ApplicationError, errors.RemoteSystemError)
        if isinstance(code, int):
            if code in (0, 429) or code >= 500 or code < 400:
                return _Passing(text, self._was_sent(exc))
        elif isinstance(exc, passing) or text == "Internal Error" or not isinstance(exc, errors.SoftLayerError):
            return _Passing(text, True)
        return ProviderError(f"SoftLayer refused {call}: {text}.", todo="If that does not say why, open a ticket at SoftLayer.")

    def _try(self, service: str, method: str, *arguments: str, **more: t.Any) -> t.Any:
        """One call, not repeated. Raises one of our exceptions, or _Passing."""
        try:
            return self._client.call(service, method, *arguments, **more)
        except (self._softlayer.SoftLayerError, ExpatError, KeyError) as exc:
            # The last two: an answer of a proxy, which the client takes for one of the API.
            raise self._judge(exc, f"SoftLayer_{service}::{method}") from exc

    def _call(self, service: str, method: str, **more: t.Any) -> t.Any:
        """One call that is safe to repeat, repeated while its failure is one that passes."""
        last: list[Exception] = []

        def look() -> tuple[t.Any] | None:
            try:
                return (self._try(service, method, **more),)
            except _Passing as exc:
                last[:] = [exc]
                return None

        def late() -> Exception:
            return self._down(f"SoftLayer_{service}::{method}", last[0])

        return self.clock.wait(self.patience, Backoff(0.5, 8.0, 2.0)).until(look, late)[0]

    def _down(self, call: str, last: Exception, unsure: bool = False) -> Exception:
        """unsure: the call may have arrived, and is one that does something."""
        return ProviderError(f"The SoftLayer API failed for {self.patience:g} s at {call}: {self._one_line(str(last))}.",
                             state="Whether it arrived is not known; the next run looks for that first." if unsure else None,
                             todo="Try again later; https://cloud.ibm.com/status tells of outages.")

    # -- names

    def _list(self, kind: str, field: str | None = None, value: t.Any = None) -> list[dict[str, t.Any]]:
        method, key = ("getVirtualGuests", "virtualGuests") if kind == "vs" else ("getHardware", "hardware")
        # A filter that the API does not understand lets everything through, so what comes is looked at again.
        wanted = {key: {field: {"operation": value if isinstance(value, int) else f"_= {value}"}}} if field else None
        found = self._call("Account", method, mask="mask[id,hostname,fullyQualifiedDomainName,primaryIpAddress,primaryBackendIpAddress]",
                           filter=wanted, iter=True)
        return [{**server, "name": f"{kind}:{server['id']}"} for server in found
                if field is None or str(server.get(field, "")).lower() == str(value).lower()]

    def _search(self, field: str | None = None, value: t.Any = None) -> list[dict[str, t.Any]]:
        """Servers of both kinds. Who may see one kind only sees those."""
        found: list[dict[str, t.Any]] = []
        denied: list[NotAllowed] = []
        for kind in ("vs", "hw"):
            try:
                found += self._list(kind, field, value)
            except NotAllowed as exc:
                denied.append(exc)
        if len(denied) == 2:
            raise denied[0]
        return found

    def _machine(self, name: str) -> _Machine:
        """The machine that a name means."""
        if name not in self._machines:
            self._machines[name] = self._resolve(name)
        return self._machines[name]

    def _resolve(self, name: str) -> _Machine:
        exact = re.fullmatch(r"(vs|hw):([0-9]{1,10})", name)
        if exact and int(exact[2]) <= _LONGEST_ID:
            return _Machine(exact[1], int(exact[2]))
        found: list[dict[str, t.Any]] = []
        if re.fullmatch(r"[0-9]{1,10}", name) and int(name) <= _LONGEST_ID:
            found = self._search("id", int(name))
        # A hostname may have dots, too.
        for field in ("fullyQualifiedDomainName", "hostname"):
            if not found and re.fullmatch(r"[\w.-]+", name):
                found = self._search(field, name)
        if not found:
            raise self._unknown(name)
        if len(found) > 1:
            many = "; ".join(f"{server['name']}, {server.get('fullyQualifiedDomainName')}, {server.get('primaryIpAddress')}"
                             for server in found)
            raise BadInput(f"SoftLayer has more than one server {name!r}.", todo=f"Name one of these by its id: {many}.")
        kind, _colon, number = found[0]["name"].partition(":")
        return _Machine(kind, int(number))

    def _unknown(self, name: str) -> NotFound:
        return NotFound(f"SoftLayer knows no server {name!r}.", todo=f"These credentials see: {', '.join(self.list_servers()) or 'none'}.")

    def list_servers(self) -> list[str]:
        """Names with domain; where two servers have the same, their ids."""
        return sorted(self._named())

    def read_servers(self) -> dict[str, Server | None]:
        return {name: self._server(name, data) for name, data in sorted(self._named().items())}

    def _named(self) -> dict[str, dict[str, t.Any]]:
        """All servers, by their names."""
        found = [(server.get("fullyQualifiedDomainName") or server["name"], server) for server in self._search()]
        names = collections.Counter(name for name, dummy in found)
        return {name if names[name] == 1 else server["name"]: server for name, server in found}

    def _object(self, name: str, mask: str) -> dict[str, t.Any]:
        machine = self._machine(name)
        try:
            return self._call(machine.service, "getObject", id=machine.id, mask=mask)
        except NotFound as exc:
            raise self._unknown(name) from exc

    # -- operations

    def read_server(self, name: str) -> Server:
        return self._server(name, self._object(name, "mask[id,primaryIpAddress,primaryBackendIpAddress]"))

    @staticmethod
    def _server(name: str, data: t.Mapping[str, t.Any]) -> Server:
        return Server(name=name, address=data.get("primaryIpAddress") or data.get("primaryBackendIpAddress") or "", boot=None,
                      settings={})

    def boot_options(self, name: str, kind: str | None = None) -> list[BootOption]:
        options = [DISK, LINUX] + ([WINDOWS] if self._machine(name).kind == "hw" else [])
        return [option for option in options if kind in (None, option.kind)]

    def choose(self, name: str, wanted: str) -> BootOption:
        if wanted == WINDOWS.name and self._machine(name).kind == "vs":
            raise BadInput(f"{name} is a virtual guest, which SoftLayer's API boots into a rescue kernel of Linux and into nothing else.",
                           state="Nothing was changed.",
                           todo="Leave the option rescue out. For a guest with Windows the portal has Boot from Image, with an image "
                                "of its own for rescue.")
        return super().choose(name, wanted)

    def is_windows(self, option: BootOption) -> bool:
        return option.id == WINDOWS.id

    def rescue_rank(self, option: BootOption) -> int | None:
        return 0 if option.kind == RESCUE and not self.is_windows(option) else None

    def rescue_settings(self, server: Server, option: BootOption, public_key: str | None,
                        options: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
        return {}

    def boot_settings(self, option: BootOption) -> dict[str, t.Any]:
        return {}

    def same_setting(self, setting: str, one: t.Any, other: t.Any) -> bool:
        return bool(one == other)

    def write_settings(self, name: str, changes: t.Mapping[str, t.Any]) -> None:
        if changes:
            raise BadInput(f"SoftLayer has no settings that could be changed: {', '.join(sorted(changes))}.")

    # -- rescue and reboot

    def reboot_mark(self, name: str) -> t.Any:
        """{"transaction": id of the newest one or None, "commands": dates of the reboots of hardware or None, "at": seconds}.

        Busy where a transaction is under way, for then a reboot is refused: better before it is announced than after.
        """
        active, newest = self._transactions(name)
        if active:
            raise Busy(f"SoftLayer is at work on {name}: {self._words(active)}.",
                       todo="Wait until that has ended, then run this again.", details={"tasks": [str(active["id"])]})
        return {"transaction": newest["id"] if newest else None, "commands": self._commands(name), "at": self.clock.time()}

    def switch(self, name: str, option: BootOption, mark: t.Any, asked_before: bool = False, password: str | None = None) -> Task:
        if option.kind == HARDDISK:
            return self.reboot_hard(name, mark, asked_before)
        if option.kind != RESCUE:
            raise BadInput(f"SoftLayer cannot boot {option.name}.", todo="It can boot harddisk and rescue.")
        machine = self._machine(name)
        method = "executeRescueLayer" if machine.kind == "vs" else "bootToRescueLayer"
        # Without an argument it is LINUX.
        arguments = ("WINDOWS",) if self.is_windows(option) else ()
        last: list[Exception] = []
        unsure = [asked_before]

        def look() -> Task | None:
            if unsure[0]:
                # Whether the call arrived is not known. A transaction tells, and keeps us from a second rescue.
                task = self._new_task(name, mark)
                if task:
                    return task
            try:
                self._accepted(machine, method, *arguments)
            except _Outstanding:
                if unsure[0]:
                    # Nobody else's was there when the mark was taken: ours has arrived, and is only not shown yet.
                    return self._shown(name, mark, method)
                raise
            except _TooSoon as exc:
                raise self._too_soon(name, exc) from None
            except _Passing as exc:
                last[:] = [exc]
                unsure[0] = unsure[0] or exc.sent
                return None
            return self._shown(name, mark, method)

        def late() -> Exception:
            return self._down(f"{method} of {name}", last[0], unsure[0])

        return self.clock.wait(self.patience, Backoff(1.0, 8.0, 2.0)).until(look, late)

    def reboot_hard(self, name: str, mark: t.Any, asked_before: bool = False) -> Task:
        machine, method = self._machine(name), "rebootDefault"
        last: list[Exception] = []
        lost = [False]

        def look() -> Task | None:
            if asked_before or lost[0]:
                task = self._new_task(name, mark) or self._told_by_commands(name, mark)
                if task:
                    return task
                if mark["commands"] is None and (lost[0] or self.clock.time() - mark["at"] < REBOOT_SHOWS):
                    # Nothing tells whether the call arrived but the server itself. A second reboot could hit it while it boots.
                    return Task(NOT_KNOWN, "unknown", f"whether {method} arrived is not known; the server itself will tell")
            try:
                self._accepted(machine, method)
            except _TooSoon as exc:
                # A lost call may have been noted only now.
                task = self._told_by_commands(name, mark) if lost[0] else None
                if task:
                    return task
                raise self._too_soon(name, exc) from None
            except _Passing as exc:
                last[:] = [exc]
                lost[0] = lost[0] or exc.sent
                return None
            try:
                task = self._new_task(name, mark)
            except ProviderError:
                task = None
            return task or Task(NO_TRANSACTION, "unknown", f"{method} was taken, without a transaction")

        def late() -> Exception:
            return self._down(f"{method} of {name}", last[0], lost[0] or asked_before)

        return self.clock.wait(self.patience, Backoff(1.0, 8.0, 2.0)).until(look, late)

    def _accepted(self, machine: _Machine, method: str, *arguments: str) -> None:
        """Make a call that answers true or false. Not repeated."""
        if not self._try(machine.service, method, *arguments, id=machine.id):
            raise ProviderError(f"SoftLayer did not carry out {method} of {machine.name}, and does not say why.",
                                todo="Look at the device in the portal; run this again, and open a ticket where that helps nothing.")

    def _shown(self, name: str, mark: t.Any, method: str) -> Task:
        """The transaction of a call that was taken. It is never worth to fail for."""
        task = Task(NO_TRANSACTION, "unknown", f"{method} was taken, without a transaction")
        try:
            return self.clock.wait(self.transaction_shows, Backoff(0.5, 2.0)).until(lambda: self._new_task(name, mark), TimeoutError)
        except (ProviderError, TimeoutError):
            return task

    def _transactions(self, name: str) -> tuple[dict[str, t.Any] | None, dict[str, t.Any] | None]:
        """The transaction under way, and the newest one of all."""
        data = self._object(name, _TRANSACTIONS)
        active = data.get("activeTransaction") or None
        return active, active or data.get("lastTransaction") or None

    def _new_task(self, name: str, mark: t.Any) -> Task | None:
        """The transaction that has begun since the mark."""
        active, newest = self._transactions(name)
        if newest is None or newest["id"] == mark["transaction"]:
            return None
        return self._task(newest, active)

    def _commands(self, name: str) -> list[str] | None:
        """When hardware was sent its last commands; None where nobody tells."""
        machine = self._machine(name)
        if machine.kind != "hw":
            return None
        try:
            found = self._call(machine.service, "getRecentRemoteManagementCommands", id=machine.id, mask="mask[createDate]")
        except ProviderError:
            return None
        return sorted(command["createDate"] for command in found or [] if command.get("createDate"))

    def _told_by_commands(self, name: str, mark: t.Any) -> Task | None:
        if mark["commands"] is None or not set(self._commands(name) or ()) - set(mark["commands"]):
            return None
        return Task(NO_TRANSACTION, "unknown", "the reboot was taken, without a transaction")

    def _too_soon(self, name: str, exc: _TooSoon) -> Busy:
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

    def credentials_mark(self, name: str) -> t.Any:
        """Nothing to mark; but without a password it is better not to begin."""
        if self.read_credentials(name, None) is None:
            raise NotFound(f"SoftLayer shows no password of root for {name}, and its rescue system takes nothing else.",
                           state="Nothing was changed.",
                           todo="Enter one in the portal, at the device's passwords, or let the user see passwords.")
        return None

    def read_credentials(self, name: str, mark: t.Any) -> Credentials | None:
        data = self._object(name, "mask[id,operatingSystem[passwords[username,password]]]")
        known = {login.get("username"): login.get("password") for login in (data.get("operatingSystem") or {}).get("passwords") or []}
        return next((Credentials(user, known[user]) for user in _USERS if known.get(user)), None)
