# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The SoftLayer API of the lab, driven by the vendor's own client and command line."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import socket
import subprocess
import sys
import time

import pytest
import requests
import SoftLayer
from SoftLayer.exceptions import SoftLayerAPIError, TransportError

from lifeboat_lab.softlayer_api import OUTSTANDING, Server, SoftLayerApi, masked, parse_mask
from lifeboat_lab.waiting import until

QUICK = {"RESCUE_SETUP": 0.01, "RESCUE_BOOT": 0.02}
pytestmark = pytest.mark.usefixtures("nobody")
SLCLI = pathlib.Path(sys.executable).parent / "slcli"


class Machine:
    """A power button with nothing but the question that a booting machine asks."""

    def __init__(self):
        self.server = None
        self.boots = []

    def reset(self):
        self.boots.append(self.server.next_boot().kind)

    def off(self):
        self.boots.append("off")


def with_machine(*args, **more):
    server = Server(*args, power=Machine(), rescue_seconds=dict(QUICK), **more)
    server.power.server = server
    return server


@pytest.fixture
def guest():
    return with_machine(1001, "vs", "web1")


@pytest.fixture
def metal():
    return with_machine(2001, "hw", "db1", primaryIpAddress="192.0.2.30")


@pytest.fixture
def api(guest, metal):
    with SoftLayerApi([guest, metal]) as api:
        yield api


@pytest.fixture(params=["xmlrpc", "rest"])
def transport(request):
    return request.param


@pytest.fixture
def client(api, transport):
    return client_of(api, transport)


def client_of(api, transport="xmlrpc", **more):
    url = api.rest_url if transport == "rest" else api.url
    return SoftLayer.create_client_from_env(**{**api.credential.client_arguments(), "endpoint_url": url, "timeout": 10, **more})


def refused(code, text):
    """What both transports make of a fault: REST loses the code."""
    return pytest.raises(SoftLayerAPIError, match=f"{code}.*{text}" if code else text)


def ended(server):
    return until(lambda: server.transactions and server.active is None)


# Who may call


def test_a_wrong_key_is_refused(api, transport):
    with refused(None, "Invalid API token" if transport == "xmlrpc" else "Access Denied") as caught:
        client_of(api, transport, api_key="0" * 64)["Account"].getVirtualGuests()
    assert caught.value.faultCode == ("SoftLayer_Exception" if transport == "xmlrpc" else 401)


def test_no_key_at_all_is_refused(api):
    answer = requests.get(f"{api.rest_url}SoftLayer_Account/getVirtualGuests.json", timeout=5)
    assert (answer.status_code, answer.json()) == (401, {"error": "Access Denied. ", "code": "SoftLayer_Exception_Public"})


@pytest.mark.parametrize(("service", "method", "number"), [
    ("Virtual_Guest", "executeRescueLayer", 1001), ("Hardware_Server", "bootToRescueLayer", 2001),
    ("Virtual_Guest", "rebootDefault", 1001), ("Hardware_Server", "rebootHard", 2001)])
def test_a_permission_that_is_not_granted(api, guest, metal, transport, client, service, method, number):
    api.credential.permissions = set()
    with refused("SoftLayer_Exception_Public" if transport == "xmlrpc" else None, "You do not have permission to this service"):
        client.call(service, method, id=number)
    assert guest.power.boots == metal.power.boots == []


def test_an_object_that_is_not_there(transport, client):
    for number in (999, 2001):
        with refused("SoftLayer_Exception_ObjectNotFound" if transport == "xmlrpc" else "404", "Unable to find object with id of"):
            client["Virtual_Guest"].getObject(id=number)


def test_a_method_that_is_none(client):
    for call in (client["Virtual_Guest"].bootToRescueLayer, client["Hardware_Server"].executeRescueLayer,
                 client["Virtual_Guest"].getColour, client["Network_Storage"].getObject):
        with refused(None, "is not a valid method"):
            call(id=1001)


# Reading


def test_without_a_mask_there_are_local_properties_only(client):
    found = client["Virtual_Guest"].getObject(id=1001)
    assert (found["id"], found["hostname"], found["primaryIpAddress"]) == (1001, "web1", "192.0.2.20")
    assert not {"operatingSystem", "powerState", "activeTransaction", "softwareComponents"} & set(found)


def test_secrets_stay_away_unless_asked_for(api, client):
    masks = ("mask[operatingSystem]", "operatingSystem[id]", "id,operatingSystem.softwareLicense,remoteManagementAccounts[username]")
    for mask in masks:
        answers = [client["Virtual_Guest"].getObject(id=1001, mask=mask), client["Hardware_Server"].getObject(id=2001, mask=mask)]
        assert not any(secret in json.dumps(answers) for secret in api.sensitive()), mask


