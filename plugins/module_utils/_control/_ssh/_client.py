# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""SSH from the controller, by paramiko. Private to this collection.

Who answers (banner, host key), log-in, evidence of what runs there in one round trip, planting a key, a soft reboot.
paramiko is imported inside the functions, and only when used. It writes to no file; known_hosts files are the caller's.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import hmac
import io
import logging
import os
import re
import selectors
import socket
import typing as t

from ansible.module_utils.basic import missing_required_lib

from .._errors import BadInput, LifeboatError, LoginRefused, MissingLibrary
from .._wait import CLOCK, Clock

if t.TYPE_CHECKING:
    import paramiko as paramiko_types

# By its comment a key that was made for a session is known in the provider's settings.
SESSION_KEY_COMMENT = "lifeboat.rescue-"
# sshd lets ten connections wait for a log-in before it starts to drop them (MaxStartups 10:30:100).
MOST_ATTEMPTS = 3
# A new attempt is begun this long after the one before. A refusal costs a machine nothing, so then it is soon; but each
# attempt that it takes without a word goes on, and costs it a process. A slow one starves of them, so the pace slows with each.
REFUSED_SECONDS = 0.2
FIRST_SECONDS = 0.5
SLOWEST_SECONDS = 5.0
# The oldest attempt is given this long to bring a banner, the younger ones so many times the pace: a packet lost while the
# machine booted is sent again later and later.
PATIENT_SECONDS = 30.0
EAGER_PACES = 3
# Bytes in which the banner must come, with the lines before it.
MOST_BANNER = 8192


_QUIET = logging.NullHandler()


def load_paramiko() -> t.Any:
    """paramiko, or MissingLibrary with the sentence that Ansible users know."""
    try:
        import paramiko
    except ImportError as exc:
        raise MissingLibrary(missing_required_lib("paramiko")) from exc
    # Its threads tell of connections that break off, with tracebacks on stderr where nobody has set up logging.
    logging.getLogger("paramiko").addHandler(_QUIET)
    return paramiko


