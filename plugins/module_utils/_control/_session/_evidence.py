# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which system answers, and since when. Private to this collection."""

from __future__ import annotations

import contextlib
import threading
import typing as t
from concurrent.futures import Future

from ..._errors import LifeboatError, LoginRefused, MissingLibrary
from ..._wait import CLOCK, Clock
from .._ssh._client import WINDOWS, Client, Evidence, Login
from .._ssh._host_keys import HostKey
from .._ssh._paramiko import load_paramiko
from .._ssh._port import PortWatcher

RESCUE = "rescue"
INSTALLED = "installed"
UNKNOWN = "unknown"
# What was heard where nobody spoke SSH, but the user's own port answered.
PROOF_PORT = "proof port"

# A rescue system comes over the network or from an image: its root is nothing that one installs to.
TEMPORARY_ROOTS = frozenset(("aufs", "erofs", "iso9660", "nfs", "nfs4", "overlay", "ramfs", "rootfs", "squashfs", "tmpfs"))


class Observation(t.NamedTuple):
    """What polling a server's SSH port once showed.

    system: one of the three constants. reason: why, as a clause. heard: the port's own words (banner, refused, …).
    evidence: what the system said of itself after a log-in, or None. client, user: the connection, still open where one
    logged in, and as whom. refused: how a log-in was refused. by_password: whether we are in by the
    provider's password.
    """

    system: str
    reason: str
    heard: str
    host_key: HostKey | None = None
    evidence: Evidence | None = None
    client: Client | None = None
    user: str | None = None
    refused: str | None = None
    by_password: bool = False

    @property
    def boot_id(self) -> str | None:
        """The kernel's, if it said one."""
        return self.evidence.boot_id if self.evidence else None

    @property
    def uptime(self) -> float | None:
        """Seconds since it booted, if it said so."""
        return self.evidence.uptime if self.evidence else None

    def fresh(self, elapsed: float, boot_id_before: str | None) -> bool | None:
        """Whether it booted within the last `elapsed` seconds; None if it does not say.

        An uptime and the time since a request are both durations, so the server's clock does not matter.
        """
        if self.boot_id and boot_id_before:
            return self.boot_id != boot_id_before
        return None if self.uptime is None else self.uptime < elapsed

    def as_result(self) -> dict[str, t.Any]:
        """For the module's result: all that was seen, no secret."""
        said: dict[str, t.Any] = dict(self.evidence._asdict()) if self.evidence else dict(Evidence()._asdict())
        said.pop("session")
        banner = self.heard if self.heard.startswith("SSH-") else None
        error = None if banner or self.heard == PROOF_PORT else self.heard
        return {"reason": self.reason, "banner": banner, "connect_error": error,
                "logged_in": self.evidence is not None,
                "host_key": self.host_key.fingerprint if self.host_key else None, **said}


class KnownHostKeys(t.NamedTuple):
    """What is known beforehand of who may answer.

    installed: host keys read from the server's own disk. familiar: host keys that the user's known_hosts or an earlier look
    gave, most likely the installed system's. pinned: the rescue system's, of this session.
    """

    installed: tuple[HostKey, ...] = ()
    familiar: tuple[HostKey, ...] = ()
    pinned: HostKey | None = None

    def classify(self, key: HostKey, evidence: Evidence | None, own_key: bool) -> tuple[str, str]:
        """(system, reason). own_key: what logged in is a key that only the provider's rescue system was given."""
        if key in self.installed:
            return INSTALLED, "its host key is the one on the server's own disk"
        if evidence is None:
            if key == self.pinned:
                return RESCUE, "its host key is the one pinned in this session"
            if key in self.familiar:
                return INSTALLED, "its host key is the one known from before"
            return UNKNOWN, "it answers, but refused our login"
        if evidence.os and evidence.os.startswith(WINDOWS):
            # A Windows rescue takes no key, so this is the log-in to the user's own.
            return INSTALLED, f"it is {WINDOWS}"
        if evidence.root_fstype in TEMPORARY_ROOTS:
            return RESCUE, f"its root file system is {evidence.root_fstype}"
        if own_key:
            return RESCUE, "it let the session's own key in, which only the rescue system was given"
        if evidence.root_fstype:
            return INSTALLED, f"its root file system is {evidence.root_fstype} on {evidence.root_source}"
        if evidence.hostname and evidence.hostname.startswith("rescue"):
            # The last to be asked: somebody's own server may be called rescue1.
            return RESCUE, f"its hostname is {evidence.hostname}"
        return UNKNOWN, "it does not say what its root file system is"


# A login that was refused is tried again after so many seconds, and later after ever more: sshd punishes who keeps failing
# (PerSourcePenalties: 5 s each, refused from 15 s on), and fail2ban bans after five failures in ten minutes.
AGAIN_SECONDS = 3.0
LONGEST_SECONDS = 60.0


