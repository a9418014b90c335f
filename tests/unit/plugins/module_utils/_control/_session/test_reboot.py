# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A reboot in a model of the world, in which anything happens: it ends, never well without proof, and resets nothing twice."""

from __future__ import annotations

import contextlib
import dataclasses
import heapq
import itertools
import typing as t

from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.lifeboat.rescue.plugins.module_utils._control._providers._base import OPEN, Facts, Provider, Task
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._providers._calls import Transient, at_most_once
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._session import _decide, _observe
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._session._context import Context, Options
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._session._evidence import KnownHostKeys, Observation
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._session._reboot import Rebooting
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._session._record import ARMING, LEAVING, RESCUE, Record, SessionStore
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._session._request import HARD_REBOOTS, is_to_come
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._ssh._client import Evidence
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._ssh._host_keys import HostKey
from ansible_collections.lifeboat.rescue.plugins.module_utils._errors import LifeboatError, ProviderError
from ansible_collections.lifeboat.rescue.plugins.module_utils._wait import Clock

LAG = 15.0
BOOT_SECONDS, SOFT_SECONDS, WAIT_SECONDS = 60.0, 30.0, 400.0
# A call ends by then. A request may be repeated for a minute, and another one may follow it.
MOST_SECONDS = WAIT_SECONDS + 2 * (Provider.patience + LAG) + 60.0
MOST_CALLS = 4
# A boot so long before the provider's is told from that: it may not show yet that it has begun, and is asked by and by.
APART_SECONDS = LAG + 20.0
OTHER = {"rescue": "installed", "installed": "rescue"}


class Killed(BaseException):
    """The controller's process ends here."""


@dataclasses.dataclass
class Job:
    """The provider's reboot: it waits, works, resets the server or fails, and has still something to do. baseline: of the request that made
    it. runs: the system that ran when it was made. outcome: "goal" or "wrong", of what boots, "nothing", or "fails".
    """

    number: int
    baseline: int
    made_at: float
    runs: str | None
    queue: float
    work: float
    rest: float
    outcome: str

    @property
    def begins_at(self) -> float:
        return self.made_at + self.queue

    @property
    def resets_at(self) -> float:
        return self.begins_at + self.work

    def state(self, now: float) -> str:
        if now < self.begins_at:
            return "queued"
        if now < self.resets_at + self.rest:
            return "running"
        return "failed" if self.outcome == "fails" else "done"


