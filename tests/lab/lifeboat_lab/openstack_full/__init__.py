# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A small OpenStack for the lab: keystone, glance, placement, nova, cinder, RabbitMQ and MariaDB, each a process of its own.

    with RealCloud(Path("/tmp/cloud")) as cloud:
        os.environ["OS_CLIENT_CONFIG_FILE"] = str(cloud.clouds_yaml)
        server = cloud.create_server("web1")

It is used as lifeboat_lab.nova's Nova is, is slower to start and larger, and proves what that one has stand-ins for: tokens
and the catalog, roles, images, volumes, and services that talk by messages. The hypervisor is the lab's own, as there; the
volumes have no bytes (cinder's own driver that only writes down what it was asked), and Neutron is a program of this package.

Everything listens on loopback only, or on a socket below directory. Nothing of the system's own services is used.
"""

from __future__ import annotations

import concurrent.futures
import fcntl
import hashlib
import inspect
import secrets
import shutil
import sys
import tempfile
import typing as t
from collections.abc import Callable, Sequence
from pathlib import Path

import requests

from ..nova.cloud import Cloud, Event
from ..recipe import LabError
from ..venvs import cache, ensure_venv
from ..waiting import until
from .config import Settings, write
from .daemons import Daemon, RabbitMq, accepts, environment, free_ports, make_mariadb, mariadb, mariadb_version, run
from .neutron import NETWORK, Neutron

__all__ = ["RealCloud", "ensure_openstack_venv"]

LAB = Path(__file__).parents[2]
REQUIREMENTS = LAB / "requirements-openstack.txt"
# By name: project and role.
USERS = {"member": ("lab", "member"), "reader": ("lab", "reader"), "admin": ("lab", "admin"), "other": ("elsewhere", "member")}
DATABASES = ("keystone", "glance", "placement", "nova_api", "nova", "nova_cell0", "cinder")
# A program that inspects images takes nothing for a disk that is none, and this for one of the kind raw.
IMAGE = b"The lab boots another disk.\n".ljust(4096, b"\n")


def ensure_openstack_venv(say: Callable[[str], None] = print) -> Path:
    """The virtual environment with OpenStack's services; see ensure_venv()."""
    return ensure_venv("openstack", REQUIREMENTS, say)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class RealCloud(Cloud):
    """See the module, and Cloud."""

    def __init__(self, directory: Path, power: Callable[[Event], None] | None = None, rabbitmq: Path | None = None):
        """rabbitmq: where its packages were unpacked; by default where ./dev does so."""
        super().__init__(directory, power)
        self._rabbitmq = rabbitmq or cache() / "rabbitmq"
        self._logs = directory / "logs"
        self._daemons: list[Daemon] = []
        self._neutron: Neutron | None = None
        # A socket's path must be short.
        self._run: tempfile.TemporaryDirectory[str] | None = None
        self._settings: Settings
        self._venv: Path
        self._projects: dict[str, str] = {}

    # -- starting

    def _start(self) -> None:
        # There are passwords in the settings.
        self.directory.chmod(0o700)
        self._logs.mkdir()
        self._venv = ensure_openstack_venv(_say)
        self._run = tempfile.TemporaryDirectory(prefix="lifeboat.")
        self._neutron = Neutron()
        names = ("keystone", "glance", "placement", "nova", "cinder")
        secret = secrets.token_hex(16)
        rabbit = RabbitMq(self._rabbitmq, self.directory / "rabbitmq", self._logs, "openstack", secret,
                          self._daemons)
        self._settings = Settings(
            directory=self.directory, venv=self._venv, ports=dict(zip(names, free_ports(len(names)), strict=True)),
            database_socket=Path(self._run.name) / "mariadb.sock", neutron_url=self._neutron.url, password=self.password,
            transport_url=RabbitMq.url("openstack", secret, rabbit.port))
        write(self._settings)
        self._start_database()
        self._serve("keystone", "keystone.wsgi.api")
        self._wait()
        self.auth_url = self._settings.url("keystone")
        self._fill_keystone()
        # These look for conductors, so those come first.
        self._serve("placement", "placement.wsgi.api")
        self._daemon("nova-conductor", ["nova-conductor", *self._settings.arguments("nova")])
        self._serve("glance", "glance.wsgi.api")
        self._wait()
        self._daemon("nova-scheduler", ["nova-scheduler", *self._settings.arguments("nova")])
        self._daemon("nova-compute", ["python", "-m", "lifeboat_lab.openstack_full.compute", self._listen() if self.power else "-",
                                      *self._settings.arguments("nova-compute")])
        self._serve("nova", "nova.wsgi.osapi_compute")
        self._daemon("cinder-scheduler", ["cinder-scheduler", *self._settings.arguments("cinder")])
        self._daemon("cinder-volume", ["cinder-volume", *self._settings.arguments("cinder")])
        self._serve("cinder", "cinder.wsgi.api")
        self._wait()
        self._write_clouds()
        self._wait_for_services()
        self._make_flavors()

    def _start_database(self) -> None:
        """MariaDB, on a copy of databases whose tables were made once."""
        data, run_directory = self.directory / "mariadb", Path(t.cast("tempfile.TemporaryDirectory[str]", self._run).name)
        wanted = hashlib.sha256("\n".join([self._venv.name, mariadb_version(), self.password, *DATABASES,
                                           inspect.getsource(self._make_tables)]).encode())
        made = cache() / "openstack" / f"databases-{wanted.hexdigest()[:12]}"
        made.parent.mkdir(parents=True, exist_ok=True)
        with open(made.parent / "lock", "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # somebody else may be at it
            if not made.exists():
                _say(f"Making the tables of OpenStack's databases in {made}")
                for old in made.parent.glob("databases-*"):
                    shutil.rmtree(old)
                make_mariadb(data)
                daemon = mariadb(data, run_directory, self._logs)
                try:
                    daemon.wait(60)
                    self._make_tables()
                finally:
                    daemon.end(60)
                half = made.with_suffix(".new")
                shutil.rmtree(half, ignore_errors=True)
                shutil.copytree(data, half)
                half.rename(made)
            else:
                shutil.copytree(made, data)
        self._daemons.append(mariadb(data, run_directory, self._logs))
        self._daemons[-1].wait(60)

    def _make_tables(self) -> None:
        """All databases as new services want them, and keystone's first user. Nothing in them is different from run to run."""
        sock = self._settings.database_socket
        run(["mariadb", "--no-defaults", f"--socket={sock}", "--user=root"], environment(),
            stdin="".join(f"CREATE DATABASE {name} CHARACTER SET utf8;\n" for name in DATABASES))
        manage = self._settings.manage
        # As templates, because the next run's are others.
        place = "{scheme}://{username}@{hostname}/"
        commands = [
            [manage("nova", "api_db", "sync"), manage("nova", "cell_v2", "map_cell0", "--database_connection",
                                                      f"{place}nova_cell0?{{query}}"), manage("nova", "db", "sync"),
             manage("nova", "cell_v2", "create_cell", "--name", "cell1", "--database_connection", f"{place}{{path}}?{{query}}",
                    "--transport-url", "{scheme}://{username}:{password}@{hostname}:{port}/")],
            [manage("keystone", "db_sync"), manage("keystone", "bootstrap", "--bootstrap-password", self.password),
             manage("cinder", "db", "sync"), manage("glance", "db_sync"), manage("placement", "db", "sync")],
        ]
        with concurrent.futures.ThreadPoolExecutor() as pool:
            list(pool.map(self._finish, commands))

    def _environment(self) -> dict[str, str]:
        return environment(PYTHONPATH=str(LAB), PYTHONDONTWRITEBYTECODE="1", OS_NOVA_DISABLE_EVENTLET_PATCHING="true",
                           **self._settings.variables())

    def _finish(self, commands: Sequence[Sequence[str]]) -> None:
        for program, *words in commands:
            run([self._venv / "bin" / program, *words], self._environment())

    def _daemon(self, name: str, command: Sequence[str | Path], ready: Callable[[], bool] = lambda: True) -> None:
        program, *words = command
        self._daemons.append(Daemon(name, [self._venv / "bin" / program, *words], self._environment(), self._logs, ready))

    def _serve(self, name: str, module: str) -> None:
        port = self._settings.ports[name]
        self._daemon(f"{name}-api", ["python", "-m", "lifeboat_lab.openstack_full.serve", module, str(port),
                                     *self._settings.arguments(name)], lambda: accepts(port))

    def _wait(self) -> None:
        """Until all that were started are ready."""
        for daemon in self._daemons:
            daemon.wait(120)

    def _stop(self) -> None:
        """End the services before what they lean on, so that none waits for another."""
        for layer in (self._daemons[3:], self._daemons[:3]):
            for daemon in layer:
                daemon.ask_to_end()
            for daemon in reversed(layer):
                daemon.end()
        self._daemons.clear()
        if self._neutron is not None:
            self._neutron.close()
            self._neutron = None
        if self._run is not None:
            self._run.cleanup()
            self._run = None

    # -- what an operator does

    def _fill_keystone(self) -> None:
        """Projects, users, and the catalog."""
        url = f"{self.auth_url}/v3"
        domain = {"id": "default"}
        answer = requests.post(f"{url}/auth/tokens", timeout=60, json={"auth": {
            "identity": {"methods": ["password"], "password": {"user": {"name": "admin", "domain": domain, "password": self.password}}},
            "scope": {"project": {"name": "admin", "domain": domain}}}})
        if answer.status_code != 201:
            raise LabError(f"Keystone gives its first user no token: {answer.text}")
        session = requests.Session()
        session.headers["X-Auth-Token"] = answer.headers["X-Subject-Token"]

        def call(method: str, path: str, kind: str | None = None, **fields: t.Any) -> t.Any:
            done = session.request(method, f"{url}/{path}", json={kind: fields} if kind else None, timeout=60)
            if not done.ok:
                raise LabError(f"Keystone: {method} {path}: {done.text}")
            return done.json() if done.content else None

        roles = {role["name"]: role["id"] for role in call("GET", "roles")["roles"]}
        users = {user["name"]: user["id"] for user in call("GET", "users")["users"]}
        self._projects = {name: call("POST", "projects", "project", name=name, domain_id="default")["project"]["id"]
                          for name in ("lab", "elsewhere", "service")}
        for name, (project, role) in {**USERS, "service": ("service", "admin")}.items():
            if name not in users:
                users[name] = call("POST", "users", "user", name=name, password=self.password, domain_id="default")["user"]["id"]
            call("PUT", f"projects/{self._projects[project]}/users/{users[name]}/roles/{roles[role]}")
        # So that services are known as such to each other.
        call("PUT", f"projects/{self._projects['service']}/users/{users['service']}/roles/{roles['service']}")
        call("POST", "regions", "region", id="lab")
        for kind, (name, endpoint) in self._settings.catalog().items():
            service = call("POST", "services", "service", type=kind, name=name)["service"]["id"]
            for interface in ("public", "internal", "admin"):
                call("POST", "endpoints", "endpoint", service_id=service, interface=interface, region_id="lab", url=endpoint)
        session.close()

    def _wait_for_services(self) -> None:
        """Until servers and volumes can be made."""
        missing = ["nothing"]

        def there() -> bool:
            missing[0] = self._missing()
            if missing[0]:
                # One that has ended says so.
                for daemon in self._daemons:
                    daemon.wait(1)
            return not missing[0]

        until(there, 120, lambda: f"{missing[0]} is not there after 120 s; see {self._logs}", every=0.1)

    def _missing(self) -> str:
        connection = self._connection("admin")
        up = {service["binary"] for service in self._json("compute", "/os-services")["services"] if service["state"] == "up"}
        up |= {service["binary"] for service in self._json("block-storage", "/os-services")["services"] if service["state"] == "up"}
        wanted = ["nova-conductor", "nova-scheduler", "nova-compute", "cinder-scheduler", "cinder-volume"]
        for name in wanted:
            if name not in up:
                return name
        if not self._json("compute", "/os-hypervisors")["hypervisors"]:
            return "the hypervisor"
        providers = connection.placement.get("/resource_providers").json()["resource_providers"]
        inventories = [connection.placement.get(f"/resource_providers/{one['uuid']}/inventories").json() for one in providers]
        return "" if any(inventory["inventories"] for inventory in inventories) else "the hypervisor's inventory"

    def _json(self, service: str, path: str) -> t.Any:
        proxy = {"compute": "compute", "block-storage": "block_storage"}[service]
        answer = getattr(self._connection("admin"), proxy).get(path)
        if answer.status_code != 200:
            raise LabError(f"{service}: GET {path}: {answer.text}")
        return answer.json()

    def _make_flavors(self) -> None:
        for number in (1, 2):
            self._connection("admin").compute.create_flavor(name=f"small{number}", id=str(number), ram=64 * number, vcpus=1, disk=1)

    # -- images

    def put_image(self, name: str, *, id: str | None = None, **fields: t.Any) -> str:
        """As there; besides what an image may have, status: active, queued or deactivated, and owner: a project's name."""
        glance = self._connection("admin").image
        status, size = fields.pop("status", "active"), fields.pop("size", None)
        body = {"name": name, "visibility": "public", "disk_format": "raw", "container_format": "bare",
                "owner": self._projects[fields.pop("owner", "lab")], **fields.pop("properties", {}), **fields}
        answer = glance.post("/images", json={**body, **({"id": id} if id else {})})
        if answer.status_code != 201:
            raise LabError(f"Glance makes no image: {answer.text}")
        image = str(answer.json()["id"])
        if status != "queued":
            done = glance.put(f"/images/{image}/file", data=b"" if size == 0 else IMAGE,
                              headers={"Content-Type": "application/octet-stream"})
            if done.status_code != 204:
                raise LabError(f"Glance takes no data for {name}: {done.text}")
        if status == "deactivated":
            glance.deactivate_image(image)
        return image

    def images(self) -> list[str]:
        return [image.id for image in self._connection("admin").image.images()]

    def remove_image(self, image_id: str) -> None:
        self._connection("admin").image.delete_image(image_id)

    # -- servers

    def create_volume(self) -> str:
        """A volume with an image, of the project lab, which is deleted with its server."""
        cinder = self._connection("member").block_storage
        volume = cinder.create_volume(size=1, name="root")
        cinder.wait_for_status(volume, "available", ["error"], 0.2, 60)
        # What a copy of the image would have said; no driver without bytes makes one.
        cinder.set_volume_bootable_status(volume, True)
        return str(volume.id)

    def create_server(self, name: str, *, address: str | None = None, volume_backed: bool = False, host: str = "compute",
                      user: str = "admin", wait: bool = True) -> str:
        if host != "compute":
            raise LabError(f"There is no host {host} here.")
        body: dict[str, t.Any] = {"name": name, "flavorRef": "1", "imageRef": self.base_image,
                                  "networks": [{"uuid": NETWORK, **({"fixed_ip": address} if address else {})}]}
        if volume_backed:
            del body["imageRef"]
            body["block_device_mapping_v2"] = [{"boot_index": 0, "uuid": self.create_volume(), "source_type": "volume",
                                                "destination_type": "volume", "delete_on_termination": True}]
        answer = self._connection(user).compute.post("/servers", json={"server": body}, microversion="2.87")
        if answer.status_code != 202:
            raise LabError(f"Nova makes no server: {answer.text}")
        server_id = str(answer.json()["server"]["id"])
        return self.wait_for(server_id, "ACTIVE", 120) if wait else server_id
