# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The OVH API of the lab, driven by the real client."""

from __future__ import annotations

import html
import json
import math
import re
import socket
import threading
import time
from datetime import datetime
from itertools import pairwise
from urllib.parse import quote

import ovh
import pytest
import requests

from lifeboat_lab.ovh_api import MailOptions, OvhApi, Server, boot_entries
from lifeboat_lab.waiting import until

NAME = "ns100001.ip-192-0-2.eu"
PATH = f"/dedicated/server/{NAME}"
HISTORY = "/me/notification/email/history"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0000000000000000000000000000000000000000000 someone@example"
QUICK = {"init": 0.01, "todo": 0.01, "doing": 0.01}


class Machine:
    """A power button with nothing but the question that a booting machine asks."""

    def __init__(self):
        self.server = None
        self.resets = 0
        self.boots = []

    def reset(self):
        self.resets += 1
        self.boots.append(self.server.next_boot())


@pytest.fixture
def server():
    server = Server(NAME, power=Machine(), task_seconds=dict(QUICK))
    server.power.server = server
    return server


@pytest.fixture
def api(server, monkeypatch):
    with OvhApi([server]) as api:
        monkeypatch.setitem(ovh.client.ENDPOINTS, "lab", api.url)
        yield api


@pytest.fixture
def client(api):
    return client_of(api.credential)


def client_of(credential, **arguments):
    return ovh.Client("lab", **{**credential.client_arguments(), **arguments})


def reboot_done(client):
    task = client.post(f"{PATH}/reboot")
    until(lambda: client.get(f"{PATH}/task/{task['taskId']}")["status"] == "done")


def enter_rescue(client, server, **more):
    client.put(PATH, bootId=server.boot("rescue12-customer").bootId, **more)
    reboot_done(client)


# Who may call


def test_the_time_is_a_bare_integer_for_anybody(api):
    answer = requests.get(f"{api.url}/auth/time", timeout=5)
    assert answer.text.isdigit()
    assert abs(int(answer.text) - time.time()) < 5
    assert answer.headers["X-OVH-QUERYID"]


def test_both_versions_of_the_path_are_served(client):
    assert client.get(PATH) == client.get(f"/v1{PATH}")


def test_a_clock_that_is_wrong_is_made_good_by_the_client_or_refused(api, client):
    api.clock_skew = 1000
    assert client.get(PATH)["name"] == NAME
    client._time_delta = 0
    with pytest.raises(ovh.exceptions.BadParametersError, match="Query out of time"):
        client.get(PATH)
    api.clock_skew = 290
    assert client.get(PATH)["name"] == NAME


@pytest.mark.parametrize(("arguments", "error", "text"), [
    ({"application_key": "0" * 16}, ovh.exceptions.APIError, "This application key is invalid"),
    ({"consumer_key": "0" * 32}, ovh.exceptions.InvalidCredential, "This credential is not valid"),
    ({"application_secret": "0" * 32}, ovh.exceptions.BadParametersError, "Invalid signature"),
])
def test_wrong_keys_are_refused(api, arguments, error, text):
    with pytest.raises(error, match=text) as caught:
        client_of(api.credential, **arguments).get(PATH)
    assert caught.value.query_id


def test_a_consumer_key_belongs_to_one_application(api):
    other = api.add_credential([("GET", "/*")])
    with pytest.raises(ovh.exceptions.InvalidCredential):
        client_of(api.credential, consumer_key=other.consumer_key).get(PATH)


def test_the_signature_covers_the_url_as_the_client_knew_it(client):
    """The client signs what it was given and sends what requests makes of that."""
    with pytest.raises(ovh.exceptions.BadParametersError, match="Invalid signature"):
        client.get("/dedicated/server/a b")
    with pytest.raises(ovh.exceptions.ResourceNotFoundError, match="This service does not exist"):
        client.get("/dedicated/server/" + quote("a b", safe=""))


