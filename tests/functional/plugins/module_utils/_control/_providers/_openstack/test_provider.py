# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The provider, by openstacksdk, against the lab's Nova."""

from __future__ import annotations

import json
import re
import threading

import pytest

from ansible_collections.lifeboat.rescue.plugins.module_utils._control._providers._base import HARDDISK, RESCUE
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._providers._openstack import _client
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._providers._openstack._provider import DISK, NOTE, UNKNOWN, OpenStack
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._providers._registry import PROVIDERS, make_provider
from ansible_collections.lifeboat.rescue.plugins.module_utils._errors import (
    BadInput,
    NotAllowed,
    NotFound,
    ProviderError,
)
from lifeboat_lab.simulated import SimulatedClock, SimulatedClockwork
from lifeboat_lab.waiting import until

pytest_plugins = "lifeboat_lab.nova.fixtures"
# The library warns of parts of itself, whoever uses it.
pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")


@pytest.fixture(autouse=True)
def alone(monkeypatch, nobody):
    """No credentials of the person who runs the tests, and nobody waits for real."""
    monkeypatch.setattr(OpenStack, "clock", SimulatedClock(SimulatedClockwork()))


def params(nova, user="member"):
    cloud = nova.cloud(user)
    return {"provider": "openstack", "openstack_auth": cloud["auth"], "openstack_region_name": cloud["region_name"]}


@pytest.fixture
def provider(nova):
    made = OpenStack(params(nova))
    yield made
    made._client.connection.close()


@pytest.fixture
def as_user(nova):
    made = []

    def make(user):
        made.append(OpenStack(params(nova, user)))
        return made[-1]

    yield make
    for one in made:
        one._client.connection.close()


@pytest.fixture
def held(nova_power):
    """What takes time takes it until the test lets it go on."""
    go = threading.Event()
    nova_power.then = lambda event: event["event"] not in ("rescue", "unrescue", "reboot") or go.wait(20)
    yield go
    go.set()


def end(provider, task, name="web1", seconds=20.0):
    """The task when it is no longer running."""
    def ended():
        now = provider.read_task(name, task.id)
        return now if now.state != "running" else None

    return until(ended, seconds, "The task did not end.", every=0.1) if task.state == "running" else task


def rescue(provider, nova, name="web1"):
    """A server in rescue."""
    task = provider.boot_into(name, provider.choose(name, "best"), provider.reboot_baseline(name), password="ours")
    assert end(provider, task, name).state == "done"


def asked(nova, word):
    """How often Nova was asked for something since the last time."""
    return sum(word in body for _method, _path, body in nova.control()["requests"])


# Credentials


def test_it_is_registered(nova):
    assert PROVIDERS["openstack"] is OpenStack
    assert make_provider(params(nova)).facts.name == "openstack"


def test_credentials_come_from_clouds_yaml(nova, make_server, monkeypatch):
    make_server()
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(nova.clouds_yaml))
    assert OpenStack({"openstack_cloud": "member"}).list_servers() == ["web1"]
    monkeypatch.setenv("OS_CLOUD", "other")
    assert OpenStack({}).list_servers() == []
    with pytest.raises(BadInput, match=r"not complete.*nowhere"):
        OpenStack({"openstack_cloud": "nowhere"})


def test_credentials_come_from_the_environment(nova, make_server, monkeypatch):
    make_server()
    for name, value in nova.cloud("member")["auth"].items():
        monkeypatch.setenv(f"OS_{name.upper()}", value)
    monkeypatch.setenv("OS_REGION_NAME", "lab")
    assert OpenStack({}).list_servers() == ["web1"]


def test_no_credentials_are_told():
    with pytest.raises(BadInput, match="openstack_cloud"):
        OpenStack({}).list_servers()


def test_a_wrong_password_is_told(nova):
    wrong = params(nova)
    wrong["openstack_auth"] = {**wrong["openstack_auth"], "password": "wrong"}
    with pytest.raises(NotAllowed, match="not valid"):
        OpenStack(wrong).read_server("web1")


def test_an_application_credential_that_is_gone_is_told(nova):
    auth = {"auth_url": nova.cloud("member")["auth"]["auth_url"], "application_credential_id": "0" * 32,
            "application_credential_secret": "secret"}
    with pytest.raises(NotAllowed, match="not valid: Could not find Application Credential") as told:
        OpenStack({**params(nova), "openstack_auth": auth, "openstack_auth_type": "v3applicationcredential"}).read_server("web1")
    assert "application credential is still there" in told.value.todo


