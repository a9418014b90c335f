# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The edge of the controller side: argument specs, and one call for each module. Private to this collection.

The modules and the action plugins of the same names both end here, so that they cannot differ.
"""

from __future__ import annotations

import os
import traceback
import typing as t

from .._errors import BadInput, LifeboatError
from .._wait import CLOCK, Clock
from ._providers._base import Provider
from ._providers._registry import PROVIDERS, make_provider, provider_name
from ._session._account import survey
from ._session._context import Options
from ._session._record import SessionStore
from ._session._session import Session
from ._ssh._client import Login

Spec = t.Dict[str, t.Dict[str, t.Any]]

# What one call is about. Of every other option the default is the host's variable lifeboat_<option>, where an action plugin runs.
PER_CALL = ("boot", "force", "scope", "state")

OVH_OPTIONS: Spec = {
    "ovh_endpoint": {"type": "str"},
    "ovh_application_key": {"type": "str", "no_log": False},
    "ovh_application_secret": {"type": "str", "no_log": True},
    "ovh_consumer_key": {"type": "str", "no_log": True},
    "ovh_client_id": {"type": "str"},
    "ovh_client_secret": {"type": "str", "no_log": True},
    "ovh_config_file": {"type": "path"},
}
SOFTLAYER_OPTIONS: Spec = {
    "softlayer_username": {"type": "str"},
    "softlayer_api_key": {"type": "str", "no_log": True},
    "softlayer_endpoint_url": {"type": "str"},
    "softlayer_config_file": {"type": "path"},
    "softlayer_timeout": {"type": "float"},
}
OPENSTACK_OPTIONS: Spec = {
    "openstack_cloud": {"type": "str"},
    "openstack_auth": {"type": "dict", "no_log": True},
    "openstack_auth_type": {"type": "str"},
    "openstack_region_name": {"type": "str"},
    "openstack_interface": {"type": "str", "choices": ["admin", "internal", "public"]},
    "openstack_validate_certs": {"type": "bool"},
    "openstack_ca_cert": {"type": "path"},
}
COMMON_OPTIONS: Spec = {
    "provider": {"type": "str", "choices": sorted(PROVIDERS)},
    "server": {"type": "str"},
    "address": {"type": "str"},
    "rescue_port": {"type": "int", "default": 22},
    "session_dir": {"type": "path"},
    "connect_timeout": {"type": "float", "default": 5.0},
    "proxy_command": {"type": "str"},
    **OVH_OPTIONS,
    **SOFTLAYER_OPTIONS,
    **OPENSTACK_OPTIONS,
}
# How the user logs in to the installed system. An action plugin takes them from the host's connection.
INSTALLED_OPTIONS: Spec = {
    "installed_host": {"type": "str"},
    "installed_port": {"type": "int", "default": 22},
    "installed_user": {"type": "str"},
    "installed_private_key_file": {"type": "path", "no_log": False},
    "installed_password": {"type": "str", "no_log": True},
    "installed_known_hosts_file": {"type": "path", "default": "~/.ssh/known_hosts"},
}
REBOOT_OPTIONS: Spec = {
    "reboot_method": {"type": "str", "choices": ["auto", "soft", "hard"], "default": "auto"},
    "soft_timeout": {"type": "float", "default": 120.0},
    "boot_timeout": {"type": "float", "default": 420.0},
    "wait_timeout": {"type": "float", "default": 1200.0},
}
KEY_OPTIONS: Spec = {
    "public_key": {"type": "str", "no_log": False},
    "private_key_file": {"type": "path", "no_log": False},
    "rescue_user": {"type": "str", "default": "root"},
}

SPECS: dict[str, Spec] = {
    "rescue_mode": {
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "rescue": {"type": "str", "default": "best"},
        "login": {"type": "str", "choices": ["key", "password", "console"], "default": "key"},
        "credentials_file": {"type": "path", "no_log": False},
        "rescue_mail": {"type": "str"},
        "hold_interventions": {"type": "bool", "default": True},
        "installed_host_keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
        "proof_port": {"type": "int"},
        "force": {"type": "bool", "default": False},
        **KEY_OPTIONS, **REBOOT_OPTIONS, **INSTALLED_OPTIONS, **COMMON_OPTIONS,
    },
    "rescue_mode_info": {
        "scope": {"type": "str", "choices": ["server", "account"], "default": "server"},
        **KEY_OPTIONS, **INSTALLED_OPTIONS, **COMMON_OPTIONS,
    },
    "netboot": {"boot": {"type": "str", "required": True}, **COMMON_OPTIONS},
    "reboot": {
        "method": {"type": "str", "choices": ["auto", "soft", "hard"], "default": "auto"},
        "force": {"type": "bool", "default": False},
        **KEY_OPTIONS,
        **{name: spec for name, spec in REBOOT_OPTIONS.items() if name != "reboot_method"},
        **INSTALLED_OPTIONS, **COMMON_OPTIONS,
    },
}


# How the playbooks and roles say `force`, by the state that is wanted.
FORCE_OF_ROLES = {"present": "enter_rescue_force", "absent": "exit_rescue_force"}


def variable_of(option: str) -> str:
    """The host's variable that is the default of an option."""
    return "lifeboat_reboot_method" if option == "method" else f"lifeboat_{option}"


