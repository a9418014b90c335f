# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Logging in to OpenSSH itself, on loopback."""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import socket
import stat
import threading

import paramiko
import pytest

from ansible_collections.lifeboat.rescue.plugins.module_utils._control._ssh._client import Client, Evidence, Login
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._ssh._host_keys import HostKey
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._ssh._port import PortWatcher
from ansible_collections.lifeboat.rescue.plugins.module_utils._errors import LifeboatError, LoginRefused

ME = getpass.getuser()
ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ" + 42 * "0"


@contextlib.contextmanager
def connected(sshd, **options):
    client = Client(socket.create_connection(("127.0.0.1", sshd.port), timeout=10), timeout=10, **options)
    with client:
        yield client


@contextlib.contextmanager
def logged_in(sshd, keys, name="user"):
    with connected(sshd) as client:
        client.log_in(Login(ME, key_file=str(keys / name)))
        yield client


def test_host_key_is_that_of_the_server(sshd, keygen):
    with connected(sshd) as client:
        assert client.host_key.line == " ".join(sshd.host_key.split()[:2])
        assert client.host_key.fingerprint == keygen("-l", "-f", f"{sshd.path}/host_key.pub").split()[1]
        assert client.banner.startswith("SSH-2.0-OpenSSH")


def test_probe_and_client_share_one_connection(sshd, keys):
    with PortWatcher("127.0.0.1", sshd.port) as probe:
        assert probe.wait(10)
        with Client(probe.take(), 10) as client:
            client.log_in(Login(ME, key_file=str(keys / "user")))
            assert client.run("echo here") == (0, "here\n")
    assert len(re.findall("Connection from", sshd.log)) == 1


def test_the_type_of_host_key_that_is_known_is_asked_for(make_sshd, tmp_path, keygen):
    keygen("-q", "-t", "rsa", "-N", "", "-f", tmp_path / "rsa_host_key")
    sshd = make_sshd(lines=[f"HostKey {tmp_path}/rsa_host_key"])
    rsa = HostKey.from_line((tmp_path / "rsa_host_key.pub").read_text())
    ed25519 = HostKey.from_line(sshd.host_key)
    for known in (rsa, ed25519):
        with connected(sshd, expected=[known]) as client:
            assert client.host_key == known


@pytest.mark.parametrize("name", ["user", "rsa", "ecdsa"])
def test_log_in_by_key(sshd, keys, name):
    with logged_in(sshd, keys, name) as client:
        assert client.run("printf '%s' \"$HOME\"; exit 3") == (3, str(sshd.home))
        assert client.run("cat", b"through stdin") == (0, "through stdin")


def test_a_refusal_names_what_the_server_takes(sshd, keys):
    with connected(sshd) as client, pytest.raises(LoginRefused) as caught:
        client.log_in(Login(ME, key_file=str(keys / "other")))
    assert caught.value.what == f"SSH refused {ME} by key."
    with connected(sshd) as client, pytest.raises(LoginRefused) as caught:
        client.log_in(Login(ME, password="not-to-be-seen"))
    assert caught.value.what == f"SSH refused {ME} by password. The server takes publickey."
    with connected(sshd) as client, pytest.raises(LoginRefused, match="by nothing that could be tried"):
        client.log_in(Login(ME))


def test_the_password_is_in_no_message(sshd):
    with connected(sshd) as client, pytest.raises(LoginRefused) as caught:
        client.log_in(Login(ME, password="not-to-be-seen"))
    assert "not-to-be-seen" not in str(caught.value) + repr(caught.value.as_result())


def test_a_key_that_wants_a_passphrase_is_a_refusal_that_says_so(sshd, keys):
    """It may still be in the agent, and the server is well: the caller must be able to go on."""
    with connected(sshd) as client, pytest.raises(LoginRefused, match="passphrase"):
        client.log_in(Login(ME, key_file=str(keys / "locked")))


