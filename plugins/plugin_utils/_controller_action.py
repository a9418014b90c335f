# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the action plugins of the controller side share. Private to this collection.

They run the session on the controller, in this process: no connection to the host at hand is made by Ansible, so the host
may be dead; and what happens is shown while it happens.
"""

from __future__ import annotations

import getpass
import os
import shlex
import socket
import subprocess
import typing as t
from collections.abc import Mapping

import ansible.constants as C
from ansible.errors import AnsibleActionFail
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.common.parameters import remove_values
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.lifeboat.rescue.plugins.module_utils._control._entry import PER_CALL, SPECS, run, variable_of

_display = Display()


def show(line: str) -> None:
    """Show one line of progress, at once, from a worker too.

    The one place that calls Display: a keyword that it does not know raises in the parent's results thread, and the play
    hangs for ever.
    """
    _display.display(line)


def _keep_quiet(line: str) -> None:
    """Show nothing."""


class ControllerAction(ActionBase):
    """An action plugin that is a module of the same name, acting for the host at hand."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = True
    _supports_diff = True

    module: str

    def run(self, tmp: t.Any = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        task_vars = task_vars or {}
        super().run(tmp, task_vars)
        spec = SPECS[self.module]
        given = {**self._host_defaults(spec, task_vars), **{k: v for k, v in self._task.args.items() if v is not None}}
        given = {name: _plain(value) for name, value in given.items()}
        if self._task.async_val:
            return self._run_as_module(given, task_vars)
        validation = ArgumentSpecValidator(spec).validate(given)
        if validation.error_messages:
            raise AnsibleActionFail(", ".join(validation.error_messages))
        for warning in validation._warnings:
            _display.warning(warning["warning"] if isinstance(warning, dict) else str(warning))
        with _Environment(self._environment()):
            result = run(self.module, validation.validated_parameters, self._task.check_mode, self._teller(task_vars),
                         label=str(task_vars.get("inventory_hostname") or ""), home=C.ANSIBLE_HOME)
        if self.module == "rescue_mode_info" and "address" in result:
            result["reached_at"] = self._reached_at(task_vars) or result["address"]
        if not self._task.diff:
            result.pop("diff", None)
        if result.get("failed") and _display.verbosity < 3:
            result.pop("exception", None)
        return t.cast("dict[str, t.Any]", remove_values(result, validation._no_log_values))

    def _teller(self, task_vars: dict[str, t.Any]) -> t.Callable[[str], None]:
        """What takes lines of progress: nobody, where the user or who reads our output does not want them."""
        wanted = self._variable("lifeboat_progress", task_vars)
        if wanted is None:
            # What these print is one document for a program.
            wanted = C.DEFAULT_STDOUT_CALLBACK.rpartition(".")[2] not in ("json", "jsonl")
        return show if boolean(wanted) else _keep_quiet

    def _run_as_module(self, given: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        """In the background only a module can run, and only where Ansible can start it: on the controller."""
        if self._connection.transport != "local":
            raise AnsibleActionFail(
                f"lifeboat.rescue.{self.module} cannot run in the background on {task_vars.get('inventory_hostname')}, "
                "which it is there to rescue. Nothing was changed. Add delegate_to: localhost to the task, or leave async out: "
                "the action waits without a connection to the host.")
        # The module has no ansible.cfg.
        self._task.environment = [{"ANSIBLE_HOME": C.ANSIBLE_HOME}, *(self._task.environment or [])]
        return t.cast("dict[str, t.Any]", self._execute_module(
            module_name=f"lifeboat.rescue.{self.module}", module_args=given, task_vars=task_vars, wrap_async=True))

    def _environment(self) -> dict[str, str]:
        """What the task's `environment` says. It counts here as it does for a module."""
        found: dict[str, str] = {}
        for layer in self._task.environment or []:
            if layer:
                found.update({str(name): str(value) for name, value in self._templar.template(layer).items()})
        return found

    def _host_defaults(self, spec: t.Mapping[str, t.Any], task_vars: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
        """What the host's variables and its own connection say, for options that the task leaves out."""
        settings = self._openssh_settings(task_vars)
        values = self._connection_defaults(task_vars, settings) if "installed_host" in spec else {}
        values["proxy_command"] = self._proxy_command(dict(settings))
        for name in spec:
            value = None if name in PER_CALL else self._variable(variable_of(name), task_vars)
            if value is not None:
                values[name] = value
        values["server"] = values.get("server") or task_vars.get("inventory_hostname")
        return {name: value for name, value in values.items() if value is not None}

    def _variable(self, name: str, task_vars: t.Mapping[str, t.Any]) -> t.Any:
        value = task_vars.get(name)
        return None if value is None else self._templar.template(value)

    def _reached_at(self, task_vars: t.Mapping[str, t.Any]) -> str | None:
        """The name or address at which Ansible's own connection reaches the host; None where it has a name alone, which leads nowhere."""
        name = task_vars.get("inventory_hostname")
        host = self._connection.get_option("host") if self._connection.transport == "ssh" else self._variable("ansible_host", task_vars)
        if host and host != name:
            return str(host)
        settings = dict(self._openssh_settings(task_vars))
        if {settings.get(way, "none") for way in ("proxyjump", "proxycommand")} != {"none"}:
            return str(name)  # it is the bastion that resolves it
        try:
            socket.getaddrinfo(settings.get("hostname") or name, None)
        except (OSError, UnicodeError):
            return None
        return str(name)

    def _openssh_settings(self, task_vars: t.Mapping[str, t.Any]) -> list[tuple[str, str]]:
        """How OpenSSH would reach the host, by Ansible's arguments and its own configuration, as `ssh -G` tells."""
        if self._connection.transport != "ssh":
            return []
        host = str(self._connection.get_option("host") or task_vars.get("inventory_hostname"))
        try:
            done = subprocess.run([self._connection.get_option("ssh_executable"), "-G", *self._openssh_arguments(), "--", host],
                                  capture_output=True, text=True, timeout=10, stdin=subprocess.DEVNULL, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return []
        return [(name, value) for name, _gap, value in (line.partition(" ") for line in done.stdout.splitlines())]

    def _openssh_arguments(self) -> list[str]:
        return [word for name in ("ssh_args", "ssh_common_args", "ssh_extra_args")
                for word in shlex.split(self._connection.get_option(name) or "")]

    def _proxy_command(self, settings: t.Mapping[str, str]) -> str | None:
        """The command for a bastion, if the host is reached through one. settings: of OpenSSH."""
        arguments = self._openssh_arguments() if settings else []
        jumps, command = settings.get("proxyjump", "none"), settings.get("proxycommand", "none")
        if jumps == "none":
            return None if command == "none" else command
        # As OpenSSH itself makes a command of it.
        *first, last = jumps.split(",")
        words = ["ssh", "-o", "BatchMode=yes"]
        if "-F" in arguments:
            words += ["-F", arguments[arguments.index("-F") + 1]]
        if first:
            words += ["-J", ",".join(first)]
        return f"{shlex.join(words)} -W '[%h]:%p' {shlex.quote(last if '://' in last else f'ssh://{last}')}"

    def _connection_defaults(self, task_vars: t.Mapping[str, t.Any], settings: t.Sequence[tuple[str, str]]) -> dict[str, t.Any]:
        """How Ansible itself would log in to this host. settings: of OpenSSH."""
        options = {"installed_host": "host", "installed_port": "port", "installed_user": "remote_user",
                   "installed_private_key_file": "private_key_file", "installed_password": "password"}
        if self._connection.transport == "ssh":
            found = {name: self._connection.get_option(option) for name, option in options.items()}
        else:
            names = {"installed_host": ("ansible_host", "ansible_ssh_host"), "installed_port": ("ansible_port", "ansible_ssh_port"),
                     "installed_user": ("ansible_user", "ansible_ssh_user"),
                     "installed_private_key_file": ("ansible_ssh_private_key_file", "ansible_private_key_file"),
                     "installed_password": ("ansible_password", "ansible_ssh_pass")}
            found = {name: next((v for v in (self._variable(n, task_vars) for n in many) if v is not None), None)
                     for name, many in names.items()}
        # As ssh does where nobody is named, and no key.
        found["installed_user"] = found["installed_user"] or dict(settings).get("user") or getpass.getuser()
        if found["installed_private_key_file"] is None:
            files = [os.path.expanduser(value) for name, value in settings if name == "identityfile"]
            found["installed_private_key_file"] = next(filter(_is_private_key, files), None)
        if found["installed_host"] == task_vars.get("inventory_hostname"):
            # Only a name of the inventory, which Ansible takes for the address where nobody gives one. By the resolver it may lead to
            # another machine; the provider knows the address.
            found["installed_host"] = None
        return found


def _is_private_key(path: str) -> bool:
    """Whether it is there, and no public key, as IdentityFile names one where an agent has the private half."""
    try:
        with open(path, "rb") as stream:
            return b"PRIVATE KEY" in stream.readline()
    except OSError:
        return False


def _plain(value: t.Any) -> t.Any:
    """The value itself, of Python's own types, where Ansible has one of its own for it.

    For what is from a vault it has an object, which is no str but can be gone through: taken for a list of secrets, each of its
    letters would be blotted out everywhere in the result. Text from a file it makes a str that knows from where it is, and
    XML-RPC sends nothing but a str that is just that.
    """
    if value is None or isinstance(value, (bool, bytes)):
        return value
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    for kind in (int, float):
        if isinstance(value, kind):
            return kind(value)
    return str.__str__(value) if isinstance(value, str) else str(value)


class _Environment:
    """Environment variables that count for a while. A worker process has one task, so nobody else sees them."""

    def __init__(self, variables: t.Mapping[str, str]):
        self._variables = variables
        self._before: dict[str, str | None] = {}

    def __enter__(self) -> None:
        self._before = {name: os.environ.get(name) for name in self._variables}
        os.environ.update(self._variables)

    def __exit__(self, *exc: object) -> None:
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
