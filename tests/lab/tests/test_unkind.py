# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How unkind the APIs of the lab can be, seen by the vendors' own clients.

That they are kind by themselves is seen by test_*_api.py and test_nova.py.
"""

from __future__ import annotations

import time

import openstack
import ovh
import pytest
import SoftLayer

from lifeboat_lab.ovh_api import MINIMUM_RULES, OvhApi, Vps
from lifeboat_lab.ovh_api import Server as Dedicated
from lifeboat_lab.softlayer_api import Server as Classic
from lifeboat_lab.softlayer_api import SoftLayerApi
from lifeboat_lab.unkind import Past, Unkind, counted_by
from lifeboat_lab.waiting import until

pytest_plugins = "lifeboat_lab.nova.fixtures"

# Long enough to look twice on a busy machine.
LAG = 2.0
MASK = "mask[id,activeTransaction[id,transactionStatus[name]],lastTransaction[id],primaryIpAddress,notes,brandNew]"


class Power:
    """A power button that counts, and a machine that asks at once what to boot."""

    def __init__(self, server):
        self.server = server
        self.resets = []

    def reset(self):
        self.resets.append(time.monotonic())
        self.server.next_boot()


class OvhDedicated:
    """A dedicated server, and what there is to it in words that hold for a VPS, too."""

    made = staticmethod(lambda: Dedicated("ns1.example", task_seconds={"init": 0.01, "todo": 0.02, "doing": 0.02}))
    path, tasks, state, id, not_begun = "/dedicated/server/ns1.example", "task", "status", "taskId", "todo"

    def __init__(self, client, server):
        self.client, self.server = client, server
        self.rescue = server.boot("rescue12-customer").bootId

    def show(self):
        return self.client.get(self.path)

    def boots(self):
        return {"1": "disk", str(self.rescue): "rescue"}[str(self.show()["bootId"])]

    def set(self):
        self.client.put(self.path, bootId=self.rescue)

    def reboot(self):
        return self.client.post(f"{self.path}/reboot")

    def task_ids(self, **query):
        return self.client.get(f"{self.path}/{self.tasks}", **query)

    def task(self, number):
        return self.client.get(f"{self.path}/{self.tasks}/{number}")

    def jobs(self):
        return self.server.reboots


class OvhVps(OvhDedicated):
    """Of which setting what boots is a task, too."""

    made = staticmethod(lambda: Vps("vps-1.example", task_seconds={"todo": 0.02, "doing": 0.02}))
    path, tasks, state, id = "/vps/vps-1.example", "tasks", "state", "id"

    def __init__(self, client, server):
        self.client, self.server = client, server

    def boots(self):
        return {"local": "disk", "rescue": "rescue"}[self.show()["netbootMode"]]

    def set(self):
        self.client.put(self.path, netbootMode="rescue")

    def jobs(self):
        return self.server.jobs


@pytest.fixture(params=[OvhDedicated, OvhVps])
def at_ovh(request, monkeypatch):
    server = request.param.made()
    server.power = Power(server)
    with OvhApi([server], rules=MINIMUM_RULES) as api:
        monkeypatch.setitem(ovh.client.ENDPOINTS, "lab", api.url)
        yield request.param(ovh.Client("lab", **api.credential.client_arguments()), server)


def test_what_is_written_is_read_as_it_was():
    now = [100.0]
    with counted_by(lambda: now[0]):
        past = Past()
        past.note({"bootId": 1})
        now[0] = 101.0
        past.note({"bootId": 2, "state": "ok"})
        current = {"bootId": 3, "state": "error", "name": "x"}
        for lag, boot_id in ((0.0, 3), (0.5, 2), (1.5, 1)):
            assert past.seen(current, lag) == {"bootId": boot_id, "state": "ok" if lag else "error", "name": "x"}
        now[0] = 103.0
        assert past.seen(current, 1.5) == current


# OVH


def test_ovh_a_task_waits_and_a_list_lags(at_ovh):
    at_ovh.server.unkind = Unkind(queue_seconds=5.0, list_lag=LAG)
    began = time.monotonic()
    number = at_ovh.reboot()[at_ovh.id]
    assert at_ovh.task_ids() == []
    with pytest.raises(ovh.exceptions.ResourceNotFoundError):
        at_ovh.task(number)
    until(at_ovh.task_ids)
    assert time.monotonic() - began >= LAG and at_ovh.task_ids() == [number]
    until(lambda: at_ovh.task(number)[at_ovh.state] == at_ovh.not_begun)
    until(lambda: at_ovh.task(number)[at_ovh.state] == "done")
    [reset] = at_ovh.server.power.resets
    assert reset - began >= 5.0


def test_ovh_a_setting_lags(at_ovh):
    at_ovh.server.unkind = Unkind(setting_lag=LAG)
    at_ovh.set()
    until(lambda: at_ovh.server.armed() in ("rescue", at_ovh.server.boots[2] if at_ovh.tasks == "task" else ""))
    assert at_ovh.boots() == "disk"
    until(lambda: at_ovh.boots() == "rescue", seconds=20)


def test_ovh_a_boot_follows_what_was_set_before(at_ovh):
    if at_ovh.tasks == "tasks":
        # Setting it and booting are one there.
        return
    at_ovh.server.unkind = Unkind(boot_lag=LAG)
    at_ovh.set()
    assert at_ovh.boots() == "rescue"
    assert at_ovh.server.next_boot().kind == "installed"
    until(lambda: at_ovh.server.next_boot().kind == "rescue", seconds=20)


def test_ovh_a_setting_is_never_applied(at_ovh):
    at_ovh.server.unkind = Unkind(ignored_writes=1)
    at_ovh.set()
    time.sleep(0.2)
    assert at_ovh.boots() == "disk" and not at_ovh.server.power.resets
    at_ovh.set()
    until(lambda: at_ovh.boots() == "rescue", seconds=20)


def test_ovh_an_answer_is_lost(at_ovh):
    at_ovh.server.unkind = Unkind(lost_answers=1, answer_seconds=0.1)
    began = time.monotonic()
    with pytest.raises(ovh.exceptions.HTTPError):
        at_ovh.reboot()
    assert time.monotonic() - began >= 0.1 and len(at_ovh.jobs()) == 1
    until(lambda: at_ovh.server.power.resets)
    at_ovh.set()


def test_ovh_a_conflict(at_ovh):
    at_ovh.server.unkind = Unkind(conflict=True, queue_seconds=LAG, unknown_state="planned")
    at_ovh.reboot()
    for ask in (at_ovh.reboot, at_ovh.set):
        with pytest.raises(ovh.exceptions.ResourceConflictError):
            ask()
    # At first it has no state at all.
    until(lambda: [state for state, *_more in at_ovh.jobs()[0].history][-1:] == ["planned"], seconds=20)
    with pytest.raises(ovh.exceptions.ResourceConflictError):
        at_ovh.reboot()
    until(lambda: at_ovh.jobs()[0].history[-1][0] == "done", seconds=20)
    at_ovh.set()


def test_ovh_null_is_refused(at_ovh):
    if at_ovh.tasks == "tasks":
        # Nothing there that is written may be null.
        return
    at_ovh.client.put(at_ovh.path, bootId=None)
    at_ovh.server.unkind = Unkind(no_null=True)
    with pytest.raises(ovh.exceptions.BadParametersError):
        at_ovh.client.put(at_ovh.path, bootId=None)
    at_ovh.client.put(at_ovh.path, bootId=1)


def test_ovh_ids_order_states_and_fields(at_ovh):
    at_ovh.server.unkind = Unkind(text_ids=True, unordered=True, unknown_state="planned", null_fields=["displayName", "noIntervention",
                                  "comment", "progress"], missing_fields=["keymap", "rescueSshKey"], new_fields={"brandNew": [1]})
    task = at_ovh.reboot()
    assert isinstance(task[at_ovh.id], str) and task["brandNew"] == [1]
    states = set()
    until(lambda: states.add(at_ovh.task(task[at_ovh.id])[at_ovh.state]) or "done" in states, seconds=20)
    assert "planned" in states
    at_ovh.reboot()
    ids = at_ovh.task_ids()
    assert all(isinstance(number, str) for number in ids) and ids == sorted(ids, reverse=True)
    shown = at_ovh.show()
    assert shown["brandNew"] == [1] and not {"keymap", "rescueSshKey"} & set(shown)
    assert shown["displayName" if at_ovh.tasks == "tasks" else "noIntervention"] is None
    if at_ovh.tasks == "task":
        assert shown["bootId"] == "1"
        # What is shown as text can be written as a number all the same.
        at_ovh.client.put(at_ovh.path, bootId=at_ovh.rescue)


def test_ovh_done_before_the_reboot(at_ovh):
    at_ovh.server.unkind = Unkind(early_seconds=LAG)
    number = at_ovh.reboot()[at_ovh.id]
    until(lambda: at_ovh.task(number)[at_ovh.state] == "done")
    assert not at_ovh.server.power.resets
    until(lambda: at_ovh.server.power.resets, seconds=20)


# SoftLayer


@pytest.fixture(params=["vs-xmlrpc", "vs-rest", "hw-xmlrpc", "hw-rest"])
def at_softlayer(request):
    kind, transport = request.param.split("-")
    server = Classic(1001, kind, rescue_seconds={"RESCUE_SETUP": 0.02, "RESCUE_BOOT": 0.05}, refusal_seconds=0.0)
    server.power = Power(server)
    with SoftLayerApi([server]) as api:
        client = SoftLayer.create_client_from_env(**api.credential.client_arguments(),
                                                  endpoint_url=api.rest_url if transport == "rest" else api.url)
        service = client["Virtual_Guest" if kind == "vs" else "Hardware_Server"]
        server.ask = lambda method, **more: service.call(method, id=1001, **more)
        server.rescue_method = "executeRescueLayer" if kind == "vs" else "bootToRescueLayer"
        yield server


def shown(server):
    return server.ask("getObject", mask=MASK)


def test_softlayer_a_transaction_waits_and_is_shown_late(at_softlayer):
    at_softlayer.unkind = Unkind(queue_seconds=5.0, list_lag=LAG)
    began = time.monotonic()
    assert at_softlayer.ask(at_softlayer.rescue_method) is True
    assert not shown(at_softlayer).get("activeTransaction")
    # It holds off others before it is seen.
    with pytest.raises(SoftLayer.SoftLayerAPIError, match="outstanding"):
        at_softlayer.ask("rebootDefault")
    until(lambda: shown(at_softlayer).get("activeTransaction"))
    assert time.monotonic() - began >= LAG
    until(lambda: at_softlayer.power.resets)
    assert at_softlayer.power.resets[0] - began >= 5.0 and at_softlayer.booted[-1].kind == "rescue"


def test_softlayer_a_reboot_waits_unseen(at_softlayer):
    at_softlayer.unkind = Unkind(queue_seconds=0.5, list_lag=LAG)
    began = time.monotonic()
    at_softlayer.ask("rebootDefault")
    if at_softlayer.kind == "hw":
        assert not at_softlayer.ask("getRecentRemoteManagementCommands")
        until(lambda: at_softlayer.ask("getRecentRemoteManagementCommands"))
        assert time.monotonic() - began >= LAG
    assert not shown(at_softlayer).get("activeTransaction")
    until(lambda: at_softlayer.power.resets)
    assert at_softlayer.power.resets[0] - began >= 0.5


def test_softlayer_an_answer_is_lost(at_softlayer):
    at_softlayer.unkind = Unkind(lost_answers=1, answer_seconds=0.1)
    with pytest.raises(SoftLayer.SoftLayerAPIError):
        at_softlayer.ask(at_softlayer.rescue_method)
    assert at_softlayer.rescues == 1 and shown(at_softlayer)["id"] == 1001


def test_softlayer_ids_fields_and_states(at_softlayer):
    at_softlayer.unkind = Unkind(text_ids=True, unknown_state="SOMETHING_NEW", null_fields=["primaryIpAddress"],
                                 missing_fields=["notes", "transactionGroup"], new_fields={"brandNew": "x"})
    at_softlayer.ask(at_softlayer.rescue_method)
    found = shown(at_softlayer)
    assert found["id"] == "1001" and isinstance(found["activeTransaction"]["id"], str)
    assert found["activeTransaction"]["transactionStatus"]["name"] == "SOMETHING_NEW"
    assert found["brandNew"] == "x" and not {"notes", "primaryIpAddress"} & set(found)
    until(lambda: at_softlayer.power.resets, seconds=20)


def test_softlayer_done_before_the_reboot(at_softlayer):
    at_softlayer.unkind = Unkind(early_seconds=LAG)
    at_softlayer.ask(at_softlayer.rescue_method)
    until(lambda: not shown(at_softlayer).get("activeTransaction"))
    assert not at_softlayer.power.resets
    until(lambda: at_softlayer.power.resets, seconds=20)


def test_softlayer_lists_have_no_order():
    servers = [Classic(1000 + number, "vs", f"web{number}", unkind=Unkind(unordered=True)) for number in range(3)]
    with SoftLayerApi(servers) as api:
        client = SoftLayer.create_client_from_env(**api.credential.client_arguments(), endpoint_url=api.url)
        ids = [server["id"] for server in client["Account"].getVirtualGuests(mask="mask[id]")]
    assert sorted(ids) == [1000, 1001, 1002] != ids


# Nova


@pytest.fixture
def compute(connect):
    return connect("member").compute


def test_nova_a_rescue_waits_and_is_shown_late(nova, make_server, compute, nova_power):
    server = make_server()
    nova.be_unkind(server, Unkind(queue_seconds=10.0, setting_lag=4.0, list_lag=5.0, unknown_state="pondering"))

    def show():
        return compute.get(f"/servers/{server}").json()["server"]

    def actions():
        found = compute.get(f"/servers/{server}/os-instance-actions").json()["instanceActions"]
        return [action["action"] for action in found]

    began = time.monotonic()
    compute.rescue_server(server, "known", nova.rescue_image)
    assert show()["OS-EXT-STS:task_state"] is None and "rescue" not in actions()
    # The lab sees through it.
    assert nova.show(server)["OS-EXT-STS:task_state"] == "rescuing" and "rescue" in nova.actions(server)
    until(lambda: show()["OS-EXT-STS:task_state"] == "pondering")
    until(lambda: "rescue" in actions())
    assert nova_power.names(server)[-1] != "rescue"
    nova.wait_for(server, "RESCUE")
    assert time.monotonic() - began >= 10.0 and nova_power.names(server)[-1] == "rescue"
    nova.be_unkind(server, Unkind())
    assert show()["status"] == "RESCUE"


def test_nova_an_answer_is_lost_and_fields_are_other_ones(nova, make_server, compute):
    server = make_server()
    nova.be_unkind(server, Unkind(lost_answers=1, answer_seconds=0.2, unordered=True, null_fields=["metadata"],
                                  missing_fields=["OS-EXT-STS:power_state"], new_fields={"brandNew": 1}))
    began = time.monotonic()
    with pytest.raises(openstack.exceptions.HttpException):
        compute.rescue_server(server, "known", nova.rescue_image)
    assert time.monotonic() - began >= 0.2
    nova.wait_for(server, "RESCUE")
    for found in (compute.get(f"/servers/{server}").json()["server"], *compute.get("/servers/detail").json()["servers"]):
        assert found["metadata"] is None and found["brandNew"] == 1 and "OS-EXT-STS:power_state" not in found
    actions = compute.get(f"/servers/{server}/os-instance-actions").json()["instanceActions"]
    assert [action["action"] for action in actions] == ["create", "rescue"]  # Nova has the newest first


def test_nova_done_before_the_reboot(nova, make_server, compute, nova_power):
    server = make_server()
    nova.be_unkind(server, Unkind(early_seconds=LAG))
    compute.rescue_server(server, "known", nova.rescue_image)
    nova.wait_for(server, "RESCUE")
    assert "rescue" not in nova_power.names(server)
    until(lambda: "rescue" in nova_power.names(server), seconds=20)
