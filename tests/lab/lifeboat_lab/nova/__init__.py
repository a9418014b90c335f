# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real Nova for the lab, in a process and a virtual environment of its own.

    with Nova(Path("/tmp/nova")) as nova:
        os.environ["OS_CLIENT_CONFIG_FILE"] = str(nova.clouds_yaml)
        server = nova.create_server("web1")
        openstack.connect(cloud="member").compute.rescue_server(server, "secret", nova.rescue_image)

clouds.yaml has the clouds `member`, `reader` and `admin` of one project and `other` of another. Where machines are to
follow what Nova says, `power` is called with each event before Nova takes it for done:

    {"event": "rescue", "server": id, "name": ..., "image": id, "password": ...}
    {"event": "reboot", "server": id, "name": ..., "type": "SOFT" or "HARD"}
    {"event": "unrescue" | "power_off" | "power_on", "server": id, "name": ...}

Nova powers a server off before it rescues it, and says on once more within a reboot, so `power` must take both calmly. An
exception in it is a fault of the hypervisor.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
import typing as t
import uuid
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import requests
import yaml

from ..images import LabError

LAB = Path(__file__).parents[2]
REQUIREMENTS = LAB / "requirements-nova.txt"
# Of Nova's own test fixtures: the only network, and a volume that has an image.
NETWORK = "3cb9bc59-5699-4588-a4b1-b87f96708bc6"
VOLUME = "6ca404f3-d844-4169-bb96-bc792f37de98"

Event = Mapping[str, t.Any]


