# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is so of each provider."""

from __future__ import annotations

import pathlib

import pytest

from ansible_collections.lifeboat.rescue.plugins.module_utils._control._providers._registry import PROVIDERS

ROOT = pathlib.Path(__file__).parents[6]


@pytest.mark.parametrize("name", PROVIDERS)
def test_its_facts_agree(name):
    facts = PROVIDERS[name].facts
    assert facts.name == name and facts.credentials and facts.rights
    assert {*facts.boots_by, *facts.lets_in_by} <= {*facts.settings}
    # What boots is restored before the reboot on the way out. It would be one into the rescue system again.
    assert facts.boots_by or facts.reboot != "separate"
    assert facts.lag > 0.0


@pytest.mark.parametrize("name", PROVIDERS)
def test_the_readme_tells_of_it(name):
    assert f"`{name}`" in (ROOT / "README.md").read_text()
