# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How rescue behaves at Nova, by openstacksdk: what the provider leans on."""

from __future__ import annotations

import subprocess
import threading
import uuid

import openstack
import pytest

from lifeboat_lab.images import LabError
from lifeboat_lab.nova import Nova, ensure_nova_venv
from lifeboat_lab.waiting import until

pytest_plugins = "lifeboat_lab.nova.fixtures"

STABLE = {"hw_rescue_device": "disk", "hw_rescue_bus": "virtio"}
Conflict = openstack.exceptions.ConflictException
BadRequest = openstack.exceptions.BadRequestException


@pytest.fixture
def compute(connect):
    return connect("member").compute


@pytest.fixture
def admin(connect):
    return connect("admin").compute


def state(nova, server):
    shown = nova.show(server)
    return shown["status"], shown["OS-EXT-STS:vm_state"], shown["OS-EXT-STS:task_state"]


def act(compute, server, body, microversion="2.87"):
    return compute.post(f"/servers/{server}/action", json=body, microversion=microversion)


@pytest.fixture
def held(nova_power):
    """A rescue stops halfway until the test lets it go on."""
    go, event_names = threading.Event(), ("rescue", "unrescue", "reboot")
    nova_power.then = lambda event: event["event"] not in event_names or go.wait(20)
    yield go
    go.set()


@pytest.fixture
def rescued(nova, make_server, compute):
    server = make_server()
    compute.rescue_server(server, "known", nova.rescue_image)
    return nova.wait_for(server, "RESCUE")


def test_a_rescue_and_its_end_go_through_these_states(nova, make_server, compute, held, nova_power):
    server = make_server()
    assert act(compute, server, {"rescue": {"rescue_image_ref": nova.rescue_image, "adminPass": "mine"}}).json() == {"adminPass": "mine"}
    assert state(nova, server) == ("ACTIVE", "active", "rescuing")
    held.set()
    nova.wait_for(server, "RESCUE")
    assert state(nova, server) == ("RESCUE", "rescued", None)
    assert nova.show(server)["OS-EXT-STS:power_state"] == 1
    assert nova_power.names(server) == ["power_off", "rescue"]
    assert {**nova_power.events[-1]} == {"event": "rescue", "server": server, "name": "web1", "image": nova.rescue_image,
                                         "password": "mine"}
    held.clear()
    compute.unrescue_server(server)
    assert state(nova, server) == ("RESCUE", "rescued", "unrescuing")
    held.set()
    nova.wait_for(server, "ACTIVE")
    assert state(nova, server) == ("ACTIVE", "active", None)
    assert nova_power.names(server)[-1] == "unrescue"


def test_without_image_and_password_nova_makes_a_password_and_takes_the_base_image(nova, make_server, compute, nova_power):
    server = make_server()
    assert len(act(compute, server, {"rescue": None}).json()["adminPass"]) == 12
    nova.wait_for(server, "RESCUE")
    assert nova_power.events[-1]["image"] == nova.base_image


@pytest.mark.parametrize("image", ["same", "other"])
def test_a_rescued_server_is_not_rescued_again(nova, rescued, compute, image):
    with pytest.raises(Conflict, match="while it is in vm_state rescued"):
        compute.rescue_server(rescued, "new", nova.rescue_image if image == "same" else nova.base_image)


def test_an_active_server_has_no_rescue_to_end(make_server, compute):
    with pytest.raises(Conflict, match="vm_state active"):
        compute.unrescue_server(make_server())


def test_nothing_goes_between_while_it_is_rescued(nova, make_server, compute, held):
    server = make_server()
    compute.rescue_server(server, None, nova.rescue_image)
    with pytest.raises(Conflict, match="vm_state active"):
        compute.unrescue_server(server)
    with pytest.raises(Conflict, match="task_state rescuing"):
        compute.reboot_server(server, "HARD")
    held.set()
    nova.wait_for(server, "RESCUE")


