# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sessions where setting what boots reboots by itself, by the lab's OVH API and a VPS of real sshds that take turns."""

from __future__ import annotations

import dataclasses
import getpass
import json
import types

import pytest

from ansible_collections.lifeboat.rescue.plugins.module_utils._control._providers import _calls
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._providers._ovh._vps import OvhVps
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._session import _leave, _observe
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._session._context import Options
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._session._record import SessionStore
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._session._session import Session
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._ssh import _port
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._ssh._client import Login
from ansible_collections.lifeboat.rescue.plugins.module_utils._errors import BadInput, LifeboatError, TimedOut
from ansible_collections.lifeboat.rescue.plugins.module_utils._wait import Backoff

NAME = "vps-00000001.vps.ovh.net"
ME = getpass.getuser()


@pytest.fixture
def vps(api, machine):
    from lifeboat_lab.ovh_api import Vps

    vps = api.add(Vps(NAME, ip="127.0.0.1", ip6=None, power=machine, task_seconds={"todo": 0.05, "doing": 0.5}))
    api.credential.rules += [("GET", "/vps"), ("POST", "/vps/*/getConsoleUrl")]
    machine.server = vps
    return vps


@pytest.fixture
def session(api, vps, machine, tmp_path, monkeypatch):
    """Make sessions. These sshds take no password, so the key of the user is what lets in, where it does."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(_port, "FIRST_SECONDS", 0.05)
    monkeypatch.setattr(_calls, "Backoff", lambda first, longest, factor: Backoff(0.005, 0.02))
    monkeypatch.setattr(_observe, "EXPECTED_SECONDS", 2.0)
    credentials = {f"ovh_{name}": value for name, value in api.credential.client_arguments().items()}
    lines = []

    def make(check_mode=False, **more):
        options = Options(**{
            "server": NAME, "rescue_user": ME, "rescue_port": machine.port, "installed_port": machine.port,
            "installed_address": "127.0.0.1", "installed_login": Login(ME, key_file=str(machine.user_key)), "known_hosts_files": (),
            "connect_timeout": 2.0, "soft_timeout": 10.0, "boot_timeout": 10.0, "wait_timeout": 20.0,
            "private_key_file": str(machine.user_key), **more})
        folder = SessionStore(str(tmp_path / "sessions"), "ovh_vps", NAME)
        return Session(OvhVps({"ovh_endpoint": api.url, **credentials}), options, folder, lines.append, check_mode)

    make.lines = lines
    return make


@pytest.fixture
def with_key(vps, machine):
    """The rescue system lets the key of the user in."""
    machine.server = types.SimpleNamespace(next_boot=lambda: dataclasses.replace(vps.next_boot(), ssh_key=machine.user_public))


def wrote(api):
    return [(call.method, json.dumps(call.body)) for call in api.writes() if "getConsoleUrl" not in call.path]


@pytest.mark.usefixtures("with_key")
def test_there_and_back_with_one_write_each_way(api, vps, machine, session):
    plan = session(check_mode=True).enter()
    assert plan["changed"] and plan["diff"]["after"] == {"netbootMode": "rescue"} and api.writes() == []

    result = session().enter()
    # Armed is told although the API shows it only when its task has ended.
    assert (result["changed"], result["armed"], result["running"], result["fresh"]) == (True, True, "rescue", True)
    assert result["console_url"].startswith("https://") and len(result["tasks"]) == 1
    assert vps.netbootMode == "rescue" and wrote(api) == [("PUT", '{"netbootMode": "rescue"}')]
    assert any("setNetboot" in line for line in session.lines)

    again = session().enter()
    assert (again["changed"], again["armed"], again["running"]) == (False, True, "rescue")
    assert len(wrote(api)) == 1 and machine.resets == 1

    result = session().leave()
    assert (result["changed"], result["armed"], result["running"], result["fresh"]) == (True, False, "installed", True)
    assert wrote(api)[1:] == [("PUT", '{"netbootMode": "local"}')]
    assert machine.boots == ["rescue", "installed"] and vps.netbootMode == "local"
    assert session().leave()["changed"] is False and len(wrote(api)) == 2


@pytest.mark.usefixtures("with_key")
def test_what_boots_is_not_set_without_a_reboot(api, vps, session):
    with pytest.raises(BadInput, match="cannot set what boots next without rebooting at once"):
        session().netboot("rescue")
    with pytest.raises(LifeboatError, match="no soft reboot"):
        session(reboot_method="soft").enter()
    assert api.writes() == [] and vps.netbootMode == "local"


@pytest.mark.usefixtures("with_key")
def test_the_mode_is_right_and_the_wrong_system_runs(api, vps, machine, session):
    """Somebody reset it by hand, or its firmware did not do as it was told: then the reboot is a call of its own."""
    vps.netbootMode = "rescue"
    assert session().enter()["running"] == "rescue"
    assert [method for method, _body in wrote(api)] == ["POST"] and machine.resets == 1
    assert session().leave()["running"] == "installed" and vps.netbootMode == "local"


def test_a_mail_that_never_comes_is_named(vps, session):
    vps.mail.delay = float("inf")
    with pytest.raises(TimedOut) as caught:
        session(private_key_file=None, boot_timeout=1.5).enter()
    assert f"names {NAME} and is newer" in caught.value.todo and "https://console.example/" in caught.value.todo
    assert any("waiting for the rescue system's password" in line for line in session.lines)


@pytest.mark.usefixtures("with_key")
def test_died_while_restoring_it_reboots_nothing_again(api, vps, machine, session, monkeypatch):
    session().enter()

    def die(*_arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(_leave, "_restored", die)
        with pytest.raises(KeyboardInterrupt):
            session().leave()
    # As a server is that was off before: silent.
    machine.off()
    writes = len(wrote(api))
    assert session().context.folder.load().phase == "restoring"
    assert session().leave()["changed"] is True
    assert len(wrote(api)) == writes and machine.boots == ["rescue", "installed"] and session().context.folder.load() is None
