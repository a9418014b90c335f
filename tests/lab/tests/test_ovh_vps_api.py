# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The VPS of the lab's OVH API, driven by the real client."""

from __future__ import annotations

import html
import json
import math
import re
from itertools import pairwise
from urllib.parse import quote

import ovh
import pytest

from lifeboat_lab.ovh_api import MINIMUM_RULES, MailOptions, OvhApi, Server, Vps
from lifeboat_lab.waiting import until

NAME = "vps-000e0e00.vps.ovh.ca"
PATH = f"/vps/{NAME}"
HISTORY = "/me/notification/email/history"
RULES = [*MINIMUM_RULES, *(("POST", f"/vps/*/{what}") for what in ("start", "stop", "getConsoleUrl"))]


class Machine:
    """A power button with nothing but the question that a booting machine asks."""

    def __init__(self):
        self.vps = None
        self.resets = 0
        self.offs = 0
        self.boots = []

    def reset(self):
        self.resets += 1
        self.boots.append(self.vps.next_boot())

    def power_off(self):
        self.offs += 1


@pytest.fixture
def vps():
    vps = Vps(NAME, power=Machine(), task_seconds={"todo": 0.01, "doing": 0.03})
    vps.power.vps = vps
    return vps


@pytest.fixture
def api(vps, monkeypatch):
    with OvhApi([vps], rules=RULES) as api:
        monkeypatch.setitem(ovh.client.ENDPOINTS, "lab", api.url)
        yield api


@pytest.fixture
def client(api):
    return client_of(api.credential)


def client_of(credential):
    return ovh.Client("lab", **credential.client_arguments())


def shown(client):
    server = client.get(PATH)
    return server["netbootMode"], server["state"]


def set_mode(client, vps, mode):
    """Set it and wait for the end of its task, which is given back."""
    jobs = len(vps.jobs)
    client.put(PATH, netbootMode=mode)
    [task] = vps.jobs[jobs:]
    until(lambda: client.get(f"{PATH}/tasks/{task.id}")["state"] == "done")
    return task


def reboot(client):
    task = client.post(f"{PATH}/reboot")
    until(lambda: client.get(f"{PATH}/tasks/{task['id']}")["state"] == "done")
    return task


# Reading


def test_the_list_and_a_vps(api):
    client = client_of(api.add_credential([("GET", "/*")]))
    api.add(Vps("vps-2.vps.ovh.net"))
    api.add(Server("ns100001.ip-192-0-2.eu"))
    assert client.get("/vps") == [NAME, "vps-2.vps.ovh.net"]
    assert client.get("/dedicated/server") == ["ns100001.ip-192-0-2.eu"]
    server = client.get(PATH)
    assert set(server) == {"cluster", "displayName", "iam", "keymap", "memoryLimit", "model", "monitoringIpBlocks", "name",
                           "netbootMode", "offerType", "slaMonitoring", "state", "vcore", "zone", "zoneType"}
    assert set(server["model"]) == {"availableOptions", "datacenter", "disk", "maximumAdditionnalIp", "memory", "name", "offer",
                                    "vcore", "version"}
    assert (server["displayName"], server["netbootMode"], server["state"], server["keymap"]) == (NAME, "local", "running", None)
    assert server["iam"]["urn"] == f"urn:v1:eu:resource:vps:{NAME}"
    assert client.get(f"/v1{PATH}") == server
    for wrong in ("/vps/vps-9.example", "/vps/" + quote("a b", safe=""), "/vps/ns100001.ip-192-0-2.eu"):
        with pytest.raises(ovh.exceptions.ResourceNotFoundError, match="This service does not exist"):
            client.get(wrong)


def test_there_is_no_secret_of_a_vps(api):
    client = client_of(api.add_credential([("POST", "/*")]))
    with pytest.raises(ovh.exceptions.ResourceNotFoundError, match="invalid"):
        client.post(f"{PATH}/authenticationSecret")


