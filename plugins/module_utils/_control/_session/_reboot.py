# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rebooting, and waiting until the right system is proved to run. Private to this collection."""

from __future__ import annotations

import contextlib
import typing as t

from ..._errors import TimedOut, WrongSystem
from ..._wait import Backoff
from .._providers._base import BootOption
from .._ssh._port import answers
from . import _access, _decide, _observe, _record, _words
from ._evidence import INSTALLED, PROOF_PORT, RESCUE, UNKNOWN, Observation, SshObserver
from ._record import Record
from ._request import HARD_REBOOTS, Request, is_to_come
from ._words import NAMES

if t.TYPE_CHECKING:
    from ._context import Context

# A port that says nothing for so long is silent. That proves nothing; but what boots is not asked to reboot.
SILENT_SECONDS = 2.0
# Where nothing changes, a line tells so this often.
NEWS_SECONDS = 30.0
# So many seconds a server's uptime may be off.
UPTIME_SECONDS = 1.0


def reboot(ctx: Context, record: Record, goal: str, last: Observation, any_boot: bool = False,
           option: BootOption | None = None) -> Observation:
    """Reboot and wait until `goal` is proved to run. All log-ins are tried on what answers, to tell which one booted.

    any_boot: a new boot is enough where nobody can tell the system. option: what is to boot, where the provider sets that
    and reboots in one.
    """
    address, port = record.address or "", record.rescue_port
    if goal == INSTALLED:
        address, port = ctx.options.installed_address or address, ctx.options.installed_port
    with SshObserver(address, port, _observe.known_keys(ctx, record), _access.logins(ctx, record), clock=ctx.clock,
                     proxy_command=ctx.options.proxy_command) as watch:
        return Rebooting(ctx, record, goal, watch, any_boot, option).run(last)