def test_the_signature_covers_host_query_and_body(api, client):
    client._endpoint = api.url.replace("127.0.0.1", "localhost")
    assert client.get(PATH)["name"] == NAME

    class Forger(requests.Session):
        change = staticmethod(lambda url, data: (url, data))

        def request(self, method, url, data=None, **kwargs):
            url, data = self.change(url, data)
            return super().request(method, url, data=data, **kwargs)

    client._session = Forger()
    client.put(PATH, monitoring=True)
    for change in (lambda url, data: (url, data + " "), lambda url, data: (url + "?x=1", data),
                   lambda url, data: (url.replace("localhost", "127.0.0.1"), data)):
        client._session.change = change
        with pytest.raises(ovh.exceptions.BadParametersError, match="Invalid signature"):
            client.put(PATH, monitoring=False)
    assert api.servers[NAME].monitoring is True


def test_an_unsigned_call_must_log_in_first(api):
    answer = requests.get(api.url + PATH, timeout=5)
    assert (answer.status_code, answer.json()) == (401, {"class": "Client::Unauthorized",
                                                         "message": "You must login first"})


def test_a_credential_that_is_not_validated_is_refused(api, client):
    api.credential.status = "expired"
    with pytest.raises(ovh.exceptions.InvalidCredential):
        client.get(PATH)


def test_each_call_needs_its_rule(api, server):
    client = client_of(api.add_credential([("GET", "/dedicated/server/*"), ("PUT", PATH)]))
    client.get(f"{PATH}/boot")
    client.put(PATH, monitoring=False)
    for refused in (lambda: client.post(f"{PATH}/reboot"), lambda: client.get("/dedicated/server"),
                    lambda: client.get(HISTORY), lambda: client.put("/dedicated/server/other", monitoring=True)):
        with pytest.raises(ovh.exceptions.NotGrantedCall, match="This call has not been granted"):
            refused()
    assert server.power.resets == 0


def test_the_current_credential_shows_its_rules(api, client):
    shown = client.get("/auth/currentCredential")
    assert set(shown) == {"credentialId", "applicationId", "status", "creation", "expiration", "lastUse", "ovhSupport",
                          "rules", "allowedIPs"}
    assert {"method": "PUT", "path": "/dedicated/server/*"} in shown["rules"]
    assert shown["status"] == "validated"
    api.current_credential_needs_rule = True
    with pytest.raises(ovh.exceptions.NotGrantedCall):
        client.get("/auth/currentCredential")


# Servers


def test_the_server_list_and_a_server(api):
    client = client_of(api.add_credential([("GET", "/*")]))
    api.add(Server("ns100002.ip-192-0-2.eu", serverId=100002))
    assert client.get("/dedicated/server") == [NAME, "ns100002.ip-192-0-2.eu"]
    assert set(client.get(PATH)) == {
        "availabilityZone", "bootId", "bootScript", "commercialRange", "datacenter", "efiBootloaderPath", "iam", "ip",
        "linkSpeed", "monitoring", "name", "newUpgradeSystem", "noIntervention", "os", "powerState", "professionalUse",
        "rack", "region", "rescueMail", "rescueSshKey", "reverse", "rootDevice", "serverId", "state", "supportLevel"}
    with pytest.raises(ovh.exceptions.ResourceNotFoundError, match="This service does not exist"):
        client.get("/dedicated/server/ns9.example")
    with pytest.raises(ovh.exceptions.ResourceNotFoundError, match="invalid"):
        client.get(f"{PATH}/no-such-thing")


def test_a_put_is_void_and_changes_what_it_names_and_boots_nothing(client, server):
    rescue = server.boot("rescue12-customer").bootId
    assert client.put(PATH, bootId=rescue, rescueSshKey=KEY, noIntervention=True) is None
    shown = client.get(PATH)
    assert (shown["bootId"], shown["rescueSshKey"], shown["noIntervention"]) == (rescue, KEY, True)
    assert (shown["monitoring"], shown["rescueMail"]) == (True, None)
    assert server.power.resets == 0
    assert server.tasks == {}


