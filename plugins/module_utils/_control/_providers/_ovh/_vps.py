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

from ..._errors import Busy, NotAllowed, NotFound, TimedOut
from ..._wait import Backoff
from ._base import HARDDISK, RESCUE, BootOption, Credentials, Facts, Server, Task
from ._ovh import HISTORY, Ovh, Refused

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
_TASK_STATES = {"todo": "running", "doing": "running", "paused": "running", "waitingAck": "running", "done": "done",
                "blocked": "failed", "cancelled": "failed", "error": "failed"}
_RUNNING = ("todo", "doing", "paused", "waitingAck")
# A "task" that stands for the mode itself, where the API shows none or shows it no more.
_MODE_TASK = "netbootMode="


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
    )
    root = "/vps"
    kind = "VPS"
    tasks = "tasks"

    # How long another task is waited for before a reboot. OVH's panel says that one into rescue takes three minutes.
    busy_patience = 300.0
    # How long the task that a PUT has made is looked for.
    task_patience = 10.0

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

    def _mode(self, name: str) -> str:
        return t.cast(str, self._vps(name)["netbootMode"])

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

    def rescue_rank(self, option: BootOption) -> int | None:
        return 0 if option.kind == RESCUE else None

    def rescue_settings(self, server: Server, option: BootOption, public_key: str | None,
                        options: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
        return self.boot_settings(option)

    def boot_settings(self, option: BootOption) -> dict[str, t.Any]:
        return {"netbootMode": option.id}

    def restorable_settings(self, server: Server) -> dict[str, t.Any]:
        # Leaving means the disk, also where somebody left it in rescue.
        return {**server.settings, "netbootMode": "local"}

    def same_setting(self, setting: str, one: t.Any, other: t.Any) -> bool:
        return bool(one == other)

    def write_settings(self, name: str, changes: t.Mapping[str, t.Any]) -> None:
        # Whoever changes netbootMode by this reboots the VPS; switch() does so knowing of it.
        self._call("put", self._path(name), **changes)

    # -- rebooting

    def reboot_mark(self, name: str) -> t.Any:
        """{"tasks": the ids of the tasks that the API still knows, "mode": the netboot mode that it shows}."""
        return {"tasks": self._call("get", self._path(name, "tasks")), "mode": self._mode(name)}

    def switch(self, name: str, option: BootOption, mark: t.Any, asked_before: bool = False, password: str | None = None) -> Task:
        return self._reboot(name, option.id, mark, asked_before)

    def reboot_hard(self, name: str, mark: t.Any, asked_before: bool = False) -> Task:
        return self._reboot(name, None, mark, asked_before)

    def _reboot(self, name: str, mode: str | None, mark: t.Any, asked_before: bool) -> Task:
        """Reboot into a mode, or (None) into the one that is set, at most once since the mark was taken."""
        what = f"to reboot {name}" + (f" into the mode {mode}" if mode else "")
        unsure = [asked_before]
        was, why, waited, written = mark["mode"], "", False, False

        def correct(now: str) -> None:
            nonlocal was
            if now != was and (waited or not unsure[0]) and self._new_task(name, mark, "setNetboot") is None:
                # A task from before the mark changed it. Its reboot was not enough, or nobody would ask for another.
                was = now

        def switched(now: str) -> Task | None:
            # It was another one before, so it was asked for since the mark, and its reboot came with it.
            if mode is not None and was != mode == now and not self._passive[name]:
                return self._mode_task(mode, now)
            return None

        def asked() -> Task | None:
            now = self._mode(name)
            correct(now)
            if mode is None or self._passive[name]:
                types: tuple[str, ...] = ("rebootVm",)
            else:
                # Where the mode was right at the mark and an older task changed it since, a PUT was due nevertheless.
                types = ("setNetboot",) if was != mode else ("rebootVm", "setNetboot")
            return self._new_task(name, mark, *types) or switched(now)

        def ask(now: str) -> Task:
            if mode is None or mode == now:
                return self._task(self._try("post", self._path(name, "reboot")))
            self._try("put", self._path(name), netbootMode=mode)
            return self._mode_task(mode, now)

        def look() -> Task | None:
            nonlocal why, waited, written
            done = asked() if unsure[0] else None
            if done is not None:
                return done
            running = self._listed(name, _RUNNING)
            if running:
                why = f"{', '.join(task.text for task in running)}."
                waited = waited or any(int(task.id) in mark["tasks"] for task in running)
                return None
            now = self._mode(name)
            correct(now)
            waited = False
            done = switched(now)
            if done is not None:
                return done
            if self._passive[name] and mode is not None and mode != now:
                if not written:
                    self.write_settings(name, {"netbootMode": mode})
                    written = True
                why = f"it has not taken the mode {mode}."
                return None
            try:
                return self._once(lambda: ask(now), asked, unsure, what)
            except Refused as exc:
                # It says so while another task runs, of which the list may not know yet or not any more.
                if not exc.conflict and not self._listed(name, _RUNNING):
                    raise
                why = exc.what
                return None

        def late() -> Exception:
            return Busy(f"OVH could not be asked {what} for {self.busy_patience:g} s: {why}",
                        todo="Wait until its tasks have ended, or cancel them in OVH's control panel. Then run this again.")

        task: Task = self.clock.wait(self.busy_patience, Backoff(1.0, 8.0, 2.0)).until(look, late)
        return self._task_of_put(name, mark, task) if task.id.startswith(_MODE_TASK) and task.state == "running" else task

    def _task_of_put(self, name: str, mark: t.Any, stand_in: Task) -> Task:
        """The task that a PUT has made. Its answer tells none, and a short task may be purged before it is looked for."""
        def look() -> Task | None:
            task = self._new_task(name, mark, "setNetboot") or self.read_task(name, stand_in.id)
            return None if task.id == stand_in.id and task.state != "done" else task

        try:
            return t.cast(Task, self.clock.wait(self.task_patience, Backoff(0.5, 2.0, 2.0)).until(look, lambda: TimedOut("No task.")))
        except TimedOut:
            return stand_in

    def _new_task(self, name: str, mark: t.Any, *types: str) -> Task | None:
        """The newest task since the mark that is of the first of these types that has one."""
        for task_type in types:
            new = set(self._call("get", self._path(name, "tasks"), type=task_type)) - set(mark["tasks"])
            if new:
                return self.read_task(name, str(max(new)))
        return None

    # -- tasks

    def _task(self, data: t.Mapping[str, t.Any]) -> Task:
        state = data.get("state", "")
        progress = "" if data.get("progress") is None else f" {data['progress']} %"
        return Task(id=str(data["id"]), state=_TASK_STATES.get(state, "unknown"), text=f"{data.get('type')} {state}{progress}")

    @staticmethod
    def _mode_task(mode: str, now: str) -> Task:
        return Task(id=f"{_MODE_TASK}{mode}", state="done" if mode == now else "running", text=f"netbootMode is {now}")

    def read_task(self, name: str, task_id: str) -> Task:
        if not task_id.startswith(_MODE_TASK):
            return super().read_task(name, task_id)
        try:
            now = self._try("get", self._path(name))["netbootMode"]
        except (NotFound, self._ovh.exceptions.APIError) as exc:
            return Task(id=task_id, state="unknown", text=f"not readable: {self._text(exc)}")
        return self._mode_task(task_id[len(_MODE_TASK):], now)

    def unfinished_tasks(self, name: str) -> list[Task]:
        return self._listed(name, (*_RUNNING, "blocked"))

    def _listed(self, name: str, states: t.Iterable[str]) -> list[Task]:
        """The tasks in these states."""
        found: dict[str, Task] = {}
        for state in states:
            for task_id in self._call("get", self._path(name, "tasks"), state=state):
                task = self.read_task(name, str(task_id))
                # It may have ended since it was listed. One that cannot be read is taken for what it was listed as.
                if task.state in (_TASK_STATES[state], "unknown"):
                    found[task.id] = task
        return list(found.values())

    # -- rights, the log-in, the console

    def check_rights(self, name: str) -> None:
        self._check_rules((("PUT", self._path(name)), ("POST", self._path(name, "reboot")), ("GET", self._path(name, "tasks")),
                           ("GET", self._path(name, "ips")), ("GET", HISTORY), ("GET", f"{HISTORY}/1")))

    def credentials_mark(self, name: str) -> t.Any:
        """{"mails": the newest mail's id or 0}. NotAllowed where there is no way to the password."""
        return {"mails": max(self._call("get", HISTORY) or [0])}

    def read_credentials(self, name: str, mark: t.Any) -> Credentials | None:
        return self._mailed_credentials(name, mark)

    def login_words(self, name: str, option: BootOption) -> str | None:
        return (f"The password of its rescue system comes by mail to the OVH account: one was waited for that names {name} and is "
                "newer than all that were there before the reboot. Look into the mails of the account in OVH's control panel.")

    def console_url(self, name: str) -> str | None:
        try:
            return t.cast(str, self._call("post", self._path(name, "getConsoleUrl")))
        except NotAllowed:
            # Nothing else needs that right.
            return None