def ensure_nova_venv(say: Callable[[str], None] = print) -> Path:
    """The virtual environment with Nova, made first where the cache has none. say is told so, in one line."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lifeboat.rescue" / "venv"
    cache.mkdir(parents=True, exist_ok=True)
    wanted = hashlib.sha256(f"{sys.executable} {sys.version}\n{REQUIREMENTS.read_text(encoding='utf-8')}".encode())
    venv = cache / f"nova-{wanted.hexdigest()[:12]}"
    if (venv / "complete").exists():
        return venv
    with open(cache / "nova-lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # somebody else may be at it
        if not (venv / "complete").exists():
            say(f"Setting up Python packages in {venv}")
            _make_venv(venv)
    return venv


def _make_venv(venv: Path) -> None:
    python = venv / "bin/python"
    uv = shutil.which("uv")
    if uv:
        commands = [[uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(venv)],
                    [uv, "pip", "install", "--quiet", "--python", str(python), "--requirement", str(REQUIREMENTS)]]
    else:
        commands = [[sys.executable, "-m", "venv", "--clear", str(venv)],
                    [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--requirement", str(REQUIREMENTS)]]
    for command in commands:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=900, check=False)
        if done.returncode:
            raise LabError(f"{' '.join(command)} failed:\n{done.stdout[-4000:]}")
    # Nova's fixtures look for it here; the wheel has it elsewhere.
    packages = next((venv / "lib").glob("python3*/site-packages"))
    (packages / "etc").mkdir(exist_ok=True)
    shutil.copytree(venv / "etc/nova", packages / "etc/nova", dirs_exist_ok=True)
    (venv / "complete").touch()


class Nova:
    """Nova as a context manager. directory: for its log and clouds.yaml, made where it is not there.

    power: see above. It is called in threads of its own, for two servers at a time where that comes so.
    """

    password = "everybodys-lab-password"

    def __init__(self, directory: Path, power: Callable[[Event], None] | None = None):
        self.directory = directory
        self.clouds_yaml = directory / "clouds.yaml"
        self.log = directory / "nova.log"
        self.url = ""
        # Ids of the image that servers are made of, and of a rescue system that fits every server.
        self.base_image = ""
        self.rescue_image = ""
        self._power = power
        self._power_server: ThreadingHTTPServer | None = None
        self._process: subprocess.Popen[str] | None = None
        # Our own, by user.
        self._connections: dict[str, t.Any] = {}

    def __enter__(self) -> Nova:
        self.directory.mkdir(parents=True, exist_ok=True)
        venv = ensure_nova_venv(lambda line: print(line, file=sys.stderr, flush=True))
        try:
            self._start(venv)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _start(self, venv: Path) -> None:
        given = {"power_url": self._listen() if self._power else None}
        # Nothing of the caller's own cloud must reach it.
        env = {name: value for name, value in os.environ.items() if not name.startswith(("OS_", "PYTHON")) and "proxy" not in name.lower()}
        with open(self.log, "w", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                [venv / "bin/python", "-m", "lifeboat_lab.nova.service", json.dumps(given)], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=log, text=True, cwd=self.directory,
                start_new_session=True,  # Ctrl-C is for us; we end it
                env={**env, "PYTHONPATH": str(LAB), "PYTHONDONTWRITEBYTECODE": "1"})
        lines: queue.Queue[str] = queue.Queue()
        stdout = self._process.stdout
        assert stdout is not None

        def read() -> None:
            # To the end, or the process would wait for us one day.
            for line in itertools.chain(stdout, [""]):
                lines.put(line)

        threading.Thread(target=read, daemon=True).start()
        try:
            line = lines.get(timeout=120)
        except queue.Empty:
            line = ""
        if not line:
            raise LabError(f"Nova does not start; its last words in {self.log}:\n{self.log.read_text(encoding='utf-8')[-3000:]}")
        self.url = json.loads(line)["url"]
        self._write_clouds()
        self.base_image = self.put_image("debian-13")
        self.rescue_image = self.put_image("system-rescue", tags=["system-rescue"],
                                           properties={"hw_rescue_device": "cdrom", "hw_rescue_bus": "sata"})

    def close(self) -> None:
        """End the process, and the listener that it talks to."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()
        if self._process is not None:
            process, self._process = self._process, None
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(timeout=20)
            if process.stdout is not None:
                process.stdout.close()
        if self._power_server is not None:
            self._power_server.shutdown()
            self._power_server.server_close()
            self._power_server = None

    # -- power

    def _listen(self) -> str:
        power = t.cast(Callable[[Event], None], self._power)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                try:
                    power(event)
                except Exception as exc:
                    data = f"{type(exc).__name__}: {exc}".encode()
                    self.send_response(500)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)
                else:
                    self.send_response(204)
                    self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._power_server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._power_server.daemon_threads = True
        threading.Thread(target=self._power_server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return f"http://127.0.0.1:{self._power_server.server_address[1]}"

    # -- what a user of the cloud has

    def _write_clouds(self) -> None:
        clouds = {name: self.cloud(name) for name in ("member", "reader", "admin", "other")}
        self.clouds_yaml.write_text(yaml.safe_dump({"clouds": clouds}), encoding="utf-8")

    def cloud(self, name: str) -> dict[str, t.Any]:
        """An entry of clouds.yaml. name: a user, of `member`, `reader`, `admin` and `other`."""
        return {"auth": {"auth_url": f"{self.url}/identity/v3", "username": name, "password": self.password,
                         "project_name": f"project of {name}", "user_domain_id": "default", "project_domain_id": "default"},
                "region_name": "lab", "interface": "public", "identity_api_version": "3"}

    def connection(self, name: str = "member", **settings: t.Any) -> t.Any:
        """A connection of openstacksdk as one of the users. settings: more of what clouds.yaml may have."""
        import openstack

        return openstack.connection.Connection(config=openstack.config.OpenStackConfig(
            config_files=[str(self.clouds_yaml)], load_envvars=False).get_one(cloud=name, **{"api_timeout": 30, **settings}))

    def _compute(self, user: str = "admin") -> t.Any:
        """Nova, as the lab itself asks it."""
        if user not in self._connections:
            self._connections[user] = self.connection(user)
        return self._connections[user].compute

    # -- what the lab can do that no user can

    def control(self, **settings: t.Any) -> dict[str, t.Any]:
        """Change settings of the service, and ask what came; see Front._control() there."""
        answer = requests.post(f"{self.url}/lab", json=settings, timeout=30)
        answer.raise_for_status()
        return t.cast(dict[str, t.Any], answer.json())

    def put_image(self, name: str, *, id: str | None = None, **fields: t.Any) -> str:
        """Have an image, or change the one of that id; returns the id. fields: as Glance shows them, `properties` apart."""
        image_id = id or str(uuid.uuid4())
        self.control(image={"id": image_id, "name": name, **fields})
        return image_id

    def images(self) -> list[str]:
        """The ids of all images."""
        return t.cast(list[str], self.control()["images"])

    def lose(self, match: str, times: int = 1, after: bool = True, status: int = 502) -> None:
        """Break the next requests to Nova that contain `match` in their line or body. after: Nova does them nevertheless."""
        self.control(faults=[{"match": match, "after": after, "status": status}] * times)

    def meet(self, requests: int = 2) -> None:
        """Let so many of the next rescues with an image of choice find the server as it was before any of them."""
        self.control(together=requests)

    def end_rescues(self, seconds: int) -> None:
        """Let Nova end the rescues that are older, as it does by itself where nova.conf has that for rescue_timeout."""
        self.control(rescue_timeout=seconds)

    def create_server(self, name: str, *, address: str | None = None, floating: str | None = None, volume_backed: bool = False,
                      host: str = "compute", user: str = "admin", wait: bool = True, metadata: Mapping[str, str] | None = None,
                      networks: Sequence[Mapping[str, str]] | t.Literal["none"] | None = None) -> str:
        """Make a server, wait until it is ACTIVE, return its id.

        address: a fixed one on loopback. floating: one that translates to it. host: `compute`, or `old`, which cannot
        rescue what boots from a volume.
        """
        if floating:
            self.control(floating=[address, floating])
        body: dict[str, t.Any] = {"name": name, "flavorRef": "1", "metadata": dict(metadata or {}), "imageRef": self.base_image,
                                  "networks": networks or [{"uuid": NETWORK, **({"fixed_ip": address} if address else {})}]}
        if user == "admin":
            body["availability_zone"] = f"nova:{host}"
        if volume_backed:
            del body["imageRef"]
            body["block_device_mapping_v2"] = [{"boot_index": 0, "uuid": VOLUME, "source_type": "volume",
                                                "destination_type": "volume"}]
        answer = self._compute(user).post("/servers", json={"server": body}, microversion="2.87")
        if answer.status_code != 202:
            raise LabError(f"Nova makes no server: {answer.text}")
        server_id = str(answer.json()["server"]["id"])
        return self.wait_for(server_id, "ACTIVE") if wait else server_id

    def show(self, server_id: str) -> dict[str, t.Any]:
        """A server as an administrator sees it."""
        answer = self._compute().get(f"/servers/{server_id}", microversion="2.87")
        if answer.status_code != 200:
            raise LabError(f"Nova does not show {server_id}: {answer.text}")
        return t.cast(dict[str, t.Any], answer.json()["server"])

    def actions(self, server_id: str) -> list[str]:
        """What Nova was asked to do with a server, the newest first."""
        answer = self._compute().get(f"/servers/{server_id}/os-instance-actions", microversion="2.87")
        if answer.status_code != 200:
            raise LabError(f"Nova does not tell the actions of {server_id}: {answer.text}")
        return [str(action["action"]) for action in answer.json()["instanceActions"]]

    def wait_for(self, server_id: str, status: str, timeout: float = 30.0) -> str:
        """Wait until a server has a status and no task under way; returns its id."""
        until = time.monotonic() + timeout
        while True:
            server = self.show(server_id)
            if (server["status"], server["OS-EXT-STS:task_state"]) == (status, None):
                return server_id
            if time.monotonic() > until:
                raise LabError(f"{server_id} is {server['status']}, not {status}: {server.get('fault')}")
            time.sleep(0.02)

    def delete_server(self, server_id: str) -> None:
        """Delete a server and wait until it is gone."""
        compute = self._compute()
        compute.delete(f"/servers/{server_id}")
        until = time.monotonic() + 30
        while compute.get(f"/servers/{server_id}").status_code != 404:
            if time.monotonic() > until:
                raise LabError(f"{server_id} cannot be deleted.")
            time.sleep(0.02)
