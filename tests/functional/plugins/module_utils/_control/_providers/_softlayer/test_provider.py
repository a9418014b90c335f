# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The provider, by SoftLayer's own client and by both of its transports, against the lab's API."""

from __future__ import annotations

import dataclasses
import getpass
import json
import os
import socket
import subprocess
import sys
import time
import types

import pytest

from ansible_collections.lifeboat.rescue.plugins.module_utils._control import _entry
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._providers import _calls
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._providers._base import HARDDISK, RESCUE, BootOption
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._providers._registry import make_provider
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._providers._softlayer import _client, _provider
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._providers._softlayer._provider import (
    NO_TRANSACTION,
    NOT_KNOWN,
    SoftLayerProvider,
)
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._session import _enter, _observe, _record, _session
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._session._context import Options
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._ssh._client import Login
from ansible_collections.lifeboat.rescue.plugins.module_utils._errors import (
    BadInput,
    Busy,
    NotAllowed,
    NotFound,
    ProviderError,
    TargetError,
    TimedOut,
)
from ansible_collections.lifeboat.rescue.plugins.module_utils._wait import Backoff
from lifeboat_lab.softlayer_api import Server, SoftLayerApi
from lifeboat_lab.waiting import until

FAULTS = ["500", "503-html", "429", "internal", "reset"]
QUICK = {"RESCUE_SETUP": 0.01, "RESCUE_BOOT": 0.01}
NAMES = {"vs": "vs:1001", "hw": "hw:2001"}
DISK = BootOption("harddisk", HARDDISK, "harddisk")
OPTION = BootOption("rescue", RESCUE, "rescue")


@pytest.fixture(autouse=True)
def alone(monkeypatch, nobody):
    """No credentials of the person who runs the tests, and no patience of minutes."""
    for module in (_calls, _provider):
        monkeypatch.setattr(module, "Backoff", lambda first, longest, factor=1.5: Backoff(0.005, 0.02))
    monkeypatch.setattr(SoftLayerProvider, "patience", 5.0)
    monkeypatch.setattr(SoftLayerProvider, "facts", SoftLayerProvider.facts._replace(lag=0.3))


@pytest.fixture
def hasty(monkeypatch):
    """For what is in vain."""
    monkeypatch.setattr(SoftLayerProvider, "patience", 0.3)


@pytest.fixture
def servers():
    return {"vs": Server(1001, "vs", "web1", rescue_seconds=dict(QUICK)),
            "hw": Server(2001, "hw", "db1", primaryIpAddress="192.0.2.30", rescue_seconds=dict(QUICK))}


@pytest.fixture
def api(servers):
    with SoftLayerApi(servers.values()) as api:
        yield api


@pytest.fixture(params=["vs", "hw"])
def kind(request):
    return request.param


@pytest.fixture
def name(kind):
    return NAMES[kind]


@pytest.fixture
def server(servers, kind):
    return servers[kind]


@pytest.fixture(params=["xmlrpc", "rest"])
def transport(request):
    return request.param


def params(api, transport="xmlrpc", credential=None):
    keys = (credential or api.credential).client_arguments()
    return {"softlayer_endpoint_url": api.rest_url if transport == "rest" else api.url,
            **{f"softlayer_{name}": value for name, value in keys.items()}}


@pytest.fixture
def provider(api, transport):
    return SoftLayerProvider(params(api, transport))


def baseline_of(provider, name):
    """A baseline, as it comes back from a record."""
    return json.loads(json.dumps(provider.reboot_baseline(name)))


def writes(api):
    return [call.method for call in api.log if not call.method.startswith("get")]


def boots(server):
    return [boot.kind for boot in server.booted]


# Reading and names


def test_a_server_is_read_by_one_call(api, provider, server, name):
    found = provider.read_server(name)
    assert (found.name, found.address, found.boot, found.settings) == (name, server.primaryIpAddress, None, {})
    assert [call.method for call in api.log] == ["getObject"]


def test_a_server_of_the_private_network(provider, servers):
    servers["vs"].primaryIpAddress = None
    assert provider.read_server("web1").address == "10.0.0.20"


