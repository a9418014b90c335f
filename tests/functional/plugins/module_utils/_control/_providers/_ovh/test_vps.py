# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The provider for VPS, by OVH's own client, against the lab's API."""

from __future__ import annotations

import collections
import json
import math

import pytest

from ansible_collections.lifeboat.rescue.plugins.module_utils._control._providers import _calls
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._providers._base import HARDDISK, OPEN, RESCUE
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._providers._ovh import _vps
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._providers._ovh._vps import OvhVps
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._providers._registry import make_provider
from ansible_collections.lifeboat.rescue.plugins.module_utils._errors import (
    BadInput,
    Busy,
    NotAllowed,
    NotFound,
    ProviderError,
)
from ansible_collections.lifeboat.rescue.plugins.module_utils._wait import Backoff
from lifeboat_lab.ovh_api import MINIMUM_RULES, MailOptions, OvhApi, Vps
from lifeboat_lab.waiting import until

NAME = "vps-000e0e00.vps.ovh.ca"
PATH = f"/vps/{NAME}"
FAULTS = ["404", "429", "500", "503-html", "reset"]
OLD = {"offerType": "cloud", "version": "2014v1"}


@pytest.fixture(autouse=True)
def alone(monkeypatch, nobody):
    """No credentials of the person who runs the tests, and no patience of minutes."""
    for module in (_calls, _vps):
        monkeypatch.setattr(module, "Backoff", lambda first, longest, factor: Backoff(0.005, 0.02))
    monkeypatch.setattr(OvhVps, "patience", 1.0)
    monkeypatch.setattr(OvhVps, "busy_patience", 3.0)
    monkeypatch.setattr(OvhVps, "facts", OvhVps.facts._replace(lag=0.1))


@pytest.fixture
def vps():
    return Vps(NAME, ip="127.0.0.1", task_seconds={"todo": 0.01, "doing": 0.03})


@pytest.fixture
def api(vps):
    with OvhApi([vps], rules=[*MINIMUM_RULES, ("GET", "/vps"), ("POST", "/vps/*/getConsoleUrl")]) as api:
        yield api


def params(api, credential=None):
    return {"ovh_endpoint": api.url,
            **{f"ovh_{name}": value for name, value in (credential or api.credential).client_arguments().items()}}


@pytest.fixture
def provider(api):
    return OvhVps(params(api))


@pytest.fixture
def rescue(provider):
    return provider.choose(NAME, "best")


@pytest.fixture
def disk(provider):
    return provider.choose(NAME, "harddisk")


def baseline_of(provider):
    """As it comes back from the session's record."""
    return json.loads(json.dumps(provider.reboot_baseline(NAME)))


def make_old(vps):
    vps.offerType, vps.model["version"] = OLD.values()


def asked(api):
    """The calls that ask for a reboot, whether they were carried out or not."""
    return [call.method for call in api.writes() if call.path.endswith((NAME, "/reboot"))]


def types(vps):
    return [task.type for task in vps.jobs]


def ended(provider, task):
    return until(lambda: (now := provider.read_task(NAME, task.id)).state not in OPEN and now)


# Reading


def test_the_registry_knows_it(api):
    provider = make_provider({"provider": "ovh_vps", **params(api)})
    assert isinstance(provider, OvhVps)
    assert provider.facts.name == "ovh_vps" and provider.facts.reboot == "implied"


def test_a_server_is_read_by_one_call_once_its_address_is_known(api, provider):
    found = provider.read_server(NAME)
    assert (found.name, found.address, found.boot, found.settings) == (NAME, "127.0.0.1", "local", {"netbootMode": "local"})
    api.log.clear()
    assert provider.read_server(NAME) == found
    assert [call.path for call in api.log] == [f"/1.0{PATH}"]


@pytest.mark.parametrize(("additional", "ip", "ip6", "address"), [
    ([], "192.0.2.1", "2001:db8::1", "192.0.2.1"),
    (["192.0.2.9", "2001:db8::9"], "192.0.2.1", "2001:db8::1", "192.0.2.1"),
    (["2001:db8::9"], "2001:db8::1", None, "2001:db8::1"),
])
def test_the_address_is_the_primary_one_and_ipv4_where_there_is_one(provider, vps, additional, ip, ip6, address):
    vps.additional_ips, vps.ip, vps.ip6 = additional, ip, ip6
    assert provider.read_server(NAME).address == address


