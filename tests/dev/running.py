# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs steps, some at a time, each when the steps that it needs are done."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
import re
import subprocess
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from guard import Guard, end_groups

LANES = 2  # steps that run at a time, for the two cores that everything here is made for; and one more that mostly waits
NO_TESTS = 5  # exit code of pytest when it selected no test


@dataclasses.dataclass
class Totals:
    """Numbers of tests. xfailed: those that show a known fault, which is still there."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    xfailed: int = 0

    def add(self, other: Totals) -> None:
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped
        self.xfailed += other.xfailed

    def __str__(self) -> str:
        """As the last line of a run has it, which is read by programs too."""
        text = f"{self.passed} passed, {self.failed} failed"
        return f"{text}, {self.skipped} skipped" if self.skipped else text


@dataclasses.dataclass
class Step:
    """Commands to run one after the other in directory; all must end with 0 within limit seconds.

    env: their whole environment. needs: names of steps that must have passed before, if they are among those that run. after: of those
    that must have ended.
    junit: the file in which pytest reports each test; without one, the step is one test.
    notes: lines of the output that match are shown also if the step passes.
    live: show the output as it comes, each line with the name of the step.
    root: only root can run it. waits: it mostly waits, and runs beside those that keep the cores busy.
    """

    name: str
    directory: Path
    commands: Sequence[Sequence[str | Path]]
    env: Mapping[str, str]
    limit: float = 600
    needs: Sequence[str] = ()
    after: Sequence[str] = ()
    junit: Path | None = None
    notes: str | None = None
    live: bool = False
    root: bool = False
    waits: bool = False


class Test(NamedTuple):
    """One test that ran. seconds: its wall time, with its own set-up."""

    step: str
    name: str
    seconds: float


@dataclasses.dataclass
class Outcome:
    """What came of a step. seconds: wall time. cpu: seconds of processor time, with all child processes that ended."""

    step: str
    totals: Totals
    problem: str | None
    seconds: float
    cpu: float
    tests: Sequence[Test] = ()


class Runner:
    """Runs steps and prints a line for each, with its whole output if it failed.

    logs: a directory for their output. seconds: how long each took the last time, by name; the one that most hangs on goes first,
    and one that is not in there before all others, so that the lanes end together. guard: ends what runs when we are killed.
    """

    def __init__(self, logs: Path, seconds: Mapping[str, float], guard: Guard):
        self.outcomes: list[Outcome] = []
        self._logs = logs
        self._guard = guard
        self._seconds = seconds
        self._changed = threading.Condition()
        self._waiting: list[Step] = []
        self._passed: dict[str, bool | None] = {}  # name of each step; None: not known yet
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._stopped = False

    def run(self, steps: Sequence[Step]) -> None:
        """Run the steps. Whatever interrupts it (KeyboardInterrupt) ends those that run, then goes on its way."""
        self._waiting = sorted(steps, key=lambda step: -self._time_to_the_end(step, steps))
        self._passed = dict.fromkeys((step.name for step in steps), None)
        with concurrent.futures.ThreadPoolExecutor(LANES + 1, "lane") as pool:
            lanes = [pool.submit(self._lane, waits) for waits in [True] + [False] * LANES]
            try:
                for lane in concurrent.futures.as_completed(lanes):
                    lane.result()
            except BaseException:
                self._stop()
                raise

    def _time_to_the_end(self, step: Step, steps: Sequence[Step]) -> float:
        """How long it takes, and the longest of what needs it after that."""
        after = (self._time_to_the_end(other, steps) for other in steps if step.name in other.needs)
        return self._seconds.get(step.name, float("inf")) + max(after, default=0.0)

    def _lane(self, waits: bool) -> None:
        while step := self._next(waits):
            missing = [name for name in step.needs if self._passed.get(name, True) is False]
            if missing:
                outcome = Outcome(step.name, Totals(failed=1), f"not run, because {missing[0]} failed", 0, 0)
                self._print(step, outcome, "")
            else:
                outcome = self._run_step(step)
            with self._changed:
                self.outcomes.append(outcome)
                self._passed[step.name] = not outcome.problem
                self._changed.notify_all()

    def _next(self, waits: bool) -> Step | None:
        """Return the step to run next, or None when there is none left. waits: one that waits; else one of those only at the end."""
        with self._changed:
            while not self._stopped:
                # The sort is stable.
                left = [step for step in self._waiting if step.waits] if waits else sorted(self._waiting, key=lambda step: step.waits)
                if not left:
                    return None
                for step in left:
                    if all(self._passed.get(name, True) is not None for name in (*step.needs, *step.after)):
                        self._waiting.remove(step)
                        return step
                self._changed.wait()
            return None

    def _run_step(self, step: Step) -> Outcome:
        started = time.monotonic()
        log = self._logs / f"{step.name.replace(' ', '-')}.log"
        problem, cpu = None, 0.0
        with log.open("w", encoding="utf-8") as output:
            def write(text: str) -> None:
                output.write(text)
                if step.live:
                    print(f"{step.name}: {text}", end="", flush=True)

            for command in step.commands:
                problem, used = self._run_command([str(word) for word in command], step, write, started + step.limit - time.monotonic())
                cpu += used
                if problem:
                    break
        text = log.read_text(encoding="utf-8", errors="replace")
        totals, tests = read_junit(step.junit, step.name) if step.junit else (Totals(passed=0 if problem else 1), [])
        if problem and not totals.failed:
            totals.failed = 1
        outcome = Outcome(step.name, totals, problem, time.monotonic() - started, cpu, tests)
        self._print(step, outcome, text)
        return outcome

    def _print(self, step: Step, outcome: Outcome, text: str) -> None:
        if self._stopped:
            last = "\n".join(text.splitlines()[-5:])
            print(f"stop {step.name} ({outcome.seconds:.1f} s)\n{last}", flush=True)
            return
        if outcome.problem and not step.live:
            print(text.rstrip(), flush=True)
        elif step.notes and not step.live:
            for line in dict.fromkeys(re.findall(step.notes, text, re.MULTILINE)):
                print(f"     {step.name}: {line}")
        verdict = str(outcome.totals) if step.junit else ""
        if outcome.totals.xfailed:
            verdict += f", {outcome.totals.xfailed} xfailed"
        print(f"{'FAIL' if outcome.problem else 'ok  '} {step.name} ({outcome.seconds:.1f} s, {outcome.cpu:.1f} s of CPU) "
              f"{'; '.join(filter(None, [verdict, outcome.problem]))}".rstrip(), flush=True)

    def _run_command(self, command: list[str], step: Step, write: Callable[[str], None], limit: float) -> tuple[str | None, float]:
        """Run a command in a session of its own, so that its children can be ended too. Return the problem and the CPU seconds."""
        try:
            process = subprocess.Popen(command, cwd=step.directory, env=self._guard.marked(step.env), start_new_session=True,
                                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        except OSError as exc:
            return f"cannot run {command[0]}: {exc.strerror}", 0.0
        with self._changed:
            self._processes[process.pid] = process
            stopped = self._stopped
        late = threading.Event()

        def end_late() -> None:
            late.set()
            end_groups([process.pid])

        timer = threading.Timer(max(limit, 0), end_late)
        timer.start()
        if stopped:
            end_groups([process.pid])
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                write(line.decode("utf-8", "replace"))
        # Not process.wait(): this way the kernel reports what the command and its children used.
        _pid, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        timer.cancel()
        with self._changed:
            del self._processes[process.pid]
        cpu = usage.ru_utime + usage.ru_stime
        if late.is_set():
            return f"did not end within {step.limit:g} s", cpu
        if process.returncode and not (step.junit and process.returncode == NO_TESTS):
            return f"exit code {process.returncode}", cpu
        return None, cpu

    def _stop(self) -> None:
        with self._changed:
            self._stopped = True
            groups = list(self._processes)
            self._changed.notify_all()
        end_groups(groups)


def read_junit(path: Path, step: str) -> tuple[Totals, list[Test]]:
    """Return the totals and the tests in pytest's report; none if pytest did not get as far as writing it."""
    totals, tests = Totals(), []
    if path.exists():
        for suite in ET.parse(path).iter("testsuite"):
            failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
            # pytest counts both as skipped.
            left_out = int(suite.get("skipped", 0))
            xfailed = sum(skipped.get("type") == "pytest.xfail" for skipped in suite.iter("skipped"))
            # One test may both fail and break in its teardown.
            totals.add(Totals(max(int(suite.get("tests", 0)) - failed - left_out, 0), failed, left_out - xfailed, xfailed))
            for case in suite.iter("testcase"):
                place = (case.get("classname") or "").rpartition(".")[2]
                tests.append(Test(step, f"{place}::{case.get('name')}", float(case.get("time", 0))))
    return totals, tests


def sum_of(outcomes: Iterable[Outcome]) -> Totals:
    """Return the totals of all steps."""
    totals = Totals()
    for outcome in outcomes:
        totals.add(outcome.totals)
    return totals