def test_nobody_at_home_is_told(nova):
    wrong = params(nova)
    wrong["openstack_auth"] = {**wrong["openstack_auth"], "auth_url": "http://127.0.0.1:1/v3"}
    with pytest.raises(ProviderError, match="failed for"):
        OpenStack(wrong).read_server("web1")


def test_a_wrong_region_is_told(nova):
    with pytest.raises(BadInput, match="no such service"):
        OpenStack({**params(nova), "openstack_region_name": "moon"}).read_server("web1")


# Reading


def test_a_server_is_read_by_name_and_by_id(nova, provider, make_server):
    server = make_server(address="127.0.0.60")
    for name in ("web1", server):
        found = provider.read_server(name)
        assert (found.name, found.address, found.boot) == (name, "127.0.0.60", "harddisk")
        assert found.settings == {"status": "ACTIVE", NOTE: None}


@pytest.mark.one_process
def test_the_floating_address_wins(provider, make_server):
    make_server(address="127.0.0.61", floating="127.0.0.62")
    assert provider.read_server("web1").address == "127.0.0.62"


def test_a_public_address_wins_over_a_private_one(provider):
    def address(*found):
        return OpenStack._address("web1", {"addresses": {"net": [
            {"addr": text, "version": 6 if ":" in text else 4, "OS-EXT-IPS:type": "fixed"} for text in found]}})

    assert address("2001:db8::1", "10.0.0.5", "9.9.9.9") == "9.9.9.9"
    assert address("2001:db8::1", "10.0.0.5") == "10.0.0.5"
    assert address("2001:db8::1") == "2001:db8::1"
    with pytest.raises(ProviderError, match="option address"):
        address()


def test_an_ambiguous_name_lists_the_ids(provider, make_server):
    ids = [make_server(), make_server()]
    with pytest.raises(BadInput) as told:
        provider.read_server("web1")
    assert all(server in str(told.value) for server in ids)
    assert provider.list_servers() == sorted(ids)


def test_an_unknown_server_lists_what_there_is(provider, make_server):
    server = make_server("web1")
    for name in ("web", "web.", "e6b6f0a0-0000-4000-8000-000000000000"):
        with pytest.raises(NotFound, match=f"no server.*web1 \\({server}\\)"):
            provider.read_server(name)


def calls(nova):
    """What Nova was asked since the last time, without the look at its versions."""
    return [path for _method, path, _body in nova.control()["requests"] if path != "/v2.1"]


def test_a_name_is_read_in_one_call_and_then_by_its_id(nova, provider, make_server):
    server = make_server()
    nova.control()
    first = provider.read_server("web1")
    assert calls(nova) == ["/v2.1/servers/detail"]
    assert provider.read_server("web1") == first
    assert calls(nova) == [f"/v2.1/servers/{server}"]


def test_all_servers_are_read_by_one_listing(nova, provider, make_server):
    first, second = make_server("web2", address="127.0.0.70"), make_server("web2", address="127.0.0.71")
    make_server("web1", address="127.0.0.72", metadata={"a": "b"})
    rescue(provider, nova, "web1")
    lonely = make_server("web3", networks="none")
    nova.control()
    found = provider.read_servers()
    assert calls(nova) == ["/v2.1/servers/detail"]
    assert list(found) == provider.list_servers() == sorted(["web1", "web3", first, second])
    # Its failure is one of its own.
    assert found["web3"] is None and nova.show(lonely)["addresses"] == {}
    assert {name: found[name] for name in found if name != "web3"} == {
        name: provider.read_server(name) for name in found if name != "web3"}
    assert (found["web1"].address, found["web1"].boot) == ("127.0.0.72", nova.rescue_image)


def test_a_listing_of_many_pages_is_read_to_its_end(nova, provider, make_server):
    for name in ("web1", "web2", "web3", "web4", "web5"):
        make_server(name)
    nova.control(page=2)
    assert list(provider.read_servers()) == provider.list_servers() == ["web1", "web2", "web3", "web4", "web5"]
    # Three pages, twice.
    assert calls(nova) == ["/v2.1/servers/detail"] * 3 + ["/v2.1/servers"] * 3