@pytest.mark.parametrize("name", ["vps-1.example", "../vps", f"{NAME}/tasks", "a b", "vps?x=1", ""])
def test_an_unknown_server_lists_those_that_there_are(provider, name):
    with pytest.raises(NotFound, match="knows no VPS") as caught:
        provider.read_server(name)
    assert caught.value.todo == f"These credentials see: {NAME}."


def test_an_unknown_server_by_a_key_that_may_not_list(api):
    with pytest.raises(NotFound, match="may not list"):
        OvhVps(params(api, api.add_credential([("GET", "/vps/*")]))).read_server("vps-1.example")


@pytest.mark.parametrize("kind", FAULTS)
def test_faults_that_pass_are_nobodys_concern(api, provider, vps, monkeypatch, kind):
    """Every fourth call of all fails; each thing is done once.

    Every third would be every PUT: before it is repeated two calls look whether it was carried out. How often they do is a matter of
    time, so on a busy machine it may be every fourth call several times.
    """
    monkeypatch.setattr(OvhVps, "patience", 10.0)
    api.faults.add("*", ".", kind, every=4)
    assert provider.list_servers() == [NAME]
    server = provider.read_server(NAME)
    provider.check_rights(NAME)
    assert provider.unfinished_tasks(NAME) == []
    credentials = provider.credentials_baseline(NAME)
    task = provider.boot_into(NAME, provider.choose(NAME, "best"), baseline_of(provider))
    until(lambda: provider.read_task(NAME, task.id).state == "done")
    assert provider.read_server(NAME).boot == "rescue"
    found = until(lambda: provider.read_credentials(NAME, credentials))
    assert found.password == vps.booted[0].password
    task = provider.boot_into(NAME, provider.choose(NAME, "harddisk"), baseline_of(provider))
    until(lambda: provider.read_task(NAME, task.id).state == "done")
    task = provider.reboot_hard(NAME, baseline_of(provider))
    until(lambda: provider.read_task(NAME, task.id).state == "done")
    assert types(vps) == ["setNetboot", "setNetboot", "rebootVm"]
    assert server.settings == provider.read_server(NAME).settings
    assert provider.console_url(NAME).startswith("https://")


@pytest.mark.parametrize("path", ["$", "/ips$", "/tasks$", r"/tasks\?"])
@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_that_stays_is_told(api, provider, path, kind):
    api.faults.add("GET", PATH + path, kind, every=1)
    with pytest.raises(ProviderError) as caught:
        {"/tasks$": provider.reboot_baseline, r"/tasks\?": provider.unfinished_tasks}.get(path, provider.read_server)(NAME)
    assert isinstance(caught.value, NotFound) == (kind == "404")
    if kind != "404":
        assert "failed for 1 s at GET /vps/vps-000e0e00" in caught.value.what


def test_boot_options(provider):
    assert [(option.id, option.kind) for option in provider.boot_options(NAME)] == [("local", HARDDISK), ("rescue", RESCUE)]
    for wanted, option_id in (("harddisk", "local"), ("local", "local"), ("best", "rescue"), ("rescue", "rescue")):
        assert provider.choose(NAME, wanted) == provider.boot_option(NAME, option_id)
    assert provider.rescue_rank(provider.choose(NAME, "local")) is None
    with pytest.raises(NotFound):
        provider.boot_option(NAME, "poweroff")
    for wanted in ("poweroff", "rescue12-customer", ""):
        with pytest.raises(BadInput) as caught:
            provider.choose(NAME, wanted)
        assert caught.value.todo == "It offers: local (harddisk, id local), rescue (rescue, id rescue)."


