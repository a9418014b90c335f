# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Servers at each provider, and controllers, each in a process of its own, that wish them into rescue and out again.

Over the lab's APIs and real Nova, with a machine of two sshds behind. Time is simulated, so each waits as long as it does by itself, and
the order of what happens does not depend on this machine.
"""

from __future__ import annotations

import getpass
import json
import os
import pathlib
import subprocess
import sys
import types
import typing as t

import pytest

from lifeboat_lab.waiting import until

ME = getpass.getuser()
PROVIDERS = ["openstack", "ovh_dedicated", "ovh_vps", "softlayer-vs-xmlrpc", "softlayer-hw-rest"]
SECONDS = 60.0
# How long each step of a task of the API takes, and how long a server is down, in simulated seconds.
TASK, BOOT = 1.0, 30.0


@pytest.fixture(scope="module")
def controllers(tmp_path_factory):
    """What starts controllers, see mortal.py. Nothing of the person's own settings reaches it."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OS_", "OVH_", "SL_", "PYTHON"))}
    process = subprocess.Popen(
        [sys.executable, str(pathlib.Path(__file__).with_name("mortal.py"))], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**clean, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONDONTWRITEBYTECODE": "1",
             "HOME": str(tmp_path_factory.mktemp("home"))}, bufsize=1)
    yield process
    process.stdin.close()
    process.wait(timeout=SECONDS)
    process.stdout.close()
    assert process.returncode == 0


class World:
    """A provider's server, and controllers that wish it into rescue and out again."""

    def __init__(self, controllers, machine, directory, **params):
        self.controllers = controllers
        self.machine = machine
        machine.boots_in = BOOT
        self.sessions = directory / "sessions"
        self.params = {
            "rescue_port": machine.port, "rescue_user": ME, "private_key_file": str(machine.user_key), "login": "key", "rescue": "best",
            "installed_host": "127.0.0.1", "installed_port": machine.port, "installed_user": ME,
            "installed_private_key_file": str(machine.user_key), "installed_known_hosts_file": os.devnull,
            "installed_host_keys": [machine.installed.host_key], "session_dir": str(self.sessions), "reboot_method": "hard", **params}

    # What asks for something to be changed, on the way in and on the way out, in words of failing.label().
    asks: t.ClassVar[dict[str, list[str]]] = {}

    def writes(self):
        """How much was changed at the provider, or rebooted."""
        raise NotImplementedError

    def be_late(self, seconds):
        """Have the API show what it was asked for so many seconds later."""
        assert not seconds

    def traces(self):
        """All that a controller can leave."""
        return self.writes(), list(self.machine.boots), [path.read_text() for path in self.record]

    def is_as_before(self):
        """Whether nothing of the rescue is left at the provider."""
        raise NotImplementedError

    @property
    def record(self):
        return list(self.sessions.rglob("session.json"))

    def run(self, state, kill=None, fault=None):
        """One controller's life. kill, fault: see mortal.py."""
        time, asked = self.machine.clockwork, 0
        word = {"params": {**self.params, "state": state}, "kill": kill, "fault": fault, "now": time.now}
        while True:
            self.controllers.stdin.write(json.dumps(word) + "\n")
            said = json.loads(self.controllers.stdout.readline())
            if "wait" not in said:
                return said
            if said["asked"] != asked:
                asked = said["asked"]
                self.settle()
            time.advance(said["wait"])
            word = time.now

    def settle(self):
        """Wait, in real time, until what is real at the provider has done what it was asked for."""

    def finish(self, state, died):
        """The controller after the one that died."""
        again = self.run(state)
        told = [again]
        while died and again["result"].get("failed") and self.may_wait(again["result"]) and len(told) < 5:
            again = self.run(state)
            told.append(again)
        assert not again["result"].get("failed"), (died, told)
        return again["result"]

    def may_wait(self, result):
        """Whether this failure is one after which the same call again is the way on."""
        return False


class OpenStack(World):
    asks: t.ClassVar = {"present": ["/metadata", "/action rescue"], "absent": ["/action unrescue", "/metadata/"]}

    def __init__(self, controllers, machine, directory, nova, nova_power, server):
        cloud = nova.cloud("member")
        super().__init__(controllers, machine, directory, provider="openstack", server="web1", openstack_auth=cloud["auth"],
                         openstack_region_name=cloud["region_name"])
        self.nova, self.id = nova, server
        self.kind = "installed"
        machine.server = types.SimpleNamespace(next_boot=lambda: types.SimpleNamespace(kind=self.kind, ssh_key=machine.user_public))
        nova_power.then = self.press

    def settle(self):
        until(lambda: self.nova.show(self.id)["OS-EXT-STS:task_state"] is None, SECONDS, every=0.1)

    def press(self, event):
        if event["event"] in ("rescue", "unrescue"):
            self.kind = "rescue" if event["event"] == "rescue" else "installed"
            self.machine.reset()
        elif event["event"] == "reboot":
            self.machine.reset()

    def writes(self):
        return len(self.nova.actions(self.id)) - 1 + len(self.nova.show(self.id)["metadata"])

    def is_as_before(self):
        shown = self.nova.show(self.id)
        return (shown["status"], shown["metadata"]) == ("ACTIVE", {})


