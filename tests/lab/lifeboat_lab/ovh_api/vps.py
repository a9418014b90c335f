# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""VPS.

Setting what a VPS boots reboots it, and what is set is shown only when the task of that has ended. How the log-in to its
rescue system comes about: by mail and by nothing else.
"""

from __future__ import annotations

import functools
import itertools
import secrets
import time
import typing as t
import uuid
from dataclasses import dataclass, field
from urllib.parse import unquote

from ..unkind import UNKNOWN_STATE_SECONDS, Past, Unkind, now
from .account import MailOptions, NextBoot, Power, find_service
from .answers import ANSWERS, ApiError, Request, Route, check_fields, not_found, not_in_enumeration
from .course import Course, task_fault
from .mails import Wording, send_rescue_mail

if t.TYPE_CHECKING:
    from .api import OvhApi

NETBOOT_MODES = ("local", "rescue")
KEYMAPS = ("fr", "us")
VPS_TASK_STATES = ("blocked", "cancelled", "doing", "done", "error", "paused", "todo", "waitingAck")
VPS_TASK_TYPES = (
    "addVeeamBackupJob", "changeRootPassword", "createSnapshot", "deleteSnapshot", "deliverVm", "getConsoleUrl", "internalTask",
    "migrate", "openConsoleAccess", "provisioningAdditionalIp", "reOpenVm", "rebootVm", "reinstallVm", "removeVeeamBackup",
    "rescheduleAutoBackup", "restoreFullVeeamBackup", "restoreVeeamBackup", "restoreVm", "revertSnapshot", "setMonitoring",
    "setNetboot", "startVm", "stopVm", "upgradeVm",
)
# A task in one of them is still to do something.
UNFINISHED = ("doing", "paused", "todo", "waitingAck")
ENDED = ("blocked", "cancelled", "done", "error")

_WRITABLE: dict[str, tuple[type, ...]] = {
    "displayName": (str, type(None)), "keymap": (str, type(None)), "netbootMode": (str,), "slaMonitoring": (bool,),
}
_READ_ONLY = ("cluster", "memoryLimit", "model", "monitoringIpBlocks", "name", "offerType", "state", "vcore", "zone", "zoneType")
_UP = {"local": "running", "rescue": "rescued"}

# Nobody recorded such a mail, so all of them are modelled.
_WORDINGS = {
    "en": Wording("Your VPS has been restarted in rescue mode", "Your VPS's rescue system is up & running.", "IP address",
                  "user", "password"),
    "fr": Wording("Votre VPS a redémarré en mode rescue", "Le système rescue de votre VPS a démarré.", "Adresse IP ",
                  "utilisateur ", "mot de passe "),
    "de": Wording("Ihr VPS wurde im Rescue-Modus gestartet", "Das Rescue-System Ihres VPS läuft.", "IP-Adresse",
                  "Benutzername", "Passwort"),
}


class VpsPower(Power, t.Protocol):
    """The power button of a virtual machine, which can be switched off too."""

    def power_off(self) -> None:
        """Cut the power. Returns at once."""


@dataclass
class VpsTask:
    """One task of a VPS. history holds (state, time.time()) for each state that it had."""

    id: int
    type: str
    date: str
    state: str = "todo"
    progress: int = 0
    history: list[tuple[str, float]] = field(default_factory=list)
    made_at: float = field(default_factory=now)

    def payload(self) -> dict[str, t.Any]:
        """The task as a kind API shows it."""
        return {"date": self.date, "id": self.id, "progress": self.progress, "state": self.state, "type": self.type}


@dataclass
class Vps:
    """A VPS. Tests may read and set everything.

    Fields in camelCase are what the API shows, under the API's names. displayName: default is the name.
    additional_ips: listed before the primary ones, for nobody promised an order. ip6: None for none. The others steer the lab:
    task_seconds: how long a task stays `todo` and `doing`. progress: what it shows while `doing`, one after the other.
    reset_at: the state on which the machine is reset (or switched off). second_task: what is asked for while a task is
    unfinished is refused by 409 (`conflict`) or by 400 (`bad_request`), or is one more task (`task`).
    With an offerType `cloud` and the version `2014v1` of the model, setting what boots reboots nothing.
    mail: its language may be en, fr and de; custom_hidden counts for nothing. unkind: see there; a refusal while a task is open is the
    default here.
    """

    name: str
    ip: str = "192.0.2.20"
    ip6: str | None = "2001:db8::20"
    power: VpsPower | None = None

    displayName: str | None = None
    keymap: str | None = None
    netbootMode: str = "local"
    slaMonitoring: bool = False
    state: str = "running"

    cluster: str = ""
    memoryLimit: int = 2048
    model: dict[str, t.Any] = field(default_factory=lambda: {
        "name": "vps-starter-1-2-20", "offer": "VPS vps2020-starter-1-2-20", "availableOptions": [], "maximumAdditionnalIp": 16,
        "version": "2019v1", "datacenter": [], "vcore": 1, "memory": 2048, "disk": 20})
    monitoringIpBlocks: list[str] = field(default_factory=list)
    offerType: str = "ssd"
    vcore: int = 1
    zone: str = "Region OpenStack: os-gra2"
    zoneType: str = "region"

    additional_ips: list[str] = field(default_factory=list)
    disks: dict[int, dict[str, t.Any]] = field(default_factory=lambda: {100001: {
        "id": 100001, "size": 20, "type": "primary", "state": "connected", "bandwidthLimit": 0, "lowFreeSpaceThreshold": 0,
        "monitoring": False, "serviceName": None}})
    service_status: str = "ok"

    task_seconds: dict[str, float] = field(default_factory=lambda: {"todo": 0.5, "doing": 2.5})
    progress: tuple[int, ...] = (0, 35, 70)
    reset_at: str = "doing"
    second_task: str = "conflict"
    mail: MailOptions = field(default_factory=MailOptions)
    unkind: Unkind = field(default_factory=Unkind)

    tasks: dict[int, VpsTask] = field(default_factory=dict)
    jobs: list[VpsTask] = field(default_factory=list)  # as tasks, but nothing is ever purged from it
    booted: list[NextBoot] = field(default_factory=list)

    _owner: AllVps | None = field(default=None, repr=False)
    _past: Past = field(default_factory=Past, repr=False)
    _password: str | None = field(default=None, repr=False)
    # What the machine boots since it was reset by a task that has not ended yet.
    _switched_to: str | None = field(default=None, repr=False)
    # Whether the next boot is a task's doing, rather than the guest's own.
    _asked: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        """Name it as the API does."""
        self.displayName = self.displayName or self.name

    @property
    def reboots_when_set(self) -> bool:
        """Whether setting what boots reboots it."""
        return (self.offerType, self.model["version"]) != ("cloud", "2014v1")

    def armed(self) -> str:
        """What the next boot will be, as a netboot mode; asking changes nothing."""
        return self._switched_to or self.netbootMode

    def next_boot(self) -> NextBoot:
        """The machine boots now: what does it come up in? To be called once for each boot.

        A boot into rescue that was asked of the API has a new password, which is mailed; where the guest rebooted by itself,
        the password stays.
        """
        if self._owner is None:
            raise RuntimeError(f"{self.name} belongs to no API.")
        return self._owner.machine_boots(self)

    def payload(self) -> dict[str, t.Any]:
        """The VPS as the API shows it."""
        written = self._past.seen({name: getattr(self, name) for name in _WRITABLE}, self.unkind.setting_lag)
        shown = {**written, **{name: getattr(self, name) for name in _READ_ONLY}}
        shown["iam"] = {"id": str(uuid.uuid5(uuid.NAMESPACE_DNS, self.name)), "urn": f"urn:v1:eu:resource:vps:{self.name}"}
        return self.unkind.shown(shown)


class AllVps:
    """The VPS of an account, and the calls that are about them."""

    def __init__(self, api: OvhApi) -> None:
        self.api = api
        self.servers: dict[str, Vps] = {}
        self._task_numbers = itertools.count(90000123)

    def add(self, vps: Vps) -> None:
        """Take a VPS into the account."""
        vps._owner = self
        self.servers[vps.name] = vps

    def routes(self) -> list[Route]:
        """What is served here."""
        one = "/vps/([^/]+)"
        return [
            Route("GET", "/vps", self._names),
            Route("GET", one, self._vps),
            Route("PUT", one, self._change),
            Route("POST", one + "/reboot", self._reboot),
            Route("POST", one + "/start", self._start),
            Route("POST", one + "/stop", self._stop),
            Route("GET", one + "/tasks", self._task_ids),
            Route("GET", one + r"/tasks/(\d+)", self._task),
            Route("POST", one + "/getConsoleUrl", self._console_url),
            Route("GET", one + "/ips", self._ips),
            Route("GET", one + "/ips/([^/]+)", self._ip),
            Route("GET", one + "/status", self._status),
            Route("GET", one + "/disks", self._disk_ids),
            Route("GET", one + r"/disks/(\d+)", self._disk),
            Route("GET", one + "/serviceInfos", self._service_infos),
        ]

    # for machines

    def machine_boots(self, vps: Vps) -> NextBoot:
        """See Vps.next_boot."""
        with self.api.lock:
            mode = vps.armed()
            asked, vps._asked = vps._asked, False
            if mode == "local":
                vps._password = None
            elif asked or vps._password is None:
                password = vps._password = secrets.token_urlsafe(12)
                self.api.passwords.add(password)
                self.api.clockwork.call_in(vps.mail.delay, lambda: self._send_rescue_mail(vps, password))
            boot = NextBoot("rescue" if mode == "rescue" else "installed", None, mode, None, vps._password, time.time())
            vps.booted.append(boot)
            return boot

    # the routes

    def _names(self, request: Request) -> t.Any:
        return list(self.servers)

    def _vps(self, request: Request, name: str) -> t.Any:
        return self._find(name).payload()

    def _change(self, request: Request, name: str) -> t.Any:
        vps, changes = self._find(name), request.data()
        check_fields(changes, _WRITABLE)
        for field_name, values, enumeration in (("netbootMode", NETBOOT_MODES, "VpsNetbootEnum"),
                                                ("keymap", KEYMAPS, "VpsKeymapEnum")):
            value = changes.get(field_name)
            if value is not None and value not in values:
                raise not_in_enumeration(field_name, value, enumeration)
        mode = changes.pop("netbootMode", None)
        if mode is not None:
            self._refuse_second(vps)
        if vps.unkind.takes("ignored_writes"):
            return None
        if mode is not None and mode != vps.netbootMode:
            self._begin(vps, "setNetboot", request, mode)
        vps._past.note({field_name: getattr(vps, field_name) for field_name in changes})
        for field_name, value in changes.items():
            setattr(vps, field_name, value)
        return None

    def _reboot(self, request: Request, name: str) -> t.Any:
        vps = self._find(name)
        self._refuse_second(vps)
        return self._begin(vps, "rebootVm", request)

    def _start(self, request: Request, name: str) -> t.Any:
        vps = self._find(name)
        self._refuse_second(vps)
        if vps.state != "stopped":  # modelled
            raise ApiError(400, "This VPS is running already", **{"class": "Client::BadRequest"})
        return self._begin(vps, "startVm", request)

    def _stop(self, request: Request, name: str) -> t.Any:
        vps = self._find(name)
        self._refuse_second(vps)
        if vps.state == "stopped":  # modelled
            raise ApiError(400, "This VPS is stopped already", **{"class": "Client::BadRequest"})
        return self._begin(vps, "stopVm", request)

    def _task_ids(self, request: Request, name: str) -> t.Any:
        vps, state, kind = self._find(name), request.query.get("state"), request.query.get("type")
        if state is not None and state not in VPS_TASK_STATES:
            raise not_in_enumeration("state", state, "TaskStateEnum")
        if kind is not None and kind not in VPS_TASK_TYPES:
            raise not_in_enumeration("type", kind, "TaskTypeEnum")
        found = [task for task in vps.tasks.values() if vps.unkind.is_shown(task.made_at)
                 and state in (None, task.state) and kind in (None, task.type)]
        return [vps.unkind.id(task.id) for task in vps.unkind.listed(found)]

    def _task(self, request: Request, name: str, number: str) -> t.Any:
        vps = self._find(name)
        task = vps.tasks.get(int(number))
        if task is None or not vps.unkind.is_shown(task.made_at):
            raise not_found(f"id = {number}")
        return vps.unkind.shown(task.payload(), ("id",))

    def _console_url(self, request: Request, name: str) -> t.Any:
        return f"https://console.example/vnc_auto.html?vps={self._find(name).name}&token={uuid.uuid4()}"

    def _ips(self, request: Request, name: str) -> t.Any:
        vps = self._find(name)
        return vps.unkind.listed([*vps.additional_ips, vps.ip, *([vps.ip6] if vps.ip6 else [])])

    def _ip(self, request: Request, name: str, ip: str) -> t.Any:
        ip = unquote(ip)
        if ip not in self._ips(request, name):
            raise not_found(f"ipAddress = {ip}")
        vps = self._find(name)
        return {"gateway": None, "geolocation": "fr", "ipAddress": ip, "macAddress": "fa:16:3e:00:00:01", "reverse": vps.name,
                "type": "additional" if ip in vps.additional_ips else "primary", "version": "v6" if ":" in ip else "v4"}

    def _status(self, request: Request, name: str) -> t.Any:
        state = "up" if self._find(name).state in _UP.values() else "down"
        services = {"dns": 53, "http": 80, "https": 443, "smtp": 25}
        return {"ping": state, "ssh": {"port": 22, "state": state}, "tools": None,
                **{service: {"port": port, "state": "down"} for service, port in services.items()}}

    def _disk_ids(self, request: Request, name: str) -> t.Any:
        return list(self._find(name).disks)

    def _disk(self, request: Request, name: str, number: str) -> t.Any:
        disks = self._find(name).disks
        if int(number) not in disks:
            raise not_found(f"id = {number}")
        return disks[int(number)]

    def _service_infos(self, request: Request, name: str) -> t.Any:
        vps = self._find(name, even_expired=True)
        return self.api.service_infos(vps.name, 300000 + list(self.servers).index(vps.name), vps.service_status)

    # behind the routes

    def _find(self, name: str, even_expired: bool = False) -> Vps:
        return find_service(self.servers, name, even_expired)

    @staticmethod
    def _refuse_second(vps: Vps) -> None:
        # Nobody knows what the real API answers.
        if vps.second_task == "task" or all(task.state in ENDED for task in vps.tasks.values()):
            return
        if vps.second_task == "conflict":
            raise ANSWERS["409"]()
        raise ApiError(400, "Another task is running on this VPS", **{"class": "Client::BadRequest"})

    def _begin(self, vps: Vps, kind: str, request: Request, mode: str | None = None) -> dict[str, t.Any]:
        """Make a task, and let it begin. mode: what is to boot from now on, where that changes."""
        task = VpsTask(next(self._task_numbers), kind, self.api.date())
        vps.tasks[task.id] = task
        vps.jobs.append(task)
        unkind = vps.unkind
        if mode is not None and not vps.reboots_when_set:
            vps._past.note({"netbootMode": vps.netbootMode})
            vps.netbootMode, task.state, task.progress = mode, "done", 100
            return unkind.shown(task.payload(), ("id",))
        fault = task_fault(request.faults)
        before = _UP[vps.netbootMode] if vps.state in ("rebooting", "stopping") else vps.state
        vps.state = "stopping" if kind == "stopVm" else "rebooting"
        acted = False

        def enter(state: str, ended: bool) -> None:
            task.state = state
            task.history.append((state, time.time()))
            if state == "doing":
                self._show_progress(vps, task)
            if not ended:
                return
            if state == "done":
                task.progress = 100
                vps._past.note({"netbootMode": vps.netbootMode})
                vps.netbootMode = mode or vps.netbootMode
            if state == "done" or acted:
                vps.state = "stopped" if kind == "stopVm" else _UP[vps.armed()]
            else:
                vps.state = before
            vps._switched_to = None
            if fault and fault.kind == "task_purged":
                del vps.tasks[task.id]

        def act() -> None:
            nonlocal acted
            acted = True
            if kind == "stopVm":
                if vps.power is not None:
                    vps.power.power_off()
                return
            with self.api.lock:
                vps._asked = True
                if task.state != "done":
                    vps._switched_to = mode
            if vps.power is None:  # no machine: it has booted at once
                vps.next_boot()
            else:
                vps.power.reset()

        states = ["todo", *([unkind.unknown_state] if unkind.unknown_state else []), "doing"]
        seconds = {**vps.task_seconds, unkind.unknown_state: UNKNOWN_STATE_SECONDS,
                   "todo": vps.task_seconds["todo"] + unkind.queue_seconds}
        Course(self.api, states, seconds, "done" if unkind.early_seconds else vps.reset_at, "error", enter, act, lambda: None, fault,
               unkind.early_seconds).begin()
        return unkind.shown(task.payload(), ("id",))

    def _show_progress(self, vps: Vps, task: VpsTask) -> None:
        def show(percent: int) -> None:
            with self.api.lock:
                if task.state == "doing":
                    task.progress = percent

        for number, percent in enumerate(vps.progress):
            seconds = vps.task_seconds["doing"] * number / len(vps.progress) if number else 0.0
            self.api.clockwork.call_in(seconds, functools.partial(show, percent))

    def _send_rescue_mail(self, vps: Vps, password: str) -> None:
        send_rescue_mail(self.api, vps.name, vps.ip, password, vps.mail, _WORDINGS[vps.mail.language],
                         "vps-ffffffff.vps.ovh.net", _WORDINGS["en"])