def test_addresses(client, vps):
    assert client.get(f"{PATH}/ips") == ["192.0.2.20", "2001:db8::20"]
    vps.additional_ips = ["192.0.2.99"]
    assert client.get(f"{PATH}/ips") == ["192.0.2.99", "192.0.2.20", "2001:db8::20"]
    kinds = {ip: client.get(f"{PATH}/ips/{quote(ip, safe='')}") for ip in client.get(f"{PATH}/ips")}
    assert {ip: (kind["type"], kind["version"]) for ip, kind in kinds.items()} == {
        "192.0.2.99": ("additional", "v4"), "192.0.2.20": ("primary", "v4"), "2001:db8::20": ("primary", "v6")}
    assert set(kinds["192.0.2.20"]) == {"gateway", "geolocation", "ipAddress", "macAddress", "reverse", "type", "version"}
    with pytest.raises(ovh.exceptions.ResourceNotFoundError):
        client.get(f"{PATH}/ips/192.0.2.1")
    vps.ip6 = None
    assert client.get(f"{PATH}/ips") == ["192.0.2.99", "192.0.2.20"]


def test_service_data(client, vps):
    [number] = client.get(f"{PATH}/disks")
    assert {"id": number, "type": "primary", "state": "connected"}.items() <= client.get(f"{PATH}/disks/{number}").items()
    with pytest.raises(ovh.exceptions.ResourceNotFoundError):
        client.get(f"{PATH}/disks/5")
    status = client.get(f"{PATH}/status")
    assert (status["ping"], status["ssh"], status["tools"]) == ("up", {"port": 22, "state": "up"}, None)
    url = client.post(f"{PATH}/getConsoleUrl")
    assert isinstance(url, str) and url.startswith("https://")
    assert client.get(f"{PATH}/serviceInfos")["status"] == "ok"
    vps.service_status = "expired"
    with pytest.raises(ovh.exceptions.ResourceExpiredError):
        client.get(PATH)
    assert client.get(f"{PATH}/serviceInfos")["status"] == "expired"


def test_each_call_needs_its_rule(api, vps):
    client = client_of(api.add_credential([("GET", "/vps/*")]))
    client.get(f"{PATH}/tasks")
    for refused in (lambda: client.put(PATH, netbootMode="rescue"), lambda: client.post(f"{PATH}/reboot"),
                    lambda: client.post(f"{PATH}/getConsoleUrl"), lambda: client.get("/vps"), lambda: client.get(HISTORY)):
        with pytest.raises(ovh.exceptions.NotGrantedCall):
            refused()
    assert vps.jobs == []


def test_the_minimum_of_rules_is_enough(api, vps):
    client = client_of(api.add_credential(MINIMUM_RULES))
    set_mode(client, vps, "rescue")
    assert client.get(f"{PATH}/ips") and client.get(HISTORY) is not None
    reboot(client)


# Writing


def test_a_put_is_void_and_changes_what_it_names(client, vps):
    assert client.put(PATH, displayName="web1", keymap="fr", slaMonitoring=True) is None
    server = client.get(PATH)
    assert (server["displayName"], server["keymap"], server["slaMonitoring"]) == ("web1", "fr", True)
    assert vps.jobs == [] and vps.power.resets == 0
    assert client.put(PATH) is None
    assert client.get(PATH) == server


def test_a_put_with_one_wrong_field_changes_nothing(client, vps):
    before = client.get(PATH)
    for fields, text in (({"state": "running"}, "read-only"), ({"rescueSshKey": "ssh-ed25519 AAAA"}, "unknown"),
                         ({"netbootMode": "disk"}, "VpsNetbootEnum"), ({"netbootMode": None}, "Invalid signature"),
                         ({"keymap": "de"}, "VpsKeymapEnum"), ({"slaMonitoring": "yes"}, "Invalid signature")):
        with pytest.raises(ovh.exceptions.BadParametersError, match=text):
            client.put(PATH, displayName="web1", **fields)
    assert client.get(PATH) == before
    assert vps.jobs == []


