# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Dedicated servers."""

from __future__ import annotations

import itertools
import secrets
import time
import typing as t
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..unkind import UNKNOWN_STATE_SECONDS, Past, Unkind, now
from .account import MailOptions, NextBoot, Power, find_service
from .answers import ANSWERS, ApiError, Request, Route, check_fields, not_found, not_in_enumeration
from .course import Course, task_fault
from .mails import Wording, send_rescue_mail

if t.TYPE_CHECKING:
    from .api import OvhApi

BOOT_TYPES = ("harddisk", "internal", "network", "power", "rescue")
TASK_STATUSES = ("cancelled", "customerError", "doing", "done", "init", "ovhError", "todo")
UNFINISHED = ("init", "todo", "doing")
ENDED = ("cancelled", "customerError", "done", "ovhError")
SERVER_STATES = ("error", "hacked", "hackedBlocked", "ok")

# The English mail is as recorded; nobody recorded another language, so the other one is modelled.
ENGLISH = Wording("Access settings for Linux rescue mode", "Your server's rescue system is up & running.", "IP address", "user",
                  "password")
FRENCH = Wording("Paramètres d'accès au mode rescue Linux", "Le système rescue de votre serveur a démarré.", "Adresse IP ",
                 "utilisateur ", "mot de passe ")

_TEXT, _FLAG, _NUMBER = (str, type(None)), (bool,), (int, type(None))
_WRITABLE: dict[str, tuple[type, ...]] = {
    "bootId": _NUMBER, "bootScript": _TEXT, "efiBootloaderPath": _TEXT, "monitoring": _FLAG, "noIntervention": _FLAG,
    "rescueMail": _TEXT, "rescueSshKey": _TEXT, "rootDevice": _TEXT, "state": (str,),
}
_READ_ONLY = (
    "availabilityZone", "commercialRange", "datacenter", "iam", "ip", "linkSpeed", "name", "newUpgradeSystem", "os",
    "powerState", "professionalUse", "rack", "region", "reverse", "serverId", "supportLevel",
)


@dataclass
class BootEntry:
    """One line of `GET …/boot`. options maps the name of a boot option to its value."""

    bootId: int
    bootType: str
    kernel: str
    description: str
    options: dict[str, str] = field(default_factory=dict)


@dataclass
class Task:
    """One `hardReboot`. history holds (status, time.time()) for each status that it had."""

    taskId: int
    status: str = "init"
    startDate: str = ""
    doneDate: str | None = None
    lastUpdate: str | None = None
    comment: str | None = "Reboot asked"
    history: list[tuple[str, float]] = field(default_factory=list)
    made_at: float = field(default_factory=now)

    def payload(self) -> dict[str, t.Any]:
        """The task as a kind API shows it."""
        return {"taskId": self.taskId, "function": "hardReboot", "status": self.status, "comment": self.comment,
                "startDate": self.startDate, "doneDate": self.doneDate, "lastUpdate": self.lastUpdate,
                "needSchedule": False, "note": None, "plannedInterventionId": None, "tags": None,
                "ticketReference": None}


def boot_entries(number: int, rescue_kernels: Sequence[str] = ("rescue12-customer",),
                 windows: bool = False) -> list[BootEntry]:
    """The boot options of server `number`: ids of its own, and `ipxe-shell` before any rescue system, as seen live."""
    ids = itertools.count(200000 + number % 9973 * 16)
    entries = [BootEntry(1, "harddisk", "hd", "Boot from hard drive (no netboot)"),
               BootEntry(next(ids), "rescue", "ipxe-shell", "iPXE shell")]
    names = {"rescue12-customer": "Customer rescue system (Debian-12-based)", "rescue64-pro": "Rescue-pro"}
    for kernel in rescue_kernels:
        entries.append(BootEntry(next(ids), "rescue", kernel, names.get(kernel, "Customer rescue system (Linux)")))
    if windows:
        entries.append(BootEntry(next(ids), "rescue", "WinRescue", "Windows rescue system"))
    entries.append(BootEntry(next(ids), "power", "poweroff", "Power-off server"))
    return entries