def test_settings(provider, vps, rescue):
    server = provider.read_server(NAME)
    assert provider.rescue_settings(server, rescue, "ssh-ed25519 AAAA", {"rescue_mail": "a@b"}) == {"netbootMode": "rescue"}
    assert provider.armed_key(server) is None
    vps.netbootMode = "rescue"
    assert provider.restorable_settings(provider.read_server(NAME)) == {"netbootMode": "local"}
    assert provider.same_setting("netbootMode", "local", "local") and not provider.same_setting("netbootMode", "local", "rescue")
    vps.netbootMode = "local"
    provider.write_settings(NAME, {"netbootMode": "rescue"})
    assert types(vps) == ["setNetboot"]


# Switching


def test_there_and_back_by_one_put_each(api, provider, vps, rescue, disk):
    task = provider.boot_into(NAME, rescue, baseline_of(provider))
    assert task.id == str(vps.jobs[0].id) and task.state in OPEN
    assert ended(provider, task) == (task.id, "done", "setNetboot done 100 %")
    task = provider.boot_into(NAME, disk, baseline_of(provider))
    ended(provider, task)
    assert asked(api) == ["PUT", "PUT"]
    assert [boot.kind for boot in vps.booted] == ["rescue", "installed"]


def test_where_the_mode_is_right_already_a_reboot_is_asked_for(api, provider, vps, rescue):
    vps.netbootMode = "rescue"
    task = provider.boot_into(NAME, rescue, baseline_of(provider))
    ended(provider, task)
    assert (asked(api), types(vps)) == (["POST"], ["rebootVm"])
    assert [boot.kind for boot in vps.booted] == ["rescue"]


def test_a_plain_reboot_keeps_the_mode(api, provider, vps):
    for mode, kind in (("local", "installed"), ("rescue", "rescue")):
        vps.netbootMode = mode
        ended(provider, provider.reboot_hard(NAME, baseline_of(provider)))
        assert (vps.netbootMode, vps.booted[-1].kind) == (mode, kind)
    assert asked(api) == ["POST", "POST"]


def test_the_old_model_is_set_and_then_rebooted(api, provider, vps, rescue, disk):
    make_old(vps)
    for option, kind in ((rescue, "rescue"), (disk, "installed")):
        task = provider.boot_into(NAME, option, baseline_of(provider))
        assert ended(provider, task).text == "rebootVm done 100 %"
        assert (vps.netbootMode, vps.booted[-1].kind) == (option.id, kind)
    assert asked(api) == ["PUT", "POST", "PUT", "POST"]
    ended(provider, provider.boot_into(NAME, disk, baseline_of(provider)))
    assert asked(api)[4:] == ["POST"]


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("right", [False, True])
@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("acts", [True, False])
def test_a_lost_answer_is_no_second_reboot(api, provider, vps, rescue, disk, old, right, kind, acts):
    vps.second_task = "task"  # the API does not save us from ourselves
    if old:
        make_old(vps)
    ended(provider, provider.reboot_hard(NAME, provider.reboot_baseline(NAME)))  # an older one is not taken for ours
    vps.netbootMode = "rescue" if right else "local"
    baseline = baseline_of(provider)
    del vps.jobs[:]
    for method in ("PUT", "POST"):
        api.faults.add(method, f"{PATH}(/reboot)?$", kind, acts=acts)
    task = provider.boot_into(NAME, rescue, baseline)
    until(lambda: provider.read_task(NAME, task.id).state == "done")
    expected = ["rebootVm"] if right else ["setNetboot", "rebootVm"] if old else ["setNetboot"]
    assert types(vps) == expected
    assert [boot.kind for boot in vps.booted] == ["installed", "rescue"]


@pytest.mark.parametrize("call", ["$", r"/tasks$", r"/tasks\?", "/tasks/"])
@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_at_each_call_is_no_second_reboot(api, provider, vps, rescue, call, kind):
    vps.second_task = "task"
    api.faults.add("GET", PATH + call, kind, times=2)
    task = provider.boot_into(NAME, rescue, baseline_of(provider))
    until(lambda: provider.read_task(NAME, task.id).state == "done")
    assert (asked(api), types(vps)) == (["PUT"], ["setNetboot"])