def _folder(params: t.Mapping[str, t.Any], server: str, home: str | None) -> SessionStore:
    """The session's folder, below session_dir or Ansible's own one."""
    base = os.path.expanduser(params.get("session_dir") or os.path.join(home or os.environ.get("ANSIBLE_HOME") or "~/.ansible", "lifeboat"))
    if base.startswith("~"):
        raise BadInput(f"There is no home folder for the folder of sessions {base}.", state="Nothing was changed.",
                       todo="Set HOME, or the host's variable lifeboat_session_dir.")
    return SessionStore(base, provider_name(params), server)


def _options(params: t.Mapping[str, t.Any], label: str = "") -> Options:
    server = params.get("server")
    if not server:
        raise BadInput("No server is given.", todo="Set the host's variable lifeboat_server, or the option server, "
                                                   "to the server's name as its provider has it.")
    same = ("address", "rescue_port", "rescue", "rescue_user", "public_key", "private_key_file", "login", "rescue_mail",
            "hold_interventions", "credentials_file", "reboot_method", "soft_timeout", "boot_timeout", "wait_timeout",
            "connect_timeout", "proxy_command", "force", "installed_host_keys", "installed_port", "proof_port")
    given = {name: params[name] for name in same if params.get(name) is not None}
    if params.get("state"):
        given["by_force"] = f"force=true ({FORCE_OF_ROLES[params['state']]}=true for the playbooks)"
    if params.get("method"):
        given["reboot_method"] = params["method"]
    if params.get("installed_user"):
        given["installed_login"] = Login(params["installed_user"], params.get("installed_private_key_file"),
                                         params.get("installed_password"), agent="SSH_AUTH_SOCK" in os.environ)
    if params.get("installed_known_hosts_file"):
        given["known_hosts_files"] = (params["installed_known_hosts_file"], "/etc/ssh/ssh_known_hosts")
    # An IPv6 address stands in brackets in a URL and in known_hosts, and nowhere else.
    if given.get("address"):
        given["address"] = given["address"].strip("[]")
    # AWX throws away what a job has in its home.
    is_lasting = bool(params.get("session_dir")) or "AWX_PRIVATE_DATA_DIR" not in os.environ
    return Options(server=server, label=label, is_lasting=is_lasting,
                   installed_address=(params.get("installed_host") or "").strip("[]") or None, **given)


def run(name: str, params: t.Mapping[str, t.Any], check_mode: bool, tell: t.Callable[[str], None],
        clock: Clock = CLOCK, label: str = "", home: str | None = None) -> dict[str, t.Any]:
    """Do what the module `name` does. Return its result; a failure is a result too (`failed`, `msg`, `failure`).

    params: checked against SPECS[name]. tell: takes lines of progress. clock: by which all of it waits. label: what these lines call
    the server. home: Ansible's folder, where that is not as the environment says.
    """
    session: Session | None = None
    try:
        if params.get("scope") == "account":
            return _survey(params, tell, clock, home)
        options = _options(params, label)
        folder = _folder(params, options.server, home)
        # What only reads does the same in check mode, so that the next task finds the session that it remembers.
        check_mode = check_mode and name != "rescue_mode_info"
        session = Session(lambda: make_provider(params, clock), options, folder, tell, check_mode, clock)
        if name == "rescue_mode":
            return session.enter() if params["state"] == "present" else session.leave()
        if name == "netboot":
            return session.netboot(params["boot"])
        return {"reboot": session.reboot, "rescue_mode_info": session.info}[name]()
    except LifeboatError as exc:
        return _failure(exc, session)
    except Exception as exc:
        # A fault of ours must not hide what state the server is in either.
        told = LifeboatError(f"Internal error: {type(exc).__name__}: {exc}.", todo="This is a bug. Please report it with the traceback.")
        told.__cause__ = exc
        return _failure(told, session)


def _survey(params: t.Mapping[str, t.Any], tell: t.Callable[[str], None], clock: Clock, home: str | None) -> dict[str, t.Any]:
    """All servers of the account. What is meant for one server (its address, the log-in to its installed system) is left out."""
    ours = {name: value for name, value in params.items() if not name.startswith("installed_") and name != "address"}
    ours["installed_known_hosts_file"] = params.get("installed_known_hosts_file")

    def session(provider: Provider, name: str) -> Session:
        folder = _folder({**params, "provider": provider.facts.name}, name, home)
        return Session(provider, _options({**ours, "server": name}), folder, tell, clock=clock)

    return {"changed": False, "provider": params.get("provider"), "servers": survey(lambda: make_provider(params, clock), session)}


def _failure(exc: LifeboatError, session: Session | None) -> dict[str, t.Any]:
    changed = session is not None and session.changed
    if exc.state is None and session is not None and changed:
        exc.state = session.interrupted()
    result: dict[str, t.Any] = {"failed": True, "changed": changed, **exc.as_result()}
    if exc.__cause__ is not None:
        result["exception"] = "".join(traceback.format_exception(exc))
    return result


def run_module(name: str) -> None:
    """main() of the modules."""
    from ansible.module_utils.basic import AnsibleModule

    module = AnsibleModule(argument_spec=SPECS[name], supports_check_mode=True)
    result = run(name, module.params, module.check_mode, module.debug)
    if result.pop("failed", False):
        module.fail_json(**result)
    module.exit_json(**result)
