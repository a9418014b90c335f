# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keys, known_hosts and evidence as text."""

from __future__ import annotations

import pytest
import yaml

from ansible_collections.lifeboat.rescue.plugins.module_utils._control import _ssh
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._ssh import Evidence
from ansible_collections.lifeboat.rescue.plugins.module_utils._errors import BadInput

ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ" + 42 * "0"

CASES = yaml.safe_load(r"""
- name: all of it
  text: |
    boot_id 5a1c
    uptime 12.34
    hostname rescue-customer-eu
    kernel 6.1.0-44-amd64
    root ext4 /dev/sda1
    os Debian GNU/Linux 12 (bookworm)
    session {"provider": "ovh_dedicated"}
  said: {boot_id: 5a1c, uptime: 12.34, hostname: rescue-customer-eu, kernel: 6.1.0-44-amd64, root_fstype: ext4,
         root_source: /dev/sda1, os: Debian GNU/Linux 12 (bookworm), session: '{"provider": "ovh_dedicated"}'}
- name: nothing
  text: ""
  said: {}
- name: what could not be read is an empty value
  text: "boot_id \nhostname \nkernel\nos  \n"
  said: {}
- name: an initramfs lists its rootfs first, and the overlay over it
  text: |
    root rootfs rootfs
    root overlay overlay
  said: {root_fstype: overlay, root_source: overlay}
- name: a root without a source
  text: "root tmpfs"
  said: {root_fstype: tmpfs, root_source: ""}
- name: junk of a login script before, between and after
  text: |
    *** Authorised users only ***
    boot_id 5a1c
    bash: warning: setlocale: LC_ALL: cannot change locale (de_DE.UTF-8)
    uptime 7.00
    Bye.
  said: {boot_id: 5a1c, uptime: 7.0}
- name: an uptime that is none
  text: "uptime yesterday\nboot_id x"
  said: {boot_id: x}
- name: carriage returns
  text: "boot_id 5a1c\r\nhostname web1\r\n"
  said: {boot_id: 5a1c, hostname: web1}
- name: the names of fields that we do not say are not taken
  text: "root_fstype tmpfs\n_asdict x\n"
  said: {}
""")


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_parsing_of_evidence(case):
    assert Evidence.parse(case["text"]) == Evidence(**case["said"])


def test_a_made_key_pair_is_no_other_twice_and_follows_no_link(tmp_path):
    path = tmp_path / "key"
    assert _ssh.make_key_pair(str(path), "x") != _ssh.make_key_pair(str(path), "x")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        _ssh.make_key_pair(str(link), "x")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("line", [
    "", "   ", "nonsense", "ssh-ed25519", "ssh-ed25519 AAAA", "ssh-ed25519 !!!!", "ssh-rsa " + ED25519.split()[1],
    ED25519[:-8], ED25519 + "AAAA", f"{ED25519} one\n{ED25519} two", 'command="/bin/sh" ' + ED25519,
])
def test_what_is_no_public_key_is_refused(line):
    with pytest.raises(BadInput, match="no public key"):
        _ssh.check_public_key(line)


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
        _ssh.read_private_key(str(path))


def read(path, address, port=22):
    return sorted(key.type for key in _ssh.read_known_hosts(str(path), address, port))


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe\x00broken \xe9\n", b"directory"])
def test_known_hosts_that_cannot_be_read_hold_none(tmp_path, content):
    path = tmp_path / "known_hosts"
    if content == b"directory":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    assert read(path, "192.0.2.1") == []
