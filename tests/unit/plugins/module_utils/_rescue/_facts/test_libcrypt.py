# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.lifeboat.rescue.plugins.module_utils._errors import BadInput
from ansible_collections.lifeboat.rescue.plugins.module_utils._rescue import _command
from ansible_collections.lifeboat.rescue.plugins.module_utils._rescue._facts import _libcrypt

RUN = _command.Runner(timeout=30)


def tree(path, files):
    for name, text in files.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return str(path)


@pytest.mark.parametrize(("files", "expected"), [
    ({}, ("sha512", None)),
    ({"etc/login.defs": "ENCRYPT_METHOD YESCRYPT\nYESCRYPT_COST_FACTOR 7\n"}, ("yescrypt", 7)),
    ({"etc/login.defs": "#ENCRYPT_METHOD DES\nENCRYPT_METHOD SHA256\nSHA_CRYPT_MAX_ROUNDS 9000"}, ("sha256", 9000)),
    # The later PAM wins over login.defs, in Debian's and in Red Hat's files.
    ({"etc/login.defs": "ENCRYPT_METHOD SHA512\n",
      "etc/pam.d/common-password": "password [success=1 default=ignore] pam_unix.so obscure yescrypt\n"},
     ("yescrypt", None)),
    ({"etc/login.defs": "ENCRYPT_METHOD YESCRYPT\n",
      "etc/pam.d/system-auth": "auth sufficient pam_unix.so nullok\n"
                               "password sufficient pam_unix.so sha512 shadow rounds=65536\n"}, ("sha512", 65536)),
    ({"etc/login.defs": "ENCRYPT_METHOD YESCRYPT\n",
      "etc/pam.d/common-password": "#password required pam_unix.so sha512\npassword required pam_unix.so nullok\n"},
     ("yescrypt", None)),
    # What can be broken in hours is not made any more.
    ({"etc/login.defs": "ENCRYPT_METHOD MD5\n"}, ("sha512", None)),
    ({"etc/login.defs": "ENCRYPT_METHOD DES\n", "etc/pam.d/system-auth": "password required pam_unix.so md5\n"},
     ("sha512", None)),
])
def test_method_of(tmp_path, files, expected):
    assert _libcrypt.method_of(tree(tmp_path, files)) == expected


@pytest.mark.parametrize(("method", "cost", "beginning"), [
    ("sha512", None, "$6$"), ("sha512", 5001, "$6$rounds=5001$"), ("sha256", None, "$5$"),
    ("yescrypt", None, "$y$j9T$"), ("yescrypt", 1, "$y$j75$"), ("yescrypt", 6, "$y$jAT$"),
    ("blowfish", 5, "$2b$05$"), ("gost_yescrypt", None, "$gy$j9T$"),
])
def test_make_and_match(method, cost, beginning):
    hashed = _libcrypt.make(RUN, "/", "pässword 'x'", method, cost)
    assert hashed.startswith(beginning)
    assert _libcrypt.make(RUN, "/", "pässword 'x'", method, cost) != hashed
    assert _libcrypt.matches(RUN, "/", "pässword 'x'", hashed)
    assert not _libcrypt.matches(RUN, "/", "password 'x'", hashed)


@pytest.mark.parametrize("method", ["sha512", "yescrypt"])
def test_the_target_hashes_where_the_rescue_system_cannot(monkeypatch, method):
    ours = _libcrypt.make(RUN, "/", "secret", method)
    monkeypatch.setattr(_libcrypt, "_libcrypt", lambda: None)
    assert _libcrypt.matches(RUN, "/", "secret", ours)
    assert not _libcrypt.matches(RUN, "/", "other", ours)
    theirs = _libcrypt.make(RUN, "/", "secret", method)
    monkeypatch.undo()
    assert _libcrypt.matches(RUN, "/", "secret", theirs)


def test_nobody_can_hash(monkeypatch, tmp_path):
    monkeypatch.setattr(_libcrypt, "_libcrypt", lambda: None)
    monkeypatch.setattr(_libcrypt, "_crypt_inside", lambda *args: None)
    with pytest.raises(_libcrypt.NoSuchMethod, match="yescrypt"):
        _libcrypt.make(RUN, str(tmp_path), "secret", "yescrypt")


@pytest.mark.parametrize("password", ["", "a\nb", "a\0b", "a\rb"])
def test_passwords_that_cannot_be(password):
    with pytest.raises(BadInput):
        _libcrypt.make(RUN, "/", password, "sha512")


@pytest.mark.parametrize("hashed", [
    "", "*", "!", "x", "secret", "$6$", "$6$a b$c", "$6$abc:def", "$zz$abc$defdefdefdefdef",
])
def test_hashes_that_cannot_be(hashed):
    with pytest.raises(BadInput):
        _libcrypt.check_hash(RUN, "/", hashed)


@pytest.mark.parametrize("hashed", ["", "*", "!", "!!", "x"])
def test_no_hash_matches_nothing(hashed):
    assert not _libcrypt.matches(RUN, "/", "secret", hashed)