@dataclass
class Server:
    """A dedicated server. Tests may read and set everything.

    Fields in camelCase are what the API shows, under the API's names. The others steer the lab:
    task_seconds: how long a reboot task stays `init`, `todo` and `doing`. reset_at: the status on which the machine is
    reset. second_reboot: `task` (a reboot during a reboot is one more task) or `conflict` (409).
    null_clears: whether null clears a text field (False: it is passed over, and only "" clears).
    empty_reads_as: what a text field that was set to "" reads as afterwards. ignored_puts: how many more times a write
    to this field is passed over in silence; the real API does so at times. secret_delay: seconds after the boot until
    authenticationSecret knows the password. Seconds may be math.inf. unkind: see there; its conflict refuses writes, too.
    """

    name: str
    ip: str = "192.0.2.10"
    serverId: int = 100001
    power: Power | None = None

    bootId: int | None = 1
    bootScript: str | None = None
    efiBootloaderPath: str | None = None
    monitoring: bool = True
    noIntervention: bool = False
    rescueMail: str | None = None
    rescueSshKey: str | None = None
    rootDevice: str | None = None
    state: str = "ok"

    availabilityZone: str = "eu-west-gra-a"
    commercialRange: str | None = "host"
    datacenter: str = "gra2"
    linkSpeed: int | None = 1000
    newUpgradeSystem: bool = True
    os: str = "debian12_64"
    powerState: str = "poweron"
    professionalUse: bool = False
    rack: str = "G210A01"
    region: str = "eu-west-gra"
    reverse: str | None = None
    supportLevel: str = "pro"

    boots: list[BootEntry] = field(default_factory=list)
    service_status: str = "ok"
    interventions: dict[int, dict[str, t.Any]] = field(default_factory=dict)
    ipmi: dict[str, t.Any] = field(default_factory=lambda: {"activated": True, "supportedFeatures": {
        "kvmipHtml5URL": True, "kvmipJnlp": False, "serialOverLanSshKey": True, "serialOverLanURL": True}})

    task_seconds: dict[str, float] = field(default_factory=lambda: {"init": 0.5, "todo": 0.5, "doing": 2.0})
    reset_at: str = "doing"
    second_reboot: str = "task"
    null_clears: bool = True
    empty_reads_as: str | None = None
    ignored_puts: dict[str, int] = field(default_factory=dict)
    secret_delay: float = 0.0
    mail: MailOptions = field(default_factory=MailOptions)
    unkind: Unkind = field(default_factory=Unkind)

    tasks: dict[int, Task] = field(default_factory=dict)
    reboots: list[Task] = field(default_factory=list)  # as tasks, but nothing is ever purged from it
    booted: list[NextBoot] = field(default_factory=list)

    _owner: DedicatedServers | None = field(default=None, repr=False)
    _past: Past = field(default_factory=Past, repr=False)
    _password: str | None = field(default=None, repr=False)
    _password_from: float = field(default=0.0, repr=False)
    _runs_windows: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        """Give the server boot options of its own."""
        if not self.boots:
            self.boots = boot_entries(self.serverId)

    def boot(self, kernel: str) -> BootEntry:
        """The boot option with this kernel. KeyError if there is none."""
        for entry in self.boots:
            if entry.kernel == kernel:
                return entry
        raise KeyError(kernel)

    def armed(self) -> BootEntry:
        """What the next boot will be; asking changes nothing."""
        boot_id = self._past.seen({"bootId": self.bootId}, self.unkind.boot_lag)["bootId"]
        for entry in self.boots:
            if entry.bootId == boot_id:
                return entry
        return self.boot("hd")

    @property
    def busy(self) -> bool:
        """Whether a task has not ended."""
        return any(task.status not in ENDED for task in self.tasks.values())

    def next_boot(self) -> NextBoot:
        """The machine boots now: what does it come up in? To be called once for each boot.

        A boot into rescue without a key has a new password, which the API gives out from then on, and is mailed.
        """
        if self._owner is None:
            raise RuntimeError(f"{self.name} belongs to no API.")
        return self._owner.machine_boots(self)

    def payload(self) -> dict[str, t.Any]:
        """The server as the API shows it."""
        written = self._past.seen({name: getattr(self, name) for name in _WRITABLE}, self.unkind.setting_lag)
        shown = {**written, **{name: getattr(self, name) for name in _READ_ONLY if name != "iam"}}
        shown["iam"] = {"id": str(uuid.uuid5(uuid.NAMESPACE_DNS, self.name)),
                        "urn": f"urn:v1:eu:resource:dedicatedServer:{self.name}"}
        return self.unkind.shown(shown, ("bootId", "serverId"))