class OvhVps(World):
    asks: t.ClassVar = {"present": ["PUT"], "absent": ["PUT"]}

    def __init__(self, controllers, machine, directory, api):
        from lifeboat_lab.ovh_api import Vps

        self.vps = api.add(Vps("vps-00000001.vps.ovh.net", ip="127.0.0.1", ip6=None, power=machine,
                               task_seconds={"todo": TASK, "doing": TASK}))
        api.credential.rules += [("GET", "/vps"), ("POST", "/vps/*/getConsoleUrl")]
        super().__init__(controllers, machine, directory, provider="ovh_vps", server=self.vps.name, ovh_endpoint=api.url,
                         **{f"ovh_{name}": value for name, value in api.credential.client_arguments().items()})
        machine.server = types.SimpleNamespace(
            next_boot=lambda: types.SimpleNamespace(kind=self.vps.next_boot().kind, ssh_key=machine.user_public))
        self.api = api

    def be_late(self, seconds):
        self.vps.unkind.list_lag = seconds

    def writes(self):
        return len([call for call in self.api.writes() if "getConsoleUrl" not in call.path])

    def is_as_before(self):
        return self.vps.netbootMode == "local"


class OvhDedicated(World):
    asks: t.ClassVar = {"present": ["PUT", "/reboot"], "absent": ["PUT", "/reboot", "PUT"]}

    def __init__(self, controllers, machine, directory, api, server):
        super().__init__(controllers, machine, directory, provider="ovh_dedicated", server=server.name, ovh_endpoint=api.url,
                         **{f"ovh_{name}": value for name, value in api.credential.client_arguments().items()})
        self.api, self.server = api, server
        self.before = self.settings()

    def be_late(self, seconds):
        self.server.unkind.list_lag = seconds

    def settings(self):
        return {name: getattr(self.server, name) or None for name in ("bootId", "rescueSshKey", "rescueMail", "monitoring",
                                                                      "noIntervention")}

    def writes(self):
        return len(self.api.writes())

    def is_as_before(self):
        return self.settings() == self.before


class SoftLayer(World):
    asks: t.ClassVar = {"present": ["RescueLayer"], "absent": ["rebootDefault"]}

    def __init__(self, controllers, machine, directory, api, server, url):
        super().__init__(controllers, machine, directory, provider="softlayer", server=f"{server.kind}:{server.id}",
                         softlayer_endpoint_url=url,
                         **{f"softlayer_{name}": value for name, value in api.credential.client_arguments().items()})
        machine.server = types.SimpleNamespace(
            next_boot=lambda: types.SimpleNamespace(kind=server.next_boot().kind, ssh_key=machine.user_public))
        self.api, self.server = api, server
        if server.kind == "vs":
            # Nothing at this provider tells whether a reboot of a guest arrived. Who is not sure waits first, and asks later; each
            # second of that costs a look at what still runs.
            self.params["boot_timeout"] = 60.0

    def be_late(self, seconds):
        self.server.unkind.list_lag = seconds

    def writes(self):
        return self.server.rescues + self.server.reboots

    def is_as_before(self):
        return self.server.active is None

    def may_wait(self, result):
        return self.server.kind == "vs" and result["failure"]["code"] == "timed_out" and "goes on waiting" in result["msg"]


@pytest.fixture(params=PROVIDERS)
def world(request, controllers, machine, tmp_path):
    """A server at each provider. Its time is that of the fixture clockwork, which is to be a SimulatedClockwork."""
    name, _dash, kind = request.param.partition("-")
    if name == "openstack":
        nova, make_server = request.getfixturevalue("nova"), request.getfixturevalue("make_server")
        yield OpenStack(controllers, machine, tmp_path, nova, request.getfixturevalue("nova_power"),
                        make_server(address="127.0.0.1"))
    elif name == "ovh_vps":
        yield OvhVps(controllers, machine, tmp_path, request.getfixturevalue("api"))
    elif name == "ovh_dedicated":
        yield OvhDedicated(controllers, machine, tmp_path, request.getfixturevalue("api"), request.getfixturevalue("server"))
    else:
        from lifeboat_lab.softlayer_api import Server, SoftLayerApi

        server = Server(1001, kind[:2], "web1", primaryIpAddress="127.0.0.1", power=machine, refusal_seconds=0.0,
                        rescue_seconds={"RESCUE_SETUP": TASK, "RESCUE_BOOT": TASK})
        api = SoftLayerApi([server])
        api._clockwork = machine.clockwork
        with api:
            yield SoftLayer(controllers, machine, tmp_path, api, server, api.rest_url if kind.endswith("rest") else api.url)
