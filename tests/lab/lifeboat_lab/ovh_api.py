# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The OVH API for dedicated servers, on loopback.

It speaks the wire format that the `ovh` client speaks: signed requests, `null` for void, tasks that take time, secrets
and mails. What the real API is known to answer comes from its public schemas and from answers that people recorded; an
answer that nobody recorded says "modelled" in a comment here, and a client must not lean on its text.

    server = Server("ns100001.ip-192-0-2.eu", ip="127.0.0.50", power=machine)
    with OvhApi([server]) as api:
        ovh.client.ENDPOINTS["lab"] = api.url
        client = ovh.Client("lab", **api.credential.client_arguments())

The machine behind a server is an object with `reset()` (see Power). Whenever it boots, for a reset or for a reboot from
inside, it calls `server.next_boot()` once and comes up in what that says.
"""

from __future__ import annotations

import contextlib
import hashlib
import heapq
import hmac
import html
import itertools
import json
import math
import re
import secrets
import socket
import socketserver
import struct
import sys
import threading
import time
import traceback
import typing as t
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from email.message import Message
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

# What a consumer key needs for everything that this collection does to a dedicated server.
MINIMUM_RULES = (
    ("GET", "/dedicated/server/*"),
    ("PUT", "/dedicated/server/*"),
    ("POST", "/dedicated/server/*/reboot"),
    ("POST", "/dedicated/server/*/authenticationSecret"),
    ("GET", "/me/notification/email/history*"),
)

BOOT_TYPES = ("harddisk", "internal", "network", "power", "rescue")
TASK_STATUSES = ("cancelled", "customerError", "doing", "done", "init", "ovhError", "todo")
SERVER_STATES = ("error", "hacked", "hackedBlocked", "ok")

_TEXT, _FLAG, _NUMBER = (str, type(None)), (bool,), (int, type(None))
_WRITABLE: dict[str, tuple[type, ...]] = {
    "bootId": _NUMBER, "bootScript": _TEXT, "efiBootloaderPath": _TEXT, "monitoring": _FLAG, "noIntervention": _FLAG,
    "rescueMail": _TEXT, "rescueSshKey": _TEXT, "rootDevice": _TEXT, "state": (str,),
}
_READ_ONLY = (
    "availabilityZone", "commercialRange", "datacenter", "iam", "ip", "linkSpeed", "name", "newUpgradeSystem", "os",
    "powerState", "professionalUse", "rack", "region", "reverse", "serverId", "supportLevel",
)


class Power(t.Protocol):
    """The power button of a machine."""

    def reset(self) -> None:
        """Cut the power and boot again, or boot a machine that is off. Returns at once."""


@dataclass(frozen=True)
class NextBoot:
    """What a machine boots, as it asked for it.

    kind: `installed`, `rescue` (Linux, SSH answers), `poweroff` (the machine goes off), or `ipxe-shell` (the machine
    is on and nothing answers; a Windows rescue or another netboot kernel, which the lab has not, counts as this).
    ssh_key, password: what lets root into the rescue system; at most one of them is set.
    at: seconds since the epoch, by the lab's own clock.
    """

    kind: str
    boot_id: int | None
    kernel: str
    ssh_key: str | None
    password: str | None = field(repr=False)
    at: float


@dataclass
class BootEntry:
    """One line of `GET …/boot`. options maps the name of a boot option to its value."""

    bootId: int
    bootType: str
    kernel: str
    description: str
    options: dict[str, str] = field(default_factory=dict)


@dataclass
class MailOptions:
    """How a server's rescue mail looks. delay in seconds after the boot, math.inf for no mail at all.

    unrelated: how many other mails come in just before. custom_hidden: a mail to an address that is not the account's
    own (`rescueMail`) does not appear in the account's history; nobody is sure about the real API, so both exist.
    """

    language: str = "en"
    plain_password: bool = False
    delay: float = 0.0
    unrelated: int = 0
    custom_hidden: bool = True


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

    def payload(self) -> dict[str, t.Any]:
        """The task as the API shows it."""
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
    authenticationSecret knows the password. Seconds may be math.inf.
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

    tasks: dict[int, Task] = field(default_factory=dict)
    reboots: list[Task] = field(default_factory=list)  # as tasks, but nothing is ever purged from it
    booted: list[NextBoot] = field(default_factory=list)

    _api: OvhApi | None = field(default=None, repr=False)
    _password: str | None = field(default=None, repr=False)
    _password_from: float = field(default=0.0, repr=False)

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
        for entry in self.boots:
            if entry.bootId == self.bootId:
                return entry
        return self.boot("hd")

    def next_boot(self) -> NextBoot:
        """The machine boots now: what does it come up in? To be called once for each boot.

        A boot into rescue without a key has a new password, which the API gives out from then on, and is mailed.
        """
        if self._api is None:
            raise RuntimeError(f"{self.name} belongs to no API.")
        return self._api.machine_boots(self)

    def payload(self) -> dict[str, t.Any]:
        """The server as the API shows it."""
        shown = {name: getattr(self, name) for name in (*_WRITABLE, *_READ_ONLY) if name != "iam"}
        shown["iam"] = {"id": str(uuid.uuid5(uuid.NAMESPACE_DNS, self.name)),
                        "urn": f"urn:v1:eu:resource:dedicatedServer:{self.name}"}
        return shown


@dataclass
class Credential:
    """An application with a consumer key and its rules, as (method, path with *).

    A status other than `validated` is refused.
    """

    rules: list[tuple[str, str]]
    status: str = "validated"
    application_key: str = field(default_factory=lambda: secrets.token_hex(8))
    application_secret: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    consumer_key: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    credential_id: int = field(default_factory=lambda: secrets.randbelow(10**9))
    created: float = field(default_factory=time.time)
    last_use: float | None = None

    def client_arguments(self) -> dict[str, str]:
        """The keyword arguments of ovh.Client."""
        return {"application_key": self.application_key, "application_secret": self.application_secret,
                "consumer_key": self.consumer_key}

    def grants(self, method: str, path: str) -> bool:
        """Whether a rule covers this call. `*` stands for anything, also for slashes and for nothing."""
        return any(method == allowed and re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), path)
                   for allowed, pattern in self.rules)


@dataclass
class Mail:
    """A mail that was sent. in_history: whether the account's history shows it."""

    id: int
    date: str
    subject: str
    body: str = field(repr=False)
    to: str = ""
    in_history: bool = True