@pytest.mark.parametrize("whose", ["nobody", "other"])
def test_an_image_that_cannot_be_seen_changes_nothing(nova, make_server, compute, whose):
    server = make_server()
    image = str(uuid.uuid4()) if whose == "nobody" else nova.put_image("theirs", visibility="private", owner="elsewhere")
    with pytest.raises(BadRequest, match=f"Requested rescue image '{image}' is not supported"):
        compute.rescue_server(server, None, image)
    assert state(nova, server) == ("ACTIVE", "active", None)


@pytest.mark.parametrize("body", [{"rescue_image_ref": "system-rescue"}, {"image": "x"}])
def test_names_and_unknown_keys_are_refused(make_server, compute, body):
    answer = act(compute, make_server(), {"rescue": body})
    assert (answer.status_code, "Invalid input" in answer.text or "not allowed" in answer.text) == (400, True)


@pytest.mark.parametrize("broken", [{"status": "queued"}, {"status": "deactivated"}, {"size": 0}])
def test_an_image_without_data_fails_after_the_answer_and_a_good_one_helps(nova, make_server, compute, held, broken):
    server = make_server()
    held.set()
    image = nova.put_image("broken", **broken)
    compute.rescue_server(server, None, image)
    nova.wait_for(server, "ERROR")
    fault = until(lambda: nova.show(server).get("fault"))
    assert (fault["code"], fault["message"].split(":")[:2]) == (400, [f"Instance {server} cannot be rescued", " Driver Error"])
    assert f"Image {image} is unacceptable" in fault["message"]
    with pytest.raises(Conflict, match="vm_state error"):
        compute.unrescue_server(server)
    actions = list(compute.server_actions(server))
    event = compute.get_server_action(actions[0].request_id, server).events[0]
    assert (actions[0].action, event["event"], event["result"]) == ("rescue", "compute_rescue_instance", "Error")
    held.clear()
    compute.rescue_server(server, None, nova.rescue_image)
    assert state(nova, server) == ("ERROR", "error", "rescuing")
    with pytest.raises(openstack.exceptions.ResourceFailure):
        # It goes by the status alone.
        compute.wait_for_server(compute.get_server(server), "RESCUE", wait=5)
    held.set()
    nova.wait_for(server, "RESCUE")
    assert "fault" not in nova.show(server)
    compute.unrescue_server(server)
    nova.wait_for(server, "ACTIVE")


def test_the_size_that_an_image_wants_is_not_looked_at(nova, make_server, compute):
    server = make_server()
    compute.rescue_server(server, None, nova.put_image("large", min_ram=10**6, min_disk=10**6))
    nova.wait_for(server, "RESCUE")


@pytest.mark.parametrize("racing", [True, False])
def test_of_two_rescues_at_the_same_time_one_wins(nova, make_server, compute, connect, held, racing):
    """Who saw the server as it was before the other's request gets a fault of Nova's, who sees it later a refusal."""
    server, answers = make_server(), []
    users = [connect("member").compute, connect("admin").compute]
    if racing:
        nova.meet(2)
    threads = [threading.Thread(target=lambda user=user, name=name: answers.append(
        act(user, server, {"rescue": {"rescue_image_ref": nova.rescue_image, "adminPass": name}})))
        for name, user in zip(("one", "two"), users, strict=True)]
    for thread in threads:
        thread.start()
        if not racing:
            thread.join()
    for thread in threads:
        thread.join()
    answers.sort(key=lambda answer: answer.status_code)
    assert [answer.status_code for answer in answers] == [200, 500 if racing else 409]
    lost = answers[1].json()
    assert ("UnexpectedTaskStateError" in lost["computeFault"]["message"] if racing else
            "task_state rescuing" in lost["conflictingRequest"]["message"]), lost
    assert state(nova, server) == ("ACTIVE", "active", "rescuing")
    held.set()
    nova.wait_for(server, "RESCUE")
    actions = list(compute.server_actions(server))
    assert [action.action for action in actions] == ["rescue", "create"]
    # Whose it is, is told.
    assert actions[0].request_id == answers[0].headers["x-openstack-request-id"] != answers[1].headers["x-openstack-request-id"]


