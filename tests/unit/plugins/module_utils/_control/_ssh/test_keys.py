# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is a key and what is none."""

from __future__ import annotations

import pytest

from ansible_collections.lifeboat.rescue.plugins.module_utils._control._ssh import _keys
from ansible_collections.lifeboat.rescue.plugins.module_utils._errors import BadInput

ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ" + 42 * "0"


def test_a_made_key_pair_is_no_other_twice_and_follows_no_link(tmp_path):
    path = tmp_path / "key"
    assert _keys.make_key_pair(str(path), "x") != _keys.make_key_pair(str(path), "x")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        _keys.make_key_pair(str(link), "x")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("line", [
    "", "   ", "nonsense", "ssh-ed25519", "ssh-ed25519 AAAA", "ssh-ed25519 !!!!", "ssh-rsa " + ED25519.split()[1],
    ED25519[:-8], ED25519 + "AAAA", f"{ED25519} one\n{ED25519} two", 'command="/bin/sh" ' + ED25519,
])
def test_what_is_no_public_key_is_refused(line):
    with pytest.raises(BadInput, match="not an SSH public key"):
        _keys.check_public_key(line)


@pytest.mark.parametrize(("content", "message"), [
    (None, "There is no private key"), ("", "not a private key"), ("nonsense\n", "not a private key"),
    ("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n", "not a private key"),
    (ED25519 + "\n", "not a private key"), ("directory", "not a private key"),
])
def test_what_is_no_private_key(tmp_path, content, message):
    path = tmp_path / "key"
    if content == "directory":
        path.mkdir()
    elif content is not None:
        path.write_text(content)
    with pytest.raises(BadInput, match=message):
        _keys.read_private_key(str(path))