def test_log_in_by_agent(sshd, keys, agent):
    agent("other", "user")
    with connected(sshd) as client:
        client.log_in(Login(ME, key_file=str(keys / "locked"), agent=True))
        assert client.run("echo in") == (0, "in\n")


def test_a_server_that_has_enough_of_our_keys_has_refused_us(make_sshd, keys, agent):
    """Sshd hangs up after MaxAuthTries keys. The host is well and its key is known; only the log-in failed."""
    agent("other", "rsa", "ecdsa")
    sshd = make_sshd(lines=["MaxAuthTries 1"])
    with connected(sshd) as client, pytest.raises(LoginRefused, match="hung up"):
        client.log_in(Login(ME, agent=True))


class PasswordServer(paramiko.ServerInterface):
    """An SSH server that knows one password: OpenSSH's sshd would have to ask the system's own accounts."""

    def __init__(self, connection, interactive):
        self.interactive = interactive
        self.tried = []
        self.transport = paramiko.Transport(connection)
        self.transport.add_server_key(paramiko.Ed25519Key.generate() if hasattr(paramiko.Ed25519Key, "generate")
                                      else paramiko.RSAKey.generate(2048))
        # Not to wait for its beginning: a client that is quick is gone by then, which would be an error.
        self.transport.start_server(threading.Event(), self)

    def get_allowed_auths(self, username):
        return "keyboard-interactive" if self.interactive else "password"

    def check_auth_password(self, username, password):
        self.tried.append(password)
        good = not self.interactive and (username, password) == ("root", "right")
        return paramiko.AUTH_SUCCESSFUL if good else paramiko.AUTH_FAILED

    def check_auth_interactive(self, username, submethods):
        return paramiko.InteractiveQuery("", "", "Password: ") if self.interactive else paramiko.AUTH_FAILED

    def check_auth_interactive_response(self, responses):
        return paramiko.AUTH_SUCCESSFUL if responses == ["right"] else paramiko.AUTH_FAILED


@pytest.mark.parametrize("interactive", [False, True])
@pytest.mark.parametrize("password", ["right", "wrong"])
def test_log_in_by_password(listen, interactive, password):
    servers = []

    def serve(connection):
        servers.append(PasswordServer(connection, interactive))
        servers[-1].transport.join(10)

    listener = listen(serve)
    with Client(socket.create_connection(("127.0.0.1", listener.port)), 10) as client:
        if password == "right":
            client.log_in(Login("root", password=password))
        else:
            with pytest.raises(LoginRefused, match="SSH refused root by password"):
                client.log_in(Login("root", password=password))
    for server in servers:
        server.transport.close()
        server.transport.join(10)


def test_a_handshake_that_breaks_off(listen):
    listener = listen(lambda connection: connection.shutdown(socket.SHUT_RDWR))
    with pytest.raises(LifeboatError, match="broke off during the handshake"):
        Client(socket.create_connection(("127.0.0.1", listener.port)), 5)


def test_a_connection_that_breaks_off_while_a_command_runs(sshd, keys):
    with logged_in(sshd, keys) as client:
        threading.Timer(0.3, sshd.stop).start()
        try:
            status = client.run("sleep 30")[0]
        except LifeboatError as exc:
            assert "broke off" in exc.what
        else:
            assert status == -1


# What runs there


def test_evidence_of_a_real_log_in(make_sshd, keys, public):
    sshd = make_sshd(shim=False)
    sshd.authorized_keys.write_text(public("user") + "\n")
    with logged_in(sshd, keys) as client:
        evidence = client.evidence()
    with open("/proc/sys/kernel/random/boot_id") as stream:
        assert evidence.boot_id == stream.read().strip()
    assert evidence.hostname == socket.gethostname() and evidence.kernel == os.uname().release
    assert evidence.uptime > 0 and evidence.os
    # The last one is what lies on top.
    with open("/proc/mounts") as stream:
        root = [line.split() for line in stream if line.split()[1] == "/"][-1]
    assert (evidence.root_source, evidence.root_fstype) == (root[0], root[2])


