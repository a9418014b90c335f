# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keys that ssh-keygen made, a real ssh-agent, and TCP ports that behave as a test wants."""

from __future__ import annotations

import contextlib
import getpass
import os
import socket
import subprocess
import threading
import time

import pytest


@pytest.fixture(scope="session")
def keygen():
    """Run ssh-keygen; return what it prints."""
    def run(*arguments):
        return subprocess.run(["ssh-keygen", *map(str, arguments)], check=True, capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=60).stdout

    return run


@pytest.fixture(scope="session")
def keys(tmp_path_factory, keygen):
    """Private keys by name, made by ssh-keygen."""
    path = tmp_path_factory.mktemp("keys")
    for name, kind, passphrase in (("user", "ed25519", ""), ("other", "ed25519", ""), ("rsa", "rsa", ""),
                                   ("ecdsa", "ecdsa", ""), ("locked", "ed25519", "a passphrase")):
        keygen("-q", "-t", kind, "-N", passphrase, "-C", f"{name}@example", "-f", path / name)
    return path


@pytest.fixture
def public(keys):
    """The line of a public key, by its name."""
    return lambda name: (keys / f"{name}.pub").read_text().strip()


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
    passphrase = tmp_path / "passphrase"
    passphrase.write_text("#!/bin/sh\necho 'a passphrase'\n")
    passphrase.chmod(0o700)

    def add(*names):
        subprocess.run(["ssh-add", "-q", *(str(keys / name) for name in names)], check=True, timeout=10, stdin=subprocess.DEVNULL,
                       env={**os.environ, "SSH_ASKPASS": str(passphrase), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": "none"})

    yield add
    process.terminate()
    process.wait(timeout=10)


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


@pytest.fixture
def sshd(make_sshd, public):
    """A real sshd that lets in by three of the keys."""
    sshd = make_sshd()
    sshd.authorized_keys.write_text("\n".join(public(name) for name in ("user", "rsa", "ecdsa")) + "\n")
    return sshd


@pytest.fixture
def bastion(make_sshd, tmp_path, keys, public):
    """A real sshd to go through, by a key. config: OpenSSH's, which knows it by the name `bastion`. command: a ProxyCommand."""
    server = make_sshd("bastion", shim=False)
    server.authorized_keys.write_text(public("user") + "\n")
    (tmp_path / "bastion_known_hosts").write_text(f"[127.0.0.1]:{server.port} {server.host_key}\n")
    server.config = tmp_path / "bastion_config"
    server.config.write_text(
        f"Host bastion\n HostName 127.0.0.1\n Port {server.port}\n User {getpass.getuser()}\n IdentityFile {keys / 'user'}\n"
        f" UserKnownHostsFile {tmp_path / 'bastion_known_hosts'}\n GlobalKnownHostsFile none\n IdentitiesOnly yes\n")
    server.command = f"ssh -F {server.config} -o BatchMode=yes -W '[%h]:%p' bastion"
    return server
