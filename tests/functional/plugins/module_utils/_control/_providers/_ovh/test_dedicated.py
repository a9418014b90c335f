# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The provider, by OVH's own client, against the lab's API."""

from __future__ import annotations

import collections
import json
import os
import subprocess
import sys

import pytest

from ansible_collections.lifeboat.rescue.plugins.module_utils._control._providers import _calls
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._providers._base import HARDDISK, OPEN, RESCUE, BootOption, Refused
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._providers._ovh._dedicated import OvhDedicated
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._providers._registry import PROVIDERS, make_provider
from ansible_collections.lifeboat.rescue.plugins.module_utils._errors import (
    BadInput,
    NotAllowed,
    NotFound,
    ProviderError,
)
from ansible_collections.lifeboat.rescue.plugins.module_utils._wait import Backoff
from lifeboat_lab.ovh_api import MailOptions, OvhApi, Server, boot_entries
from lifeboat_lab.unkind import Unkind
from lifeboat_lab.waiting import until

NAME = "ns100001.ip-192-0-2.eu"
PATH = f"/dedicated/server/{NAME}"
FAULTS = ["404", "429", "500", "503-html", "reset"]
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ" + 42 * "0"


@pytest.fixture(autouse=True)
def alone(monkeypatch, nobody):
    """No credentials of the person who runs the tests, and no patience of minutes."""
    monkeypatch.setattr(_calls, "Backoff", lambda first, longest, factor: Backoff(0.005, 0.02))
    monkeypatch.setattr(OvhDedicated, "patience", 1.0)
    monkeypatch.setattr(OvhDedicated, "facts", OvhDedicated.facts._replace(lag=0.1))


def params(api, credential=None):
    return {"ovh_endpoint": api.url,
            **{f"ovh_{name}": value for name, value in (credential or api.credential).client_arguments().items()}}


@pytest.fixture
def provider(api):
    return OvhDedicated(params(api))


def counted(api):
    return collections.Counter(call.method for call in api.log)


# Reading


def test_a_server_is_read_by_one_call(api, provider, server):
    server.rescueMail, server.monitoring = "someone@example.org", False
    api.log.clear()
    found = provider.read_server(NAME)
    assert (found.name, found.address, found.boot) == (NAME, "127.0.0.1", "1")
    assert found.settings == {"bootId": 1, "rescueSshKey": None, "rescueMail": "someone@example.org", "monitoring": False,
                              "noIntervention": False}
    assert len(api.log) - sum("/auth/time" in call.path for call in api.log) == 1


@pytest.mark.parametrize("name", ["ns1.example", "../server", "ns100001.ip-192-0-2.eu/boot", "a b", "ns?x=1", ""])
def test_an_unknown_server_lists_those_that_there_are(provider, name):
    with pytest.raises(NotFound, match="knows no dedicated server") as caught:
        provider.read_server(name)
    assert caught.value.todo == f"These credentials see: {NAME}."


def test_an_unknown_server_by_a_key_that_may_not_list(api):
    provider = OvhDedicated(params(api, api.add_credential([("GET", "/dedicated/server/*")])))
    with pytest.raises(NotFound, match="may not list"):
        provider.read_server("ns1.example")


@pytest.mark.parametrize("kind", FAULTS)
def test_faults_that_pass_are_nobodys_concern(api, provider, server, kind):
    """Every third call of all fails; each thing is done once."""
    api.faults.add("*", ".", kind, every=3)
    found = provider.read_server(NAME)
    option = provider.choose(NAME, "best")
    provider.check_rights(NAME)
    assert provider.unfinished_tasks(NAME) == []
    provider.write_settings(NAME, provider.rescue_settings(found, option, KEY, {}))
    assert (server.bootId, server.rescueSshKey, server.noIntervention) == (int(option.id), KEY, True)
    task = provider.reboot_hard(NAME, provider.reboot_baseline(NAME))
    until(lambda: provider.read_task(NAME, task.id).state == "done")
    assert len(server.reboots) == 1
    assert provider.list_servers() == [NAME]


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_that_stays_is_told(api, provider, kind):
    api.faults.add("GET", "/boot$", kind, every=1)
    with pytest.raises(ProviderError) as caught:
        provider.boot_options(NAME)
    assert isinstance(caught.value, NotFound) == (kind == "404")
    if kind != "404":
        assert "failed for 1 s at GET /dedicated/server/ns100001" in caught.value.what


