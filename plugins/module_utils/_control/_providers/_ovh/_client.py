# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What OVH's dedicated servers and VPS have in common: the client, its errors, tasks, mails. Private to this collection."""

from __future__ import annotations

import abc
import html
import re
import typing as t
from datetime import datetime
from urllib.parse import quote

from ...._errors import BadInput, Busy, MissingLibrary, NotAllowed, NotFound, ProviderError
from .._base import Credentials, Provider, Refused, Task
from .._calls import Transient, at_most_once, is_loopback, is_transient, need_socks, repeated, transient

# A thing that was not found so many times is believed not to be there.
MOST_MISSES = 3
# For so long a list of tasks may not show a new one, nor its id lead to it. Nobody has told how long; 2 to 3 s have been seen.
LIST_SECONDS = 15.0
HISTORY = "/me/notification/email/history"
RETRIEVE = "/secret/retrieve"
_SECRET_LINK = re.compile(r"secret/#/?\?id=([0-9a-fA-F-]{36})")
# Subjects and wording differ by language, and old mails hold the password itself.
_PASSWORD_LINE = re.compile(r"(?:password|mot de passe|contrase\S+a|passwor[dt]|has\S+o|senha)\s*:\s*(\S+)", re.IGNORECASE)
_USER_LINE = re.compile(r"(?:user|utilisateur|usuario|benutzer\w*|u\S+ytkownik|utente|login)\s*:\s*(\S+)", re.IGNORECASE)


_CHECK_LOG_IN = "Check ovh_application_key, ovh_application_secret and ovh_consumer_key, OVH_* in the environment, or ovh.conf, and that " \
                "they are of this ovh_endpoint. A consumer key may have expired or not be confirmed yet."


def _kind(path: str) -> str:
    """What calls of one kind have in common."""
    return re.sub(r"/\d+$", "/*", path)


def _time_of(mail: t.Mapping[str, t.Any]) -> float:
    """When a mail was sent, in seconds since the epoch; 0 where it does not say."""
    try:
        return datetime.fromisoformat(str(mail.get("date"))).timestamp()
    except ValueError:
        return 0.0