def test_a_put_with_one_wrong_field_changes_nothing(client, server):
    before = client.get(PATH)
    wrong = [({"ip": "192.0.2.1"}, "read-only"), ({"no": 1}, "unknown"), ({"bootId": "1"}, "Invalid signature"),
             ({"bootId": True}, "Invalid signature"), ({"monitoring": "true"}, "Invalid signature"),
             ({"monitoring": None}, "Invalid signature"), ({"state": "fine"}, "StateEnum")]
    for fields, text in wrong:
        with pytest.raises(ovh.exceptions.BadParametersError, match=text):
            client.put(PATH, rescueMail="other@example.com", **fields)
    listed = ", ".join(str(entry.bootId) for entry in server.boots)
    with pytest.raises(ovh.exceptions.ResourceNotFoundError,
                       match=f"Netboot id 46371 is not valid, must be on list : {listed}"):
        client.put(PATH, rescueMail="other@example.com", bootId=46371)
    with pytest.raises(ovh.exceptions.BadParametersError, match="Invalid signature"):
        client.call("PUT", PATH, ["no", "object"])
    assert client.get(PATH) == before


def test_an_empty_put_changes_nothing(client):
    before = client.get(PATH)
    assert client.put(PATH) is None
    assert client.get(PATH) == before


@pytest.mark.parametrize("empty", [None, ""])
def test_what_clears_a_text_field_can_be_chosen(client, server, empty):
    server.null_clears, server.empty_reads_as = False, empty
    client.put(PATH, rescueSshKey=KEY)
    client.put(PATH, rescueSshKey=None)
    assert client.get(PATH)["rescueSshKey"] == KEY
    client.put(PATH, rescueSshKey="")
    assert client.get(PATH)["rescueSshKey"] == empty
    server.null_clears = True
    client.put(PATH, rescueSshKey=KEY)
    client.put(PATH, rescueSshKey=None)
    assert client.get(PATH)["rescueSshKey"] is None


def test_a_put_can_be_passed_over_in_silence(client, server):
    server.ignored_puts = {"rescueMail": 1}
    client.put(PATH, rescueMail="a@example.com", monitoring=False)
    assert (client.get(PATH)["rescueMail"], client.get(PATH)["monitoring"]) == (None, False)
    client.put(PATH, rescueMail="a@example.com")
    assert client.get(PATH)["rescueMail"] == "a@example.com"


def test_boot_options(client, server):
    rescue = client.get(f"{PATH}/boot", bootType="rescue")
    assert [client.get(f"{PATH}/boot/{number}")["kernel"] for number in rescue] == ["ipxe-shell", "rescue12-customer"]
    assert client.get(f"{PATH}/boot", bootType="harddisk") == [1]
    assert client.get(f"{PATH}/boot/1") == {"bootId": 1, "bootType": "harddisk", "kernel": "hd",
                                            "description": "Boot from hard drive (no netboot)"}
    [power] = client.get(f"{PATH}/boot", bootType="power")
    assert client.get(f"{PATH}/boot/{power}")["kernel"] == "poweroff"
    assert set(client.get(f"{PATH}/boot")) == {1, power, *rescue}
    server.boots[2].options["smp"] = "1"
    assert client.get(f"{PATH}/boot/{rescue[1]}/option") == ["smp"]
    assert client.get(f"{PATH}/boot/{rescue[1]}/option/smp") == {"option": "smp", "value": "1"}
    assert client.get(f"{PATH}/boot/1/option") == []
    with pytest.raises(ovh.exceptions.ResourceNotFoundError, match="bootId = 99"):
        client.get(f"{PATH}/boot/99")
    with pytest.raises(ovh.exceptions.BadParametersError, match="BootTypeEnum"):
        client.get(f"{PATH}/boot", bootType="floppy")


def test_each_server_has_boot_ids_of_its_own():
    lists = [boot_entries(number, ("rescue-customer", "rescue64-pro"), windows=True) for number in (100001, 100002)]
    ids = [{entry.bootId for entry in entries} for entries in lists]
    assert ids[0] & ids[1] == {1}
    assert [entry.kernel for entry in lists[0] if entry.bootType == "rescue"] == [
        "ipxe-shell", "rescue-customer", "rescue64-pro", "WinRescue"]


