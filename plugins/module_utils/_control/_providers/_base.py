# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The contract between the session and a provider. Private to this collection.

A provider is two things: static facts (what it can and cannot do) and a few operations. It never sees AnsibleModule,
never waits, never prints; it raises the exceptions of `_errors`.
"""

from __future__ import annotations

import abc
import typing as t

from ..._errors import BadInput, LifeboatError, NotFound, ProviderError
from ..._wait import CLOCK, Clock

HARDDISK = "harddisk"
RESCUE = "rescue"
POWEROFF = "poweroff"
OTHER = "other"

# States of a job that has not ended. In the first of them it has not begun, so nothing was rebooted.
QUEUED = "queued"
OPEN = (QUEUED, "running")


class Refused(ProviderError):
    """The provider will not do that as things stand: a wrong value, or another job is at work on the server.

    conflict: whether it said that it is the latter; else it may be both.
    """

    conflict = False


class Facts(t.NamedTuple):
    """What is always so at a provider.

    name: as `provider` has it.
    reboot: `separate` (setting the boot option reboots nothing), `implied` (it reboots by itself) or
        `one_call` (setting and rebooting cannot be told apart).
    boot_option_lasts: it stays as set until it is set again; else any reboot leads out of the rescue system.
    hard_reboot: the API can reboot what is in rescue.
    credentials: how a log-in to the rescue system is come by, best first: `key` (given to the provider beforehand), `injected`
        (a password of ours goes with the call), `secret` (the API gives a password), `mail`, `known` (the provider shows
        one all the time), `console`.
    tells_armed: the API says what boots next.
    settings: names of the server's settings that entering may change and leaving restores.
    boots_by: names of those of them that say what boots, which leaving restores before it reboots. lets_in_by: of those that say
        whom the rescue system lets in.
    rights: what the credentials must be allowed to do, in the provider's own words.
    lag: for so many seconds its lists and states may be those from before a request.
    """

    name: str
    reboot: str
    boot_option_lasts: bool
    hard_reboot: bool
    credentials: tuple[str, ...]
    tells_armed: bool
    settings: tuple[str, ...]
    rights: tuple[str, ...]
    boots_by: tuple[str, ...]
    lets_in_by: tuple[str, ...]
    lag: float


class BootOption(t.NamedTuple):
    """One thing that the provider can boot next. kind: one of the four constants above."""

    id: str
    kind: str
    name: str
    description: str = ""

    def as_result(self) -> dict[str, str]:
        return dict(self._asdict())


class Server(t.NamedTuple):
    """One reading of a server.

    address: where it answers. boot: id of the boot option that is set, or None where the provider does not tell.
    settings: the present values of the settings named by the facts; what the provider does not show is left out, not empty.
    """

    name: str
    address: str
    boot: str | None
    settings: dict[str, t.Any]


class Task(t.NamedTuple):
    """A job of the provider.

    state: `queued` (it has not begun, so nothing was rebooted), `running`, `done`, `failed` or `unknown` (gone, or not readable).
    """

    id: str
    state: str
    text: str


class Credentials(t.NamedTuple):
    """A log-in to the rescue system that the provider gave. Never to be shown."""

    user: str
    password: str


class Origin(t.NamedTuple):
    """Since when (ISO 8601, UTC) and by whom, in the provider's words. None where it does not tell."""

    since: str | None = None
    by: str | None = None