@pytest.mark.parametrize(("kind", "error", "code", "what", "todo"), [
    ("400", Refused, "provider_error", "refused PUT .*Given data is not valid", "look whether another job"),
    ("401", NotAllowed, "not_allowed", "You must login first", "Check ovh_application_key"),
    ("403", NotAllowed, "not_allowed", "may not PUT .*has not been granted", "It needs: GET"),
    ("403-plain", NotAllowed, "not_allowed", "refused PUT .*Forbidden", "It needs: GET"),
    ("403-string", NotAllowed, "not_allowed", "in words that OVH's client cannot read", "Check ovh_application_key"),
    ("iam", NotAllowed, "not_allowed", "not authorized for this action", "It needs: GET"),
    ("forbidden", NotAllowed, "not_allowed", "may not PUT .*is forbidden", "It needs: GET"),
    ("not-credential", NotAllowed, "not_allowed", "not valid: .*does not exist", "Check ovh_application_key"),
    ("invalid-key", NotAllowed, "not_allowed", "not valid: .*application key is invalid", "Check ovh_application_key"),
    ("invalid-credential", NotAllowed, "not_allowed", "not valid: .*credential is not valid", "Check ovh_application_key"),
    ("invalid-signature", NotAllowed, "not_allowed", "not valid: .*Invalid signature", "the secret that signs"),
    ("404", NotFound, "not_found", "This service does not exist", "may have ended meanwhile"),
    ("409", Refused, "provider_error", "refused PUT .*already running", "look at its tasks"),
    ("460", ProviderError, "provider_error", "has expired", "Renew it"),
    ("429", ProviderError, "provider_error", "failed for 1 s at PUT .*Too many requests", "Try again later"),
    ("500", ProviderError, "provider_error", "failed for 1 s at PUT .*Internal server error", "Try again later"),
    ("503-html", ProviderError, "provider_error", "failed for 1 s at PUT ", "Try again later"),
    ("reset", ProviderError, "provider_error", "failed for 1 s at PUT .*ConnectionError", "Try again later"),
    ("empty", ProviderError, "provider_error", "failed for 1 s at PUT ", "Try again later"),
])
def test_each_failure_ends_in_words(api, provider, server, kind, error, code, what, todo):
    """All that OVH's client tells apart, and what it cannot read: what failed, by which call, and what to do."""
    api.faults.add("PUT", ".", kind, every=1)
    with pytest.raises(error, match=what) as caught:
        provider.write_settings(NAME, {"monitoring": False})
    assert caught.value.code == code
    assert todo in caught.value.todo and "\n" not in str(caught.value)
    assert not any(secret in str(caught.value) for secret in api.sensitive())
    assert server.monitoring is True


@pytest.mark.parametrize("kind", ["409", "460"])
def test_a_refusal_is_told_at_once(api, provider, kind):
    api.faults.add("PUT", ".", kind, every=1)
    with pytest.raises(ProviderError):
        provider.write_settings(NAME, {"monitoring": False})
    assert counted(api)["PUT"] == 1


def test_boot_options_and_one_of_them(provider):
    options = provider.boot_options(NAME)
    assert [(o.kind, o.name) for o in options] == [
        ("harddisk", "hd"), ("rescue", "ipxe-shell"), ("rescue", "rescue12-customer"), ("poweroff", "poweroff")]
    assert provider.boot_option(NAME, options[2].id) == options[2]
    with pytest.raises(NotFound):
        provider.boot_option(NAME, "999")


@pytest.mark.parametrize(("kernels", "best"), [
    (("rescue12-customer",), "rescue12-customer"),
    (("rescue-customer", "rescue12-customer"), "rescue12-customer"),
    (("rescue9-customer", "rescue12-customer", "rescue11-customer"), "rescue12-customer"),
    (("rescue64-pro", "rescue-customer"), "rescue-customer"),
    (("rescue64-pro",), "rescue64-pro"),
])
def test_the_best_rescue_system_is_the_newest_one_for_linux(api, kernels, best):
    api.add(Server("ns2", boots=boot_entries(2, kernels, windows=True)))
    provider = OvhDedicated(params(api))
    for word in ("best", "rescue"):
        assert provider.choose("ns2", word).name == best


