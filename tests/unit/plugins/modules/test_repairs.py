# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What each repair has by its name, and that they all say the same of their results."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest
import yaml

from ansible_collections.lifeboat.rescue.plugins.module_utils._rescue._repairs._base import Finding, Repair

ROOT = Path(__file__).parents[4]
PACKAGE = "ansible_collections.lifeboat.rescue.plugins"
NAMES = sorted(path.stem.lstrip("_") for path in (ROOT / "plugins/module_utils/_rescue/_repairs").glob("_*.py")
               if path.stem not in ("__init__", "_base"))
# Each module of Ansible's returns these.
COMMON = {"changed", "diff", "warnings", "msg"}
KEYS = {"needed", "findings", "changes", "proof", "timings", "failure"}


def returned(name):
    return yaml.safe_load(importlib.import_module(f"{PACKAGE}.modules.{name}").RETURN)


def test_there_are_some():
    assert {"reset_root_password", "fix_firewall"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_one_name(name):
    module = importlib.import_module(f"{PACKAGE}.module_utils._rescue._repairs._{name}")
    [repair] = [each for _name, each in inspect.getmembers(module, inspect.isclass)
                if issubclass(each, Repair) and each is not Repair and each.__module__ == module.__name__]
    assert repair.name == name
    for place in (f"plugins/modules/{name}.py", f"roles/{name}/tasks/main.yml", f"roles/{name}/README.md",
                  f"tests/unit/plugins/module_utils/_rescue/_repairs/test_{name}.py", f"tests/integration/targets/{name}"):
        assert (ROOT / place).exists(), place


@pytest.mark.parametrize("name", NAMES)
def test_the_results_are_documented(name):
    documented = returned(name)
    assert set(documented) - COMMON == KEYS
    assert set(documented["findings"]["contains"]) == set(Finding._fields)
    assert set(documented["changes"]["contains"]) == {"what", "path", "backup"}
    # The same words for the same thing, but for the samples.
    for key in KEYS:
        assert documented[key]["description"] == returned(NAMES[0])[key]["description"]