def test_service_data(client, server):
    server.interventions[7] = {"interventionId": 7, "type": "diskReplacement", "date": "2026-01-01T00:00:00+00:00"}
    assert client.get(f"{PATH}/intervention") == [7]
    assert client.get(f"{PATH}/intervention/7")["type"] == "diskReplacement"
    assert client.get(f"{PATH}/features/ipmi")["activated"] is True
    assert client.get(f"{PATH}/serviceInfos")["status"] == "ok"
    server.service_status = "expired"
    with pytest.raises(ovh.exceptions.ResourceExpiredError, match="This service is expired"):
        client.get(PATH)
    assert client.get(f"{PATH}/serviceInfos")["status"] == "expired"


# Reboots


def test_a_reboot_is_a_task_that_takes_its_time(client, server):
    task = client.post(f"{PATH}/reboot")
    assert task == {"taskId": task["taskId"], "function": "hardReboot", "status": "init", "comment": "Reboot asked",
                    "startDate": task["startDate"], "doneDate": None, "lastUpdate": None, "needSchedule": False,
                    "note": None, "plannedInterventionId": None, "tags": None, "ticketReference": None}
    assert datetime.fromisoformat(task["startDate"]).utcoffset() is not None
    done = until(lambda: (now := client.get(f"{PATH}/task/{task['taskId']}"))["status"] == "done" and now)
    assert done["doneDate"]
    assert done["lastUpdate"]
    [record] = server.reboots
    assert [status for status, at in record.history] == ["init", "todo", "doing", "done"]
    times = [at for status, at in record.history]
    assert all(later - earlier >= 0.009 for earlier, later in pairwise(times))
    assert server.power.resets == 1


@pytest.mark.parametrize("reset_at", ["init", "todo", "doing", "done"])
def test_the_machine_is_reset_on_the_status_that_was_chosen(client, server, reset_at):
    server.reset_at = reset_at
    order = ("init", "todo", "doing", "done")
    seen = []
    server.power.reset = lambda: seen.append(server.reboots[0].status)
    for status in order[:3]:
        server.task_seconds[status] = 0.01 if order.index(status) < order.index(reset_at) else math.inf
    client.post(f"{PATH}/reboot")
    until(lambda: seen)
    assert seen == [reset_at]


def test_tasks_are_listed_by_function_and_status(client, server):
    server.task_seconds = {"init": 0, "todo": math.inf, "doing": 0}
    task = client.post(f"{PATH}/reboot")["taskId"]
    until(lambda: client.get(f"{PATH}/task", function="hardReboot", status="todo") == [task])
    assert client.get(f"{PATH}/task") == [task]
    assert client.get(f"{PATH}/task", status="done") == []
    assert client.get(f"{PATH}/task", function="reinstallServer") == []
    with pytest.raises(ovh.exceptions.BadParametersError, match="TaskStatusEnum"):
        client.get(f"{PATH}/task", status="finished")
    with pytest.raises(ovh.exceptions.ResourceNotFoundError, match="taskId = 5"):
        client.get(f"{PATH}/task/5")


def test_a_second_reboot_is_one_more_task_or_a_conflict(client, server):
    server.task_seconds["init"] = math.inf
    client.post(f"{PATH}/reboot")
    client.post(f"{PATH}/reboot")
    assert len(server.reboots) == 2
    server.second_reboot = "conflict"
    with pytest.raises(ovh.exceptions.ResourceConflictError):
        client.post(f"{PATH}/reboot")
    assert len(server.reboots) == 2


def test_a_machine_that_cannot_be_reset_fails_the_task_and_nothing_else(client, server, capsys):
    def broken():
        raise OSError("no such machine")

    server.power.reset = broken
    task = client.post(f"{PATH}/reboot")["taskId"]
    until(lambda: client.get(f"{PATH}/task/{task}")["doneDate"])
    assert client.get(f"{PATH}/task/{task}")["status"] == "ovhError"
    assert client.get(f"{PATH}/task/{task}")["comment"] == "The machine cannot be reset"
    assert "no such machine" in capsys.readouterr().err