class World(Clock):
    """A server, and the time. runs: the system that answers, or None. set_by: how far somebody has set the controller's
    clock. slept: for how long the controller was suspended, whose monotonic clock stood still.
    """

    def __init__(self, goal: str, plan: t.Any):
        self.now = 100_000.0
        self.set_by = 0.0
        self.slept = 0.0
        self.runs: str | None = OTHER[goal]
        self.goal = goal
        self.plan = plan
        self.booted_at = self.now - 3600.0
        self.boots = 0
        self.jobs: list[Job] = []
        self.baselines = 0
        self.asked_at: float | None = None
        self.is_watched = False  # whether a controller is at work
        self.is_in_doubt = False  # whether the provider has taken a request
        self.is_booted_by_others = False  # and is not up yet
        self.keys = {"rescue": 0, "installed": 0}
        self.silent_until = 0.0
        self._due: list[tuple[float, int, t.Callable[[], None]]] = []
        self._order = itertools.count()
        self._answers, self._fates = iter(plan.answers), iter(plan.jobs)
        for at, event, size in plan.events:
            self.call_in(at, lambda event=event, size=size: self._happen(event, size))

    # -- time

    def time(self) -> float:
        return self.now + self.set_by

    def monotonic(self) -> float:
        return self.now - self.slept

    def pause(self, seconds: float) -> None:
        end = self.now + max(seconds, 0.001)
        while self._due and self._due[0][0] <= end:
            at, _number, function = heapq.heappop(self._due)
            self.now = max(self.now, at)
            function()
        self.now = max(self.now, end)

    def call_in(self, seconds: float, function: t.Callable[[], None]) -> None:
        heapq.heappush(self._due, (self.now + seconds, next(self._order), function))

    # -- what happens

    @property
    def has_reset_to_come(self) -> bool:
        return any(self.now < job.resets_at for job in self.jobs)

    def _happen(self, event: str, size: float) -> None:
        if event == "clock":
            self.set_by += (size - 30.0) * 600.0  # five hours back or forth
        elif event == "silence":
            self.silent_until = max(self.silent_until, self.now + size)
        elif event == "key":
            self.keys["installed"] += 1
        elif event == "suspended":
            self.slept += size * 10.0
            is_watched, self.is_watched = self.is_watched, False
            self.pause(size * 10.0)
            self.is_watched = is_watched
        elif event == "killed":
            raise Killed
        elif event in ("power cut", "reboot by hand") and self.runs and not self._is_due_within(size + APART_SECONDS):
            # What boots then is what is set, or what ran.
            self.boot(self.goal if event == "power cut" else self.runs, size)
            self.is_booted_by_others = True

    def _is_due_within(self, seconds: float) -> bool:
        """Whether nobody could tell a boot that takes so long from that of the provider."""
        if self.is_in_doubt or not self.is_watched:
            return True
        return any(self.now <= job.resets_at + job.rest and self.now + seconds >= job.begins_at for job in self.jobs)

    def boot(self, system: str | None, seconds: float) -> None:
        self.runs = None
        self.boots += 1
        self.keys["rescue"] += 1  # a rescue system makes new ones each time
        number = self.boots

        def come_up() -> None:
            if number == self.boots and system:
                self.runs, self.booted_at, self.is_booted_by_others = system, self.now, False

        self.call_in(seconds, come_up)

    def request(self, baseline: int) -> Job:
        queue, work, rest, boots_in, outcome = next(self._fates, (1.0, 1.0, 0.0, 5.0, "goal"))
        job = Job(len(self.jobs) + 1, baseline, self.now, self.runs, queue, work, rest, outcome)
        self.jobs.append(job)
        system = {"goal": self.goal, "wrong": OTHER[self.goal]}.get(outcome)
        if outcome != "fails":
            self.call_in(queue + work, lambda: self.boot(system, boots_in))
        return job

    def answer(self) -> str:
        return next(self._answers, "answered")

    def soft_reboot(self) -> None:
        self.asked_at = self.asked_at or self.now
        number = self.boots
        if self.plan.soft_works:
            self.call_in(2.0, lambda: self.boot(self.goal, 5.0) if self.boots == number else None)


class Api(Provider):
    """Its provider: answers are lost, lists are late."""

    facts = Facts("model", "separate", True, True, ("key",), True, (), (), (), (), LAG)

    def __init__(self, world: World):
        self.world = self.clock = world

    def shown(self) -> list[Job]:
        return [job for job in self.world.jobs if self.world.now >= job.made_at + self.world.plan.late]

    def reboot_baseline(self, name, known=()):
        self.world.baselines += 1
        return {"number": self.world.baselines, "ids": [*known, *(str(job.number) for job in self.shown())]}

    def reboot_hard(self, name, baseline, may_be_repeat=False):
        world = self.world
        world.asked_at = world.asked_at or world.now

        def task(job):
            return Task(str(job.number), job.state(world.now), "reboot")

        def ask():
            answer = world.answer()
            if answer == "killed, not done":
                raise Killed
            if answer in ("lost, not done", "not sent"):
                raise Transient(answer, sent=answer != "not sent")
            job = world.request(baseline["number"])
            if answer == "killed, done":
                raise Killed
            if answer == "lost, done":
                world.pause(10.0)
                raise Transient(answer)
            return task(job)

        def asked():
            return next((task(job) for job in self.shown() if str(job.number) not in baseline["ids"]), None)

        world.is_in_doubt = True
        if world.is_booted_by_others:
            # Nobody could tell what comes up by that from what comes of this.
            world.boots += 1
        told = at_most_once(self, LAG, ask, asked, [may_be_repeat], lambda last: ProviderError("The API fails."))
        world.is_in_doubt = False
        return told

    def read_task(self, name, task_id):
        job = self.world.jobs[int(task_id) - 1]
        return Task(task_id, job.state(self.world.now) if job in self.shown() else "unknown", "reboot")

    def unfinished_tasks(self, name):
        tasks = [self.read_task(name, str(job.number)) for job in self.shown()]
        return [task for task in tasks if task.state in OPEN]

    def read_server(self, name):
        raise NotImplementedError

    def list_servers(self):
        raise NotImplementedError

    def boot_options(self, name, kind=None):
        raise NotImplementedError


