# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The runner of ./dev test, with steps that are commands of the shell."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import threading

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "dev"))

import running
import timings
from guard import Guard

from lifeboat_lab.waiting import until

JUNIT = """<testsuites><testsuite errors="1" failures="1" skipped="2" tests="6">
<testcase classname="tests.unit.test_wait" name="test_slow[x]" time="3.25"/>
<testcase classname="tests.unit.test_wait" name="test_quick" time="0.1"><skipped type="pytest.skip" message="no root"/></testcase>
<testcase classname="tests.unit.test_wait" name="test_fault" time="0.1"><skipped type="pytest.xfail" message="S5"/></testcase>
</testsuite></testsuites>"""


@pytest.fixture
def step(tmp_path):
    def make(name, script, **options):
        return running.Step(name, tmp_path, [["sh", "-c", script]], dict(os.environ), **options)

    return make


@pytest.fixture
def guard():
    with Guard() as made:
        yield made


@pytest.fixture
def run(tmp_path, guard):
    def run(*steps, seconds=None):
        runner = running.Runner(tmp_path, seconds or {}, guard)
        runner.run(steps)
        return {outcome.step: outcome for outcome in runner.outcomes}

    return run


def gone(pid):
    """Whether a process has ended, or only waits to be collected by whoever adopted it."""
    stat = pathlib.Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_step_after_one_that_failed_runs_once_that_has_ended(step, run, tmp_path):
    outcomes = run(step("second", f"test -e {tmp_path}/ended", after=["first", "not among them"]),
                   step("first", f"sleep 0.2; touch {tmp_path}/ended; exit 1"))
    assert outcomes["first"].problem and outcomes["second"].problem is None


def test_each_step_is_one_test(step, run, capsys):
    outcomes = run(step("good", "echo unseen"), step("bad", "echo why; exit 3"))
    assert str(running.sum_of(outcomes.values())) == "1 passed, 1 failed"
    assert outcomes["bad"].problem == "exit code 3" and outcomes["good"].problem is None
    said = capsys.readouterr().out
    assert "why" in said and "unseen" not in said and "FAIL bad" in said and "ok   good" in said


def test_a_command_that_is_not_there_fails(tmp_path, run):
    outcome = run(running.Step("none", tmp_path, [["/nonexistent/program"]], {}))["none"]
    assert outcome.totals.failed == 1 and "cannot run /nonexistent/program" in outcome.problem


def test_a_step_waits_for_what_it_needs(step, run, tmp_path):
    order = tmp_path / "order"
    outcomes = run(step("user", f"echo user >>{order}", needs=["maker", "not among these"]),
                   step("maker", f"sleep 0.2; echo maker >>{order}"))
    assert order.read_text().split() == ["maker", "user"]
    assert [outcome.problem for outcome in outcomes.values()] == [None, None]


def test_nothing_runs_on_what_failed(step, run, tmp_path):
    outcomes = run(step("maker", "exit 1"), step("user", f"touch {tmp_path}/ran", needs=["maker"]), step("last", "true", needs=["user"]))
    assert not (tmp_path / "ran").exists()
    assert outcomes["user"].problem == "not run, because maker failed"
    assert str(running.sum_of(outcomes.values())) == "0 passed, 3 failed"


def test_what_waits_has_a_place_beside_the_others_and_else_comes_last(step, run, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "LANES", 1)
    order = tmp_path / "order"
    # Each of the first two waits for a sign of the other one; the second that waits would be before both, if it were busy itself.
    script = "echo {0} >>{2}; n=0; until grep -q {1} {2}; do n=$((n + 1)); [ $n -lt 200 ] || exit 1; sleep 0.05; done"
    outcomes = run(step("busy", script.format("busy", "first", order)), step("first", script.format("first", "busy", order), waits=True),
                   step("second", f"echo second >>{order}", waits=True), seconds={"busy": 1.0, "first": 9.0, "second": 8.0})
    assert running.sum_of(outcomes.values()).passed == 3
    assert order.read_text().split()[2] == "second"


def test_the_longest_goes_first_and_the_unknown_before_it(step, run, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "LANES", 1)
    order = tmp_path / "order"
    run(*(step(name, f"echo {name} >>{order}") for name in ("short", "long", "unknown")), seconds={"short": 1.0, "long": 9.0})
    assert order.read_text().split() == ["unknown", "long", "short"]


def test_what_a_long_one_needs_goes_before_it(step, run, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "LANES", 1)
    order = tmp_path / "order"
    run(*(step(name, f"echo {name} >>{order}", needs=needs) for name, needs in (
        ("middle", []), ("maker", []), ("long", ["maker"]))), seconds={"middle": 3.0, "maker": 0.1, "long": 9.0})
    assert order.read_text().split() == ["maker", "long", "middle"]