@pytest.mark.one_process
def test_a_cloud_that_ignores_the_marker_comes_to_an_end(nova, provider, make_server, monkeypatch):
    """Paging that a proxy, or a policy, has taken out of the query."""
    for name in ("web1", "web2", "web3"):
        make_server(name)
    nova.control(page=2)
    call = provider._client.call
    monkeypatch.setattr(provider._client, "call", lambda method, path, *more: call(method, path.partition("?")[0], *more))
    assert len(provider.read_servers()) == 2


# Boot options


def test_the_disk_and_the_images_are_offered(nova, provider, make_server):
    make_server()
    nova.put_image("not yet", status="queued")
    nova.put_image("theirs", visibility="private", owner="elsewhere")
    options = provider.boot_options("web1")
    assert sorted((option.name, option.id, option.kind) for option in options) == [
        ("debian-13", nova.base_image, RESCUE), ("harddisk", "harddisk", HARDDISK), ("system-rescue", nova.rescue_image, RESCUE)]
    assert provider.boot_options("web1", HARDDISK) == [DISK]
    assert all(provider.rescue_rank(option) == 0 for option in provider.boot_options("web1", RESCUE))
    assert provider.rescue_rank(DISK) is None


def test_an_image_is_chosen_by_id_name_and_tag(nova, provider, make_server):
    make_server()
    tagged = nova.put_image("rescue 12", tags=["newest"])
    assert provider.choose("web1", "harddisk") == DISK
    for wanted, image in (("best", nova.rescue_image), ("rescue", nova.rescue_image), ("debian-13", nova.base_image),
                          (nova.base_image, nova.base_image), ("newest", tagged)):
        assert provider.choose("web1", wanted).id == image


def test_an_ambiguous_or_missing_image_lists_candidates(nova, provider, make_server):
    make_server()
    second = nova.put_image("another", tags=["system-rescue"])
    with pytest.raises(BadInput) as told:
        provider.choose("web1", "best")
    assert nova.rescue_image in str(told.value) and second in str(told.value) and "debian" not in str(told.value)
    with pytest.raises(BadInput, match="debian-13"):
        provider.choose("web1", "nothing like that")


def test_one_option_by_its_id(nova, provider):
    assert provider.boot_option("web1", "harddisk") == DISK
    assert provider.boot_option("web1", "rescue") == UNKNOWN
    assert provider.boot_option("web1", nova.rescue_image).name == "system-rescue"
    with pytest.raises(NotFound):
        provider.boot_option("web1", "e6b6f0a0-0000-4000-8000-000000000000")


def test_a_volume_and_an_image_that_does_not_fit_are_told_before(nova, provider, make_server):
    make_server(volume_backed=True)
    with pytest.raises(BadInput, match=f"hw_rescue_device.*system-rescue \\(id {nova.rescue_image}\\)"):
        provider.choose("web1", "debian-13")
    rescue(provider, nova)


# Into rescue and out of it


def test_into_rescue_and_out(nova, provider, make_server, nova_power, held):
    make_server()
    option = provider.choose("web1", "best")
    task = provider.boot_into("web1", option, provider.reboot_baseline("web1"), password="ours")
    assert (task.id, task.state) == ("rescue", "running")
    assert [one.text for one in provider.unfinished_tasks("web1")] == ["rescuing"]
    assert provider.read_task("web1", "rescue").state == "running"
    held.set()
    assert end(provider, task).state == "done"
    server = provider.read_server("web1")
    assert (server.boot, server.settings["status"]) == (nova.rescue_image, "RESCUE")
    assert (nova_power.events[-1]["image"], nova_power.events[-1]["password"]) == (nova.rescue_image, "ours")
    held.clear()
    task = provider.boot_into("web1", DISK, provider.reboot_baseline("web1"))
    assert (task.id, task.state, provider.read_server("web1").boot) == ("unrescue", "running", "harddisk")
    held.set()
    assert end(provider, task).state == "done"
    provider.write_settings("web1", {NOTE: None})
    provider.write_settings("web1", {NOTE: None})
    assert nova.show(provider._client.id_of("web1"))["metadata"] == {}


