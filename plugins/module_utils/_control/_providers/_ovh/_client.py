# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What OVH's dedicated servers and VPS have in common: the client, its errors, tasks, mails. Private to this collection."""

from __future__ import annotations

import abc
import html
import re
import typing as t
from urllib.parse import quote

from ansible.module_utils.basic import missing_required_lib

from ..._errors import BadInput, MissingLibrary, NotAllowed, NotFound, ProviderError
from ..._wait import Backoff
from ._base import Credentials, Provider, Task

# A thing that was not found so many times is believed not to be there.
MOST_MISSES = 3
HISTORY = "/me/notification/email/history"
_SECRET_LINK = re.compile(r"secret/#/?\?id=([0-9a-fA-F-]{36})")
# Subjects and wording differ by language, and old mails hold the password itself.
_PASSWORD_LINE = re.compile(r"(?:password|mot de passe|contrase\S+a|passwor[dt]|has\S+o|senha)\s*:\s*(\S+)", re.IGNORECASE)
_USER_LINE = re.compile(r"(?:user|utilisateur|usuario|benutzer\w*|u\S+ytkownik|utente|login)\s*:\s*(\S+)", re.IGNORECASE)


_CHECK_LOG_IN = "Check ovh_application_key, ovh_application_secret and ovh_consumer_key, OVH_* in the environment, or ovh.conf, and that " \
                "they are of this ovh_endpoint. A consumer key may have expired or not be confirmed yet."


class Refused(ProviderError):
    """The API will not do that as things stand: a wrong value, or another job is at work on the server.

    conflict: whether it said so by 409, which means the latter; 400 may mean both.
    """

    conflict = False