class HostKey(t.NamedTuple):
    """A server's public host key."""

    type: str
    blob: bytes

    @classmethod
    def from_line(cls, line: str) -> HostKey | None:
        """The key of a line like `ssh-ed25519 AAAA… comment`; None where it is not one."""
        words = line.split()
        if len(words) < 2:
            return None
        try:
            blob = base64.b64decode(words[1], validate=True)
        except ValueError:
            return None
        # RFC 4253 §6.6: the blob is nothing but strings with a length of four bytes each, and the first is the type.
        parts: list[bytes] = []
        rest = blob
        while rest:
            length = int.from_bytes(rest[:4], "big")
            if len(rest) < 4 + length:
                return None
            parts.append(rest[4:4 + length])
            rest = rest[4 + length:]
        if len(parts) < 2 or parts[0].decode("ascii", "replace") != words[0]:
            return None
        return cls(words[0], blob)

    @property
    def line(self) -> str:
        return f"{self.type} {base64.b64encode(self.blob).decode()}"

    @property
    def fingerprint(self) -> str:
        """As ssh-keygen -l shows it."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")


def host_pattern(address: str, port: int) -> str:
    """The name under which OpenSSH keeps a host key."""
    return address if port == 22 else f"[{address}]:{port}"


def read_known_hosts(path: str, address: str, port: int) -> list[HostKey]:
    """The keys that a known_hosts file holds for an address (hashed names too). A missing file holds none.

    Lines that are broken or marked (`@revoked`, `@cert-authority`) are passed over, and so are patterns.
    """
    wanted = host_pattern(address, port).lower()
    try:
        with open(os.path.expanduser(path), encoding="utf-8", errors="replace") as stream:
            lines = [line.split(None, 1) for line in stream]
    except OSError:
        return []
    keys = [(words[0], HostKey.from_line(words[1])) for words in lines if len(words) == 2]
    return [key for names, key in keys if key and any(_is_name(name, wanted) for name in names.split(","))]


def _is_name(name: str, wanted: str) -> bool:
    """Whether a name of a known_hosts file, hashed or not, is the one wanted."""
    if not name.startswith("|1|"):
        return name.lower() == wanted
    try:
        salt, digest = (base64.b64decode(part, validate=True) for part in name[3:].split("|"))
    except ValueError:
        return False
    return hmac.new(salt, wanted.encode(), "sha1").digest() == digest


class Probe:
    """Watches a TCP port for an SSH banner, from power-off to sshd, and reacts within milliseconds.

    Attempts overlap: new ones are begun while older ones go on, at most three at a time, five times a second while they are
    refused, and ever more slowly while there is silence. So a machine that drops packets while it boots is met as soon as it
    answers, and a slow one is not starved by impatience. `heard` is what the port last said of itself, for people.
    """

    def __init__(self, address: str, port: int, clock: Clock = CLOCK):
        self.address = address
        self.port = port
        self._clock = clock
        self.heard = "nothing yet"
        self._selector = selectors.DefaultSelector()
        self._attempts: dict[socket.socket, float] = {}
        # What is connected, and how many bytes it must have sent before it is worth another look.
        self._connected: dict[socket.socket, int] = {}
        self._begun = 0
        self._ready: socket.socket | None = None
        self._last_begun = 0.0
        self._pace = FIRST_SECONDS

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Drop every attempt."""
        for sock in list(self._attempts):
            self._drop(sock)
        if self._ready is not None:
            self._ready.close()
            self._ready = None
        self._selector.close()

    def _drop(self, sock: socket.socket) -> None:
        self._attempts.pop(sock, None)
        self._connected.pop(sock, None)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(sock)
        sock.close()

    def _begin(self) -> None:
        self._last_begun = self._clock.monotonic()
        try:
            found = socket.getaddrinfo(self.address, self.port, type=socket.SOCK_STREAM)
        except OSError as exc:
            self.heard = f"{self.address} cannot be resolved ({exc})"
            return
        # In turn: a rescue system often has no IPv6, although the name has.
        family, kind, proto, _name, where = found[self._begun % len(found)]
        self._begun += 1
        sock = socket.socket(family, kind, proto)
        sock.setblocking(False)
        code = sock.connect_ex(where)
        if code and code not in (115, 36, 10035):  # EINPROGRESS of Linux, of BSD and macOS, of Windows
            self.heard = os.strerror(code).lower()
            sock.close()
            return
        self._attempts[sock] = self._last_begun
        self._selector.register(sock, selectors.EVENT_WRITE)

    def _refused(self, sock: socket.socket, how: str) -> None:
        self.heard = how.lower()
        self._pace = FIRST_SECONDS
        self._drop(sock)

    def _serve(self, sock: socket.socket) -> None:
        if sock not in self._connected:
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                self._refused(sock, os.strerror(code))
                return
            self._connected[sock] = 1
            self._selector.modify(sock, selectors.EVENT_READ)
            return
        try:
            start = sock.recv(MOST_BANNER, socket.MSG_PEEK)
        except OSError as exc:
            self._refused(sock, exc.strerror or str(exc))
            return
        # Other lines may come before the banner (RFC 4253 §4.2).
        banner = re.search(rb"^SSH-[^\n]*", start, re.MULTILINE)
        if banner:
            self.heard = banner.group().decode("ascii", "replace").strip()
            self._selector.unregister(sock)
            self._attempts.pop(sock)
            self._connected.pop(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
            self._ready = sock
        elif len(start) < self._connected[sock]:
            self._refused(sock, "connection closed without a banner")
        elif len(start) == MOST_BANNER:
            self.heard = "no SSH"
            self._drop(sock)
        else:
            # What was only peeked at would wake us at once, again and again.
            self._connected[sock] = len(start) + 1
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, len(start) + 1)

    def wait(self, seconds: float) -> bool:
        """Let at most so many seconds pass; True at once when there is a banner (then take() it)."""
        until = self._clock.monotonic() + seconds
        while not self._has_banner():
            now = self._clock.monotonic()
            for number, (sock, begun) in enumerate(list(self._attempts.items())):
                if now - begun > (self._pace * EAGER_PACES if number else PATIENT_SECONDS):
                    self.heard = "no banner"
                    self._pace = min(SLOWEST_SECONDS, self._pace * 1.5)
                    self._drop(sock)
            pace = self._pace if self._attempts else min(self._pace, REFUSED_SECONDS)
            if len(self._attempts) < MOST_ATTEMPTS and now - self._last_begun >= pace:
                self._begin()
            for key, _events in self._clock.select(self._selector, max(0.0, min(until - now, FIRST_SECONDS / 2))):
                self._serve(t.cast(socket.socket, key.fileobj))
                if self._has_banner():
                    return True
            if self._clock.monotonic() >= until:
                return False
        return True

    def _has_banner(self) -> bool:
        return self._ready is not None

    def take(self) -> socket.socket:
        """The connection whose banner was seen (the banner is still unread). The caller closes it."""
        if self._ready is None:
            raise RuntimeError("take() before wait() has returned True")
        sock, self._ready = self._ready, None
        sock.setblocking(True)
        for other in list(self._attempts):
            self._drop(other)
        return sock