@pytest.mark.parametrize("racing", [True, False])
def test_who_loses_a_race_goes_on_with_the_rescue_of_the_other(nova, provider, make_server, connect, nova_power, held, racing):
    """Two want the same at once. Nova does it once, and tells the loser a fault of its own, or that it is late."""
    server = make_server()
    option, baseline = provider.choose("web1", "best"), provider.reboot_baseline("web1")
    won, tasks = [], []

    def other():
        won.append(connect("admin").compute.post(f"/servers/{server}/action", microversion="2.87", json={
            "rescue": {"rescue_image_ref": nova.rescue_image, "adminPass": "theirs"}}).status_code)

    def ours():
        tasks.append(provider.boot_into("web1", option, baseline, password="ours"))

    threads = [threading.Thread(target=other), threading.Thread(target=ours)]
    if racing:
        nova.meet(2)
        asked(nova, "")
    for thread in threads:
        thread.start()
        if not racing:
            thread.join()
    for thread in threads:
        thread.join()
    assert tasks and (won == [200] or racing)
    # Who lost by Nova's fault looks what came of it before anything else, and asks no more than once again.
    if racing:
        assert asked(nova, '"rescue"') <= 3
    else:
        assert "somebody else asked for it, a moment earlier" in tasks[0].text
    held.set()
    assert end(provider, tasks[0]._replace(state="running")).state == "done"
    assert provider.read_server("web1").settings["status"] == "RESCUE"
    assert [event["event"] for event in nova_power.events].count("rescue") == 1
    assert nova.actions(server) == ["rescue", "create"]


def test_a_rescue_that_nova_ended_by_itself_shows(nova, provider, make_server, nova_power):
    server = make_server()
    rescue(provider, nova)
    baseline = provider.reboot_baseline("web1")

    def ended():
        nova.end_rescues(1)
        return "unrescue" in nova_power.names(server)

    until(ended, every=0.1)
    nova.wait_for(server, "ACTIVE")
    found = provider.read_server("web1")
    assert (found.boot, found.settings) == ("harddisk", {"status": "ACTIVE", NOTE: nova.rescue_image})
    # What somebody waits for has failed, in words, as soon as Nova cannot be late any more; whoever was about to leave finds it done.
    assert provider.read_task("web1", "rescue").state == "running"
    provider.clock.pause(provider.facts.lag)
    task = provider.read_task("web1", "rescue")
    assert (task.state, task.text) == ("failed", "rescue: it ended, and Nova says ACTIVE")
    assert provider.boot_into("web1", DISK, baseline, may_be_repeat=True).state == "done"
    assert nova_power.names(server).count("unrescue") == 1


def test_an_image_that_went_away_is_told(nova, provider, make_server):
    make_server()
    option = provider.choose("web1", nova.put_image("short-lived", id="11111111-0000-4000-8000-000000000000"))
    nova.control(no_image=option.id)
    with pytest.raises(ProviderError, match=f"Requested rescue image '{option.id}' is not supported") as told:
        provider.boot_into("web1", option, provider.reboot_baseline("web1"))
    assert (told.value.state, told.value.todo) == ("This changed nothing.", "Choose another image in the option rescue.")
    assert provider.read_server("web1").settings["status"] == "ACTIVE"


def test_a_host_that_cannot_rescue_a_volume_is_told(nova, provider, make_server):
    make_server(volume_backed=True, host="old")
    with pytest.raises(ProviderError, match="Host unable to rescue a volume-backed instance") as told:
        provider.boot_into("web1", provider.choose("web1", "best"), provider.reboot_baseline("web1"))
    assert told.value.state == "This changed nothing." and "attach the volume to another server" in told.value.todo


def test_a_nova_that_is_too_old_for_volumes_is_told_before(nova, provider, make_server, monkeypatch):
    make_server(volume_backed=True)
    monkeypatch.setattr(_client, "MICROVERSION", (2, 999))
    with pytest.raises(BadInput, match=r"too old to rescue such a server.*attach it to another server"):
        provider.choose("web1", "best")
    make_server("web2")
    rescue(provider, nova, "web2")


def test_an_old_default_microversion_of_the_user_is_no_obstacle(nova, make_server, tmp_path, monkeypatch):
    server = make_server(volume_backed=True)
    cloud = {**nova.cloud("member"), "compute_default_microversion": "2.1"}
    (tmp_path / "clouds.yaml").write_text(json.dumps({"clouds": {"mine": cloud}}))
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / "clouds.yaml"))
    provider = OpenStack({"openstack_cloud": "mine"})
    rescue(provider, nova)
    assert nova.show(server)["status"] == "RESCUE"
    provider._client.connection.close()