def test_choosing(api, provider, server):
    server.boots = boot_entries(1, windows=True)
    assert provider.choose(NAME, "harddisk").id == "1"
    assert provider.choose(NAME, "1").kind == HARDDISK
    assert provider.choose(NAME, "rescue12-customer").kind == RESCUE
    assert provider.choose(NAME, "poweroff").name == "poweroff"
    assert [option.name for option in provider.boot_options(NAME) if provider.is_windows(option)] == ["WinRescue"]
    assert provider.choose(NAME, "windows").name == "WinRescue"
    shell = provider.choose(NAME, "ipxe-shell")
    assert shell == provider.choose(NAME, shell.id)
    assert provider.rescue_rank(shell) is provider.rescue_rank(provider.choose(NAME, "WinRescue")) is None


@pytest.mark.parametrize("wanted", ["rescue99", "999", "", "windows"])
def test_a_choice_that_is_none_lists_what_there_is(provider, wanted):
    with pytest.raises(BadInput) as caught:
        provider.choose(NAME, wanted)
    for offered in ("hd (harddisk, id 1)", "ipxe-shell (rescue", "rescue12-customer (rescue", "poweroff (poweroff"):
        assert offered in caught.value.todo


def test_no_linux_rescue_at_all(api):
    api.add(Server("ns2", boots=boot_entries(2, (), windows=True)))
    with pytest.raises(BadInput, match="offers no boot option 'best'") as caught:
        OvhDedicated(params(api)).choose("ns2", "best")
    assert "ipxe-shell" in caught.value.todo


# Writing


@pytest.mark.parametrize("empty", [None, ""])
@pytest.mark.parametrize("null_clears", [True, False])
def test_a_key_is_cleared_and_known_as_cleared(provider, server, empty, null_clears):
    server.empty_reads_as, server.null_clears, server.rescueSshKey = empty, null_clears, KEY
    provider.write_settings(NAME, {"rescueSshKey": None})
    assert not server.rescueSshKey
    now = provider.read_server(NAME).settings["rescueSshKey"]
    assert provider.same_setting("rescueSshKey", None, now) and provider.same_setting("rescueSshKey", "", now)
    assert not provider.same_setting("rescueSshKey", KEY, now)
    assert not provider.same_setting("monitoring", False, None)


def test_a_boot_option_that_is_shown_as_text_is_written_as_a_number(provider, server):
    server.unkind = Unkind(text_ids=True)
    before = provider.read_server(NAME)
    assert (before.boot, before.settings["bootId"]) == ("1", 1)
    option = provider.choose(NAME, "rescue")
    provider.write_settings(NAME, provider.boot_settings(option))
    found = provider.read_server(NAME)
    assert found.boot == option.id and provider.same_setting("bootId", found.settings["bootId"], int(option.id))
    provider.write_settings(NAME, {"bootId": before.settings["bootId"]})
    assert server.bootId == 1


def test_a_flag_that_was_null_is_restored(provider, server):
    server.unkind = Unkind(null_fields=["noIntervention"])
    before = provider.read_server(NAME).settings["noIntervention"]
    assert before is None
    server.unkind = Unkind()
    provider.write_settings(NAME, {"noIntervention": True})
    assert not provider.same_setting("noIntervention", True, before)
    provider.write_settings(NAME, {"noIntervention": before})
    assert server.noIntervention is False
    assert provider.same_setting("noIntervention", provider.read_server(NAME).settings["noIntervention"], before)
    # That it is not shown is no sign that it is not set.
    assert not provider.same_setting("noIntervention", None, False)


def test_what_is_wanted_of_a_server_in_rescue(provider):
    server, option = provider.read_server(NAME), BootOption("42", RESCUE, "rescue12-customer")
    assert provider.rescue_settings(server, option, KEY, {}) == {"bootId": 42, "rescueSshKey": KEY, "noIntervention": True}
    assert provider.rescue_settings(server, option, None, {"rescue_mail": "a@b", "hold_interventions": False}) == {
        "bootId": 42, "rescueSshKey": "", "rescueMail": "a@b"}