def test_a_server_without_a_machine_boots_at_once(api, client):
    other = api.add(Server("ns100002.ip-192-0-2.eu", serverId=100002, task_seconds=dict(QUICK)))
    client.post(f"/dedicated/server/{other.name}/reboot")
    until(lambda: [boot.kind for boot in other.booted] == ["installed"])


# What boots


@pytest.mark.parametrize(("kernel", "kind"), [
    ("hd", "installed"), ("rescue12-customer", "rescue"), ("poweroff", "poweroff"), ("ipxe-shell", "ipxe-shell"),
    ("WinRescue", "windows"),
])
def test_what_is_armed_boots(client, server, kernel, kind):
    server.boots = boot_entries(7, windows=True)
    client.put(PATH, bootId=server.boot(kernel).bootId)
    assert (server.armed().kernel, server.booted) == (kernel, [])
    reboot_done(client)
    [boot] = server.power.boots
    assert (boot.kind, boot.kernel) == (kind, kernel)
    assert client.get(PATH)["powerState"] == ("poweroff" if kind == "poweroff" else "poweron")


def test_what_is_armed_lasts_until_it_is_changed(client, server):
    enter_rescue(client, server)
    assert server.next_boot().kind == "rescue"  # a reboot from inside
    client.put(PATH, bootId=1)
    assert server.next_boot().kind == "installed"
    assert len(server.reboots) == 1


def test_with_a_key_there_is_no_password(api, client, server):
    enter_rescue(client, server, rescueSshKey=KEY)
    [boot] = server.power.boots
    assert (boot.ssh_key, boot.password) == (KEY, None)
    assert client.post(f"{PATH}/authenticationSecret") == []
    [number] = until(lambda: client.get(HISTORY))
    body = client.get(f"{HISTORY}/{number}")["body"]
    assert "root" in body
    assert "password" not in body


def test_without_a_key_each_rescue_boot_has_a_password_of_its_own(api, client, server):
    enter_rescue(client, server, rescueSshKey="")
    server.next_boot()
    first, second = (boot.password for boot in server.booted)
    assert first != second
    assert second not in repr(server.booted)
    [access] = client.post(f"{PATH}/authenticationSecret")
    assert (access["type"], access["user"], access["url"]) == ("SSH", "root", None)
    stranger = client_of(api.credential, consumer_key=None)
    answer = stranger.post("/secret/retrieve", _need_auth=False, id=access["password"])
    assert answer["secret"] == second
    assert datetime.fromisoformat(answer["expiration"]).utcoffset() is not None
    with pytest.raises(ovh.exceptions.ResourceNotFoundError):
        stranger.post("/secret/retrieve", _need_auth=False, id="8c2d4f10-0000-4000-8000-000000000000")
    assert {first, second, access["password"], api.credential.application_secret} <= api.sensitive()


def test_the_secret_of_an_earlier_boot_is_given_out_until_the_machine_boots_again(client, server):
    enter_rescue(client, server)
    server.task_seconds["init"] = math.inf
    client.post(f"{PATH}/reboot")
    [access] = client.post(f"{PATH}/authenticationSecret")
    stale = client.post("/secret/retrieve", _need_auth=False, id=access["password"])["secret"]
    assert stale == server.booted[0].password
    assert stale != server.next_boot().password


def test_a_secret_can_come_late_and_be_read_once(api, client, server):
    server.secret_delay = math.inf
    enter_rescue(client, server)
    assert client.post(f"{PATH}/authenticationSecret") == []
    server.secret_delay, api.secret_reads = 0, 1
    server.next_boot()
    [access] = client.post(f"{PATH}/authenticationSecret")
    client.post("/secret/retrieve", _need_auth=False, id=access["password"])
    with pytest.raises(ovh.exceptions.ResourceNotFoundError):
        client.post("/secret/retrieve", _need_auth=False, id=access["password"])