def test_passwords_when_asked_for(guest, metal, client):
    for service, server in (("Virtual_Guest", guest), ("Hardware_Server", metal)):
        found = client[service].getObject(id=server.id, mask="mask[id,operatingSystem[passwords[username,password]]]")
        assert found == {"id": server.id, "operatingSystem": {"passwords": [{"username": "root", "password": server.password}]}}


@pytest.mark.parametrize(("text", "tree"), [
    ("mask[id]", {"id": {}}),
    ("mask[ id , a [ b,\n c.d ] ]", {"id": {}, "a": {"b": {}, "c": {"d": {}}}}),
    ("mask.a.b[c]", {"a": {"b": {"c": {}}}}),
    ("mask(SoftLayer_Hardware_Server)[id,a.b]", {"id": {}, "a": {"b": {}}}),
    ("[mask[id], mask(SoftLayer_Hardware_Server)[a[b]]]", {"id": {}, "a": {"b": {}}}),
    ("filteredMask[a.b,a.c]", {"a": {"b": {}, "c": {}}}),
])
def test_masks(text, tree):
    assert parse_mask(text) == tree


def test_a_mask_on_lists_and_nulls():
    wanted = parse_mask("mask[a,b,c.d,x]")
    assert masked([{"a": 1, "b": None, "c": [{"d": 2, "e": 3}]}], wanted) == [{"a": 1, "c": [{"d": 2}]}]


def test_a_mask_that_is_none(client):
    with refused(None, "Unable to parse object mask"):
        client["Virtual_Guest"].getObject(id=1001, mask="mask[id;name]")


def test_lists_filters_and_pages(api, transport, client):
    for number in range(1002, 1012):
        api.add(Server(number, "vs", f"node{number}", domain="example.org"))
    account = client["Account"]
    assert len(account.getVirtualGuests(mask="id")) == 11
    assert account.getHardware(mask="id,hostname") == [{"id": 2001, "hostname": "db1"}]
    for operation, found in (("_= NODE1005", 1), ("node1005", 1), ("NODE1005", 0), ("*= node", 10), ("^= web", 1), ("$= 1", 2),
                             ("!~ node", 1)):
        wanted = {"virtualGuests": {"hostname": {"operation": operation}}}
        assert len(account.getVirtualGuests(mask="id", filter=wanted)) == found, operation
    assert account.getVirtualGuests(mask="id", filter={"virtualGuests": {"id": {"operation": 1003}}}) == [{"id": 1003}]
    both = {"virtualGuests": {"domain": {"operation": "example.org"}, "datacenter": {"name": {"operation": "ams03"}}}}
    assert len(account.getVirtualGuests(mask="id", filter=both)) == 10
    api.log.clear()
    pages = client.call("Account", "getVirtualGuests", mask="id", limit=4, iter=True)
    assert [server["id"] for server in pages] == list(range(1001, 1012))
    assert len(api.log) == 3


def test_the_power_state(guest, metal, client):
    assert client["Virtual_Guest"].getPowerState(id=1001) == {"keyName": "RUNNING", "name": "Running"}
    assert client["Hardware_Server"].getServerPowerState(id=2001) == "on"
    for service, server in (("Virtual_Guest", guest), ("Hardware_Server", metal)):
        client[service].powerOff(id=server.id)
        until(lambda server=server: server.power.boots == ["off"])
    assert client["Virtual_Guest"].getPowerState(id=1001)["keyName"] == "HALTED"
    assert client["Hardware_Server"].getServerPowerState(id=2001) == "off"
    client["Virtual_Guest"].powerOn(id=1001)
    until(lambda: guest.power.boots == ["off", "installed"])
    assert guest.running


# Rescue and reboot


def rescue(client, server, *args):
    if server.kind == "vs":
        return client["Virtual_Guest"].executeRescueLayer(id=server.id)
    return client["Hardware_Server"].bootToRescueLayer(*args, id=server.id)


@pytest.mark.parametrize("kind", ["vs", "hw"])
def test_a_rescue_lasts_for_one_boot(guest, metal, client, kind):
    server = guest if kind == "vs" else metal
    assert rescue(client, server) is True
    ended(server)
    assert server.power.boots == ["rescue"]
    server.power.reset()  # from inside
    assert server.power.boots == ["rescue", "installed"]
    assert [boot.password for boot in server.booted] == [server.password] * 2