def test_what_is_restored_after_somebody_left_it_armed(provider, server):
    assert provider.restorable_settings(provider.read_server(NAME)) == provider.read_server(NAME).settings
    server.bootId = server.boot("rescue12-customer").bootId
    server.rescueSshKey = f"{KEY} lifeboat.rescue-0123"
    server.noIntervention = True
    restored = provider.restorable_settings(provider.read_server(NAME))
    assert (restored["bootId"], restored["rescueSshKey"]) == (1, None)
    server.rescueSshKey = f"{KEY} somebody@example"
    assert provider.restorable_settings(provider.read_server(NAME))["rescueSshKey"] == server.rescueSshKey


# Rebooting


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("acts", [True, False])
def test_a_lost_answer_is_no_second_reboot(api, provider, server, kind, acts):
    provider.reboot_hard(NAME, provider.reboot_baseline(NAME))  # an older one is not taken for ours
    baseline = provider.reboot_baseline(NAME)
    api.faults.add("POST", "/reboot$", kind, acts=acts)
    task = provider.reboot_hard(NAME, baseline)
    assert len(server.reboots) == 2
    assert task.id == str(server.reboots[1].taskId)


def test_a_reboot_that_died_is_found_again(provider, server):
    baseline = json.loads(json.dumps(provider.reboot_baseline(NAME)))
    task = provider.reboot_hard(NAME, baseline)
    assert provider.reboot_hard(NAME, baseline, may_be_repeat=True).id == task.id
    assert len(server.reboots) == 1


def test_a_reboot_that_was_announced_but_not_asked_for_is_asked_for(provider, server):
    provider.reboot_hard(NAME, provider.reboot_baseline(NAME), may_be_repeat=True)
    assert len(server.reboots) == 1


def test_a_reboot_that_cannot_be_asked_for(api, provider, server):
    api.faults.add("POST", "/reboot$", "500", every=1)
    with pytest.raises(ProviderError, match="when asked to reboot"):
        provider.reboot_hard(NAME, provider.reboot_baseline(NAME))
    assert server.reboots == []


@pytest.mark.parametrize(("status", "state"), [
    ("init", "queued"), ("todo", "queued"), ("doing", "running"), ("done", "done"), ("cancelled", "failed"),
    ("customerError", "failed"), ("ovhError", "failed")])
def test_states_of_a_task(provider, server, status, state):
    task = provider.reboot_hard(NAME, provider.reboot_baseline(NAME))
    until(lambda: server.reboots[0].status == "done")
    server.reboots[0].status = status
    found = provider.read_task(NAME, task.id)
    assert found.state == state
    assert found.text == f"hardReboot {status} (Reboot asked)"
    assert [t.id for t in provider.unfinished_tasks(NAME)] == ([task.id] if state in OPEN else [])


def test_a_status_of_the_future_is_no_evidence(provider, server):
    task = provider.reboot_hard(NAME, provider.reboot_baseline(NAME))
    until(lambda: server.reboots[0].status == "done")
    server.reboots[0].status = "pondering"
    assert provider.read_task(NAME, task.id).state == "unknown"


@pytest.mark.parametrize("kind", ["task_purged", *FAULTS])
def test_a_task_that_cannot_be_read_is_no_evidence(api, provider, server, monkeypatch, kind):
    # Longer than it takes on a busy machine until it is asked for.
    monkeypatch.setattr(OvhDedicated, "facts", OvhDedicated.facts._replace(lag=0.6))
    if kind == "task_purged":
        api.faults.add("POST", "/reboot$", kind)
    task = provider.reboot_hard(NAME, provider.reboot_baseline(NAME))
    until(lambda: server.reboots[0].status == "done")
    if kind == "task_purged":
        until(lambda: not server.tasks)
    else:
        api.faults.add("GET", "/task/", kind, every=1)
    # At first it may be one that the API does not show yet.
    assert provider.read_task(NAME, task.id).state == "queued"
    until(lambda: provider.read_task(NAME, task.id).state == "unknown")
    assert OvhDedicated(params(api)).read_task(NAME, task.id).state == "unknown"


