# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the lab's clouds have in common: users, clouds.yaml, servers, and the wire to the machines."""

from __future__ import annotations

import abc
import json
import threading
import typing as t
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import yaml

from ..recipe import LabError
from ..waiting import until

Event = Mapping[str, t.Any]


class Cloud(abc.ABC):
    """A context manager. directory: for logs and clouds.yaml, made where it is not there.

    power: see the package. It is called in threads of its own, for two servers at a time where that comes so.
    Another one may take its place later, where there was one.
    """

    password = "everybodys-lab-password"

    def __init__(self, directory: Path, power: Callable[[Event], None] | None = None):
        self.directory = directory
        self.clouds_yaml = directory / "clouds.yaml"
        # Of keystone.
        self.auth_url = ""
        # Ids of the image that servers are made of, and of a rescue system that fits every server.
        self.base_image = ""
        self.rescue_image = ""
        self.power = power
        self._power_server: ThreadingHTTPServer | None = None
        # Our own, by user.
        self._connections: dict[str, t.Any] = {}

    def __enter__(self) -> t.Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        try:
            self._start()
            self._write_clouds()
            self.base_image = self.put_image("debian-13")
            self.rescue_image = self.put_image("system-rescue", tags=["system-rescue"],
                                               properties={"hw_rescue_device": "cdrom", "hw_rescue_bus": "sata"})
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @abc.abstractmethod
    def _start(self) -> None:
        """Start what there is to start, and set auth_url."""

    def close(self) -> None:
        """End all of it."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()
        self._stop()
        if self._power_server is not None:
            self._power_server.shutdown()
            self._power_server.server_close()
            self._power_server = None

    @abc.abstractmethod
    def _stop(self) -> None:
        """End what _start() started, also where it got only halfway."""

    def reset(self) -> None:  # noqa: B027
        """Forget what a test set. Default: there is nothing."""

    @abc.abstractmethod
    def put_image(self, name: str, *, id: str | None = None, **fields: t.Any) -> str:
        """Have an image, or change the one of that id; returns the id. fields: as Glance shows them, `properties` apart."""

    @abc.abstractmethod
    def images(self) -> list[str]:
        """The ids of all images."""

    @abc.abstractmethod
    def remove_image(self, image_id: str) -> None:
        """Have an image no more."""

    @abc.abstractmethod
    def create_server(self, name: str, *, address: str | None = None, volume_backed: bool = False, host: str = "compute",
                      user: str = "admin", wait: bool = True) -> str:
        """Make a server, wait until it is ACTIVE, return its id. address: a fixed one on loopback. host: what it runs on."""

    # -- power

    def _listen(self) -> str:
        def press(event: Event) -> None:
            if self.power is not None:
                self.power(event)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                try:
                    press(event)
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
        return {"auth": {"auth_url": f"{self.auth_url}/v3", "username": name, "password": self.password,
                         "project_name": "elsewhere" if name == "other" else "lab",
                         "user_domain_id": "default", "project_domain_id": "default"},
                "region_name": "lab", "interface": "public", "identity_api_version": "3"}

    def connection(self, name: str = "member", **settings: t.Any) -> t.Any:
        """A connection of openstacksdk as one of the users. settings: more of what clouds.yaml may have."""
        import openstack

        return openstack.connection.Connection(config=openstack.config.OpenStackConfig(
            config_files=[str(self.clouds_yaml)], load_envvars=False).get_one(cloud=name, **{"api_timeout": 30, **settings}))

    def _connection(self, user: str = "admin") -> t.Any:
        """A connection of the lab's own, which is kept."""
        if user not in self._connections:
            self._connections[user] = self.connection(user)
        return self._connections[user]

    # -- what the lab asks

    def show(self, server_id: str) -> dict[str, t.Any]:
        """A server as an administrator sees it."""
        answer = self._connection("admin").compute.get(f"/servers/{server_id}", microversion="2.87")
        if answer.status_code != 200:
            raise LabError(f"Nova does not show {server_id}: {answer.text}")
        return t.cast(dict[str, t.Any], answer.json()["server"])

    def actions(self, server_id: str) -> list[str]:
        """What Nova was asked to do with a server, the newest first."""
        answer = self._connection("admin").compute.get(f"/servers/{server_id}/os-instance-actions", microversion="2.87")
        if answer.status_code != 200:
            raise LabError(f"Nova does not tell the actions of {server_id}: {answer.text}")
        return [str(action["action"]) for action in answer.json()["instanceActions"]]

    def wait_for(self, server_id: str, status: str, timeout: float = 30.0) -> str:
        """Wait until a server has a status and no task under way; returns its id."""
        def settled() -> bool:
            server = self.show(server_id)
            return (server["status"], server["OS-EXT-STS:task_state"]) == (status, None)

        def otherwise() -> str:
            server = self.show(server_id)
            return f"{server_id} is {server['status']}, not {status}: {server.get('fault')}"

        # A look costs Nova twice as much as the pause between two.
        until(settled, timeout, otherwise, every=0.1)
        return server_id

    def delete_server(self, server_id: str) -> None:
        """Delete a server and wait until it is gone."""
        compute = self._connection("admin").compute
        compute.delete(f"/servers/{server_id}")
        until(lambda: compute.get(f"/servers/{server_id}").status_code == 404, 30, f"{server_id} cannot be deleted.", every=0.02)