def test_a_secret_expires(api, client, server):
    enter_rescue(client, server)
    [access] = client.post(f"{PATH}/authenticationSecret")
    client.post("/secret/retrieve", _need_auth=False, id=access["password"])
    api.clock_skew = 6 * 86400
    client.post("/secret/retrieve", _need_auth=False, id=access["password"])
    api.clock_skew = 8 * 86400
    with pytest.raises(ovh.exceptions.ResourceNotFoundError):
        client.post("/secret/retrieve", _need_auth=False, id=access["password"])


# Mails


def test_the_rescue_mail_leads_to_the_password(api, client, server):
    api.add_mail("[xx00000-ovh] an old one", "old", date="2020-01-01T00:00:00+00:00")
    known = client.get(HISTORY)
    assert len(known) == 1
    enter_rescue(client, server)
    [number] = until(lambda: [number for number in client.get(HISTORY) if number not in known])
    mail = client.get(f"{HISTORY}/{number}")
    assert set(mail) == {"id", "date", "subject", "body"}
    assert mail["subject"] == f"[xx00000-ovh] [{NAME}] Access settings for Linux rescue mode"
    assert datetime.fromisoformat(mail["date"]).utcoffset() is not None
    body = html.unescape(mail["body"])
    assert " - IP address: 192.0.2.10<br>" in body
    assert " - user: root<br>" in body
    link = re.search(r" - password: https://www\.ovh\.com/manager/secret/#\?id=([0-9a-f-]{36})", body)
    assert client.post("/secret/retrieve", _need_auth=False, id=link[1])["secret"] == server.booted[0].password
    with pytest.raises(ovh.exceptions.ResourceNotFoundError):
        client.get(f"{HISTORY}/5")


def test_other_mails_another_language_and_a_plain_password(client, server):
    server.mail = MailOptions(language="fr", plain_password=True, unrelated=2)
    enter_rescue(client, server)
    other, noise, number = until(lambda: len(client.get(HISTORY)) == 3 and client.get(HISTORY))
    mail = client.get(f"{HISTORY}/{number}")
    assert "mode rescue" in mail["subject"]
    assert f"mot de passe : {server.booted[0].password}" in html.unescape(mail["body"])
    assert NAME not in client.get(f"{HISTORY}/{other}")["subject"]
    assert NAME in client.get(f"{HISTORY}/{noise}")["subject"]
    assert "password" not in client.get(f"{HISTORY}/{noise}")["body"]


def test_a_mail_can_be_late(api, client, server):
    server.mail.delay = math.inf
    enter_rescue(client, server)
    assert client.get(HISTORY) == []
    server.mail.delay = 0.1
    started = time.monotonic()
    server.next_boot()
    until(lambda: client.get(HISTORY))
    assert time.monotonic() - started >= 0.1
    assert len(client.get(HISTORY)) == 1


def test_a_mail_to_an_address_of_ones_own_may_be_missing_in_the_history(api, client, server):
    enter_rescue(client, server, rescueMail="other@example.com")
    [mail] = until(lambda: api.mails)
    assert (mail.to, mail.in_history) == ("other@example.com", False)
    assert client.get(HISTORY) == []
    with pytest.raises(ovh.exceptions.ResourceNotFoundError):
        client.get(f"{HISTORY}/{mail.id}")
    server.mail.custom_hidden = False
    server.next_boot()
    until(lambda: client.get(HISTORY))


# Faults


