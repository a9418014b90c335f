# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import yaml
from ansible.plugins.connection import ssh

from ansible_collections.lifeboat.rescue.plugins.doc_fragments.ssh_options import ModuleDocFragment


def without_versions(node):
    if isinstance(node, dict):
        return {key: without_versions(value) for key, value in node.items() if key != "version_added"}
    if isinstance(node, list):
        return [without_versions(item) for item in node]
    return node


def test_it_is_the_options_of_the_installed_ssh_plugin_without_their_versions():
    theirs = yaml.safe_load(ssh.DOCUMENTATION)["options"]
    assert theirs != without_versions(theirs)
    assert yaml.safe_load(ModuleDocFragment().DOCUMENTATION) == {"options": without_versions(theirs)}


def test_ansible_test_finds_no_computed_attribute():
    assert "DOCUMENTATION" not in vars(ModuleDocFragment)