def answers(address: str, port: int, timeout: float) -> bool:
    """Whether a TCP port takes a connection and does not drop it at once."""
    try:
        with socket.create_connection((address, port), timeout) as sock:
            sock.settimeout(1.0)
            try:
                return sock.recv(1, socket.MSG_PEEK) != b""
            except socket.timeout:
                return True
    except OSError:
        return False


class Login(t.NamedTuple):
    """Who logs in, and with what: a private key (file, or text of one), a password, or an agent."""

    user: str
    key_file: str | None = None
    password: str | None = None
    agent: bool = False


# One round trip, and nothing but the shell itself: each program more costs a slow machine tens of milliseconds. Each line is
# `name value`; what a system cannot tell is left out.
_EVIDENCE = r"""
{
read -r x </proc/sys/kernel/random/boot_id && echo boot_id "$x"
read -r x rest </proc/uptime && echo uptime "$x"
read -r x </proc/sys/kernel/hostname && echo hostname "$x"
read -r x </proc/sys/kernel/osrelease && echo kernel "$x"
while read -r dev dir type rest; do [ "$dir" = / ] && echo root "$type" "$dev"; done </proc/mounts
[ -r /etc/os-release ] && (. /etc/os-release && printf 'os %s\n' "$PRETTY_NAME")
if [ -r /run/lifeboat/session.json ]; then
printf 'session '; while read -r x || [ -n "$x" ]; do printf '%s' "$x"; done </run/lifeboat/session.json; echo
fi
} 2>/dev/null
:
"""


# What Windows' SSH server runs commands with, cmd or PowerShell, understands none of the above. This both know.
_WINDOWS_EVIDENCE = "cmd /c ver"
WINDOWS = "Microsoft Windows"


class Evidence(t.NamedTuple):
    """What a system said of itself. Of Windows only `os` is known, which begins with its name.

    boot_id: changes with each boot. uptime: seconds. root_fstype, root_source: of what is mounted on `/`.
    session: the record that this collection left there, or None.
    """

    boot_id: str | None = None
    uptime: float | None = None
    hostname: str | None = None
    kernel: str | None = None
    os: str | None = None
    root_fstype: str | None = None
    root_source: str | None = None
    session: str | None = None

    @classmethod
    def parse(cls, text: str) -> Evidence:
        """Read the answer of the script above. Unknown and broken lines are passed over."""
        said: dict[str, t.Any] = {}
        for line in text.splitlines():
            name, _gap, value = line.partition(" ")
            value = value.strip()
            if not value:
                continue
            if name == "uptime":
                with contextlib.suppress(ValueError):
                    said["uptime"] = float(value)
            elif name == "root":
                # The last mount on `/` is the one that is seen; an initramfs lists its rootfs first.
                said["root_fstype"], _gap, said["root_source"] = value.partition(" ")
            elif name in ("boot_id", "hostname", "kernel", "os", "session"):
                said[name] = value
        return cls(**said)


