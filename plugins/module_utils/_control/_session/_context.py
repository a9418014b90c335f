# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What every step of a session is handed: the provider, the options, the folder, the clock. Private to this collection."""

from __future__ import annotations

import dataclasses
import typing as t

from ..._wait import CLOCK, Clock
from .._ssh._client import Login
from ._record import Record, SessionStore

if t.TYPE_CHECKING:
    from .._providers._base import Provider


@dataclasses.dataclass
class Options:
    """What the caller wants. Times in seconds; see the modules' documentation for each."""

    server: str
    # What the server is called in lines of progress, where that is another name.
    label: str = ""
    address: str | None = None
    rescue_port: int = 22
    rescue: str = "best"
    rescue_user: str = "root"
    public_key: str | None = None
    private_key_file: str | None = None
    login: str = "key"
    credentials_file: str | None = None
    rescue_mail: str | None = None
    hold_interventions: bool = True
    reboot_method: str = "auto"
    soft_timeout: float = 120.0
    boot_timeout: float = 420.0
    wait_timeout: float = 1200.0
    connect_timeout: float = 5.0
    # How the server's ports are reached, where not directly; as OpenSSH's ProxyCommand.
    proxy_command: str | None = None
    force: bool = False
    # How the user says so, for the advice in an error.
    by_force: str = "force=true"
    proof_port: int | None = None
    installed_host_keys: t.Sequence[str] = ()
    # How the user himself logs in to the installed system; only for a soft reboot and for evidence.
    installed_address: str | None = None
    installed_port: int = 22
    installed_login: Login | None = None
    known_hosts_files: t.Sequence[str] = ("~/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts")
    # Whether the folder of sessions is still there when the job that runs this has ended.
    is_lasting: bool = True


class Context:
    """One call for one server. The functions of this package act on it.

    tell: takes one line of progress. check_mode: nothing is written or rebooted, anywhere. changed: whether something was written
    at the provider, or rebooted; a failure must not hide that. remember: whether the record is saved. no_ssh: nobody is to log in to
    the rescue system by SSH, so that the provider's word is all there is. provider_address: where the provider says that the
    server answers, once it was asked. timings: seconds since the call began, by what had been reached.
    """

    def __init__(self, provider: Provider | t.Callable[[], Provider], options: Options, folder: SessionStore,
                 tell: t.Callable[[str], None], check_mode: bool = False, clock: Clock = CLOCK):
        """provider: or what makes it, once it is needed: by then the server's SSH port is being looked at.

        clock: the provider's, too.
        """
        self._make_provider: t.Callable[[], Provider] = provider if callable(provider) else lambda: provider
        self._made: Provider | None = None
        self.options = options
        self.folder = folder
        self.tell = tell
        self.check_mode = check_mode
        self.clock = clock
        self.changed = False
        self.remember = True
        self.no_ssh = options.login == "console"
        self.provider_address: str | None = None
        self.timings: dict[str, float] = {}
        self._said: dict[str, str] = {}
        self._last_topic = ""
        self._started = clock.monotonic()

    @property
    def provider(self) -> Provider:
        if self._made is None:
            self._made = self._make_provider()
            self._made.notice = lambda text: self.say("calls", text)
        return self._made

    @property
    def is_separate(self) -> bool:
        """Whether setting what boots, and rebooting, are two steps at this provider."""
        return self.provider.facts.reboot == "separate"

    @property
    def by_password(self) -> bool:
        """Whether the provider's password for the rescue system is needed: to log in and plant the key, or for the user's file."""
        asked = self.options.login == "password" or bool(self.options.credentials_file)
        return asked or (self.options.login == "key" and not self.no_ssh and "key" not in self.provider.facts.credentials)

    def locked(self) -> t.ContextManager[None]:
        """No other call of this controller is at work on the server."""
        return self.folder.locked(self.options.wait_timeout, self.tell, self.check_mode, self.clock)

    def say(self, topic: str, text: str, waited: str = "") -> None:
        """One line when something changes; the same text on the same topic is said once. waited: how long, as a clause."""
        if self._said.get(topic) != text:
            self._said[topic] = text
            self._last_topic = topic
            self.tell(f"{self.options.label or self.options.server}: {text}{waited}")

    def say_again(self, waited: str) -> None:
        """The line that was said last, for who wonders whether anything goes on."""
        text = self._said.get(self._last_topic)
        if text:
            self.tell(f"{self.options.label or self.options.server}: still: {text}{waited}")

    def mark(self, name: str) -> None:
        """It was reached now."""
        self.timings[name] = round(self.clock.monotonic() - self._started, 3)

    def save(self, record: Record, phase: str) -> None:
        """Remember the record, in this phase."""
        record.phase = phase
        if self.remember:
            self.folder.save(record)

    def write(self, name: str, changes: t.Mapping[str, t.Any]) -> None:
        """Change settings at the provider."""
        self.changed = True
        self.provider.write_settings(name, changes)
