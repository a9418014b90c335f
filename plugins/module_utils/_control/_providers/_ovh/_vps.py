# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""OVH's VPS, by OVH's own client. Private to this collection.

Shapes, enums and texts: the API's schema (https://eu.api.ovh.com/1.0/vps.json). That setting `netbootMode` reboots, and on which
model it does not, is what OVH's control panel goes by.
"""

from __future__ import annotations

import ipaddress
import typing as t

from ...._errors import Busy, NotAllowed, ProviderError, TimedOut
from ...._wait import Backoff
from .._base import HARDDISK, OPEN, RESCUE, BootOption, Credentials, Facts, Refused, Server, Task
from ._client import HISTORY, LIST_SECONDS, Ovh

RIGHTS = (
    "GET /vps",
    "GET /vps/*",
    "PUT /vps/*",
    "POST /vps/*/reboot",
    # The rescue system's password comes by mail and by nothing else.
    "GET /me/notification/email/history",
    "GET /me/notification/email/history/*",
)
_OPTIONS = (
    BootOption("local", HARDDISK, "local", "The VPS's own disk"),
    BootOption("rescue", RESCUE, "rescue", "OVH's rescue system for VPS"),
)
_TASK_STATES = {"todo": "queued", "doing": "running", "paused": "running", "waitingAck": "queued", "done": "done",
                "blocked": "failed", "cancelled": "failed", "error": "failed"}
_RUNNING = ("todo", "doing", "paused", "waitingAck")
# A "task" that stands for the mode itself, where the API shows none or shows it no more.
_MODE_TASK = "netbootMode="
# So many PUTs that are answered with success and not applied are enough.
MOST_PUTS = 3


class OvhVps(Ovh):
    """OVH's VPS. Setting what boots reboots at once, and it lasts until it is set again.

    The new mode shows only when the task of that has ended, so a mode that shows says nothing while a task runs.
    """

    facts = Facts(
        name="ovh_vps",
        reboot="implied",
        boot_option_lasts=True,
        hard_reboot=True,
        credentials=("mail",),
        tells_armed=True,
        settings=("netbootMode",),
        rights=RIGHTS,
        boots_by=(),
        lets_in_by=(),
        lag=LIST_SECONDS,
    )
    root = "/vps"
    kind = "VPS"
    tasks = "tasks"

    # How long another task is waited for before a reboot. OVH's panel says that one into rescue takes three minutes.
    busy_patience = 300.0

    def __init__(self, params: t.Mapping[str, t.Any]):
        super().__init__(params)
        self._addresses: dict[str, str] = {}
        self._passive: dict[str, bool] = {}

    # -- operations

    def read_server(self, name: str) -> Server:
        data = self._vps(name)
        return Server(name=name, address=self._address(name), boot=data["netbootMode"],
                      settings={setting: data.get(setting) for setting in self.facts.settings})

    def _vps(self, name: str) -> t.Any:
        data = self._read(name)
        # The one model whose reboot is a call of its own.
        self._passive[name] = (data.get("offerType"), (data.get("model") or {}).get("version")) == ("cloud", "2014v1")
        return data

    def mode(self, name: str) -> str:
        """The mode that the API shows."""
        return t.cast(str, self._vps(name)["netbootMode"])

    def is_passive(self, name: str) -> bool:
        """Whether setting the mode reboots nothing. The VPS was read before."""
        return self._passive[name]

    def ask(self, name: str, mode: str | None, now: str) -> Task:
        """Ask for a reboot, not repeated. now: the mode that is set."""
        if mode is None or mode == now:
            return self._task(self._try("post", self._path(name, "reboot")))
        self._try("put", self._path(name), netbootMode=mode)
        return self.mode_task(mode, now)

    def _address(self, name: str) -> str:
        """The primary address, IPv4 where there is one. Asked for once."""
        if name not in self._addresses:
            found = sorted(self._call("get", self._path(name, "ips")), key=lambda ip: ipaddress.ip_address(ip).version)
            first = [ip for ip in found if ":" not in ip] or found
            if len(first) > 1:
                first = [ip for ip in first if self._call("get", self._path(name, "ips", ip)).get("type") == "primary"] or first
            # Its name is one in the DNS, too.
            self._addresses[name] = first[0] if first else name
        return self._addresses[name]

    def boot_options(self, name: str, kind: str | None = None) -> list[BootOption]:
        return [option for option in _OPTIONS if kind in (None, option.kind)]

    def boot_settings(self, option: BootOption) -> dict[str, t.Any]:
        return {"netbootMode": option.id}

    def restorable_settings(self, server: Server) -> dict[str, t.Any]:
        # Leaving means the disk, also where somebody left it in rescue.
        return {**server.settings, "netbootMode": "local"}

    def write_settings(self, name: str, changes: t.Mapping[str, t.Any]) -> None:
        # Whoever changes netbootMode by this reboots the VPS; boot_into() does so knowing of it.
        self._call("put", self._path(name), **changes)

    # -- rebooting

    def reboot_baseline(self, name: str, known: t.Sequence[str] = ()) -> t.Any:
        """{"tasks": the ids of the tasks that the API still knows, or need not show yet, "mode": the netboot mode that it shows}."""
        listed = [*self._call("get", self._path(name, "tasks")), *filter(str.isdigit, known)]
        return {"tasks": sorted({int(task_id) for task_id in listed}), "mode": self.mode(name)}

    def boot_into(self, name: str, option: BootOption, baseline: t.Any, may_be_repeat: bool = False, password: str | None = None) -> Task:
        return self._reboot(name, option.id, baseline, may_be_repeat)

    def reboot_hard(self, name: str, baseline: t.Any, may_be_repeat: bool = False) -> Task:
        return self._reboot(name, None, baseline, may_be_repeat)

    def _reboot(self, name: str, mode: str | None, baseline: t.Any, may_be_repeat: bool) -> Task:
        """Reboot into a mode, or (None) into the one that is set, at most once since the baseline was taken."""
        request = _Request(self, name, mode, baseline, may_be_repeat)
        for _turn in range(MOST_PUTS):
            task: Task = self.clock.wait(self.busy_patience, Backoff(1.0, 8.0, 2.0)).until(request.poll, request.on_timeout)
            if task.id.startswith(_MODE_TASK) and task.state == "running":
                stand_in, task = task, self._task_of_put(name, baseline, task)
                if task is stand_in:
                    # It was not applied, so it is asked for again, unless it shows after all.
                    request.unsure[0], request.has_asked = False, True
                    continue
            return task
        raise ProviderError(f"OVH accepted the netboot mode {mode} for {name} {MOST_PUTS} times, and did not set it.",
                            state="Nothing was rebooted.", todo="Run this again; if that does not help, open a ticket at OVH.")

    def _task_of_put(self, name: str, baseline: t.Any, stand_in: Task) -> Task:
        """The task that a PUT has made. Its answer tells none, and a short task may be purged before it is looked for."""
        # If by then neither that nor the mode is there, the PUT was not applied.
        def poll() -> Task | None:
            task = self.new_task(name, baseline, "setNetboot") or self.read_task(name, stand_in.id)
            return None if task.id == stand_in.id and task.state != "done" else task

        try:
            return t.cast(Task, self.clock.wait(self.facts.lag, Backoff(0.5, 2.0, 2.0)).until(poll, lambda: TimedOut("No task.")))
        except TimedOut:
            return stand_in

    def new_task(self, name: str, baseline: t.Any, *types: str) -> Task | None:
        """The newest task since the baseline that is of the first of these types that has one."""
        for task_type in types:
            new = {int(task_id) for task_id in self._call("get", self._path(name, "tasks"), type=task_type)} - {
                int(task_id) for task_id in baseline["tasks"]}
            if new:
                return self.read_task(name, str(max(new)))
        return None

    # -- tasks

    def _task(self, data: t.Mapping[str, t.Any]) -> Task:
        state = data.get("state", "")
        progress = "" if data.get("progress") is None else f" {data['progress']} %"
        return Task(id=str(data["id"]), state=_TASK_STATES.get(state, "unknown"), text=f"{data.get('type')} {state}{progress}")

    @staticmethod
    def mode_task(mode: str, now: str) -> Task:
        """What stands for the task of a PUT."""
        return Task(id=f"{_MODE_TASK}{mode}", state="done" if mode == now else "running", text=f"netbootMode is {now}")

    def read_task(self, name: str, task_id: str) -> Task:
        if not task_id.startswith(_MODE_TASK):
            return super().read_task(name, task_id)
        try:
            now = self._try("get", self._path(name))["netbootMode"]
        except ProviderError as exc:
            return Task(id=task_id, state="unknown", text=f"not readable: {exc.what}")
        return self.mode_task(task_id[len(_MODE_TASK):], now)

    def unfinished_tasks(self, name: str) -> list[Task]:
        return self.listed(name, (*_RUNNING, "blocked"))

    def listed(self, name: str, states: t.Iterable[str]) -> list[Task]:
        """The tasks in these states."""
        found: dict[str, Task] = {}
        for state in states:
            for task_id in self._call("get", self._path(name, "tasks"), state=state):
                task = self.read_task(name, str(task_id))
                # It may have ended since it was listed. One that cannot be read is taken for what it was listed as.
                wanted = OPEN if _TASK_STATES[state] in OPEN else (_TASK_STATES[state],)
                if task.state in (*wanted, "unknown"):
                    found[task.id] = task
        return list(found.values())

    # -- rights, the log-in, the console

    def check_rights(self, name: str) -> None:
        self._check_rules((("PUT", self._path(name)), ("POST", self._path(name, "reboot")), ("GET", self._path(name, "tasks")),
                           ("GET", self._path(name, "ips")), ("GET", HISTORY), ("GET", f"{HISTORY}/1")))

    def credentials_baseline(self, name: str) -> t.Any:
        """{"mails": the newest mail's id or 0}. NotAllowed where there is no way to the password."""
        return self._mail_baseline(self._call("get", HISTORY))

    def read_credentials(self, name: str, baseline: t.Any) -> Credentials | None:
        return self._mailed_credentials(name, baseline)

    def login_words(self, name: str, option: BootOption) -> str | None:
        return self._password_words(
            f"The password of its rescue system comes by mail to the OVH account: one was waited for that names {name} and is "
            "newer than all that were there before the reboot. Look into the mails of the account in OVH's control panel.")

    def console_url(self, name: str) -> str | None:
        try:
            return t.cast(str, self._call("post", self._path(name, "getConsoleUrl")))
        except NotAllowed:
            # Nothing else needs that right.
            return None


class _Request:
    """One reboot of a VPS, asked for once the tasks before it have ended.

    mode: into which, or None for the one that is set. unsure: whether it may have been asked for already. was: the mode from
    before, as far as a reboot has come with it.
    """

    def __init__(self, provider: OvhVps, name: str, mode: str | None, baseline: t.Any, may_be_repeat: bool):
        self.provider = provider
        self.name = name
        self.mode = mode
        self.baseline = baseline
        self.unsure = [may_be_repeat]
        self.was = baseline["mode"]
        self.why = ""
        # Whether a task from before the baseline was waited for; whether a mode that reboots nothing by itself was written; whether a mode
        # that does was, and nothing came of it.
        self.waited = self.written = self.has_asked = False
        self.what = f"to reboot {name}" + (f" into the mode {mode}" if mode else "")

    @property
    def passive(self) -> bool:
        return self.provider.is_passive(self.name)

    def poll(self) -> Task | None:
        """The task, if it can be asked for now, or was."""
        done = self._asked() if self.unsure[0] or self.has_asked else None
        if done is not None:
            return done
        running = self.provider.listed(self.name, _RUNNING)
        if running:
            self.why = f"{', '.join(task.text for task in running)}."
            self.waited = self.waited or any(int(task.id) in self.baseline["tasks"] for task in running)
            return None
        now = self.provider.mode(self.name)
        self._correct(now)
        self.waited = False
        return self._switched(now) or self._ask_now(now)

    def on_timeout(self) -> Busy:
        """The error of tasks that do not end."""
        return Busy(f"OVH could not be asked {self.what} for {self.provider.busy_patience:g} s: {self.why}",
                    todo="Wait until its tasks have ended, or cancel them in OVH's control panel. Then run this again.")

    def _correct(self, now: str) -> None:
        if now != self.was and (self.waited or not (self.unsure[0] or self.has_asked)) and self._new("setNetboot") is None:
            # A task from before the baseline changed it. Its reboot was not enough, or nobody would ask for another.
            self.was = now

    def _switched(self, now: str) -> Task | None:
        # It was another one before, so it was asked for since the baseline, and its reboot came with it.
        if self.mode is not None and self.was != self.mode == now and not self.passive:
            return self.provider.mode_task(self.mode, now)
        return None

    def _new(self, *types: str) -> Task | None:
        return self.provider.new_task(self.name, self.baseline, *types)

    def _asked(self) -> Task | None:
        now = self.provider.mode(self.name)
        self._correct(now)
        if self.mode is None or self.passive:
            types: tuple[str, ...] = ("rebootVm",)
        else:
            # Where the mode was right at the baseline and an older task changed it since, a PUT was due nevertheless.
            types = ("setNetboot",) if self.was != self.mode else ("rebootVm", "setNetboot")
        return self._new(*types) or self._switched(now)

    def _ask_now(self, now: str) -> Task | None:
        if self.passive and self.mode is not None and self.mode != now:
            if not self.written:
                self.provider.write_settings(self.name, {"netbootMode": self.mode})
                self.written = True
            self.why = f"it has not taken the mode {self.mode}."
            return None
        try:
            return self.provider.once(lambda: self.provider.ask(self.name, self.mode, now), self._asked, self.unsure, self.what)
        except Busy as exc:
            self.why = exc.what
        except Refused as exc:
            # It says so while another task runs, of which the list may not know yet or not any more.
            if not exc.conflict and not self.provider.listed(self.name, _RUNNING):
                raise
            self.why = exc.what
        return None