@dataclass
class Secret:
    """What `/secret/retrieve` gives out: 30 days long, 7 days after the first reading."""

    value: str = field(repr=False)
    expires: float
    reads: int = 0


@dataclass(frozen=True)
class Call:
    """One line of the log. path has its version and query; status is None where the connection was reset."""

    time: float
    method: str
    path: str
    body: t.Any
    status: int | None
    fault: str | None
    seconds: float


class ApiError(Exception):
    """An answer that is no success. more: the keys of its body besides the message."""

    def __init__(self, status: int, message: str, **more: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = {**more, "message": message}


def _not_found(what: str) -> ApiError:
    return ApiError(404, f"The requested object ({what}) does not exist", **{"class": "Client::NotFound"})


def _refused(status: int, code: str, message: str) -> ApiError:
    return ApiError(status, message, errorCode=code, httpCode={400: "400 Bad Request", 403: "403 Forbidden"}[status])


# kind of fault → the answer. 409, 429 and 460 are modelled.
_ANSWERS: dict[str, Callable[[], ApiError]] = {
    "403": lambda: _refused(403, "NOT_GRANTED_CALL", "This call has not been granted"),
    "invalid-credential": lambda: _refused(403, "INVALID_CREDENTIAL", "This credential is not valid"),
    "404": lambda: ApiError(404, "This service does not exist", **{"class": "Client::NotFound"}),
    "409": lambda: ApiError(409, "An operation is already running on this server", **{"class": "Client::Conflict"}),
    "429": lambda: ApiError(429, "Too many requests", **{"class": "Client::TooManyRequests"}),
    "460": lambda: ApiError(460, "This service is expired", **{"class": "Client::Expired"}),
    "500": lambda: ApiError(500, "Internal server error", **{"class": "Server::InternalServerError"}),
}
_TASK_FAULTS = ("task_ends", "task_hangs", "task_purged")
_HTML_503 = b"<html><head><title>503</title></head><body><h1>503 Service Unavailable</h1></body></html>"


@dataclass
class Fault:
    """One fault; Faults.add says what the fields mean. hits counts how often it struck."""

    method: str
    path: re.Pattern[str]
    kind: str
    times: float
    every: int
    after: int
    seconds: float
    status: str
    resets: bool
    acts: bool
    seen: int = 0
    hits: int = 0

    def strikes(self, method: str, path: str) -> bool:
        """Count this call; tell whether the fault strikes it."""
        if self.method not in ("*", method) or not self.path.search(path):
            return False
        self.seen += 1
        if self.hits >= self.times or self.seen <= self.after or (self.seen - self.after) % self.every:
            return False
        self.hits += 1
        return True


class Faults:
    """The fault switches of an API."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, method: str, path_regex: str, kind: str, *, times: int | None = None, every: int | None = None,
            after: int = 0, seconds: float = 0.0, status: str = "", resets: bool | None = None,
            acts: bool = False) -> Fault:
        """Let calls fail.

        method: GET, PUT, POST, DELETE or `*`. path_regex: searched in the path without its version, with its query.
        kind: `delay` (of `seconds`; the call is carried out afterwards), `403`, `invalid-credential`, `404`, `409`,
        `429`, `460`, `500`, `503-html`, `reset` (of the connection); or, for the task that a POST …/reboot makes,
        `task_ends` (as `status`: ovhError, customerError, cancelled), `task_hangs` (for ever in `status`, default
        `doing`), `task_purged` (404 from the moment that it is done).
        The first `after` matching calls pass; of those that follow, every `every`-th is struck, `times` times (default:
        once, or without end where `every` is given).
        acts: the call is carried out nevertheless, and only its answer is lost. resets: whether the machine of a
        faulty task is reset; default: not when it ends badly.
        """
        if kind not in (*_ANSWERS, *_TASK_FAULTS, "delay", "503-html", "reset"):
            raise ValueError(f"no such fault: {kind}")
        default = {"task_ends": "ovhError", "task_hangs": "doing"}.get(kind, "")
        if (status or default) not in ("", *TASK_STATUSES):
            raise ValueError(f"no such status of a task: {status}")
        limit = times if times is not None else 1 if every is None else math.inf
        fault = Fault(method, re.compile(path_regex), kind, limit, every or 1, after, seconds, status or default,
                      kind != "task_ends" if resets is None else resets, acts)
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """Let everything work again. Tasks under way keep their faults."""
        with self._lock:
            self._faults.clear()

    def strike(self, method: str, path: str) -> list[Fault]:
        """The faults that strike this call: any delays and task faults, and at most one that spoils the answer."""
        struck: list[Fault] = []
        with self._lock:
            for fault in self._faults:
                spoils = fault.kind not in ("delay", *_TASK_FAULTS)
                if spoils and any(other.kind not in ("delay", *_TASK_FAULTS) for other in struck):
                    continue
                if fault.strikes(method, path):
                    struck.append(fault)
        return struck


class _Clockwork:
    """Calls functions later, one after the other, on one thread."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="ovh-api-clockwork", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def call_in(self, seconds: float, function: Callable[[], None]) -> None:
        if math.isinf(seconds):
            return
        with self._changed:
            heapq.heappush(self._due, (time.monotonic() + seconds, next(self._count), function))
            self._changed.notify()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout=10)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._stopped and (not self._due or self._due[0][0] > time.monotonic()):
                    self._changed.wait(self._due[0][0] - time.monotonic() if self._due else None)
                if self._stopped:
                    return
                function = heapq.heappop(self._due)[2]
            try:
                function()
            except Exception:  # a broken machine must not stop the clock of the others
                traceback.print_exc(file=sys.stderr)