@pytest.mark.parametrize(("name", "number"), [
    ("vs:1001", 1001), ("1001", 1001), ("web1", 1001), ("WEB1", 1001), ("web1.example.com", 1001), ("Web1.Example.com", 1001),
    ("hw:2001", 2001), ("2001", 2001), ("db1", 2001), ("db1.example.com", 2001), ("4711", 1004), ("a.b", 1005), ("a.b.example.com", 1005)])
def test_names(api, provider, name, number):
    api.add(Server(1004, "vs", "4711"))
    api.add(Server(1005, "vs", "a.b"))
    provider.read_server(name)
    assert [int(call.id) for call in api.calls("getObject")] == [number]
    before = len(api.log)
    provider.read_server(name)
    assert len(api.log) == before + 1


@pytest.mark.parametrize("name", ["web2", "web", "vs:2001", "hw:1001", "999", "vs:99999999999", "99999999999", "vs:x", "../1001", "a b",
                                  ""])
def test_an_unknown_server_lists_those_that_there_are(provider, name):
    with pytest.raises(NotFound, match="knows no server") as caught:
        provider.read_server(name)
    assert caught.value.todo == "These credentials see: db1.example.com, web1.example.com."


def test_a_name_of_many_servers(api, provider):
    api.add(Server(2002, "hw", "web1", primaryIpAddress="192.0.2.40"))
    api.add(Server(1001, "hw", "db2"))
    for name in ("web1", "web1.example.com"):
        with pytest.raises(BadInput, match="more than one server 'web1") as caught:
            provider.read_server(name)
        assert "vs:1001, web1.example.com, 192.0.2.20; hw:2002, web1.example.com, 192.0.2.40" in caught.value.todo
    with pytest.raises(BadInput, match="more than one server '1001'"):
        provider.read_server("1001")
    assert provider.list_servers() == ["db1.example.com", "db2.example.com", "hw:2002", "vs:1001"]


def test_all_servers_are_read_by_their_listings(api, provider):
    api.add(Server(1002, "vs", "web1", primaryIpAddress="192.0.2.21"))
    api.add(Server(2002, "hw", "db1", primaryIpAddress="192.0.2.40"))
    before = len(api.log)
    found = provider.read_servers()
    assert [call.method for call in api.log[before:]] == ["getVirtualGuests", "getHardware"]
    assert list(found) == provider.list_servers() and len(found) >= 3
    assert found == {name: provider.read_server(name) for name in found}


def test_many_servers_are_all_seen(api, provider):
    for number in range(3000, 3250):
        api.add(Server(number, "vs", f"node{number}"))
    assert len(provider.list_servers()) == 252


def test_who_may_see_one_kind_only(api, provider):
    api.faults.add("getHardware", "permission", every=1)
    assert provider.list_servers() == ["web1.example.com"]
    assert provider.read_server("web1").address == "192.0.2.20"
    api.faults.add("getVirtualGuests", "permission", every=1)
    with pytest.raises(NotAllowed, match="You do not have permission"):
        provider.list_servers()


def test_boot_options(provider, name):
    more = [("windows", RESCUE)] if name.startswith("hw") else []
    assert [(option.id, option.kind) for option in provider.boot_options(name)] == [
        ("harddisk", HARDDISK), ("rescue", RESCUE), *more]
    assert provider.boot_options(name, HARDDISK) == [provider.choose(name, "harddisk")]
    for word in ("best", "rescue"):
        assert provider.choose(name, word).kind == RESCUE
    assert provider.choose(name, "harddisk") == provider.boot_option(name, "harddisk")
    assert provider.rescue_rank(provider.choose(name, "best")) == 0
    assert provider.rescue_rank(provider.choose(name, "harddisk")) is None
    with pytest.raises(BadInput, match="no boot option 'poweroff'"):
        provider.choose(name, "poweroff")
    with pytest.raises(NotFound):
        provider.boot_option(name, "netboot")