# Keys


def authorized(sshd):
    return sshd.home / ".ssh" / "authorized_keys"


def test_planting_a_key_twice_is_once_and_private(sshd, keys):
    line = "ssh-ed25519 AAAA it's \"quoted\" $HOME `id`"
    with logged_in(sshd, keys) as client:
        client.plant_key(line)
        client.plant_key(line + "\n")
    assert authorized(sshd).read_text() == line + "\n"
    assert stat.S_IMODE(authorized(sshd).stat().st_mode) == 0o600
    assert stat.S_IMODE(authorized(sshd).parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("before", ["", "ssh-rsa AAAA first", "ssh-rsa AAAA first\n"])
def test_planting_a_key_keeps_those_that_are_there(sshd, keys, before):
    authorized(sshd).parent.mkdir()
    authorized(sshd).write_text(before)
    with logged_in(sshd, keys) as client:
        client.plant_key(ED25519)
    expected = [line for line in (before.strip(), ED25519) if line]
    assert authorized(sshd).read_text() == "\n".join(expected) + "\n"


def test_a_planted_key_lets_in(make_sshd, keys, public):
    sshd = make_sshd()
    sshd.authorized_keys.unlink()
    authorized(sshd).parent.mkdir(mode=0o700)
    sshd.authorized_keys.symlink_to(authorized(sshd))
    authorized(sshd).write_text(public("user"))
    with logged_in(sshd, keys) as client:
        client.plant_key(public("other"))
    with logged_in(sshd, keys, "other") as client:
        assert client.run("true")[0] == 0
    with logged_in(sshd, keys, "user") as client:
        assert client.run("true")[0] == 0


def test_a_key_that_cannot_be_planted_is_told(sshd, keys):
    (sshd.home / ".ssh").write_text("not a directory")
    with logged_in(sshd, keys) as client, pytest.raises(LifeboatError, match="could not be planted"):
        client.plant_key(ED25519)


def test_a_soft_reboot_is_asked_for_once(sshd, keys):
    with logged_in(sshd, keys) as client:
        client.soft_reboot("root")
    assert [line.split("/")[-1] for line in sshd.soft_reboots] == ["systemctl reboot"]


def test_a_soft_reboot_that_is_refused(sshd, keys):
    sshd.reboots_answer(1)
    with logged_in(sshd, keys) as client, pytest.raises(LifeboatError, match="refused to reboot"):
        client.soft_reboot("root")
    assert [line.split("/")[-1] for line in sshd.soft_reboots] == ["systemctl reboot", "shutdown -r now", "reboot "]


# As cmd answers: it takes nothing for a command but what it knows, and ends its lines with CR LF.
CMD = r"""#!/bin/sh
case $SSH_ORIGINAL_COMMAND in
"cmd /c ver") printf '\r\nMicrosoft Windows [Version 10.0.20348.2700]\r\n' ;;
"shutdown /r /t 0") echo "shutdown /r /t 0" >>"$(dirname "$0")/reboots" ;;
*) printf "'{' is not recognized as an internal or external command,\r\noperable program or batch file.\r\n" >&2; exit 1 ;;
esac
"""


def test_windows_is_told_and_rebooted_in_its_own_words(make_sshd, keys, public, tmp_path):
    shell = tmp_path / "cmd"
    shell.write_text(CMD)
    shell.chmod(0o755)
    sshd = make_sshd(shim=False, lines=[f"ForceCommand {shell}"])
    sshd.authorized_keys.write_text(public("user") + "\n")
    with logged_in(sshd, keys) as client:
        evidence = client.evidence()
        assert evidence == Evidence(os="Microsoft Windows [Version 10.0.20348.2700]")
        client.soft_reboot("Administrator")
    assert (tmp_path / "reboots").read_text() == "shutdown /r /t 0\n"