class _Reset(Exception):
    """The connection is to be reset instead of answered."""


class _Answer(t.NamedTuple):
    status: int
    content: bytes
    content_type: str = "application/json; charset=utf-8"


class _Request(t.NamedTuple):
    method: str
    target: str  # as it stood in the request line
    headers: Message
    body: bytes

    @property
    def path(self) -> str:
        """The path without its version, with its query; empty where the version is none of ours."""
        found = re.match(r"/(?:1\.0|v1)(/.*)", self.target)
        return found[1] if found else ""

    @property
    def query(self) -> dict[str, str]:
        return {name: values[-1] for name, values in parse_qs(urlsplit(self.target).query).items()}

    def data(self) -> dict[str, t.Any]:
        """The JSON object in the body. The real API calls a body that it cannot read a wrong signature."""
        try:
            data = json.loads(self.body or b"{}")
        except ValueError:
            data = None
        if not isinstance(data, dict):
            raise _refused(400, "INVALID_SIGNATURE", "Invalid signature")
        return data


_SERVER = r"/dedicated/server/([^/]+)"
# method, path, method of OvhApi, whether it is for signed calls only
_ROUTES: list[tuple[str, re.Pattern[str], str, bool]] = [
    (method, re.compile(path), name, signed) for method, path, name, signed in (
        ("GET", "/auth/time", "_time", False),
        ("GET", "/auth/currentCredential", "_current_credential", True),
        ("POST", "/secret/retrieve", "_retrieve_secret", False),
        ("GET", "/me/notification/email/history", "_mail_ids", True),
        ("GET", r"/me/notification/email/history/(\d+)", "_mail", True),
        ("GET", "/dedicated/server", "_servers", True),
        ("GET", _SERVER, "_server", True),
        ("PUT", _SERVER, "_change_server", True),
        ("GET", _SERVER + "/boot", "_boot_ids", True),
        ("GET", _SERVER + r"/boot/(\d+)", "_boot", True),
        ("GET", _SERVER + r"/boot/(\d+)/option", "_boot_options", True),
        ("GET", _SERVER + r"/boot/(\d+)/option/([^/]+)", "_boot_option", True),
        ("POST", _SERVER + "/reboot", "_reboot", True),
        ("GET", _SERVER + "/task", "_task_ids", True),
        ("GET", _SERVER + r"/task/(\d+)", "_task", True),
        ("POST", _SERVER + "/authenticationSecret", "_authentication_secret", True),
        ("GET", _SERVER + "/serviceInfos", "_service_infos", True),
        ("GET", _SERVER + "/intervention", "_intervention_ids", True),
        ("GET", _SERVER + r"/intervention/(\d+)", "_intervention", True),
        ("GET", _SERVER + "/features/ipmi", "_ipmi", True),
    )
]


