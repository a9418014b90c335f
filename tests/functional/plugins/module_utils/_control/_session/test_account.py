# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""All servers of an account at once, by the lab's OVH API and a machine of real sshds behind one of them."""

from __future__ import annotations

import itertools
import threading

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.lifeboat.rescue.plugins.module_utils._control._entry import SPECS, run
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._providers._ovh import _dedicated
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._session import _account
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._ssh._port import PortWatcher

pytest_plugins = "lifeboat_lab.nova.fixtures"


@pytest.fixture
def look(api, machine, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(_dedicated.OvhDedicated, "patience", 2.0)
    credentials = {f"ovh_{name}": value for name, value in api.credential.client_arguments().items()}
    options = {"scope": "account", "provider": "ovh_dedicated", "session_dir": str(tmp_path / "sessions"), "connect_timeout": 2.0,
               "rescue_port": machine.port, "ovh_endpoint": api.url, **credentials}

    def look(**more):
        validation = ArgumentSpecValidator(SPECS["rescue_mode_info"]).validate({**options, **more})
        assert not validation.error_messages
        return run("rescue_mode_info", validation.validated_parameters, False, lambda line: None)

    return look


def test_every_server_with_what_is_true_of_it(api, server, machine, look):
    from lifeboat_lab.ovh_api import Server

    armed = api.add(Server("ns100002.ip-192-0-2.eu", ip="127.0.0.1", serverId=100002))
    armed.bootId = armed.boot("rescue12-customer").bootId
    result = look()
    assert result["changed"] is False and api.writes() == []
    first, second = result["servers"]
    assert (first["server"], first["armed"]) == (server.name, False)
    assert (second["server"], second["armed"], second["boot"]["name"]) == (armed.name, True, "rescue12-customer")
    assert second["found"] is not None and first["found"] is None
    # One listing, and two calls a server: itself, and its boot option.
    calls = [call for call in api.log if "/auth/" not in call.path]
    assert len(calls) == 1 + 2 * 2


def test_one_that_cannot_be_read_does_not_hide_the_others(api, server, machine, look):
    from lifeboat_lab.ovh_api import Server

    api.add(Server("ns100002.ip-192-0-2.eu", ip="127.0.0.1", serverId=100002, service_status="expired"))
    first, second = look()["servers"]
    assert first["server"] == server.name and "error" not in first
    assert second["server"] == "ns100002.ip-192-0-2.eu" and "has expired" in second["error"]


def test_a_failure_of_the_listing_is_one_of_the_module(api, machine, look):
    api.faults.add("GET", "/dedicated/server$", "403", every=1)
    result = look()
    assert result["failed"] and "may not GET /dedicated/server" in result["msg"]


def test_no_more_calls_at_once_than_are_allowed(api, server, machine, look, monkeypatch):
    from lifeboat_lab.ovh_api import Server

    monkeypatch.setattr(_account, "MOST_CALLS", 3)
    for number in range(100002, 100032):
        api.add(Server(f"ns{number}.ip-192-0-2.eu", ip="127.0.0.1", serverId=number))
    api.faults.add("GET", "/dedicated/server/", "delay", every=1, seconds=0.02)
    assert not [told for told in look()["servers"] if "error" in told]
    calls = [call for call in api.log if "/server/" in call.path]
    steps = sorted([(call.time, 1) for call in calls] + [(call.time + call.seconds, -1) for call in calls])
    under_way = list(itertools.accumulate(step for _when, step in steps))
    assert len(calls) == 2 * 31 and max(under_way) == 3


def test_servers_that_do_not_answer_hold_up_no_calls(api, machine, look, monkeypatch):
    """The last call is made while the first servers are still being waited for."""
    from lifeboat_lab.ovh_api import Server

    monkeypatch.setattr(_account, "MOST_CALLS", 1)
    for number in range(100002, 100006):
        api.add(Server(f"ns{number}.ip-192-0-2.eu", ip="127.0.0.1", serverId=number))
    done = len(api.servers) * 2
    asked = threading.Event()

    def wait(self, seconds):
        assert asked.wait(20), "the calls wait for the servers"
        return False

    def answer(request, _answer=api.answer):
        told = _answer(request)
        if sum("/server/" in call.path for call in api.log) == done:
            asked.set()
        return told

    monkeypatch.setattr(PortWatcher, "wait", wait)
    monkeypatch.setattr(api, "answer", answer)
    servers = look()["servers"]
    assert [told["running"] for told in servers] == ["unknown"] * 5


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_an_account_of_openstack_is_one_listing(nova, make_server, tmp_path, look):
    for name in ("web1", "web2", "web3"):
        make_server(name)
    lonely = make_server("web4", networks="none")
    nova.control()
    cloud = nova.cloud("member")
    servers = look(provider="openstack", openstack_auth=cloud["auth"], openstack_region_name=cloud["region_name"],
                   connect_timeout=0.1)["servers"]
    assert [(told["server"], told.get("armed")) for told in servers] == [
        ("web1", False), ("web2", False), ("web3", False), ("web4", None)]
    assert "has no address" in servers[3]["error"]
    # The one that the listing does not tell all of is asked for by itself.
    calls = [path for _method, path, _body in nova.control()["requests"] if path != "/v2.1"]
    assert calls == ["/v2.1/servers/detail"] * 2, lonely
