# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The SoftLayer API (IBM Cloud Classic) for virtual guests and bare metal, on loopback.

It speaks both wire formats of the `SoftLayer` package on the same data: XML-RPC with headers, init parameters and faults
whose code is text, and REST with basic authentication. What the real API is known to answer comes from its public
reference (https://sldn.softlayer.com/) and from the package; what nobody recorded says "modelled" in a comment here, and
a client must not lean on its text.

    server = Server(1001, "vs", "web1", primaryIpAddress="127.0.0.50", power=machine)
    with SoftLayerApi([server]) as api:
        client = SoftLayer.create_client_from_env(**api.credential.client_arguments(), endpoint_url=api.rest_url)

The machine behind a server is an object with `reset()` (see ovh_api.Power). Whenever it boots, for a reset or for a reboot
from inside, it calls `server.next_boot()` once and comes up in what that says: a rescue lasts for one boot, and no property
of a server tells of it.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hmac
import itertools
import json
import math
import re
import secrets
import sys
import threading
import time
import traceback
import typing as t
import uuid
import xmlrpc.client
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from email.message import Message
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from xml.parsers.expat import ExpatError

from .clockwork import Clockwork
from .ovh_api import Power
from .unkind import UNKNOWN_STATE_SECONDS, Unkind
from .unkind import now as unkind_now
from .wire import Answer, HttpServer, Reset

KINDS = {"vs": "SoftLayer_Virtual_Guest", "hw": "SoftLayer_Hardware_Server"}
RESCUE_METHODS = {"vs": "executeRescueLayer", "hw": "bootToRescueLayer"}
REBOOTS = ("powerCycle", "rebootDefault", "rebootHard", "rebootSoft")
POWER_METHODS = (*REBOOTS, "powerOff", "powerOffSoft", "powerOn")
# A user's permissions, by their key names; the portal calls the first one "OS Reloads and Rescue Kernel".
PERMISSIONS = ("SERVER_RELOAD", "REMOTE_MANAGEMENT")
OUTSTANDING = "There is currently an outstanding transaction for this server."


@dataclass(frozen=True)
class NextBoot:
    """What a machine boots: kind is `installed` or `rescue`. user and password log in to either one.

    at: seconds since the epoch.
    """

    kind: str
    user: str
    password: str | None = field(repr=False)
    at: float


@dataclass
class Transaction:
    """A job of the provider. statuses: the names of all that it goes through; history holds (status, time.time())."""

    id: int
    group: str
    statuses: tuple[str, ...]
    status: str = ""
    ended: bool = False
    shown_from: float = 0.0
    createDate: str = ""
    modifyDate: str = ""
    history: list[tuple[str, float]] = field(default_factory=list)

    def payload(self) -> dict[str, t.Any]:
        """The transaction as the API shows it."""
        started = self.history[0][1] if self.history else time.time()
        return {"id": self.id, "createDate": self.createDate, "modifyDate": self.modifyDate,
                "elapsedSeconds": int(time.time() - started), "statusChangeDate": self.modifyDate,
                "transactionStatus": {"name": self.status, "friendlyName": self.status.replace("_", " ").capitalize(),
                                      "averageDuration": ".5"},
                "transactionGroup": {"name": self.group, "averageTimeToComplete": "10"}}


@dataclass
class Server:
    """A virtual guest (`vs`) or a bare-metal server (`hw`). Tests may read and set everything.

    Fields in camelCase are what the API shows, under the API's names. The others steer the lab:
    rescue_seconds: the statuses of a rescue's transaction, and how long each lasts; their names are modelled. reset_at: the
    status on which the machine is reset. shown_after: seconds until a transaction is shown, while it holds off others at once.
    refusal_seconds: how long after a reboot other remote management commands are refused; for hardware only. rescue_refuses:
    whether a rescue counts as such a reboot (modelled: the reference names only reboots and power commands).
    user, password: the log-in that the portal shows. Seconds may be math.inf.
    unkind: see there. What waits or lags is the transaction of a rescue; the reboot of any server has none and waits unseen, and a
    command to hardware is listed as late as a transaction. Nothing here is a setting.
    """

    id: int
    kind: str = "vs"
    hostname: str = "web1"
    domain: str = "example.com"
    primaryIpAddress: str | None = "192.0.2.20"
    primaryBackendIpAddress: str | None = "10.0.0.20"
    power: Power | None = None
    user: str = "root"
    password: str | None = field(default_factory=lambda: secrets.token_urlsafe(9), repr=False)
    datacenter: str = "ams03"
    running: bool = True

    rescue_seconds: dict[str, float] = field(default_factory=lambda: {"RESCUE_SETUP": 0.5, "RESCUE_BOOT": 2.0})
    reset_at: str = "RESCUE_BOOT"
    shown_after: float = 0.0
    refusal_seconds: float = 1200.0
    rescue_refuses: bool = False

    unkind: Unkind = field(default_factory=Unkind)

    transactions: list[Transaction] = field(default_factory=list)
    commands: list[dict[str, t.Any]] = field(default_factory=list)  # remote management, oldest first
    rescues: int = 0
    reboots: int = 0
    booted: list[NextBoot] = field(default_factory=list)

    _api: SoftLayerApi | None = field(default=None, repr=False)
    _rescue_next: bool = field(default=False, repr=False)
    _refused_until: float = field(default=-math.inf, repr=False)
    _ipmi_password: str = field(default_factory=lambda: secrets.token_urlsafe(9), repr=False)

    @property
    def fqdn(self) -> str:
        """The name with its domain."""
        return f"{self.hostname}.{self.domain}"

    @property
    def active(self) -> Transaction | None:
        """The transaction under way, shown or not."""
        return next((transaction for transaction in self.transactions if not transaction.ended), None)

    def next_boot(self) -> NextBoot:
        """The machine boots now: what does it come up in? To be called once for each boot."""
        with self._api._lock if self._api else contextlib.nullcontext():
            boot = NextBoot("rescue" if self._rescue_next else "installed", self.user, self.password, time.time())
            self._rescue_next = False
            self.running = True
            self.booted.append(boot)
            return boot

    def payload(self) -> dict[str, t.Any]:
        """All that the API can show of the server; masks make a choice of it."""
        active = self.active
        shown = [transaction for transaction in self.transactions if unkind_now() >= transaction.shown_from]
        commands = [command for command in self.commands if self.unkind.is_shown(command["made_at"])]
        system = {"name": "Debian", "version": "12.0.0-64", "manufacturer": "Debian", "referenceCode": "DEBIAN_12_64"}
        component = {"id": self.id + 1, "passwords": [], "softwareLicense": {"softwareDescription": system}}
        if self.password is not None:
            component["passwords"] = [{"id": self.id + 2, "username": self.user, "password": self.password, "notes": ""}]
        date = "2020-01-01T00:00:00-06:00"
        known: dict[str, t.Any] = {
            "id": self.id, "accountId": 100000, "hostname": self.hostname, "domain": self.domain,
            "fullyQualifiedDomainName": self.fqdn, "globalIdentifier": str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{self.kind}{self.id}")),
            "primaryIpAddress": self.primaryIpAddress, "primaryBackendIpAddress": self.primaryBackendIpAddress,
            "provisionDate": date, "notes": "", "privateNetworkOnlyFlag": self.primaryIpAddress is None,
            "hourlyBillingFlag": False,
            "datacenter": {"id": 814994, "name": self.datacenter, "longName": self.datacenter.capitalize()},
            "activeTransaction": self._shown(active) if active is not None and active in shown else None,
            "lastTransaction": self._shown(shown[-1]) if shown else None,
            "operatingSystem": component, "softwareComponents": [component],
            "networkVlans": [{"id": 500, "vlanNumber": 1200, "networkSpace": "PUBLIC",
                              "fullyQualifiedName": f"{self.datacenter}.fcr01.1200", "primarySubnets": []}],
            "networkComponents": [], "tagReferences": [], "billingItem": {"id": self.id + 3, "orderItem": {
                "id": self.id + 4, "order": {"id": self.id + 5, "userRecord": {"username": "SL100000"}}}},
            "bandwidthAllotmentDetail": None, "billingCycleBandwidthUsage": [], "reverseDomainRecords": [],
        }
        if self.kind == "vs":
            running = {"keyName": "RUNNING", "name": "Running"}
            known.update({
                "createDate": date, "modifyDate": date, "maxCpu": 2, "maxMemory": 4096, "startCpus": 2,
                "dedicatedAccountHostOnlyFlag": False, "transientGuestFlag": False,
                "status": {"keyName": "ACTIVE", "name": "Active"}, "deviceStatus": {"id": 6, "name": "Running"},
                "powerState": running if self.running else {"keyName": "HALTED", "name": "Halted"},
                "lastKnownPowerState": running, "blockDevices": [],
            })
        else:
            known.update({
                "processorPhysicalCoreAmount": 4, "memoryCapacity": 16, "bareMetalInstanceFlag": False,
                "networkManagementIpAddress": "10.0.1.20", "hardwareStatusId": 5, "hardwareStatus": {"id": 5, "status": "ACTIVE"},
                "serverPowerState": "on" if self.running else "off", "activeComponents": [], "hardDrives": [],
                "remoteManagementAccounts": [{"id": self.id + 6, "username": "root", "password": self._ipmi_password}],
                "recentRemoteManagementCommands": self.unkind.listed([
                    {name: value for name, value in command.items() if name != "made_at"} for command in commands[-5:][::-1]]),
            })
        return self.unkind.shown(known, ("id", "accountId"))

    def _shown(self, transaction: Transaction) -> dict[str, t.Any]:
        return self.unkind.shown(transaction.payload(), ("id",))


@dataclass
class Credential:
    """A user with an API key. permissions: those of PERMISSIONS that he has."""

    permissions: set[str] = field(default_factory=lambda: set(PERMISSIONS))
    username: str = field(default_factory=lambda: f"SL{secrets.randbelow(10**6):06}")
    api_key: str = field(default_factory=lambda: secrets.token_hex(32), repr=False)

    def client_arguments(self) -> dict[str, str]:
        """The keyword arguments of SoftLayer.create_client_from_env()."""
        return {"username": self.username, "api_key": self.api_key}


@dataclass(frozen=True)
class Call:
    """One line of the log. status is that of HTTP, None where the connection was reset; error is the code of a fault."""

    time: float
    transport: str
    service: str
    method: str
    id: t.Any
    mask: str | None
    args: tuple[t.Any, ...]
    status: int | None
    error: str | None
    fault: str | None
    seconds: float


class ApiError(Exception):
    """An answer that is no success. status: that of REST, which nobody recorded but for 401; XML-RPC always has 200."""

    def __init__(self, code: str, message: str, status: int = 500) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


# kind of fault → the answer
_ANSWERS: dict[str, Callable[[], ApiError]] = {
    "permission": lambda: ApiError("SoftLayer_Exception_Public", "You do not have permission to this service."),
    "not-found": lambda: ApiError("SoftLayer_Exception_ObjectNotFound", "Unable to find object with id of '1'.", 404),
    "access-denied": lambda: ApiError("SoftLayer_Exception_Public", "Access Denied. ", 401),
    "invalid-token": lambda: ApiError("SoftLayer_Exception", "Invalid API token.", 401),  # the code is modelled
    "outstanding": lambda: ApiError("SoftLayer_Exception_Public", OUTSTANDING),
    "internal": lambda: ApiError("SoftLayer_Exception_Public", "Internal Error"),
    # modelled: the reference tells the rule, not the sentence
    "refused": lambda: ApiError("SoftLayer_Exception_Public", "A remote management command has been issued to this server in "
                                                              "the past 20 minutes. Please try again later."),
}
_HTTP_FAULTS = {"500": 500, "503-html": 503, "429": 429}
_HTML = b"<html><head><title>Sorry</title></head><body><h1>Service Unavailable</h1></body></html>"


@dataclass
class Fault:
    """One fault; Faults.add says what the fields mean. hits counts how often it struck."""

    method: re.Pattern[str]
    kind: str
    times: float
    every: int
    after: int
    seconds: float
    acts: bool
    status: str
    seen: int = 0
    hits: int = 0

    def strikes(self, method: str) -> bool:
        """Count this call; tell whether the fault strikes it."""
        if not self.method.search(method):
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

    def add(self, method_regex: str, kind: str, *, times: int | None = None, every: int | None = None, after: int = 0,
            seconds: float = 0.0, acts: bool = False, status: str = "") -> Fault:
        """Let calls fail.

        method_regex: searched in `SoftLayer_Virtual_Guest::executeRescueLayer`. kind: `delay` (of `seconds`; the call is
        carried out afterwards), `500`, `503-html`, `429` (of HTTP), `reset` (of the connection), one of the API's faults
        (`permission`, `not-found`, `access-denied`, `invalid-token`, `outstanding`, `refused`, `internal`), or `hang` (the
        transaction that the call makes stays in `status`, by default its first one, for ever).
        The first `after` matching calls pass; of those that follow, every `every`-th is struck, `times` times (default:
        once, or without end where `every` is given). acts: the call is carried out, and only its answer is lost.
        """
        if kind not in (*_ANSWERS, *_HTTP_FAULTS, "delay", "reset", "hang"):
            raise ValueError(f"no such fault: {kind}")
        limit = times if times is not None else 1 if every is None else math.inf
        fault = Fault(re.compile(method_regex), kind, limit, every or 1, after, seconds, acts, status)
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """Let everything work again. Transactions that hang go on hanging."""
        with self._lock:
            self._faults.clear()

    def strike(self, method: str) -> list[Fault]:
        """The faults that strike this call: any that delay or hang, and at most one that spoils the answer."""
        struck: list[Fault] = []
        with self._lock:
            for fault in self._faults:
                spoils = fault.kind not in ("delay", "hang")
                if spoils and any(other.kind not in ("delay", "hang") for other in struck):
                    continue
                if fault.strikes(method):
                    struck.append(fault)
        return struck


# Object masks and filters

Mask = dict[str, t.Any]  # a property → the mask of what it holds; an empty one stands for all local properties

_TOKEN = re.compile(r"\s*([A-Za-z_][\w]*|[\[\](),.])")


def parse_mask(text: str) -> Mask:
    """Read `mask[id,a.b[c]]`, `mask.a`, `mask(Type)[…]`, or several of them in brackets. ValueError when it is none."""
    tokens: list[str] = []
    position, text = 0, text.strip()
    while position < len(text):
        found = _TOKEN.match(text, position)
        if found is None:
            raise ValueError(f"Unable to parse object mask at {text[position:position + 10]!r}")
        tokens.append(found[1])
        position = found.end()
    tokens.reverse()

    def expect(wanted: str) -> None:
        if not tokens or tokens.pop() != wanted:
            raise ValueError(f"Unable to parse object mask: no {wanted!r}")

    def properties(into: Mask) -> None:
        expect("[")
        while tokens and tokens[-1] != "]":
            one(into)
            if tokens and tokens[-1] == ",":
                tokens.pop()
        expect("]")

    def one(into: Mask) -> None:
        name = tokens.pop()
        inner: Mask = into if name in ("mask", "filteredMask") else into.setdefault(name, {})
        if tokens and tokens[-1] == "(":
            del tokens[-3:]  # the type: a server here is of one type only
        if tokens and tokens[-1] == ".":
            tokens.pop()
            one(inner)
        elif tokens and tokens[-1] == "[":
            properties(inner)

    mask: Mask = {}
    if tokens and tokens[-1] == "[":
        properties(mask)
    while tokens:
        one(mask)
    return mask


def masked(value: t.Any, mask: Mask) -> t.Any:
    """What a mask lets through. What was not asked for by name and is no local property stays away, as do nulls."""
    if isinstance(value, list):
        return [masked(item, mask) for item in value]
    if not isinstance(value, dict):
        return value
    names = mask or [name for name, inner in value.items() if not isinstance(inner, (dict, list))]
    return {name: masked(value[name], mask.get(name, {})) for name in names if value.get(name) is not None}


def _matches_operation(value: t.Any, condition: t.Mapping[str, t.Any]) -> bool:
    wanted = condition["operation"]
    if wanted == "orderBy":
        return True
    if wanted == "in":
        return any(value in option["value"] for option in condition["options"])
    if not isinstance(wanted, str):
        return str(value) == str(wanted)  # an id may be shown as text
    found = re.match(r"(<=|>=|<|>|!~|~|\*=|\^=|\$=|_=)\s*(.*)", wanted)
    operator, operand = (found[1], found[2]) if found else ("", wanted)
    text, small, low = str(value), str(value).lower(), operand.lower()
    if operator in ("<", ">", "<=", ">="):
        number, limit = float(value), float(operand)
        return {"<": number < limit, ">": number > limit, "<=": number <= limit, ">=": number >= limit}[operator]
    return {"": text == operand, "~": operand in text, "!~": operand not in text, "*=": low in small,
            "^=": small.startswith(low), "$=": small.endswith(low), "_=": small == low}[operator]


def matches(value: t.Any, wanted: t.Mapping[str, t.Any]) -> bool:
    """Whether an object filter lets an object through. A property that the object has not counts for nothing."""
    if "operation" in wanted:
        return value is not None and _matches_operation(value, wanted)
    if isinstance(value, list):
        return any(matches(item, wanted) for item in value)
    return isinstance(value, dict) and all(matches(value[name], inner) for name, inner in wanted.items() if name in value)


# Requests


@dataclass
class _Request:
    """A call, by whichever transport it came."""

    transport: str
    service: str = ""
    method: str = ""
    id: t.Any = None
    args: tuple[t.Any, ...] = ()
    mask: str | None = None
    filter: dict[str, t.Any] = field(default_factory=dict)
    limit: int | None = None
    offset: int = 0
    user: str | None = None
    key: str | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """As the reference writes it."""
        return f"{self.service}::{self.method}"


def _basic(headers: Message) -> tuple[str | None, str | None]:
    """User and password of HTTP's basic authentication."""
    scheme, _gap, value = headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None, None
    try:
        user, _colon, key = base64.b64decode(value).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None, None
    return user, key


def _read_xmlrpc(service: str, headers: Message, body: bytes) -> _Request:
    request = _Request("xmlrpc", service)
    arguments, method = xmlrpc.client.loads(body)
    request.method = method or ""
    first = arguments[0] if arguments and isinstance(arguments[0], dict) else {}
    request.args = arguments[1:]
    given = first.get("headers") or {}
    request.user, request.key = _basic(headers)
    if "authenticate" in given:
        request.user, request.key = given["authenticate"].get("username"), given["authenticate"].get("apiKey")
    request.id = (given.get(f"{service}InitParameters") or {}).get("id")
    request.mask = (given.get("SoftLayer_ObjectMask") or {}).get("mask")
    request.filter = given.get(f"{service}ObjectFilter") or {}
    if given.get("resultLimit"):
        request.limit, request.offset = given["resultLimit"].get("limit"), given["resultLimit"].get("offset", 0)
    return request


def _read_rest(path: str, query: dict[str, list[str]], headers: Message, body: bytes) -> _Request:
    parts = path.removesuffix(".json").split("/")
    request = _Request("rest", parts[0], parts[-1] if len(parts) > 1 else "getObject", parts[1] if len(parts) > 2 else None)
    if len(parts) == 2 and parts[1].isdigit():
        request.method, request.id = "getObject", parts[1]
    request.user, request.key = _basic(headers)
    request.args = tuple(json.loads(body).get("parameters") or ()) if body else ()
    request.mask = query["objectMask"][-1] if "objectMask" in query else None
    request.filter = json.loads(query["objectFilter"][-1]) if "objectFilter" in query else {}
    if "resultLimit" in query:
        offset, _comma, limit = query["resultLimit"][-1].rpartition(",")
        request.limit, request.offset = int(limit), int(offset or 0)
    return request


class SoftLayerApi:
    """The API: servers, users, faults and a log, served on loopback while it is entered.

    url and rest_url are its endpoints for XML-RPC and REST. log_file: one JSON object a line for each call, as in `log`.
    """

    def __init__(self, servers: Iterable[Server] = (), *, address: str = "127.0.0.1", port: int = 0,
                 permissions: Iterable[str] = PERMISSIONS, log_file: Path | None = None) -> None:
        """Take the port; port 0 takes a free one. permissions: those of the first user, `credential`."""
        self.servers: list[Server] = []
        self.credentials: list[Credential] = []
        self.credential = self.add_credential(permissions)
        self.faults = Faults()
        self.log: list[Call] = []
        self._log_file = log_file
        self._lock = threading.RLock()
        self._clockwork = Clockwork()
        self._closing = threading.Event()
        self._transaction_numbers = itertools.count(70000001)
        self._http = HttpServer((address, port), self.answer)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), name="softlayer-api", daemon=True)
        self.address = address
        self.port: int = self._http.server_address[1]
        self.url = f"http://{self.address}:{self.port}/xmlrpc/v3.1/"
        self.rest_url = f"http://{self.address}:{self.port}/rest/v3.1/"
        for server in servers:
            self.add(server)

    # for tests

    def __enter__(self) -> SoftLayerApi:
        self._clockwork.start()
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop serving: connections are cut, transactions stand still, the port is free. Twice is the same as once."""
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
        self.servers.append(server)
        return server

    def add_credential(self, permissions: Iterable[str] = PERMISSIONS) -> Credential:
        """One more user with an API key."""
        credential = Credential(set(permissions))
        self.credentials.append(credential)
        return credential

    def calls(self, method: str) -> list[Call]:
        """The calls of one method, also those that failed."""
        with self._lock:
            return [call for call in self.log if call.method == method]

    def sensitive(self) -> set[str]:
        """Every secret that there is: for tests that look for them where they must not be."""
        with self._lock:
            return {*(credential.api_key for credential in self.credentials),
                    *(server.password for server in self.servers if server.password),
                    *(server._ipmi_password for server in self.servers)}

    def begin(self, server: Server, group: str, seconds: t.Mapping[str, float], hang: str | None = None,
              on_status: Callable[[str], None] = lambda status: None) -> Transaction:
        """Begin a transaction of any kind. seconds: how long each of its statuses lasts. hang: the one it never leaves."""
        with self._lock:
            transaction = Transaction(next(self._transaction_numbers), group, tuple(seconds), next(iter(seconds)),
                                      shown_from=unkind_now() + max(server.shown_after, server.unkind.list_lag),
                                      createDate=_date(), modifyDate=_date())
            server.transactions.append(transaction)
        # On the clock's thread, for a machine is never touched under our lock: it may have to ask for its next boot.
        self._clockwork.call_in(0, lambda: self._enter_status(transaction, transaction.statuses[0], seconds, hang, on_status))
        return transaction

    # behind the methods

    def _enter_status(self, transaction: Transaction, status: str, seconds: t.Mapping[str, float], hang: str | None,
                      on_status: Callable[[str], None]) -> None:
        with self._lock:
            transaction.status, transaction.modifyDate = status, _date()
            transaction.history.append((status, time.time()))
        try:
            on_status(status)
        except Exception:  # the API goes on, and so does the transaction
            traceback.print_exc(file=sys.stderr)
        if status == hang:
            return
        rest = transaction.statuses[transaction.statuses.index(status) + 1:]

        def go_on() -> None:
            if rest:
                self._enter_status(transaction, rest[0], seconds, hang, on_status)
                return
            with self._lock:
                transaction.ended, transaction.modifyDate = True, _date()
                transaction.history.append(("", time.time()))

        self._clockwork.call_in(seconds[status], go_on)

    @staticmethod
    def _reset(server: Server, rescue: bool) -> None:
        """Reset the machine; without one, it has booted at once."""
        server._rescue_next = rescue
        if server.power is None:
            server.next_boot()
        else:
            server.power.reset()

    def _rescue(self, server: Server, request: _Request, faults: Sequence[Fault]) -> bool:
        environment = request.args[0] if request.args else "LINUX"
        if environment not in ("LINUX", "WINDOWS") or len(request.args) > (server.kind == "hw"):
            raise ApiError("SoftLayer_Exception_Public", "Invalid value provided for noOsBootEnvironment.")  # modelled
        if server.active:
            raise _ANSWERS["outstanding"]()
        if server.rescue_refuses:
            self._note_command(server, request.method)
        server.rescues += 1
        hang = next((fault.status or next(iter(server.rescue_seconds)) for fault in faults if fault.kind == "hang"), None)
        unkind, seconds = server.unkind, dict(server.rescue_seconds)
        seconds[next(iter(seconds))] += unkind.queue_seconds
        if unkind.unknown_state:
            seconds = {unkind.unknown_state: UNKNOWN_STATE_SECONDS, **seconds}

        def on_status(status: str) -> None:
            if status == server.reset_at and not unkind.early_seconds:
                self._reset(server, rescue=True)

        if unkind.early_seconds:
            self._clockwork.call_in(sum(seconds.values()) + unkind.early_seconds, lambda: self._reset(server, rescue=True))
        self.begin(server, "Rescue", seconds, hang, on_status)
        return True

    def _power(self, server: Server, request: _Request) -> bool:
        if server.active:
            raise _ANSWERS["outstanding"]()
        self._note_command(server, request.method)
        if request.method in REBOOTS or (request.method == "powerOn" and not server.running):
            server.reboots += 1
            self._clockwork.call_in(server.unkind.queue_seconds, lambda: self._reset(server, rescue=False))
        elif request.method != "powerOn":
            server.running = False
            off = getattr(server.power, "off", None)
            if off is not None:
                self._clockwork.call_in(0, off)
        return True

    @staticmethod
    def _note_command(server: Server, method: str) -> None:
        """Refuse a remote management command too soon after a reboot of hardware, or remember it."""
        if server.kind != "hw":
            return
        now = time.monotonic()
        if now < server._refused_until:
            raise _ANSWERS["refused"]()
        if method in REBOOTS or method in RESCUE_METHODS.values():
            server._refused_until = now + server.refusal_seconds
        server.commands.append({"made_at": unkind_now(), "createDate": _date(), "modifyDate": _date(), "hardwareId": server.id,
                                "processed": True, "remoteManagementCommand": {"keyName": method.upper(), "name": method}})

    def _find(self, request: _Request, kind: str) -> Server:
        for server in self.servers:
            if server.kind == kind and str(server.id) == str(request.id):
                return server
        raise ApiError("SoftLayer_Exception_ObjectNotFound", f"Unable to find object with id of '{request.id}'.", 404)

    # a request

    def _carry_out(self, request: _Request, faults: Sequence[Fault]) -> tuple[t.Any, int | None]:
        """The value that a call returns; for a list also how many items there are without its limit."""
        credential = self._authenticate(request)
        try:
            mask = parse_mask(request.mask) if request.mask else {}
        except ValueError as exc:
            raise ApiError("SoftLayer_Exception_ObjectMask", str(exc)) from exc  # modelled
        if request.service == "SoftLayer_Account" and request.method in ("getVirtualGuests", "getHardware"):
            kind, key = ("vs", "virtualGuests") if request.method == "getVirtualGuests" else ("hw", "hardware")
            known = [server.payload() for server in self.servers if server.kind == kind]
            found = [server for server in known if matches(server, request.filter.get(key) or {})]
            found.sort(key=lambda server: int(server["id"]))
            end = None if request.limit is None else request.offset + request.limit
            unkind = next((server.unkind for server in self.servers if server.unkind.unordered), Unkind())
            return masked(unkind.listed(found[request.offset:end]), mask), len(found)
        kind = next((kind for kind, service in KINDS.items() if service == request.service), "")
        getter = re.fullmatch(r"get([A-Z]\w*)", request.method)
        if not kind or not (getter or request.method in (*POWER_METHODS, RESCUE_METHODS[kind])):
            raise _no_method(request)
        server = self._find(request, kind)
        if getter:
            if request.method == "getObject":
                return masked(server.payload(), mask), None
            name, known_properties = getter[1][0].lower() + getter[1][1:], server.payload()
            if name not in known_properties:
                raise _no_method(request)
            return masked(known_properties[name], mask), None
        needed = "SERVER_RELOAD" if request.method in RESCUE_METHODS.values() else "REMOTE_MANAGEMENT"
        if needed not in credential.permissions:
            raise _ANSWERS["permission"]()
        if needed == "SERVER_RELOAD":
            return self._rescue(server, request, faults), None
        return self._power(server, request), None

    def _authenticate(self, request: _Request) -> Credential:
        if not request.user or not request.key:
            raise _ANSWERS["access-denied"]()
        for credential in self.credentials:
            if credential.username == request.user and hmac.compare_digest(credential.api_key.encode(), request.key.encode()):
                return credential
        raise _ANSWERS["invalid-token" if request.transport == "xmlrpc" else "access-denied"]()

    def answer(self, method: str, target: str, headers: Message, body: bytes) -> Answer:
        """Answer a request, faults included, and log it. Raises Reset for a connection to be reset."""
        started, clock = time.time(), time.monotonic()
        url = urlsplit(target)
        place = re.fullmatch(r"/(xmlrpc|rest)/v3(?:\.1)?/(.+)", url.path)
        if place is None:
            return Answer(404, _HTML, "text/html")
        try:
            if place[1] == "xmlrpc":
                if method != "POST":
                    return Answer(405, _HTML, "text/html")
                request = _read_xmlrpc(place[2], headers, body)
            else:
                request = _read_rest(place[2], parse_qs(url.query), headers, body)
        except (ValueError, ExpatError, xmlrpc.client.Error, AttributeError):
            return Answer(400, _HTML, "text/html")
        faults = self.faults.strike(request.name)
        spoiler = next((fault for fault in faults if fault.kind not in ("delay", "hang")), None)
        unkind = self._unkind(request)
        delay = sum(fault.seconds for fault in faults if fault.kind == "delay") + unkind.answer_seconds
        answer, error = None, None
        if not (delay and self._closing.wait(delay)):
            if spoiler is None or spoiler.acts:
                answer, error = self._answer_call(request, faults)
            if spoiler is not None:
                answer, error = self._spoilt(request, spoiler.kind)
            elif request.method in (*POWER_METHODS, *RESCUE_METHODS.values()) and unkind.takes("lost_answers"):
                answer = None
        shown = None if request.mask is None else re.sub(r"\s+", "", request.mask)
        self._write_log(Call(started, request.transport, request.service, request.method, request.id, shown, request.args,
                             answer.status if answer else None, error,
                             "+".join(fault.kind for fault in faults) or None, round(time.monotonic() - clock, 6)))
        if answer is None:
            raise Reset
        return answer

    def _unkind(self, request: _Request) -> Unkind:
        """How the server that a request is about is treated."""
        for server in self.servers:
            if KINDS[server.kind] == request.service and str(server.id) == str(request.id):
                return server.unkind
        return Unkind()

    def _answer_call(self, request: _Request, faults: Sequence[Fault]) -> tuple[Answer, str | None]:
        try:
            with self._lock:
                value, total = self._carry_out(request, faults)
        except ApiError as error:
            return _failed(request, error), error.code
        if request.transport == "rest":
            return Answer(200, json.dumps(value).encode(), "application/json", _total(total)), None
        text = xmlrpc.client.dumps((value,), methodresponse=True, allow_none=True, encoding="utf-8")
        return Answer(200, text.encode(), "text/xml", _total(total)), None

    @staticmethod
    def _spoilt(request: _Request, kind: str) -> tuple[Answer | None, str | None]:
        if kind == "reset":
            return None, None
        if kind in _HTTP_FAULTS:
            return Answer(_HTTP_FAULTS[kind], _HTML, "text/html"), None
        error = _ANSWERS[kind]()
        return _failed(request, error), error.code

    def _write_log(self, call: Call) -> None:
        with self._lock:
            self.log.append(call)
            if self._log_file:
                with self._log_file.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(asdict(call)) + "\n")


def _total(number: int | None) -> dict[str, str]:
    return {} if number is None else {"SoftLayer-Total-Items": str(number)}


def _date() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _no_method(request: _Request) -> ApiError:
    return ApiError("SoftLayer_Exception_Public", f'Function ("{request.method}") is not a valid method for this service.')


def _failed(request: _Request, error: ApiError) -> Answer:
    if request.transport == "rest":
        body = json.dumps({"error": error.message, "code": error.code}).encode()
        return Answer(error.status, body, "application/json")
    # The code is text, whatever the specification of XML-RPC says; the library takes only numbers as its type.
    fault = xmlrpc.client.Fault(t.cast(int, error.code), error.message)
    return Answer(200, xmlrpc.client.dumps(fault, encoding="utf-8").encode(), "text/xml")
