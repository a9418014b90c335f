# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The stand-in world: machines that boot, or boxes, accounts at providers that own them, and an inventory that knows both.

    with World(Path("/tmp/world")) as world:
        web1 = world.hosts["web1"]
        web1.machine.power_on()
        web1.wait_for_ssh(120)
        done = world.ansible_playbook("lifeboat.rescue.rescue", "-e", "rescue_hosts=web1", "-e", "rescue_tasks=fix_firewall")

With boxes=Systems() the servers are boxes (see `box`), which is what tests of sessions want.

The administrator has a key to each installed system (world.admin_key) and knows its host keys (world.known_hosts), as one
does before a server is lost. Everything is below one directory, and nothing is left running afterwards.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import tempfile
import typing as t
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from .accounts import Account, accounts
from .box import Box, Systems
from .images import File, Images, LabError, ensure, prepare
from .machine import Machine, Running
from .nova.cloud import Cloud
from .ovh_api import OvhApi
from .server import Installed, Rescue
from .softlayer_api import SoftLayerApi
from .waiting import until

REPOSITORY = Path(__file__).parents[3]


@dataclass
class Host:
    """One host of the inventory: its machine, and what the API knows of it."""

    name: str
    machine: Machine | Box
    server: t.Any  # as the account has it
    account: Account
    world: World

    def next_boot(self) -> Installed | Rescue:
        """What the API has the machine boot. Raises LabError for what it does not boot into at all (power off, iPXE)."""
        boot = self.server.next_boot()
        if boot.kind == "installed":
            return Installed()
        if boot.kind == "rescue":
            key = getattr(boot, "ssh_key", None)
            return Rescue(authorized_keys=(key,) if key else (), password=boot.password)
        raise LabError(f"{self.name} is set to boot {boot.kind}: nothing answers.")

    def ssh(self, command: str, *, user: str = "root", timeout: float = 60,
            stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command in the installed system, as the administrator would."""
        argv = ["ssh", "-F", "none", "-p", str(self.machine.port), "-i", str(self.world.admin_key), "-o", "BatchMode=yes",
                "-o", "IdentitiesOnly=yes", "-o", f"UserKnownHostsFile={self.world.known_hosts}",
                "-o", "StrictHostKeyChecking=yes", "-o", f"ConnectTimeout={int(timeout)}",
                f"{user}@{self.machine.address}", command]
        return subprocess.run(argv, input=stdin or "", text=True, capture_output=True, timeout=timeout + 60, check=False)

    def banner(self, timeout: float) -> str | None:
        """The SSH banner, or None where none comes within so many seconds."""
        try:
            with socket.create_connection((self.machine.address, self.machine.port), timeout) as sock:
                sock.settimeout(timeout)
                return sock.recv(100).decode("ascii", "replace").strip() or None
        except OSError:
            return None

    def wait_for_ssh(self, timeout: float) -> None:
        """Wait until the installed system lets the administrator in. Raises LabError after so many seconds."""
        # One patient attempt after the other: an impatient one starves a machine that boots under emulation.
        until(lambda: bool(self.banner(min(10.0, timeout))) and self.ssh("true").returncode == 0, timeout,
              lambda: f"{self.name} lets nobody in by SSH within {timeout:g} s; {self._words()}", every=0.3)

    def _words(self) -> str:
        """Where to look, for the advice in an error."""
        return "; ".join([*self.machine.errors, *(f"see {boot.console}" for boot in self.machine.boots[-1:])]) or "it is off"


class World:
    """See the module."""

    def __init__(self, directory: Path, hosts: Sequence[str] | Mapping[str, str] = ("web1",), *, layout: str = "gpt",
                 files: Mapping[str, File] | None = None, bus: str = "virtio-blk", images: Images | None = None,
                 cloud: Cloud | None = None, boxes: Systems | None = None, inventory: t.Literal["lab", "readme"] = "lab"):
        """Lay it out; the servers are off.

        hosts: names for the inventory, or by name at which provider each is (see accounts()); by default `ovh_dedicated`.
        layout, bus: of their disks (gpt, mbr). files: put into each installed system first. cloud: an OpenStack that runs already.
        boxes: the servers are boxes with these systems, and not machines.
        inventory: `lab` says where each server and its keys are; `readme` says what the README asks for, and nothing more: the
        rest is where a user has it (the keys of the hosts in ~/.ssh/known_hosts, the own one in ansible.cfg).
        """
        self.directory = directory
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.images = images or ensure()
        self.admin_key = directory / "admin_key"
        self.home = directory / "home"
        self._is_readme = inventory == "readme"
        self.known_hosts = self.home / ".ssh/known_hosts" if self._is_readme else directory / "known_hosts"
        self.sessions = directory / ("ansible/lifeboat" if self._is_readme else "sessions")
        self.inventory = directory / "inventory.ini"
        self.hosts: dict[str, Host] = {}
        self._layout, self._files, self._bus, self._cloud = layout, dict(files or {}), bus, cloud
        self.boxes = boxes
        self._providers = dict(hosts) if isinstance(hosts, Mapping) else dict.fromkeys(hosts, "ovh_dedicated")
        self.accounts: dict[str, Account] = {}
        self._stack = ExitStack()

    def __enter__(self) -> World:
        """Start it."""
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        """End it."""
        self._stack.close()

    def cheapen_boots(self) -> None:
        """For tests whose claim is no boot: rescue systems are resumed, and installed ones boot without their boot loader."""
        for host in self.hosts.values():
            if isinstance(host.machine, Machine):
                host.machine.resumes, host.machine.direct = True, self._layout

    def running(self) -> Running:
        """What to switch a machine on with, for its installed system to run at once: it is resumed, and does not boot."""
        return Running(self._layout, self._files)

    def _start(self) -> None:
        # A socket's path may have 107 characters, which the directory of a test can be too long for.
        self._sockets = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="lifeboat-", ignore_cleanup_errors=True))
        if not self.admin_key.exists():
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "administrator", "-f", str(self.admin_key)],
                           check=True)
        self.known_hosts.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        public = self.admin_key.with_suffix(".pub").read_bytes()
        self._files = {"/root/.ssh/authorized_keys": File(public, 0o600), **self._files}
        self.api = OvhApi(log_file=self.directory / "api.log")
        # The consumer key may also list the servers, as the README asks for.
        self.api.credential.rules += [("GET", "/dedicated/server"), ("GET", "/vps")]
        softlayer = SoftLayerApi(log_file=self.directory / "softlayer.log")
        self.accounts = accounts(dict.fromkeys(self._providers.values()), self.api, softlayer, self.directory, self._cloud)
        machines = self._make_boxes(self.boxes) if self.boxes else self._make_machines()
        # They press the machines' buttons, so they end before them.
        for served in (self.api, softlayer, *self.accounts.values()):
            self._stack.enter_context(t.cast(t.ContextManager[t.Any], served))
        for number, (name, provider) in enumerate(self._providers.items(), start=1):
            account, machine = self.accounts[provider], machines[name]
            host = Host(name, machine, account.add(number, name, machine), account, self)
            machine.next_boot = host.next_boot
            self.hosts[name] = host
        self.known_hosts.write_text("".join(
            f"{_pattern(host.machine)} {key}\n" for host in self.hosts.values()
            for key in (host.machine.host_keys if isinstance(host.machine, Box) else self.images.host_keys)))
        self.inventory.write_text(self._inventory())
        self.environment_file.write_text("".join(
            f"export {name}={shlex.quote(value)}\n" for name, value in self.environment().items()))
        self.environment_file.chmod(0o600)

    def _make_boxes(self, systems: Systems) -> Mapping[str, Box]:
        return {name: self._stack.enter_context(Box(name, self.directory / name, systems=systems, files=self._files, images=self.images))
                for name in self._providers}

    def _make_machines(self) -> Mapping[str, Machine]:
        disk = prepare(self.images.disk(self._layout), self.directory / f"{self._layout}.img", self._files)
        return {name: self._stack.enter_context(Machine(name, [disk], self.directory / name, bus=self._bus, images=self.images,
                                                        rescue_first=self.accounts[provider].rescue_first))
                for name, provider in self._providers.items()}

    @property
    def environment_file(self) -> Path:
        """A shell script that sets what the inventory needs in the environment."""
        return self.directory / "environment.sh"

    def environment(self) -> dict[str, str]:
        """The credentials, as OVH's own tools take them from the environment."""
        return {name: value for account in self.accounts.values() for name, value in account.environment().items()}

    def _inventory(self) -> str:
        if self._is_readme:
            return self._readme_inventory()
        options = f"-o UserKnownHostsFile={self.known_hosts} -o StrictHostKeyChecking=yes -F none"
        lines = ["[lab]"]
        for host in self.hosts.values():
            variables = {"lifeboat_provider": host.account.provider, "lifeboat_server": host.account.server_name(host.server),
                         "ansible_host": host.machine.address, "ansible_port": host.machine.port,
                         "lifeboat_rescue_port": host.machine.port, **host.account.variables()}
            lines.append(" ".join([host.name, *(f"{name}={value}" for name, value in variables.items())]))
        lines += ["", "[lab:vars]", f"lifeboat_session_dir={self.sessions}",
                  f"lifeboat_installed_known_hosts_file={self.known_hosts}", "ansible_user=root",
                  f"ansible_ssh_private_key_file={self.admin_key}", f"ansible_ssh_common_args={options}",
                  "ansible_python_interpreter=/usr/bin/python3"]
        return "\n".join(lines) + "\n"

    def _readme_inventory(self) -> str:
        """Who the provider is, and what the server is called there. And what stands in for the outer world: an API's URL, a port."""
        lines = []
        for host in self.hosts.values():
            port = host.machine.port
            variables = {"lifeboat_provider": host.account.provider, "lifeboat_server": host.account.server_name(host.server),
                         **({} if port == 22 else {"ansible_port": port, "lifeboat_rescue_port": port}), **host.account.variables()}
            lines.append(" ".join([host.name, *(f"{name}={value}" for name, value in variables.items())]))
        return "\n".join(lines) + "\n"

    def session_files(self) -> list[Path]:
        """What sessions keep on the controller now. Their locks stay, and are empty of meaning."""
        return [path for path in self.sessions.rglob("*") if path.is_file() and not path.name.endswith("lock")]

    # -- running Ansible in it

    def ansible(self, *arguments: str, timeout: float = 600, **more: str) -> subprocess.CompletedProcess[str]:
        """Run `ansible` on the inventory. more: environment variables."""
        return self._run("ansible", arguments, timeout, more)

    def ansible_playbook(self, *arguments: str, timeout: float = 900, **more: str) -> subprocess.CompletedProcess[str]:
        """Run `ansible-playbook` on the inventory. more: environment variables."""
        return self._run("ansible-playbook", arguments, timeout, more)

    def command(self, program: str, arguments: Sequence[str]) -> list[str]:
        """The command line of such a run."""
        return [program, "-i", str(self.inventory), *arguments]

    def ansible_environment(self) -> dict[str, str]:
        """The environment of such a run: nothing of it touches the user's own files."""
        home = self.directory / "ansible"
        home.mkdir(mode=0o700, exist_ok=True)
        config = home / "ansible.cfg"
        user: dict[str, str] = {}
        if self._is_readme:
            # OpenSSH takes a user's home from the list of users, and not from HOME.
            config.write_text(f"[defaults]\nremote_user = root\nprivate_key_file = {self.admin_key}\n[ssh_connection]\n"
                              f"ssh_common_args = -o UserKnownHostsFile={self.known_hosts} -o StrictHostKeyChecking=yes -F none\n")
            user["HOME"] = str(self.home)
        config.touch()
        return {**os.environ, **self.environment(), **user, "ANSIBLE_HOME": str(home), "ANSIBLE_CONFIG": str(config),
                "ANSIBLE_NOCOLOR": "1", "ANSIBLE_SSH_CONTROL_PATH_DIR": self._sockets,
                "ANSIBLE_SSH_ARGS": "-C -o ControlMaster=auto -o ControlPersist=10s"}

    def _run(self, program: str, arguments: Sequence[str], timeout: float,
             more: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(program, arguments), env={**self.ansible_environment(), **more},
                              stdin=subprocess.DEVNULL, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=timeout, check=False)


def result_of(output: str) -> dict[str, t.Any]:
    """The result that `ansible` printed for its one host, and whether it `failed`."""
    start = output.index("=> {")
    result = json.JSONDecoder().raw_decode(output[start + 3:])[0]
    return {**result, "failed": output[:start].endswith("| FAILED! ")}


def _pattern(machine: Machine | Box) -> str:
    """The name under which OpenSSH looks up a host key."""
    return machine.address if machine.port == 22 else f"[{machine.address}]:{machine.port}"