def test_setting_what_boots_reboots_and_is_shown_when_that_is_done(client, vps):
    vps.task_seconds = {"todo": 0.01, "doing": 0.15}
    client.put(PATH, netbootMode="rescue")
    [number] = client.get(f"{PATH}/tasks")
    seen, modes = [], set()
    while not seen or seen[-1]["state"] != "done":
        modes.add((*shown(client), vps.jobs[0].state == "done"))
        seen.append(client.get(f"{PATH}/tasks/{number}"))
    assert set(seen[0]) == {"date", "id", "progress", "state", "type"}
    assert {task["type"] for task in seen} == {"setNetboot"}
    progress = [task["progress"] for task in seen if task["state"] == "doing"]
    assert progress == sorted(progress) and {35, 70} <= set(progress) and seen[-1]["progress"] == 100
    assert ("local", "rebooting", False) in modes
    assert not {mode for mode in modes if mode[0] == "rescue" and not mode[2]}
    assert shown(client) == ("rescue", "rescued")
    assert [state for state, at in vps.jobs[0].history] == ["todo", "doing", "done"]
    assert all(later - earlier >= 0.009 for earlier, later in pairwise([at for state, at in vps.jobs[0].history]))
    assert [(boot.kind, boot.kernel, boot.boot_id, boot.ssh_key) for boot in vps.power.boots] == [("rescue", "rescue", None, None)]
    assert vps.power.boots[0].password and vps.power.boots[0].password not in repr(vps)
    set_mode(client, vps, "local")
    assert shown(client) == ("local", "running")
    assert (vps.power.boots[1].kind, vps.power.boots[1].password) == ("installed", None)
    assert vps.power.resets == 2


@pytest.mark.parametrize("reset_at", ["todo", "doing", "done"])
def test_the_machine_is_reset_on_the_state_that_was_chosen_and_boots_the_new_mode(client, vps, reset_at):
    vps.reset_at = reset_at
    seen = []

    def boots():
        seen.append((vps.jobs[0].state, vps.netbootMode, vps.next_boot().kind))

    vps.power.reset = boots
    set_mode(client, vps, "rescue")
    until(lambda: seen)
    assert seen == [(reset_at, "rescue" if reset_at == "done" else "local", "rescue")]
    assert vps.armed() == "rescue"


def test_the_same_mode_is_no_task_and_no_reboot(client, vps):
    client.put(PATH, netbootMode="local")
    set_mode(client, vps, "rescue")
    client.put(PATH, netbootMode="rescue", displayName="web1")
    assert (len(vps.jobs), vps.power.resets) == (1, 1)
    assert client.get(PATH)["displayName"] == "web1"


@pytest.mark.parametrize("offer", ["cloud", "ssd"])
@pytest.mark.parametrize("version", ["2014v1", "2019v1"])
def test_only_an_old_model_does_not_reboot_by_itself(client, vps, offer, version):
    vps.offerType, vps.model["version"] = offer, version
    client.put(PATH, netbootMode="rescue")
    if (offer, version) == ("cloud", "2014v1"):
        assert shown(client) == ("rescue", "running")
        [task] = client.get(f"{PATH}/tasks")
        assert client.get(f"{PATH}/tasks/{task}")["state"] == "done"
        assert vps.power.resets == 0
        reboot(client)
    until(lambda: vps.jobs[-1].state == "done")
    assert shown(client) == ("rescue", "rescued")
    assert [boot.kind for boot in vps.power.boots] == ["rescue"]


def test_a_plain_reboot_keeps_the_mode(client, vps):
    task = reboot(client)
    assert (task["type"], task["state"]) == ("rebootVm", "todo")
    set_mode(client, vps, "rescue")
    reboot(client)
    assert shown(client) == ("rescue", "rescued")
    assert [boot.kind for boot in vps.power.boots] == ["installed", "rescue", "rescue"]


def test_a_guests_own_reboot_comes_up_in_the_mode_that_is_set(api, client, vps):
    assert vps.next_boot().kind == "installed"
    set_mode(client, vps, "rescue")
    until(lambda: len(api.mails) == 1)
    again = vps.next_boot()
    assert (again.kind, again.password) == ("rescue", vps.power.boots[0].password)
    set_mode(client, vps, "local")
    assert vps.next_boot().kind == "installed"
    assert len(api.mails) == 1


def test_stopping_and_starting(client, vps):
    with pytest.raises(ovh.exceptions.BadParametersError, match="running already"):
        client.post(f"{PATH}/start")
    assert client.post(f"{PATH}/stop")["type"] == "stopVm"
    assert shown(client) == ("local", "stopping")
    until(lambda: shown(client) == ("local", "stopped"))
    assert (vps.power.offs, vps.power.resets) == (1, 0)
    assert client.get(f"{PATH}/status")["ping"] == "down"
    with pytest.raises(ovh.exceptions.BadParametersError, match="stopped already"):
        client.post(f"{PATH}/stop")
    assert client.post(f"{PATH}/start")["type"] == "startVm"
    until(lambda: shown(client) == ("local", "running"))
    assert [boot.kind for boot in vps.power.boots] == ["installed"]


