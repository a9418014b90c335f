# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One request to reboot: asked for, remembered, and followed at the provider. Private to this collection."""

from __future__ import annotations

import contextlib
import math
import typing as t

from ..._errors import BadInput, LifeboatError, LoginRefused, ProviderError, TimedOut
from ..._wait import Backoff
from .._providers._base import OPEN, QUEUED
from . import _access, _record
from ._evidence import INSTALLED, RESCUE, Observation
from ._record import Reboot, Record
from ._words import NAMES

if t.TYPE_CHECKING:
    from .._providers._base import BootOption, Task
    from ._context import Context

HARD_REBOOTS = 2  # one, and one more power cycle if the wrong system or none came up
# Who went on with what an earlier call requested gives it at least so many seconds.
LAST_SECONDS = 60.0


def is_to_come(ctx: Context, record: Record) -> bool:
    """Whether the reboot that an earlier call requested may be still to come, whatever answers by now."""
    reboot = record.reboot
    if reboot is None or reboot.method != "hard":
        return False
    if reboot.task:
        # What answers while the provider is at work may be the late effect of a rival.
        return ctx.provider.read_task(record.server, reboot.task).state in (OPEN if reboot.has_rivals else (QUEUED,))
    # Its answer is not known, so whatever waits there may be it. It may not be shown yet.
    lag = ctx.provider.facts.lag
    wait = ctx.clock.wait(min(lag, max(0.0, lag - (ctx.clock.time() - reboot.asked_at))), Backoff(1.0, 5.0))
    with contextlib.suppress(TimedOut):
        return bool(wait.until(lambda: any(task.state in OPEN for task in ctx.provider.unfinished_tasks(record.server)) or None,
                               lambda: TimedOut("Nothing waits.")))
    return False