def test_there_are_no_settings(provider, name):
    found = provider.read_server(name)
    option = provider.choose(name, "best")
    assert provider.rescue_settings(found, option, "ssh-ed25519 AAAA", {}) == provider.boot_settings(option) == {}
    assert provider.restorable_settings(found) == {}
    provider.write_settings(name, {})
    assert provider.same_setting("x", 1, 1) and not provider.same_setting("x", 1, 2)
    with pytest.raises(BadInput, match="no settings"):
        provider.write_settings(name, {"bootId": 1})


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_that_pass_are_nobodys_concern(api, provider, server, name, fault):
    """Every third call of all fails; each thing is done once."""
    api.faults.add(".", fault, every=3)
    provider.read_server(server.hostname)
    provider.credentials_baseline(name)
    assert provider.unfinished_tasks(name) == []
    task = provider.boot_into(name, OPTION, baseline_of(provider, name))
    until(lambda: provider.read_task(name, task.id).state == "done")
    assert (server.rescues, boots(server)) == (1, ["rescue"])
    assert len(provider.list_servers()) == 2


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_stays_is_told(hasty, api, provider, fault):
    api.faults.add("getObject", fault, every=1)
    with pytest.raises(ProviderError, match=r"failed for 0\.3 s at SoftLayer_Virtual_Guest::getObject") as caught:
        provider.read_server("vs:1001")
    assert "<" not in caught.value.what


@pytest.mark.parametrize(("fault", "error", "what", "todo"), [
    ("permission", NotAllowed, "You do not have permission to this service", "the permission 'OS Reloads and Rescue Kernel'"),
    ("not-found", NotFound, "Unable to find object with id", "may have been cancelled"),
    ("access-denied", NotAllowed, "does not accept these credentials .*Access Denied", "SL_API_KEY"),
    ("invalid-token", NotAllowed, "does not accept these credentials .*Invalid API token", "SL_API_KEY"),
    ("outstanding", Busy, "There is currently an outstanding transaction for this server", "Wait until that has ended"),
    ("refused", Busy, "20 minutes must pass", "Run this again in 20 min"),
    *[(fault, ProviderError, "failed for 0.3 s at .*RescueLayer", "Try again later") for fault in FAULTS],
])
def test_each_failure_ends_in_words(hasty, api, provider, server, name, fault, error, what, todo):
    """What failed, by which call; whether it may have arrived; what to do."""
    baseline = baseline_of(provider, name)
    api.faults.add("RescueLayer", fault, every=1)
    with pytest.raises(error, match=what) as caught:
        provider.boot_into(name, OPTION, baseline)
    assert todo in caught.value.todo and "<" not in caught.value.what and server.rescues == 0
    if error is Busy:
        assert caught.value.state == "This call changed nothing."
    if error is ProviderError:
        assert caught.value.state == "Whether it arrived is not known; the next run looks for that first."
    assert not any(secret in str(caught.value) for secret in api.sensitive())


def test_an_api_that_is_not_there(hasty, api):
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}/rest/v3.1/"
    provider = SoftLayerProvider({**params(api), "softlayer_endpoint_url": url})
    with pytest.raises(ProviderError, match=r"failed for 0.3 s at .*: no answer \(ConnectionError\)"):
        provider.read_server("vs:1001")


@pytest.mark.parametrize("path", ["/xmlrpc/v9/", "/rest/v9/"])
def test_an_endpoint_that_is_none(api, path):
    provider = SoftLayerProvider({**params(api), "softlayer_endpoint_url": f"http://127.0.0.1:{api.port}{path}"})
    with pytest.raises(BadInput, match="no endpoint of the SoftLayer API") as caught:
        provider.read_server("vs:1001")
    assert "softlayer_endpoint_url" in caught.value.todo


# Rescue


def test_a_rescue_and_the_way_out(provider, server, name):
    task = provider.boot_into(name, OPTION, baseline_of(provider, name))
    assert task.id == str(server.transactions[0].id)
    until(lambda: provider.read_task(name, task.id).state == "done")
    task = provider.boot_into(name, DISK, baseline_of(provider, name))
    assert (task.id, task.state) == (NO_TRANSACTION, "unknown")
    until(lambda: boots(server) == ["rescue", "installed"])
    assert provider.read_task(name, task.id).state == "unknown"


def test_what_cannot_be_booted(provider, name):
    with pytest.raises(BadInput, match="cannot boot ISO"):
        provider.boot_into(name, BootOption("iso", "other", "ISO"), baseline_of(provider, name))


