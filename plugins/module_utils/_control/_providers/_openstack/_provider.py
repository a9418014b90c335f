# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""OpenStack's Nova, by openstacksdk. Private to this collection.

Shapes: https://docs.openstack.org/api-ref/compute/; what Nova answers in which state was tried on Nova 34.
"""

from __future__ import annotations

import contextlib
import ipaddress
import typing as t

from ...._errors import LifeboatError, NotAllowed, NotFound, ProviderError
from .._base import HARDDISK, RESCUE, BootOption, Facts, Origin, Provider, Server, Task
from .._calls import Transient, at_most_once, is_loopback
from . import _refusals
from ._client import Client, Conflict, Json, state_of, task_of
from ._images import Images

# Nova shows nowhere which image a server was rescued with, so that is noted in the server's metadata.
NOTE = "lifeboat_rescue_image"
DISK = BootOption("harddisk", HARDDISK, "harddisk", "the server's own disk or volume")
UNKNOWN = BootOption("rescue", RESCUE, "unknown", "Nova does not tell which image it rescued the server with.")
# Where Nova takes changes of the metadata.
_NOTABLE = ("active", "paused", "suspended", "stopped")
_CONSOLES = (("vnc", "novnc"), ("spice", "spice-html5"), ("serial", "serial"), ("mks", "webmks"), ("rdp", "rdp-html5"))
# For so long the state that Nova shows may be the one from before a request: 2 to 3 s have been seen.
STATE_SECONDS = 10.0


class OpenStack(Provider):
    """Servers of OpenStack. Rescue and its end reboot at once, and Nova reboots nothing that is in rescue."""

    facts = Facts(
        name="openstack",
        reboot="one_call",
        boot_option_lasts=True,
        hard_reboot=False,
        credentials=("injected", "console"),
        tells_armed=True,
        settings=("status", NOTE),
        rights=("role member",),
        boots_by=(),
        lets_in_by=(),
        lag=STATE_SECONDS,
    )

    def __init__(self, params: t.Mapping[str, t.Any]):
        """params: the options `openstack_*`; what is absent comes from clouds.yaml and OS_*, as in openstacksdk."""
        self._client = Client(self, params)
        self._images = Images(self._client)
        # When this process asked for something that changes a server's state, or first looked at what an earlier one asked for.
        self._asked_at: dict[str, float] = {}

    # -- servers

    def is_local(self) -> bool:
        return is_loopback(self._client.auth_url)

    def list_servers(self) -> list[str]:
        """Names; where two servers have the same, their ids."""
        return sorted(self._client.named(self._client.list("/servers")))

    def read_servers(self) -> dict[str, Server | None]:
        servers: dict[str, Server | None] = {}
        for name, data in sorted(self._client.named(self._client.list("/servers/detail")).items()):
            try:
                servers[name] = self._server(name, data)
            except ProviderError:
                # It has no address, which is its own failure and not that of all of them.
                servers[name] = None
        return servers

    def read_server(self, name: str) -> Server:
        return self._server(name, self._client.show(name))

    def _server(self, name: str, data: Json) -> Server:
        return Server(name=name, address=self._address(name, data), boot=self._boot(data),
                      settings={"status": data["status"], NOTE: (data.get("metadata") or {}).get(NOTE)})

    @staticmethod
    def _boot(data: Json) -> str:
        state, task = state_of(data), task_of(data)
        if task == "rescuing" or (state == "rescued" and task != "unrescuing"):
            return (data.get("metadata") or {}).get(NOTE) or UNKNOWN.id
        return DISK.id

    @staticmethod
    def _address(name: str, data: Json) -> str:
        """The floating IPv4, else a public one, else any IPv4, else any."""
        found = [entry for entries in (data.get("addresses") or {}).values() for entry in entries]

        def rank(entry: Json) -> tuple[bool, bool, bool]:
            public = ipaddress.ip_address(entry["addr"]).is_global
            return entry["version"] != 4, entry.get("OS-EXT-IPS:type") != "floating", not public

        if not found:
            raise ProviderError(f"{name} has no address in OpenStack.", todo="Give one in the option address.")
        return str(min(found, key=rank)["addr"])

    # -- boot options

    def boot_options(self, name: str, kind: str | None = None) -> list[BootOption]:
        options = [DISK] if kind in (None, HARDDISK) else []
        return options + (self._images.options() if kind in (None, RESCUE) else [])

    def boot_option(self, name: str, option_id: str) -> BootOption:
        known = {option.id: option for option in (DISK, UNKNOWN)}
        return known.get(option_id) or self._images.option(option_id)

    def choose(self, name: str, wanted: str) -> BootOption:
        return DISK if wanted == "harddisk" else self._images.choose(name, wanted)

    # -- settings

    def restorable_settings(self, server: Server) -> dict[str, t.Any]:
        return {"status": "SHUTOFF" if server.settings["status"] == "SHUTOFF" else "ACTIVE", NOTE: None}

    def same_setting(self, setting: str, one: t.Any, other: t.Any) -> bool:
        if setting == "status":
            # Off or not is all that is restored.
            return (one == "SHUTOFF") == (other == "SHUTOFF")
        return (one or None) == (other or None)

    def write_settings(self, name: str, changes: t.Mapping[str, t.Any]) -> None:
        path = f"/servers/{self._client.id_of(name)}"
        if NOTE in changes:
            # First: Nova takes it only while no task is under way.
            if changes[NOTE]:
                self._client.call("post", f"{path}/metadata", {"metadata": {NOTE: changes[NOTE]}})
            else:
                with contextlib.suppress(NotFound):  # it is gone already
                    self._client.call("delete", f"{path}/metadata/{NOTE}")
        if "status" in changes:
            state = state_of(self._client.show(name))
            stop = changes["status"] == "SHUTOFF"
            if stop != (state == "stopped"):
                try:
                    self._client.call("post", f"{path}/action", {"os-stop": None} if stop else {"os-start": None})
                except Conflict:
                    # An answer that was lost, and a second request while the first is under way.
                    if task_of(self._client.show(name)) not in ("powering-off", "powering-on") and \
                            stop != (state_of(self._client.show(name)) == "stopped"):
                        raise

    # -- rebooting

    def _actions(self, name: str) -> list[Json] | None:
        """What Nova was asked to do with a server, the newest first; None where that may not be read."""
        try:
            found = self._client.call("get", f"/servers/{self._client.id_of(name)}/os-instance-actions")["instanceActions"]
        except NotAllowed:
            return None
        return sorted(found, key=lambda action: str(action["start_time"]), reverse=True)

    def reboot_baseline(self, name: str, known: t.Sequence[str] = ()) -> t.Any:
        """The ids of the requests that Nova knows by now; None where that may not be read."""
        actions = self._actions(name)
        return None if actions is None else [action["request_id"] for action in actions]

    def _happened(self, name: str, baseline: t.Any, actions: t.Sequence[str]) -> str | None:
        """The first of these actions that was begun since the baseline was taken, or None."""
        if baseline is None:
            return None
        known = self._actions(name) or []
        new = [str(action["action"]) for action in known if action["request_id"] not in baseline and action["action"] in actions]
        return new[0] if new else None

    def boot_into(self, name: str, option: BootOption, baseline: t.Any, may_be_repeat: bool = False, password: str | None = None) -> Task:
        if option.kind == RESCUE:
            return self._rescue(name, option, baseline, may_be_repeat, password)
        return self._boot_disk(name, baseline, may_be_repeat)

    def _rescue(self, name: str, option: BootOption, baseline: t.Any, may_be_repeat: bool, password: str | None) -> Task:
        data = self._client.show(name)
        if not may_be_repeat and task_of(data) is None:
            self._note(name, data, option)
        rescue: Json = {"rescue_image_ref": option.id} if option.id != UNKNOWN.id else {}
        if password:
            rescue["adminPass"] = password

        def has_begun(server: Json) -> bool:
            return task_of(server) == "rescuing" or state_of(server) == "rescued"

        def explain(server: Json, exc: ProviderError) -> LifeboatError:
            if isinstance(exc, Conflict) and has_begun(server):
                by = self.rescued(name).by
                return ProviderError(f"{name} is in rescue already{', asked for by ' + by if by else ''}, and Nova can neither "
                                     "reboot a server in rescue nor change its rescue system.", state="This changed nothing.",
                                     todo="Use state=absent, and then state=present.")
            if "volume-backed" in exc.what:
                return ProviderError(exc.what, state="This changed nothing.", todo="The host that it runs on, or the image, cannot do "
                                     "that. Choose another image, or attach the volume to another server to repair it.")
            if "rescue image" in exc.what:
                return ProviderError(exc.what, state="This changed nothing.", todo="Choose another image in the option rescue.")
            return self._as_said(server, exc)

        return self._once(name, {"rescue": rescue}, ("rescue",), baseline, may_be_repeat, has_begun, explain)

    def _note(self, name: str, data: Json, option: BootOption) -> None:
        """Note which image is to run. In rescue it is too late for that, and after an error too early."""
        if state_of(data) in _NOTABLE and (data.get("metadata") or {}).get(NOTE) != option.id:
            try:
                self._client.call("post", f"/servers/{self._client.id_of(name)}/metadata", {"metadata": {NOTE: option.id}})
            except NotAllowed:
                # Without it the rescue system's name cannot be shown later. That is all.
                return

    def _boot_disk(self, name: str, baseline: t.Any, may_be_repeat: bool) -> Task:
        state = state_of(self._client.show(name))
        actions = ("unrescue", "reboot", "start")
        if may_be_repeat:
            found = self._happened(name, baseline, actions)
            if found:
                return self.read_task(name, found)
        if state == "rescued":
            return self._once(name, {"unrescue": None}, actions, baseline, may_be_repeat,
                              lambda server: state_of(server) != "rescued" or task_of(server) == "unrescuing", self._as_said)
        if state == "stopped":
            return self._once(name, {"os-start": None}, actions, baseline, may_be_repeat,
                              lambda server: state_of(server) != "stopped" or task_of(server) == "powering-on", self._as_said)
        return self.reboot_hard(name, baseline, may_be_repeat)

    def reboot_hard(self, name: str, baseline: t.Any, may_be_repeat: bool = False) -> Task:
        if state_of(self._client.show(name)) == "rescued":
            raise ProviderError(f"{name} is in rescue, and Nova cannot reboot a server in rescue.", state="Nothing was rebooted.",
                                todo="Use rescue_mode with state=absent, and then with state=present.")
        return self._once(name, {"reboot": {"type": "HARD"}}, ("reboot",), baseline, may_be_repeat,
                          lambda server: (task_of(server) or "").startswith("reboot"), self._as_said)

    @staticmethod
    def _as_said(server: Json, exc: ProviderError) -> LifeboatError:
        """The error for a refusal, with what the server is now."""
        task = task_of(server)
        state = f"This changed nothing. Nova says that it is {server['status']}{f', and at work on it ({task})' if task else ''}."
        if "is locked" in exc.what:
            return NotAllowed(exc.what, state=state, todo=f"Unlock it: openstack server unlock {server['id']}.")
        return ProviderError(exc.what, state=state, todo="Run this again when that has ended." if task else
                             f"Look at it: openstack server show {server['id']}.")

    def _once(self, name: str, body: Json, actions: t.Sequence[str], baseline: t.Any, may_be_repeat: bool,
              has_begun: t.Callable[[Json], bool], explain: t.Callable[[Json, ProviderError], LifeboatError]) -> Task:
        """Ask Nova for an action, at most once since the baseline was taken.

        has_begun: whether a server's state shows that it is done or under way, where the list of actions may not be read or
        is late. explain: the error for a refusal.
        """
        server_id = self._client.id_of(name)
        action = next(iter(body)).replace("os-", "")
        unsure = [may_be_repeat]

        def refused(server: Json, exc: ProviderError) -> LifeboatError:
            error = explain(server, exc)
            if unsure[0]:
                error.state = f"Nova says that it is {server['status']}. Whether the request before this one arrived is not known."
            return error

        def asked() -> Task | None:
            found = self._happened(name, baseline, actions)
            return self.read_task(name, found or action) if found or (baseline is None and has_begun(self._client.show(name))) else None

        def ask() -> Task:
            try:
                self._client.attempt("post", f"/servers/{server_id}/action", body)
            except Conflict as exc:
                server = self._client.show(name)
                if has_begun(server) and (unsure[0] or self._happened(name, baseline, actions)):
                    # The answer to the first time was lost, and it arrived. Or somebody else wished the same since the baseline, and
                    # was first; Nova does it once, and that is gone on with.
                    task = self.read_task(name, action)
                    return task if unsure[0] else task._replace(text=f"{task.text} (somebody else asked for it, a moment earlier)")
                raise refused(server, exc) from None
            except (NotAllowed, NotFound, Transient):
                raise
            except ProviderError as exc:
                raise refused(self._client.show(name), exc) from None
            self._asked_at[name] = self.clock.monotonic()
            return Task(action, "running", f"{action}: asked")

        def on_timeout(last: Transient | None) -> Exception:
            why = last.what if last else "it does not show whether it was."
            return ProviderError(f"OpenStack's API failed for {self.patience:g} s when asked to {action} {name}: {why}",
                                 state="Whether a request arrived is not known.",
                                 todo="Run this again later: it looks for that first, and asks again only where none arrived.")

        return at_most_once(self, self.facts.lag, ask, asked, unsure, on_timeout)

    def read_task(self, name: str, task_id: str) -> Task:
        """How an action stands. The status alone says nothing: it lags behind, and a rescue of a broken server begins at ERROR."""
        try:
            server = t.cast(Json, self._client.attempt("get", f"/servers/{self._client.id_of(name)}")["server"])
        except ProviderError as exc:
            return Task(task_id, "unknown", f"not readable: {exc.what}")
        status, task = server["status"], task_of(server)
        if task is not None:
            return Task(task_id, "running", f"{task_id}: {task}")
        ended = "rescued" if task_id == "rescue" else "active"
        now = self.clock.monotonic()
        if state_of(server) != ended and now < self._asked_at.setdefault(name, now) + self.facts.lag:
            return Task(task_id, "running", f"{task_id}: Nova does not show it yet")
        if status == "ERROR":
            # The reason is written a moment later than the state, so it may not be there yet.
            fault = server.get("fault") or {}
            return Task(task_id, "failed", f"{task_id}: {fault.get('message') or 'Nova says ERROR, and no reason'}")
        if state_of(server) != ended:
            return Task(task_id, "failed", f"{task_id}: it ended, and Nova says {status}")
        return Task(task_id, "done", f"{task_id}: {status}")

    def unfinished_tasks(self, name: str) -> list[Task]:
        task = task_of(self._client.show(name))
        return [Task(task, "running", f"{task}")] if task else []

    # -- what can be told beforehand

    def check_rights(self, name: str) -> None:
        _refusals.check(self._client, name)

    def login_words(self, name: str, option: BootOption) -> str | None:
        return (f"The image {option.name} must let somebody in by SSH: by cloud-init, or with the password of root that Nova puts into "
                "the configuration drive. SystemRescue as shipped does neither, and its firewall is closed. Use login=console, or "
                "another image.")

    def rescued(self, name: str) -> Origin:
        for action in self._actions(name) or []:
            if action["action"] == "rescue":
                return Origin(f"{action['start_time'].split('.')[0]}Z", f"user {action['user_id']}")
        return Origin()

    def console_url(self, name: str) -> str | None:
        path = f"/servers/{self._client.id_of(name)}/remote-consoles"
        for protocol, kind in _CONSOLES:
            try:
                answer = self._client.attempt("post", path, {"remote_console": {"protocol": protocol, "type": kind}})
                return str(answer["remote_console"]["url"])
            except ProviderError:
                # This cloud has not that one.
                continue
        return None
