# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The API itself."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import math
import re
import secrets
import threading
import time
import typing as t
import uuid
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from email.message import Message
from pathlib import Path
from urllib.parse import unquote

from ..clockwork import Clockwork
from ..unkind import Unkind
from ..wire import Answer, HttpServer, Reset
from .account import Call, Credential, Mail, Secret
from .answers import ANSWERS, BODIES, HTML_503, ApiError, Request, Route, not_found, refused
from .dedicated import TASK_STATUSES, DedicatedServers, Server
from .faults import TASK_FAULTS, Faults
from .vps import VPS_TASK_STATES, AllVps, Vps

AnyServer = t.TypeVar("AnyServer", bound=Server | Vps)

# What a consumer key needs for everything that this collection does to a server.
MINIMUM_RULES = (
    ("GET", "/dedicated/server/*"),
    ("PUT", "/dedicated/server/*"),
    ("POST", "/dedicated/server/*/reboot"),
    ("POST", "/dedicated/server/*/authenticationSecret"),
    ("GET", "/vps/*"),
    ("PUT", "/vps/*"),
    ("POST", "/vps/*/reboot"),
    ("GET", "/me/notification/email/history*"),
)


class OvhApi:
    """The API: servers, credentials, mails, secrets, faults and a log, served on loopback while it is entered.

    servers: the dedicated ones by name. vps: the VPS by name.
    clock_skew: seconds by which the API's clock is ahead of this machine's. secret_reads: how often a secret can be
    read. current_credential_needs_rule: whether /auth/currentCredential has to be granted like any other call.
    log_file: one JSON object a line for each call, as in `log`.
    """

    nic = "xx00000-ovh"
    account_mail = "someone@example.com"
    time_window = 300.0

    def __init__(self, servers: Iterable[Server | Vps] = (), *, address: str = "127.0.0.1", port: int = 0,
                 rules: Iterable[tuple[str, str]] = MINIMUM_RULES, log_file: Path | None = None,
                 clock_skew: float = 0.0) -> None:
        """Take the port; port 0 takes a free one. rules: those of the first credential, `credential`."""
        self._dedicated = DedicatedServers(self)
        self._all_vps = AllVps(self)
        self.servers = self._dedicated.servers
        self.vps = self._all_vps.servers
        self.credentials: dict[str, Credential] = {}
        self.credential = self.add_credential(rules)
        self.mails: list[Mail] = []
        self.secrets: dict[str, Secret] = {}
        self.faults = Faults((*TASK_STATUSES, *VPS_TASK_STATES))
        self.log: list[Call] = []
        self.clock_skew = clock_skew
        self.secret_reads: float = math.inf
        self.current_credential_needs_rule = False
        self.passwords: set[str] = set()
        self._log_file = log_file
        self.lock = threading.RLock()
        self.clockwork = Clockwork()
        self._closing = threading.Event()
        self._mail_numbers = itertools.count(4000000001)
        self._query_numbers = itertools.count(1)
        routes = (*self._own_routes(), *self._dedicated.routes(), *self._all_vps.routes())
        self._routes = [(route, re.compile(route.path)) for route in routes]
        self._http = HttpServer((address, port), self._serve)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), name="ovh-api", daemon=True)
        self.address = address
        self.port: int = self._http.server_address[1]
        self.url = f"http://{self.address}:{self.port}/1.0"
        for server in servers:
            self.add(server)

    # for tests

    def __enter__(self) -> OvhApi:
        self.clockwork.start()
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop serving: connections are cut, tasks stand still, the port is free. Twice is the same as once."""
        self._closing.set()
        self.clockwork.stop()
        if self._thread.is_alive():
            self._http.shutdown()
            self._thread.join(timeout=10)
        self._http.server_close()
        self._http.cut_connections()

    def add(self, server: AnyServer) -> AnyServer:
        """Take a server into the account."""
        if isinstance(server, Vps):
            self._all_vps.add(server)
        else:
            self._dedicated.add(server)
        return server

    def add_credential(self, rules: Iterable[tuple[str, str]]) -> Credential:
        """One more application and consumer key, with these rules."""
        credential = Credential(list(rules))
        self.credentials[credential.consumer_key] = credential
        return credential

    def add_mail(self, subject: str, body: str, *, to: str | None = None, date: str | None = None,
                 in_history: bool = True) -> Mail:
        """Send a mail, now or (date) long ago."""
        mail = Mail(next(self._mail_numbers), date or self.date(), subject, body, to or self.account_mail, in_history)
        with self.lock:
            self.mails.append(mail)
        return mail

    def writes(self) -> list[Call]:
        """The calls that were meant to change something, also those that failed."""
        with self.lock:
            return [call for call in self.log if call.method != "GET" and not call.path.endswith("/secret/retrieve")]

    def sensitive(self) -> set[str]:
        """Every secret that there is or was: for tests that look for them where they must not be."""
        with self.lock:
            keys = {text for credential in self.credentials.values() for text in
                    (credential.application_secret, credential.consumer_key)}
            return {*self.passwords, *self.secrets, *keys}

    # the routes

    def _own_routes(self) -> list[Route]:
        return [
            Route("GET", "/auth/time", self._time, signed=False),
            Route("GET", "/auth/currentCredential", self._current_credential),
            Route("POST", "/secret/retrieve", self._retrieve_secret, signed=False),
            Route("GET", "/me/notification/email/history", self._mail_ids),
            Route("GET", r"/me/notification/email/history/(\d+)", self._mail),
        ]

    def _time(self, request: Request) -> t.Any:
        return int(self.now())

    def _current_credential(self, request: Request) -> t.Any:
        credential = self.credentials[request.headers["X-Ovh-Consumer"]]
        return {"credentialId": credential.credential_id, "applicationId": credential.credential_id // 2,
                "status": credential.status, "creation": self.date(credential.created), "expiration": None,
                "lastUse": self.date(credential.last_use), "ovhSupport": False, "allowedIPs": None,
                "rules": [{"method": method, "path": path} for method, path in credential.rules]}

    def _retrieve_secret(self, request: Request) -> t.Any:
        secret = self.secrets.get(str(request.data().get("id")))
        now = self.now()
        if secret is None or now > secret.expires or secret.reads >= self.secret_reads:
            raise not_found("secret")  # modelled
        secret.reads += 1
        secret.expires = min(secret.expires, now + 7 * 86400)
        return {"secret": secret.value, "expiration": self.date(secret.expires)}

    def _mail_ids(self, request: Request) -> t.Any:
        return [mail.id for mail in self.mails if mail.in_history]

    def _mail(self, request: Request, number: str) -> t.Any:
        for mail in self.mails:
            if mail.in_history and mail.id == int(number):
                return {"id": mail.id, "date": mail.date, "subject": mail.subject, "body": mail.body}
        raise not_found(f"id = {number}")

    # behind the routes

    def now(self) -> float:
        """Seconds since the epoch by the API's clock."""
        return time.time() + self.clock_skew

    def date(self, at: float | None = None) -> str:
        """A time, by default now, as the API writes it."""
        return datetime.fromtimestamp(self.now() if at is None else at, UTC).isoformat(timespec="seconds")

    def service_infos(self, name: str, number: int, status: str) -> dict[str, t.Any]:
        """What is known of the contract about a server."""
        return {"canDeleteAtExpiration": True, "contactAdmin": self.nic, "contactBilling": self.nic,
                "contactTech": self.nic, "creation": "2020-01-01", "domain": name, "engagedUpTo": None,
                "expiration": "2030-01-01", "possibleRenewPeriod": [1, 3, 6, 12], "renewalType": "automaticV2016",
                "renew": {"automatic": True, "deleteAtExpiration": False, "forced": False, "manualPayment": False,
                          "period": 1}, "serviceId": number, "status": status}

    def _new_secret(self, value: str) -> str:
        number = str(uuid.uuid4())
        self.secrets[number] = Secret(value, self.now() + 30 * 86400)
        return number

    # a request

    def _serve(self, method: str, target: str, headers: Message, body: bytes) -> Answer:
        answer = self.answer(Request(method, target, headers, body))
        query = f"LAB.ext-1.{secrets.token_hex(4)}.{next(self._query_numbers)}"
        return answer._replace(headers={"X-OVH-QUERYID": query}, reason="Expired" if answer.status == 460 else None)

    def answer(self, request: Request) -> Answer:
        """Answer a request, faults included, and log it. Raises Reset for a connection to be reset."""
        started, clock = time.time(), time.monotonic()
        faults = self.faults.strike(request.method, request.path)
        spoiler = next((fault for fault in faults if fault.kind not in ("delay", *TASK_FAULTS)), None)
        unkind = self._unkind(request)
        delay = sum(fault.seconds for fault in faults if fault.kind == "delay") + unkind.answer_seconds
        answer: Answer | None = None
        if not (delay and self._closing.wait(delay)):
            if spoiler is None or spoiler.acts:
                answer = self._carry_out(request._replace(faults=faults))
            if spoiler is not None:
                answer = self._spoilt(spoiler.kind)
            elif _begins_job(request) and unkind.takes("lost_answers"):
                answer = None
        self._write_log(Call(started, request.method, request.target, _redacted(request),
                             answer.status if answer else None, "+".join(fault.kind for fault in faults) or None,
                             round(time.monotonic() - clock, 6)))
        if answer is None:
            raise Reset
        return answer

    def _unkind(self, request: Request) -> Unkind:
        """How the server that a request is about is treated."""
        found = re.match("/(?:dedicated/server|vps)/([^/?]+)", request.path)
        name = unquote(found[1]) if found else ""
        server = self.servers.get(name) or self.vps.get(name)
        return server.unkind if server else Unkind()

    @staticmethod
    def _spoilt(kind: str) -> Answer | None:
        if kind == "reset":
            return None
        if kind == "503-html":
            return Answer(503, HTML_503, "text/html")
        if kind in BODIES:
            status, body = BODIES[kind]
            return Answer(status, body)
        error = ANSWERS[kind]()
        return Answer(error.status, json.dumps(error.body).encode())

    def _carry_out(self, request: Request) -> Answer:
        try:
            with self.lock:
                path = request.path.partition("?")[0]
                for route, pattern in self._routes:
                    found = pattern.fullmatch(path)
                    if found and route.method == request.method:
                        if route.signed:
                            self._check_signature(request, path)
                        return Answer(200, json.dumps(route.handler(request, *found.groups())).encode())
                raise ApiError(404, "Got an invalid (or empty) URL", **{"class": "Client::NotFound"})
        except ApiError as error:
            return Answer(error.status, json.dumps(error.body).encode())

    def _check_signature(self, request: Request, path: str) -> None:
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
            raise ANSWERS["invalid-credential"]()
        if not timestamp.isascii() or not timestamp.isdigit() or abs(int(timestamp) - self.now()) > self.time_window:
            raise refused(400, "QUERY_TIME_OUT", "Query out of time")  # the code is modelled
        url = "http://" + request.headers.get("Host", "") + request.target  # as the client knew it
        signed = "+".join((credential.application_secret, consumer, request.method, url)).encode()
        expected = "$1$" + hashlib.sha1(b"+".join((signed, request.body, timestamp.encode()))).hexdigest()
        if not hmac.compare_digest(expected.encode(), signature.encode()):
            raise refused(400, "INVALID_SIGNATURE", "Invalid signature")
        free = path == "/auth/currentCredential" and not self.current_credential_needs_rule
        if not free and not credential.grants(request.method, path):
            raise ANSWERS["403"]()
        credential.last_use = self.now()

    def _write_log(self, call: Call) -> None:
        with self.lock:
            self.log.append(call)
            if self._log_file:
                with self._log_file.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(asdict(call)) + "\n")


def _begins_job(request: Request) -> bool:
    """Whether a request makes a task: it must not be made twice."""
    return ((request.method == "PUT" and request.path.startswith("/vps/"))
            or (request.method == "POST" and bool(re.search("/(reboot|start|stop)$", request.path))))


def _redacted(request: Request) -> t.Any:
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