def test_the_rescue_environment_of_windows(api, provider, servers):
    """Only hardware has it, by the one argument that bootToRescueLayer takes."""
    option = provider.choose("hw:2001", "windows")
    assert (provider.is_windows(option), provider.rescue_rank(option)) == (True, None)
    assert not provider.is_windows(provider.choose("hw:2001", "best"))
    provider.boot_into("hw:2001", option, baseline_of(provider, "hw:2001"))
    until(lambda: servers["hw"].active is None)
    provider.boot_into("hw:2001", OPTION, baseline_of(provider, "hw:2001"))
    assert [call.args for call in api.log if call.method == "bootToRescueLayer"] == [("WINDOWS",), ()]
    with pytest.raises(BadInput, match="is a virtual guest, which SoftLayer's API boots into a rescue kernel of Linux") as told:
        provider.choose("vs:1001", "windows")
    assert told.value.state == "Nothing was changed." and "Boot from Image" in told.value.todo
    assert servers["vs"].rescues == 0


def test_a_task_is_told_while_it_runs(provider, server, name):
    server.rescue_seconds = {"RESCUE_SETUP": 0.3}
    baseline = baseline_of(provider, name)
    task = provider.boot_into(name, OPTION, baseline)
    assert (task.state, task.text) == ("running", "Rescue Rescue setup")
    assert provider.unfinished_tasks(name) == [task]
    assert provider.read_task(name, NO_TRANSACTION) == task._replace(id=NO_TRANSACTION)
    until(lambda: provider.read_task(name, task.id).state == "done")
    assert provider.unfinished_tasks(name) == []
    assert provider.read_task(name, "12345").state == "unknown"


@pytest.mark.parametrize("fault", [*FAULTS, "permission", "not-found"])
def test_a_task_that_cannot_be_read_is_no_evidence(hasty, api, provider, name, fault):
    task = provider.boot_into(name, OPTION, baseline_of(provider, name))
    api.faults.add("getObject", fault, every=1)
    found = provider.read_task(name, task.id)
    assert (found.id, found.state) == (task.id, "unknown")


@pytest.mark.parametrize("fault", ["500", "reset"])
@pytest.mark.parametrize("acts", [True, False])
@pytest.mark.parametrize("shown_after", [0.0, 0.05, 9.0])
def test_a_lost_answer_is_no_second_rescue(api, provider, server, name, fault, acts, shown_after):
    provider.boot_into(name, OPTION, baseline_of(provider, name))
    until(lambda: server.active is None)
    baseline = baseline_of(provider, name)  # an older one is not taken for ours
    server.shown_after, server.rescue_seconds = shown_after, {"RESCUE_BOOT": 1.0}
    api.faults.add("RescueLayer", fault, acts=acts)
    task = provider.boot_into(name, OPTION, baseline)
    assert server.rescues == 2
    assert task.id == (str(server.transactions[1].id) if shown_after < 9 else NO_TRANSACTION)
    until(lambda: boots(server) == ["rescue", "rescue"])


def test_a_rescue_that_died_is_found_again(provider, server, name):
    baseline = baseline_of(provider, name)
    task = provider.boot_into(name, OPTION, baseline)
    assert provider.boot_into(name, OPTION, baseline, may_be_repeat=True).id == task.id
    until(lambda: server.active is None)
    assert provider.boot_into(name, OPTION, baseline, may_be_repeat=True).id == task.id
    assert server.rescues == 1


def test_a_rescue_that_died_and_is_not_shown_yet(provider, server, name):
    baseline = baseline_of(provider, name)
    server.shown_after, server.rescue_seconds = 9.0, {"RESCUE_BOOT": 9.0}
    provider.boot_into(name, OPTION, baseline)
    assert provider.boot_into(name, OPTION, baseline, may_be_repeat=True).id == NO_TRANSACTION
    assert server.rescues == 1


def test_a_rescue_that_was_announced_but_not_asked_for_is_asked_for(provider, server, name):
    provider.boot_into(name, OPTION, baseline_of(provider, name), may_be_repeat=True)
    assert server.rescues == 1


def test_a_rescue_that_cannot_be_asked_for(hasty, api, provider, server, name):
    api.faults.add("RescueLayer", "500", every=1)
    with pytest.raises(ProviderError, match="RescueLayer of"):
        provider.boot_into(name, OPTION, baseline_of(provider, name))
    assert server.rescues == 0