@pytest.mark.parametrize(("kind", "error", "text"), [
    ("403", ovh.exceptions.NotGrantedCall, "not been granted"),
    ("invalid-credential", ovh.exceptions.InvalidCredential, "not valid"),
    ("404", ovh.exceptions.ResourceNotFoundError, "does not exist"),
    ("409", ovh.exceptions.ResourceConflictError, "already running"),
    ("429", ovh.exceptions.APIError, "Too many requests"),
    ("460", ovh.exceptions.ResourceExpiredError, "expired"),
    ("500", ovh.exceptions.APIError, "Internal server error"),
    ("503-html", ovh.exceptions.InvalidResponse, "Failed to decode"),
    ("reset", ovh.exceptions.HTTPError, "Low HTTP request failed"),
])
@pytest.mark.parametrize("acts", [False, True])
def test_a_fault_spoils_one_call_whether_it_was_carried_out_or_not(api, client, server, kind, error, text, acts):
    client.get(PATH)
    api.faults.add("PUT", f"^{PATH}$", kind, acts=acts)
    with pytest.raises(error, match=text):
        client.put(PATH, monitoring=False)
    assert server.monitoring is not acts
    assert client.get(PATH)["monitoring"] is not acts
    client.put(PATH, monitoring=True)
    put = api.writes()[0]
    assert (put.fault, put.status) == (kind, None if kind == "reset" else int(re.sub(r"\D", "", kind) or 403))