class Request:
    """One request to reboot into one system: soft, and by the provider.

    option: what the provider is to boot, where it sets that and reboots in one; the reboot is its own, then. since: since when, on
    the monotonic clock, the server has had time to boot. task_state, task_text: of the provider's job. is_resumed: whether an earlier
    call asked for it. learned_at: when, on the same clock, this call learned of the job.
    """

    def __init__(self, ctx: Context, record: Record, goal: str, option: BootOption | None, state_words: t.Callable[[], str]):
        """state_words: what is armed and what runs, for an error."""
        self.ctx = ctx
        self.clock = ctx.clock
        self.options = ctx.options
        self.record = record
        self.goal = goal
        self.option = option
        self._state_words = state_words
        self.task_state = ""
        self.task_text = ""
        self.is_seen_open = False
        self.is_resumed = False
        # Whether this call made it; when this call saw last that the provider had not begun, by both clocks.
        self._is_new = True
        self._queued_at: tuple[float, float] | None = None
        self.pace = self.clock.pace(Backoff(1.0, 15.0))
        # How long ago the reboot was requested when this call began, or 0 if this call requested it, and when that was.
        self.ago, self.asked = 0.0, self.clock.monotonic()
        self.since = self.learned_at = self.asked

    @property
    def reboot(self) -> Reboot:
        """The request, as it is remembered."""
        return t.cast(Reboot, self.record.reboot)

    def resume(self) -> bool:
        """Go on with the request of a call that died. False where it is not known whether the provider was asked."""
        self.is_resumed, self._is_new = True, False
        # This call may power cycle once more by itself.
        self.reboot.hard = min(self.reboot.hard, HARD_REBOOTS - 1)
        self.ago = max(0.0, self.clock.time() - self.reboot.asked_at)
        self.since = self.clock.monotonic() - min(self.ago, max(0.0, self.options.boot_timeout - LAST_SECONDS))
        self.learned_at = self.clock.monotonic() - self.ago
        if self.reboot.method == "hard" and self.reboot.task:
            self.task_state = "running"
        return self.reboot.method != "hard" or bool(self.reboot.task)

    def first(self, last: Observation | None) -> None:
        """Ask for it, as the user wants it. last: who ran until now."""
        before = last.boot_id if last else None
        self.record.reboot = Reboot("soft", self.clock.time(), boot_id_before=before,
                                    host_key_before=last.host_key.line if last and last.host_key else None)
        if self.option is not None and self.options.reboot_method == "soft":
            raise BadInput(f"{self.ctx.provider.facts.name} reboots by itself when it sets what boots, so there is no "
                           "soft reboot.", state=self._armed_words(), todo="Use reboot_method=auto or hard.")
        if self.options.reboot_method != "hard" and self.option is None:
            try:
                if self._soft(last):
                    return
            except LifeboatError as exc:
                if self.options.reboot_method == "soft":
                    raise
                self.reboot.has_rivals = False
                self.ctx.say("soft", f"no soft reboot: {exc.what}")
            if self.options.reboot_method == "soft":
                why = (last.refused or last.reason) if last else "nobody answers"
                raise LoginRefused(f"{self.record.server} cannot be rebooted softly: {why.rstrip('.')}.",
                                   state=self._armed_words(), todo="Use reboot_method=auto or hard.")
        self.hard()

    def _armed_words(self) -> str:
        if self.record.boot and self.record.phase in (_record.ARMING, _record.REBOOTING):
            return f"{self.record.boot['name']} is set to boot next; nothing was rebooted."
        return "Nothing was rebooted."

    def _soft(self, last: Observation | None) -> bool:
        """Ask the running system to reboot. False where nobody is logged in to it."""
        if last is None or last.client is None:
            return False
        self._note()
        self.reboot.has_rivals = True
        self._save()
        self.ctx.say("reboot", f"asking {NAMES[last.system]} to reboot")
        self.ctx.changed = True
        last.client.soft_reboot(last.user or "root")
        last.client.close()
        return True

    def _note(self) -> None:
        """It is requested now."""
        self._is_new = True
        self.reboot.asked_at = self.clock.time()
        self.ago, self.asked = 0.0, self.clock.monotonic()
        self.since = self.asked

    @property
    def elapsed(self) -> float:
        """Seconds since the request, whatever is done to the clock of this machine while we wait."""
        return self.ago + self.clock.monotonic() - self.asked

    @property
    def longest(self) -> float:
        """For how many seconds what comes of it can have been up, at most; without end where this call did not see it begin."""
        # The monotonic clock stands still while a controller is suspended, and somebody may set the other one.
        if self._queued_at is not None:
            monotonic, time = self._queued_at
            return max(self.clock.monotonic() - monotonic, self.clock.time() - time) + self.ctx.provider.facts.lag
        return max(self.elapsed, self.clock.time() - self.reboot.asked_at) if self._is_new else math.inf

    def _save(self) -> None:
        leaving = self.record.phase == _record.LEAVING
        self.ctx.save(self.record, _record.LEAVING if leaving else _record.REBOOTING)

    def hard(self, again: bool = False) -> None:
        """Ask the provider to reboot. again: it may have been asked already, by a call that died."""
        reboot = self.reboot
        if not again:
            reboot.baseline = self.ctx.provider.reboot_baseline(self.record.server, self.record.tasks)
            reboot.method = "hard"
            reboot.task = self._queued_at = None
            reboot.hard += 1
            reboot.has_rivals = reboot.has_rivals or reboot.hard > 1
            self._note()
            self._save()
            more = " (one more power cycle)" if reboot.hard > 1 else ""
            what = f"to boot {self.option.name}" if self.option else "for a hard reboot"
            self.ctx.say("reboot", f"asking the provider {what}{more}")
        self.ctx.changed = True
        task = self._provider_task(again)
        self.since = self.learned_at = self.clock.monotonic()
        reboot.task = task.id
        self.record.tasks = list(dict.fromkeys([*self.record.tasks, task.id]))
        self.ctx.save(self.record, self.record.phase)
        self._note_task(task)

    def _provider_task(self, again: bool) -> Task:
        provider, name, baseline = self.ctx.provider, self.record.server, self.reboot.baseline
        if self.option is None:
            return provider.reboot_hard(name, baseline, may_be_repeat=again)
        password = _access.injected_password(self.ctx, self.record) if self.goal == RESCUE else None
        return provider.boot_into(name, self.option, baseline, may_be_repeat=again, password=password)

    @property
    def is_open(self) -> bool:
        """Whether the provider is still to do it, or at work on it."""
        return self.reboot.method == "hard" and self.task_state in OPEN

    def has_run(self) -> bool:
        """Whether the provider's reboot is over, as far as it tells."""
        if self.reboot.method != "hard":
            return False
        return self.task_state == "done" or (self.task_state == "unknown" and self.elapsed >= LAST_SECONDS)

    def _note_task(self, task: Task) -> None:
        if task.state == "failed":
            # The next call must ask again, not wait for this one.
            self.record.reboot = None
            self.ctx.save(self.record, self.record.phase)
            by_force = f", where nobody is let in with {self.options.by_force}," if self.goal == INSTALLED else ""
            raise ProviderError(f"The provider's reboot of {self.record.server} failed: task {task.id}: {task.text}.",
                                state=self._state_words(), todo=f"Run this again{by_force} to ask for another reboot; if that fails "
                                                                "too, open a ticket at the provider.",
                                details={"task": task.id})
        self.task_state, self.is_seen_open = task.state, task.state in OPEN
        if task.state == QUEUED:
            self._queued_at = (self.clock.monotonic(), self.clock.time())
        if task.state != "unknown":
            self.task_text = task.text
            self.ctx.say("task", f"task {task.id}: {task.text}")

    def read_task(self, now: bool = False) -> None:
        if self.reboot.method != "hard" or self.task_state not in (*OPEN, "unknown") or not self.reboot.task:
            return
        if self.is_seen_open:
            # Only what the provider has done can be waited for.
            self.since = self.clock.monotonic()
        if not (self.pace.due() or now):
            return
        task = self.ctx.provider.read_task(self.record.server, self.reboot.task)
        if task.state == "unknown" and self.clock.monotonic() < self.learned_at + self.ctx.provider.facts.lag:
            return  # it may not be shown yet
        if task.state != self.task_state:
            self.pace.backoff.reset()
        self._note_task(task)