def test_the_size_that_an_image_wants_is_no_obstacle(nova, provider, make_server):
    server = make_server()
    image = nova.put_image("large", min_ram=10**6, min_disk=10**6)
    assert end(provider, provider.boot_into("web1", provider.choose("web1", "large"), provider.reboot_baseline("web1"))).state == "done"
    assert provider.read_server("web1").boot == image and nova.show(server)["status"] == "RESCUE"


def test_nothing_goes_between_while_it_is_rescued(nova, provider, make_server, connect, held):
    make_server()
    option, baseline = provider.choose("web1", "best"), provider.reboot_baseline("web1")
    task = provider.boot_into("web1", option, baseline)
    for call in (lambda: provider.boot_into("web1", DISK, provider.reboot_baseline("web1")),
                 lambda: provider.reboot_hard("web1", provider.reboot_baseline("web1"))):
        with pytest.raises(ProviderError, match="task_state rescuing") as told:
            call()
        assert told.value.state == "This changed nothing. Nova says that it is ACTIVE, and at work on it (rescuing)."
        assert told.value.todo == "Run this again when that has ended."
    held.set()
    assert end(provider, task).state == "done"


def test_a_server_that_was_locked_in_rescue_is_told_on_the_way_out(nova, provider, make_server, connect):
    server = make_server()
    rescue(provider, nova)
    connect("admin").compute.lock_server(server)
    with pytest.raises(NotAllowed, match="is locked") as told:
        provider.boot_into("web1", DISK, provider.reboot_baseline("web1"))
    assert "it is RESCUE" in told.value.state and told.value.todo == f"Unlock it: openstack server unlock {server}."


def test_a_server_that_was_renamed_or_deleted_in_rescue(nova, provider, make_server, connect, as_user):
    server = make_server()
    rescue(provider, nova)
    connect("member").compute.update_server(server, name="other")
    assert provider.read_server("web1").boot == nova.rescue_image, "who began knows the id"
    with pytest.raises(NotFound, match=rf"no server 'web1'.*other \({server}\)"):
        as_user("member").read_server("web1")
    assert as_user("member").read_server(server).boot == nova.rescue_image
    assert provider.console_url("web1").startswith("http://127.0.0.1:6080/vnc")
    connect("admin").compute.lock_server(server)
    connect("admin").compute.unlock_server(server)
    nova.delete_server(server)
    assert provider.read_task("web1", "rescue").state == "unknown"
    with pytest.raises(NotFound, match=r"could not be found\. Somebody may have deleted it"):
        provider.read_server("web1")


def test_a_reset_state_hides_the_rescue_and_a_reboot_ends_it(nova, provider, make_server, connect, nova_power):
    server = make_server()
    rescue(provider, nova)
    connect("admin").compute.post(f"/servers/{server}/action", json={"os-resetState": {"state": "active"}})
    assert provider.read_server("web1").boot == "harddisk"
    task = provider.boot_into("web1", DISK, provider.reboot_baseline("web1"))
    assert (task.id, end(provider, task).state) == ("reboot", "done")
    assert "reboot" in nova_power.names(server)


def test_the_way_out_after_a_rescue_that_failed_is_a_reboot(nova, provider, make_server, nova_power):
    server = make_server()
    image = nova.put_image("broken", size=1)
    option = provider.choose("web1", "broken")
    nova.put_image("broken", id=image, size=0)
    provider.boot_into("web1", option, provider.reboot_baseline("web1"))
    nova.wait_for(server, "ERROR")
    task = provider.boot_into("web1", DISK, provider.reboot_baseline("web1"))
    assert (task.id, end(provider, task).state) == ("reboot", "done")
    assert provider.read_server("web1").settings["status"] == "ACTIVE"


@pytest.mark.parametrize(("status", "error", "words"), [
    (400, ProviderError, "refused POST"), (401, NotAllowed, "not valid"), (403, NotAllowed, "role member"),
    (404, NotFound, "deleted"), (409, ProviderError, "Nova refused POST"), (501, ProviderError, "cannot do it"),
    (429, ProviderError, "failed for"), (500, ProviderError, "failed for"), (503, ProviderError, "failed for")])
def test_each_refusal_ends_in_words(nova, provider, make_server, status, error, words):
    """Whatever answers that status, and with whatever body: here a proxy's page of HTML."""
    server = make_server()
    baseline = provider.reboot_baseline("web1")
    nova.lose('{"reboot"', times=1000, after=False, status=status)
    with pytest.raises(error, match=words) as told:
        provider.reboot_hard("web1", baseline)
    nova.control(faults=[])
    assert told.value.todo and nova.actions(server) == ["create"]
    assert str(status) in told.value.what