class Connection:
    """A login."""

    def __init__(self, world: World):
        self.world = world

    def soft_reboot(self, user: str) -> None:
        self.world.soft_reboot()

    def close(self) -> None:
        pass


class Port:
    """The server's SSH port, as an SshObserver sees it."""

    address, port, heard, is_refused = "192.0.2.1", 22, "nothing", False

    def __init__(self, world: World):
        self.world = world
        knows = HostKey("installed", b"0")
        self.known = KnownHostKeys(familiar=(knows,) if world.plan.knows_key else ())

    def note_silence(self) -> None:
        pass

    def poll(self, seconds: float) -> Observation | None:
        world = self.world
        if world.runs is None or world.now < world.silent_until:
            world.pause(seconds)
            return None
        key = HostKey(world.runs, b"%d" % world.keys[world.runs])
        lets_in = world.runs == "rescue" or world.plan.lets_in
        root = {"rescue": "overlay", "installed": "ext4"}[world.runs]
        evidence = Evidence(boot_id=str(world.boots), uptime=world.now - world.booted_at, root_fstype=root) if lets_in else None
        system, reason = self.known.classify(key, evidence, own_key=world.runs == "rescue")
        client = t.cast(t.Any, Connection(world)) if lets_in else None
        return Observation(system, reason, "SSH-2.0", key, evidence, client, "root", None if lets_in else "SSH refused root by key.")


class Memory(SessionStore):
    """A session's folder that is on no disk."""

    def __init__(self) -> None:
        super().__init__("/nonexistent", "model", "web1")
        self.text = ""

    def save(self, record: Record) -> None:
        self.text = record.to_json()

    def load(self) -> Record | None:
        return Record.from_json(self.text)


@dataclasses.dataclass
class Plan:
    """What is going to happen. See the classes above; late: how long the API's lists are late."""

    jobs: list[tuple[float, float, float, float, str]]
    answers: list[str]
    events: list[tuple[float, str, float]]
    late: float
    lets_in: bool
    knows_key: bool
    soft_works: bool
    method: str
    force: bool
    between: list[float]

    def is_kind(self, goal: str) -> bool:
        """Whether nothing goes wrong at all, and what comes of it can be told."""
        return not self.events and {*self.answers} <= {"answered", "lost, done"} and {job[-1] for job in self.jobs} <= {"goal"} and \
            self.method == "hard" and (goal == "rescue" or self.lets_in or self.knows_key)


SECONDS = st.floats(0.0, 60.0)
# Most of what matters comes soon after a request.
MOMENTS = st.one_of(st.floats(0.0, 70.0), st.floats(0.0, 900.0))
PLANS = st.builds(
    Plan,
    jobs=st.lists(st.tuples(st.sampled_from([0.0, 5.0, 30.0, 200.0]), st.sampled_from([0.0, 2.0, 20.0]), st.sampled_from([0.0, 20.0]),
                            st.sampled_from([1.0, 10.0, 50.0]), st.sampled_from(["goal", "wrong", "nothing", "fails"])), max_size=4),
    answers=st.lists(st.sampled_from(["answered", "lost, done", "lost, not done", "not sent", "killed, done", "killed, not done"]),
                     max_size=5),
    events=st.lists(st.tuples(MOMENTS, st.sampled_from(["clock", "silence", "key", "killed", "suspended", "power cut", "reboot by hand"]),
                              SECONDS),
                    max_size=6),
    late=st.sampled_from([0.0, 4.0, LAG - 0.1]), lets_in=st.booleans(), knows_key=st.booleans(), soft_works=st.booleans(),
    method=st.sampled_from(["auto", "hard", "soft"]), force=st.booleans(),
    between=st.lists(st.floats(0.0, 400.0), min_size=MOST_CALLS, max_size=MOST_CALLS))


