# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The action plugins as their users meet them: by ansible-core itself, on a host that is dead."""

from __future__ import annotations

import getpass
import json
import os
import pathlib
import re
import shlex
import shutil
import socket
import subprocess
import sys

import pytest

from ...conftest import key_pair

pytest_plugins = "lifeboat_lab.nova.fixtures"

NAME = "ns100001.ip-192-0-2.eu"
ANSIBLE = pathlib.Path(sys.executable).parent / "ansible"
# What makes packages look as if they were not installed, in each Python that is started.
BLOCKER = """
import sys

class Blocker:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker)
"""
VAULT_PASSWORD = "open sesame"


@pytest.fixture
def collections():
    """The directory above ansible_collections in which this checkout is found."""
    root = pathlib.Path(__file__).absolute().parents[4]
    for path in (*root.parents, *map(pathlib.Path, sys.path)):
        found = path / "ansible_collections" / "lifeboat" / "rescue"
        if found.exists() and found.resolve() == root.resolve():
            return path
    pytest.fail("this checkout is not below an ansible_collections/lifeboat/rescue")


class Ansible:
    """Runs ansible as a user would, with a home of its own and an inventory of one dead host, `web1`."""

    def __init__(self, path, collections, api):
        self.path = path
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            self.dead_port = unused.getsockname()[1]
        self.keys = api.credential.client_arguments()
        self.variables = {
            "ansible_host": "127.0.0.1", "ansible_port": self.dead_port, "ansible_ssh_timeout": 3, "ansible_ssh_retries": 0,
            "lifeboat_provider": "ovh_dedicated", "lifeboat_server": NAME, "lifeboat_ovh_endpoint": api.url,
            "lifeboat_rescue_port": self.dead_port, "lifeboat_connect_timeout": 0.2,
            **{f"lifeboat_ovh_{name}": value for name, value in self.keys.items()}}
        self.environment = {
            "PATH": os.environ["PATH"], "HOME": str(path), "LC_ALL": "C.UTF-8",
            "ANSIBLE_COLLECTIONS_PATH": str(collections),
            "ANSIBLE_CALLBACK_RESULT_FORMAT": "json", "ANSIBLE_NOCOLOR": "1", "ANSIBLE_DEVEL_WARNING": "0",
            "ANSIBLE_LOAD_CALLBACK_PLUGINS": "1", "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default",
            "ANSIBLE_LOCALHOST_WARNING": "0", "ANSIBLE_ASYNC_DIR": str(path / "async"),
            "ANSIBLE_PYTHON_INTERPRETER": sys.executable}
        self.output = ""

    def inventory(self):
        file = self.path / "inventory.json"
        file.write_text(json.dumps({"all": {"hosts": {"web1": self.variables}}}))
        return file

    def module(self, name, *more, verbosity="-v", **options):
        """(return code, result) of an ad hoc call."""
        arguments = ["-a", json.dumps(options)] if options else []
        code, results = self._run([str(ANSIBLE), verbosity, "-i", str(self.inventory()), "web1",
                                   "-m", f"lifeboat.rescue.{name}", *arguments, *more])
        return code, results[0]

    def tasks(self, *tasks):
        """The results of a play of tasks (module, options, keywords), each of which may fail."""
        play = [{"hosts": "web1", "gather_facts": False, "tasks": [
            {"name": "Call it", f"lifeboat.rescue.{name}": options, "ignore_errors": True, **keywords}
            for name, options, keywords in tasks]}]
        (self.path / "play.json").write_text(json.dumps(play))
        code, results = self._run([f"{ANSIBLE}-playbook", "-v", "-i", str(self.inventory()), str(self.path / "play.json")])
        assert (code, len(results)) == (0, len(tasks)), self.output
        return results

    def _run(self, command):
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=self.environment, cwd=self.path,
                              stdin=subprocess.DEVNULL, check=False)
        self.output = done.stdout + done.stderr
        # `ok: [web1] => {…}`
        return done.returncode, [
            {**json.JSONDecoder().raw_decode(self.output, found.end())[0], "failed": found[1] == "fatal"}
            for found in re.finditer(r"^(ok|changed|fatal): .*? => (?={)", self.output, re.MULTILINE)]


@pytest.fixture
def ansible(tmp_path, collections, api):
    return Ansible(tmp_path, collections, api)