def test_who_waits_for_an_api_that_fails_is_told(api, provider):
    """Not of one failure, which passes; and once of each."""
    lines = []
    provider.notice = lines.append
    api.faults.add("GET", f"/{NAME}$", "500")
    provider.read_server(NAME)
    assert lines == []
    api.faults.add("GET", f"/{NAME}$", "500", times=3)
    provider.read_server(NAME)
    assert len(lines) == 2 and all("the API fails (Internal server error" in line and "tried for 1 s" in line for line in lines)


# Rights and credentials


def test_a_consumer_key_that_is_not_given_is_named(api):
    with pytest.raises(BadInput, match="ovh_consumer_key is not given"):
        OvhDedicated({**params(api), "ovh_consumer_key": None})


@pytest.mark.parametrize(("rules", "missing"), [
    ([("GET", "/dedicated/server/*")], ["PUT", "POST"]),
    ([("GET", "/dedicated/server/*"), ("PUT", "/dedicated/server/*")], ["POST"]),
    ([("GET", "*"), ("PUT", "*"), ("POST", "*")], []),
    ([("GET", "/dedicated/server/*"), ("PUT", f"{PATH}"), ("POST", f"{PATH}/reboot")], []),
    ([("GET", "/dedicated/server/*"), ("PUT", "/dedicated/server/other*"), ("POST", "/dedicated/server/*/reboot")], ["PUT"]),
])
def test_missing_rights_are_named_before_anything_changes(api, rules, missing):
    provider = OvhDedicated(params(api, api.add_credential(rules)))
    if not missing:
        provider.check_rights(NAME)
        return
    with pytest.raises(NotAllowed) as caught:
        provider.check_rights(NAME)
    for method, path in (("PUT", PATH), ("POST", f"{PATH}/reboot")):
        assert (f"{method} {path}" in caught.value.what) == (method in missing)
    assert "PUT /dedicated/server/*" in caught.value.todo


def test_rights_that_nobody_may_read_are_no_obstacle(api):
    api.current_credential_needs_rule = True
    OvhDedicated(params(api, api.add_credential([("GET", "/dedicated/server/*")]))).check_rights(NAME)


def test_a_call_that_is_not_granted_names_it(api):
    provider = OvhDedicated(params(api, api.add_credential([("GET", "/dedicated/server/*")])))
    with pytest.raises(NotAllowed, match=f"may not PUT {PATH}"):
        provider.write_settings(NAME, {"monitoring": False})


@pytest.mark.parametrize("wrong", ["application_key", "application_secret", "consumer_key"])
def test_credentials_that_are_wrong(api, wrong):
    provider = OvhDedicated({**params(api), f"ovh_{wrong}": "wrong0wrong"})
    with pytest.raises(NotAllowed, match=r"not valid|is invalid") as caught:
        provider.read_server(NAME)
    assert "Check ovh_application_key" in caught.value.todo
    assert counted(api)["GET"] <= 2
    assert not any(secret in str(caught.value) for secret in api.sensitive())


@pytest.mark.parametrize(("given", "words"), [
    ({}, "ovh_endpoint"),
    ({"ovh_endpoint": "ovh-moon"}, "ovh-eu"),
    ({"ovh_endpoint": "ovh-eu"}, "ovh_application_key"),
    ({"ovh_endpoint": "ovh-eu", "ovh_application_key": "x", "ovh_client_id": "y"}, "ovh_application_key"),
])
def test_credentials_that_are_not_complete(given, words):
    with pytest.raises(BadInput) as caught:
        OvhDedicated(given)
    assert words in caught.value.todo


def test_credentials_from_a_file_and_from_the_environment(api, tmp_path, monkeypatch):
    keys = api.credential.client_arguments()
    (tmp_path / "my.conf").write_text(f"[default]\nendpoint={api.url}\n[{api.url}]\n"
                                      + "".join(f"{name}={value}\n" for name, value in keys.items()))
    assert OvhDedicated({"ovh_config_file": str(tmp_path / "my.conf")}).list_servers() == [NAME]
    for name, value in {"endpoint": api.url, **keys}.items():
        monkeypatch.setenv(f"OVH_{name.upper()}", value)
    assert OvhDedicated({}).list_servers() == [NAME]