def test_a_second_wish_is_refused_or_one_more_task(client, vps):
    vps.task_seconds["todo"] = math.inf
    client.put(PATH, netbootMode="rescue")
    for second in (lambda: client.put(PATH, netbootMode="rescue"), lambda: client.put(PATH, netbootMode="local"),
                   lambda: client.post(f"{PATH}/reboot"), lambda: client.post(f"{PATH}/stop")):
        with pytest.raises(ovh.exceptions.ResourceConflictError):
            second()
    client.put(PATH, displayName="web1")
    vps.second_task = "bad_request"
    with pytest.raises(ovh.exceptions.BadParametersError, match="Another task is running"):
        client.post(f"{PATH}/reboot")
    assert len(vps.jobs) == 1
    vps.second_task = "task"
    client.post(f"{PATH}/reboot")
    client.put(PATH, netbootMode="rescue")
    assert [task.type for task in vps.jobs] == ["setNetboot", "rebootVm", "setNetboot"]


def test_tasks_are_listed_by_state_and_type(client, vps):
    vps.task_seconds["todo"] = math.inf
    first = client.post(f"{PATH}/reboot")["id"]
    until(lambda: client.get(f"{PATH}/tasks", state="todo") == [first])
    assert client.get(f"{PATH}/tasks", type="rebootVm", state="todo") == [first]
    assert client.get(f"{PATH}/tasks", type="setNetboot") == client.get(f"{PATH}/tasks", state="done") == []
    for query, text in (({"state": "running"}, "TaskStateEnum"), ({"type": "rescueVm"}, "TaskTypeEnum")):
        with pytest.raises(ovh.exceptions.BadParametersError, match=text):
            client.get(f"{PATH}/tasks", **query)
    with pytest.raises(ovh.exceptions.ResourceNotFoundError, match="id = 5"):
        client.get(f"{PATH}/tasks/5")


def test_a_vps_without_a_machine_boots_at_once(api, client):
    other = api.add(Vps("vps-2.vps.ovh.net", task_seconds={"todo": 0, "doing": 0}))
    client.put(f"/vps/{other.name}", netbootMode="rescue")
    until(lambda: [boot.kind for boot in other.booted] == ["rescue"])


def test_a_vps_of_no_account():
    with pytest.raises(RuntimeError, match="belongs to no API"):
        Vps(NAME).next_boot()


# Mails


def mailed(api, number):
    return until(lambda: len(api.mails) >= number and api.mails[number - 1])


def test_the_password_comes_by_mail_only(api, client, vps):
    set_mode(client, vps, "rescue")
    mailed(api, 1)
    [number] = client.get(HISTORY)
    mail = client.get(f"{HISTORY}/{number}")
    assert mail["subject"].startswith(f"[xx00000-ovh] [{NAME}] ")
    assert "&#x27;s rescue system is up &amp; running.<br>\n" in mail["body"]
    body = html.unescape(mail["body"])
    assert " - IP address: 192.0.2.20<br>" in body and " - user: root<br>" in body
    link = re.search(r" - password: https://www\.ovh\.com/manager/secret/#\?id=([0-9a-f-]{36})", body)
    password = vps.power.boots[0].password
    assert password not in body
    assert client.post("/secret/retrieve", _need_auth=False, id=link[1])["secret"] == password
    assert {password, link[1]} <= api.sensitive()
    set_mode(client, vps, "local")
    set_mode(client, vps, "rescue")
    mailed(api, 2)
    assert vps.power.boots[2].password != password


@pytest.mark.parametrize(("language", "label", "subject"), [
    ("en", "password", "rescue mode"), ("fr", "mot de passe ", "mode rescue"), ("de", "Passwort", "Rescue-Modus")])
@pytest.mark.parametrize("plain", [True, False])
def test_languages(api, client, vps, language, label, subject, plain):
    vps.mail = MailOptions(language=language, plain_password=plain)
    set_mode(client, vps, "rescue")
    mail = mailed(api, 1)
    assert subject in mail.subject
    assert re.search(f" - {label}: (.*)", html.unescape(mail.body))[1].startswith(vps.booted[0].password if plain else "https://")


def test_other_mails_come_between(api, client, vps):
    vps.mail = MailOptions(unrelated=3, plain_password=True)
    set_mode(client, vps, "rescue")
    mailed(api, 4)
    of_others = [NAME not in mail.subject for mail in api.mails]
    assert of_others == [True, False, True, False]
    assert "password: not-yours" in api.mails[0].body and "password" not in api.mails[1].body