def test_a_dead_host_is_looked_at_by_its_variables(ansible, api):
    code, result = ansible.module("rescue_mode_info")
    assert code == 0, ansible.output
    assert (result["changed"], result["armed"], result["running"], result["server"]) == (False, False, "unknown", NAME)
    assert result["evidence"]["connect_error"] == "connection refused"
    assert api.writes() == []


def test_options_go_before_variables_and_those_before_the_inventory_name(ansible):
    del ansible.variables["lifeboat_server"]
    has = {"vars": {"lifeboat_server": "ns1.x"}}
    named, other, mine = ansible.tasks(("rescue_mode_info", {}, {}), ("rescue_mode_info", {}, has),
                                       ("rescue_mode_info", {"server": NAME}, has))
    for result, name in ((named, "web1"), (other, "ns1.x")):
        assert result["failure"]["code"] == "not_found"
        assert f"knows no dedicated server '{name}'" in result["msg"] and NAME in result["msg"]
    assert mine["server"] == NAME


@pytest.mark.parametrize(("variables", "reached_at"), [
    ({"ansible_host": "localhost"}, "localhost"),
    # The name leads nowhere; OpenSSH has another one for it; a bastion may know it.
    ({}, "127.0.0.1"), ({"ansible_ssh_common_args": "-o HostName=localhost"}, "web1"),
    ({"ansible_ssh_common_args": "-o ProxyCommand=false"}, "web1")])
def test_where_ansible_reaches_the_host(ansible, variables, reached_at):
    del ansible.variables["ansible_host"]
    ansible.variables.update(variables)
    code, result = ansible.module("rescue_mode_info")
    assert (code, result["address"], result["reached_at"]) == (0, "127.0.0.1", reached_at), ansible.output


def test_variables_may_be_templates_and_from_vault(ansible):
    (ansible.path / "password").write_text(VAULT_PASSWORD)
    ansible.environment["ANSIBLE_VAULT_PASSWORD_FILE"] = str(ansible.path / "password")
    vault = subprocess.run([f"{ANSIBLE}-vault", "encrypt_string", ansible.keys["consumer_key"]], capture_output=True, text=True,
                           check=False, timeout=60, stdin=subprocess.DEVNULL, env=ansible.environment)
    assert vault.returncode == 0, vault.stderr
    text = "\n".join(line.strip() for line in vault.stdout.splitlines()[1:]) + "\n"
    ansible.variables["lifeboat_ovh_consumer_key"] = {"__ansible_vault": text}
    ansible.variables["lifeboat_server"] = "{{ inventory_hostname | replace('web1', '" + NAME + "') }}"
    code, result = ansible.module("rescue_mode_info")
    assert (code, result.get("server")) == (0, NAME), ansible.output


def test_the_environment_of_the_task_counts(ansible):
    keys = {f"OVH_{name.upper()}": value for name, value in ansible.keys.items()}
    for name in ansible.keys:
        del ansible.variables[f"lifeboat_ovh_{name}"]
    without, given = ansible.tasks(("rescue_mode_info", {}, {}), ("rescue_mode_info", {}, {"environment": keys}))
    assert without["failure"]["code"] == "bad_input"
    assert given["server"] == NAME, ansible.output


def test_check_mode_and_diff(ansible, api, server):
    only = {"check_mode": True}
    netboot, enter = ansible.tasks(("netboot", {"boot": "rescue"}, {**only, "diff": True}),
                                   ("rescue_mode", {"state": "present"}, only))
    assert netboot["changed"] and netboot["armed"] and enter["changed"]
    # Each shows its diff where it is asked for, and nowhere else.
    assert ansible.output.count("+++ after") == 1 and re.search('^\\+ .*"rescue12-customer"', ansible.output, re.MULTILINE)
    assert api.writes() == []
    assert not list(ansible.path.glob(".ansible/lifeboat/ovh_dedicated/*/session.json"))


def test_netboot(ansible, api, server):
    poweroff, rescue = server.boot("poweroff").bootId, server.boot("rescue12-customer").bootId
    first, again, by_number, unknown = ansible.tasks(*(
        ("netboot", {"boot": boot}, {}) for boot in ("rescue12-customer", "rescue", str(poweroff), "rescue99")))
    assert first["changed"] and first["boot"]["id"] == str(rescue)
    assert (again["changed"], again["armed"]) == (False, True)
    assert "boot=poweroff" in by_number["msg"] and by_number["changed"] is False
    assert "rescue12-customer" in unknown["msg"] and unknown["changed"] is False
    assert len(api.writes()) == 1 and server.reboots == [] and server.bootId == rescue
    assert ansible.tasks(("netboot", {"boot": "poweroff"}, {}))[0]["changed"]
    assert server.bootId == poweroff


