# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""known_hosts files as OpenSSH writes them."""

from __future__ import annotations

import pytest

from ansible_collections.lifeboat.rescue.plugins.module_utils._control._ssh._host_keys import HostKey, read_known_hosts

ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ" + 42 * "0"


@pytest.fixture
def known_hosts(tmp_path, public):
    """As OpenSSH writes it: by port, hashed, with a comment, a marker and junk in between."""
    path = tmp_path / "known_hosts"
    path.write_text("\n".join((
        "# a comment", f"192.0.2.1 {ED25519}", f"[192.0.2.1]:2222 {' '.join(public('user').split()[:2])}",
        f"web1.example,192.0.2.9 {ED25519}", "junk", f"@revoked 192.0.2.66 {ED25519}", "192.0.2.67 ssh-ed25519 !!!!",
        f"192.0.2.2 {' '.join(public('rsa').split()[:2])}", f"192.0.2.2 {ED25519}")) + "\n")
    return path


def read(path, address, port=22):
    return sorted(key.type for key in read_known_hosts(str(path), address, port))


def test_known_hosts(known_hosts, public):
    assert read_known_hosts(str(known_hosts), "192.0.2.1", 22) == [HostKey.from_line(ED25519)]
    assert read_known_hosts(str(known_hosts), "192.0.2.1", 2222) == [HostKey.from_line(public("user"))]
    assert read(known_hosts, "192.0.2.1", 2223) == []
    assert read(known_hosts, "web1.example") == read(known_hosts, "192.0.2.9") == ["ssh-ed25519"]
    assert read(known_hosts, "192.0.2.2") == ["ssh-ed25519", "ssh-rsa"]
    assert read(known_hosts, "192.0.2.66") == read(known_hosts, "192.0.2.67") == []


def test_known_hosts_with_hashed_names(tmp_path, keygen):
    path = tmp_path / "hashed"
    path.write_text(f"192.0.2.1 {ED25519}\n[192.0.2.1]:2222 {ED25519}\n")
    keygen("-H", "-f", path)
    assert "192.0.2.1" not in path.read_text()
    assert read(path, "192.0.2.1") == read(path, "192.0.2.1", 2222) == ["ssh-ed25519"]
    assert read(path, "192.0.2.1", 2223) == []
