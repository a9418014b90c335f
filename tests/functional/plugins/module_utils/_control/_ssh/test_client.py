# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""SSH against OpenSSH itself, on loopback."""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import resource
import socket
import stat
import subprocess
import threading
import time

import paramiko
import pytest

from ansible_collections.lifeboat.rescue.plugins.module_utils._control import _ssh
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._ssh import Client, Evidence, HostKey, Login, Probe
from ansible_collections.lifeboat.rescue.plugins.module_utils._errors import BadInput, LifeboatError, LoginRefused

ME = getpass.getuser()
ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ" + 42 * "0"


def keygen(*arguments):
    return subprocess.run(["ssh-keygen", *map(str, arguments)], check=True, capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=60).stdout


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Private keys by name, made by ssh-keygen."""
    path = tmp_path_factory.mktemp("keys")
    for name, kind, passphrase in (("user", "ed25519", ""), ("other", "ed25519", ""), ("rsa", "rsa", ""),
                                   ("ecdsa", "ecdsa", ""), ("locked", "ed25519", "a passphrase")):
        keygen("-q", "-t", kind, "-N", passphrase, "-C", f"{name}@example", "-f", path / name)
    return path


def public(keys, name):
    return (keys / f"{name}.pub").read_text().strip()


@pytest.fixture
def sshd(make_sshd, keys):
    sshd = make_sshd()
    sshd.authorized_keys.write_text("\n".join(public(keys, name) for name in ("user", "rsa", "ecdsa")) + "\n")
    return sshd


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


@pytest.mark.parametrize("name", ["user", "rsa", "ecdsa"])
def test_a_signature_is_good_for_one_text_and_one_key(keys, name):
    path = str(keys / name)
    signature = _ssh.sign(path, "one text")
    assert _ssh.is_signed(path, "one text", signature)
    assert not _ssh.is_signed(path, "another text", signature)
    assert not _ssh.is_signed(str(keys / "other"), "one text", signature)
    assert not any(_ssh.is_signed(path, "one text", nonsense) for nonsense in ("", "AAAA", "no base64", signature[:-8]))


# Who answers: the probe


class Listener:
    """A TCP port that does with each connection what `serve(connection)` says."""

    def __init__(self, serve=None, address="127.0.0.1"):
        self.serve = serve or (lambda connection: None)
        self.socket = socket.create_server((address, 0))
        self.port = self.socket.getsockname()[1]
        self.accepted = []
        self.times = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self):
        while True:
            try:
                connection = self.socket.accept()[0]
            except OSError:
                return
            self.accepted.append(connection)
            self.times.append(time.monotonic())
            self._threads.append(threading.Thread(target=self._serve, args=(connection,), daemon=True))
            self._threads[-1].start()

    def _serve(self, connection):
        with contextlib.suppress(OSError):
            self.serve(connection)

    def close(self):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        for connection in self.accepted:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(timeout=10)
        for connection in self.accepted:
            connection.close()


@pytest.fixture
def listen():
    made = []

    def make(serve=None, **options):
        made.append(Listener(serve, **options))
        return made[-1]

    yield make
    for listener in made:
        listener.close()


@contextlib.contextmanager
def no_file_left_open():
    before = os.listdir("/proc/self/fd")
    yield
    assert len(os.listdir("/proc/self/fd")) == len(before)


@pytest.mark.parametrize("wanted", [0, 0.3])
def test_probe_of_a_closed_port(wanted):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with no_file_left_open(), Probe("127.0.0.1", unused.getsockname()[1]) as probe:
            started = time.monotonic()
            assert not probe.wait(wanted)
            assert wanted <= time.monotonic() - started < wanted + 0.5
            probe.wait(0.05)
            assert probe.heard == "connection refused"


def test_probe_of_a_port_that_closes_at_once(listen):
    listener = listen(lambda connection: connection.shutdown(socket.SHUT_RDWR))
    with Probe("127.0.0.1", listener.port) as probe:
        assert not probe.wait(0.3)
        assert probe.heard == "connection closed without a banner"


def test_probe_slows_down_in_silence(listen, monkeypatch):
    """Each connection that is taken without a word costs a slow machine a process."""
    monkeypatch.setattr(_ssh, "FIRST_SECONDS", 0.05)
    listener = listen()
    with Probe("127.0.0.1", listener.port) as probe:
        assert not probe.wait(3)
        early = [when for when in listener.times if when - listener.times[0] < 1]
        late = [when for when in listener.times if when - listener.times[0] >= 2]
        assert len(late) <= len(early) / 2


def test_probe_of_a_silent_port_keeps_to_three_connections(listen, monkeypatch):
    monkeypatch.setattr(_ssh, "FIRST_SECONDS", 0.05)
    monkeypatch.setattr(_ssh, "EAGER_PACES", 100)
    listener = listen()
    with Probe("127.0.0.1", listener.port) as probe:
        assert not probe.wait(0.6)
        assert len(listener.accepted) == _ssh.MOST_ATTEMPTS
        assert listener.times[1] - listener.times[0] >= 0.04


def test_probe_renews_the_young_and_keeps_the_oldest(listen, monkeypatch):
    monkeypatch.setattr(_ssh, "FIRST_SECONDS", 0.05)
    listener = listen()
    with Probe("127.0.0.1", listener.port) as probe:
        assert not probe.wait(0.7)
        assert len(listener.accepted) > _ssh.MOST_ATTEMPTS
        assert probe.heard == "no banner"
        listener.accepted[0].sendall(b"SSH-2.0-patience\r\n")
        assert probe.wait(1)
        with probe.take() as sock:
            assert sock.recv(100) == b"SSH-2.0-patience\r\n"


def test_probe_gives_even_the_oldest_up_at_last(listen, monkeypatch):
    monkeypatch.setattr(_ssh, "PATIENT_SECONDS", 0.1)
    monkeypatch.setattr(_ssh, "FIRST_SECONDS", 0.05)
    listener = listen()
    with Probe("127.0.0.1", listener.port) as probe:
        assert not probe.wait(0.6)
        listener.accepted[0].settimeout(5)
        assert listener.accepted[0].recv(1) == b""


def test_probe_of_a_banner_that_takes_three_seconds(listen):
    """Longer than the young attempts are given, so only patience meets it."""
    over = threading.Event()

    def slow(connection):
        if not over.wait(3):
            connection.sendall(b"SSH-2.0-slow\r\n")

    listener = listen(slow)
    with Probe("127.0.0.1", listener.port) as probe:
        started = time.monotonic()
        assert probe.wait(10)
        assert 2.9 < time.monotonic() - started < 3.5
        assert probe.heard == "SSH-2.0-slow"
        probe.take().close()
        over.set()


def test_probe_is_there_within_milliseconds_of_the_port(listen):
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        with Probe("127.0.0.1", reserved.getsockname()[1]) as probe:
            assert not probe.wait(0.1)
            opened = []

            def serve():
                reserved.listen()
                opened.append(time.monotonic())
                with reserved.accept()[0] as connection:
                    connection.sendall(b"SSH-2.0-new\r\n")
                    over.wait(10)

            over = threading.Event()
            thread = threading.Thread(target=serve)
            thread.start()
            try:
                assert probe.wait(5)
                assert time.monotonic() - opened[0] < _ssh.FIRST_SECONDS + 0.3
            finally:
                over.set()
                thread.join(timeout=10)


def test_a_banner_may_follow_other_lines_and_come_in_pieces(listen):
    gate = threading.Event()

    def talkative(connection):
        connection.sendall(b"Welcome.\r\n" * 100 + b"SS")
        gate.wait(10)
        connection.sendall(b"H-2.0-talkative\r\n")

    listener = listen(talkative)
    with Probe("127.0.0.1", listener.port) as probe:
        assert not probe.wait(0.2)
        gate.set()
        assert probe.wait(2)
        assert probe.heard == "SSH-2.0-talkative"
        probe.take().close()


def test_who_speaks_something_else_costs_no_processor_time(listen):
    listener = listen(lambda connection: connection.sendall(b"220 mail.example ESMTP\r\n"))
    with Probe("127.0.0.1", listener.port) as probe:
        before = resource.getrusage(resource.RUSAGE_SELF)
        assert not probe.wait(1.0)
        after = resource.getrusage(resource.RUSAGE_SELF)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.3


def test_who_speaks_something_else_and_hangs_up_is_let_go(listen):
    def serve(connection):
        connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")
        connection.shutdown(socket.SHUT_RDWR)

    listener = listen(serve)
    with Probe("127.0.0.1", listener.port) as probe:
        before = resource.getrusage(resource.RUSAGE_SELF)
        assert not probe.wait(1.0)
        after = resource.getrusage(resource.RUSAGE_SELF)
        assert probe.heard == "connection closed without a banner"
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.3


def test_every_address_of_a_name_is_tried(listen, monkeypatch):
    """A server may answer by one of its addresses only: its rescue system has no IPv6, as a rule."""
    listener = listen(lambda connection: connection.sendall(b"SSH-2.0-second\r\n"))
    real = socket.getaddrinfo

    def two(host, port, *more, **options):
        first = [(family, kind, proto, name, ("127.0.0.2", port))
                 for family, kind, proto, name, dummy in real("127.0.0.2", port, *more, **options)]
        return first + real("127.0.0.1", port, *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", two)
    with Probe("web1.example", listener.port) as probe:
        assert probe.wait(3)
        probe.take().close()


def test_probe_of_a_name_that_is_none():
    with Probe("no-such-host.invalid", 22) as probe:
        assert not probe.wait(0)
        assert probe.heard.startswith("no-such-host.invalid cannot be resolved")


def test_a_closed_probe_leaves_nothing(listen):
    listener = listen(lambda connection: connection.sendall(b"SSH-2.0-x\r\n"))
    with no_file_left_open():
        probe = Probe("127.0.0.1", listener.port)
        assert probe.wait(5)
        probe.close()
        while listener.accepted:  # ours too, but not the probe's
            listener.accepted.pop().close()
    with pytest.raises(RuntimeError):
        Probe("127.0.0.1", 1).take()


# Log-in


def test_host_key_is_that_of_the_server(sshd):
    with connected(sshd) as client:
        assert client.host_key.line == " ".join(sshd.host_key.split()[:2])
        assert client.host_key.fingerprint == keygen("-l", "-f", f"{sshd.path}/host_key.pub").split()[1]
        assert client.banner.startswith("SSH-2.0-OpenSSH")


def test_probe_and_client_share_one_connection(sshd, keys):
    with Probe("127.0.0.1", sshd.port) as probe:
        assert probe.wait(10)
        with Client(probe.take(), 10) as client:
            client.log_in(Login(ME, key_file=str(keys / "user")))
            assert client.run("echo here") == (0, "here\n")
    assert len(re.findall("Connection from", sshd.log)) == 1


def test_the_type_of_host_key_that_is_known_is_asked_for(make_sshd, tmp_path):
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


@pytest.fixture
def agent(tmp_path, keys, monkeypatch):
    """A real ssh-agent, with the keys that are asked for."""
    path = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 10
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(path))

    def add(*names):
        subprocess.run(["ssh-add", "-q", *(str(keys / name) for name in names)], check=True, timeout=10)

    yield add
    process.terminate()
    process.wait(timeout=10)


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


def test_evidence_of_a_real_log_in(make_sshd, keys):
    sshd = make_sshd(shim=False)
    sshd.authorized_keys.write_text(public(keys, "user") + "\n")
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


def test_a_planted_key_lets_in(make_sshd, keys):
    sshd = make_sshd()
    sshd.authorized_keys.unlink()
    authorized(sshd).parent.mkdir(mode=0o700)
    sshd.authorized_keys.symlink_to(authorized(sshd))
    authorized(sshd).write_text(public(keys, "user"))
    with logged_in(sshd, keys) as client:
        client.plant_key(public(keys, "other"))
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


def test_windows_is_told_and_rebooted_in_its_own_words(make_sshd, keys, tmp_path):
    shell = tmp_path / "cmd"
    shell.write_text(CMD)
    shell.chmod(0o755)
    sshd = make_sshd(shim=False, lines=[f"ForceCommand {shell}"])
    sshd.authorized_keys.write_text(public(keys, "user") + "\n")
    with logged_in(sshd, keys) as client:
        evidence = client.evidence()
        assert evidence == Evidence(os="Microsoft Windows [Version 10.0.20348.2700]")
        client.soft_reboot("Administrator")
    assert (tmp_path / "reboots").read_text() == "shutdown /r /t 0\n"


def test_a_made_key_pair_is_private_and_readable_by_openssh(tmp_path):
    path = tmp_path / "id_ed25519"
    os.umask(os.umask(0o022))
    line = _ssh.make_key_pair(str(path), "lifeboat.rescue-test")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert keygen("-y", "-f", path).split()[:2] == line.split()[:2]
    assert line.split()[2] == "lifeboat.rescue-test"
    assert _ssh.check_public_key(line) == line
    assert _ssh.public_key_of(str(path)).split()[:2] == line.split()[:2]


@pytest.mark.parametrize("name", ["user", "rsa", "ecdsa"])
def test_public_keys_of_openssh_pass(keys, name, tmp_path):
    line = public(keys, name)
    assert _ssh.check_public_key(f"  {line}\n") == line
    copy = tmp_path / "copy"
    copy.write_bytes((keys / name).read_bytes())
    copy.chmod(0o600)
    assert _ssh.public_key_of(str(copy)).split()[:2] == line.split()[:2]  # without its .pub


def test_a_private_key_in_the_place_of_the_public_one(keys):
    text = (keys / "user").read_text()
    for given in (text, text.splitlines()[0]):
        with pytest.raises(BadInput, match="is a private key") as caught:
            _ssh.check_public_key(given)
        assert text.splitlines()[1] not in str(caught.value)


def test_a_private_key_with_a_passphrase(keys):
    with pytest.raises(BadInput, match="wants a passphrase"):
        _ssh.read_private_key(str(keys / "locked"))


# known_hosts


@pytest.fixture
def known_hosts(tmp_path, keys):
    """As OpenSSH writes it: by port, hashed, with a comment, a marker and junk in between."""
    path = tmp_path / "known_hosts"
    path.write_text("\n".join((
        "# a comment", f"192.0.2.1 {ED25519}", f"[192.0.2.1]:2222 {' '.join(public(keys, 'user').split()[:2])}",
        f"web1.example,192.0.2.9 {ED25519}", "junk", f"@revoked 192.0.2.66 {ED25519}", "192.0.2.67 ssh-ed25519 !!!!",
        f"192.0.2.2 {' '.join(public(keys, 'rsa').split()[:2])}", f"192.0.2.2 {ED25519}")) + "\n")
    return path


def read(path, address, port=22):
    return sorted(key.type for key in _ssh.read_known_hosts(str(path), address, port))


def test_known_hosts(known_hosts, keys):
    assert _ssh.read_known_hosts(str(known_hosts), "192.0.2.1", 22) == [HostKey.from_line(ED25519)]
    assert _ssh.read_known_hosts(str(known_hosts), "192.0.2.1", 2222) == [HostKey.from_line(public(keys, "user"))]
    assert read(known_hosts, "192.0.2.1", 2223) == []
    assert read(known_hosts, "web1.example") == read(known_hosts, "192.0.2.9") == ["ssh-ed25519"]
    assert read(known_hosts, "192.0.2.2") == ["ssh-ed25519", "ssh-rsa"]
    assert read(known_hosts, "192.0.2.66") == read(known_hosts, "192.0.2.67") == []


def test_known_hosts_with_hashed_names(tmp_path, keys):
    path = tmp_path / "hashed"
    path.write_text(f"192.0.2.1 {ED25519}\n[192.0.2.1]:2222 {ED25519}\n")
    keygen("-H", "-f", path)
    assert "192.0.2.1" not in path.read_text()
    assert read(path, "192.0.2.1") == read(path, "192.0.2.1", 2222) == ["ssh-ed25519"]
    assert read(path, "192.0.2.1", 2223) == []