class Rebooting:
    """One reboot into one system, with all that can go wrong meanwhile.

    Soft first, hard if the soft one had no effect by its deadline, one more power cycle if the wrong system or none came up, a named
    error after that; see _decide.
    """

    def __init__(self, ctx: Context, record: Record, goal: str, watch: SshObserver, any_boot: bool = False,
                 option: BootOption | None = None):
        self.ctx = ctx
        self.clock = ctx.clock
        self.options = ctx.options
        self.record = record
        self.goal = goal
        self.watch = watch
        # A reboot for its own sake: a new boot is enough, if nobody can tell of which system.
        self.any_boot = any_boot
        self.option = option
        self.request = Request(ctx, record, goal, option, self._state_words)
        self.secret_pace = self.clock.pace(Backoff(3.0, 60.0))
        self.silent_since: float | None = None
        self.last: Observation | None = None
        # Whether the provider has given the rescue system's password.
        self.has_password = False
        self.news = self.clock.pace(Backoff(NEWS_SECONDS, NEWS_SECONDS))
        self.news.due()

    def run(self, last: Observation | None) -> Observation:
        """Reboot, unless that was requested already, and return the look that proved the goal.

        last: the look before, which tells who ran until now.
        """
        if self.record.reboot is None:
            self.request.first(last)
        elif not self.request.resume():
            if self.option is None and last is not None and last.system == self.goal and self._is_proved(last):
                # The system that was asked for is back. Not every provider can report that it rebooted it, and a second request
                # would hit this system. But the one that is not known to have arrived may still be to come.
                self._wait_for_work()
            elif not self._has_left(last):
                self.request.hard(again=True)
        if self.goal == RESCUE and self.ctx.no_ssh:
            return self._wait_unseen()
        # A login that fails, and a connection that does not even try one, are both held against us by sshd.
        wait = self.clock.wait(self.options.wait_timeout, Backoff(0.5, 3.0), pause=self._pause)
        found: Observation = wait.until(self._poll, lambda: self._late(self.options.wait_timeout))
        self.ctx.mark(self.goal)
        if self.option is not None:
            # The provider shows what boots only when its job has ended, which may be after the system answers.
            limit = self.options.boot_timeout
            self.clock.wait(limit, self.request.pace.backoff).until(self._task_end, lambda: self._late(limit))
        return found

    def _wait_for_work(self) -> None:
        """Wait until the provider has nothing more to do on the server that may be what was requested; it may be somebody else's work."""
        self.ctx.say("work", "the request may still be to come; waiting until the provider has no work left on the server")
        wait = self.clock.wait(self.options.boot_timeout, self.request.pace.backoff)
        with contextlib.suppress(TimedOut):
            wait.until(lambda: None if is_to_come(self.ctx, self.record) else True, lambda: TimedOut("It goes on."))

    def _has_left(self, last: Observation | None) -> bool:
        """Whether the rescue system that was to be left no longer runs: another host key answers. It needs no other request."""
        if self.goal != INSTALLED or self.option is not None or last is None or last.host_key is None or last.system == RESCUE:
            return False
        before = [key for key in (self.record.rescue_host_key, self.request.reboot.host_key_before) if key]
        return bool(before) and last.host_key.line not in before

    def _wait_unseen(self) -> Observation:
        """Nobody logs in over SSH: what the provider says of its job, and its password, is all that there is."""
        limit = self.options.boot_timeout
        self.clock.wait(limit, self.request.pace.backoff).until(self._task_end, lambda: self._late(limit))
        if self.options.credentials_file:
            self.ctx.say("secret", "waiting for the rescue system's password")
            found = self.clock.wait(limit, self.secret_pace.backoff).until(
                lambda: _access.credentials(self.ctx, self.record), lambda: TimedOut(
                    f"The provider gave no password for the rescue system of {self.record.server} within {limit:.0f} s of its reboot.",
                    state=self._state_words(), todo="Look into the mails of your account there. Running this again waits on."))
            _access.write_credentials(self.ctx, self.record, found)
        return Observation(UNKNOWN, "nobody looked, for nobody logs in by SSH", self.watch.heard)

    def _task_end(self) -> bool | None:
        self.request.read_task(now=True)
        return None if self.request.is_open else True

    def _pause(self, seconds: float) -> None:
        # While nobody speaks a look itself blocks until somebody does. Who spoke and was not the goal is let alone a while.
        if self.last is not None:
            self.clock.pause(seconds)

    def _poll(self) -> Observation | None:
        self.request.read_task()
        observation = self.watch.poll(1.0)
        if observation is None or observation.system == UNKNOWN:
            observation = self._try_proof_port() or observation
        self.last = observation
        if observation is None:
            self._note_silence()
        else:
            observation = observation if self._is_proved(observation) else self._try_password(observation)
            self.last = observation
            self._report(observation)
        step = _decide.next_step(self._situation(observation))
        if step == _decide.ARRIVED:
            return observation
        if observation is not None and observation.client:
            observation.client.close()
        self._carry_out(step, observation)
        if self.news.due():
            self.ctx.say_again(self._waited())
        return None

    def _carry_out(self, step: str, observation: Observation | None) -> None:
        if step == _decide.WRONG:
            raise self._wrong(t.cast(Observation, observation))
        if step == _decide.LATE:
            raise self._late(self.request.elapsed)
        if step == _decide.HARD:
            seconds = self.clock.monotonic() - self.request.since
            is_older = observation is not None and self._is_fresh(observation) is False
            seen = "had no effect" if is_older else "is not proved to have had any effect"
            self.ctx.say("soft", f"the soft reboot {seen} within {seconds:.0f} s")
            self.request.hard()
            self.silent_since = None
        if step == _decide.AGAIN:
            if observation is not None and observation.system not in (self.goal, UNKNOWN) and self._is_fresh(observation):
                self.ctx.say("wrong", f"{NAMES[observation.system]} booted instead of {NAMES[self.goal]}")
            if observation is not None:
                # It goes on answering until the next reboot takes effect, and must not be taken for what comes of that.
                self.request.reboot.boot_id_before = observation.boot_id
                self.request.reboot.host_key_before = observation.host_key.line if observation.host_key else None
            self.request.hard()
            self.silent_since = None

    # -- what was seen

    def _situation(self, observation: Observation | None) -> _decide.Situation:
        reboot = self.request.reboot
        soft_only = self.options.reboot_method == "soft"
        fresh = self._is_fresh(observation) if observation else None
        # A soft reboot that is seen to have had no effect is not waited for as long as a boot.
        patience = self.options.soft_timeout if reboot.method == "soft" and fresh is False else self.options.boot_timeout
        # One that may not even have arrived may still come; the provider tells the next call whether it did.
        force = self.options.force and self.request.is_resumed
        lost = reboot.method == "hard" and not reboot.task and not force
        more = (self.goal != RESCUE or self.ctx.provider.facts.hard_reboot) and reboot.hard < HARD_REBOOTS and not lost
        return _decide.Situation(
            goal=self.goal, method=reboot.method, system=observation.system if observation else "", fresh=fresh,
            logged_in=bool(observation and observation.client), task=self.request.task_state if reboot.method == "hard" else "",
            seconds=self.clock.monotonic() - self.request.since, patience=patience, more=more,
            lacks_password=self._lacks_password(), denied=self.ctx.provider.denied_words() is not None,
            any_boot=self.any_boot, soft_only=soft_only, force=force, alone=not reboot.has_rivals)

    def _lacks_password(self) -> bool:
        return self.goal == RESCUE and self.ctx.by_password and not self.has_password

    def _waited(self) -> str:
        """How long it has been waited for, and what the limit is, for a line of progress."""
        if self.request.is_open:
            return f" ({self.request.elapsed:.0f} s of {self.options.wait_timeout:.0f} s, waiting for the provider)"
        seconds = self.clock.monotonic() - self.request.since
        return f" ({seconds:.0f} s of {self.options.boot_timeout:.0f} s, waiting for {NAMES[self.goal]})"

    def _is_proved(self, observation: Observation) -> bool:
        return _decide.is_proved(self._situation(observation))

    def _note_silence(self) -> None:
        now = self.clock.monotonic()
        if self.silent_since is None:
            self.silent_since = now
        elif self.watch.is_refused or now - self.silent_since >= SILENT_SECONDS:
            self.watch.note_silence()
        self.ctx.say("ssh", f"port {self.watch.port}: {self.watch.heard}", self._waited())

    def _report(self, observation: Observation) -> None:
        self.silent_since = None
        if observation.system == UNKNOWN:
            why = f" ({observation.refused.rstrip('.')})" if observation.refused else ""
            self.ctx.say("ssh", f"port {self.watch.port}: {observation.heard}; {observation.reason}{why}", self._waited())
        elif self._is_fresh(observation):
            up = f", up {observation.uptime:.0f} s" if observation.uptime is not None else ""
            self.ctx.say("ssh", f"{NAMES[observation.system]} answers", up)
        else:
            self.ctx.say("ssh", f"{NAMES[observation.system]} from before the reboot still answers", self._waited())

    def _is_fresh(self, observation: Observation) -> bool | None:
        """Whether what answers booted after the request; None if that cannot be told."""
        if observation.heard == PROOF_PORT:
            return True  # of a system that was to be left, it alone listens there
        fresh = observation.fresh(self.request.elapsed, self.request.reboot.boot_id_before)
        if fresh and observation.uptime is not None and observation.uptime >= self.request.longest + UPTIME_SECONDS:
            return False  # of an earlier request, or somebody else booted it
        if fresh is not None or observation.host_key is None:
            return fresh
        if self.request.is_open:
            return None  # a host key says nothing of when
        if self.goal == INSTALLED and observation.system == INSTALLED and not self.any_boot:
            # It is known to be the installed system. If another one ran when the reboot was requested, that is enough.
            others = (self.record.rescue_host_key, self.request.reboot.host_key_before)
            return True if observation.host_key.line not in others or self.request.has_run() else None
        before = self.request.reboot.host_key_before
        return True if self.request.has_run() and before and observation.host_key.line != before else None

    def _try_proof_port(self) -> Observation | None:
        """The user's own proof that the installed system runs: a TCP port that it alone listens on."""
        if self.goal != INSTALLED or self.any_boot or self.options.proof_port is None:
            return None
        address = self.options.installed_address or self.record.address or ""
        if not answers(address, self.options.proof_port, self.options.connect_timeout, self.options.proxy_command):
            return None
        return Observation(INSTALLED, f"its port {self.options.proof_port} answers, on which it alone listens", PROOF_PORT)

    def _try_password(self, observation: Observation) -> Observation:
        """Log in by the password that the provider gives, once, and plant the session's key with it."""
        if self.goal != RESCUE or not self.ctx.by_password or observation.system == INSTALLED:
            return observation
        if observation.client or not observation.host_key:
            return observation
        if self.request.reboot.host_key_before == observation.host_key.line or not self.secret_pace.due():
            return observation
        # A password that the provider shows all the time may be the installed system's too.
        rescue_only = "known" not in self.ctx.provider.facts.credentials
        if not rescue_only and not self.request.reboot.host_key_before and self.request.is_open:
            return observation
        credentials = _access.credentials(self.ctx, self.record)
        if credentials is None:
            self.ctx.say("secret", "waiting for the rescue system's password", self._waited())
            return observation
        self.has_password = True
        found = _access.observe_with(self.ctx, self.watch.address, self.watch.port, observation, credentials)
        if found is None:
            return observation
        system, reason = self.watch.known.classify(observation.host_key, found.evidence, rescue_only)
        found = found._replace(system=system, reason=reason)
        if system == RESCUE and found.client and self._is_fresh(found):
            _access.write_credentials(self.ctx, self.record, credentials)
            found.client.plant_key(_access.public_key(self.ctx, self.record))
            self.record.user = credentials.user
        return found

    # -- the two ways in which it fails

    def _wrong(self, observation: Observation) -> WrongSystem:
        return WrongSystem(f"{self.record.server} booted {NAMES[observation.system]} instead of {NAMES[self.goal]}, "
                           f"{self.request.reboot.hard or 1} times ({observation.reason}).", state=self._state_words(observation),
                           todo=_words.console_words(self.ctx, self.record.server) +
                           " Its firmware may ignore the network boot. Then run this again.")

    def _state_words(self, observation: Observation | None = None) -> str:
        """What is armed and what runs, in a sentence."""
        observation = observation or self.last
        if self.goal == RESCUE and self.record.boot:
            armed = f"{self.record.boot['name']} is set to boot next"
        else:
            armed = "the reboot out of the rescue system was requested" if self.record.phase == _record.LEAVING else \
                "no setting was changed"
        if observation is None:
            runs = f"nobody answers by SSH ({self.watch.heard})"
        else:
            why = f" ({observation.refused.rstrip('.')})" if observation.refused else ""
            fresh = " from before the reboot" if self.record.reboot and self._is_fresh(observation) is False else ""
            runs = f"{NAMES[observation.system]}{fresh} runs{why}"
        return f"Now {armed}, and {runs}."

    def _late(self, seconds: float) -> TimedOut:
        todo = _words.console_words(self.ctx, self.record.server)
        option = self.option or (BootOption(**self.record.boot) if self.record.boot else None)
        if self.goal == RESCUE and option is not None and (self.option is not None or self._lacks_password()):
            todo = " ".join(filter(None, (self.ctx.provider.login_words(self.record.server, option), todo)))
        if not self.any_boot:
            todo += " Running this again goes on waiting where this ended"
            todo += "; state=absent gives up and boots the installed system." if self.goal == RESCUE else \
                ". If the installed system lets nobody in by SSH, tell its host key by installed_host_keys, or another port of " \
                f"it by proof_port. If it hangs, or the rescue system has booted once more, {self.options.by_force} has it rebooted again."
        if self.request.is_open:
            task = f"task {self.request.reboot.task}: {self.request.task_text}"
            what = f"The provider has not rebooted {self.record.server} within {seconds:.0f} s: {task}."
        elif self._lacks_password() and self.last is not None and self._is_fresh(self.last):
            what = f"{self.record.server} has rebooted, and lets nobody in without the provider's password for its rescue system, " \
                   f"which has not come within {seconds:.0f} s."
        elif self.any_boot:
            what = f"It is not proved that {self.record.server} rebooted within {seconds:.0f} s of the request."
        else:
            what = f"{NAMES[self.goal].capitalize()} of {self.record.server} did not come up within {seconds:.0f} s of the reboot."
        return TimedOut(what, state=self._state_words(), todo=todo)