class SshObserver:
    """Looks at one SSH port again and again.

    logins: tried in turn on what answers, each on a connection of its own, as (login, own_key). A password is sent to none
    but a host whose key is known. One that was refused is let alone for a while at that host key.
    """

    def __init__(self, address: str, port: int, known: KnownHostKeys, logins: t.Sequence[tuple[Login, bool]],
                 timeout: float = 60.0, clock: Clock = CLOCK, proxy_command: str | None = None):
        self.address = address
        self.port = port
        self.known = known
        self.logins = list(logins)
        self.timeout = timeout
        self.clock = clock
        self._port = PortWatcher(address, port, clock, proxy_command)
        # By host key and login: when it may be tried again, after how long the next time, and how it was refused.
        self._refusals: dict[tuple[HostKey, Login], tuple[float, float, str]] = {}

    @property
    def heard(self) -> str:
        return self._port.heard

    @property
    def is_refused(self) -> bool:
        return self._port.is_refused

    def __enter__(self) -> SshObserver:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._port.close()

    def begin(self) -> None:
        """Send the first packet, and come back at once."""
        self._port.wait(0)

    def note_silence(self) -> None:
        """Nobody answers any more: what comes up next may let in whom this one refused."""
        soon = self.clock.monotonic() + AGAIN_SECONDS
        self._refusals = {each: (min(again, soon), AGAIN_SECONDS, why) for each, (again, _pause, why) in self._refusals.items()}

    def poll(self, seconds: float) -> Observation | None:
        """Wait at most so many seconds for a banner, and see who it is. None where nobody spoke SSH.

        The caller closes `client`.
        """
        if not self._port.wait(seconds):
            return None
        trusted = (*self.known.installed, *self.known.familiar, *((self.known.pinned,) if self.known.pinned else ()))
        try:
            client = Client(self._port.take(), self.timeout, trusted)
        except LifeboatError as exc:
            return Observation(UNKNOWN, f"it broke off ({exc.what})", self.heard)
        key = client.host_key
        # A password is sent to none but a host whose key is known.
        logins = [(login if key in trusted else login._replace(password=None), own_key) for login, own_key in self.logins]
        for number, (login, own_key) in enumerate(each for each in logins if self._is_due(key, *each)):
            if number:
                client.close()
                if not self._port.wait(self.timeout):
                    break
                try:
                    client = Client(self._port.take(), self.timeout, trusted)
                except LifeboatError as exc:
                    return Observation(UNKNOWN, f"it broke off ({exc.what})", self.heard)
                key = client.host_key
            try:
                client.log_in(login if key in trusted else login._replace(password=None))  # it may be another one by now
                evidence = client.evidence()
            except LoginRefused as exc:
                self._note_refusal(key, login, own_key, exc.what)
                continue
            except LifeboatError as exc:
                client.close()
                return Observation(UNKNOWN, f"it broke off ({exc.what})", self.heard)
            if evidence == Evidence():
                # `Please login as the user "debian"`, a shell that is none, a forced command.
                self._note_refusal(key, login, own_key, f"SSH let {login.user} in, but ran nothing for them.")
                continue
            system, reason = self.known.classify(key, evidence, own_key)
            return Observation(system, reason, self.heard, key, evidence, client, login.user)
        client.close()
        system, reason = self.known.classify(key, None, False)
        refused = [self._refusals[key, login][2] for login, _own_key in logins if (key, login) in self._refusals]
        return Observation(system, reason, self.heard, key, refused=refused[-1] if refused else None)

    def _is_due(self, key: HostKey, login: Login, own_key: bool) -> bool:
        if own_key and key in self.known.installed:
            return False
        again, _pause, _why = self._refusals.get((key, login), (0.0, 0.0, ""))
        return self.clock.monotonic() >= again

    def _note_refusal(self, key: HostKey, login: Login, own_key: bool, why: str) -> None:
        # A key of the rescue system is of no use at the installed one, for as long as that runs.
        first = LONGEST_SECONDS if own_key and key in self.known.familiar else AGAIN_SECONDS
        _again, pause, _why = self._refusals.get((key, login), (0.0, first, ""))
        self._refusals[key, login] = (self.clock.monotonic() + pause, min(pause * 2, LONGEST_SECONDS), why)


class BackgroundObservation:
    """Looks by an SshObserver from now on, in a thread of its own, while something else is done.

    Who asks a provider about a server whose address he knows does not wait for one and then for the other.
    """

    # Between two looks whether it is to go on, in seconds.
    slice = 0.2

    def __init__(self, watch: SshObserver):
        """watch: nobody else uses it, or closes it, until poll() has come back."""
        self.watch = watch
        self._known = watch.known
        self._ended = threading.Event()
        self._seen: Future[Observation | None] = Future()
        watch.begin()
        # Its modules are not to be imported by the thread, while this one imports others that need the same.
        with contextlib.suppress(MissingLibrary):  # told by the look, which needs it
            load_paramiko()
        threading.Thread(target=self._run, name="observe", daemon=True).start()

    def _run(self) -> None:
        try:
            observation = None
            while observation is None and not self._ended.is_set():
                observation = self.watch.poll(self.slice)
            self._seen.set_result(observation)
        except BaseException as exc:
            self._seen.set_exception(exc)

    def poll(self, seconds: float, known: KnownHostKeys) -> Observation | None:
        """What was seen by now, or within so many seconds more; as SshObserver.poll().

        known: as it is by now. Without a log-in it decides who answered, and whether a password may be sent; so then what was
        seen under less counts for nothing.
        """
        deadline = self.watch.clock.deadline(seconds)
        self._ended.set()
        observation = self._seen.result()
        self.watch.known = known
        if observation is None:
            # The attempts that were begun go on; only who waits for them is another one.
            return self.watch.poll(deadline.left)
        if observation.evidence is None and known != self._known:
            return self.watch.poll(seconds)
        return observation

    def abandon(self) -> None:
        """Nobody wants to know any more. Comes back at once; what is open is closed once the thread has ended."""
        self._ended.set()
        self._seen.add_done_callback(self._close)

    def _close(self, seen: Future[Observation | None]) -> None:
        observation = seen.result() if seen.exception() is None else None
        if observation is not None and observation.client is not None:
            observation.client.close()
        self.watch.close()
