# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Asks a real kernel whether a firewall lets a TCP connection in. Private to this collection.

A child process makes a network namespace of its own, puts a tun device into it, loads the firewall there, and plays
a stranger who connects from the Internet: it writes his packets into the tun device and reads the answers. A service
that the child itself runs must hear him, and he must hear the service. The namespace ends with the child, so nothing
of it can stay behind, and the network of the system that runs is never touched.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import select
import signal
import socket
import struct
import time
import typing as t

from ..._errors import LifeboatError
from .._command import Runner

ACCEPTED = "accepted"
REJECTED = "rejected"
DROPPED = "dropped"

# Plain addresses of the Internet: a firewall may well drop those that are kept for documentation or private use.
STRANGER = {4: "1.2.3.4", 6: "2600::1234"}
FALLBACK_ADDRESS = {4: "5.6.7.8", 6: "2600::5678"}

_CLONE_NEWNET = 0x40000000
_TUNSETIFF = 0x400454CA
_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000
_FIN, _SYN, _RST, _PSH, _ACK = 0x01, 0x02, 0x04, 0x08, 0x10
_HELLO = b"lifeboat.rescue\r\n"


class ProbeFailed(LifeboatError):
    """The rescue system cannot ask its kernel, or the firewall cannot be loaded."""

    code = "probe_failed"


class Knock(t.NamedTuple):
    """One question: does a stranger get a TCP connection to this port? family is 4 or 6."""

    family: int
    port: int