def test_a_transaction_of_somebody_else(api, provider, server, name):
    baseline = baseline_of(provider, name)
    api.begin(server, "Port speed", {"PORT_CHANGE": 9.0})
    with pytest.raises(Busy, match=r"at work on .*: Port speed Port change") as caught:
        provider.reboot_baseline(name)
    assert caught.value.details == {"tasks": [str(server.active.id)]}
    for call in (provider.boot_into, lambda name, option, baseline: provider.reboot_hard(name, baseline)):
        with pytest.raises(Busy, match="There is currently an outstanding transaction for this server"):
            call(name, OPTION, baseline)
    assert (server.rescues, server.reboots) == (0, 0)


@pytest.mark.parametrize(("option", "right"), [(OPTION, "OS Reloads and Rescue Kernel"), (DISK, "IPMI Remote Management")])
def test_a_permission_that_lacks_is_named(api, provider, server, name, option, right):
    api.credential.permissions = set()
    with pytest.raises(NotAllowed, match="You do not have permission to this service") as caught:
        provider.boot_into(name, option, baseline_of(provider, name))
    assert right in caught.value.todo
    assert len(writes(api)) == 1


def test_a_call_that_is_not_carried_out(provider, name, monkeypatch):
    monkeypatch.setattr(provider._client, "attempt", lambda *args, **more: {} if args[1].startswith("get") else False)
    with pytest.raises(ProviderError, match="did not carry out"):
        provider.boot_into(name, OPTION, {"transaction": None, "commands": None, "at": 0})


# Rebooting


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("acts", [True, False])
def test_a_lost_answer_is_no_second_reboot_of_hardware(api, provider, servers, fault, acts):
    baseline = baseline_of(provider, "db1")
    api.faults.add("rebootDefault", fault, acts=acts)
    task = provider.reboot_hard("db1", baseline)
    assert (task.id, servers["hw"].reboots) == (NO_TRANSACTION, 1)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("acts", [True, False])
def test_a_lost_answer_is_no_second_reboot_of_a_guest(api, provider, servers, fault, acts):
    """Nobody but the guest itself can tell, so that it is left to it; who comes later asks again."""
    guest = servers["vs"]
    baseline = baseline_of(provider, "web1")
    api.faults.add("rebootDefault", fault, acts=acts)
    task = provider.reboot_hard("web1", baseline)
    assert (task.id, task.state, guest.reboots) == (NOT_KNOWN, "unknown", int(acts))
    assert provider.reboot_hard("web1", baseline, may_be_repeat=True).id == NOT_KNOWN
    assert len(writes(api)) == 1
    late = {**baseline, "at": baseline["at"] - 600}
    assert provider.reboot_hard("web1", late, may_be_repeat=True).id == NO_TRANSACTION
    assert guest.reboots == 1 + acts


def test_a_call_that_never_left_is_made_again(api, provider, servers, monkeypatch):
    baseline = baseline_of(provider, "web1")
    right = provider._client.api.transport.endpoint_url
    with socket.create_server(("127.0.0.1", 0)) as free:
        wrong = right.replace(f":{api.port}/", f":{free.getsockname()[1]}/")
    provider._client.api.transport.endpoint_url = wrong
    real = provider._client.attempt

    def heal(*args, **more):
        try:
            return real(*args, **more)
        finally:
            provider._client.api.transport.endpoint_url = right

    monkeypatch.setattr(provider._client, "attempt", heal)
    assert provider.reboot_hard("web1", baseline).id == NO_TRANSACTION
    assert servers["vs"].reboots == 1


def test_a_reboot_of_hardware_that_died_is_found_again(provider, servers):
    baseline = baseline_of(provider, "db1")
    provider.reboot_hard("db1", baseline)
    assert provider.reboot_hard("db1", baseline, may_be_repeat=True).id == NO_TRANSACTION
    assert servers["hw"].reboots == 1


def test_a_reboot_of_hardware_that_was_announced_but_not_asked_for_is_asked_for(provider, servers):
    provider.reboot_hard("db1", baseline_of(provider, "db1"), may_be_repeat=True)
    assert servers["hw"].reboots == 1


def test_a_reboot_of_hardware_that_tells_no_commands(api, provider, servers):
    api.faults.add("RemoteManagementCommands", "permission", every=1)
    baseline = baseline_of(provider, "db1")
    assert baseline["commands"] is None
    api.faults.add("rebootDefault", "reset", acts=True)
    assert provider.reboot_hard("db1", baseline).id == NOT_KNOWN
    assert servers["hw"].reboots == 1