def test_two_run_at_a_time(step, run, tmp_path):
    """Each waits for a sign of the other one."""
    script = "touch {0}/{1}; n=0; until [ -e {0}/{2} ]; do n=$((n + 1)); [ $n -lt 200 ] || exit 1; sleep 0.05; done"
    outcomes = run(step("a", script.format(tmp_path, "a", "b")), step("b", script.format(tmp_path, "b", "a")))
    assert running.sum_of(outcomes.values()).passed == 2


def test_the_limit_ends_it_with_its_children(step, run, tmp_path):
    outcome = run(step("late", f"sleep 60 & echo $! >{tmp_path}/pid; wait", limit=0.5))["late"]
    assert outcome.problem == "did not end within 0.5 s" and outcome.seconds < 20
    # A signal takes its time.
    until(lambda: gone(int((tmp_path / "pid").read_text())), 10)


def test_an_interrupt_ends_all_and_starts_no_more(step, tmp_path, guard, monkeypatch):
    runner = running.Runner(tmp_path, {}, guard)
    monkeypatch.setattr(running, "LANES", 1)
    threading.Timer(0.5, os.kill, [os.getpid(), 2]).start()
    with pytest.raises(KeyboardInterrupt):
        runner.run([step("long", f"sleep 60 & echo $! >{tmp_path}/pid; wait"), step("never", f"touch {tmp_path}/ran")])
    until(lambda: gone(int((tmp_path / "pid").read_text())), 10)
    assert not (tmp_path / "ran").exists()


# argv: a directory, a script, a directory for the guard to remove.
RUNNER = """
import os, pathlib, sys
import guard, running
place = pathlib.Path(sys.argv[1])
with guard.Guard(pathlib.Path(sys.argv[3])) as guarded:
    running.Runner(place, {}, guarded).run([running.Step("first", place, [["true"]], dict(os.environ)),
                                            running.Step("long", place, [["sh", "-c", sys.argv[2]]], dict(os.environ))])
"""


def test_steps_end_when_the_runner_is_killed(tmp_path):
    """As with Ctrl-C: they can tidy up."""
    (tmp_path / "work/more").mkdir(parents=True)
    script = f"trap 'touch {tmp_path}/tidied; exit' INT; sleep 60 & echo $! >{tmp_path}/new; mv {tmp_path}/new {tmp_path}/pid; wait"
    process = subprocess.Popen([sys.executable, "-c", RUNNER, tmp_path, script, tmp_path / "work"],
                               env={**os.environ, "PYTHONPATH": os.path.dirname(running.__file__)}, stdout=subprocess.DEVNULL)
    try:
        until((tmp_path / "pid").exists, 20)
    finally:
        process.kill()
        process.wait()
    until(lambda: gone(int((tmp_path / "pid").read_text())) and not (tmp_path / "work").exists(), 20)
    assert (tmp_path / "tidied").exists()


def test_what_pytest_reports_counts(step, run, tmp_path):
    junit = tmp_path / "report.xml"
    junit.write_text(JUNIT)
    outcome = run(step("unit", "exit 1", junit=junit))["unit"]
    assert str(outcome.totals) == "2 passed, 2 failed, 1 skipped" and outcome.totals.xfailed == 1
    assert outcome.tests[0] == ("unit", "test_wait::test_slow[x]", 3.25)
    assert [line for line in timings.report([outcome]) if "::" in line] == ["     3.2 s  unit: test_wait::test_slow[x]"]


def test_a_selection_without_a_test_is_no_failure_but_counts_nothing(step, run, tmp_path):
    outcome = run(step("unit", "exit 5", junit=tmp_path / "none.xml"))["unit"]
    assert outcome.problem is None and str(outcome.totals) == "0 passed, 0 failed"
    assert run(step("lint", "exit 5"))["lint"].problem == "exit code 5"


def test_a_report_that_is_missing_is_a_failure(step, run, tmp_path):
    outcome = run(step("unit", "exit 4", junit=tmp_path / "none.xml"))["unit"]
    assert str(outcome.totals) == "0 passed, 1 failed"


def test_timings_are_kept_of_what_passed(step, run, tmp_path):
    file = tmp_path / "cache/timings.json"
    assert timings.load(file) == {}
    timings.save(file, run(step("good", "true"), step("bad", "false")).values())
    timings.save(file, run(step("other", "true")).values())
    assert set(timings.load(file)) == {"good", "other"}
    file.write_text("[nonsense")
    assert timings.load(file) == {}


def test_processor_time_of_children_counts(step, run):
    script = f"{sys.executable} -c 'import time\nwhile time.process_time() < 0.3: pass'; true"
    assert run(step("busy", script))["busy"].cpu >= 0.3