class DedicatedServers:
    """The dedicated servers of an account, and the calls that are about them."""

    def __init__(self, api: OvhApi) -> None:
        self.api = api
        self.servers: dict[str, Server] = {}
        self._task_numbers = itertools.count(123456789)

    def add(self, server: Server) -> None:
        """Take a server into the account."""
        server._owner = self
        self.servers[server.name] = server

    def routes(self) -> list[Route]:
        """What is served here."""
        one = r"/dedicated/server/([^/]+)"
        return [
            Route("GET", "/dedicated/server", self._servers),
            Route("GET", one, self._server),
            Route("PUT", one, self._change_server),
            Route("GET", one + "/boot", self._boot_ids),
            Route("GET", one + r"/boot/(\d+)", self._boot),
            Route("GET", one + r"/boot/(\d+)/option", self._boot_options),
            Route("GET", one + r"/boot/(\d+)/option/([^/]+)", self._boot_option),
            Route("POST", one + "/reboot", self._reboot),
            Route("GET", one + "/task", self._task_ids),
            Route("GET", one + r"/task/(\d+)", self._task),
            Route("POST", one + "/authenticationSecret", self._authentication_secret),
            Route("GET", one + "/serviceInfos", self._service_infos),
            Route("GET", one + "/intervention", self._intervention_ids),
            Route("GET", one + r"/intervention/(\d+)", self._intervention),
            Route("GET", one + "/features/ipmi", self._ipmi),
        ]

    # for machines

    def machine_boots(self, server: Server) -> NextBoot:
        """See Server.next_boot."""
        with self.api.lock:
            entry = server.armed()
            kind = "ipxe-shell"
            if entry.bootType == "harddisk":
                kind = "installed"
            elif entry.bootType == "power":
                kind = "poweroff"
            elif entry.bootType == "rescue" and entry.kernel != "ipxe-shell":
                kind = "windows" if "win" in entry.kernel.lower() else "rescue"
            key = server.rescueSshKey or None if kind == "rescue" else None
            password = None
            if kind in ("rescue", "windows"):
                password = None if key else secrets.token_urlsafe(12)
                server._password = password
                server._password_from = time.monotonic() + server.secret_delay
                if password:
                    self.api.passwords.add(password)
                self.api.clockwork.call_in(server.mail.delay, lambda: self._send_rescue_mail(server, password))
            server.powerState = "poweroff" if kind == "poweroff" else "poweron"
            server._runs_windows = kind == "windows"
            boot = NextBoot(kind, entry.bootId, entry.kernel, key, password, time.time())
            server.booted.append(boot)
            return boot

    # the routes

    def _servers(self, request: Request) -> t.Any:
        return list(self.servers)

    def _server(self, request: Request, name: str) -> t.Any:
        return self._find(name).payload()

    def _change_server(self, request: Request, name: str) -> t.Any:
        server, changes = self._find(name), request.data()
        check_fields(changes, _WRITABLE)
        if server.unkind.no_null and None in changes.values():
            raise ApiError(400, "[null] Given data is not valid", **{"class": "Client::BadRequest"})
        if server.unkind.conflict and server.busy:
            raise ANSWERS["409"]()
        if changes.get("state", "ok") not in SERVER_STATES:
            raise not_in_enumeration("state", changes["state"], "StateEnum")
        boot_id, ids = changes.get("bootId"), [entry.bootId for entry in server.boots]
        if boot_id is not None and boot_id not in ids:
            raise ApiError(404, f"Netboot id {boot_id} is not valid, must be on list : {', '.join(map(str, ids))}",
                           **{"class": "Client::NotFound"})
        if server.unkind.takes("ignored_writes"):
            return None
        server._past.note({field_name: getattr(server, field_name) for field_name in changes})
        for field_name, value in changes.items():
            if server.ignored_puts.get(field_name, 0) > 0:
                server.ignored_puts[field_name] -= 1
            elif str not in _WRITABLE[field_name]:
                setattr(server, field_name, value)
            elif value is not None or server.null_clears:
                setattr(server, field_name, server.empty_reads_as if value == "" else value)
        return None

    def _boot_ids(self, request: Request, name: str) -> t.Any:
        server, wanted = self._find(name), request.query.get("bootType")
        if wanted is not None and wanted not in BOOT_TYPES:
            raise not_in_enumeration("bootType", wanted, "BootTypeEnum")
        found = [entry for entry in server.boots if wanted in (None, entry.bootType)]
        return [server.unkind.id(entry.bootId) for entry in server.unkind.listed(found)]

    def _boot(self, request: Request, name: str, number: str) -> t.Any:
        entry = self._find_boot(name, number)
        return {"bootId": self._find(name).unkind.id(entry.bootId), "bootType": entry.bootType, "kernel": entry.kernel,
                "description": entry.description}

    def _boot_options(self, request: Request, name: str, number: str) -> t.Any:
        return list(self._find_boot(name, number).options)

    def _boot_option(self, request: Request, name: str, number: str, option: str) -> t.Any:
        options = self._find_boot(name, number).options
        if option not in options:
            raise not_found(f"option = {option}")
        return {"option": option, "value": options[option]}

    def _reboot(self, request: Request, name: str) -> t.Any:
        server = self._find(name)
        unkind = server.unkind
        if (server.second_reboot == "conflict" or unkind.conflict) and server.busy:
            raise ANSWERS["409"]()
        task = Task(next(self._task_numbers), startDate=self.api.date())
        server.tasks[task.taskId] = task
        server.reboots.append(task)
        fault = task_fault(request.faults)

        def enter(status: str, ended: bool) -> None:
            task.status = status
            task.history.append((status, time.time()))
            if status != "init":
                task.lastUpdate = self.api.date()
            if ended:
                task.doneDate = self.api.date()
                if fault and fault.kind == "task_purged":
                    del server.tasks[task.taskId]

        def reset() -> None:
            if server.power is None:  # no machine: it has booted at once
                server.next_boot()
            else:
                server.power.reset()

        def broken() -> None:
            task.comment = "The machine cannot be reset"

        statuses = ["init", "todo", *([unkind.unknown_state] if unkind.unknown_state else []), "doing"]
        seconds = {**server.task_seconds, unkind.unknown_state: UNKNOWN_STATE_SECONDS,
                   "todo": server.task_seconds["todo"] + unkind.queue_seconds}
        Course(self.api, statuses, seconds, "done" if unkind.early_seconds else server.reset_at, "ovhError", enter, reset, broken,
               fault, unkind.early_seconds).begin()
        return unkind.shown(task.payload(), ("taskId",))

    def _task_ids(self, request: Request, name: str) -> t.Any:
        server, function, status = self._find(name), request.query.get("function"), request.query.get("status")
        if status is not None and status not in TASK_STATUSES:
            raise not_in_enumeration("status", status, "TaskStatusEnum")
        found = [task for task in server.tasks.values() if server.unkind.is_shown(task.made_at)
                 and function in (None, "hardReboot") and status in (None, task.status)]
        return [server.unkind.id(task.taskId) for task in server.unkind.listed(found)]

    def _task(self, request: Request, name: str, number: str) -> t.Any:
        server = self._find(name)
        task = server.tasks.get(int(number))
        if task is None or not server.unkind.is_shown(task.made_at):
            raise not_found(f"taskId = {number}")
        return server.unkind.shown(task.payload(), ("taskId",))

    def _authentication_secret(self, request: Request, name: str) -> t.Any:
        """The password of the latest rescue boot: until the machine boots again, that of an earlier one."""
        server = self._find(name)
        if server._password is None or time.monotonic() < server._password_from:
            return []
        kind, user = ("RDP", "Administrator") if server._runs_windows else ("SSH", "root")  # of Windows modelled
        return [{"type": kind, "user": user, "password": self.api._new_secret(server._password), "url": None}]

    def _service_infos(self, request: Request, name: str) -> t.Any:
        server = self._find(name, even_expired=True)
        return self.api.service_infos(server.name, server.serverId + 1000, server.service_status)

    def _intervention_ids(self, request: Request, name: str) -> t.Any:
        return list(self._find(name).interventions)

    def _intervention(self, request: Request, name: str, number: str) -> t.Any:
        interventions = self._find(name).interventions
        if int(number) not in interventions:
            raise not_found(f"interventionId = {number}")
        return interventions[int(number)]

    def _ipmi(self, request: Request, name: str) -> t.Any:
        return self._find(name).ipmi

    # behind the routes

    def _find(self, name: str, even_expired: bool = False) -> Server:
        return find_service(self.servers, name, even_expired)

    def _find_boot(self, name: str, number: str) -> BootEntry:
        for entry in self._find(name).boots:
            if entry.bootId == int(number):
                return entry
        raise not_found(f"bootId = {number}")

    def _send_rescue_mail(self, server: Server, password: str | None) -> None:
        wording = ENGLISH if server.mail.language == "en" else FRENCH
        send_rescue_mail(self.api, server.name, server.ip, password, server.mail, wording,
                         "ns999999.ip-192-0-2.eu", ENGLISH, server.rescueMail)
