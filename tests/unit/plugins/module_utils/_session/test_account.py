# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""All servers of an account at once, by the lab's OVH API and a machine of real sshds behind one of them."""

from __future__ import annotations

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.lifeboat.rescue.plugins.module_utils._controller import SPECS, run
from ansible_collections.lifeboat.rescue.plugins.module_utils._providers import _ovh_dedicated


@pytest.fixture
def look(api, machine, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(_ovh_dedicated.OvhDedicated, "patience", 2.0)
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