@pytest.mark.parametrize("may_be_repeat", [True, False])
def test_hardware_that_was_rebooted_a_while_ago(provider, servers, may_be_repeat):
    provider.reboot_hard("db1", baseline_of(provider, "db1"))
    with pytest.raises(Busy, match="20 minutes must pass between two reboots of hardware") as caught:
        provider.reboot_hard("db1", baseline_of(provider, "db1"), may_be_repeat)
    assert caught.value.todo.startswith("Run this again in 20 min.")
    command = servers["hw"].commands[0]
    command["createDate"] = time.strftime("%Y-%m-%dT%H:%M:%S-06:00", time.gmtime(time.time() - 6 * 3600 - 700))
    with pytest.raises(Busy) as caught:
        provider.reboot_hard("db1", baseline_of(provider, "db1"), may_be_repeat)
    assert caught.value.todo.startswith("Run this again in 9 min.")
    assert servers["hw"].reboots == 1


def test_a_rescue_of_hardware_that_was_rebooted_a_while_ago(provider, servers):
    servers["hw"].rescue_refuses = True
    provider.reboot_hard("db1", baseline_of(provider, "db1"))
    with pytest.raises(Busy, match="20 minutes"):
        provider.boot_into("db1", OPTION, baseline_of(provider, "db1"))


def test_a_reboot_that_makes_a_transaction(api, provider, server, name):
    """Nobody knows of one; where there is one after all, it tells."""
    baseline = baseline_of(provider, name)
    transaction = api.begin(server, "Reboot", {"REBOOT": 0.05})
    assert provider.reboot_hard(name, baseline, may_be_repeat=True).id == str(transaction.id)
    assert server.reboots == 0


def test_the_client_repeats_nothing_by_itself(provider):
    assert provider._client.api.transport.client.get_adapter("https://api.softlayer.com/").max_retries.total == 0


# Credentials


def test_the_password_that_the_portal_shows(provider, server, name):
    assert provider.credentials_baseline(name) is None
    found = provider.read_credentials(name, None)
    assert (found.user, found.password) == ("root", server.password)
    server.user = "Administrator"
    assert provider.read_credentials(name, None).user == "Administrator"


@pytest.mark.parametrize("what", ["password", "user"])
def test_no_password_is_told_before_anything_goes_down(api, provider, server, name, what):
    setattr(server, what, {"password": None, "user": "somebody"}[what])
    assert provider.read_credentials(name, None) is None
    with pytest.raises(NotFound, match="no password of root"):
        provider.credentials_baseline(name)
    assert writes(api) == []


def test_nothing_but_the_log_in_asks_for_passwords(api, provider, server, name):
    provider.read_server(name)
    provider.read_task(name, provider.boot_into(name, OPTION, baseline_of(provider, name)).id)
    provider.list_servers()
    assert api.log and not any("assword" in (call.mask or "") for call in api.log)


@pytest.mark.parametrize("wrong", ["username", "api_key"])
def test_credentials_that_are_wrong(api, transport, wrong):
    provider = SoftLayerProvider({**params(api, transport), f"softlayer_{wrong}": "wrong0wrong"})
    with pytest.raises(NotAllowed, match="does not accept these credentials") as caught:
        provider.read_server("vs:1001")
    assert "SL_API_KEY" in caught.value.todo
    assert len(api.log) == 1
    assert not any(secret in str(caught.value) for secret in api.sensitive())


def test_credentials_that_are_not_complete(api):
    for given in ({}, {"softlayer_username": "x"}, {"softlayer_api_key": "x"}):
        with pytest.raises(BadInput, match="not complete") as caught:
            SoftLayerProvider(given)
        assert "softlayer_api_key" in caught.value.todo


def test_a_file_that_is_none(tmp_path):
    (tmp_path / "broken").write_text("[softlayer]\ntimeout = soon\n")
    with pytest.raises(BadInput, match="cannot be read"):
        SoftLayerProvider({"softlayer_config_file": str(tmp_path / "broken")})