def test_a_rescue_of_somebody_else_is_unknown(nova, provider, make_server, connect):
    server = make_server()
    connect("member").compute.rescue_server(server)
    nova.wait_for(server, "RESCUE")
    found = provider.read_server("web1")
    assert (found.boot, provider.boot_option("web1", found.boot)) == ("rescue", UNKNOWN)
    assert provider.restorable_settings(found) == {"status": "ACTIVE", NOTE: None}
    with pytest.raises(ProviderError, match=r"in rescue already, asked for by user .*state=absent"):
        provider.boot_into("web1", provider.choose("web1", "best"), provider.reboot_baseline("web1"))


@pytest.mark.one_process
@pytest.mark.parametrize("after", [True, False])
@pytest.mark.parametrize("word", ["rescue", "unrescue"])
def test_a_lost_answer_brings_no_second_time(nova, provider, make_server, nova_power, word, after):
    make_server()
    if word == "unrescue":
        rescue(provider, nova)
    option = provider.choose("web1", "best") if word == "rescue" else DISK
    baseline = provider.reboot_baseline("web1")
    nova.lose(f'{{"{word}"', after=after)
    task = provider.boot_into("web1", option, baseline, password="ours")
    assert end(provider, task).state == "done"
    assert [event["event"] for event in nova_power.events].count(word) == 1


@pytest.mark.one_process
def test_a_refusal_after_a_lost_answer_does_not_say_that_nothing_was_changed(nova, provider, make_server):
    make_server()
    option = provider.choose("web1", nova.put_image("short-lived", id="11111111-0000-4000-8000-000000000000"))
    nova.control(no_image=option.id)
    nova.lose('{"rescue"', after=False)
    with pytest.raises(ProviderError, match="is not supported") as told:
        provider.boot_into("web1", option, provider.reboot_baseline("web1"))
    assert told.value.state == "Nova says that it is ACTIVE. Whether the request before this one arrived is not known."


@pytest.mark.one_process
@pytest.mark.parametrize("word", ["rescue", "unrescue"])
def test_a_call_that_died_is_not_repeated(nova, provider, make_server, word):
    make_server()
    if word == "unrescue":
        rescue(provider, nova)
    option = provider.choose("web1", "best") if word == "rescue" else DISK
    baseline = provider.reboot_baseline("web1")
    end(provider, provider.boot_into("web1", option, baseline))
    asked(nova, "")
    assert provider.boot_into("web1", option, baseline, may_be_repeat=True).state == "done"
    assert asked(nova, f'"{word}"') == 0


@pytest.mark.one_process
def test_an_image_that_fails_late_fails_with_its_reason_and_can_be_tried_again(nova, provider, make_server, held):
    server = make_server()
    held.set()
    image = nova.put_image("empty", size=1)
    option = provider.choose("web1", "empty")
    nova.put_image("empty", id=image, size=0)
    task = provider.boot_into("web1", option, provider.reboot_baseline("web1"))
    nova.wait_for(server, "ERROR")
    # So long the state may be the one from before.
    provider.clock.pause(provider.facts.lag)
    until(lambda: "is unacceptable" in provider.read_task("web1", task.id).text, 10, every=0.1)
    task = provider.read_task("web1", task.id)
    assert (task.state, "is unacceptable" in task.text) == ("failed", True)
    held.clear()
    # Its status is ERROR until the new one has ended.
    task = provider.boot_into("web1", provider.choose("web1", "best"), provider.reboot_baseline("web1"))
    assert provider.read_task("web1", task.id).state == "running"
    held.set()
    assert end(provider, task).state == "done"


def test_a_server_that_was_off_is_switched_off_again(nova, provider, make_server):
    server = make_server()
    provider.write_settings("web1", {"status": "SHUTOFF"})
    nova.wait_for(server, "SHUTOFF")
    before = provider.restorable_settings(provider.read_server("web1"))
    assert before == {"status": "SHUTOFF", NOTE: None}
    rescue(provider, nova)
    end(provider, provider.boot_into("web1", DISK, provider.reboot_baseline("web1")))
    settings = provider.read_server("web1").settings
    assert [name for name in before if not provider.same_setting(name, before[name], settings[name])] == ["status", NOTE]
    provider.write_settings("web1", before)
    nova.wait_for(server, "SHUTOFF")
    provider.write_settings("web1", before)
    assert provider.read_server("web1").settings == before
    provider.write_settings("web1", {"status": "ACTIVE"})
    nova.wait_for(server, "ACTIVE")