def test_nova_may_end_a_rescue_by_itself(nova, rescued, compute, nova_power):
    """With rescue_timeout in nova.conf; 0, the default, is never."""
    nova.end_rescues(0)
    nova.end_rescues(3600)
    assert state(nova, rescued) == ("RESCUE", "rescued", None)

    def is_ended():
        nova.end_rescues(1)
        return state(nova, rescued) != ("RESCUE", "rescued", None)

    until(is_ended)
    nova.wait_for(rescued, "ACTIVE")
    assert nova_power.names(rescued)[-1] == "unrescue"
    assert [action.action for action in compute.server_actions(rescued)][:2] == ["unrescue", "rescue"]


def test_why_an_action_failed_is_for_administrators(nova, make_server, compute, admin):
    server = make_server()
    compute.rescue_server(server, None, nova.put_image("broken", size=0))
    nova.wait_for(server, "ERROR")

    def details(user):
        action = next(iter(user.server_actions(server)))
        event = user.get(f"/servers/{server}/os-instance-actions/{action.request_id}", microversion="2.87").json()["instanceAction"]
        return action.message, event["events"][0].get("details")

    until(lambda: details(admin)[1])
    assert details(compute) == ("Error", None)
    assert "is unacceptable" in details(admin)[1]


def test_a_snapshot_of_volumes_is_no_rescue_image(nova, make_server, compute):
    image = nova.put_image("snapshot", properties={"img_block_device_mapping": [{"boot_index": 0}]})
    with pytest.raises(BadRequest, match="is not supported"):
        compute.rescue_server(make_server(), None, image)


def test_a_server_that_was_off_comes_back_on(nova, make_server, compute):
    server = make_server()
    compute.stop_server(server)
    nova.wait_for(server, "SHUTOFF")
    compute.rescue_server(server, None, nova.rescue_image)
    nova.wait_for(server, "RESCUE")
    compute.unrescue_server(server)
    nova.wait_for(server, "ACTIVE")


@pytest.mark.parametrize(("action", "status"), [("pause", "PAUSED"), ("suspend", "SUSPENDED")])
def test_what_sleeps_is_not_rescued(nova, make_server, compute, action, status):
    server = make_server()
    getattr(compute, f"{action}_server")(server)
    nova.wait_for(server, status)
    with pytest.raises(Conflict, match=f"vm_state {status.lower()}"):
        compute.rescue_server(server, None, nova.rescue_image)


def test_a_locked_server_is_for_administrators(nova, make_server, compute, admin):
    server = make_server()
    admin.lock_server(server)
    with pytest.raises(Conflict, match="is locked"):
        compute.rescue_server(server, None, nova.rescue_image)
    admin.rescue_server(server, None, nova.rescue_image)
    nova.wait_for(server, "RESCUE")
    with pytest.raises(Conflict, match="is locked"):
        compute.unrescue_server(server)
    admin.unrescue_server(server)
    nova.wait_for(server, "ACTIVE")


@pytest.mark.parametrize("body", [
    {"reboot": {"type": "SOFT"}}, {"reboot": {"type": "HARD"}}, {"os-stop": None}, {"os-start": None}, {"pause": None},
    {"unpause": None}, {"suspend": None}, {"resume": None}, {"createImage": {"name": "copy"}}, {"resize": {"flavorRef": "2"}},
    {"rebuild": {"imageRef": "base"}}, {"shelve": None}, {"changePassword": {"adminPass": "x"}},
], ids=lambda body: next(iter(body)) + str((next(iter(body.values())) or {}).get("type", "")))
def test_hardly_anything_can_be_done_in_rescue(nova, admin, body, shared_rescued):
    if "rebuild" in body:
        body = {"rebuild": {"imageRef": nova.base_image}}
    assert act(admin, shared_rescued, body).status_code == 409
    assert state(nova, shared_rescued) == ("RESCUE", "rescued", None)


