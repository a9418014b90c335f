# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""OVH dedicated servers, by OVH's own client. Private to this collection.

Shapes, enums and texts: the API's schema (https://eu.api.ovh.com/1.0/dedicated/server.json).
"""

from __future__ import annotations

import hashlib
import html
import re
import typing as t
from urllib.parse import quote

from ansible.module_utils.basic import missing_required_lib

from .._errors import BadInput, MissingLibrary, NotAllowed, NotFound, ProviderError
from .._ssh import SESSION_KEY_COMMENT
from .._wait import Backoff, Wait
from ._base import HARDDISK, OTHER, POWEROFF, RESCUE, BootOption, Credentials, Facts, Provider, Server, Task

RIGHTS = (
    "GET /dedicated/server",
    "GET /dedicated/server/*",
    "PUT /dedicated/server/*",
    "POST /dedicated/server/*/reboot",
)
# Only a log-in by password needs these.
PASSWORD_RIGHTS = (
    "POST /dedicated/server/*/authenticationSecret",
    "GET /me/notification/email/history",
    "GET /me/notification/email/history/*",
)
# A thing that was not found so many times is believed not to be there.
MOST_MISSES = 3
_KINDS = {"harddisk": HARDDISK, "rescue": RESCUE, "power": POWEROFF}
_TASK_STATES = {"init": "running", "todo": "running", "doing": "running", "done": "done",
                "cancelled": "failed", "customerError": "failed", "ovhError": "failed"}
_SECRET_LINK = re.compile(r"secret/#/?\?id=([0-9a-fA-F-]{36})")
# Subjects and wording differ by language, and old mails hold the password itself.
_PASSWORD_LINE = re.compile(r"(?:password|mot de passe|contrase\S+a|passwor[dt]|has\S+o|senha)\s*:\s*(\S+)", re.IGNORECASE)
_USER_LINE = re.compile(r"(?:user|utilisateur|usuario|benutzer\w*|u\S+ytkownik|utente|login)\s*:\s*(\S+)", re.IGNORECASE)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class OvhDedicated(Provider):
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
    )

    # A call that failed on the way is tried again for so long. OVH's Terraform provider gives a task five minutes.
    patience = 60.0

    def __init__(self, params: t.Mapping[str, t.Any]):
        """params: the options `ovh_*`; what is absent comes from OVH_* and ovh.conf, as in OVH's client."""
        try:
            import ovh
        except ImportError as exc:
            raise MissingLibrary(missing_required_lib("ovh", url="https://pypi.org/project/ovh/")) from exc
        self._ovh = ovh
        endpoint = params.get("ovh_endpoint")
        given = {name: params.get(f"ovh_{name}") for name in
                 ("application_key", "application_secret", "consumer_key", "client_id", "client_secret", "config_file")}
        try:
            self._client = self._make_client(endpoint, given)
        except (ovh.exceptions.InvalidRegion, ovh.exceptions.InvalidConfiguration, ovh.exceptions.APIError) as exc:
            known = ", ".join(sorted(name for name in ovh.client.ENDPOINTS if "://" not in name))
            why = self._text(exc)
            if isinstance(exc, ovh.exceptions.InvalidRegion):
                # Its sentence is not filled in: the endpoint is the second of its arguments.
                wrong = exc.args[1] if len(exc.args) > 1 else None
                why = f"OVH has no endpoint {wrong!r}." if wrong else "no endpoint is given."
            raise BadInput(f"The OVH credentials are not complete: {why}",
                           todo="Give ovh_endpoint, ovh_application_key, ovh_application_secret and ovh_consumer_key as options, "
                                f"as OVH_* in the environment, or in ovh.conf. Endpoints: {known}.") from exc

    def _make_client(self, endpoint: str | None, given: t.Mapping[str, str | None]) -> t.Any:
        ovh = self._ovh
        if endpoint is None:
            configuration = ovh.config.ConfigurationManager()
            if given["config_file"]:
                configuration.read(given["config_file"])
            endpoint = configuration.get("default", "endpoint")
        if endpoint and "://" in endpoint:
            # The client takes names only. A URL (a proxy, a lab) becomes a name of its own.
            ovh.client.ENDPOINTS[endpoint] = endpoint.rstrip("/")
        return ovh.Client(endpoint=endpoint, timeout=30, **given)

    # -- calls

    @staticmethod
    def _text(exc: BaseException) -> str:
        """The API's sentence, with the id that OVH's support asks for, on one line."""
        text = re.sub(r"\s*\n\s*", " ", str(exc)).strip().rstrip(".")
        inner = exc.args[1] if len(exc.args) > 1 and isinstance(exc.args[1], BaseException) else None
        return (f"{text} ({type(inner).__name__})" if inner else text) + "."

    def _transient(self, exc: Exception) -> bool:
        """True for what passes: the connection broke, a proxy answered, the API had a fault or had enough."""
        errors = self._ovh.exceptions
        if isinstance(exc, (errors.HTTPError, errors.InvalidResponse)):
            return True
        status = getattr(getattr(exc, "response", None), "status_code", None)
        return status is not None and (status == 429 or status >= 500)

    def _try(self, method: str, path: str, need_auth: bool = True, **body: t.Any) -> t.Any:
        """One call, not repeated. What will not pass by itself becomes one of our exceptions."""
        errors = self._ovh.exceptions
        try:
            return getattr(self._client, method)(path, _need_auth=need_auth, **body)
        except errors.ResourceNotFoundError as exc:
            raise NotFound(self._text(exc)) from exc
        except (errors.NotGrantedCall, errors.Forbidden) as exc:
            raise NotAllowed(f"The OVH API key may not {method.upper()} {path}: {self._text(exc)}",
                             todo=f"It needs: {', '.join(RIGHTS)}.") from exc
        except (errors.NotCredential, errors.InvalidKey, errors.InvalidCredential, errors.OAuth2FailureError) as exc:
            raise NotAllowed(f"The OVH credentials are not valid: {self._text(exc)}") from exc
        except errors.ResourceExpiredError as exc:
            raise ProviderError(f"OVH says that this service has expired: {self._text(exc)}") from exc
        except errors.APIError as exc:
            if self._transient(exc):
                raise
            if getattr(getattr(exc, "response", None), "status_code", None) in (401, 403):
                raise NotAllowed(f"The OVH API refused {method.upper()} {path}: {self._text(exc)}") from exc
            raise ProviderError(f"OVH refused {method.upper()} {path}: {self._text(exc)}") from exc

    def _call(self, method: str, path: str, need_auth: bool = True, **body: t.Any) -> t.Any:
        """One call that is safe to repeat, repeated while its failure is one that passes."""
        last: list[Exception] = []
        misses = 0

        def look() -> tuple[t.Any] | None:
            nonlocal misses
            try:
                return (self._try(method, path, need_auth, **body),)
            except NotFound as exc:
                # The API answers so now and then for what is there, as OVH's Terraform provider knows too.
                misses += 1
                if misses == MOST_MISSES:
                    raise
                last[:] = [exc]
            except self._ovh.exceptions.APIError as exc:
                last[:] = [exc]
            return None

        def late() -> Exception:
            return ProviderError(f"The OVH API failed for {self.patience:g} s at {method.upper()} {path}: {self._text(last[0])}",
                                 todo="Try again later; https://bare-metal-servers.status-ovhcloud.com/ tells of outages.")

        return Wait(self.patience, Backoff(0.5, 8.0, 2.0)).until(look, late)[0]

    @staticmethod
    def _path(name: str, *rest: t.Any) -> str:
        # The client signs and sends the path as it is.
        return "/".join(["/dedicated/server", quote(name, safe=""), *(quote(str(part), safe="") for part in rest)])

    # -- operations

    def list_servers(self) -> list[str]:
        return sorted(self._call("get", "/dedicated/server"))

    def read_server(self, name: str) -> Server:
        try:
            data = self._call("get", self._path(name))
        except NotFound as exc:
            try:
                names = self.list_servers()
            except NotAllowed as denied:
                raise NotFound(f"OVH knows no dedicated server {name!r}, and the API key may not list those that it knows.",
                               todo="Look the name up in OVH's control panel.") from denied
            if name in names:
                raise
            raise NotFound(f"OVH knows no dedicated server {name!r}.",
                           todo=f"These credentials see: {', '.join(names) or 'none'}.") from exc
        return Server(name=name, address=data["ip"], boot=None if data.get("bootId") is None else str(data["bootId"]),
                      settings={setting: data.get(setting) for setting in self.facts.settings})

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
        if server.boot is not None and self.boot_option(server.name, server.boot).kind == RESCUE:
            # Somebody left it armed. Leaving means the hard disk, not yet another rescue.
            settings.update(self.boot_settings(self.choose(server.name, "harddisk")))
        if SESSION_KEY_COMMENT in (settings.get("rescueSshKey") or ""):
            # Left by a session whose record is lost.
            settings["rescueSshKey"] = None
        return settings

    def same_setting(self, setting: str, one: t.Any, other: t.Any) -> bool:
        # What is cleared by "" may be read back as null.
        return (one or None) == (other or None) if setting in ("rescueSshKey", "rescueMail") else one == other

    def write_settings(self, name: str, changes: t.Mapping[str, t.Any]) -> None:
        # A string is cleared by "": null is not known to clear it.
        body: dict[str, t.Any] = {key: "" if value is None and key in ("rescueSshKey", "rescueMail") else value
                                  for key, value in changes.items()}
        self._call("put", self._path(name), **body)

    def reboot_mark(self, name: str) -> t.Any:
        """The ids of the reboots that the API still knows."""
        return self._reboot_task_ids(name)

    def reboot_hard(self, name: str, mark: t.Any, asked_before: bool = False) -> Task:
        last: list[Exception] = []
        unsure = [asked_before]

        def look() -> Task | None:
            if unsure[0]:
                # Whether the call arrived is not known. The list of tasks tells, and keeps us from a second reboot.
                new = sorted(set(self._reboot_task_ids(name)) - set(mark))
                if new:
                    return self.read_task(name, str(new[-1]))
            try:
                return self._task(self._try("post", self._path(name, "reboot")))
            except (NotFound, self._ovh.exceptions.APIError) as exc:
                last[:] = [exc]
                unsure[0] = True
                return None

        def late() -> Exception:
            return ProviderError(f"The OVH API failed for {self.patience:g} s when asked to reboot {name}: {self._text(last[0])}")

        return Wait(self.patience, Backoff(1.0, 8.0, 2.0)).until(look, late)

    def _reboot_task_ids(self, name: str) -> list[int]:
        return self._call("get", self._path(name, "task"), function="hardReboot")

    @staticmethod
    def _task(data: t.Mapping[str, t.Any]) -> Task:
        status = data.get("status", "")
        comment = f" ({data['comment']})" if data.get("comment") else ""
        return Task(id=str(data["taskId"]), state=_TASK_STATES.get(status, "unknown"),
                    text=f"{data.get('function')} {status}{comment}")

    def read_task(self, name: str, task_id: str) -> Task:
        try:
            return self._task(self._try("get", self._path(name, "task", task_id)))
        except (NotFound, self._ovh.exceptions.APIError) as exc:
            # Old tasks are purged, and the API answers 404 and 500 now and then: no evidence, either way.
            return Task(id=str(task_id), state="unknown", text=f"not readable: {self._text(exc)}")

    def unfinished_tasks(self, name: str) -> list[Task]:
        ids: list[int] = []
        for status in ("init", "todo", "doing"):
            ids += self._call("get", self._path(name, "task"), status=status)
        tasks = [self.read_task(name, str(task_id)) for task_id in sorted(set(ids))]
        return [task for task in tasks if task.state == "running"]

    def check_rights(self, name: str) -> None:
        try:
            granted = self._call("get", "/auth/currentCredential").get("rules") or []
        except (NotFound, NotAllowed):
            # Not there for OAuth2 accounts, and not every key may read it. The calls themselves will tell.
            return

        def allows(method: str, path: str) -> bool:
            return any(rule["method"].upper() == method and
                       re.fullmatch(".*".join(re.escape(part) for part in rule["path"].split("*")), path)
                       for rule in granted)

        needed = (("PUT", self._path(name)), ("POST", self._path(name, "reboot")), ("GET", self._path(name, "task")),
                  ("GET", self._path(name, "boot")))
        missing = [f"{method} {path}" for method, path in needed if not allows(method, path)]
        if granted and missing:
            raise NotAllowed(f"The OVH API key lacks the rights: {', '.join(missing)}.", todo=f"It needs: {', '.join(RIGHTS)}.")

    # -- log-in by password: the API's secret, else the mail

    def credentials_mark(self, name: str) -> t.Any:
        """{"mails": the newest mail's id or 0, "secrets": hashes of the ids of the secrets that there are}.

        An id is as good as its secret: whoever has it needs no credentials to read it.
        """
        return {"mails": max(self._mail_ids() or [0]), "secrets": [_hash(access["password"]) for access in self._secrets(name)]}

    def read_credentials(self, name: str, mark: t.Any) -> Credentials | None:
        for access in self._secrets(name):
            if _hash(access["password"]) not in mark["secrets"]:
                secret = self._retrieve(access["password"])
                if secret:
                    return Credentials(access.get("user") or "root", secret)
        return self._mailed_credentials(name, mark)

    def _secrets(self, name: str) -> list[dict[str, t.Any]]:
        try:
            accesses = self._call("post", self._path(name, "authenticationSecret"))
        except (NotAllowed, ProviderError):
            return []
        return [access for access in accesses or [] if access.get("type") == "SSH" and access.get("password")]

    def _retrieve(self, secret_id: str) -> str | None:
        try:
            return self._call("post", "/secret/retrieve", need_auth=False, id=secret_id)["secret"]
        except (NotAllowed, ProviderError):
            return None

    def _mail_ids(self) -> list[int]:
        try:
            return self._call("get", "/me/notification/email/history")
        except (NotAllowed, ProviderError):
            return []

    def _mailed_credentials(self, name: str, mark: t.Any) -> Credentials | None:
        for mail_id in sorted((i for i in self._mail_ids() if i > mark["mails"]), reverse=True):
            try:
                mail = self._call("get", f"/me/notification/email/history/{mail_id}")
            except (NotAllowed, ProviderError):
                continue
            body = html.unescape(re.sub(r"<br\s*/?>", "\n", mail.get("body") or ""))
            if name not in (mail.get("subject") or "") + body:
                continue
            user = _USER_LINE.search(body)
            link = _SECRET_LINK.search(body)
            line = _PASSWORD_LINE.search(body)
            password = self._retrieve(link.group(1)) if link else line.group(1) if line else None
            if password:
                return Credentials(user.group(1) if user else "root", password)
        return None