def test_booting_the_disk_of_what_is_not_in_rescue_reboots_it(nova, provider, make_server, nova_power):
    make_server()
    task = provider.boot_into("web1", DISK, provider.reboot_baseline("web1"))
    assert (task.id, end(provider, task).state) == ("reboot", "done")
    assert nova_power.events[0]["type"] == "HARD"


@pytest.mark.one_process
def test_a_hard_reboot(nova, provider, make_server, nova_power):
    make_server()
    baseline = provider.reboot_baseline("web1")
    nova.lose('{"reboot"')
    assert end(provider, provider.reboot_hard("web1", baseline)).state == "done"
    assert provider.reboot_hard("web1", baseline, may_be_repeat=True).state == "done"
    assert [event["event"] for event in nova_power.events].count("reboot") == 1


def test_there_is_no_reboot_in_rescue(nova, provider, make_server):
    make_server()
    rescue(provider, nova)
    with pytest.raises(ProviderError, match=r"cannot reboot a server in rescue.*state=absent.*state=present"):
        provider.reboot_hard("web1", provider.reboot_baseline("web1"))


@pytest.mark.one_process
def test_faults_that_pass_are_waited_for(nova, provider, make_server):
    server = make_server()
    provider.read_server("web1")
    nova.lose(f"GET /v2.1/servers/{server}", times=3, after=False, status=503)
    assert provider.read_server("web1").name == "web1"
    nova.lose(f"GET /v2.1/servers/{server}", times=1000, after=False, status=503)
    assert provider.read_task("web1", "rescue").state == "unknown"
    with pytest.raises(ProviderError, match=r"failed for 60 s.*503"):
        provider.read_server("web1")
    nova.control(faults=[])


# What can be told beforehand


def test_the_right_user_may(nova, provider, make_server):
    make_server()
    provider.check_rights("web1")
    rescue(provider, nova)
    provider.check_rights("web1")


def test_a_reader_may_not(make_server, as_user):
    make_server()
    with pytest.raises(NotAllowed, match=r"only the role reader.*member"):
        as_user("reader").check_rights("web1")


def test_a_readers_rescue_is_refused_in_words(nova, make_server, as_user):
    make_server()
    reader = as_user("reader")
    with pytest.raises(NotAllowed, match="may not do this"):
        reader.boot_into("web1", reader.choose("web1", "best"), reader.reboot_baseline("web1"))


def test_a_locked_server_is_for_administrators(make_server, provider, as_user, connect):
    server = make_server()
    connect("admin").compute.lock_server(server, locked_reason="audit")
    with pytest.raises(NotAllowed, match=f"locked \\(audit\\).*server unlock {server}"):
        provider.check_rights("web1")
    as_user("admin").check_rights("web1")


@pytest.mark.parametrize(("action", "status", "way"), [
    ("pause", "PAUSED", "unpause"), ("suspend", "SUSPENDED", "resume"), ("shelve", "SHELVED_OFFLOADED", "unshelve")])
def test_what_sleeps_has_to_be_woken_first(nova, make_server, provider, connect, action, status, way):
    server = make_server()
    getattr(connect("member").compute, f"{action}_server")(server)
    nova.wait_for(server, status)
    with pytest.raises(ProviderError, match=f"{status}.*openstack server {way} {server}"):
        provider.check_rights("web1")


def test_work_under_way_is_told(nova, make_server, provider, connect, held):
    server = make_server()
    connect("member").compute.reboot_server(server, "HARD")
    with pytest.raises(ProviderError, match="at work"):
        provider.check_rights("web1")
    held.set()
    nova.wait_for(server, "ACTIVE")


def test_who_rescued_it(nova, make_server, provider):
    make_server()
    assert provider.rescued("web1") == (None, None)
    rescue(provider, nova)
    since, by = provider.rescued("web1")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", since) and by.startswith("user ")


def test_the_console(make_server, provider, connect):
    make_server()
    assert provider.console_url("web1").startswith("http://127.0.0.1:6080/vnc")
