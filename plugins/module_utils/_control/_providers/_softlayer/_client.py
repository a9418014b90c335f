# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Calls to SoftLayer's API, by its own client, and machines found by name. Private to this collection."""

from __future__ import annotations

import collections
import configparser
import logging
import re
import typing as t
from xml.parsers.expat import ExpatError

from ...._errors import BadInput, Busy, MissingLibrary, NotAllowed, NotFound, ProviderError
from .._calls import Transient, is_transient, need_socks, repeated

if t.TYPE_CHECKING:
    from .._base import Provider

RESCUE_RIGHT = "OS Reloads and Rescue Kernel"
REBOOT_RIGHT = "IPMI Remote Management"
RIGHTS = (RESCUE_RIGHT, REBOOT_RIGHT, "View Virtual Server Details", "View Hardware Details")
# Seconds that a call may take, where nobody sets it; the client has no limit of its own.
TIMEOUT = 30.0
_LONGEST_ID = 2**31 - 1


class Machine(t.NamedTuple):
    """kind: `vs` or `hw`, as in server names."""

    kind: str
    id: int

    @property
    def service(self) -> str:
        return "Virtual_Guest" if self.kind == "vs" else "Hardware_Server"

    @property
    def name(self) -> str:
        return f"{self.kind}:{self.id}"


class Outstanding(Busy):
    """Refused because of a transaction under way."""


class TooSoon(Busy):
    """Refused because hardware was rebooted a short while ago."""