@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("mode", ["local", "rescue"])
def test_a_switch_that_died_is_found_again(api, provider, vps, rescue, mode, waits):
    vps.netbootMode = mode
    baseline = baseline_of(provider)
    first = provider.boot_into(NAME, rescue, baseline)
    if waits:
        ended(provider, first)
    # By another controller, which has only the baseline.
    again = OvhVps(params(api)).boot_into(NAME, rescue, baseline, may_be_repeat=True)
    assert again.id == first.id
    assert len(vps.jobs) == len(asked(api)) == 1


@pytest.mark.parametrize("mode", ["local", "rescue"])
def test_a_switch_that_was_announced_but_not_asked_for_is_asked_for(provider, vps, rescue, mode):
    vps.netbootMode = mode
    ended(provider, provider.boot_into(NAME, rescue, baseline_of(provider), may_be_repeat=True))
    assert len(vps.jobs) == 1


@pytest.mark.parametrize("old", [False, True])
def test_a_reboot_that_died_is_found_again(provider, vps, old):
    if old:
        make_old(vps)
    baseline = baseline_of(provider)
    task = provider.reboot_hard(NAME, baseline)
    assert provider.reboot_hard(NAME, baseline, may_be_repeat=True).id == task.id
    assert types(vps) == ["rebootVm"]


def test_the_old_model_that_was_set_and_not_rebooted_is_rebooted(api, provider, vps, rescue):
    make_old(vps)
    baseline = baseline_of(provider)
    provider.write_settings(NAME, {"netbootMode": "rescue"})
    ended(provider, provider.boot_into(NAME, rescue, baseline, may_be_repeat=True))
    assert asked(api) == ["PUT", "POST"]
    ended(provider, provider.boot_into(NAME, rescue, baseline, may_be_repeat=True))
    assert asked(api) == ["PUT", "POST"]


def test_a_purged_task_counts_as_done_where_the_mode_has_changed(api, provider, vps, rescue):
    api.faults.add("PUT", PATH, "task_purged")
    baseline = baseline_of(provider)
    provider.boot_into(NAME, rescue, baseline)
    until(lambda: not vps.tasks)
    again = provider.boot_into(NAME, rescue, baseline, may_be_repeat=True)
    assert again == ("netbootMode=rescue", "done", "netbootMode is rescue")
    assert provider.read_task(NAME, again.id) == again
    assert asked(api) == ["PUT"]


def test_a_task_that_is_over_and_purged_at_once_counts_as_done(api, provider, vps, rescue):
    vps.task_seconds = {"todo": 0, "doing": 0}
    api.faults.add("PUT", PATH, "task_purged")
    api.faults.add("GET", r"/tasks\?type=", "delay", seconds=0.2)
    assert provider.boot_into(NAME, rescue, baseline_of(provider)).state == "done"
    assert asked(api) == ["PUT"]


def test_a_put_that_shows_no_task_is_followed_by_its_mode(api, provider, vps, rescue, monkeypatch):
    """Nobody has seen when the real API begins to list the task."""
    monkeypatch.setattr(provider, "new_task", lambda *args: None)
    vps.task_seconds["doing"] = 1.0
    task = provider.boot_into(NAME, rescue, baseline_of(provider))
    assert task == ("netbootMode=rescue", "done", "netbootMode is rescue")
    assert types(vps) == ["setNetboot"]
    api.faults.add("GET", f"{PATH}$", "500")
    assert provider.read_task(NAME, task.id).state == "unknown"


@pytest.mark.parametrize("second", ["conflict", "task"])
def test_another_task_is_waited_for(api, provider, vps, rescue, disk, second):
    """Leaving before entering has ended: the mode that shows is right, and will be wrong."""
    vps.second_task, vps.task_seconds["doing"] = second, 1.0
    provider.boot_into(NAME, rescue, baseline_of(provider))
    baseline = baseline_of(provider)
    assert baseline["mode"] == "local"
    ended(provider, provider.boot_into(NAME, disk, baseline))
    assert (vps.netbootMode, types(vps)) == ("local", ["setNetboot", "setNetboot"])
    assert [boot.kind for boot in vps.booted] == ["rescue", "installed"]