class Client:
    """One SSH connection. Its host key is known as soon as it exists; nothing is sent before log_in()."""

    def __init__(self, sock: socket.socket, timeout: float = 60.0, expected: t.Iterable[HostKey] = ()):
        """Shake hands over a connected socket.

        expected: keys already known for this host, so that the server is asked for one of their types.
        """
        paramiko = load_paramiko()
        self._timeout = timeout
        self._is_windows = False
        try:
            self._transport: paramiko_types.Transport = paramiko.Transport(sock)
        except (paramiko.SSHException, OSError, EOFError) as exc:
            sock.close()
            raise LifeboatError(f"SSH broke off during the handshake: {exc}.") from exc
        self._transport.banner_timeout = timeout
        self._transport.auth_timeout = timeout
        self._ask_for(expected)
        try:
            self._transport.start_client(timeout=timeout)
            key = self._transport.get_remote_server_key()
        except (paramiko.SSHException, OSError, EOFError) as exc:
            self._transport.close()
            raise LifeboatError(f"SSH broke off during the handshake: {exc}.") from exc
        self.host_key = HostKey(key.get_name(), key.asbytes())
        self.banner = self._transport.remote_version

    def _ask_for(self, expected: t.Iterable[HostKey]) -> None:
        wanted = [key.type for key in expected]
        options = self._transport.get_security_options()
        # An RSA key is asked for by its signature algorithms.
        same = [name for name in options.key_types
                if name in wanted or ("ssh-rsa" in wanted and name.startswith("rsa-sha2-"))]
        if same:
            options.key_types = same + [name for name in options.key_types if name not in same]

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._transport.close()

    def log_in(self, login: Login) -> None:
        """Log in, or raise LoginRefused, which names the methods that the server takes and the key file that is of no use."""
        paramiko = load_paramiko()
        tried: list[str] = []
        allowed: list[str] = []
        reasons: list[str] = []
        with contextlib.closing(self._attempts(login)) as attempts:
            for name, attempt in attempts:
                tried.append(name)
                try:
                    attempt()
                except paramiko.BadAuthenticationType as exc:
                    allowed = list(exc.allowed_types)
                except paramiko.AuthenticationException:
                    if not self._transport.is_active():
                        reasons.append("It hung up then.")  # sshd has enough after MaxAuthTries keys
                        break
                except BadInput as exc:
                    reasons.append(str(exc))
                except (paramiko.SSHException, OSError, EOFError) as exc:
                    raise LifeboatError(f"SSH broke off during the log-in: {exc}.") from exc
                if self._transport.is_authenticated():
                    return
        if allowed:
            reasons.append(f"The server takes {', '.join(allowed)}.")
        how = " and ".join(dict.fromkeys(tried)) or "nothing that could be tried"
        raise LoginRefused(" ".join([f"SSH refused {login.user} by {how}.", *reasons]))

    def _attempts(self, login: Login) -> t.Generator[tuple[str, t.Callable[[], t.Any]], None, None]:
        if login.key_file:
            path = login.key_file
            yield "key", lambda: self._transport.auth_publickey(login.user, read_private_key(path))
        if login.agent:
            with contextlib.closing(load_paramiko().Agent()) as agent:
                for agent_key in agent.get_keys():
                    yield "agent", functools.partial(self._transport.auth_publickey, login.user, agent_key)
        if login.password is not None:
            password = login.password
            yield "password", lambda: self._transport.auth_password(login.user, password, fallback=True)

    def run(self, command: str, stdin: bytes = b"") -> tuple[int, str]:
        """Run a shell command; its exit status (-1: the connection went away) and its output. stdin is in no process list."""
        paramiko = load_paramiko()
        try:
            with self._transport.open_session(timeout=self._timeout) as channel:
                channel.settimeout(self._timeout)
                channel.exec_command(command)
                if stdin:
                    channel.sendall(stdin)
                channel.shutdown_write()
                output = io.BytesIO()
                while True:
                    data = channel.recv(65536)
                    if not data:
                        break
                    output.write(data)
                status = channel.recv_exit_status()
        except (paramiko.SSHException, OSError, EOFError) as exc:
            raise LifeboatError(f"SSH broke off: {exc or type(exc).__name__}.") from exc
        return status, output.getvalue().decode("utf-8", "replace")

    def evidence(self) -> Evidence:
        """What this system says of itself, in one round trip; in two where it is no Unix."""
        evidence = Evidence.parse(self.run(_EVIDENCE)[1])
        if evidence == Evidence():
            version = self.run(_WINDOWS_EVIDENCE)[1].strip()
            if version.startswith(WINDOWS):
                evidence = Evidence(os=version.splitlines()[0])
                self._is_windows = True
        return evidence

    def plant_key(self, public_key: str) -> None:
        """Add a public key to the user's authorized_keys, once; the file stays private."""
        script = (
            "umask 077; mkdir -p ~/.ssh && cd ~/.ssh && IFS= read -r key && "
            "{ grep -qxF -- \"$key\" authorized_keys 2>/dev/null || "
            # The last line may lack its end.
            "{ if [ -n \"$(tail -c 1 authorized_keys 2>/dev/null)\" ]; then echo >>authorized_keys; fi; "
            "printf '%s\\n' \"$key\" >>authorized_keys; }; }")
        status, output = self.run(script, public_key.strip().encode() + b"\n")
        if status != 0:
            raise LifeboatError(f"The session's key could not be planted: {output.strip() or f'exit code {status}'}.")

    def soft_reboot(self, user: str) -> None:
        """Ask the running system to reboot. Raise LifeboatError where it says no; a lost connection is a yes."""
        reboot = "(systemctl reboot || shutdown -r now || reboot) 2>&1"
        if self._is_windows:
            reboot = "shutdown /r /t 0"
        elif user != "root":
            reboot = f"sudo -n sh -c '{reboot}'"
        try:
            status, output = self.run(reboot)
        except LifeboatError:
            return
        if status > 0:
            raise LifeboatError(f"The running system refused to reboot: {output.strip() or f'exit code {status}'}.")