def test_credentials_from_files_and_from_the_environment(api, tmp_path, monkeypatch):
    keys = api.credential.client_arguments()
    lines = "[softlayer]\n" + "".join(f"{name} = {value}\n" for name, value in keys.items())
    (tmp_path / "my.conf").write_text(f"{lines}endpoint_url = {api.rest_url}\ntimeout = 7\n")
    provider = SoftLayerProvider({"softlayer_config_file": str(tmp_path / "my.conf")})
    assert provider.list_servers() == ["db1.example.com", "web1.example.com"]
    assert provider._client.api.transport.timeout == 7
    assert {call.transport for call in api.log} == {"rest"}
    (tmp_path / ".softlayer").write_text(f"{lines}endpoint_url = {api.url}\n")
    assert len(SoftLayerProvider({}).list_servers()) == 2
    (tmp_path / ".softlayer").unlink()
    for name, value in keys.items():
        monkeypatch.setenv(f"SL_{name.upper()}", value)
    provider = SoftLayerProvider({"softlayer_endpoint_url": api.url})
    assert len(provider.list_servers()) == 2
    assert provider._client.api.transport.timeout == _client.TIMEOUT


def test_a_call_takes_no_longer_than_allowed(hasty, api, transport):
    provider = SoftLayerProvider({**params(api, transport), "softlayer_timeout": 0.2})
    api.faults.add("getObject", "delay", seconds=5, every=1)
    started = time.monotonic()
    with pytest.raises(ProviderError, match="failed for"):
        provider.read_server("vs:1001")
    assert time.monotonic() - started < 3


def test_the_library_that_is_missing():
    script = """
import sys
sys.modules["SoftLayer"] = None
from ansible_collections.lifeboat.rescue.plugins.module_utils._errors import MissingLibrary
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._providers._registry import make_provider
try:
    make_provider({"provider": "softlayer"})
except MissingLibrary as exc:
    print(exc)
"""
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}).stdout
    assert "The Python library SoftLayer is not installed" in said


def test_the_registry_and_the_options(api):
    assert make_provider({"provider": "softlayer", **params(api)}).facts.name == "softlayer"
    assert _entry.SOFTLAYER_OPTIONS.keys() <= _entry.COMMON_OPTIONS.keys()
    assert [name for name, spec in _entry.SOFTLAYER_OPTIONS.items() if spec.get("no_log")] == ["softlayer_api_key"]


# With a session


@dataclasses.dataclass
class MyRecord(_record.Record):
    """An sshd that is not root's lets nobody in but the one who started it."""

    user: str = getpass.getuser()


@pytest.fixture
def session(api, server, name, machine, transport, monkeypatch, tmp_path):
    """Sessions with a machine of two sshds that take turns on one port, by each transport.

    An sshd of a test lets nobody in by a password, so the rescue system knows the user's key here.
    """
    def next_boot():
        return types.SimpleNamespace(kind=server.next_boot().kind, ssh_key=machine.user_public)

    machine.server = types.SimpleNamespace(next_boot=next_boot)
    server.primaryIpAddress = "127.0.0.1"
    monkeypatch.setattr(_observe, "EXPECTED_SECONDS", 2.0)
    for module in (_observe, _record):
        monkeypatch.setattr(module, "Record", MyRecord)
    login = Login(MyRecord.user, key_file=str(machine.user_key))
    lines = []

    def make(**more):
        options = Options(**{"server": name, "rescue_port": machine.port, "installed_port": machine.port, "known_hosts_files": (),
                             "private_key_file": str(machine.user_key), "installed_address": "127.0.0.1", "installed_login": login,
                             "installed_host_keys": (machine.installed.host_key,), "soft_timeout": 10.0, "boot_timeout": 10.0,
                             "wait_timeout": 20.0, **more})
        folder = _record.SessionStore(str(tmp_path / "sessions"), "softlayer", name)
        return _session.Session(SoftLayerProvider(params(api, transport)), options, folder, lines.append)

    make.lines = lines
    return make


@pytest.mark.parametrize("method", ["auto", "hard"])
def test_a_session_there_and_back(api, server, machine, session, method):
    found = session(reboot_method=method).enter()
    assert (found["changed"], found["running"], found["fresh"]) == (True, "rescue", True)
    assert found["tasks"] == [str(server.transactions[0].id)]
    assert server.active is None
    again = session(reboot_method=method).enter()
    assert (again["changed"], again["running"], server.rescues) == (False, "rescue", 1)
    found = session(reboot_method=method).leave()
    assert (found["changed"], found["running"], machine.system) == (True, "installed", "installed")
    assert (server.rescues, server.reboots, boots(server)) == (1, int(method == "hard"), ["rescue", "installed"])
    assert session().leave()["changed"] is False
    assert not any(secret in "".join(session.lines) for secret in api.sensitive())