def test_a_reset_connection_is_reset(api):
    api.faults.add("GET", "/auth/time", "reset")
    with socket.create_connection((api.address, api.port), timeout=5) as connection:
        connection.sendall(b"GET /1.0/auth/time HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            connection.recv(1)


def test_a_fault_can_strike_later_and_now_and_then(api, client):
    fault = api.faults.add("GET", "/boot$", "500", every=3, after=1)
    outcome = ""
    for _turn in range(10):
        try:
            client.get(f"{PATH}/boot")
            outcome += "."
        except ovh.exceptions.APIError:
            outcome += "x"
    assert outcome == "...x..x..x"
    assert fault.hits == 3
    client.get(PATH)
    api.faults.clear()
    api.faults.add("*", "/boot", "404", times=2)
    for _turn in range(2):
        with pytest.raises(ovh.exceptions.ResourceNotFoundError):
            client.get(f"{PATH}/boot")
    client.get(f"{PATH}/boot")


def test_a_fault_that_there_is_not_is_refused(api):
    with pytest.raises(ValueError, match="no such fault"):
        api.faults.add("GET", "/", "teapot")
    with pytest.raises(ValueError, match="no such status"):
        api.faults.add("POST", "/reboot", "task_ends", status="failed")


def test_a_slow_call_outlasts_the_clients_patience_and_is_carried_out(api, client, server):
    client.get(PATH)
    api.faults.add("PUT", PATH, "delay", seconds=0.5)
    client._timeout = 0.05
    with pytest.raises(ovh.exceptions.HTTPError):
        client.put(PATH, monitoring=False)
    assert server.monitoring is True
    call = until(api.writes)[0]
    assert server.monitoring is False
    assert (call.fault, call.status) == ("delay", 200)
    assert call.seconds >= 0.5


@pytest.mark.parametrize("ends", ["ovhError", "customerError", "cancelled"])
@pytest.mark.parametrize("resets", [None, True])
def test_a_task_can_end_badly(api, client, server, ends, resets):
    api.faults.add("POST", "/reboot$", "task_ends", status=ends, resets=resets)
    task = client.post(f"{PATH}/reboot")["taskId"]
    until(lambda: client.get(f"{PATH}/task/{task}")["status"] == ends)
    assert [status for status, at in server.reboots[0].history] == ["init", "todo", "doing", ends]
    assert server.power.resets == (1 if resets else 0)
    reboot_done(client)


def test_a_task_that_ends_badly_can_reset_the_machine_at_its_end(api, client, server):
    server.reset_at = "done"
    api.faults.add("POST", "/reboot$", "task_ends", resets=True)
    client.post(f"{PATH}/reboot")
    until(lambda: server.power.resets)
    assert [status for status, at in server.reboots[0].history][-1] == "ovhError"


@pytest.mark.parametrize(("status", "resets"), [("todo", 0), ("", 1)])
def test_a_task_can_hang(api, client, server, status, resets):
    api.faults.add("POST", "/reboot$", "task_hangs", status=status)
    task = client.post(f"{PATH}/reboot")["taskId"]
    until(lambda: client.get(f"{PATH}/task/{task}")["status"] == (status or "doing"))
    reboot_done(client)  # which comes after whatever the first task had still to do
    assert client.get(f"{PATH}/task/{task}")["status"] == (status or "doing")
    assert server.power.resets == resets + 1


def test_a_task_can_be_purged_once_it_is_done(api, client, server):
    api.faults.add("POST", "/reboot$", "task_purged")
    task = client.post(f"{PATH}/reboot")["taskId"]
    assert client.get(f"{PATH}/task/{task}")["taskId"] == task
    until(lambda: server.reboots[0].status == "done")
    with pytest.raises(ovh.exceptions.ResourceNotFoundError, match=f"taskId = {task}"):
        client.get(f"{PATH}/task/{task}")
    assert client.get(f"{PATH}/task") == []
    assert server.power.resets == 1


# The log, and the end


def test_the_log_tells_every_call_and_no_secret(server, monkeypatch, tmp_path):
    path = tmp_path / "calls.jsonl"
    with OvhApi([server], log_file=path) as api:
        monkeypatch.setitem(ovh.client.ENDPOINTS, "lab", api.url)
        client = client_of(api.credential)
        client.get(f"{PATH}/boot", bootType="rescue")
        enter_rescue(client, server)
        [access] = client.post(f"{PATH}/authenticationSecret")
        client.post("/secret/retrieve", _need_auth=False, id=access["password"])
        with pytest.raises(ovh.exceptions.BadParametersError):
            client.put(PATH, rescuePassword="of-no-use")
        calls = [json.loads(line) for line in path.read_text().splitlines()]
        assert [(call["method"], call["path"]) for call in calls[:3]] == [
            ("GET", "/1.0/auth/time"), ("GET", f"/1.0{PATH}/boot?bootType=rescue"), ("PUT", f"/1.0{PATH}")]
        assert calls[2]["body"] == {"bootId": server.bootId}
        assert (calls[2]["status"], calls[2]["fault"]) == (200, None)
        assert [call["path"] for call in calls] == [call.path for call in api.log]
        assert [call.method + call.path.removeprefix(f"/1.0{PATH}") for call in api.writes()] == [
            "PUT", "POST/reboot", "POST/authenticationSecret", "PUT"]
        for secret in (*api.sensitive(), "of-no-use"):
            assert secret not in path.read_text()
        assert "X-Ovh" not in path.read_text()


def test_closing_cuts_connections_and_frees_the_port_even_in_a_slow_call(server, monkeypatch):
    threads_before = threading.active_count()
    with OvhApi([server]) as api:
        monkeypatch.setitem(ovh.client.ENDPOINTS, "lab", api.url)
        client = client_of(api.credential)
        idle = client_of(api.credential)
        idle.get(PATH)  # whose connection is kept alive
        api.faults.add("PUT", PATH, "delay", seconds=60)
        failed = []

        def slow():
            with pytest.raises(ovh.exceptions.HTTPError) as caught:
                client.put(PATH, monitoring=False)
            failed.append(caught.value)

        caller = threading.Thread(target=slow)
        caller.start()
        until(lambda: api.faults._faults[0].hits)
        started = time.monotonic()
        api.close()
        caller.join(timeout=5)
        assert failed
        assert time.monotonic() - started < 2
    assert server.monitoring is True
    until(lambda: threading.active_count() == threads_before)
    with pytest.raises(ovh.exceptions.HTTPError):
        idle.get(PATH)
    with OvhApi([server], port=api.port) as again:
        assert requests.get(f"{again.url}/auth/time", timeout=5).ok


def test_many_clients_at_once(api, client, server):
    def work():
        mine = client_of(api.credential)
        for _turn in range(10):
            mine.get(PATH)

    workers = [threading.Thread(target=work) for number in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=10)
    calls = [call for call in api.log if call.path == f"/1.0{PATH}"]
    assert [call.status for call in calls] == [200] * 80
