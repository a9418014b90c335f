# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real Nova on one loopback port, with what it needs around it. Runs with the Python of its own virtual environment.

    python -m lifeboat_lab.nova.service '{"power_url": null}'

API, conductor, scheduler, two compute managers, placement and sqlite are Nova's own, as its functional tests put them
together. Keystone and Glance are the small programs below. It prints one line of JSON when it answers, {"url": ...}, and
ends when its standard input does, so it never outlives who started it.

    /identity   keystone v3: tokens for the users below, and a catalog
    /image      glance v2: list and show
    /compute    Nova
    /lab        POST: settings of the lab, see Front._control()
"""

from __future__ import annotations

import os

os.environ["OS_NOVA_DISABLE_EVENTLET_PATCHING"] = "true"

from nova import monkey_patch  # isort: skip

# ruff: noqa: E402
# Before all else of Nova: it refuses to run with threads once something has imported eventlet.
monkey_patch.patch(backend="threading")

import collections
import contextlib
import datetime
import importlib
import json
import re
import sys
import threading
import time
import traceback
import typing as t
import unittest
import uuid
from collections.abc import Callable
from urllib.parse import parse_qs

import fixtures
import futurist._thread
import nova.conf
import sqlalchemy.pool
import waitress
from nova import context, exception, test
from nova.api import wsgi
from nova.api.openstack import wsgi_app
from nova.tests import fixtures as nova_fixtures
from nova.tests.functional import fixtures as functional_fixtures

from ..unkind import Unkind
from .driver import Driver, Lab, OldDriver

# Nova's tests are in this project. The package's name `nova` hides the module of that name in it.
PROJECT = importlib.import_module("nova.tests.fixtures.nova").PROJECT_ID
OTHER_PROJECT = "0ther0ther0ther0ther0ther0ther00"
PROJECT_NAMES = {PROJECT: "lab", OTHER_PROJECT: "elsewhere"}
PASSWORD = "everybodys-lab-password"
# Name: project and roles, as keystone has them: a role implies those below it.
USERS = {
    "member": (PROJECT, ["member", "reader"]),
    "reader": (PROJECT, ["reader"]),
    "admin": (PROJECT, ["admin", "manager", "member", "reader"]),
    "other": (OTHER_PROJECT, ["member", "reader"]),
}
# The compute hosts and what drives them.
HOSTS = {"compute": Driver, "old": OldDriver}
HOURS = datetime.timedelta(hours=12)

Environ = dict[str, t.Any]
Answer = tuple[int, dict[str, t.Any] | None, dict[str, str]]


def _time(moment: datetime.datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Keystone:
    """Tokens for the users, all of it that a client of Nova asks for."""

    def __init__(self) -> None:
        self.url = ""
        self.tokens: dict[str, str] = {}

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: t.Any, user: str | None) -> Answer:
        """The answer to one request. path: below /identity."""
        version = {"id": "v3.14", "status": "stable", "updated": "2020-04-07T00:00:00Z", "media-types": [],
                   "links": [{"rel": "self", "href": f"{self.url}/identity/v3/"}]}
        if path == "":
            return 300, {"versions": {"values": [version]}}, {}
        if path == "/v3":
            return 200, {"version": version}, {}
        if path == "/v3/auth/tokens" and method == "POST":
            return self._new_token(body)
        return 404, {"error": {"code": 404, "title": "Not Found", "message": f"Nothing at {path}."}}, {}

    def _new_token(self, body: t.Any) -> Answer:
        identity = body["auth"]["identity"]
        if "application_credential" in identity:
            return 404, {"error": {"code": 404, "title": "Not Found", "message":
                                   f"Could not find Application Credential: {identity['application_credential']['id']}."}}, {}
        given = identity.get("password", {}).get("user", {})
        name = given.get("name")
        if name not in USERS or given.get("password") != PASSWORD:
            return 401, {"error": {"code": 401, "title": "Unauthorized",
                                   "message": "The request you have made requires authentication."}}, {}
        project, roles = USERS[name]
        token = uuid.uuid4().hex
        self.tokens[token] = name
        domain = {"id": "default", "name": "Default"}
        now = datetime.datetime.now(datetime.UTC)
        return 201, {"token": {
            "methods": ["password"], "audit_ids": [uuid.uuid4().hex[:22]], "issued_at": _time(now), "expires_at": _time(now + HOURS),
            "user": {"id": user_id(name), "name": name, "domain": domain, "password_expires_at": None},
            "project": {"id": project, "name": PROJECT_NAMES[project], "domain": domain}, "is_domain": False,
            "roles": [{"id": uuid.uuid5(uuid.NAMESPACE_DNS, role).hex, "name": role} for role in roles],
            "catalog": [self._service("identity", "keystone", "/identity"), self._service("compute", "nova", "/compute/v2.1"),
                        self._service("image", "glance", "/image")],
        }}, {"X-Subject-Token": token}

    def _service(self, kind: str, name: str, path: str) -> dict[str, t.Any]:
        return {"type": kind, "name": name, "id": uuid.uuid5(uuid.NAMESPACE_DNS, kind).hex, "endpoints": [
            {"id": uuid.uuid5(uuid.NAMESPACE_DNS, kind + interface).hex, "interface": interface, "region": "lab",
             "region_id": "lab", "url": self.url + path} for interface in ("public", "internal", "admin")]}


def user_id(name: str) -> str:
    """The id that keystone gives to a user."""
    return uuid.uuid5(uuid.NAMESPACE_DNS, name).hex


class Images(nova_fixtures.GlanceFixture):  # type: ignore[misc, unused-ignore]
    """Nova's stand-in for Glance, which also hides what is not the caller's, and answers by HTTP.

    together: so many questions of Nova's are answered at the same moment. Nova asks between looking at a server's state and
    changing it.
    """

    url = ""
    together: threading.Barrier | None = None

    def show(self, context: t.Any, image_id: str, *args: t.Any, **kwargs: t.Any) -> t.Any:
        """As Glance: another project's private image is not there."""
        barrier = self.together
        if barrier is not None:
            with contextlib.suppress(threading.BrokenBarrierError):  # nobody else came
                barrier.wait(20)
            self.together = None
        image = super().show(context, image_id, *args, **kwargs)
        if context is not None and not context.is_admin and not self._sees(image, context.project_id):
            raise exception.ImageNotFound(image_id=image_id)
        return image

    @staticmethod
    def _sees(image: t.Mapping[str, t.Any], project: str) -> bool:
        return image.get("visibility") in ("public", "community") or image.get("owner", project) == project

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: t.Any, user: str | None) -> Answer:
        """The answer to one request. path: below /image."""
        if path == "":
            return 300, {"versions": [{"id": "v2.16", "status": "CURRENT",
                                       "links": [{"rel": "self", "href": f"{self.url}/image/v2/"}]}]}, {}
        if user is None:
            return 401, {"message": "Authentication required"}, {}
        project, roles = USERS[user]
        seen = [image for image in self.images.values() if "admin" in roles or self._sees(image, project)]
        if path == "/v2/images":
            shown = [self._shown(image) for image in seen]
            for key in ("name", "status", "visibility", "owner"):
                shown = [image for image in shown if key not in query or image[key] in query[key]]
            shown = [image for image in shown if set(query.get("tag", [])) <= set(image["tags"])]
            return 200, {"images": shown, "first": "/v2/images", "schema": "/v2/schemas/images"}, {}
        for image in seen:
            if path == f"/v2/images/{image['id']}":
                return 200, self._shown(image), {}
        return 404, {"message": "No image found"}, {}

    @staticmethod
    def _shown(image: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
        same = ("id", "name", "status", "visibility", "min_ram", "min_disk", "disk_format", "container_format", "protected", "size")
        return {**image["properties"], **{key: image.get(key) for key in same}, "tags": list(image.get("tags", [])),
                "owner": image.get("owner", PROJECT), "created_at": image["created_at"].strftime("%Y-%m-%dT%H:%M:%SZ"),
                "updated_at": image["updated_at"].strftime("%Y-%m-%dT%H:%M:%SZ"), "schema": "/v2/schemas/image",
                "self": f"/v2/images/{image['id']}", "file": f"/v2/images/{image['id']}/file"}

    def put(self, image: dict[str, t.Any]) -> None:
        """Have an image, or change one. Keys as Glance shows them; `properties` apart."""
        now = datetime.datetime.now(datetime.UTC)
        self.images[image["id"]] = {
            "status": "active", "visibility": "public", "tags": [], "properties": {}, "min_ram": 0, "min_disk": 0,
            "disk_format": "qcow2", "container_format": "bare", "size": 1024**2, "protected": False, "created_at": now,
            "updated_at": now, "deleted_at": None, "deleted": False, "owner": PROJECT, **image,
            "is_public": image.get("visibility", "public") == "public"}


class Network(nova_fixtures.NeutronFixture):  # type: ignore[misc, unused-ignore]
    """Nova's stand-in for Neutron, with the addresses of the lab: any on loopback, where its machines answer."""

    subnet_1: t.ClassVar[dict[str, t.Any]] = {
        **nova_fixtures.NeutronFixture.subnet_1, "cidr": "127.0.0.0/8", "gateway_ip": "127.255.255.254",
        "allocation_pools": [{"start": "127.0.0.2", "end": "127.255.255.250"}]}

    def __init__(self, case: t.Any) -> None:
        super().__init__(case)
        self.floating: dict[str, str] = {}
        self.next = 2

    def create_port(self, body: t.Any = None) -> t.Any:
        """A port at the address that was asked for, else at the next one."""
        created = super().create_port(body)
        wanted = [address["ip_address"] for address in body["port"].get("fixed_ips", []) if "ip_address" in address]
        if not wanted:
            self.next += 1
            wanted = [f"127.77.{self.next // 250}.{self.next % 250 + 1}"]
        fixed = [{"ip_address": address, "subnet_id": self.subnet_1["id"]} for address in wanted]
        for port in (created["port"], self._ports[created["port"]["id"]]):
            port.update(fixed_ips=fixed, name="")
        return created

    def list_floatingips(self, retrieve_all: bool = True, **filters: t.Any) -> t.Any:
        """The one in front of a fixed address, where there is one."""
        found = self.floating.get(filters.get("fixed_ip_address", ""))
        return {"floatingips": [{"floating_ip_address": found, "fixed_ip_address": filters["fixed_ip_address"]}] if found else []}


class Authenticate:
    """What keystonemiddleware does before Nova: it turns a token into headers that say who asks."""

    def __init__(self, app: t.Any, keystone: Keystone) -> None:
        self.app = app
        self.keystone = keystone

    def __call__(self, environ: Environ, start_response: t.Any) -> t.Any:
        token = environ.get("HTTP_X_AUTH_TOKEN", "")
        name = self.keystone.tokens.get(token)
        if name is None:
            start_response("401 Unauthorized", [("Content-Type", "text/html"), ("WWW-Authenticate", "Keystone uri=\"/identity\"")])
            return [b"Authentication required"]
        project, roles = USERS[name]
        environ.update({"HTTP_X_IDENTITY_STATUS": "Confirmed", "HTTP_X_USER_ID": user_id(name), "HTTP_X_USER_NAME": name,
                        "HTTP_X_PROJECT_ID": project, "HTTP_X_PROJECT_NAME": PROJECT_NAMES[project], "HTTP_X_ROLES": ",".join(roles),
                        "HTTP_X_USER_DOMAIN_ID": "default", "HTTP_X_PROJECT_DOMAIN_ID": "default"})
        return self.app(environ, start_response)


class Response(t.NamedTuple):
    """What a WSGI program answered."""

    status: str
    headers: list[tuple[str, str]]
    body: bytes


class Veil:
    """Stands in front of Nova: what it answers about a server comes late, in disorder, or not at all. Nova itself is as it is.

    The administrator, as whom the lab asks, sees through it.
    """

    def __init__(self, compute: t.Any, keystone: Keystone) -> None:
        self.compute = compute
        self.keystone = keystone
        self.unkind: dict[str, Unkind] = {}
        # What Nova showed of a server just before it was asked to change it, and when it answered that.
        self._before: dict[str, list[tuple[float, Response]]] = collections.defaultdict(list)

    def set(self, server: str, unkind: Unkind) -> None:
        """Treat a server so from now on."""
        self.unkind[server] = unkind
        Lab.queue_seconds[server], Lab.early_seconds[server] = unkind.queue_seconds, unkind.early_seconds
        self._before.pop(server, None)

    def __call__(self, environ: Environ, start_response: t.Any) -> t.Any:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        named = re.search(r"/servers/([0-9a-f]{8}-[0-9a-f-]{27})(/.*)?$", path)
        server, rest = (named[1], named[2] or "") if named else ("", "")
        if self.keystone.tokens.get(environ.get("HTTP_X_AUTH_TOKEN", "")) == "admin":
            return self.compute(environ, start_response)
        unkind = self.unkind.get(server, Unkind())
        if unkind.answer_seconds:
            Lab.ended.wait(unkind.answer_seconds)
        if method != "GET":
            before = self._show(environ, path.removesuffix(rest)) if unkind.setting_lag else None
            response = self._ask(environ)
            if before:
                self._before[server].append((time.monotonic(), before))
            if rest == "/action" and unkind.takes("lost_answers"):
                response = Response("502 Bad Gateway", [("Content-Type", "text/html")], b"<h1>Lost by the lab</h1>")
        else:
            response = self._ask(environ)
            if response.status.startswith("200") and (server or re.search("/servers(/detail)?$", path)):
                response = self._veiled(response, server, rest)
        headers = [(name, value) for name, value in response.headers if name.lower() != "content-length"]
        start_response(response.status, [*headers, ("Content-Length", str(len(response.body)))])
        return [response.body]

    def _ask(self, environ: Environ) -> Response:
        started: list[tuple[str, list[tuple[str, str]]]] = []
        parts = self.compute(environ, lambda status, headers, *more: started.append((status, headers)))
        try:
            body = b"".join(parts)
        finally:
            getattr(parts, "close", lambda: None)()
        return Response(*started[0], body)

    def _show(self, environ: Environ, path: str) -> Response:
        """What Nova shows of a server to whoever asks this."""
        names = ("SERVER_NAME", "SERVER_PORT", "SERVER_PROTOCOL", "HTTP_HOST", "HTTP_X_AUTH_TOKEN", "HTTP_OPENSTACK_API_VERSION",
                 "HTTP_X_OPENSTACK_NOVA_API_VERSION", "HTTP_ACCEPT", "SCRIPT_NAME", "REMOTE_ADDR")
        return self._ask({**{name: environ[name] for name in names if name in environ},
                          **{name: value for name, value in environ.items() if name.startswith("wsgi.")},
                          "REQUEST_METHOD": "GET", "PATH_INFO": path, "QUERY_STRING": "", "wsgi.input": _Body(b"")})

    def _veiled(self, response: Response, server: str, rest: str) -> Response:
        unkind = self.unkind.get(server, Unkind())
        moment = time.monotonic() - unkind.setting_lag
        if server and not rest:
            response = next((before for at, before in self._before[server] if at > moment), response)
        data = json.loads(response.body)
        if isinstance(data.get("server"), dict):
            data["server"] = self._server(data["server"])
        if isinstance(data.get("servers"), list):
            disorder = any(self.unkind.get(one["id"], Unkind()).unordered for one in data["servers"])
            data["servers"] = Unkind(unordered=disorder).listed([self._server(one) for one in data["servers"]])
        if isinstance(data.get("instanceActions"), list):
            now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
            data["instanceActions"] = unkind.listed([
                action for action in data["instanceActions"]
                if (now - datetime.datetime.fromisoformat(action["start_time"])).total_seconds() >= unkind.list_lag])
        return response._replace(body=json.dumps(data).encode())

    def _server(self, data: dict[str, t.Any]) -> dict[str, t.Any]:
        unkind = self.unkind.get(data["id"], Unkind())
        state = "OS-EXT-STS:task_state"
        if data.get(state) and unkind.unknown_state:
            data = {**data, state: unkind.unknown_state}
        if isinstance(data.get("addresses"), dict):
            data = {**data, "addresses": {name: unkind.listed(entries) for name, entries in data["addresses"].items()}}
        return unkind.shown(data)


class Front:
    """The one WSGI program on the port. Counts requests, and breaks those that the lab wants broken."""

    def __init__(self, keystone: Keystone, images: Images, network: Network, compute: t.Any,
                 end_rescues: Callable[[int], None]) -> None:
        self.end_rescues = end_rescues
        self.stubs: dict[str, t.Any] = {"/identity": keystone, "/image": images}
        self.keystone = keystone
        self.images = images
        self.network = network
        self.compute = Veil(compute, keystone)
        self.faults: list[dict[str, t.Any]] = []
        self.requests: list[list[str]] = []
        self.served: collections.Counter[str] = collections.Counter()
        self.lock = threading.Lock()

    def __call__(self, environ: Environ, start_response: t.Any) -> t.Any:
        path = environ["PATH_INFO"]
        first = f"/{path.split('/')[1]}"
        if first != "/lab":
            with self.lock:
                self.served[first] += 1
        if first == "/compute":
            return self._compute(environ, start_response)
        size = int(environ.get("CONTENT_LENGTH") or 0)
        body = json.loads(environ["wsgi.input"].read(size)) if size else None
        method, rest = environ["REQUEST_METHOD"], path[len(first):].rstrip("/")
        if first == "/lab":
            code, answer, headers = 200, self._control(body or {}), {}
        elif first in self.stubs:
            user = self.keystone.tokens.get(environ.get("HTTP_X_AUTH_TOKEN", ""))
            code, answer, headers = self.stubs[first].answer(method, rest, parse_qs(environ["QUERY_STRING"]), body, user)
        else:
            code, answer, headers = 404, {}, {}
        data = json.dumps(answer).encode()
        start_response(f"{code} -", [("Content-Type", "application/json"), ("Content-Length", str(len(data))), *headers.items()])
        return [data]

    def _compute(self, environ: Environ, start_response: t.Any) -> t.Any:
        environ["SCRIPT_NAME"], environ["PATH_INFO"] = "/compute", environ["PATH_INFO"].removeprefix("/compute")
        size = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(size) if size else b""
        environ["wsgi.input"] = _Body(body)
        line = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']} {body.decode()}".strip()
        with self.lock:
            self.requests.append([environ["REQUEST_METHOD"], environ["PATH_INFO"], body.decode()])
            fault = next((fault for fault in self.faults if fault["match"] in line), None)
            if fault is not None:
                self.faults.remove(fault)
        if fault is None:
            return self.compute(environ, start_response)
        if fault["after"]:
            # Nova does it, and nobody hears of it.
            for _part in self.compute(environ, lambda *args: None):
                pass
        start_response(f"{fault['status']} Broken by the lab", [("Content-Type", "text/html"), ("Content-Length", "24")])
        return [b"<h1>Broken by the lab</h1>"[:24]]

    def _control(self, body: dict[str, t.Any]) -> dict[str, t.Any]:
        """Settings: rescue_seconds, page (how many servers Nova lists at once), image (put), no_image (id), floating
        ([fixed, floating]), faults ([{match, after, status}]), unkind ({server's id: fields of Unkind}), rescue_timeout (seconds,
        as in nova.conf: Nova looks once, now), together (see Images).

        Answers {"requests": what Nova was asked since the last time ([method, path, body]), "images": ids, "served": how many
        requests each service got since the last time, by its path}.
        """
        if "rescue_seconds" in body:
            Lab.rescue_seconds = body["rescue_seconds"]
        if "page" in body:
            nova.conf.CONF.set_override("max_limit", body["page"], group="api")
        if "image" in body:
            self.images.put(body["image"])
        if "no_image" in body:
            self.images.images.pop(body["no_image"], None)
        if "floating" in body:
            fixed, floating = body["floating"]
            self.network.floating[fixed] = floating
        for server, fields in body.get("unkind", {}).items():
            self.compute.set(server, Unkind(**fields))
        if "together" in body:
            self.images.together = threading.Barrier(body["together"])
        if "rescue_timeout" in body:
            self.end_rescues(body["rescue_timeout"])
        with self.lock:
            if "faults" in body:
                self.faults = body["faults"]
            requests, self.requests = self.requests, []
            served, self.served = self.served, collections.Counter()
        return {"requests": requests, "images": list(self.images.images), "served": served}


class _Body:
    """A request's body that was read already."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        size = len(self.data) if size < 0 else size
        part, self.data = self.data[:size], self.data[size:]
        return part


class Services(test.TestCase):  # type: ignore[misc, unused-ignore]
    """Nova, put together by the fixtures of its functional tests, which want to live in a test: this one lasts as we run."""

    REQUIRES_LOCKING = True

    def setUp(self) -> None:
        """Start everything but the web server."""
        # oslo.db opens a database that is a file anew for each use of it, which is a quarter of Nova's time here.
        self.useFixture(fixtures.MonkeyPatch("oslo_db.sqlalchemy.engines.pool.NullPool", sqlalchemy.pool.QueuePool))
        super().setUp()
        # Nova's tests last for seconds, so they have each idle thread look every 10 ms whether it is to end. Here there are
        # hundreds after a while, which would keep a core busy with nothing else. Nor so long that the end waits for them.
        futurist._thread.ThreadWorker.MAX_IDLE_FOR = 1
        self.keystone = Keystone()
        self.useFixture(functional_fixtures.PlacementFixture())
        self.network = self.useFixture(Network(self))
        self.useFixture(nova_fixtures.CinderFixture(self))
        self.images = self.useFixture(Images(self))
        for image in list(self.images.images.values()):
            # Nova's own are in nobody's way, but not what a user of a cloud sees.
            image["visibility"] = "hidden"
            image["owner"] = "nova"
        # As clouds have it; with the old rules a reader may do everything.
        self.flags(enforce_new_defaults=True, group="oslo_policy")
        self.useFixture(nova_fixtures.RealPolicyFixture())
        self.flags(transport_url=self.cell_mappings["cell1"].transport_url)
        self.flags(enabled=True, group="vnc")
        self.flags(novncproxy_base_url="http://127.0.0.1:6080/vnc_auto.html", group="vnc")
        for name in ("conductor", "scheduler"):
            self.addCleanup(self.start_service(name).stop)
        for host, driver in HOSTS.items():
            # Nova looks for drivers in nova.virt only.
            self.useFixture(fixtures.MonkeyPatch(f"nova.virt.fake.Lab{driver.__name__}", driver))
            self.flags(compute_driver=f"fake.Lab{driver.__name__}")
            self._start_compute(host)
        self.addCleanup(self._stop_computes)

    def end_rescues(self, seconds: int) -> None:
        """Have the compute managers end rescues that are so old, as they do by themselves every minute."""
        self.flags(rescue_timeout=seconds)
        for host, compute in self.computes.items():
            # One that it is ending already is refused; Nova leaves such for its next time.
            with contextlib.suppress(exception.NovaException), \
                    context.target_cell(context.get_admin_context(), self.host_mappings[host].cell_mapping) as cell:
                compute.manager._poll_rescued_instances(cell)
        self.flags(rescue_timeout=0)

    def _stop_computes(self) -> None:
        for compute in self.computes.values():
            compute.stop()

    def runTest(self) -> None:
        """Serve until the standard input ends."""
        keystone = self.keystone
        self.useFixture(fixtures.MockPatch("keystonemiddleware.auth_token.filter_factory",
                                           return_value=lambda app: Authenticate(app, keystone)))
        compute = wsgi.Loader().load_app("osapi_compute")
        wsgi_app._setup_service(nova.conf.CONF.host, "osapi_compute")
        front = Front(keystone, self.images, self.network, compute, self.end_rescues)
        # The library keeps its connections open; at the default limit of 100 nobody would be heard any more.
        server = waitress.create_server(front, host="127.0.0.1", port=0, threads=16, ident=None, connection_limit=10000,
                                        asyncore_use_poll=True)
        keystone.url = self.images.url = f"http://127.0.0.1:{server.effective_port}"
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        print(json.dumps({"url": keystone.url}), flush=True)
        sys.stdin.read()
        Lab.ended.set()
        server.close()


def main() -> int:
    """Run until the standard input ends."""
    given = json.loads(sys.argv.pop())
    Lab.power_url = given["power_url"]
    result = unittest.TestResult()
    try:
        Services("runTest").run(result)
    except SystemExit:
        # What Nova does when it cannot start; its words are in the log.
        traceback.print_exc()
        return 1
    for _case, text in [*result.errors, *result.failures]:
        print(text, file=sys.stderr)
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    # Nova's idle threads look once a second whether they are to end, one after the other.
    os._exit(code)