def test_a_session_whose_call_died(api, server, machine, session, monkeypatch):
    """It asked for the rescue and died before it could write down the task."""
    real = SoftLayerProvider.boot_into

    def dies(*args, **more):
        real(*args, **more)
        raise KeyboardInterrupt

    monkeypatch.setattr(SoftLayerProvider, "boot_into", dies)
    with pytest.raises(KeyboardInterrupt):
        session().enter()
    monkeypatch.setattr(SoftLayerProvider, "boot_into", real)
    found = session().enter()
    assert (found["running"], server.rescues, machine.system) == ("rescue", 1, "rescue")


def test_a_session_that_meets_another_job(api, server, machine, session, monkeypatch):
    monkeypatch.setattr(_enter, "BUSY_SECONDS", 0.5)
    api.begin(server, "Port speed", {"PORT_CHANGE": 30.0})
    with pytest.raises(Busy, match="softlayer is at work on"):
        session().enter()
    assert (server.rescues, machine.system) == (0, "installed")


@pytest.mark.parametrize("acts", [True, False])
def test_a_session_whose_reboot_got_no_answer(api, server, machine, session, monkeypatch, acts):
    session().enter()
    api.faults.add("rebootDefault", "reset", acts=acts)
    if not acts and server.kind == "vs":
        # Nobody can tell that it never arrived; only after a while it is believed.
        for _time in range(2):
            with pytest.raises(TimedOut):
                session(reboot_method="hard", boot_timeout=1.0).leave()
        assert (server.reboots, machine.system) == (0, "rescue")
        monkeypatch.setattr(_provider, "REBOOT_SHOWS", 0.0)
    found = session(reboot_method="hard").leave()
    assert (found["running"], machine.system, server.reboots) == ("installed", "installed", 1)


def test_a_session_that_hardware_holds_off(servers, api, session, server, machine):
    server.rescue_refuses = True
    session().enter()
    if server.kind == "hw":
        for _time in range(2):
            with pytest.raises(Busy, match="20 minutes must pass") as caught:
                session(reboot_method="hard").leave()
            assert "Run this again in 20 min." in caught.value.todo
        server._refused_until = 0.0
    assert session(reboot_method="hard").leave()["running"] == "installed"
    assert server.reboots == 1


def test_a_session_of_windows(servers, api, session, server, machine):
    """Nobody logs in by SSH, and where the server was bought without a system, there is no password that could be asked for."""
    server.password = None
    if server.kind == "vs":
        with pytest.raises(BadInput, match="is a virtual guest"):
            session(rescue="windows").enter()
        assert (server.rescues, writes(api)) == (0, [])
        return
    found = session(rescue="windows").enter()
    assert (found["changed"], found["login"], server.rescues) == (True, None, 1)
    assert [call.args for call in api.log if call.method == "bootToRescueLayer"] == [("WINDOWS",)]
    machine.off()
    again = session(rescue="windows").enter()
    assert (again["changed"], server.rescues) == (False, 1)
    with pytest.raises(TargetError, match="does not answer"):
        session().leave()
    assert session(force=True, reboot_method="hard").leave()["running"] == "installed"
    assert (server.rescues, server.reboots) == (1, 1)


def test_a_rescue_system_that_is_silent_is_not_rebooted(session, server, machine):
    """It may be at work, with a file system mounted, or the network between is gone. No property of the server tells."""
    session().enter()
    machine.off()
    with pytest.raises(TargetError, match="which this session brought up, does not answer") as told:
        session().enter()
    assert "force=true" in told.value.todo and server.rescues == 1
    assert session(force=True).enter()["running"] == "rescue"
    assert server.rescues == 2


def test_a_session_that_nobody_logs_in_to_is_not_repeated(session, server, machine):
    assert session(login="console").enter()["changed"] is True
    machine.off()
    assert session(login="console").enter()["changed"] is False
    assert server.rescues == 1
