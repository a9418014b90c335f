# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What runs on the controller and what runs in the rescue system share two files; the latter needs the standard library alone."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

PLACE = Path(__file__).parents[4] / "plugins/module_utils"
SHARED = {"_errors", "_wait"}


def imports(path):
    """What a file imports, anywhere in it: of this collection as ("", names from module_utils on), else as (top-level package, [])."""
    package = path.relative_to(PLACE).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((each.name.split(".")[0], []) for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield (node.module or "").split(".")[0], []
        elif isinstance(node, ast.ImportFrom):
            base = [*package[:len(package) - node.level + 1], *(node.module or "").split(".")]
            base = [name for name in base if name]
            # Without a module, the names are modules.
            yield from (("", base or [each.name]) for each in node.names)


def files(*names):
    return [path for name in names for path in sorted(PLACE.glob(name))]


@pytest.mark.parametrize("path", files("_rescue/**/*.py", "_errors.py", "_wait.py"), ids=lambda path: str(path.relative_to(PLACE)))
def test_the_rescue_system_needs_the_standard_library_alone(path):
    for package, ours in imports(path):
        assert package in sys.stdlib_module_names or ours[:1] == ["_rescue"] or (ours and ours[0] in SHARED), (package, ours)


@pytest.mark.parametrize("path", files("_control/**/*.py"), ids=lambda path: str(path.relative_to(PLACE)))
def test_the_controller_takes_nothing_of_the_rescue_wing(path):
    for _package, ours in imports(path):
        assert not ours or ours[0] in {"_control", *SHARED}, ours


def test_nothing_is_outside_of_the_wings():
    there = {path.relative_to(PLACE).parts[0].removesuffix(".py") for path in files("**/*.py")}
    assert there == {"_control", "_rescue", *SHARED}
