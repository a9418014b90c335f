# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One SSH connection, by paramiko. Private to this collection.

Login, evidence of what runs there in one round trip, planting a key, a soft reboot.
"""

from __future__ import annotations

import contextlib
import functools
import io
import socket
import typing as t

from ..._errors import BadInput, BrokeOff, LifeboatError, LoginRefused, TargetError
from ._host_keys import HostKey
from ._keys import read_private_key
from ._paramiko import load_paramiko

if t.TYPE_CHECKING:
    import paramiko as paramiko_types


class Login(t.NamedTuple):
    """Who logs in, and with what: a private key's file, a password, or an agent.

    public_key: the one key of the agent that is offered, a line; None for all that it has.
    """

    user: str
    key_file: str | None = None
    password: str | None = None
    agent: bool = False
    public_key: str | None = None


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
            raise BrokeOff(f"SSH broke off during the handshake: {exc or type(exc).__name__}.") from exc
        self._transport.banner_timeout = timeout
        self._transport.auth_timeout = timeout
        self._ask_for(expected)
        try:
            self._transport.start_client(timeout=timeout)
            key = self._transport.get_remote_server_key()
        except (paramiko.SSHException, OSError, EOFError) as exc:
            self._transport.close()
            raise BrokeOff(f"SSH broke off during the handshake: {exc or type(exc).__name__}.") from exc
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
                    raise BrokeOff(f"SSH broke off during the log-in: {exc or type(exc).__name__}.") from exc
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
            only = HostKey.from_line(login.public_key) if login.public_key else None
            with contextlib.closing(load_paramiko().Agent()) as agent:
                for agent_key in agent.get_keys():
                    if only is not None and agent_key.asbytes() != only.blob:
                        continue
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
            raise BrokeOff(f"SSH broke off: {exc or type(exc).__name__}.") from exc
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
            raise TargetError(f"The session's key could not be planted: {output.strip() or f'exit code {status}'}.")

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
            raise TargetError(f"The running system refused to reboot: {output.strip() or f'exit code {status}'}.")