class Ovh(Provider):
    """What is reached by OVH's client.

    root, kind: where the API has such servers, and what they are called. tasks: the name of their list of tasks. password_rights: what
    besides facts.rights is needed for a login by password.
    """

    root: str
    kind: str
    tasks: str
    password_rights: t.ClassVar[tuple[str, ...]] = ()

    def __init__(self, params: t.Mapping[str, t.Any]):
        """params: the options `ovh_*`; what is absent comes from OVH_* and ovh.conf, as in OVH's client."""
        try:
            import ovh
        except ImportError as exc:
            raise MissingLibrary("ovh") from exc
        self._ovh = ovh
        # When this process was told of a task, by its id.
        self._begun: dict[str, float] = {}
        # What was refused when a password was looked for, and what else failed then until it was answered, by the kind of call; and the
        # mails that are of no use, which do not change.
        self._denied: dict[str, str] = {}
        self._failed: dict[str, str] = {}
        self._useless: set[int] = set()
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
        need_socks(self._client._endpoint)

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
        client = ovh.Client(endpoint=endpoint, timeout=30, **given)
        if client._application_key and not client._consumer_key:
            raise BadInput("The OVH credentials are not complete: ovh_consumer_key is not given.",
                           todo="Give it as an option, as OVH_CONSUMER_KEY in the environment, or in ovh.conf.")
        return client

    # -- calls

    @staticmethod
    def _text(exc: BaseException) -> str:
        """The API's sentence, with the id that OVH's support asks for, on one line."""
        text = re.sub(r"\s*\n\s*", " ", str(exc)).strip().rstrip(".")
        inner = exc.args[1] if len(exc.args) > 1 and isinstance(exc.args[1], BaseException) else None
        return (f"{text} ({type(inner).__name__})" if inner else text) + "."

    def _try(self, method: str, path: str, need_auth: bool = True, **body: t.Any) -> t.Any:
        """One call, not repeated. What will not pass by itself becomes one of our exceptions."""
        errors = self._ovh.exceptions
        try:
            answer = getattr(self._client, method)(path, _need_auth=need_auth, **body)
            if answer is None and method in ("get", "post"):
                raise Transient(f"it answered nothing to {method.upper()} {path}.")
            return answer
        except (TypeError, ValueError) as exc:
            # The client asks for the API's time first, which must be a number.
            raise Transient(f"what it answered to {method.upper()} {path} cannot be read.") from exc
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
            is_conflict = isinstance(exc, errors.ResourceConflictError)
            refused = Refused(f"OVH refused {method.upper()} {path}: {self._text(exc)}",
                              todo="Another job is at work on the server: look at its tasks in OVH's control panel, and run this again "
                                   "when it has ended." if is_conflict else
                                   "If that does not say why: look whether another job is at work on the server, in OVH's control panel.")
            refused.conflict = is_conflict
            raise refused from exc
        except errors.APIError as exc:
            response = getattr(exc, "response", None)
            status = getattr(response, "status_code", None)
            if isinstance(exc, (errors.HTTPError, errors.InvalidResponse)) or is_transient(status):
                raise transient(self._text(exc), response) from exc
            if status in (401, 403):
                raise NotAllowed(f"The OVH API refused {method.upper()} {path}: {self._text(exc)}",
                                 todo=f"{_CHECK_LOG_IN} It needs: {', '.join(self.facts.rights)}.") from exc
            raise ProviderError(f"OVH refused {method.upper()} {path}: {self._text(exc)}",
                                todo="If that does not say why, OVH's support asks for the Query-ID in it.") from exc

    def _call(self, method: str, path: str, need_auth: bool = True, **body: t.Any) -> t.Any:
        """One call that is safe to repeat, repeated while its failure is one that passes."""
        misses = 0

        def call() -> t.Any:
            nonlocal misses
            try:
                return self._try(method, path, need_auth, **body)
            except NotFound as exc:
                # The API answers so now and then for what is there, as OVH's Terraform provider knows too.
                misses += 1
                if misses == MOST_MISSES:
                    raise
                raise Transient(exc.what) from exc

        def on_timeout(last: Transient) -> Exception:
            return ProviderError(f"The OVH API failed for {self.patience:g} s at {method.upper()} {path}: {last.what}",
                                 todo="Try again later; https://bare-metal-servers.status-ovhcloud.com/ tells of outages.")

        return repeated(self, call, on_timeout)

    def once(self, ask: t.Callable[[], Task], asked: t.Callable[[], Task | None], unsure: list[bool], what: str) -> Task:
        """Ask for what must not be done twice; see at_most_once(). what: for the error, after "when asked"."""
        refused: list[Refused] = []

        def ask_once() -> Task | None:
            refused.clear()
            try:
                task = ask()
            except Refused as exc:
                if not exc.conflict:
                    raise
                # A task is open, of which the list may not know yet. It may be ours.
                refused.append(exc)
                return asked()
            except NotFound as exc:
                raise Transient(exc.what) from exc
            self._begun[task.id] = self.clock.monotonic()
            return task

        def on_timeout(last: Transient | None) -> Exception:
            if refused:
                return Busy(f"OVH could not be asked {what} for {self.patience:g} s: {refused[0].what}",
                            todo="Wait until its tasks have ended, or cancel them in OVH's control panel. Then run this again.")
            why = last.what if last else "its list of tasks shows none."
            return ProviderError(f"The OVH API failed for {self.patience:g} s when asked {what}: {why}",
                                 state="Whether a request arrived is not known.",
                                 todo="Run this again later: it looks for that first, and asks again only where none arrived.")

        return at_most_once(self, self.facts.lag, ask_once, asked, unsure, on_timeout)

    def _path(self, name: str, *rest: t.Any) -> str:
        # The client signs and sends the path as it is.
        return "/".join([self.root, quote(name, safe=""), *(quote(str(part), safe="") for part in rest)])

    # -- servers and tasks

    def is_local(self) -> bool:
        return is_loopback(self._client._endpoint)

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
        except ProviderError as exc:
            if self.clock.monotonic() < self._begun.get(str(task_id), float("-inf")) + self.facts.lag:
                return Task(id=str(task_id), state="queued", text="not shown yet")
            # Old tasks are purged, and the API answers 404 and 500 now and then: no evidence, either way.
            return Task(id=str(task_id), state="unknown", text=f"not readable: {exc.what}")

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

    def _ask(self, method: str, path: str, need_auth: bool = True, **body: t.Any) -> t.Any:
        """One call while a password is waited for, which makes it again; None for a failure, which login_words() names."""
        try:
            answer = self._try(method, path, need_auth, **body)
        except ProviderError as exc:
            self._note_failure(path, exc)
            return None
        self._failed.pop(_kind(path), None)
        return answer

    def _ask_before(self, method: str, path: str) -> t.Any:
        """One call for what there was before; None where these credentials may not make it.

        Raises ProviderError for any other failure: what comes later could not be told from what there was before.
        """
        try:
            return self._call(method, path)
        except NotAllowed as exc:
            self._note_failure(path, exc)
            return None

    def _mail_baseline(self, mails: t.Sequence[int] | None) -> dict[str, t.Any]:
        """What there was before, for _mailed_credentials(). mails: the ids of all, None where they may not be read."""
        # The client knows how far the API's clock is from ours.
        since = None if mails is not None else self.clock.time() + self._client.time_delta
        return {"mails": None if mails is None else max(mails or [0]), "since": since}

    def _note_failure(self, path: str, exc: ProviderError) -> None:
        noted = self._denied if isinstance(exc, NotAllowed) else self._failed
        # Who has the id of a secret can read it, and the sentence may repeat it.
        noted[_kind(path)] = "its secret cannot be retrieved." if path == RETRIEVE else exc.what

    def denied_words(self) -> str | None:
        """What these credentials could not read of a password, in sentences, or None."""
        return f"No password could be read: {self._denied_calls()} {self._rights_words()}" if self._denied else None

    def _denied_calls(self) -> str:
        return " ".join(self._denied.values())

    def _rights_words(self) -> str:
        return f"The API key needs: {', '.join((*self.facts.rights, *self.password_rights))}."

    def _password_words(self, usual: str) -> str:
        """Why no password was read, in sentences. usual: where nothing is known of it."""
        failed = f"The OVH API failed when it was asked for the password: {' '.join(self._failed.values())}" if self._failed else None
        return " ".join(filter(None, (failed, self.denied_words() or usual)))

    def _retrieve(self, secret_id: str) -> str | None:
        found = self._ask("post", RETRIEVE, need_auth=False, id=secret_id)
        return found.get("secret") if found else None

    def _mailed_credentials(self, name: str, baseline: t.Any) -> Credentials | None:
        """What the newest mail tells that is about this server and newer than the baseline.

        That is {"mails": the newest one's id} or, where nobody could read that, {"mails": None, "since": seconds since the epoch}.
        None, too, where a mail cannot be read now: an older one might hold the password of an earlier boot, and a slow API would be
        waited for once a mail.
        """
        # Not within the name of another server.
        named = re.compile(rf"(?<![\w.-]){re.escape(name)}(?![\w-]|\.\w)")
        newest = baseline["mails"]
        new = {mail_id for mail_id in self._ask("get", HISTORY) or () if newest is None or mail_id > newest}
        for mail_id in sorted(new - self._useless, reverse=True):
            mail = self._ask("get", f"{HISTORY}/{mail_id}")
            if mail is None or (newest is None and _time_of(mail) < baseline["since"]):
                return None
            body = html.unescape(re.sub(r"<br\s*/?>", "\n", mail.get("body") or ""))
            link, line = _SECRET_LINK.search(body), _PASSWORD_LINE.search(body)
            if not named.search(f"{mail.get('subject') or ''}\n{body}") or not (link or line):
                self._useless.add(mail_id)
                continue
            user = _USER_LINE.search(body)
            password = self._retrieve(link.group(1)) if link else line.group(1) if line else None
            return Credentials(user.group(1) if user else "root", password) if password else None
        return None