@pytest.mark.parametrize("kind", ["vs", "hw"])
def test_a_reboot_by_the_api_leads_out_of_it(guest, metal, client, kind):
    server, service = (guest, "Virtual_Guest") if kind == "vs" else (metal, "Hardware_Server")
    rescue(client, server)
    ended(server)
    assert client[service].rebootDefault(id=server.id) is True
    until(lambda: server.power.boots == ["rescue", "installed"])


def test_nothing_but_a_transaction_tells_of_a_rescue(guest, client):
    before = client["Virtual_Guest"].getObject(id=1001, mask="id,status,powerState,lastTransaction.id,activeTransaction.id")
    rescue(client, guest)
    ended(guest)
    after = client["Virtual_Guest"].getObject(id=1001, mask="id,status,powerState,lastTransaction.id,activeTransaction.id")
    assert after.pop("lastTransaction") == {"id": guest.transactions[0].id}
    assert after == before


def test_a_transaction_takes_time_and_holds_off_others(guest, client):
    guest.rescue_seconds = {"RESCUE_SETUP": 0.5, "RESCUE_BOOT": 0.5}
    rescue(client, guest)
    seen = []

    def over():
        active = client["Virtual_Guest"].getActiveTransaction(id=1001, mask="id,transactionStatus[name,friendlyName]")
        if active and active["transactionStatus"] not in seen:
            seen.append(active["transactionStatus"])
        return not active

    for method in ("executeRescueLayer", "rebootDefault", "powerOff"):
        with refused(None, OUTSTANDING):
            client.call("Virtual_Guest", method, id=1001)
    until(over)
    assert seen == [{"name": "RESCUE_SETUP", "friendlyName": "Rescue setup"}, {"name": "RESCUE_BOOT", "friendlyName": "Rescue boot"}]
    assert guest.power.boots == ["rescue"]
    assert SoftLayer.VSManager(client).wait_for_ready(1001, 5, delay=1, pending=True)


def test_a_transaction_that_is_not_shown_at_once_holds_off_others(guest, client):
    guest.rescue_seconds, guest.shown_after = {"RESCUE_BOOT": 5.0}, 5.0
    rescue(client, guest)
    assert not client["Virtual_Guest"].getActiveTransaction(id=1001)
    with refused(None, OUTSTANDING):
        rescue(client, guest)


@pytest.mark.parametrize("status", ["RESCUE_SETUP", "RESCUE_BOOT"])
def test_a_transaction_that_hangs(api, guest, metal, client, status):
    api.faults.add("executeRescueLayer", "hang", status=status)
    rescue(client, guest)
    until(lambda: guest.active.status == status)
    api.begin(metal, "Rescue", QUICK)  # begun later, and at its end
    ended(metal)
    assert guest.active.status == status
    assert guest.power.boots == (["rescue"] if status == "RESCUE_BOOT" else [])


@pytest.mark.parametrize(("args", "good"), [((), True), (("LINUX",), True), (("WINDOWS",), True), (("BSD",), False)])
def test_the_environment_of_hardware_without_a_system(metal, client, args, good):
    if good:
        assert rescue(client, metal, *args) is True
    else:
        with refused(None, "noOsBootEnvironment"):
            rescue(client, metal, *args)


def test_hardware_refuses_a_second_command_for_a_while(api, metal, client):
    hardware = client["Hardware_Server"]
    hardware.rebootDefault(id=2001)
    for method in ("rebootSoft", "rebootHard", "powerCycle", "powerOff"):
        with refused(None, "20 minutes"):
            client.call("Hardware_Server", method, id=2001)
    commands = hardware.getRecentRemoteManagementCommands(id=2001, mask="createDate,processed,remoteManagementCommand[name]")
    assert [command["remoteManagementCommand"]["name"] for command in commands] == ["rebootDefault"]
    metal._refused_until = time.monotonic()
    assert hardware.powerCycle(id=2001) is True
    assert metal.reboots == 2


def test_a_virtual_guest_does_not(guest, client):
    client["Virtual_Guest"].rebootDefault(id=1001)
    client["Virtual_Guest"].rebootHard(id=1001)
    until(lambda: guest.power.boots == ["installed"] * 2)


def test_a_rescue_may_count_as_a_reboot(metal, client):
    metal.rescue_refuses = True
    rescue(client, metal)
    ended(metal)
    with refused(None, "20 minutes"):
        client["Hardware_Server"].rebootDefault(id=2001)


# Faults and the log


@pytest.mark.parametrize(("kind", "error"), [
    ("500", SoftLayerAPIError), ("503-html", SoftLayerAPIError), ("429", SoftLayerAPIError), ("reset", TransportError),
    ("internal", SoftLayerAPIError), ("outstanding", SoftLayerAPIError), ("permission", SoftLayerAPIError)])
