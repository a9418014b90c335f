# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The modules, by Ansible, with a clouds.yaml of a real keystone; and one machine that really boots."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from lifeboat_lab.demo import LOCKED_OUT, Demo
from lifeboat_lab.images import File
from lifeboat_lab.world import World, result_of

pytest_plugins = "lifeboat_lab.nova.fixtures"

NOTE = "lifeboat_rescue_image"
NEW_PASSWORD = "correct horse battery 9"


@pytest.fixture
def module(nova, tmp_path):
    """Run a module for the server web1 as a user of clouds.yaml; its result."""
    home = tmp_path / "ansible"
    home.mkdir()
    (home / "ansible.cfg").touch()
    inventory = tmp_path / "inventory.ini"
    inventory.write_text(f"web1 lifeboat_provider=openstack lifeboat_server=web1 lifeboat_session_dir={tmp_path}/sessions "
                         "lifeboat_connect_timeout=1 ansible_python_interpreter=/usr/bin/python3\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OS_")}

    def run(name, arguments="", *more, user="member", clouds=nova.clouds_yaml):
        done = subprocess.run(["ansible", "-i", inventory, "web1", "-m", f"lifeboat.rescue.{name}", "-a", arguments, *more],
                              stdin=subprocess.DEVNULL, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600,
                              check=False, env={**environment, "OS_CLIENT_CONFIG_FILE": str(clouds), "OS_CLOUD": user,
                                                "ANSIBLE_HOME": str(home), "ANSIBLE_CONFIG": str(home / "ansible.cfg"),
                                                "ANSIBLE_NOCOLOR": "1", "HOME": str(tmp_path)})
        assert nova.password not in done.stdout
        return result_of(done.stdout)

    return run


CONSOLE = "state=present login=console"


def test_into_rescue_and_what_is_told_of_it(nova, make_server, module):
    server = make_server(address="127.0.0.63")
    before = module("rescue_mode_info")
    assert (before["failed"], before["armed"], before["boot"]["id"]) == (False, False, "harddisk")
    planned = module("rescue_mode", CONSOLE, "--check")
    assert (planned["failed"], planned["changed"]) == (False, True)
    assert nova.actions(server) == ["create"]

    done = module("rescue_mode", CONSOLE)
    assert (done["failed"], done["changed"], done["armed"]) == (False, True, True), done
    shown = nova.show(server)
    assert (shown["status"], shown["metadata"]) == ("RESCUE", {NOTE: nova.rescue_image})
    again = module("rescue_mode", CONSOLE)
    assert (again["failed"], again["changed"]) == (False, False), again
    told = module("rescue_mode_info")
    assert (told["armed"], told["boot"]["id"], told["boot"]["name"]) == (True, nova.rescue_image, "system-rescue")
    account = module("rescue_mode_info", "scope=account")
    assert [(one["server"], one["armed"]) for one in account["servers"]] == [("web1", True)]
    assert nova.actions(server) == ["rescue", "create"]


def test_a_wrong_password_changes_nothing(nova, make_server, module, tmp_path):
    server = make_server()
    clouds = tmp_path / "clouds.yaml"
    clouds.write_text(json.dumps({"clouds": {"member": {**nova.cloud("member"), "auth": {
        **nova.cloud("member")["auth"], "password": "wrong-and-secret"}}}}))
    told = module("rescue_mode", CONSOLE, clouds=clouds)
    assert told["failed"] and "credentials are not valid" in told["msg"] and "wrong-and-secret" not in str(told)
    assert nova.actions(server) == ["create"]


def test_a_reader_is_refused_before_anything_happens(nova, make_server, module):
    server = make_server()
    assert module("rescue_mode_info", user="reader")["armed"] is False
    told = module("rescue_mode", CONSOLE, user="reader")
    assert told["failed"] and "only the role reader" in told["msg"]
    assert (nova.actions(server), nova.show(server)["metadata"]) == (["create"], {})


def test_another_project_sees_no_such_server(make_server, module):
    make_server()
    told = module("rescue_mode_info", user="other")
    assert told["failed"] and "knows no server 'web1' in this project" in told["msg"]


def test_a_locked_server_is_refused_before_anything_happens(nova, make_server, module, connect):
    server = make_server()
    connect("admin").compute.lock_server(server, locked_reason="audit")
    told = module("rescue_mode", CONSOLE)
    assert told["failed"] and "locked (audit)" in told["msg"]
    assert "rescue" not in nova.actions(server)


def test_images_are_named_by_id_name_and_tag(nova, make_server, module):
    server = make_server(address="127.0.0.64")
    for name in ("first", "second"):
        nova.put_image(name, tags=["lab-tag"])
    told = module("rescue_mode", f"{CONSOLE} rescue=lab-tag")
    assert told["failed"] and "2 images fit 'lab-tag'" in told["msg"]
    told = module("rescue_mode", f"{CONSOLE} rescue=third")
    assert told["failed"] and "No image has the id, the name or the tag 'third'" in told["msg"] and nova.rescue_image in told["msg"]
    assert nova.actions(server) == ["create"]
    done = module("rescue_mode", f"{CONSOLE} rescue=second")
    assert not done["failed"] and done["changed"]
    assert nova.show(server)["metadata"][NOTE] in nova.images()


def test_a_rescue_that_the_hypervisor_refuses_is_told_with_its_reason(nova, make_server, module, nova_power):
    def refuse(event):
        if event["event"] == "rescue":
            raise RuntimeError("no such machine")

    server = make_server(address="127.0.0.65")
    nova_power.then = refuse
    told = module("rescue_mode", CONSOLE)
    assert told["failed"] and "cannot be rescued" in told["msg"], told
    assert nova.show(server)["status"] == "ERROR"
    # What is broken is what one wants to rescue.
    nova_power.then = None
    done = module("rescue_mode", CONSOLE)
    assert (done["failed"], done["armed"]) == (False, True), done
    assert nova.show(server)["status"] == "RESCUE"


def test_the_whole_way_with_a_machine(running_nova, tmp_path):
    vault = tmp_path / "vault.yml"
    vault.touch(0o600)
    vault.write_text(json.dumps({"reset_root_password_password": NEW_PASSWORD}))
    files = {"/etc/nftables.conf": File(LOCKED_OUT.encode(), 0o755)}
    with World(tmp_path / "world", {"web1": "openstack"}, files=files, cloud=running_nova) as world:
        host = world.hosts["web1"]
        # It was off, and its firewall lets nobody in.
        done = world.ansible_playbook("lifeboat.rescue.rescue", "-e", "rescue_hosts=lab", "-e",
                                      "rescue_tasks=reset_root_password,fix_firewall", "-e", f"@{vault}", timeout=1500)
        assert done.returncode == 0, done.stdout
        assert [boot.kind for boot in host.machine.boots] == ["rescue", "installed"]
        after, text = Demo(host, 0).log_in(NEW_PASSWORD)
        assert "tcp dport 22" in after and "lifeboat.rescue" in text
        assert not [secret for secret in {NEW_PASSWORD, *host.account.sensitive()} if secret in done.stdout]
        shown = running_nova.show(host.server.id)
        assert (shown["status"], shown["metadata"]) == ("ACTIVE", {})
        assert running_nova.actions(host.server.id) == ["unrescue", "rescue", "create"]

        # A reboot by the module, which Nova does.
        done = world.ansible("web1", "-m", "lifeboat.rescue.reboot", "-a", "method=hard")
        assert done.returncode == 0, done.stdout
        assert [boot.kind for boot in host.machine.boots] == ["rescue", "installed", "installed"]