def test_in_the_background_it_fails_in_time(ansible, api):
    """Ansible would start it on the host that is to be rescued."""
    ways = [(name, {}, {"async": 600, "poll": poll}) for name in ("rescue_mode", "reboot") for poll in (0, 5)]
    for result in ansible.tasks(*ways):
        assert result["failed"] and "delegate_to: localhost" in result["msg"]
    assert api.log == []


def test_on_the_controller_it_acts_for_the_host_at_hand(ansible):
    for result in ansible.tasks(("rescue_mode_info", {}, {"delegate_to": "localhost"}),
                                ("rescue_mode_info", {}, {"delegate_to": "localhost", "async": 60, "poll": 1})):
        assert result.get("server") == NAME, ansible.output


def test_bad_input_changes_nothing(ansible, api):
    cases = [({"state": "sideways"}, "present, absent"), ({"stat": "present"}, "stat"), ({"provider": "acme"}, "ovh_dedicated"),
             ({"wait_timeout": "soon"}, "wait_timeout"), ({"public_key": "nonsense"}, "not an SSH public key"),
             ({"rescue": "rescue99"}, "rescue12-customer"),
             ({"ovh_endpoint": "ovh-moon"}, "OVH has no endpoint 'ovh-moon'. "), ({"ovh_endpoint": "ovh-moon"}, "ovh-eu, ovh-us")]
    results = ansible.tasks(*(("rescue_mode", options, {}) for options, words in cases))
    for result, (options, words) in zip(results, cases, strict=True):
        assert result.get("failed") and words in result["msg"], options
        assert result.get("changed", False) is False
    assert api.writes() == []


def test_no_secret_at_full_verbosity(ansible, api):
    ansible.variables["ansible_password"] = "not-to-be-seen-1"
    if not shutil.which("sshpass"):  # only looked for by a connection, which there must not be
        ansible.environment["ANSIBLE_SSH_PASSWORD_MECHANISM"] = "disable"
    for name, options in (("rescue_mode_info", {}), ("rescue_mode", {"rescue": "rescue99", "login": "password"})):
        ansible.module(name, verbosity="-vvvvv", **options)
        assert NAME in ansible.output
        for secret in (*api.sensitive(), "not-to-be-seen-1"):
            assert secret not in ansible.output


@pytest.mark.parametrize("way", ["jump", "command", "variable"])
def test_the_way_to_the_host_is_that_of_its_ssh(ansible, make_sshd, tmp_path, way):
    """Through a bastion: by OpenSSH's own configuration, by Ansible's arguments, or by the host's variable."""
    bastion = make_sshd("bastion", shim=False)
    key = tmp_path / "key"
    bastion.authorized_keys.write_text(key_pair(key) + "\n")
    (tmp_path / "hosts").write_text(f"[127.0.0.1]:{bastion.port} {bastion.host_key}\n")
    config = tmp_path / "config"
    config.write_text(f"Host bastion\n HostName 127.0.0.1\n Port {bastion.port}\n User {getpass.getuser()}\n IdentityFile {key}\n"
                      f" UserKnownHostsFile {tmp_path / 'hosts'}\n" + ("Host 127.0.0.1\n ProxyJump bastion\n" if way == "jump" else ""))
    command = f"ssh -F {config} -W '[%h]:%p' bastion"
    ansible.variables["lifeboat_connect_timeout"] = 5
    if way == "variable":
        ansible.variables["lifeboat_proxy_command"] = command
    else:
        ansible.variables["ansible_ssh_common_args"] = f"-F {config}" if way == "jump" else f"-o ProxyCommand={shlex.quote(command)}"
    code, result = ansible.module("rescue_mode_info")
    assert code == 0 and result["running"] == "unknown"
    assert "Connection refused" in result["evidence"]["connect_error"] and "Accepted publickey" in bastion.log