def step_of(ctx, record, observation, goal):
    """What is decided before anything is rebooted, of a server whose boot option is set."""
    fresh = _observe.is_fresh(ctx, record, observation)
    now = _decide.Now(
        record.phase, observation.system, observation.client is not None, goal == "rescue", fresh=fresh,
        requested=record.reboot is not None, force=ctx.options.force, queued=bool(fresh) and is_to_come(ctx, record))
    return _decide.entering(now) if goal == "rescue" else _decide.leaving(now)


def one_call(world, port, folder, goal):
    """A controller's life. Whether it ended well."""
    options = Options("web1", boot_timeout=BOOT_SECONDS, soft_timeout=SOFT_SECONDS, wait_timeout=WAIT_SECONDS,
                      reboot_method=world.plan.method, force=world.plan.force)
    ctx = Context(Api(world), options, folder, str, clock=world)
    record = folder.load()
    began, baselines, world.is_watched = world.monotonic(), world.baselines, True
    try:
        observation = port.poll(1.0) or Observation("unknown", "nothing answers by SSH", "nothing")
        step = step_of(ctx, record, observation, goal)
        if step in (_decide.BOOT, _decide.LEAVE):
            if step == _decide.LEAVE and record.phase != LEAVING:
                ctx.save(record, LEAVING)
            observation = Rebooting(ctx, record, goal, port).run(observation)
        return step in (_decide.BOOT, _decide.LEAVE, _decide.STAY, _decide.RESTORE)
    except Killed:
        return False
    except LifeboatError as exc:
        assert exc.todo or isinstance(exc, ProviderError), exc
        return False
    finally:
        world.is_watched = False
        assert world.monotonic() - began < MOST_SECONDS, "it does not end in time"
        assert world.baselines - baselines <= HARD_REBOOTS, "it power cycles on and on"


def first_record(goal):
    """That of a session which has all but rebooted."""
    record = Record("model", "web1", phase=ARMING if goal == "rescue" else RESCUE, address="192.0.2.1")
    if goal == "installed":
        record.rescue_host_key = HostKey("rescue", b"0").line
    return record


@settings(max_examples=1500, deadline=None)
@given(goal=st.sampled_from(["rescue", "installed"]), plan=PLANS)
def test_whatever_happens(goal, plan):
    world = World(goal, plan)
    port, folder = Port(world), Memory()
    folder.save(first_record(goal))
    for number, pause in enumerate(plan.between):
        assert number == 0 or not plan.is_kind(goal), "nothing went wrong, and it does not end well"
        if one_call(world, port, folder, goal):
            assert world.runs == goal, "success, and another system runs"
            assert world.asked_at is not None and world.booted_at >= world.asked_at, "success, and nothing was booted"
            assert not world.has_reset_to_come, "success, and a reset is still to come"
            break
        with contextlib.suppress(Killed):  # nobody is there to be killed
            world.pause(pause)
    assert len(world.jobs) == 1 or not plan.is_kind(goal), "more was rebooted than once"
    baselines = [job.baseline for job in world.jobs]
    assert len(baselines) == len(set(baselines)), "two resets for one request"
    if goal == "installed" and not plan.force:
        assert all(job.runs != "installed" for job in world.jobs), "the installed system is reset while leaving"


def test_the_model_can_tell():
    """A world without mishaps: one reset, and it is proved."""
    for goal in ("rescue", "installed"):
        world, folder = World(goal, Plan([], [], [], 0.0, True, True, False, "hard", False, [])), Memory()
        folder.save(first_record(goal))
        assert one_call(world, Port(world), folder, goal)
        assert world.runs == goal and [job.runs for job in world.jobs] == [OTHER[goal]]