class Client:
    """One login to the API."""

    def __init__(self, owner: Provider, params: t.Mapping[str, t.Any]):
        """owner: by whose clock and patience it waits.

        params: the options `softlayer_*`; what is absent comes from SL_* and ~/.softlayer, as in SoftLayer's client.
        """
        self._owner = owner
        try:
            import requests
            import SoftLayer
            import urllib3
        except ImportError as exc:
            raise MissingLibrary("SoftLayer") from exc
        self._softlayer = SoftLayer
        self._never_sent = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)
        self._requests = requests
        self._machines: dict[str, Machine] = {}
        # What the client warns of, we raise. Without a handler it would land in the middle of the user's output.
        logger = logging.getLogger("SoftLayer")
        if not logger.handlers:
            logger.addHandler(logging.NullHandler())
        todo = "Give softlayer_username and softlayer_api_key as options, as SL_USERNAME and SL_API_KEY in the environment, or in " \
               "the section [softlayer] of ~/.softlayer."
        given = {name: params.get(f"softlayer_{name}") for name in ("username", "api_key", "endpoint_url", "timeout", "config_file")}
        try:
            self.api = SoftLayer.create_client_from_env(**given)
        except (configparser.Error, ValueError, OSError) as exc:
            raise BadInput(f"The SoftLayer configuration cannot be read: {self._one_line(str(exc))}.", todo=todo) from exc
        if self.api.auth is None:
            raise BadInput("The SoftLayer credentials are not complete.", todo=todo)
        transport = self.api.transport
        need_socks(transport.endpoint_url, transport.proxy)
        transport.timeout = transport.timeout or TIMEOUT
        # By itself it repeats a GET whose answer was lost. By REST a reboot is a GET.
        transport.client.mount("https://", requests.adapters.HTTPAdapter(max_retries=0))

    @staticmethod
    def _one_line(text: str) -> str:
        return re.sub(r"\s+", " ", text).strip().rstrip(".")

    def _text(self, exc: t.Any) -> str:
        """The API's sentence; of a page of HTML only the status, of a broken connection only the kind."""
        if getattr(exc, "faultCode", None) == 0:
            return f"no answer ({type(exc.__context__).__name__})"
        text = self._one_line(str(getattr(exc, "faultString", exc)).partition(" :: ")[0])
        return f"HTTP {getattr(exc, 'faultCode', '')}" if "<" in text else text

    def _was_sent(self, exc: BaseException) -> bool:
        """Whether the call may have arrived. The client keeps what really failed only as the context of its own exception."""
        inner = exc.__context__
        if not isinstance(inner, self._requests.exceptions.ConnectionError) or not inner.args:
            return True
        return not isinstance(getattr(inner.args[0], "reason", None), self._never_sent)

    def _judge(self, exc: t.Any, call: str) -> Exception:
        """One of our exceptions for one of the client's. By REST the code of a fault is lost, so its sentence must do."""
        text, code = self._text(exc), getattr(exc, "faultCode", None)
        if "outstanding transaction" in text:
            return Outstanding(f"SoftLayer refused {call}: {text}.", state="This call changed nothing.",
                               todo="Wait until that has ended, then run this again.")
        if re.search(r"20 minutes|remote management command", text, re.IGNORECASE):
            return TooSoon(f"SoftLayer refused {call}: {text}.")
        if "do not have permission" in text:
            right = RESCUE_RIGHT if "RescueLayer" in call else REBOOT_RIGHT if "::reboot" in call else None
            needed = f"the permission {right!r}" if right else f"the permissions {', '.join(RIGHTS)}"
            return NotAllowed(f"The SoftLayer user may not call {call}: {text}.",
                              todo=f"Give him {needed}, and access to this device, in the portal.")
        if "ObjectNotFound" in str(code) or "Unable to find object" in text:
            return NotFound(f"SoftLayer: {text}.", todo="It may have been cancelled meanwhile, or these credentials do not see it.")
        if code == 404:
            return BadInput(f"This is no endpoint of the SoftLayer API, for it does not know {call}: {text}.",
                            todo="Check softlayer_endpoint_url, or endpoint_url in ~/.softlayer.")
        if code in (401, 403) or re.search(r"Access Denied|Invalid API token|InvalidUserStatus", f"{text} {code}", re.IGNORECASE):
            return NotAllowed(f"SoftLayer does not accept these credentials at {call}: {text}.",
                              todo="Check softlayer_username and softlayer_api_key, SL_USERNAME and SL_API_KEY, or ~/.softlayer.")
        errors = self._softlayer.exceptions
        passes = (errors.ServerError, errors.ApplicationError, errors.RemoteSystemError)
        if isinstance(code, int):
            if code == 0 or is_transient(code) or code < 400:
                return Transient(text, self._was_sent(exc))
        elif isinstance(exc, passes) or text == "Internal Error" or not isinstance(exc, errors.SoftLayerError):
            return Transient(text)
        return ProviderError(f"SoftLayer refused {call}: {text}.", todo="If that does not say why, open a ticket at SoftLayer.")

    def attempt(self, service: str, method: str, *arguments: str, **more: t.Any) -> t.Any:
        """One call, not repeated. Raises one of our exceptions."""
        try:
            answer = self.api.call(service, method, *arguments, **more)
            if answer is None or answer == [None]:
                # Each of those that are made here answers something. What is no list, the client makes one of.
                raise Transient(f"SoftLayer_{service}::{method} answered nothing")
            return answer
        except (self._softlayer.SoftLayerError, ExpatError, KeyError) as exc:
            # The last two: an answer of a proxy, which the client takes for one of the API.
            raise self._judge(exc, f"SoftLayer_{service}::{method}") from exc

    def call(self, service: str, method: str, **more: t.Any) -> t.Any:
        """One call that is safe to repeat, repeated while its failure is one that passes."""
        return repeated(self._owner, lambda: self.attempt(service, method, **more),
                        lambda last: self.down(f"SoftLayer_{service}::{method}", last))

    def down(self, call: str, last: Transient | None, unsure: bool = False) -> Exception:
        """The error of an API that failed for too long. unsure: the call may have arrived, and is one that does something."""
        why = self._one_line(last.what) if last else "nothing shows whether it arrived"
        return ProviderError(f"The SoftLayer API failed for {self._owner.patience:g} s at {call}: {why}.",
                             state="Whether it arrived is not known; the next run looks for that first." if unsure else None,
                             todo="Try again later; https://cloud.ibm.com/status tells of outages.")

    def _list(self, kind: str, field: str | None = None, value: t.Any = None) -> list[dict[str, t.Any]]:
        method, key = ("getVirtualGuests", "virtualGuests") if kind == "vs" else ("getHardware", "hardware")
        # A filter that the API does not understand lets everything through, so what comes is looked at again.
        wanted = {key: {field: {"operation": value if isinstance(value, int) else f"_= {value}"}}} if field else None
        found = self.call("Account", method, mask="mask[id,hostname,fullyQualifiedDomainName,primaryIpAddress,primaryBackendIpAddress]",
                          filter=wanted, iter=True)
        return [{**server, "name": f"{kind}:{server['id']}"} for server in found
                if field is None or str(server.get(field, "")).lower() == str(value).lower()]

    def _search(self, field: str | None = None, value: t.Any = None) -> list[dict[str, t.Any]]:
        """Servers of both kinds. Who may see one kind only sees those."""
        found: list[dict[str, t.Any]] = []
        denied: list[NotAllowed] = []
        for kind in ("vs", "hw"):
            try:
                found += self._list(kind, field, value)
            except NotAllowed as exc:
                denied.append(exc)
        if len(denied) == 2:
            raise denied[0]
        return found

    def machine(self, name: str) -> Machine:
        """The machine that a name means."""
        if name not in self._machines:
            self._machines[name] = self._resolve(name)
        return self._machines[name]

    def _resolve(self, name: str) -> Machine:
        exact = re.fullmatch(r"(vs|hw):([0-9]{1,10})", name)
        if exact and int(exact[2]) <= _LONGEST_ID:
            return Machine(exact[1], int(exact[2]))
        found: list[dict[str, t.Any]] = []
        if re.fullmatch(r"[0-9]{1,10}", name) and int(name) <= _LONGEST_ID:
            found = self._search("id", int(name))
        # A hostname may have dots, too.
        for field in ("fullyQualifiedDomainName", "hostname"):
            if not found and re.fullmatch(r"[\w.-]+", name):
                found = self._search(field, name)
        if not found:
            raise self._unknown(name)
        if len(found) > 1:
            many = "; ".join(f"{server['name']}, {server.get('fullyQualifiedDomainName')}, {server.get('primaryIpAddress')}"
                             for server in found)
            raise BadInput(f"SoftLayer has more than one server {name!r}.", todo=f"Name one of these by its id: {many}.")
        kind, _colon, number = found[0]["name"].partition(":")
        return Machine(kind, int(number))

    def _unknown(self, name: str) -> NotFound:
        return NotFound(f"SoftLayer knows no server {name!r}.", todo=f"These credentials see: {', '.join(self.list_servers()) or 'none'}.")

    def list_servers(self) -> list[str]:
        """Names with domain; where two servers have the same, their ids."""
        return sorted(self.named())

    def named(self) -> dict[str, dict[str, t.Any]]:
        """All servers, by their names."""
        found = [(server.get("fullyQualifiedDomainName") or server["name"], server) for server in self._search()]
        names = collections.Counter(name for name, dummy in found)
        return {name if names[name] == 1 else server["name"]: server for name, server in found}

    def read(self, name: str, mask: str) -> dict[str, t.Any]:
        """What the API shows of a server. mask: of which properties."""
        machine = self.machine(name)
        try:
            return self.call(machine.service, "getObject", id=machine.id, mask=mask)
        except NotFound as exc:
            raise self._unknown(name) from exc