def test_a_mail_can_come_after_the_end_of_the_task_or_never(api, client, vps):
    vps.mail.delay = 0.2
    set_mode(client, vps, "rescue")
    assert client.get(HISTORY) == []
    mailed(api, 1)
    vps.mail.delay = math.inf
    reboot(client)
    assert len(client.get(HISTORY)) == 1


# Faults


@pytest.mark.parametrize("kind", ["403", "404", "409", "429", "460", "500", "503-html", "reset"])
@pytest.mark.parametrize("acts", [False, True])
def test_a_fault_spoils_one_call_whether_it_was_carried_out_or_not(api, client, vps, kind, acts):
    client.get(PATH)
    api.faults.add("PUT", f"^{PATH}$", kind, acts=acts)
    with pytest.raises(ovh.exceptions.APIError):
        client.put(PATH, netbootMode="rescue")
    assert len(vps.jobs) == acts
    assert client.get(f"{PATH}/tasks", type="setNetboot") == [task.id for task in vps.jobs]


@pytest.mark.parametrize("ends", ["error", "blocked", "cancelled"])
@pytest.mark.parametrize("resets", [None, True])
def test_a_task_can_end_badly(api, client, vps, ends, resets):
    api.faults.add("PUT", PATH, "task_ends", status=ends, resets=resets)
    client.put(PATH, netbootMode="rescue")
    until(lambda: vps.jobs[0].state == ends)
    assert client.get(f"{PATH}/tasks", state=ends) == [vps.jobs[0].id]
    assert shown(client) == ("local", "rescued" if resets else "running")
    assert [boot.kind for boot in vps.power.boots] == (["rescue"] if resets else [])
    assert vps.next_boot().kind == "installed"
    set_mode(client, vps, "rescue")


def test_a_bad_end_is_an_error_where_nothing_else_is_said(api, client, vps):
    api.faults.add("POST", "/reboot$", "task_ends")
    client.post(f"{PATH}/reboot")
    until(lambda: vps.jobs[0].state == "error")


@pytest.mark.parametrize(("status", "resets"), [("todo", 0), ("", 1)])
def test_a_task_can_hang(api, client, vps, status, resets):
    api.faults.add("PUT", PATH, "task_hangs", status=status)
    client.put(PATH, netbootMode="rescue")
    until(lambda: vps.jobs[0].state == (status or "doing"))
    vps.second_task = "task"
    reboot(client)  # which comes after whatever the first task had still to do
    assert vps.jobs[0].state == (status or "doing")
    assert vps.netbootMode == "local"
    assert vps.power.resets == resets + 1


def test_a_task_can_be_purged_once_it_is_done(api, client, vps):
    api.faults.add("PUT", PATH, "task_purged")
    client.put(PATH, netbootMode="rescue")
    number = vps.jobs[0].id
    until(lambda: vps.jobs[0].state == "done")
    with pytest.raises(ovh.exceptions.ResourceNotFoundError, match=f"id = {number}"):
        client.get(f"{PATH}/tasks/{number}")
    assert client.get(f"{PATH}/tasks") == []
    assert shown(client) == ("rescue", "rescued")


def test_a_machine_that_cannot_be_reset_fails_the_task_and_nothing_else(client, vps, capsys):
    def broken():
        raise OSError("no such machine")

    vps.power.reset = broken
    client.put(PATH, netbootMode="rescue")
    until(lambda: vps.jobs[0].state == "error")
    assert client.get(PATH)["netbootMode"] == "local"
    assert "no such machine" in capsys.readouterr().err


def test_the_log_tells_every_call_and_no_secret(vps, monkeypatch, tmp_path):
    path = tmp_path / "calls.jsonl"
    with OvhApi([vps], log_file=path) as api:
        monkeypatch.setitem(ovh.client.ENDPOINTS, "lab", api.url)
        set_mode(client_of(api.credential), vps, "rescue")
        mailed(api, 1)
        calls = [json.loads(line) for line in path.read_text().splitlines()]
        assert (calls[1]["method"], calls[1]["path"], calls[1]["body"]) == ("PUT", f"/1.0{PATH}", {"netbootMode": "rescue"})
        assert [call.method for call in api.writes()] == ["PUT"]
        assert api.sensitive() and not any(secret in path.read_text() for secret in api.sensitive())