class Ovh(Provider):
    """What is reached by OVH's client.

    root, kind: where the API has such servers, and what they are called. tasks: the name of their list of tasks.
    """

    root: str
    kind: str
    tasks: str

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
        except AttributeError as exc:
            # The client takes each refusal for an object, and some, of what stands in front of the API, are none.
            raise NotAllowed(f"The OVH API refused {method.upper()} {path}, in words that OVH's client cannot read.",
                             todo=_CHECK_LOG_IN) from exc
        except errors.ResourceNotFoundError as exc:
            raise NotFound(self._text(exc), todo="It may have ended meanwhile; look at the server in OVH's control panel.") from exc
        except (errors.NotGrantedCall, errors.Forbidden) as exc:
            raise NotAllowed(f"The OVH API key may not {method.upper()} {path}: {self._text(exc)}",
                             todo=f"It needs: {', '.join(self.facts.rights)}.") from exc
        except (errors.NotCredential, errors.InvalidKey, errors.InvalidCredential, errors.OAuth2FailureError) as exc:
            raise NotAllowed(f"The OVH credentials are not valid: {self._text(exc)}", todo=_CHECK_LOG_IN) from exc
        except errors.ResourceExpiredError as exc:
            raise ProviderError(f"OVH says that this service has expired: {self._text(exc)}",
                                todo="Renew it in OVH's control panel, then run this again.") from exc
        except (errors.BadParametersError, errors.ResourceConflictError) as exc:
            if "Invalid signature" in str(exc):
                raise NotAllowed(f"The OVH credentials are not valid: {self._text(exc)}",
                                 todo=f"{_CHECK_LOG_IN} It is the secret that signs.") from exc
            refused = Refused(f"OVH refused {method.upper()} {path}: {self._text(exc)}",
                              todo="Another job may be at work on the server: look at its tasks in OVH's control panel, and run this "
                                   "again when it has ended.")
            refused.conflict = isinstance(exc, errors.ResourceConflictError)
            raise refused from exc
        except errors.APIError as exc:
            if self._transient(exc):
                raise
            if getattr(getattr(exc, "response", None), "status_code", None) in (401, 403):
                raise NotAllowed(f"The OVH API refused {method.upper()} {path}: {self._text(exc)}",
                                 todo=f"{_CHECK_LOG_IN} It needs: {', '.join(self.facts.rights)}.") from exc
            raise ProviderError(f"OVH refused {method.upper()} {path}: {self._text(exc)}",
                                todo="If that does not say why, OVH's support asks for the Query-ID in it.") from exc

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

        return self.clock.wait(self.patience, Backoff(0.5, 8.0, 2.0)).until(look, late)[0]

    def _once(self, ask: t.Callable[[], Task], asked: t.Callable[[], Task | None], unsure: list[bool], what: str) -> Task:
        """Ask for what must not be done twice, until one answer came or the job is seen.

        ask: one call by _try(). asked: the job of a call whose answer was lost, or None. unsure: its one item says whether
        there may have been such a call, also afterwards. what: for the error, after "when asked".
        """
        last: list[Exception] = []

        def look() -> Task | None:
            if unsure[0]:
                # Whether the call arrived is not known. The list of tasks tells, and keeps us from asking twice.
                task = asked()
                if task is not None:
                    return task
            try:
                return ask()
            except (NotFound, self._ovh.exceptions.APIError) as exc:
                last[:] = [exc]
                unsure[0] = True
                return None

        def late() -> Exception:
            return ProviderError(f"The OVH API failed for {self.patience:g} s when asked {what}: {self._text(last[0])}",
                                 state="Whether a request arrived is not known.",
                                 todo="Run this again later: it looks for that first, and asks again only where none arrived.")

        return t.cast(Task, self.clock.wait(self.patience, Backoff(1.0, 8.0, 2.0)).until(look, late))

    def _path(self, name: str, *rest: t.Any) -> str:
        # The client signs and sends the path as it is.
        return "/".join([self.root, quote(name, safe=""), *(quote(str(part), safe="") for part in rest)])

    # -- servers and tasks

    def list_servers(self) -> list[str]:
        return sorted(self._call("get", self.root))

    def _read(self, name: str) -> t.Any:
        """The server as the API shows it."""
        try:
            return self._call("get", self._path(name))
        except NotFound as exc:
            try:
                names = self.list_servers()
            except NotAllowed as denied:
                raise NotFound(f"OVH knows no {self.kind} {name!r}, and the API key may not list those that it knows.",
                               todo="Look the name up in OVH's control panel.") from denied
            if name in names:
                raise
            raise NotFound(f"OVH knows no {self.kind} {name!r}.",
                           todo=f"These credentials see: {', '.join(names) or 'none'}.") from exc

    @abc.abstractmethod
    def _task(self, data: t.Mapping[str, t.Any]) -> Task:
        """A task as the API shows it."""

    def read_task(self, name: str, task_id: str) -> Task:
        try:
            return self._task(self._try("get", self._path(name, self.tasks, task_id)))
        except (NotFound, self._ovh.exceptions.APIError) as exc:
            # Old tasks are purged, and the API answers 404 and 500 now and then: no evidence, either way.
            return Task(id=str(task_id), state="unknown", text=f"not readable: {self._text(exc)}")

    def _check_rules(self, needed: t.Iterable[tuple[str, str]]) -> None:
        """Raise NotAllowed where the consumer key's rules lack one of the calls (method, path)."""
        try:
            granted = self._call("get", "/auth/currentCredential").get("rules") or []
        except (NotFound, NotAllowed):
            # Not there for OAuth2 accounts, and not every key may read it. The calls themselves will tell.
            return

        def allows(method: str, path: str) -> bool:
            return any(rule["method"].upper() == method and
                       re.fullmatch(".*".join(re.escape(part) for part in rule["path"].split("*")), path)
                       for rule in granted)

        missing = [f"{method} {path}" for method, path in needed if not allows(method, path)]
        if granted and missing:
            raise NotAllowed(f"The OVH API key lacks the rights: {', '.join(missing)}.",
                             todo=f"It needs: {', '.join(self.facts.rights)}.")

    # -- mails and secrets

    def _retrieve(self, secret_id: str) -> str | None:
        try:
            return self._call("post", "/secret/retrieve", need_auth=False, id=secret_id)["secret"]
        except (NotAllowed, ProviderError):
            return None

    def _mail_ids(self) -> list[int]:
        try:
            return self._call("get", HISTORY)
        except (NotAllowed, ProviderError):
            return []

    def _mailed_credentials(self, name: str, mark: t.Any) -> Credentials | None:
        """What the newest mail tells that is about this server and newer than the mark {"mails": its id}."""
        # Not within the name of another server.
        named = re.compile(rf"(?<![\w.-]){re.escape(name)}(?![\w-]|\.\w)")
        for mail_id in sorted((i for i in self._mail_ids() if i > mark["mails"]), reverse=True):
            try:
                mail = self._call("get", f"{HISTORY}/{mail_id}")
            except (NotAllowed, ProviderError):
                continue
            body = html.unescape(re.sub(r"<br\s*/?>", "\n", mail.get("body") or ""))
            if not named.search(f"{mail.get('subject') or ''}\n{body}"):
                continue
            user = _USER_LINE.search(body)
            link = _SECRET_LINK.search(body)
            line = _PASSWORD_LINE.search(body)
            password = self._retrieve(link.group(1)) if link else line.group(1) if line else None
            if password:
                return Credentials(user.group(1) if user else "root", password)
        return None