def read_private_key(path: str) -> t.Any:
    """The private key of a file, as paramiko has it. BadInput where it is none, or wants a passphrase."""
    paramiko = load_paramiko()
    path = os.path.expanduser(path)
    try:
        return paramiko.PKey.from_path(path)
    except FileNotFoundError:
        raise BadInput(f"There is no private key at {path}.") from None
    except (paramiko.PasswordRequiredException, TypeError):
        raise BadInput(f"The private key {path} wants a passphrase.",
                       todo="Load it into ssh-agent, or give another one.") from None
    except (paramiko.SSHException, ValueError, OSError, IndexError, paramiko.pkey.UnknownKeyType) as exc:
        raise BadInput(f"{path} is not a private key that paramiko can read: {exc}.") from exc


def sign(path: str, text: str) -> str:
    """A signature of a text by the private key of a file, for is_signed()."""
    key = read_private_key(path)
    more = {"algorithm": "rsa-sha2-512"} if key.get_name() == "ssh-rsa" else {}
    return base64.b64encode(key.sign_ssh_data(text.encode(), **more).asbytes()).decode()


def is_signed(path: str, text: str, signature: str) -> bool:
    """Whether the private key of this file signed a text."""
    paramiko = load_paramiko()
    private = read_private_key(path)
    # paramiko verifies by a public key only, where the key is an Ed25519 one.
    public = paramiko.PKey.from_type_string(private.get_name(), private.asbytes())
    try:
        return bool(public.verify_ssh_sig(text.encode(), paramiko.Message(base64.b64decode(signature))))
    except (TypeError, ValueError, paramiko.SSHException):
        return False


def derive_password(path: str, purpose: str) -> str:
    """A password that follows from a private key's file: the same for the same purpose, and known to nobody without the file."""
    with open(os.path.expanduser(path), "rb") as stream:
        digest = hmac.new(stream.read(), f"lifeboat.rescue password {purpose}".encode(), "sha256").digest()
    return base64.urlsafe_b64encode(digest[:18]).decode()


def make_key_pair(path: str, comment: str) -> str:
    """Make an Ed25519 pair, the private key at path (0600). Return the public key's line."""
    load_paramiko()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519

    private = ed25519.Ed25519PrivateKey.generate()
    text = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH,
                                 serialization.NoEncryption())
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "wb") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    line = private.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return f"{line.decode()} {comment}"


def public_key_of(path: str) -> str:
    """The public key's line of a private key file (from its `.pub` where there is one)."""
    expanded = os.path.expanduser(path)
    try:
        with open(expanded + ".pub", encoding="utf-8") as stream:
            return check_public_key(stream.read().strip())
    except OSError:
        key = read_private_key(path)
        return f"{key.get_name()} {key.get_base64()}"


def check_public_key(line: str) -> str:
    """The line itself, when it is one public key as in authorized_keys; BadInput otherwise."""
    if "\n" in line.strip() or HostKey.from_line(line) is None:
        shown = line.strip().split()[0] if line.strip() else "nothing"
        if "PRIVATE" in line:
            raise BadInput("The SSH key given is a private key.", todo="Give the public one, the line of the .pub file.")
        raise BadInput(f"The SSH key given is no public key (it begins with {shown[:20]!r}).",
                       todo="Give one line like `ssh-ed25519 AAAA… comment`.")
    return line.strip()