def test_the_library_that_is_missing():
    script = """
import sys
sys.modules["ovh"] = None
from ansible_collections.lifeboat.rescue.plugins.module_utils._errors import MissingLibrary
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._providers._registry import make_provider
from ansible_collections.lifeboat.rescue.plugins.module_utils._control import _entry
try:
    make_provider({"provider": "ovh_dedicated"})
except MissingLibrary as exc:
    print(exc)
params = {"provider": "ovh_dedicated", "server": "x", "session_dir": "/nonexistent"}
result = _entry.run("rescue_mode_info", params, False, print)
print(result["failed"], result["changed"], result["failure"]["code"])
"""
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}).stdout
    assert "The Python library ovh is not installed" in said and "-m pip install ovh" in said
    assert said.endswith("True False missing_library\n")


def test_the_registry():
    assert "ovh_dedicated" in PROVIDERS
    for given in ({}, {"provider": None}):
        with pytest.raises(BadInput, match="No provider is given") as caught:
            make_provider(given)
        assert "ovh_dedicated" in caught.value.todo


# The rescue system's password


def into_rescue(provider, server, key=None):
    """Boot the rescue system; the password that it has."""
    provider.write_settings(NAME, {"bootId": server.boot("rescue12-customer").bootId, "rescueSshKey": key})
    provider.reboot_hard(NAME, provider.reboot_baseline(NAME))
    boots = len(server.booted)
    return until(lambda: server.booted[boots:])[0].password


def test_a_password_by_secret(api, provider, server):
    server.mail = MailOptions(delay=float("inf"))
    baseline = json.loads(json.dumps(provider.credentials_baseline(NAME)))
    assert provider.read_credentials(NAME, baseline) is None
    password = into_rescue(provider, server)
    found = provider.read_credentials(NAME, baseline)
    assert (found.user, found.password) == ("root", password)


def test_a_baseline_holds_no_secret_and_no_id_of_one(api, provider, server):
    into_rescue(provider, server)
    baseline = json.dumps(provider.credentials_baseline(NAME))
    assert api.secrets and not any(secret in baseline for secret in api.sensitive())


def test_a_secret_of_before_is_not_taken(api, provider, server, monkeypatch):
    into_rescue(provider, server)
    server.mail = MailOptions(delay=float("inf"))
    # The lab gives out a new id each time. Whether OVH does nobody knows: here it does not.
    monkeypatch.setattr(api, "_new_secret", lambda value: next(n for n, secret in api.secrets.items() if secret.value == value))
    baseline = provider.credentials_baseline(NAME)
    assert provider.read_credentials(NAME, baseline) is None


@pytest.mark.parametrize("mail", [
    MailOptions(), MailOptions(language="fr"), MailOptions(plain_password=True),
    MailOptions(language="fr", plain_password=True), MailOptions(unrelated=5), MailOptions(unrelated=3, plain_password=True),
], ids=lambda mail: f"{mail.language}-{mail.plain_password}-{mail.unrelated}")
def test_a_password_by_mail(api, provider, server, mail):
    server.secret_delay, server.mail = float("inf"), mail
    into_rescue(provider, server)  # its mail is too old for the next one
    until(lambda: len(api.mails) == 1 + mail.unrelated)
    baseline = provider.credentials_baseline(NAME)
    assert provider.read_credentials(NAME, baseline) is None
    password = into_rescue(provider, server)
    found = until(lambda: provider.read_credentials(NAME, baseline))
    assert (found.user, found.password) == ("root", password)


def test_mails_that_give_nothing_away(api, provider):
    baseline = provider.credentials_baseline(NAME)
    for subject, body in ((f"[{NAME}] Your bill", "It is high."), ("Linux rescue mode", "password: not-yours"),
                          (f"[{NAME}] rescue", "password: "), (f"[{NAME}] rescue", f"secret/#?id={'0' * 36}")):
        api.add_mail(subject, body)
    assert provider.read_credentials(NAME, baseline) is None


def mails_read(api):
    return [call.path for call in api.log if "/history/" in call.path]


def test_a_mail_of_no_use_is_read_once(api, provider):
    baseline = provider.credentials_baseline(NAME)
    for number in range(3):
        api.add_mail(f"[ns{number}.example.net] Your bill", "It is high.")
    for _poll in range(2):
        assert provider.read_credentials(NAME, baseline) is None
    assert len(mails_read(api)) == 3