@pytest.fixture(scope="module")
def shared_rescued(running_nova):
    """A rescued server for tests that cannot change it."""
    server = running_nova.create_server("rescued")
    with running_nova.connection("member") as connection:
        connection.compute.rescue_server(server, None, running_nova.rescue_image)
    yield running_nova.wait_for(server, "RESCUE")
    running_nova.delete_server(server)


def test_metadata_and_tags_cannot_be_changed_in_rescue_but_the_name_can(nova, compute, shared_rescued):
    for change in (lambda: compute.set_server_metadata(shared_rescued, note="x"),
                   lambda: compute.add_tag_to_server(shared_rescued, "x")):
        with pytest.raises(Conflict):
            change()
    assert compute.update_server(shared_rescued, name="other name").name == "other name"
    assert compute.update_server(shared_rescued, description="text").description == "text"


@pytest.mark.parametrize("then", ["ACTIVE", "SHUTOFF", "PAUSED", "SUSPENDED"])
def test_metadata_can_be_changed_before(nova, make_server, compute, then):
    server = make_server()
    if then != "ACTIVE":
        action = {"SHUTOFF": compute.stop_server, "PAUSED": compute.pause_server, "SUSPENDED": compute.suspend_server}[then]
        action(server)
        nova.wait_for(server, then)
    compute.set_server_metadata(server, note="x")
    assert nova.show(server)["metadata"] == {"note": "x"}


def test_lock_console_and_delete_work_in_rescue(nova, rescued, compute):
    compute.lock_server(rescued)
    compute.unlock_server(rescued)
    assert compute.get_server_console_output(rescued)["output"]
    assert compute.create_server_remote_console(rescued, type="novnc").url.startswith("http://127.0.0.1")
    with pytest.raises(BadRequest, match="Unavailable console type"):
        compute.create_server_remote_console(rescued, type="serial")
    compute.delete_server(rescued)
    compute.wait_for_delete(compute.get_server(rescued), interval=0.05, wait=20)


def test_a_reset_state_hides_the_rescue(nova, rescued, compute, admin):
    assert act(admin, rescued, {"os-resetState": {"state": "active"}}).status_code == 202
    assert state(nova, rescued)[:2] == ("ACTIVE", "active")
    with pytest.raises(Conflict):
        compute.unrescue_server(rescued)
    compute.reboot_server(rescued, "HARD")
    nova.wait_for(rescued, "ACTIVE")


def test_a_member_may_and_a_reader_may_not(nova, make_server, connect):
    server = make_server()
    with pytest.raises(openstack.exceptions.ForbiddenException):
        connect("reader").compute.rescue_server(server, None, nova.rescue_image)
    with pytest.raises(openstack.exceptions.NotFoundException):
        connect("other").compute.get_server(server)
    connect("member").compute.rescue_server(server, None, nova.rescue_image)
    nova.wait_for(server, "RESCUE")


@pytest.mark.parametrize(("microversion", "host", "properties", "told"), [
    ("2.1", "compute", STABLE, "Cannot rescue a volume-backed instance"),
    ("2.86", "compute", STABLE, "Cannot rescue a volume-backed instance"),
    ("2.87", "compute", {}, "Cannot rescue a volume-backed instance"),
    ("2.87", "compute", None, "Cannot rescue a volume-backed instance"),
    pytest.param("2.87", "old", STABLE, "Host unable to rescue a volume-backed instance", marks=pytest.mark.one_process),
    ("2.87", "compute", STABLE, None),
])
def test_a_server_on_a_volume(nova, make_server, compute, microversion, host, properties, told):
    server = make_server(volume_backed=True, host=host)
    assert nova.show(server)["image"] == ""
    image = None if properties is None else nova.put_image("rescue", properties=properties)
    answer = act(compute, server, {"rescue": {"rescue_image_ref": image} if image else None}, microversion)
    if told:
        assert (answer.status_code, told in answer.text) == (400, True)
    else:
        assert answer.status_code == 200
        nova.wait_for(server, "RESCUE")