def test_who_logs_in_is_whom_its_ssh_says(ansible, make_sshd, tmp_path):
    """No key is named, but in OpenSSH's own configuration; what is no private key is passed over."""
    installed, key = make_sshd("installed"), tmp_path / "key"
    installed.authorized_keys.write_text(key_pair(key) + "\n")
    (tmp_path / "hosts").write_text(f"[127.0.0.1]:{installed.port} {installed.host_key}\n")
    config = tmp_path / "config"
    keys = "".join(f" IdentityFile {path}\n" for path in (tmp_path / "none", f"{key}.pub", key))
    config.write_text(f"Host *\n User {getpass.getuser()}\n{keys}")
    for name in ("ansible_user", "ansible_ssh_private_key_file"):
        ansible.variables.pop(name, None)
    ansible.variables.update(ansible_ssh_common_args=f"-F {config}", ansible_port=installed.port, lifeboat_rescue_port=installed.port,
                             lifeboat_installed_known_hosts_file=str(tmp_path / "hosts"))
    code, result = ansible.module("rescue_mode_info")
    assert code == 0 and (result["running"], result["evidence"]["logged_in"]) == ("installed", True), ansible.output


def test_a_failure_tells_that_something_was_changed(ansible, api, server):
    """The server is armed and was rebooted, but nothing came up."""
    server.task_seconds = {"init": 0.01, "todo": 0.01, "doing": 0.01}
    code, result = ansible.module("rescue_mode", wait_timeout=2, reboot_method="hard")
    assert code == 2 and result["changed"] is True
    assert result["failure"]["code"] == "timed_out" and "rescue12-customer is set to boot next" in result["failure"]["state"]
    assert "web1: setting rescue12-customer to boot next" in ansible.output
    assert len(server.reboots) == 1
    assert server.rescueSshKey.split()[0] == "ssh-ed25519"


def test_a_fault_of_ours_tells_the_state_too(ansible, api, server):
    """After arming the API answers with what nobody expects."""
    ansible.environment["PYTHONPATH"] = str(ansible.path)
    (ansible.path / "sitecustomize.py").write_text(
        "import ovh\npost = ovh.Client.post\n"
        "ovh.Client.post = lambda self, path, **more: [] if path.endswith('/reboot') else post(self, path, **more)\n")
    code, result = ansible.module("rescue_mode", reboot_method="hard")
    assert code == 2 and result["changed"] is True
    assert result["msg"].startswith("Internal error: ") and "rescue12-customer set to boot next" in result["failure"]["state"]


@pytest.mark.parametrize(("missing", "library"), [
    (("openstack", "keystoneauth1"), "openstacksdk"), (("ovh",), "ovh"), (("SoftLayer",), "SoftLayer")])
def test_a_library_that_is_missing_disturbs_nobody_else(ansible, api, nova, make_server, tmp_path, missing, library):
    """In the controller's process, and as a module in a Python of its own: the others work, and the missing one is named."""
    from lifeboat_lab.ovh_api import Vps
    from lifeboat_lab.softlayer_api import Server, SoftLayerApi

    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(BLOCKER.format(missing=set(missing)))
    ansible.environment["PYTHONPATH"] = str(tmp_path / "site")
    vps = api.add(Vps("vps-00000001.vps.ovh.net", ip="127.0.0.1", ip6=None))
    cloud = nova.cloud("member")
    make_server("web1", address="127.0.0.1")
    with SoftLayerApi([Server(1001, "vs", "web1", primaryIpAddress="127.0.0.1")]) as softlayer:
        servers = {
            "ovh_dedicated": ("ovh", {"server": NAME}),
            "ovh_vps": ("ovh", {"server": vps.name}),
            "openstack": ("openstacksdk", {"server": "web1", "openstack_auth": cloud["auth"],
                                           "openstack_region_name": cloud["region_name"]}),
            "softlayer": ("SoftLayer", {"server": "vs:1001", "softlayer_endpoint_url": softlayer.url, **{
                f"softlayer_{name}": value for name, value in softlayer.credential.client_arguments().items()}}),
        }
        module = {"delegate_to": "localhost", "async": 60, "poll": 1}
        calls = [(provider, {}) for provider in servers]
        calls += [(provider, module) for provider in ("ovh_vps", "softlayer", "openstack")]
        results = ansible.tasks(*(("rescue_mode_info", {"provider": provider, **servers[provider][1]}, way) for provider, way in calls))
    for (provider, way), result in zip(calls, results, strict=True):
        needs, options = servers[provider]
        if needs == library:
            assert result.get("failed") and result["failure"]["code"] == "missing_library", (provider, way, ansible.output)
            assert f"The Python library {needs} is not installed for " in result["msg"]
        else:
            assert (result.get("server"), result.get("running")) == (options["server"], "unknown"), (provider, way, ansible.output)
