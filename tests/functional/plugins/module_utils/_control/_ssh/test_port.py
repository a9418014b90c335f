# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Watching a TCP port for a banner, on loopback."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import threading
import time

import pytest

from ansible_collections.lifeboat.rescue.plugins.module_utils._control._ssh import _port
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._ssh._port import PortWatcher


@contextlib.contextmanager
def no_file_left_open():
    before = os.listdir("/proc/self/fd")
    yield
    assert len(os.listdir("/proc/self/fd")) == len(before)


@pytest.mark.parametrize("wanted", [0, 0.3])
def test_a_watch_of_a_closed_port(wanted):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with no_file_left_open(), PortWatcher("127.0.0.1", unused.getsockname()[1]) as port:
            started = time.monotonic()
            assert not port.wait(wanted)
            assert wanted <= time.monotonic() - started < wanted + 0.5
            port.wait(0.05)
            assert port.heard == "connection refused" and port.is_refused


def test_a_refusal_is_told_by_its_number(monkeypatch):
    """What the system calls it depends on the user's language."""
    monkeypatch.setattr(_port.os, "strerror", lambda code: "Verbindungsaufbau abgelehnt")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with PortWatcher("127.0.0.1", unused.getsockname()[1]) as port:
            assert not port.wait(0.1)
            assert port.is_refused and port.heard == "verbindungsaufbau abgelehnt"


@pytest.mark.parametrize("words", [b"", b"Exceeded MaxStartups\r\n", b"Not allowed at this time\r\n"])
def test_who_hangs_up_is_not_called_again_at_once(listen, words):
    """It has had enough of connections, or of ours."""
    def serve(connection):
        connection.sendall(words)
        connection.shutdown(socket.SHUT_RDWR)

    listener = listen(serve)
    with PortWatcher("127.0.0.1", listener.port) as port:
        assert not port.wait(2.5)
        assert len(listener.accepted) <= 4 and not port.is_refused
        assert words.strip().decode() in port.heard


def test_a_watch_of_a_port_that_closes_at_once(listen):
    listener = listen(lambda connection: connection.shutdown(socket.SHUT_RDWR))
    with PortWatcher("127.0.0.1", listener.port) as port:
        assert not port.wait(0.3)
        assert port.heard == "connection closed without a banner"


def test_a_watch_slows_down_in_silence(listen, monkeypatch):
    """Each connection that is taken without a word costs a slow machine a process."""
    monkeypatch.setattr(_port, "FIRST_SECONDS", 0.05)
    listener = listen()
    with PortWatcher("127.0.0.1", listener.port) as port:
        assert not port.wait(3)
        early = [when for when in listener.times if when - listener.times[0] < 1]
        late = [when for when in listener.times if when - listener.times[0] >= 2]
        assert len(late) <= len(early) / 2


def test_a_watch_of_a_silent_port_keeps_to_three_connections(listen, monkeypatch):
    monkeypatch.setattr(_port, "FIRST_SECONDS", 0.05)
    monkeypatch.setattr(_port, "EAGER_PACES", 100)
    listener = listen()
    with PortWatcher("127.0.0.1", listener.port) as port:
        assert not port.wait(0.6)
        assert len(listener.accepted) == _port.MOST_ATTEMPTS
        assert listener.times[1] - listener.times[0] >= 0.04


def test_a_watch_renews_the_young_and_keeps_the_oldest(listen, monkeypatch):
    monkeypatch.setattr(_port, "FIRST_SECONDS", 0.05)
    listener = listen()
    with PortWatcher("127.0.0.1", listener.port) as port:
        assert not port.wait(0.7)
        assert len(listener.accepted) > _port.MOST_ATTEMPTS
        assert port.heard == "no banner"
        listener.accepted[0].sendall(b"SSH-2.0-patience\r\n")
        assert port.wait(1)
        with port.take() as sock:
            assert sock.recv(100) == b"SSH-2.0-patience\r\n"


def test_a_watch_gives_even_the_oldest_up_at_last(listen, monkeypatch):
    monkeypatch.setattr(_port, "PATIENT_SECONDS", 0.1)
    monkeypatch.setattr(_port, "FIRST_SECONDS", 0.05)
    listener = listen()
    with PortWatcher("127.0.0.1", listener.port) as port:
        assert not port.wait(0.6)
        listener.accepted[0].settimeout(5)
        assert listener.accepted[0].recv(1) == b""


def test_a_watch_of_a_banner_that_takes_three_seconds(listen):
    """Longer than the young attempts are given, so only patience meets it."""
    over = threading.Event()

    def slow(connection):
        if not over.wait(3):
            connection.sendall(b"SSH-2.0-slow\r\n")

    listener = listen(slow)
    with PortWatcher("127.0.0.1", listener.port) as port:
        started = time.monotonic()
        assert port.wait(10)
        assert 2.9 < time.monotonic() - started < 3.5
        assert port.heard == "SSH-2.0-slow"
        port.take().close()
        over.set()


def test_a_watch_is_there_within_milliseconds_of_the_port(listen):
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        with PortWatcher("127.0.0.1", reserved.getsockname()[1]) as port:
            assert not port.wait(0.1)
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
                assert port.wait(5)
                assert time.monotonic() - opened[0] < _port.FIRST_SECONDS + 0.3
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
    with PortWatcher("127.0.0.1", listener.port) as port:
        assert not port.wait(0.2)
        gate.set()
        assert port.wait(2)
        assert port.heard == "SSH-2.0-talkative"
        port.take().close()


def test_who_speaks_something_else_costs_no_processor_time(listen):
    listener = listen(lambda connection: connection.sendall(b"220 mail.example ESMTP\r\n"))
    with PortWatcher("127.0.0.1", listener.port) as port:
        before = resource.getrusage(resource.RUSAGE_SELF)
        assert not port.wait(1.0)
        after = resource.getrusage(resource.RUSAGE_SELF)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.3


def test_who_speaks_something_else_and_hangs_up_is_let_go(listen):
    def serve(connection):
        connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")
        connection.shutdown(socket.SHUT_RDWR)

    listener = listen(serve)
    with PortWatcher("127.0.0.1", listener.port) as port:
        before = resource.getrusage(resource.RUSAGE_SELF)
        assert not port.wait(1.0)
        after = resource.getrusage(resource.RUSAGE_SELF)
        assert port.heard == "connection closed without a banner (HTTP/1.0 400 Bad Request)"
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
    with PortWatcher("web1.example", listener.port) as port:
        assert port.wait(3)
        port.take().close()


def test_a_watch_of_a_name_that_is_none():
    with PortWatcher("no-such-host.invalid", 22) as port:
        assert not port.wait(0)
        assert port.heard.startswith("no-such-host.invalid cannot be resolved")


def test_a_closed_watcher_leaves_nothing(listen):
    listener = listen(lambda connection: connection.sendall(b"SSH-2.0-x\r\n"))
    with no_file_left_open():
        port = PortWatcher("127.0.0.1", listener.port)
        assert port.wait(5)
        port.close()
        while listener.accepted:  # ours too, but not the probe's
            listener.accepted.pop().close()
    with pytest.raises(RuntimeError):
        PortWatcher("127.0.0.1", 1).take()