@pytest.mark.parametrize(("kind", "tasks"), [("SOFT", {"rebooting", "reboot_pending", "reboot_started"}),
                                             ("HARD", {"rebooting_hard", "reboot_pending_hard", "reboot_started_hard"})])
def test_a_reboot(nova, make_server, compute, nova_power, held, kind, tasks):
    server = make_server()
    compute.reboot_server(server, kind)
    status, _vm_state, task = state(nova, server)
    assert (status, task in tasks) == ("REBOOT" if kind == "SOFT" else "HARD_REBOOT", True)
    held.set()
    nova.wait_for(server, "ACTIVE")
    assert {"event": "reboot", "server": server, "name": "web1", "type": kind} in nova_power.events


def test_which_image_is_in_use_is_told_nowhere(nova, rescued, admin):
    shown = admin.get(f"/servers/{rescued}", microversion="2.96").json()
    actions = admin.get(f"/servers/{rescued}/os-instance-actions", microversion="2.96").text
    assert nova.rescue_image not in str(shown) + actions
    assert shown["server"]["image"]["id"] == nova.base_image


def test_what_was_asked_is_told_and_refusals_are_not(nova, rescued, compute):
    with pytest.raises(Conflict):
        compute.rescue_server(rescued, None, nova.rescue_image)
    compute.unrescue_server(rescued)
    nova.wait_for(rescued, "ACTIVE")
    assert [action.action for action in compute.server_actions(rescued)] == ["unrescue", "rescue", "create"]


def test_the_sdk_forgets_the_password_that_nova_made(nova, make_server, compute):
    server = make_server()
    assert compute.rescue_server(server) is None
    nova.wait_for(server, "RESCUE")


def test_a_machine_that_does_not_obey_is_a_fault(nova, make_server, compute, nova_power):
    def refuse(event):
        if event["event"] == "rescue":
            raise LabError("no such machine")

    server = make_server()
    nova_power.then = refuse
    compute.rescue_server(server, None, nova.rescue_image)
    nova.wait_for(server, "ERROR")
    assert "cannot be rescued" in until(lambda: nova.show(server).get("fault"))["message"]


# The lab's own


@pytest.mark.one_process
def test_an_answer_is_lost_on_the_way(nova, make_server, compute):
    server = make_server()
    nova.lose("{\"rescue\"")
    assert act(compute, server, {"rescue": None}).status_code == 502
    nova.wait_for(server, "RESCUE")


def test_images_are_found_by_tag_and_name(nova, connect):
    image = connect("member").image
    assert [found.id for found in image.images(tag="system-rescue")] == [nova.rescue_image]
    assert [found.id for found in image.images(name="debian-13")] == [nova.base_image]
    # Glance has more of its own among them.
    assert image.get_image(nova.rescue_image).properties.items() >= {"hw_rescue_device": "cdrom", "hw_rescue_bus": "sata"}.items()


def test_a_wrong_password_is_refused(nova):
    settings = nova.cloud("member")
    settings["auth"]["password"] = "wrong"
    with pytest.raises(Exception, match="requires authentication"), openstack.connection.Connection(**settings) as connection:
        connection.authorize()


@pytest.mark.one_process
def test_it_ends_with_who_started_it(tmp_path):
    with Nova(tmp_path) as nova:
        process = nova._process
        assert process.poll() is None
    assert process.returncode == 0
    assert not subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, check=False).stdout


@pytest.mark.one_process
def test_the_environment_is_made_once(capsys):
    said = []
    assert ensure_nova_venv(said.append) == ensure_nova_venv(said.append)
    assert said == []