def test_somebody_elses_switch_into_the_same_mode_is_enough(api, provider, vps, rescue):
    vps.task_seconds["doing"] = 0.2
    baseline = baseline_of(provider)
    OvhVps(params(api)).boot_into(NAME, rescue, baseline)
    task = provider.boot_into(NAME, rescue, baseline)
    assert (task.state, vps.netbootMode) == ("done", "rescue")
    assert types(vps) == ["setNetboot"]


@pytest.mark.parametrize("fault", [None, *FAULTS])
@pytest.mark.parametrize("acts", [True, False])
@pytest.mark.parametrize("over", [True, False])
def test_the_wrong_system_came_up_before_the_task_has_ended(api, provider, vps, rescue, fault, acts, over):
    """The next reboot is asked for when the mode still shows the old one; another PUT would then do nothing."""
    vps.task_seconds["doing"] = 0.2
    first = provider.boot_into(NAME, rescue, baseline_of(provider))
    baseline = baseline_of(provider)
    assert baseline["mode"] == "local"
    if over:
        ended(provider, first)
    if fault:
        api.faults.add("POST", PATH, fault, acts=acts)
    ended(provider, provider.boot_into(NAME, rescue, baseline))
    assert types(vps) == ["setNetboot", "rebootVm"]
    assert [boot.kind for boot in vps.booted] == ["rescue", "rescue"]


@pytest.mark.parametrize("mode", ["local", "rescue"])
def test_a_conflict_that_passes_is_no_obstacle(api, provider, vps, rescue, mode):
    vps.netbootMode = mode
    for method in ("PUT", "POST"):
        api.faults.add(method, PATH, "409", times=2)
    ended(provider, provider.boot_into(NAME, rescue, baseline_of(provider)))
    assert len(vps.jobs) == 1
    assert len(asked(api)) == 3


def test_a_call_that_died_while_it_waited_for_an_older_task_has_asked_for_nothing(provider, vps, rescue):
    vps.task_seconds["doing"] = 0.2
    provider.boot_into(NAME, rescue, baseline_of(provider))
    ended(provider, provider.boot_into(NAME, rescue, baseline_of(provider), may_be_repeat=True))
    assert types(vps) == ["setNetboot", "rebootVm"]


@pytest.mark.parametrize("mode", ["local", "rescue"])
@pytest.mark.parametrize("second", ["conflict", "bad_request"])
def test_a_task_that_begins_between_is_waited_for(api, provider, vps, rescue, monkeypatch, mode, second):
    vps.netbootMode, vps.second_task, vps.task_seconds["doing"] = mode, second, 0.2
    baseline = baseline_of(provider)
    real = provider.listed

    def listed(name, states):
        found = real(name, states)
        if not vps.jobs:
            OvhVps(params(api)).reboot_hard(NAME, baseline)
        return found

    monkeypatch.setattr(provider, "listed", listed)
    task = ended(provider, provider.boot_into(NAME, rescue, baseline))
    assert (task.state, vps.netbootMode) == ("done", "rescue")
    # Where it was a reboot that was to be asked for, and the API says that one is under way, that is as good.
    same = mode == "rescue" and second == "conflict"
    assert types(vps) == ["rebootVm", *([] if same else ["setNetboot" if mode == "local" else "rebootVm"])]


def test_a_task_that_never_ends_is_told(provider, vps, rescue, monkeypatch):
    monkeypatch.setattr(OvhVps, "busy_patience", 0.3)
    vps.task_seconds["doing"] = math.inf
    provider.reboot_hard(NAME, baseline_of(provider))
    until(lambda: vps.jobs[0].progress == 70 or vps.jobs[0].state == "doing")
    for ask in (lambda baseline: provider.boot_into(NAME, rescue, baseline), lambda baseline: provider.reboot_hard(NAME, baseline)):
        with pytest.raises(Busy, match="rebootVm doing 0 %"):
            ask(baseline_of(provider))
    assert len(vps.jobs) == 1