def ask(run: Runner, knocks: t.Sequence[Knock], load: t.Callable[[], t.Any], *, interface: str = "eth0",
        others: t.Iterable[str] = (), addresses: t.Mapping[int, str] | None = None, patience: float = 0.5,
        limit: int = 90) -> tuple[dict[Knock, str], t.Any]:
    """Return what the kernel does with each knock after load() was called, and what load() returned.

    load runs in the child, inside the network namespace; what it returns goes through JSON.
    interface is the name of the interface that the stranger comes in by; others are names that only have to exist,
    since rules that name them do not load otherwise. addresses are those of the server, by family.
    patience (seconds) is how long no answer takes to mean "dropped"; limit (seconds) is when the child gives up.
    Raise ProbeFailed; where load raised a LifeboatError, with its code and its words.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reader)
            os.setpgid(0, 0)
            # A Python process that only inherits the alarm's default action cannot hang for ever.
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(limit)
            answer = _answer(run, knocks, load, interface, others, addresses or {}, patience)
            with os.fdopen(writer, "w") as stream:
                json.dump(answer, stream)
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as stream:
        text = stream.read()
    end = os.waitpid(child, 0)[1]
    with contextlib.suppress(ProcessLookupError):
        # Whatever the firewall's own programs left running lives in the child's process group.
        os.killpg(child, signal.SIGKILL)
    if end != 0 or not text:
        raise ProbeFailed("The firewall could not be tried out: the process that tries it "
                          + (f"was still busy after {limit} s." if end == signal.SIGALRM else "died."))
    answer = json.loads(text)
    if "failure" in answer:
        failure = ProbeFailed(*answer["failure"])
        failure.code = answer["code"]
        raise failure
    return {Knock(*knock): verdict for knock, verdict in answer["verdicts"]}, answer["loaded"]


def _answer(run: Runner, knocks: t.Sequence[Knock], load: t.Callable[[], t.Any], interface: str,
            others: t.Iterable[str], addresses: t.Mapping[int, str], patience: float) -> dict[str, t.Any]:
    """What the child tells its parent, as JSON data."""
    try:
        with _Network(run, interface, others, addresses, {knock.family for knock in knocks}) as network:
            # Without a firewall the stranger must get in, or the verdict on the firewall would mean nothing.
            control = network.knock(knocks, 10.0, again=True)
            if set(control.values()) != {ACCEPTED}:
                raise ProbeFailed("The rescue system's kernel cannot be asked: not even without a firewall does a "
                                  "connection get through.",
                                  details={f"ipv{k.family}/{k.port}": said for k, said in control.items()})
            loaded = load()
            verdicts = network.knock(knocks, patience)
    except LifeboatError as exc:
        return {"failure": [exc.what, exc.state, exc.todo, exc.details], "code": exc.code}
    except Exception as exc:
        return {"failure": [f"The firewall could not be tried out: {type(exc).__name__}: {exc}"],
                "code": ProbeFailed.code}
    return {"verdicts": [[list(knock), verdict] for knock, verdict in verdicts.items()], "loaded": loaded}


class _Network:
    """A network namespace for the process that enters it, with one way in: the tun device."""

    def __init__(self, run: Runner, interface: str, others: t.Iterable[str], addresses: t.Mapping[int, str],
                 families: set[int]):
        self.run = run
        self.interface = interface
        self.others = sorted(set(others) - {interface, "lo"})
        self.families = sorted(families)
        self.addresses = {family: addresses.get(family) or FALLBACK_ADDRESS[family] for family in self.families}
        self.next_port = 40000

    def __enter__(self) -> _Network:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(_CLONE_NEWNET) != 0:
            raise ProbeFailed("The rescue system cannot make a network namespace: "
                              f"{os.strerror(ctypes.get_errno())}.")
        self.tun = self._make_tun(self.interface)
        self.unused = [self._make_tun(name) for name in self.others]
        self.run(["ip", "link", "set", "lo", "up"])
        self.run(["ip", "link", "set", self.interface, "up"])
        for family in self.families:
            self.run(["ip", f"-{family}", "address", "add", self.addresses[family], "dev", self.interface])
            self.run(["ip", f"-{family}", "route", "add", "default", "dev", self.interface])
        return self

    def __exit__(self, *exc_info: object) -> None:
        for tun in [self.tun, *self.unused]:
            os.close(tun)

    def _make_tun(self, name: str) -> int:
        try:
            tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        except OSError as exc:
            self.run(["modprobe", "tun"], check=False)
            try:
                tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            except OSError:
                raise ProbeFailed(f"The rescue system has no usable /dev/net/tun: {exc.strerror}.") from exc
        fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
        return tun

    def knock(self, knocks: t.Sequence[Knock], patience: float, again: bool = False) -> dict[Knock, str]:
        """Try every knock at once; return {knock: verdict}. Blocks patience seconds at most.

        again: knock again and again, as long as there is no answer. The kernel takes an IPv6 address into use a moment
        after it was given. Not done with a firewall, which may count knocks.
        """
        strangers = {}
        listeners = {}
        guests: dict[int, socket.socket] = {}
        try:
            for knock in knocks:
                listener = _listen(knock)
                listeners[listener.fileno()] = listener
                stranger = _Stranger(knock, self.addresses[knock.family], self.next_port)
                self.next_port += 1
                strangers[(knock.family, stranger.port, knock.port)] = stranger
                self._write(stranger.syn())
            deadline = time.monotonic() + patience
            while any(stranger.verdict is None for stranger in strangers.values()):
                left = deadline - time.monotonic()
                wait = max(min(left, 0.05) if again else left, 0)
                ready = select.select([self.tun, *listeners, *guests], [], [], wait)[0]
                # Time is up only when nothing is left to hear: a busy machine may have kept us from listening.
                if not ready and left <= 0:
                    break
                if not ready and again:
                    for stranger in strangers.values():
                        if stranger.verdict is None:
                            self._write(stranger.syn())
                for item in ready:
                    if item == self.tun:
                        self._read(strangers)
                    elif item in listeners:
                        guest = listeners[item].accept()[0]
                        guests[guest.fileno()] = guest
                    else:
                        # The service has heard the stranger and says its own line, as sshd does.
                        if guests[item].recv(1024):
                            guests[item].sendall(_HELLO)
                        else:
                            guests.pop(item).close()
        finally:
            for opened in [*listeners.values(), *guests.values()]:
                opened.close()
        return {stranger.knock: stranger.verdict or DROPPED for stranger in strangers.values()}

    def _read(self, strangers: dict[tuple[int, int, int], _Stranger]) -> None:
        try:
            packet = os.read(self.tun, 65535)
        except BlockingIOError:
            return
        seen = _parse(packet)
        if seen is None:
            return
        stranger = strangers.get((seen.family, seen.stranger_port, seen.server_port))
        if stranger is not None:
            answer = stranger.hear(seen)
            if answer:
                self._write(answer)

    def _write(self, packet: bytes) -> None:
        try:
            os.write(self.tun, packet)
        except OSError as exc:
            # The kernel says so when the packet was thrown away on entry: that is a verdict, not a fault.
            if exc.errno not in (errno.EINVAL, errno.EIO, errno.ENOBUFS, errno.EPERM):
                raise


def _listen(knock: Knock) -> socket.socket:
    listener = socket.socket(socket.AF_INET if knock.family == 4 else socket.AF_INET6, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if knock.family == 6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    listener.bind(("0.0.0.0" if knock.family == 4 else "::", knock.port))
    listener.listen(8)
    return listener


class _Seen(t.NamedTuple):
    """A packet of the server to a stranger. refused: it is an ICMP error that quotes his packet."""

    family: int
    stranger_port: int
    server_port: int
    flags: int = 0
    seq: int = 0
    payload: bytes = b""
    refused: bool = False


class _Stranger:
    """The client of one connection: SYN, then his line, then he waits for the service's line."""

    def __init__(self, knock: Knock, server: str, port: int):
        self.knock = knock
        self.server = server
        self.port = port
        self.seq = 1000
        self.verdict: str | None = None

    def syn(self) -> bytes:
        self.seq = 1000
        return self._packet(_SYN, 0)

    def hear(self, seen: _Seen) -> bytes | None:
        """Take a packet of the server; return the packet to send back, or None."""
        if seen.refused or seen.flags & _RST:
            self.verdict = self.verdict or REJECTED
        elif seen.flags & _SYN and seen.flags & _ACK:
            self.seq = 1001
            return self._packet(_PSH | _ACK, seen.seq + 1, b"hello\r\n")
        elif seen.payload:
            self.verdict = ACCEPTED
        return None

    def _packet(self, flags: int, ack: int, payload: bytes = b"") -> bytes:
        family = socket.AF_INET if self.knock.family == 4 else socket.AF_INET6
        source = socket.inet_pton(family, STRANGER[self.knock.family])
        target = socket.inet_pton(family, self.server)
        segment = struct.pack("!HHIIBBHHH", self.port, self.knock.port, self.seq, ack & 0xFFFFFFFF, 5 << 4, flags,
                              64240, 0, 0) + payload
        pseudo = source + target + struct.pack("!IxxxB", len(segment), socket.IPPROTO_TCP)
        segment = segment[:16] + struct.pack("!H", _checksum(pseudo + segment)) + segment[18:]
        if self.knock.family == 6:
            return struct.pack("!IHBB", 6 << 28, len(segment), socket.IPPROTO_TCP, 64) + source + target + segment
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0x4000, 64, socket.IPPROTO_TCP, 0)
        header += source + target
        return header[:10] + struct.pack("!H", _checksum(header)) + header[12:] + segment


def _checksum(data: bytes) -> int:
    """The checksum of the Internet (RFC 1071) over data."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _parse(packet: bytes) -> _Seen | None:
    """Read a packet that the server sent; None when it is none of ours (neighbour discovery, listener reports)."""
    family = packet[0] >> 4 if packet else 0
    try:
        if family == 4:
            header, protocol, icmp_errors, quoted = (packet[0] & 15) * 4, packet[9], (3, 11, 12), 20
        elif family == 6:
            header, protocol, icmp_errors, quoted = 40, packet[6], (1, 3, 4), 40
        else:
            return None
        body = packet[header:]
        if protocol == socket.IPPROTO_TCP:
            source, target, seq, _ack, offset, flags = struct.unpack("!HHIIBB", body[:14])
            return _Seen(family, target, source, flags, seq, body[(offset >> 4) * 4:])
        if protocol in (socket.IPPROTO_ICMP, socket.IPPROTO_ICMPV6) and body[0] in icmp_errors:
            source, target = struct.unpack("!HH", body[8 + quoted:12 + quoted])
            return _Seen(family, source, target, refused=True)
    except (IndexError, struct.error):
        pass
    return None
