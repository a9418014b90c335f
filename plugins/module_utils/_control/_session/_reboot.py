# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rebooting, and waiting until the right system is proved to run. Private to this collection."""

from __future__ import annotations

import typing as t

from ..._errors import LifeboatError, TimedOut, WrongSystem
from ..._wait import Backoff
from .._ssh._client import Login
from .._ssh._port import answers
from . import _record
from ._evidence import INSTALLED, RESCUE, UNKNOWN, Known, Look, Watch
from ._record import Reboot, Record

if t.TYPE_CHECKING:
    from .._providers._base import BootOption, Task
    from ._common import Common

NAMES = {RESCUE: "the rescue system", INSTALLED: "the installed system", UNKNOWN: "an unknown system"}
HARD_REBOOTS = 2  # one, and one power cycle more when the wrong system or none came up


class Rebooting:
    """One reboot into one system, with all that can go wrong meanwhile.

    Soft first, hard when the soft one brought no reboot by its deadline, one power cycle more when the wrong system or none
    came up, a named error after that.
    """

    def __init__(self, session: Common, record: Record, goal: str, watch: Watch, plain: bool = False,
                 option: BootOption | None = None):
        self.session = session
        self.clock = session.clock
        self.options = session.options
        self.record = record
        self.goal = goal
        self.watch = watch
        # A reboot for its own sake: where nobody can tell the system, that one went down and came up is enough.
        self.plain = plain
        # What the provider is to boot, where it sets that and reboots in one. The reboot is its own, then.
        self.option = option
        self.task_state = "running"
        self.task_pace = self.clock.pace(Backoff(1.0, 15.0))
        self.secret_pace = self.clock.pace(Backoff(3.0, 20.0))
        self.began = self.clock.time()
        # When this call itself asked for a hard reboot.
        self.asked: float | None = None
        # Down-then-up is evidence of a reboot where nobody can log in.
        self.gone_since: float | None = None
        self.was_gone = False
        self.last: Look | None = None

    @property
    def reboot(self) -> Reboot:
        """The request that is under way."""
        return t.cast(Reboot, self.record.reboot)

    def run(self, last: Look | None) -> Look:
        """Reboot, unless that was asked for already, and return the look that proved the goal.

        last: the look before, which tells who ran until now.
        """
        if self.record.reboot is None:
            self._ask_first(last)
        else:
            # A call that died asked for it. This one may power cycle once more by itself.
            self.reboot.hard = min(self.reboot.hard, HARD_REBOOTS - 1)
            if self.reboot.method == "hard" and not self.reboot.task:
                if self.option is None and last is not None and last.system == self.goal and self._is_goal(last):
                    # It was carried out, and the system that was asked for is back. Not every provider can report that, and a
                    # second request would hit this system.
                    self.session.mark(self.goal)
                    return last
                self._ask_hard(again=True)
        if self.goal == RESCUE and self.session.unseen:
            return self._wait_unseen()
        wait = self.clock.wait(self.options.wait_timeout, Backoff(0.2, 2.0), pause=self._pause)
        found: Look = wait.until(self._look, lambda: self._late(self.options.wait_timeout))
        self.session.mark(self.goal)
        if self.option is not None:
            # The provider shows what boots only when its job has ended, which may be after the system answers.
            late = self.options.boot_timeout
            self.clock.wait(late, self.task_pace.backoff).until(self._task_end, lambda: self._late(late))
        return found

    def _wait_unseen(self) -> Look:
        """Nobody logs in by SSH: what the provider says of its job, and its password, is all that there is."""
        late = self.options.boot_timeout
        self.clock.wait(late, self.task_pace.backoff).until(self._task_end, lambda: self._late(late))
        if self.options.credentials_file:
            self.session.say("secret", "waiting for the rescue system's password")
            found = self.clock.wait(late, self.secret_pace.backoff).until(lambda: self.session.credentials(self.record), lambda: TimedOut(
                f"The provider gave no password for the rescue system of {self.record.server} within {late:.0f} s of its reboot.",
                state=self._state_words(), todo="Look into the mails of your account there. Running this again waits on."))
            self.session.write_credentials(self.record, found)
        return Look(UNKNOWN, "nobody looked, for nobody logs in by SSH", self.watch.heard)

    def _task_end(self) -> bool | None:
        self._read_task(now=True)
        return None if self.task_state == "running" else True

    def _pause(self, seconds: float) -> None:
        # While nobody speaks a look itself blocks until somebody does. Who spoke and was not the goal is let alone a while.
        if self.last is not None:
            self.clock.pause(seconds)

    def _look(self) -> Look | None:
        self._read_task()
        look = self.watch.look(1.0) or self._look_at_proof_port()
        self.last = look
        if look is None:
            self._note_silence()
        else:
            look = look if self._is_goal(look) else self._try_password(look)
            self._tell_look(look)
            if self._is_goal(look):
                return look
            if look.client:
                look.client.close()
            if self._is_wrong(look):
                self._power_cycle_or_fail(look)
                return None
        self._escalate()
        return None

    # -- asking for it

    def _ask_first(self, last: Look | None) -> None:
        before = last.evidence.boot_id if last and last.evidence else None
        self.record.reboot = Reboot("soft", self.clock.time(), boot_id_before=before,
                                    host_key_before=last.host_key.line if last and last.host_key else None)
        if self.option is not None and self.options.reboot_method == "soft":
            raise LifeboatError(f"{self.session.provider.facts.name} reboots by itself when it sets what boots, so there is no "
                                "soft reboot.", state=self._armed_words(), todo="Use reboot_method=auto or hard.")
        if self.options.reboot_method != "hard" and self.option is None:
            try:
                if self._ask_soft(last):
                    return
            except LifeboatError as exc:
                if self.options.reboot_method == "soft":
                    raise
                self.session.say("soft", f"no soft reboot: {exc.what}")
            if self.options.reboot_method == "soft":
                why = (last.refused or last.reason) if last else "nobody answers"
                raise LifeboatError(f"{self.record.server} cannot be rebooted softly: {why.rstrip('.')}.",
                                    state=self._armed_words(), todo="Use reboot_method=auto or hard.")
        self._ask_hard()

    def _armed_words(self) -> str:
        if self.record.boot and self.record.phase in (_record.ARMING, _record.REBOOTING):
            return f"{self.record.boot['name']} is set to boot next; nothing was rebooted."
        return "Nothing was rebooted."

    def _ask_soft(self, last: Look | None) -> bool:
        """Ask the running system to reboot. False where nobody is logged in to it."""
        if last is None or last.client is None:
            return False
        self.reboot.asked_at = self.clock.time()
        self._save_asked()
        self.session.say("reboot", f"asking {NAMES[last.system]} to reboot")
        self.session.changed = True
        last.client.soft_reboot(last.user or "root")
        last.client.close()
        return True

    def _save_asked(self) -> None:
        leaving = self.record.phase == _record.LEAVING
        self.session.save(self.record, _record.LEAVING if leaving else _record.REBOOTING)

    def _ask_hard(self, again: bool = False) -> None:
        """Ask the provider to reboot. again: it may have been asked already, by a call that died."""
        reboot = self.reboot
        if not again:
            reboot.mark = self.session.provider.reboot_mark(self.record.server)
            reboot.method = "hard"
            reboot.task = None
            reboot.hard += 1
            reboot.asked_at = self.clock.time()
            self._save_asked()
            more = " (a power cycle more)" if reboot.hard > 1 else ""
            what = f"to boot {self.option.name}" if self.option else "for a hard reboot"
            self.session.say("reboot", f"asking the provider {what}{more}")
        self.session.changed = True
        task = self._ask_provider(again)
        self.asked = self.clock.time()
        reboot.task = task.id
        self.record.tasks.append(task.id)
        self.session.save(self.record, self.record.phase)
        self.session.say("task", f"task {task.id}: {task.text}")
        self.task_state = "running"
        self.was_gone = False
        self.gone_since = None

    def _ask_provider(self, again: bool) -> Task:
        provider, name, mark = self.session.provider, self.record.server, self.reboot.mark
        if self.option is None:
            return provider.reboot_hard(name, mark, asked_before=again)
        password = self.session.given_password(self.record) if self.goal == RESCUE else None
        return provider.switch(name, self.option, mark, asked_before=again, password=password)

    # -- what was seen

    def _note_silence(self) -> None:
        now = self.clock.monotonic()
        if self.gone_since is None:
            self.gone_since = now
        elif now - self.gone_since >= 2.0 or "refused" in self.watch.heard:
            self.was_gone = True
        self.session.say("ssh", f"port {self.watch.port}: {self.watch.heard}")

    def _tell_look(self, look: Look) -> None:
        self.gone_since = None
        if look.system == UNKNOWN:
            self.session.say("ssh", f"port {self.watch.port}: {look.heard}; {look.reason}")
        elif self._is_fresh(look):
            up = f", up {look.evidence.uptime:.0f} s" if look.evidence and look.evidence.uptime is not None else ""
            self.session.say("ssh", f"{NAMES[look.system]} answers{up}")
        else:
            self.session.say("ssh", f"{NAMES[look.system]} of before still answers")

    def _is_fresh(self, look: Look) -> bool | None:
        fresh = look.fresh(self.reboot.asked_at, self.reboot.boot_id_before, self.clock.time())
        if look.heard == "proof port":
            return self.was_gone
        if fresh is None and look.host_key is not None:
            if self.goal == INSTALLED and look.system == INSTALLED and self.record.rescue_host_key:
                # The rescue system ran when the reboot was asked for; now another one answers.
                return look.host_key.line != self.record.rescue_host_key
            if self.reboot.host_key_before and look.host_key.line != self.reboot.host_key_before:
                return True
            return True if self.was_gone else None
        return fresh

    def _is_goal(self, look: Look) -> bool:
        if self.goal == INSTALLED and look.system == UNKNOWN and look.host_key is not None and self.record.rescue_host_key:
            # Nobody can log in, and its host key is not known. But it is not the rescue system's, which was pinned, and it
            # refuses the key that the rescue system takes.
            return look.host_key.line != self.record.rescue_host_key and bool(look.refused)
        if self.plain and look.system == UNKNOWN and look.host_key is not None:
            return self.was_gone
        if look.system != self.goal or not self._is_fresh(look):
            return False
        return self.goal != RESCUE or look.client is not None or self.plain

    def _is_wrong(self, look: Look) -> bool:
        return look.system not in (self.goal, UNKNOWN) and bool(self._is_fresh(look))

    def _look_at_proof_port(self) -> Look | None:
        """The user's own proof that the installed system runs: a TCP port that it alone listens on."""
        if self.goal != INSTALLED or self.options.proof_port is None or not self.was_gone:
            return None
        address = self.options.installed_address or self.record.address or ""
        if not answers(address, self.options.proof_port, self.options.connect_timeout):
            return None
        return Look(INSTALLED, f"it went down, and now port {self.options.proof_port} answers", "proof port")

    # -- the provider's side

    def _read_task(self, now: bool = False) -> None:
        if self.reboot.method != "hard" or self.task_state not in ("running", "unknown") or not self.reboot.task:
            return
        if not (self.task_pace.due() or now):
            return
        task = self.session.provider.read_task(self.record.server, self.reboot.task)
        if task.state != "unknown":
            self.session.say("task", f"task {task.id}: {task.text}")
        if task.state == "failed":
            # The next call must ask again, not wait for this one.
            self.record.reboot = None
            self.session.save(self.record, self.record.phase)
            raise LifeboatError(f"The provider's reboot of {self.record.server} failed: task {task.id}: {task.text}.",
                                state=self._state_words(), todo="Run this again to ask for another reboot; if that fails "
                                                                "too, open a ticket at the provider.",
                                details={"task": task.id})
        if task.state != self.task_state:
            self.task_pace.backoff.reset()
        self.task_state = task.state

    def _try_password(self, look: Look) -> Look:
        """Log in by the password that the provider gives, once, and plant the session's key with it."""
        if self.goal != RESCUE or not self.session.by_password or look.system == INSTALLED or look.client or not look.host_key:
            return look
        if self.reboot.host_key_before == look.host_key.line or not self.secret_pace.due():
            return look
        # A password that the provider shows all the time may be the installed system's too.
        rescue_only = "known" not in self.session.provider.facts.credentials
        if not rescue_only and not self.was_gone and self.task_state == "running":
            return look
        credentials = self.session.credentials(self.record)
        if credentials is None:
            self.session.say("secret", "waiting for the rescue system's password")
            return look
        again = Watch(self.watch.address, self.watch.port, Known(pinned=look.host_key),
                      [(Login(credentials.user, password=credentials.password), False)], clock=self.clock)
        with again:
            # Only to the very host that was just seen.
            found = again.look(self.watch.timeout)
        if found is None or found.client is None or found.host_key != look.host_key:
            return look
        system, reason = self.watch.known.judge(look.host_key, found.evidence, rescue_only)
        found = found._replace(system=system, reason=reason)
        if system == RESCUE and found.client and self._is_fresh(found):
            self.session.write_credentials(self.record, credentials)
            found.client.plant_key(self.session.public_key(self.record))
            self.record.user = credentials.user
        return found

    # -- escalation

    def _escalate(self) -> None:
        # What was asked for long ago, by a call that died, is given another minute; what is asked for now, all of its time.
        waited = self.clock.time() - (self.asked or max(self.reboot.asked_at, self.began - max(0.0, self.options.boot_timeout - 60)))
        if self.reboot.method == "soft":
            limit = self.options.boot_timeout if self.was_gone else self.options.soft_timeout
            if waited >= limit:
                if self.options.reboot_method == "soft" or (self.goal == INSTALLED and self.was_gone):
                    raise self._late(waited)
                self.session.say("soft", f"the soft reboot brought nothing in {waited:.0f} s")
                self._ask_hard()
        elif waited >= self.options.boot_timeout:
            if self.option is not None and self.task_state == "running":
                # The provider is still at it, and takes nothing else meanwhile.
                return
            if self.goal == INSTALLED:
                # It may be checking its disks, or not let SSH in. A power cycle would not mend the one, and harm the other.
                raise self._late(waited)
            self._power_cycle_or_fail(None)

    def _power_cycle_or_fail(self, look: Look | None) -> None:
        can = self.goal != RESCUE or self.session.provider.facts.hard_reboot
        if can and self.reboot.hard < HARD_REBOOTS and self.options.reboot_method != "soft":
            if look is not None:
                self.session.say("wrong", f"{NAMES[look.system]} booted instead of {NAMES[self.goal]}")
                # It goes on answering until the next reboot takes effect, and must not be taken for what comes of that.
                self.reboot.boot_id_before = look.evidence.boot_id if look.evidence else None
                self.reboot.host_key_before = look.host_key.line if look.host_key else None
            self._ask_hard()
            return
        if look is not None:
            raise WrongSystem(f"{self.record.server} booted {NAMES[look.system]} instead of {NAMES[self.goal]}, "
                              f"{self.reboot.hard or 1} times ({look.reason}).", state=self._state_words(look),
                              todo=self.session.console_words(self.record.server) +
                              " Its firmware may ignore the network boot. Then run this again.")
        raise self._late(self.clock.time() - self.reboot.asked_at)

    def _state_words(self, look: Look | None = None) -> str:
        look = look or self.last
        if self.goal == RESCUE and self.record.boot:
            armed = f"{self.record.boot['name']} is set to boot next"
        else:
            armed = "its settings are restored" if self.record.phase == _record.LEAVING else "no setting was changed"
        runs = f"{NAMES[look.system]} runs" if look else f"nobody answers by SSH ({self.watch.heard})"
        return f"Now {armed}, and {runs}."

    def _late(self, seconds: float) -> TimedOut:
        todo = self.session.console_words(self.record.server)
        if self.goal == RESCUE and self.option is not None:
            todo = " ".join(filter(None, (self.session.provider.login_words(self.record.server, self.option), todo)))
        if not self.plain:
            todo += " Running this again goes on waiting where this ended"
            todo += "; state=absent gives up and boots the installed system." if self.goal == RESCUE else \
                ". If the installed system lets nobody in by SSH, tell its host key by installed_host_keys, or another port of " \
                "it by proof_port."
        return TimedOut(f"{NAMES[self.goal].capitalize()} of {self.record.server} did not come up within {seconds:.0f} s "
                        f"of the reboot.", state=self._state_words(), todo=todo)