class Provider(abc.ABC):
    """The operations. Server names are as the provider has them; ids are text.

    It is made with the options of the module, as a mapping, and used by one thread. `clock` and `notice` are set after that.
    """

    facts: Facts
    # By which it waits.
    clock: Clock = CLOCK
    # A call that failed on the way is tried again for so many seconds.
    patience = 60.0
    # Takes a clause for people, while that goes on.
    notice: t.Callable[[str], None] = staticmethod(lambda text: None)

    # -- what each provider must say

    @abc.abstractmethod
    def read_server(self, name: str) -> Server:
        """One call where it can be one. NotFound (with the names that the credentials see), NotAllowed."""

    @abc.abstractmethod
    def list_servers(self) -> list[str]:
        """The names of all servers that the credentials see."""

    def read_servers(self) -> t.Mapping[str, Server | None]:
        """All servers that the credentials see, by the names of list_servers(), as one listing tells of them.

        None for what read_server() must be asked of; default: for all of them.
        """
        return dict.fromkeys(self.list_servers())

    @abc.abstractmethod
    def boot_options(self, name: str, kind: str | None = None) -> list[BootOption]:
        """All boot options of a server, or those of one kind."""

    def boot_option(self, name: str, option_id: str) -> BootOption:
        """One boot option by its id; default: looked up in all of them."""
        for option in self.boot_options(name):
            if option.id == option_id:
                return option
        raise NotFound(f"{name} has no boot option {option_id!r}.", todo="See what it has with lifeboat.rescue.rescue_mode_info.")

    def armed_key(self, server: Server) -> str | None:
        """The public key that the rescue system is set to let in, or None where there is none or none can be told."""
        return None

    def restorable_settings(self, server: Server) -> dict[str, t.Any]:
        """The settings to restore on leaving, from a reading before entering. Default: as they are.

        Where a boot option lasts, a rescue system that is set already becomes the disk, and a key with SESSION_KEY_COMMENT none.
        """
        return dict(server.settings)

    @abc.abstractmethod
    def reboot_baseline(self, name: str, known: t.Sequence[str] = ()) -> t.Any:
        """A baseline taken before a reboot is requested, by which reboot_hard() knows its own. JSON data.

        known: ids of jobs from before, which a list that lags may not show yet.
        """

    @abc.abstractmethod
    def reboot_hard(self, name: str, baseline: t.Any, may_be_repeat: bool = False) -> Task:
        """Reboot, at most once since the baseline was taken, whatever the network does meanwhile.

        may_be_repeat: this may be a repetition, by a caller that died; look for the job of the first time first.
        """

    @abc.abstractmethod
    def read_task(self, name: str, task_id: str) -> Task:
        """How a job stands. A job that is not there (any more) is `unknown`."""

    @abc.abstractmethod
    def unfinished_tasks(self, name: str) -> list[Task]:
        """Jobs under way that a reboot would collide with, those among them that have not begun."""

    # -- what has a default

    def rescue_rank(self, option: BootOption) -> int | None:
        """How good a rescue system this boot option is for our work: 0 is best, None is none at all. Default: each is the best."""
        return 0 if option.kind == RESCUE and not self.is_windows(option) else None

    def rescue_settings(self, server: Server, option: BootOption, public_key: str | None,
                        options: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
        """What the settings must be while armed; only those that differ need to be written. Default: those of boot_settings().

        options: the options of rescue_mode that a provider may serve (`rescue_mail`, `hold_interventions`).
        """
        return self.boot_settings(option)

    def boot_settings(self, option: BootOption) -> dict[str, t.Any]:
        """The settings that make a boot option the next one. Default: none does, because boot_into() takes it."""
        return {}

    def same_setting(self, setting: str, one: t.Any, other: t.Any) -> bool:
        """Whether two values of a setting mean the same to the provider. Default: whether they are equal."""
        return bool(one == other)

    def write_settings(self, name: str, changes: t.Mapping[str, t.Any]) -> None:
        """Change settings; None clears one. Safe to repeat: what is not read back is written again, for a while.

        Default: there are none.
        """
        if changes:
            raise BadInput(f"{self.facts.name} has no settings that could be changed: {', '.join(sorted(changes))}.")

    def boot_into(self, name: str, option: BootOption, baseline: t.Any, may_be_repeat: bool = False, password: str | None = None) -> Task:
        """Have a boot option run: set it and reboot in one, at most once since the baseline was taken.

        Only where `facts.reboot` is not `separate`; where it is, the session takes the two steps itself.
        may_be_repeat: as for reboot_hard(). password: root's, where `facts.credentials` has `injected`.
        """
        raise LifeboatError(f"{self.facts.name} sets what boots and reboots in two steps.")

    def is_windows(self, option: BootOption) -> bool:
        """Whether this rescue system is a Windows, which takes no key and which nobody logs in to by SSH."""
        return False

    def check_rights(self, name: str) -> None:  # noqa: B027 - a default, not something to be overridden
        """Raise NotAllowed where the credentials cannot do what a session needs. Default: nothing can be told."""

    def credentials_baseline(self, name: str) -> t.Any:
        """A baseline taken before the reboot; read_credentials() accepts nothing older. JSON data."""
        return None

    def read_credentials(self, name: str, baseline: t.Any) -> Credentials | None:
        """The rescue system's log-in, or None while there is none newer than the baseline."""
        raise LifeboatError(f"{self.facts.name} gives no password for its rescue system.", todo="Use an SSH key.")

    def rescued(self, name: str) -> Origin:
        """Since when, and by whose wish, a server is in rescue, as far as the provider knows."""
        return Origin()

    def denied_words(self) -> str | None:
        """What these credentials could not read of a password, in sentences, or None."""
        return None

    def login_words(self, name: str, option: BootOption) -> str | None:
        """What a log-in to this rescue system waits for, and what to do where it does not come, in sentences; None for nothing."""
        return None

    def is_local(self) -> bool:
        """Whether the API is at a loopback address of this machine, as that of a lab is; then its servers may be, too."""
        return False

    def console_url(self, name: str) -> str | None:
        """Where a person can look at the screen, or None."""
        return None

    def choose(self, name: str, wanted: str) -> BootOption:
        """The boot option meant by `harddisk`, `rescue`/`best`, `windows`, `poweroff`, a name or an id; BadInput lists what there is."""
        kinds = {"harddisk": HARDDISK, "poweroff": POWEROFF, "rescue": RESCUE, "best": RESCUE}
        kind = kinds.get(wanted)
        options = self.boot_options(name, kind)
        if kind == RESCUE:
            ranked = sorted((rank, option) for rank, option in ((self.rescue_rank(o), o) for o in options) if rank is not None)
            found = [option for dummy, option in ranked]
        elif wanted == "windows":
            found = [option for option in options if self.is_windows(option)]
        elif kind:
            found = options
        else:
            found = [option for option in options if wanted in (option.id, option.name)]
        if not found:
            if kind:
                options = self.boot_options(name)
            offered = ", ".join(f"{o.name} ({o.kind}, id {o.id})" for o in options)
            raise BadInput(f"{name} offers no boot option {wanted!r}.", todo=f"It offers: {offered or 'nothing at all'}.")
        return found[0]