def test_a_refusal_that_is_no_conflict_is_told_at_once(api, provider, vps):
    with pytest.raises(ProviderError, match="VpsNetbootEnum"):
        provider.boot_into(NAME, provider.choose(NAME, "rescue")._replace(id="moon"), baseline_of(provider))
    assert asked(api) == ["PUT"]


@pytest.mark.parametrize("mode", ["local", "rescue"])
def test_a_reboot_that_cannot_be_asked_for(api, provider, vps, rescue, mode):
    vps.netbootMode = mode
    for method in ("PUT", "POST"):
        api.faults.add(method, PATH, "500", every=1)
    with pytest.raises(ProviderError, match=f"when asked to reboot {NAME} into the mode rescue"):
        provider.boot_into(NAME, rescue, baseline_of(provider))
    assert vps.jobs == []


# Tasks


@pytest.mark.parametrize(("state", "ours"), [
    ("todo", "queued"), ("doing", "running"), ("paused", "running"), ("waitingAck", "queued"), ("blocked", "failed"),
    ("done", "done"), ("cancelled", "failed"), ("error", "failed")])
def test_states_of_a_task(provider, vps, state, ours):
    task = provider.reboot_hard(NAME, baseline_of(provider))
    ended(provider, task)
    vps.jobs[0].state, vps.jobs[0].progress = state, 35
    found = provider.read_task(NAME, task.id)
    assert (found.state, found.text) == (ours, f"rebootVm {state} 35 %")
    assert [t.id for t in provider.unfinished_tasks(NAME)] == ([task.id] if ours in OPEN or state == "blocked" else [])


def test_a_state_of_the_future_is_no_evidence(provider, vps):
    task = provider.reboot_hard(NAME, baseline_of(provider))
    ended(provider, task)
    vps.jobs[0].state = "pondering"
    assert provider.read_task(NAME, task.id).state == "unknown"


@pytest.mark.parametrize("kind", ["task_purged", *FAULTS])
def test_a_task_that_cannot_be_read_is_no_evidence(api, provider, vps, rescue, kind):
    if kind == "task_purged":
        api.faults.add("PUT", PATH, kind)
    task = provider.boot_into(NAME, rescue, baseline_of(provider))
    until(lambda: vps.jobs[0].state == "done")
    if kind != "task_purged":
        api.faults.add("GET", "/tasks/", kind, every=1)
    assert provider.read_task(NAME, task.id).state == "unknown"


@pytest.mark.parametrize("ends", ["error", "blocked", "cancelled"])
def test_a_task_that_failed_can_be_followed_by_another(api, provider, vps, rescue, ends):
    api.faults.add("PUT", PATH, "task_ends", status=ends)
    assert ended(provider, provider.boot_into(NAME, rescue, baseline_of(provider))).state == "failed"
    assert ended(provider, provider.boot_into(NAME, rescue, baseline_of(provider))).state == "done"
    assert [boot.kind for boot in vps.booted] == ["rescue"]


# Rights, the console


@pytest.mark.parametrize(("rules", "missing"), [
    ([("GET", "/vps/*")], [f"PUT {PATH}", f"POST {PATH}/reboot", "GET /me/notification/email/history"]),
    (MINIMUM_RULES, []),
    ([("GET", "*"), ("PUT", "*"), ("POST", "*")], []),
    ([*MINIMUM_RULES[:-1]], ["GET /me/notification/email/history"]),
    ([*MINIMUM_RULES[:-1], ("GET", "/me/notification/email/history")], ["GET /me/notification/email/history/1"]),
    ([("GET", "*"), ("PUT", "/vps/other*"), ("POST", "/vps/*/reboot")], [f"PUT {PATH}"]),
])
def test_missing_rights_are_named_before_anything_changes(api, rules, missing):
    provider = OvhVps(params(api, api.add_credential(rules)))
    if not missing:
        provider.check_rights(NAME)
        return
    with pytest.raises(NotAllowed) as caught:
        provider.check_rights(NAME)
    assert all(right in caught.value.what for right in missing)
    assert "PUT /vps/*" in caught.value.todo and "/dedicated" not in caught.value.todo