class OvhApi:
    """The API: servers, credentials, mails, secrets, faults and a log, served on loopback while it is entered.

    clock_skew: seconds by which the API's clock is ahead of this machine's. secret_reads: how often a secret can be
    read. current_credential_needs_rule: whether /auth/currentCredential has to be granted like any other call.
    log_file: one JSON object a line for each call, as in `log`.
    """

    nic = "xx00000-ovh"
    account_mail = "someone@example.com"
    time_window = 300.0

    def __init__(self, servers: Iterable[Server] = (), *, address: str = "127.0.0.1", port: int = 0,
                 rules: Iterable[tuple[str, str]] = MINIMUM_RULES, log_file: Path | None = None,
                 clock_skew: float = 0.0) -> None:
        """Take the port; port 0 takes a free one. rules: those of the first credential, `credential`."""
        self.servers: dict[str, Server] = {}
        self.credentials: dict[str, Credential] = {}
        self.credential = self.add_credential(rules)
        self.mails: list[Mail] = []
        self.secrets: dict[str, Secret] = {}
        self.faults = Faults()
        self.log: list[Call] = []
        self.clock_skew = clock_skew
        self.secret_reads: float = math.inf
        self.current_credential_needs_rule = False
        self._passwords: set[str] = set()
        self._log_file = log_file
        self._lock = threading.RLock()
        self._clockwork = _Clockwork()
        self._closing = threading.Event()
        self._task_numbers = itertools.count(123456789)
        self._mail_numbers = itertools.count(4000000001)
        self._query_numbers = itertools.count(1)
        self._http = _HttpServer((address, port), self)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), name="ovh-api", daemon=True)
        self.address = address
        self.port: int = self._http.server_address[1]
        self.url = f"http://{self.address}:{self.port}/1.0"
        for server in servers:
            self.add(server)

    # for tests

    def __enter__(self) -> OvhApi:
        self._clockwork.start()
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop serving: connections are cut, tasks stand still, the port is free. Twice is the same as once."""
        self._closing.set()
        self._clockwork.stop()
        if self._thread.is_alive():
            self._http.shutdown()
            self._thread.join(timeout=10)
        self._http.server_close()
        self._http.cut_connections()

    def add(self, server: Server) -> Server:
        """Take a server into the account."""
        server._api = self
        self.servers[server.name] = server
        return server

    def add_credential(self, rules: Iterable[tuple[str, str]]) -> Credential:
        """One more application and consumer key, with these rules."""
        credential = Credential(list(rules))
        self.credentials[credential.consumer_key] = credential
        return credential

    def add_mail(self, subject: str, body: str, *, to: str | None = None, date: str | None = None,
                 in_history: bool = True) -> Mail:
        """Send a mail, now or (date) long ago."""
        mail = Mail(next(self._mail_numbers), date or self._date(), subject, body, to or self.account_mail, in_history)
        with self._lock:
            self.mails.append(mail)
        return mail

    def writes(self) -> list[Call]:
        """The calls that were meant to change something, also those that failed."""
        with self._lock:
            return [call for call in self.log if call.method != "GET" and not call.path.endswith("/secret/retrieve")]

    def sensitive(self) -> set[str]:
        """Every secret that there is or was: for tests that look for them where they must not be."""
        with self._lock:
            return {*self._passwords, *self.secrets, *(text for credential in self.credentials.values() for text in
                                                       (credential.application_secret, credential.consumer_key))}

    # for machines

    def machine_boots(self, server: Server) -> NextBoot:
        """See Server.next_boot."""
        with self._lock:
            entry = server.armed()
            kind = "ipxe-shell"
            if entry.bootType == "harddisk":
                kind = "installed"
            elif entry.bootType == "power":
                kind = "poweroff"
            elif entry.bootType == "rescue" and entry.kernel != "ipxe-shell" and "win" not in entry.kernel.lower():
                kind = "rescue"
            key = server.rescueSshKey or None if kind == "rescue" else None
            password = None
            if kind == "rescue":
                password = None if key else secrets.token_urlsafe(12)
                server._password = password
                server._password_from = time.monotonic() + server.secret_delay
                if password:
                    self._passwords.add(password)
                self._clockwork.call_in(server.mail.delay, lambda: self._send_rescue_mail(server, password))
            server.powerState = "poweroff" if kind == "poweroff" else "poweron"
            boot = NextBoot(kind, server.bootId, entry.kernel, key, password, time.time())
            server.booted.append(boot)
            return boot

    # the routes

    def _time(self, request: _Request) -> t.Any:
        return int(self._now())

    def _current_credential(self, request: _Request) -> t.Any:
        credential = self.credentials[request.headers["X-Ovh-Consumer"]]
        return {"credentialId": credential.credential_id, "applicationId": credential.credential_id // 2,
                "status": credential.status, "creation": self._date(credential.created), "expiration": None,
                "lastUse": self._date(credential.last_use), "ovhSupport": False, "allowedIPs": None,
                "rules": [{"method": method, "path": path} for method, path in credential.rules]}

    def _retrieve_secret(self, request: _Request) -> t.Any:
        secret = self.secrets.get(str(request.data().get("id")))
        now = self._now()
        if secret is None or now > secret.expires or secret.reads >= self.secret_reads:
            raise _not_found("secret")  # modelled
        secret.reads += 1
        secret.expires = min(secret.expires, now + 7 * 86400)
        return {"secret": secret.value, "expiration": self._date(secret.expires)}

    def _mail_ids(self, request: _Request) -> t.Any:
        return [mail.id for mail in self.mails if mail.in_history]

    def _mail(self, request: _Request, number: str) -> t.Any:
        for mail in self.mails:
            if mail.in_history and mail.id == int(number):
                return {"id": mail.id, "date": mail.date, "subject": mail.subject, "body": mail.body}
        raise _not_found(f"id = {number}")

    def _servers(self, request: _Request) -> t.Any:
        return list(self.servers)

    def _server(self, request: _Request, name: str) -> t.Any:
        return self._find(name).payload()

    def _change_server(self, request: _Request, name: str) -> t.Any:
        server, changes = self._find(name), request.data()
        for field_name, value in changes.items():
            kinds = _WRITABLE.get(field_name)
            if kinds is None:  # modelled
                raise ApiError(400, f"[{field_name}] This field is read-only or unknown",
                               **{"class": "Client::BadRequest"})
            if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
                raise _refused(400, "INVALID_SIGNATURE", "Invalid signature")
        if changes.get("state", "ok") not in SERVER_STATES:
            raise self._not_in_enumeration("state", changes["state"], "StateEnum")
        boot_id, ids = changes.get("bootId"), [entry.bootId for entry in server.boots]
        if boot_id is not None and boot_id not in ids:
            raise ApiError(404, f"Netboot id {boot_id} is not valid, must be on list : {', '.join(map(str, ids))}",
                           **{"class": "Client::NotFound"})
        for field_name, value in changes.items():
            if server.ignored_puts.get(field_name, 0) > 0:
                server.ignored_puts[field_name] -= 1
            elif str not in _WRITABLE[field_name]:
                setattr(server, field_name, value)
            elif value is not None or server.null_clears:
                setattr(server, field_name, server.empty_reads_as if value == "" else value)
        return None

    def _boot_ids(self, request: _Request, name: str) -> t.Any:
        server, wanted = self._find(name), request.query.get("bootType")
        if wanted is not None and wanted not in BOOT_TYPES:
            raise self._not_in_enumeration("bootType", wanted, "BootTypeEnum")
        return [entry.bootId for entry in server.boots if wanted in (None, entry.bootType)]

    def _boot(self, request: _Request, name: str, number: str) -> t.Any:
        entry = self._find_boot(name, number)
        return {"bootId": entry.bootId, "bootType": entry.bootType, "kernel": entry.kernel,
                "description": entry.description}

    def _boot_options(self, request: _Request, name: str, number: str) -> t.Any:
        return list(self._find_boot(name, number).options)

    def _boot_option(self, request: _Request, name: str, number: str, option: str) -> t.Any:
        options = self._find_boot(name, number).options
        if option not in options:
            raise _not_found(f"option = {option}")
        return {"option": option, "value": options[option]}

    def _reboot(self, request: _Request, name: str, faults: Sequence[Fault] = ()) -> t.Any:
        server = self._find(name)
        if server.second_reboot == "conflict" and any(task.status in ("init", "todo", "doing")
                                                      for task in server.tasks.values()):
            raise _ANSWERS["409"]()
        task = Task(next(self._task_numbers), startDate=self._date())
        server.tasks[task.taskId] = task
        server.reboots.append(task)
        fault = next((fault for fault in faults if fault.kind in _TASK_FAULTS), None)
        # On the clock's thread, for a machine is never touched under our lock: it may have to ask for its next boot.
        self._clockwork.call_in(0, lambda: self._enter_status(server, task, "init", fault))
        return task.payload()

    def _task_ids(self, request: _Request, name: str) -> t.Any:
        server, function, status = self._find(name), request.query.get("function"), request.query.get("status")
        if status is not None and status not in TASK_STATUSES:
            raise self._not_in_enumeration("status", status, "TaskStatusEnum")
        return [task.taskId for task in server.tasks.values()
                if function in (None, "hardReboot") and status in (None, task.status)]

    def _task(self, request: _Request, name: str, number: str) -> t.Any:
        task = self._find(name).tasks.get(int(number))
        if task is None:
            raise _not_found(f"taskId = {number}")
        return task.payload()

    def _authentication_secret(self, request: _Request, name: str) -> t.Any:
        """The password of the latest rescue boot: until the machine boots again, that of an earlier one."""
        server = self._find(name)
        if server._password is None or time.monotonic() < server._password_from:
            return []
        return [{"type": "SSH", "user": "root", "password": self._new_secret(server._password), "url": None}]

    def _service_infos(self, request: _Request, name: str) -> t.Any:
        server = self._find(name, even_expired=True)
        return {"canDeleteAtExpiration": True, "contactAdmin": self.nic, "contactBilling": self.nic,
                "contactTech": self.nic, "creation": "2020-01-01", "domain": server.name, "engagedUpTo": None,
                "expiration": "2030-01-01", "possibleRenewPeriod": [1, 3, 6, 12], "renewalType": "automaticV2016",
                "renew": {"automatic": True, "deleteAtExpiration": False, "forced": False, "manualPayment": False,
                          "period": 1}, "serviceId": server.serverId + 1000, "status": server.service_status}

    def _intervention_ids(self, request: _Request, name: str) -> t.Any:
        return list(self._find(name).interventions)

    def _intervention(self, request: _Request, name: str, number: str) -> t.Any:
        interventions = self._find(name).interventions
        if int(number) not in interventions:
            raise _not_found(f"interventionId = {number}")
        return interventions[int(number)]

    def _ipmi(self, request: _Request, name: str) -> t.Any:
        return self._find(name).ipmi

    # behind the routes

    def _now(self) -> float:
        return time.time() + self.clock_skew

    def _date(self, at: float | None = None) -> str:
        return datetime.fromtimestamp(self._now() if at is None else at, UTC).isoformat(timespec="seconds")

    def _find(self, name: str, even_expired: bool = False) -> Server:
        server = self.servers.get(unquote(name))
        if server is None:
            raise _ANSWERS["404"]()
        if server.service_status == "expired" and not even_expired:
            raise _ANSWERS["460"]()
        return server

    def _find_boot(self, name: str, number: str) -> BootEntry:
        for entry in self._find(name).boots:
            if entry.bootId == int(number):
                return entry
        raise _not_found(f"bootId = {number}")

    @staticmethod
    def _not_in_enumeration(name: str, value: t.Any, enumeration: str) -> ApiError:
        return ApiError(400, f"[{name}] Given data ({value}) does not belong to the {enumeration} enumeration",
                        **{"class": "Client::BadRequest"})  # modelled

    def _new_secret(self, value: str) -> str:
        number = str(uuid.uuid4())
        self.secrets[number] = Secret(value, self._now() + 30 * 86400)
        return number

    def _enter_status(self, server: Server, task: Task, status: str, fault: Fault | None) -> None:
        """Move a task on, reset the machine when it is time, and wind the clock for the next status."""
        ended = status not in ("init", "todo", "doing")
        with self._lock:
            task.status = status
            task.history.append((status, time.time()))
            if status != "init":
                task.lastUpdate = self._date()
            if ended:
                task.doneDate = self._date()
                if fault and fault.kind == "task_purged":
                    del server.tasks[task.taskId]
        if (status == server.reset_at or (ended and server.reset_at == "done")) and (fault is None or fault.resets):
            try:
                if server.power is None:  # no machine: it has booted at once
                    server.next_boot()
                else:
                    server.power.reset()
            except Exception:  # as the real API would have it: the task fails, and the API goes on
                traceback.print_exc(file=sys.stderr)
                task.comment = "The machine cannot be reset"
                if not ended:
                    self._enter_status(server, task, "ovhError", fault)
                return
        if ended or (fault and fault.kind == "task_hangs" and fault.status == status):
            return
        follows = {"init": "todo", "todo": "doing", "doing": "done"}[status]
        if follows == "done" and fault and fault.kind == "task_ends":
            follows = fault.status
        self._clockwork.call_in(server.task_seconds[status],
                                lambda: self._enter_status(server, task, follows, fault))

    def _send_rescue_mail(self, server: Server, password: str | None) -> None:
        options = server.mail
        for number in range(options.unrelated):
            if number % 2:
                self.add_mail(f"[{self.nic}] [{server.name}] Your server's monitoring", "Monitoring was changed.")
            else:
                self.add_mail(f"[{self.nic}] [ns999999.ip-192-0-2.eu] Access settings for Linux rescue mode",
                              "<br>\n".join((" - IP address: 192.0.2.99", " - user: root", " - password: not-yours")))
        with self._lock:
            link = password
            if password and not options.plain_password:
                link = f"https://www.ovh.com/manager/secret/#?id={self._new_secret(password)}"
        # The English mail is as recorded; nobody recorded another language, so the other one is modelled.
        if options.language == "en":
            subject = "Access settings for Linux rescue mode"
            lines = ["Your server's rescue system is up & running.", f" - IP address: {server.ip}", " - user: root"]
            label = "password"
        else:
            subject = "Paramètres d'accès au mode rescue Linux"
            lines = ["Le système rescue de votre serveur a démarré.", f" - Adresse IP : {server.ip}",
                     " - utilisateur : root"]
            label = "mot de passe "
        if link:
            lines.append(f" - {label}: {link}")
        to = server.rescueMail or self.account_mail
        self.add_mail(f"[{self.nic}] [{server.name}] {subject}", "<br>\n".join(map(html.escape, lines)), to=to,
                      in_history=to == self.account_mail or not options.custom_hidden)

    # a request

    def query_id(self) -> str:
        """A new X-OVH-QUERYID."""
        return f"LAB.ext-1.{secrets.token_hex(4)}.{next(self._query_numbers)}"

    def answer(self, request: _Request) -> _Answer:
        """Answer a request, faults included, and log it. Raises _Reset for a connection to be reset."""
        started, clock = time.time(), time.monotonic()
        faults = self.faults.strike(request.method, request.path)
        spoiler = next((fault for fault in faults if fault.kind not in ("delay", *_TASK_FAULTS)), None)
        delay = sum(fault.seconds for fault in faults if fault.kind == "delay")
        answer: _Answer | None = None
        if not (delay and self._closing.wait(delay)):
            if spoiler is None or spoiler.acts:
                answer = self._carry_out(request, faults)
            if spoiler is not None:
                answer = self._spoilt(spoiler.kind)
        self._write_log(Call(started, request.method, request.target, _redacted(request),
                             answer.status if answer else None, "+".join(fault.kind for fault in faults) or None,
                             round(time.monotonic() - clock, 6)))
        if answer is None:
            raise _Reset
        return answer

    @staticmethod
    def _spoilt(kind: str) -> _Answer | None:
        if kind == "reset":
            return None
        if kind == "503-html":
            return _Answer(503, _HTML_503, "text/html")
        error = _ANSWERS[kind]()
        return _Answer(error.status, json.dumps(error.body).encode())

    def _carry_out(self, request: _Request, faults: Sequence[Fault]) -> _Answer:
        try:
            with self._lock:
                path = request.path.partition("?")[0]
                for method, pattern, name, signed in _ROUTES:
                    found = pattern.fullmatch(path)
                    if found and method == request.method:
                        if signed:
                            self._check_signature(request, path)
                        more = {"faults": faults} if name == "_reboot" else {}
                        return _Answer(200, json.dumps(getattr(self, name)(request, *found.groups(), **more)).encode())
                raise ApiError(404, "Got an invalid (or empty) URL", **{"class": "Client::NotFound"})
        except ApiError as error:
            return _Answer(error.status, json.dumps(error.body).encode())

    def _check_signature(self, request: _Request, path: str) -> None:
        """Refuse a call that is not signed rightly, or not granted."""
        header = request.headers.get
        application, consumer = header("X-Ovh-Application"), header("X-Ovh-Consumer")
        timestamp, signature = header("X-Ovh-Timestamp"), header("X-Ovh-Signature")
        if not (application and consumer and timestamp and signature):
            raise ApiError(401, "You must login first", **{"class": "Client::Unauthorized"})
        if all(application != known.application_key for known in self.credentials.values()):
            raise ApiError(403, "This application key is invalid", **{"class": "Client::Forbidden"})
        credential = self.credentials.get(consumer)
        if credential is None or credential.application_key != application or credential.status != "validated":
            raise _ANSWERS["invalid-credential"]()
        if not timestamp.isascii() or not timestamp.isdigit() or abs(int(timestamp) - self._now()) > self.time_window:
            raise _refused(400, "QUERY_TIME_OUT", "Query out of time")  # the code is modelled
        url = "http://" + request.headers.get("Host", "") + request.target  # as the client knew it
        signed = "+".join((credential.application_secret, consumer, request.method, url)).encode()
        expected = "$1$" + hashlib.sha1(b"+".join((signed, request.body, timestamp.encode()))).hexdigest()
        if not hmac.compare_digest(expected.encode(), signature.encode()):
            raise _refused(400, "INVALID_SIGNATURE", "Invalid signature")
        free = path == "/auth/currentCredential" and not self.current_credential_needs_rule
        if not free and not credential.grants(request.method, path):
            raise _ANSWERS["403"]()
        credential.last_use = self._now()

    def _write_log(self, call: Call) -> None:
        with self._lock:
            self.log.append(call)
            if self._log_file:
                with self._log_file.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(asdict(call)) + "\n")


def _redacted(request: _Request) -> t.Any:
    """The body for the log, without secrets."""
    if not request.body:
        return None
    try:
        body = json.loads(request.body)
    except ValueError:
        return "(no JSON)"
    if request.path.startswith("/secret/"):
        return "(secret)"
    if isinstance(body, dict):
        return {key: "(secret)" if re.search("(?i)secret|password", key) else value for key, value in body.items()}
    return body


class _HttpServer(socketserver.ThreadingTCPServer):
    """HTTP without http.server.HTTPServer's look-up of its own name, and with connections that can be cut."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], api: OvhApi) -> None:
        self.api = api
        self._open: set[socket.socket] = set()
        self._changed = threading.Condition()
        super().__init__(address, _Handler)

    def process_request(self, request: t.Any, client_address: t.Any) -> None:
        with self._changed:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: t.Any) -> None:
        super().shutdown_request(request)
        with self._changed:
            self._open.discard(request)
            self._changed.notify_all()

    def cut_connections(self) -> None:
        """Cut what is open, and see the threads of the connections end."""
        with self._changed:
            for connection in self._open:
                with contextlib.suppress(OSError):  # the other side was quicker
                    connection.shutdown(socket.SHUT_RDWR)
            self._changed.wait_for(lambda: not self._open, timeout=10)

    def handle_error(self, request: t.Any, client_address: t.Any) -> None:
        if not isinstance(sys.exc_info()[1], (_Reset, ConnectionError)):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body leave in one packet: in two, the second waits 40 ms for an acknowledgement
    server: _HttpServer

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = _Request(self.command, self.path, self.headers, body)
        try:
            answer = self.server.api.answer(request)
        except _Reset:
            # With no time to linger, closing sends RST; the socket closes only with all of its files.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.rfile.close()
            self.wfile.close()
            self.connection.close()
            raise
        self.send_response(answer.status, "Expired" if answer.status == 460 else None)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.content)))
        self.send_header("X-OVH-QUERYID", self.server.api.query_id())
        self.end_headers()
        self.wfile.write(answer.content)

    do_GET = do_PUT = do_POST = do_DELETE = _answer

    def log_message(self, format: str, *args: t.Any) -> None:
        """The API keeps a log of its own."""
