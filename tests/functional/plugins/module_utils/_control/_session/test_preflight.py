# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether we will be able to log in, by real keys and a real agent."""

from __future__ import annotations

import shutil
import types

import pytest

from ansible_collections.lifeboat.rescue.plugins.module_utils._control._providers._base import Server
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._session import _access, _preflight
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._session._context import Context, Options
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._session._record import Record, SessionStore
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._ssh import _keys
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._ssh._client import Login
from ansible_collections.lifeboat.rescue.plugins.module_utils._errors import BadInput


@pytest.fixture
def pair(keys, tmp_path):
    """A copy of a key, with the public half of whatever key is asked for beside it."""
    def make(name, public=None):
        path = tmp_path / name
        shutil.copy(keys / name, path)
        if public:
            shutil.copy(keys / f"{public}.pub", f"{path}.pub")
        return str(path)

    return make


@pytest.mark.parametrize("name", ["user", "rsa", "ecdsa"])
def test_a_pair_is_one(pair, public, name):
    _preflight.check_keys(None, pair(name))
    _preflight.check_keys(None, pair(name, name))
    _preflight.check_keys(public(name), pair(name))
    _preflight.check_keys(public(name), pair(name, "other"))  # what lies beside it is not what is given


def test_a_stale_public_half_is_found(pair):
    with pytest.raises(BadInput, match=r"user\.pub is not the public half of the private key"):
        _preflight.check_keys(None, pair("user", "other"))


def test_two_halves_of_two_pairs_are_found(pair, public):
    with pytest.raises(BadInput, match="public_key is not the public half"):
        _preflight.check_keys(public("other"), pair("user"))


def test_a_public_key_wants_an_agent_that_has_the_private_half(public, agent, monkeypatch):
    with pytest.raises(BadInput, match="No agent has the private half"):
        _preflight.check_keys(public("user"), None)
    agent("other", "rsa")
    with pytest.raises(BadInput, match="No agent has the private half"):
        _preflight.check_keys(public("user"), None)
    agent("user")
    _preflight.check_keys(public("user"), None)
    monkeypatch.delenv("SSH_AUTH_SOCK")
    with pytest.raises(BadInput, match="No agent has the private half"):
        _preflight.check_keys(public("user"), None)


def test_a_key_with_a_passphrase_is_in_an_agent(pair, public, agent):
    path = pair("locked", "locked")
    with pytest.raises(BadInput, match="wants a passphrase"):
        _preflight.check_keys(None, path)
    assert _access.login_by("root", path).key_file == path
    agent("locked")
    _preflight.check_keys(None, path)
    _preflight.check_keys(public("locked"), path)
    assert _access.login_by("root", path) == Login("root", agent=True, public_key=public("locked"))
    assert _access.login_by("root", pair("user")).key_file
    signature = _keys.sign(path, "one text")
    assert _keys.is_signed(path, "one text", signature) and not _keys.is_signed(path, "another text", signature)


def test_an_address_that_cannot_be_resolved_is_found():
    for address in ("127.0.0.1", "::1", "localhost"):
        _preflight.check_address("web1", address, 22)
    for address in ("no-such-host.invalid", "[2001:db8::1]", "192.0.2.300", "a" * 70 + ".example"):
        with pytest.raises(BadInput, match="cannot be resolved"):
            _preflight.check_address("web1", address, 22)


@pytest.mark.parametrize(("address", "is_it"), [
    ("127.0.0.1", True), ("127.0.0.77", True), ("localhost", True), ("192.0.2.1", False), ("198.51.100.7", False)])
def test_an_address_of_this_machine(address, is_it):
    assert _preflight.is_own(address) is is_it


def test_what_the_provider_tells_is_no_address_of_this_machine_nor_of_another_server(tmp_path):
    """Unless the user gave it, or the provider's API is on this machine, as that of a lab is."""
    provider = types.SimpleNamespace(facts=types.SimpleNamespace(name="a provider"), is_local=lambda: False)

    def check(told, **options):
        folder = SessionStore(str(tmp_path), "a provider", "web1")
        _preflight.check_server(Context(provider, Options("web1", **options), folder, print), Server("web1", told, None, {}))

    check("192.0.2.1")
    with pytest.raises(BadInput, match="one of this machine's own"):
        check("127.0.0.1")
    check("127.0.0.1", address="127.0.0.1")
    check("127.0.0.1", installed_address="127.0.0.1")
    other = SessionStore(str(tmp_path), "a provider", "web2")
    other.save(Record("a provider", "web2", address="192.0.2.1"))
    with pytest.raises(BadInput, match="at which this controller has a rescue session of web2"):
        check("192.0.2.1")
    check("192.0.2.1", rescue_port=2222)
    provider.is_local = lambda: True
    check("127.0.0.1")
