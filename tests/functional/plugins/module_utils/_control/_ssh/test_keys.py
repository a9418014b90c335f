# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Key pairs, beside OpenSSH's own tool."""

from __future__ import annotations

import os
import stat

import pytest

from ansible_collections.lifeboat.rescue.plugins.module_utils._control._ssh import _keys
from ansible_collections.lifeboat.rescue.plugins.module_utils._errors import BadInput


@pytest.mark.parametrize("name", ["user", "rsa", "ecdsa"])
def test_a_signature_is_good_for_one_text_and_one_key(keys, name):
    path = str(keys / name)
    signature = _keys.sign(path, "one text")
    assert _keys.is_signed(path, "one text", signature)
    assert not _keys.is_signed(path, "another text", signature)
    assert not _keys.is_signed(str(keys / "other"), "one text", signature)
    assert not any(_keys.is_signed(path, "one text", nonsense) for nonsense in ("", "AAAA", "no base64", signature[:-8]))


def test_a_made_key_pair_is_private_and_readable_by_openssh(tmp_path, keygen):
    path = tmp_path / "id_ed25519"
    os.umask(os.umask(0o022))
    line = _keys.make_key_pair(str(path), "lifeboat.rescue-test")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert keygen("-y", "-f", path).split()[:2] == line.split()[:2]
    assert line.split()[2] == "lifeboat.rescue-test"
    assert _keys.check_public_key(line) == line
    assert _keys.public_key_of(str(path)).split()[:2] == line.split()[:2]


@pytest.mark.parametrize("name", ["user", "rsa", "ecdsa"])
def test_public_keys_of_openssh_pass(keys, public, name, tmp_path):
    line = public(name)
    assert _keys.check_public_key(f"  {line}\n") == line
    copy = tmp_path / "copy"
    copy.write_bytes((keys / name).read_bytes())
    copy.chmod(0o600)
    assert _keys.public_key_of(str(copy)).split()[:2] == line.split()[:2]  # without its .pub


def test_a_private_key_in_the_place_of_the_public_one(keys):
    text = (keys / "user").read_text()
    for given in (text, text.splitlines()[0]):
        with pytest.raises(BadInput, match="is a private key") as caught:
            _keys.check_public_key(given)
        assert text.splitlines()[1] not in str(caught.value)


def test_a_private_key_with_a_passphrase(keys):
    with pytest.raises(BadInput, match="wants a passphrase"):
        _keys.read_private_key(str(keys / "locked"))