@pytest.mark.parametrize("acts", [True, False])
def test_faults(api, guest, client, kind, error, acts):
    fault = api.faults.add("Virtual_Guest::executeRescueLayer", kind, acts=acts)
    with pytest.raises(error):
        rescue(client, guest)
    assert (fault.hits, guest.rescues) == (1, int(acts))
    if not acts:
        assert rescue(client, guest) is True


def test_a_delay_and_every_second_call(api, client):
    api.faults.add("getObject", "delay", seconds=0.2)
    started = time.monotonic()
    client["Virtual_Guest"].getObject(id=1001)
    assert time.monotonic() - started >= 0.2
    api.faults.add("getObject", "internal", every=2)
    answers = []
    for _time in range(4):
        try:
            client["Virtual_Guest"].getObject(id=1001)
            answers.append(True)
        except SoftLayerAPIError:
            answers.append(False)
    assert answers == [True, False, True, False]
    api.faults.clear()
    client["Virtual_Guest"].getObject(id=1001)
    with pytest.raises(ValueError, match="no such fault"):
        api.faults.add(".", "fire")


def test_the_log_holds_no_secret(guest, metal, tmp_path):
    log = tmp_path / "log"
    with SoftLayerApi([guest, metal], log_file=log) as api:
        for transport in ("xmlrpc", "rest"):
            client_of(api, transport)["Virtual_Guest"].getObject(id=1001, mask="operatingSystem.passwords")
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        assert [(line["transport"], line["service"], line["method"], line["status"]) for line in lines] == [
            (transport, "SoftLayer_Virtual_Guest", "getObject", 200) for transport in ("xmlrpc", "rest")]
        assert json.loads(json.dumps([dataclasses.asdict(call) for call in api.log])) == lines
        assert not any(secret in log.read_text() for secret in api.sensitive())
    assert not any(secret in repr((api.servers, api.credentials)) for secret in api.sensitive())


def test_what_is_closed_answers_nobody(guest):
    with SoftLayerApi([guest]) as api:
        port = api.port
    api.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


# The vendor's command line, unchanged


@pytest.fixture
def slcli(api, transport, tmp_path):
    """Run slcli with a configuration file, and give back what it printed as JSON."""
    url = api.rest_url if transport == "rest" else api.url
    keys = api.credential.client_arguments()
    config = tmp_path / "softlayer.conf"
    config.write_text("[softlayer]\n" + "".join(f"{name} = {value}\n" for name, value in keys.items())
                      + f"endpoint_url = {url}\ntimeout = 10\n")
    config.chmod(0o600)

    def run(*words, status=0):
        process = subprocess.run([SLCLI, "-C", config, "--format", "json", "-y", *words], capture_output=True, text=True,
                                 check=False, timeout=60, stdin=subprocess.DEVNULL)
        assert process.returncode == status, process.stdout + process.stderr
        return json.loads(process.stdout) if process.stdout.startswith(("[", "{")) else process.stdout

    return run


def test_slcli_for_virtual_guests(guest, slcli):
    assert [(found["id"], found["hostname"]) for found in slcli("vs", "list")] == [(1001, "web1")]
    slcli("vs", "rescue", "web1")
    ended(guest)
    found = slcli("vs", "detail", "1001", "--passwords")
    assert (found["id"], found["fqdn"], found["public_ip"], found["state"]) == (1001, "web1.example.com", "192.0.2.20", "RUNNING")
    assert [(user["username"], user["password"]) for user in found["users"]] == [("root", guest.password)]
    slcli("vs", "reboot", "1001")
    until(lambda: guest.power.boots == ["rescue", "installed"])


def test_slcli_for_hardware(metal, slcli):
    assert [(found["id"], found["hostname"]) for found in slcli("hw", "list")] == [(2001, "db1")]
    slcli("hw", "rescue", "2001")
    ended(metal)
    found = slcli("hw", "detail", "db1", "--passwords")
    assert (found["id"], found["fqdn"], found["public_ip"]) == (2001, "db1.example.com", "192.0.2.30")
    assert [(user["username"], user["password"]) for user in found["users"]] == [("root", metal.password)]
    assert metal.power.boots == ["rescue"]


def test_slcli_tells_a_refusal(guest, slcli):
    guest.rescue_seconds = {"RESCUE_BOOT": 30.0}
    slcli("vs", "rescue", "1001")
    assert slcli("vs", "detail", "1001")["active_transaction"] == "RESCUE_BOOT"
    assert OUTSTANDING in slcli("vs", "rescue", "1001", status=1)