def test_rights_that_nobody_may_read_are_no_obstacle_until_the_mails_are_needed(api):
    api.current_credential_needs_rule = True
    provider = OvhVps(params(api, api.add_credential([("GET", "/vps/*")])))
    provider.check_rights(NAME)
    with pytest.raises(NotAllowed, match="history"):
        provider.credentials_baseline(NAME)


def test_the_console(api, provider):
    assert provider.console_url(NAME).startswith("https://console.example/")
    assert OvhVps(params(api, api.add_credential(MINIMUM_RULES))).console_url(NAME) is None


def test_no_secret_in_the_representation(api, provider):
    assert not any(secret in repr(provider) + str(vars(provider)) for secret in api.sensitive())


# The rescue system's password


def into_rescue(provider, vps):
    """Boot the rescue system; the password that it has."""
    task = provider.boot_into(NAME, provider.choose(NAME, "rescue"), provider.reboot_baseline(NAME))
    ended(provider, task)
    return vps.booted[-1].password


@pytest.mark.parametrize("mail", [
    MailOptions(), MailOptions(language="fr"), MailOptions(language="de"), MailOptions(plain_password=True),
    MailOptions(language="fr", plain_password=True), MailOptions(language="de", plain_password=True),
    MailOptions(unrelated=5), MailOptions(unrelated=3, plain_password=True), MailOptions(delay=0.1),
], ids=lambda mail: f"{mail.language}-{mail.plain_password}-{mail.unrelated}-{mail.delay}")
def test_a_password_by_mail(api, provider, vps, mail):
    vps.mail = mail
    into_rescue(provider, vps)  # its mail is too old for the next one
    until(lambda: len(api.mails) == 1 + mail.unrelated)
    baseline = json.loads(json.dumps(provider.credentials_baseline(NAME)))
    assert provider.read_credentials(NAME, baseline) is None
    password = into_rescue(provider, vps)
    found = until(lambda: provider.read_credentials(NAME, baseline))
    assert (found.user, found.password) == ("root", password)
    assert not any(secret in json.dumps(baseline) for secret in api.sensitive())


def test_a_mail_that_never_comes(api, provider, vps):
    vps.mail = MailOptions(delay=math.inf)
    baseline = provider.credentials_baseline(NAME)
    into_rescue(provider, vps)
    assert provider.read_credentials(NAME, baseline) is None


def test_mails_that_give_nothing_away(api, provider):
    baseline = provider.credentials_baseline(NAME)
    for subject, body in ((f"[{NAME}] Your bill", "It is high."), ("rescue mode", "password: not-yours"),
                          (f"[{NAME}] rescue", "password: "), (f"[{NAME}] rescue", f"secret/#?id={'0' * 36}"),
                          (f"[x{NAME}] rescue", "password: not-yours"), (f"[{NAME}.example] rescue", "password: not-yours"),
                          (f"[other.{NAME}] rescue", "password: not-yours")):
        api.add_mail(subject, body)
    assert provider.read_credentials(NAME, baseline) is None


@pytest.mark.parametrize("subject", [f"[xx00000-ovh] [{NAME}] Rescue", f"Rescue: {NAME}", f"Rescue of {NAME}."])
def test_the_name_may_stand_anywhere(api, provider, subject):
    baseline = provider.credentials_baseline(NAME)
    api.add_mail(subject, "<p>user: root<br/>password: s3cret<br /></p>")
    assert provider.read_credentials(NAME, baseline) == ("root", "s3cret")


@pytest.mark.parametrize("kind", FAULTS)
def test_mails_that_cannot_be_read_are_no_empty_history(api, provider, kind):
    """Or an old mail would be taken for the new one."""
    api.add_mail(f"[{NAME}] rescue", "password: the-old-one")
    api.faults.add("GET", "/history$", kind, every=1)
    with pytest.raises(ProviderError):
        provider.credentials_baseline(NAME)


def test_calls_are_few(api, provider, vps, rescue):
    """The cost of a switch besides its waits."""
    baseline = baseline_of(provider)
    api.log.clear()
    provider.boot_into(NAME, rescue, baseline)
    assert collections.Counter(call.method for call in api.log) == {"GET": 7, "PUT": 1}
