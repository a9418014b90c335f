# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.lifeboat.rescue.plugins.module_utils._rescue._changes import LinkSetAside
from ansible_collections.lifeboat.rescue.plugins.module_utils._rescue._command import Result
from ansible_collections.lifeboat.rescue.plugins.module_utils._rescue._facts import _sshd, _systemd

ETC = "etc/systemd/system"


@pytest.fixture
def root(tmp_path):
    for name in (f"{ETC}/multi-user.target.wants", "usr/lib/systemd/system", "etc/ssh/sshd_config.d"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "usr/lib/systemd/system/x.service").write_text("[Service]\nExecStart=/bin/a \\\n  -b\n")
    return tmp_path


def enable(root, unit="x.service"):
    (root / f"{ETC}/multi-user.target.wants/{unit}").symlink_to(f"/usr/lib/systemd/system/{unit}")


def test_enabled(root):
    assert not _systemd.enabled(str(root), "x.service")
    enable(root)
    assert _systemd.enabled(str(root), "x.service")


def test_masked_is_not_enabled(root):
    enable(root)
    (root / f"{ETC}/x.service").symlink_to("/dev/null")
    assert not _systemd.enabled(str(root), "x.service")


def test_a_link_without_a_unit_is_not_enabled(root):
    enable(root, "gone.service")
    assert not _systemd.enabled(str(root), "gone.service")


def test_enabled_by_the_vendor(root):
    wants = root / "usr/lib/systemd/system/sysinit.target.wants"
    wants.mkdir()
    (wants / "x.service").symlink_to("../x.service")
    assert _systemd.enabled(str(root), "x.service")
    assert _systemd.links(str(root), "x.service") == []


def test_set_aside_and_back(root):
    enable(root)
    (root / f"{ETC}/alias.service").symlink_to("/usr/lib/systemd/system/x.service")
    (root / f"{ETC}/other.service").symlink_to("/usr/lib/systemd/system/y.service")
    links = _systemd.links(str(root), "x.service")
    assert links == [f"{ETC}/alias.service", f"{ETC}/multi-user.target.wants/x.service"]
    changes = [LinkSetAside(str(root), link, "set aside") for link in links]
    for change in changes:
        change.apply()
    assert not _systemd.enabled(str(root), "x.service") and _systemd.links(str(root), "x.service") == []
    (root / changes[1].backup.lstrip("/")).rename(root / links[1])
    assert _systemd.enabled(str(root), "x.service")
    assert (root / f"{ETC}/other.service").is_symlink()


def test_values_with_drop_ins(root):
    assert _systemd.values(str(root), "x.service", "ExecStart") == ["/bin/a    -b"]
    for place, name, text in (("usr/lib/systemd/system", "10.conf", "ExecStart=/bin/vendor\n"),
                              (ETC, "20.conf", "[Service]\nExecStart=\nExecStart=/bin/c\n")):
        (root / place / "x.service.d").mkdir()
        (root / place / "x.service.d" / name).write_text(text)
    assert _systemd.values(str(root), "x.service", "ExecStart") == ["/bin/c"]


class Told:
    """A runner whose sshd prints this configuration, or fails."""

    def __init__(self, text):
        self.text = text

    def __call__(self, argv, **options):
        return Result(0, self.text, "") if self.text else Result(1, "", "no hostkeys available")


@pytest.mark.parametrize(("text", "expected"), [
    ("port 22\naddressfamily any\nlistenaddress [::]:22\nlistenaddress 0.0.0.0:22\n", [(4, "", 22), (6, "", 22)]),
    ("port 2222\naddressfamily inet\nlistenaddress 0.0.0.0:2222\n", [(4, "", 2222)]),
    ("port 22\naddressfamily any\nlistenaddress 192.0.2.7:22\nlistenaddress [2001:db8::7]:2200\n",
     [(4, "192.0.2.7", 22), (6, "2001:db8::7", 2200)]),
    ("port 22\naddressfamily any\nlistenaddress 127.0.0.1:22\nlistenaddress [::1]:22\n", []),
    ("port 22\naddressfamily any\nlistenaddress 0.0.0.0:22 rdomain mgmt\n", [(4, "", 22)]),
])
def test_endpoints(root, text, expected):
    sshd = _sshd.ask(Told(text), str(root))
    assert (sshd.endpoints, sshd.source, sshd.complaint) == (expected, "sshd -T", "")


def test_sshd_that_does_not_tell(root):
    (root / "etc/ssh/sshd_config").write_text("Port 2200\n#Port 1\nport=2201\nMatch User x\nPort 9\n")
    (root / "etc/ssh/sshd_config.d/a.conf").write_text("AddressFamily inet\n")
    sshd = _sshd.ask(Told(""), str(root))
    assert sshd.endpoints == [(4, "", 2200), (4, "", 2201)]
    assert sshd.source == "sshd_config" and "no hostkeys" in sshd.complaint


def test_sshd_without_a_word(root):
    sshd = _sshd.ask(Told(""), str(root))
    assert sshd.endpoints == [(4, "", 22), (6, "", 22)] and sshd.source == "default"


def test_a_socket_wins(root):
    (root / "usr/lib/systemd/system/ssh.socket").write_text("[Socket]\nListenStream=22\n")
    told = Told("port 22\nlistenaddress 0.0.0.0:22\n")
    assert _sshd.ask(told, str(root)).source == "sshd -T"
    enable(root, "ssh.socket")
    assert _sshd.ask(told, str(root)).endpoints == [(4, "", 22), (6, "", 22)]
    (root / f"{ETC}/ssh.socket.d").mkdir()
    (root / f"{ETC}/ssh.socket.d/port.conf").write_text("[Socket]\nListenStream=\nListenStream=0.0.0.0:2222\n")
    sshd = _sshd.ask(told, str(root))
    assert (sshd.endpoints, sshd.source) == ([(4, "", 2222)], "ssh.socket")