def test_mails_that_cannot_be_read_hold_nobody_up(api, provider, server):
    """The wait for the password comes again; each of them in the API's whole patience would be longer than any wait."""
    server.secret_delay = float("inf")
    baseline = provider.credentials_baseline(NAME)
    for number in range(3):
        api.add_mail(f"[{NAME}] rescue {number}", "password: not-read")
    api.faults.add("GET", "/history/", "500", every=1)
    assert provider.read_credentials(NAME, baseline) is None
    assert len(mails_read(api)) == 1
    assert "failed when it was asked for the password" in provider.login_words(NAME, None)
    api.faults.clear()
    assert provider.read_credentials(NAME, baseline).password == "not-read"
    assert "failed" not in provider.login_words(NAME, None)


def test_an_older_password_is_not_taken_for_the_newest(api, provider, server):
    server.secret_delay = float("inf")
    baseline = provider.credentials_baseline(NAME)
    for password in ("older", "newest"):
        api.add_mail(f"[{NAME}] rescue", f"password: {password}")
    api.faults.add("GET", "/history/", "500", times=1)
    assert provider.read_credentials(NAME, baseline) is None
    assert provider.read_credentials(NAME, baseline).password == "newest"


def test_a_mail_of_before_is_not_taken_where_the_mails_could_not_be_read(api, provider, server):
    """A right that is granted meanwhile shows mails of which nobody knows whether they were there."""
    server.secret_delay = float("inf")
    api.add_mail(f"[{NAME}] rescue", "password: last-year")
    api.mails[-1].date = "2025-11-29T03:00:00+00:00"
    api.faults.add("GET", "/history$", "403", every=1)
    baseline = json.loads(json.dumps(provider.credentials_baseline(NAME)))
    api.faults.clear()
    assert provider.read_credentials(NAME, baseline) is None
    api.add_mail(f"[{NAME}] rescue", "password: new")
    api.mails[-1].date = api.date(api.now() + 2)  # its dates have whole seconds
    assert provider.read_credentials(NAME, baseline).password == "new"


WAYS = [("GET", "/history$"), ("POST", "/authenticationSecret$")]


@pytest.mark.parametrize(("method", "path"), WAYS)
def test_one_of_the_two_ways_is_enough(api, provider, server, method, path):
    api.faults.add(method, path, "403", every=1)
    baseline = json.loads(json.dumps(provider.credentials_baseline(NAME)))
    password = into_rescue(provider, server)
    assert until(lambda: provider.read_credentials(NAME, baseline)).password == password


@pytest.mark.parametrize(("method", "path"), WAYS)
def test_what_was_there_before_must_be_known(api, provider, method, path):
    """It is asked before anything goes down."""
    api.faults.add(method, path, "500", every=1)
    with pytest.raises(ProviderError, match="The OVH API failed for 1 s"):
        provider.credentials_baseline(NAME)


def test_a_key_that_may_read_neither_secret_nor_mail(api):
    """It is told before anything goes down."""
    rules = [("GET", "/dedicated/server/*"), ("PUT", "/dedicated/server/*"), ("POST", "/dedicated/server/*/reboot")]
    provider = OvhDedicated(params(api, api.add_credential(rules)))
    with pytest.raises(NotAllowed, match=r"authenticationSecret.*history") as caught:
        provider.credentials_baseline(NAME)
    assert "POST /dedicated/server/*/authenticationSecret" in caught.value.todo


def test_what_was_refused_and_what_failed_is_named_once(api, provider):
    baseline = provider.credentials_baseline(NAME)
    api.faults.add("GET", "/history$", "403", every=1)
    api.faults.add("POST", "/authenticationSecret$", "500", every=1)
    for _poll in range(2):
        assert provider.read_credentials(NAME, baseline) is None
    words = provider.login_words(NAME, None)
    assert words.count("Internal server error") == words.count("may not GET /me/notification/email/history") == 1


def test_no_secret_in_the_representation(api, provider):
    assert not any(secret in repr(provider) + str(vars(provider)) for secret in api.sensitive())


def test_two_accounts_at_two_urls(server, api):
    with OvhApi([Server("ns2", ip="192.0.2.2")], rules=[("GET", "*")]) as other:
        assert OvhDedicated(params(other)).list_servers() == ["ns2"]
        assert OvhDedicated(params(api)).list_servers() == [NAME]
