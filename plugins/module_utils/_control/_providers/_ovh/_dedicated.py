# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""OVH dedicated servers, by OVH's own client. Private to this collection.

Shapes, enums and texts: the API's schema (https://eu.api.ovh.com/1.0/dedicated/server.json).
"""

from __future__ import annotations

import hashlib
import re
import typing as t

from ...._errors import NotAllowed
from ..._ssh._keys import SESSION_KEY_COMMENT
from .._base import HARDDISK, OPEN, OTHER, POWEROFF, RESCUE, BootOption, Credentials, Facts, Server, Task
from ._client import HISTORY, LIST_SECONDS, Ovh

RIGHTS = (
    "GET /dedicated/server",
    "GET /dedicated/server/*",
    "PUT /dedicated/server/*",
    "POST /dedicated/server/*/reboot",
)
PASSWORD_RIGHTS = ("POST /dedicated/server/*/authenticationSecret", "GET /me/notification/email/history",
                   "GET /me/notification/email/history/*")
# Windows rescue systems, which take no key.
WINDOWS = ("WinRescue", "rescue-customer-windows")
# The kinds of access that can be one to a rescue system, of Linux and of Windows.
ACCESSES = ("SSH", "RDP")
_KINDS = {"harddisk": HARDDISK, "rescue": RESCUE, "power": POWEROFF}
_TASK_STATES = {"init": "queued", "todo": "queued", "doing": "running", "done": "done",
                "cancelled": "failed", "customerError": "failed", "ovhError": "failed"}


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class OvhDedicated(Ovh):
    """OVH's dedicated servers. Setting the boot option reboots nothing, and it lasts until it is set again."""

    facts = Facts(
        name="ovh_dedicated",
        reboot="separate",
        boot_option_lasts=True,
        hard_reboot=True,
        credentials=("key", "secret", "mail"),
        tells_armed=True,
        settings=("bootId", "rescueSshKey", "rescueMail", "monitoring", "noIntervention"),
        rights=RIGHTS,
        lag=LIST_SECONDS,
        boots_by=("bootId",),
        lets_in_by=("rescueSshKey",),
    )
    root = "/dedicated/server"
    kind = "dedicated server"
    tasks = "task"
    password_rights = PASSWORD_RIGHTS

    # -- operations

    def read_server(self, name: str) -> Server:
        data = self._read(name)
        # One that is not shown is unknown, and not empty.
        settings = {setting: data[setting] for setting in self.facts.settings if setting in data}
        boot_id = settings.get("bootId")
        if boot_id is not None:
            # Where it is shown as text, it is written as a number all the same.
            settings["bootId"] = int(boot_id)
        return Server(name=name, address=data.get("ip") or "", boot=None if boot_id is None else str(boot_id), settings=settings)

    def boot_options(self, name: str, kind: str | None = None) -> list[BootOption]:
        types = {value: key for key, value in _KINDS.items()}
        query: dict[str, t.Any] = {"bootType": types[kind]} if kind else {}
        return [self.boot_option(name, option_id) for option_id in self._call("get", self._path(name, "boot"), **query)]

    def boot_option(self, name: str, option_id: str) -> BootOption:
        data = self._call("get", self._path(name, "boot", option_id))
        return BootOption(id=str(data["bootId"]), kind=_KINDS.get(data["bootType"], OTHER), name=data["kernel"],
                          description=data.get("description") or "")

    def rescue_rank(self, option: BootOption) -> int | None:
        # `bootType=rescue` lists the iPXE shell too, often first, and Windows where there is a licence.
        ranks = (r"rescue\d*-customer", r"rescue\d*-pro")
        if option.kind != RESCUE:
            return None
        # The newest generation first: rescue12-customer before rescue-customer.
        generation = re.search(r"\d+", option.name)
        for rank, pattern in enumerate(ranks):
            if re.fullmatch(pattern, option.name):
                return rank * 1000 - int(generation.group() if generation and rank == 0 else 0)
        return None

    def is_windows(self, option: BootOption) -> bool:
        return option.kind == RESCUE and option.name in WINDOWS

    def rescue_settings(self, server: Server, option: BootOption, public_key: str | None,
                        options: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
        wanted: dict[str, t.Any] = {**self.boot_settings(option), "rescueSshKey": public_key or ""}
        if options.get("rescue_mail"):
            wanted["rescueMail"] = options["rescue_mail"]
        if options.get("hold_interventions", True):
            # A server that does not answer ping after a reboot is otherwise a case for the data centre's technicians.
            wanted["noIntervention"] = True
        return wanted

    def boot_settings(self, option: BootOption) -> dict[str, t.Any]:
        return {"bootId": int(option.id)}

    def armed_key(self, server: Server) -> str | None:
        return server.settings.get("rescueSshKey") or None

    def restorable_settings(self, server: Server) -> dict[str, t.Any]:
        settings = dict(server.settings)
        if server.boot is None or self.boot_option(server.name, server.boot).kind == RESCUE:
            # Nobody ever set it, which the API does not take back; or somebody left it armed. Leaving means the hard disk, not yet
            # another rescue.
            settings.update(self.boot_settings(self.choose(server.name, "harddisk")))
        if SESSION_KEY_COMMENT in (settings.get("rescueSshKey") or ""):
            # Left by a session whose record is lost.
            settings["rescueSshKey"] = None
        return settings

    def same_setting(self, setting: str, one: t.Any, other: t.Any) -> bool:
        # What is cleared by "" may be read back as null.
        if setting in ("rescueSshKey", "rescueMail"):
            return (one or None) == (other or None)
        # Where it was null before, it is restored by false and read back as that.
        return one == other or (setting == "noIntervention" and other is None and one is False)

    def write_settings(self, name: str, changes: t.Mapping[str, t.Any]) -> None:
        # A string is cleared by "": null is not known to clear it. A flag does not take null.
        empty = {"rescueSshKey": "", "rescueMail": "", "noIntervention": False}
        body: dict[str, t.Any] = {key: empty.get(key) if value is None else value for key, value in changes.items()}
        self._call("put", self._path(name), **body)

    def reboot_baseline(self, name: str, known: t.Sequence[str] = ()) -> t.Any:
        """The ids of the reboots that the API still knows, and of those that it need not show yet, as text."""
        return sorted({*map(str, self._reboot_task_ids(name)), *filter(str.isdigit, known)})

    def reboot_hard(self, name: str, baseline: t.Any, may_be_repeat: bool = False) -> Task:
        def asked() -> Task | None:
            new = {int(task_id) for task_id in self._reboot_task_ids(name)} - {int(task_id) for task_id in baseline}
            return self.read_task(name, str(max(new))) if new else None

        return self.once(lambda: self._task(self._try("post", self._path(name, "reboot"))), asked, [may_be_repeat],
                         f"to reboot {name}")

    def _reboot_task_ids(self, name: str) -> list[int]:
        return self._call("get", self._path(name, "task"), function="hardReboot")

    def _task(self, data: t.Mapping[str, t.Any]) -> Task:
        status = data.get("status", "")
        comment = f" ({data['comment']})" if data.get("comment") else ""
        return Task(id=str(data["taskId"]), state=_TASK_STATES.get(status, "unknown"),
                    text=f"{data.get('function')} {status}{comment}")

    def unfinished_tasks(self, name: str) -> list[Task]:
        ids: list[int] = []
        for status in ("init", "todo", "doing"):
            ids += self._call("get", self._path(name, "task"), status=status)
        tasks = [self.read_task(name, str(task_id)) for task_id in sorted(set(ids))]
        return [task for task in tasks if task.state in OPEN]

    def check_rights(self, name: str) -> None:
        self._check_rules((("PUT", self._path(name)), ("POST", self._path(name, "reboot")), ("GET", self._path(name, "task")),
                           ("GET", self._path(name, "boot"))))

    # -- log-in by password: the API's secret, else the mail

    def credentials_baseline(self, name: str) -> t.Any:
        """{"mails": the newest mail's id or 0, "secrets": hashes of the ids of the secrets that there are}, as far as they may be read.

        "since": the time, where the mails may not be.

        An id is as good as its secret: whoever has it needs no credentials to read it. Raises NotAllowed where neither may be read.
        """
        secrets, mails = (self._ask_before(*call) for call in (self._secrets_call(name), ("get", HISTORY)))
        if secrets is None and mails is None:
            raise NotAllowed(f"No password of its rescue system could be read: {self._denied_calls()}", todo=self._rights_words())
        return {**self._mail_baseline(mails), "secrets": [_hash(access["password"]) for access in self._usable(secrets)]}

    def read_credentials(self, name: str, baseline: t.Any) -> Credentials | None:
        for access in self._usable(self._ask(*self._secrets_call(name))):
            if _hash(access["password"]) not in baseline["secrets"]:
                secret = self._retrieve(access["password"])
                if secret:
                    return Credentials(access.get("user") or "root", secret)
        return self._mailed_credentials(name, baseline)

    def _secrets_call(self, name: str) -> tuple[str, str]:
        return "post", self._path(name, "authenticationSecret")

    @staticmethod
    def _usable(accesses: t.Iterable[dict[str, t.Any]] | None) -> list[dict[str, t.Any]]:
        return [access for access in accesses or () if access.get("type") in ACCESSES and access.get("password")]

    def login_words(self, name: str, option: BootOption) -> str | None:
        return self._password_words(
            "The password of its rescue system is a secret of the API, or comes by mail to the OVH account. Look into the mails of the "
            "account in OVH's control panel.")
