# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What may be a tree, a namespace and a variable."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleError

from ansible_collections.lifeboat.rescue.plugins.connection.chroot_ssh import wrap


@pytest.mark.parametrize("path", ["", "/", "//", "///", "/.", "/./.", "mnt", "./mnt", "../mnt", "/..", "/mnt/..",
                                  "/mnt/../..", "/mnt/../etc", "~/mnt"])
def test_paths_that_are_no_tree(path):
    with pytest.raises(AnsibleError, match="chroot_path must be"):
        wrap("id", path, "")


@pytest.mark.parametrize("path", ["/mnt", "/mnt/", "/mnt//target", "/mnt/..x/a..b"])
def test_paths_that_may_be_a_tree(path):
    assert wrap("id", path, "")


def test_a_namespace_is_an_absolute_path():
    with pytest.raises(AnsibleError, match="chroot_namespace must be"):
        wrap("id", "/mnt", "run/x")


@pytest.mark.parametrize("name", ["", "A B", "A=B", "1A", "A;id", "$A", 1])
def test_a_name_of_a_variable_cannot_be_a_command(name):
    with pytest.raises(AnsibleError, match="chroot_env"):
        wrap("id", "/mnt", "", env={name: "x"})
