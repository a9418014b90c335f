# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sessions over the lab's Nova, with a machine of real sshds that take turns."""

from __future__ import annotations

import getpass
import types

import pytest

from ansible_collections.lifeboat.rescue.plugins.module_utils._control._providers import _calls
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._providers._openstack._provider import NOTE, OpenStack
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._session import _observe, _reboot, _request
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._session._context import Options
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._session._record import SessionStore
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._session._session import Session
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._ssh import _port
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._ssh._client import Login
from ansible_collections.lifeboat.rescue.plugins.module_utils._errors import TargetError
from ansible_collections.lifeboat.rescue.plugins.module_utils._wait import Backoff
from lifeboat_lab.waiting import until

pytest_plugins = "lifeboat_lab.nova.fixtures"
# The library warns of parts of itself, whoever uses it.
pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")

ME = getpass.getuser()


class Server:
    """A server of Nova's, whose machine does as Nova's hypervisor says."""

    def __init__(self, server_id, machine):
        self.id = server_id
        self.kind = "installed"
        self.machine = machine
        machine.server = types.SimpleNamespace(next_boot=lambda: types.SimpleNamespace(kind=self.kind, ssh_key=machine.user_public))

    def press(self, event):
        if event["event"] in ("rescue", "unrescue"):
            self.kind = "rescue" if event["event"] == "rescue" else "installed"
        if event["event"] in ("rescue", "unrescue", "reboot"):
            self.machine.reset()


@pytest.fixture
def web1(nova, nova_power, make_server, machine):
    made = Server(make_server(address="127.0.0.1"), machine)
    nova_power.then = made.press
    return made


@pytest.fixture
def session(nova, web1, machine, tmp_path, monkeypatch, nobody):
    """Make sessions. These sshds take no password, so the key of the user is what lets in, where it does."""
    monkeypatch.setattr(_port, "FIRST_SECONDS", 0.05)
    monkeypatch.setattr(_observe, "EXPECTED_SECONDS", 2.0)
    for module in (_calls, _reboot, _request):
        monkeypatch.setattr(module, "Backoff", lambda first, longest, factor=2.0: Backoff(0.02, 0.1))
    cloud, made = nova.cloud("member"), []

    def make(**more):
        options = Options(**{
            "server": "web1", "rescue_user": ME, "rescue_port": machine.port, "installed_port": machine.port,
            "installed_address": "127.0.0.1", "installed_login": Login(ME, key_file=str(machine.user_key)), "known_hosts_files": (),
            "connect_timeout": 2.0, "boot_timeout": 10.0, "wait_timeout": 20.0, "private_key_file": str(machine.user_key), **more})
        made.append(OpenStack({"openstack_auth": cloud["auth"], "openstack_region_name": cloud["region_name"]}))
        return Session(made[-1], options, SessionStore(str(tmp_path / "sessions"), "openstack", "web1"), make.lines.append)

    make.lines = []
    yield make
    for provider in made:
        provider._client.connection.close()


def end_of_patience(nova, server):
    """Nova ends the rescue, as with rescue_timeout in nova.conf."""
    def ended():
        nova.end_rescues(1)
        return nova.actions(server)[0] == "unrescue"

    until(ended, every=0.1)
    nova.wait_for(server, "ACTIVE")


def test_there_and_back(nova, web1, machine, session):
    result = session().enter()
    assert (result["changed"], result["armed"], result["running"], result["fresh"]) == (True, True, "rescue", True)
    assert result["boot"]["name"] == "system-rescue" and nova.show(web1.id)["metadata"] == {NOTE: nova.rescue_image}
    assert session().enter()["changed"] is False and machine.boots == ["rescue"]
    result = session().leave()
    assert (result["changed"], result["armed"], result["running"], result["fresh"]) == (True, False, "installed", True)
    assert machine.boots == ["rescue", "installed"] and nova.show(web1.id)["metadata"] == {}
    assert session().leave()["changed"] is False


def test_nova_ended_the_rescue_by_itself(nova, web1, machine, session):
    """It is seen, it is said, and both wishes find their way from there."""
    session().enter()
    end_of_patience(nova, web1.id)
    info = session().info()
    assert (info["armed"], info["running"], info["session"]["phase"]) == (False, "installed", "rescue")
    # The way out is done already, but for the note.
    result = session().leave()
    assert (result["changed"], result["running"], machine.boots) == (True, "installed", ["rescue", "installed"])
    assert nova.show(web1.id)["metadata"] == {} and session().context.folder.load() is None

    session().enter()
    end_of_patience(nova, web1.id)
    result = session().enter()
    assert (result["changed"], result["running"], result["fresh"]) == (True, "rescue", True)
    assert machine.boots == ["rescue", "installed"] * 2 + ["rescue"]
    assert session().leave()["running"] == "installed"


def test_nova_ended_the_rescue_and_the_installed_system_lets_nobody_in(nova, web1, machine, session):
    session().enter()
    end_of_patience(nova, web1.id)
    machine.off()
    boots = len(machine.boots)
    with pytest.raises(TargetError, match="web1 is no longer in rescue: openstack has it boot harddisk") as told:
        session().leave()
    assert "or the provider did after its own time for it" in told.value.state and "force=true" in told.value.todo
    assert len(machine.boots) == boots
    assert session().enter()["running"] == "rescue"
    assert session().leave()["running"] == "installed"


def test_nova_ended_the_rescue_while_it_was_waited_for(nova, web1, machine, session, monkeypatch):
    """Nobody is kept waiting for what will not come."""
    real = OpenStack.boot_into

    def ended_at_once(self, *args, **more):
        task = real(self, *args, **more)
        nova.wait_for(web1.id, "RESCUE")
        end_of_patience(nova, web1.id)
        return task

    with monkeypatch.context() as patch:
        patch.setattr(OpenStack, "boot_into", ended_at_once)
        with pytest.raises(Exception, match="rescue: it ended, and Nova says ACTIVE") as told:
            session().enter()
    assert "Run this again to ask for another reboot" in told.value.todo
    assert session().enter()["running"] == "rescue"


def test_somebody_else_was_first_by_a_moment(nova, web1, machine, session, connect, monkeypatch):
    """Two controllers, no lock between them. The second goes on with the rescue of the first, where it is let in."""
    real = OpenStack.reboot_baseline

    def overtaken(self, name, known=()):
        baseline = real(self, name, known)
        connect("admin").compute.rescue_server(web1.id, "theirs", nova.rescue_image)
        return baseline

    monkeypatch.setattr(OpenStack, "reboot_baseline", overtaken)
    result = session().enter()
    assert (result["running"], result["fresh"], machine.boots) == ("rescue", True, ["rescue"])
    assert nova.actions(web1.id) == ["rescue", "create"]
    assert any("somebody else asked for it" in line for line in session.lines), session.lines


def test_nobody_logs_in_and_nothing_is_repeated(nova, web1, machine, session):
    """login=console: that the rescue system does not answer says nothing."""
    first = session(login="console").enter()
    assert (first["changed"], first["armed"]) == (True, True)
    machine.off()
    again = session(login="console").enter()
    assert (again["changed"], again["armed"], len(machine.boots)) == (False, True, 1)
