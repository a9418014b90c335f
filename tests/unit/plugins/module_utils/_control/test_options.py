# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options, their documentation, host's variables and the roles' options say the same."""

from __future__ import annotations

import importlib
import pathlib

import pytest
import yaml

from ansible_collections.lifeboat.rescue.plugins.doc_fragments.controller import ModuleDocFragment
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._entry import (
    FORCE_OF_ROLES,
    KEY_OPTIONS,
    PER_CALL,
    REBOOT_OPTIONS,
    SPECS,
    variable_of,
)

ROOT = pathlib.Path(__file__).parents[5]
# What a role takes of rescue_mode beside the host's variables: all that is about the way in, or the way out.
IN = {"rescue", "login", "credentials_file", "rescue_mail", "hold_interventions", "force", "connect_timeout", *REBOOT_OPTIONS}
OUT = {"proof_port", "installed_host_keys", "force", "connect_timeout", *REBOOT_OPTIONS}
# Where the role's word is another one.
WORDS = {"rescue": "kernel", "rescue_mail": "mail"}


def documented(name):
    """All options of a module, as its documentation has them."""
    module = importlib.import_module(f"ansible_collections.lifeboat.rescue.plugins.modules.{name}")
    told = yaml.safe_load(module.DOCUMENTATION)
    options = dict(told.get("options") or {})
    for fragment in told["extends_documentation_fragment"]:
        place, _dot, part = fragment.removeprefix("lifeboat.rescue.").partition(".")
        if place == "controller":
            options.update(yaml.safe_load(getattr(ModuleDocFragment, part.upper() or "DOCUMENTATION"))["options"])
    return options


@pytest.mark.parametrize("name", SPECS)
def test_each_option_is_documented_with_its_host_variable(name):
    options = documented(name)
    assert set(options) == set(SPECS[name])
    for option, spec in SPECS[name].items():
        told = options[option]
        assert (told["type"], told.get("default"), told.get("choices"), told.get("elements"), bool(told.get("required"))) == (
            spec["type"], spec.get("default"), spec.get("choices"), spec.get("elements"), bool(spec.get("required"))), option
        assert option in PER_CALL or f"C({variable_of(option)})" in str(told["description"]), option


@pytest.mark.parametrize(("role", "options"), [("enter_rescue", IN), ("exit_rescue", OUT)])
def test_a_role_takes_each_option_that_is_about_its_way(role, options):
    spec = yaml.safe_load((ROOT / "roles" / role / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
    tasks = yaml.safe_load((ROOT / "roles" / role / "tasks/main.yml").read_text())
    given = next(task["lifeboat.rescue.rescue_mode"] for task in tasks if "lifeboat.rescue.rescue_mode" in task)
    readme = (ROOT / "roles" / role / "README.md").read_text()
    assert set(given) == {"state", *options}
    for option in options:
        name = f"{role}_{WORDS.get(option, option)}"
        ours = SPECS["rescue_mode"][option]
        told = {key: spec[name].get(key) for key in ("type", "choices", "elements")}
        assert told == {key: ours.get(key) for key in told} and name in str(given[option]) and f"`{name}`" in readme, name


def test_messages_name_force_as_a_playbook_takes_it():
    for state, name in FORCE_OF_ROLES.items():
        role, _gap, _option = name.rpartition("_")
        tasks = yaml.safe_load((ROOT / "roles" / role / "tasks/main.yml").read_text())
        given = next(task["lifeboat.rescue.rescue_mode"] for task in tasks if "lifeboat.rescue.rescue_mode" in task)
        assert given["state"] == state and name in given["force"]


def test_all_options_of_rescue_mode_are_about_one_of_the_ways_or_about_the_server():
    about_the_server = {name for name in SPECS["rescue_mode_info"] if name != "scope"} | set(KEY_OPTIONS)
    assert IN | OUT | about_the_server | {"state"} == set(SPECS["rescue_mode"])


def test_the_page_of_variables_has_each():
    page = (ROOT / "docs/variables.md").read_text()
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `lifeboat_")}
    wanted = {variable_of(name): spec for specs in SPECS.values() for name, spec in specs.items() if name not in (*PER_CALL, "method")}
    assert set(rows) == {*wanted, "lifeboat_progress", "lifeboat_luks"}
    for variable, spec in wanted.items():
        default = spec.get("default")
        shown = "" if default is None else f"`{str(default).lower() if isinstance(default, bool) else default}`"
        assert rows[variable].rsplit("|", 2)[1].strip() == shown, variable
