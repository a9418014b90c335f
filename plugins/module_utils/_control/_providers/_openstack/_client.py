# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Calls to Nova and its neighbours, by openstacksdk, and servers found by name. Private to this collection."""

from __future__ import annotations

import collections
import re
import typing as t
import uuid
from urllib.parse import urlencode

from ...._errors import BadInput, MissingLibrary, NotAllowed, NotFound, ProviderError
from .._calls import Transient, is_transient, need_socks, repeated, transient

if t.TYPE_CHECKING:
    from .._base import Provider

# Rescues what boots from a volume. Rescue with an image of choice is older.
MICROVERSION = (2, 87)
_CHECK_LOG_IN = "Check the user, the password or application credential, and the project: in clouds.yaml, openstack_auth or OS_*."

Json = t.Dict[str, t.Any]


class Conflict(ProviderError):
    """Nova refused what does not fit the server's state (409)."""


def state_of(server: Json) -> str:
    """Nova's vm_state, in small letters, or ""."""
    return str(server.get("OS-EXT-STS:vm_state") or "").lower()


def task_of(server: Json) -> str | None:
    """What Nova is at work on, or None."""
    return server.get("OS-EXT-STS:task_state") or None


class Client:
    """One connection to a cloud."""

    def __init__(self, owner: Provider, params: t.Mapping[str, t.Any]):
        """owner: by whose clock and patience it waits.

        params: the options `openstack_*`; what is absent comes from clouds.yaml and OS_*, as in openstacksdk.
        """
        self._owner = owner
        try:
            import openstack
            import openstack.config
            from keystoneauth1 import exceptions as auth_errors
        except ImportError as exc:
            raise MissingLibrary("openstacksdk") from exc
        self._errors = (openstack.exceptions.SDKException, auth_errors.ClientException)
        self._auth_errors = auth_errors
        names = {"cloud": "cloud", "auth": "auth", "auth_type": "auth_type", "region_name": "region_name", "interface": "interface",
                 "validate_certs": "verify", "ca_cert": "cacert"}
        given = {theirs: params[f"openstack_{ours}"] for ours, theirs in names.items() if params.get(f"openstack_{ours}") is not None}
        try:
            config = openstack.config.OpenStackConfig().get_one(api_timeout=30, **given)
            self.connection = openstack.connection.Connection(config=config)
        except (*self._errors, OSError) as exc:
            raise BadInput(f"The OpenStack credentials are not complete: {self._text(exc)}",
                           todo="Name a cloud of clouds.yaml in openstack_cloud, give openstack_auth, or set OS_CLOUD or the other "
                                "OS_* in the environment.") from exc
        self.auth_url: str | None = config.auth.get("auth_url")
        need_socks(self.auth_url)
        self._ids: dict[str, str] = {}
        self._version: str | None = None
        self._version_known = False

    @staticmethod
    def _text(exc: BaseException) -> str:
        """An exception's sentence on one line, with a full stop."""
        return re.sub(r"\s+", " ", str(exc)).strip().rstrip(".") + "."

    def guarded(self, what: str, call: t.Callable[[], t.Any]) -> t.Any:
        """The result of a call of the library; what it raises becomes one of our exceptions."""
        errors = self._auth_errors
        try:
            return call()
        except (errors.Unauthorized, errors.AuthorizationFailure) as exc:
            raise NotAllowed(f"The OpenStack credentials are not valid: {self._text(exc)}", todo=_CHECK_LOG_IN) from exc
        except errors.NotFound as exc:
            # Only keystone's answers to the log-in come as this; a service's are of the library's own kind.
            raise NotAllowed(f"The OpenStack credentials are not valid: {self._text(exc)}", todo="Look at auth_url, and whether the "
                             "application credential is still there.") from exc
        except (errors.MissingRequiredOptions, errors.NoMatchingPlugin) as exc:
            raise BadInput(f"The OpenStack credentials are not complete: {self._text(exc)}", todo=_CHECK_LOG_IN) from exc
        except errors.SSLError as exc:
            raise ProviderError(f"The certificate of OpenStack's API is not trusted: {self._text(exc)}",
                                todo="Name the authority's certificate in openstack_ca_cert.") from exc
        except (errors.EndpointNotFound, errors.EmptyCatalog) as exc:
            raise BadInput(f"The cloud has no such service: {self._text(exc)}",
                           todo="Look at openstack_region_name and openstack_interface.") from exc
        except (ValueError, TypeError, KeyError, AttributeError) as exc:
            raise Transient(f"What OpenStack's API answered to {what} cannot be read.") from exc
        except errors.ConnectionError as exc:
            raise Transient(f"OpenStack's API does not answer {what}: {self._text(exc)}") from exc
        except self._errors as exc:
            if type(exc).__name__ == "ServiceDisabledException":
                raise BadInput(f"The cloud has no such service: {self._text(exc)}",
                               todo="Look at openstack_region_name and openstack_interface.") from exc
            status = getattr(exc, "status_code", None) or getattr(exc, "http_status", None)
            if status == 409:
                raise Transient(f"OpenStack's API refused {what} for now: {self._text(exc)}") from exc
            self._raise_for(what, status, self._text(exc), exc, getattr(exc, "response", None))

    def _raise_for(self, what: str, status: int | None, text: str, cause: Exception | None = None,
                   response: t.Any = None) -> t.NoReturn:
        if status == 401:
            raise NotAllowed(f"The OpenStack credentials are not valid: {text}", todo=_CHECK_LOG_IN) from cause
        if status == 403:
            raise NotAllowed(f"The OpenStack user may not do this ({what}): {text}", todo="It needs the role member in the project, "
                             "or another one that the cloud's policy lets rescue servers.") from cause
        if status == 404:
            raise NotFound(f"OpenStack does not find it ({what}): {text}",
                           todo="Somebody may have deleted it meanwhile.") from cause
        if status == 409:
            raise Conflict(f"Nova refused {what}: {text}", todo="Run this again when what Nova is at work on has ended.") from cause
        if status == 501:
            raise ProviderError(f"This cloud cannot do it ({what}): {text}",
                                todo="Ask its operator whether the hypervisors rescue servers.") from cause
        if is_transient(status):
            raise transient(f"OpenStack's API failed at {what}: {text}", response) from cause
        raise ProviderError(f"OpenStack refused {what}: {text}", todo="If that does not say why, the cloud's operator can.") from cause

    def attempt(self, method: str, path: str, body: Json | None = None) -> Json:
        """One call to Nova, not repeated. Returns the answer's JSON, or {}."""
        what = f"{method.upper()} {re.sub('[0-9a-f-]{36}', 'ID', path)}"
        more = {} if body is None else {"json": body}

        def call() -> t.Any:
            return getattr(self.connection.compute, method)(path, microversion=self.microversion(), raise_exc=False, **more)

        response = self.guarded(what, call)
        if response.status_code >= 400:
            self._raise_for(what, response.status_code, self._message(response), response=response)
        try:
            # What is only begun or deleted is answered by its status alone.
            found = response.json() if response.content or response.status_code not in (202, 204) else {}
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise Transient(f"What OpenStack's API answered to {what} cannot be read.")
        return found

    @staticmethod
    def _message(response: t.Any) -> str:
        try:
            text = next(iter(response.json().values()))["message"]
        except (ValueError, KeyError, TypeError, AttributeError, StopIteration):
            text = f"{response.status_code} {response.reason}"
        return re.sub(r"\s+", " ", str(text)).strip().rstrip(".") + "."

    def microversion(self) -> str | None:
        """What we speak; None for the oldest, where the cloud has not ours."""
        if not self._version_known:
            endpoint = self.guarded("the version of Nova", self.connection.compute.get_endpoint_data)
            highest = endpoint.max_microversion if endpoint else None
            self._version = "{}.{}".format(*MICROVERSION) if highest and tuple(highest) >= MICROVERSION else None
            self._version_known = True
        return self._version

    def repeat(self, what: str, call: t.Callable[[], t.Any]) -> t.Any:
        """The result of something safe to repeat, repeated while its failure is one that passes."""
        def on_timeout(last: Transient) -> Exception:
            return ProviderError(f"OpenStack's API failed for {self._owner.patience:g} s at {what}: {last.what}",
                                 todo="Try again later; the cloud's operator may know of an outage.")

        return repeated(self._owner, call, on_timeout)

    def call(self, method: str, path: str, body: Json | None = None) -> Json:
        """One call to Nova that is safe to repeat, repeated while its failure is one that passes."""
        def call() -> Json:
            try:
                return self.attempt(method, path, body)
            except Conflict as exc:
                if path.endswith("/action"):
                    raise
                # What is read, or is no action, does not fit for as long as Nova is at work.
                raise Transient(exc.what) from None

        return t.cast(Json, self.repeat(f"{method.upper()} {path}", call))

    @staticmethod
    def named(found: t.Sequence[Json]) -> dict[str, Json]:
        """Servers by their names; where two servers have the same, or Nova does not tell, by their ids."""
        names = collections.Counter(server.get("name") for server in found)
        names[None] = 2
        return {server["name"] if names[server.get("name")] == 1 else server["id"]: server for server in found}

    def list(self, path: str, name: str | None = None) -> list[Json]:
        """All servers of the project, or those of a name. path: `/servers`, or `/servers/detail` for as much as Nova shows of one."""
        found: list[Json] = []
        query = {} if name is None else {"name": f"^{re.escape(name)}$"}
        seen: set[str] = set()
        while True:
            answer = self.call("get", f"{path}?{urlencode(query)}" if query else path)
            # A cloud that ignores the marker has the same page again and again.
            new = [server for server in answer["servers"] if server["id"] not in seen]
            found += new
            if not new or not answer.get("servers_links"):
                return [server for server in found if name in (None, server.get("name"))]
            seen.update(server["id"] for server in new)
            query["marker"] = str(new[-1]["id"])

    def _find(self, name: str) -> Json:
        """The server of a name, as Nova shows it."""
        same = self.list("/servers/detail", name)
        if len(same) > 1:
            raise BadInput(f"{len(same)} servers have the name {name!r}.",
                           todo=f"Name the one that you mean by its id: {', '.join(sorted(server['id'] for server in same))}.")
        if not same:
            seen = ", ".join(sorted(f"{server.get('name')} ({server['id']})" for server in self.list("/servers")))
            raise NotFound(f"OpenStack knows no server {name!r} in this project.", todo=f"These credentials see: {seen or 'none'}.")
        return same[0]

    def show(self, name: str) -> Json:
        """The server as Nova shows it."""
        if name not in self._ids:
            try:
                self._ids[name] = str(uuid.UUID(name))
                return t.cast(Json, self.call("get", f"/servers/{self._ids[name]}")["server"])
            except (ValueError, NotFound):
                self._ids.pop(name, None)
            data = self._find(name)
            self._ids[name] = str(data["id"])
            return data
        return t.cast(Json, self.call("get", f"/servers/{self._ids[name]}")["server"])

    def id_of(self, name: str) -> str:
        """The id of a server."""
        if name not in self._ids:
            self.show(name)
        return self._ids[name]

    def roles(self) -> set[str]:
        """The roles of these credentials, or none where the kind of log-in does not tell."""
        session: t.Any = self.connection.session
        get_access = getattr(session.auth, "get_access", None)
        access = self.guarded("the log-in", lambda: get_access(session)) if get_access else None
        return set(getattr(access, "role_names", None) or ())
