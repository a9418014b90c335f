# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Calls to a provider's API that fail, in the process that makes them by requests, as all of the vendors' clients do.

    calls = Calls({"site": 3, "kind": "reset, done", "for_good": False})

The third call that is a new one, or follows another one than before, is carried out, and its answer is lost.
"""

from __future__ import annotations

import http.client
import io
import json
import re
import time
import typing as t
from collections.abc import Callable
from unittest import mock
from urllib.parse import unquote

import requests
from urllib3.exceptions import ProtocolError
from urllib3.response import HTTPResponse


def label(request: requests.PreparedRequest) -> str:
    """What a request asks for."""
    body = request.body.decode() if isinstance(request.body, bytes) else request.body or ""
    path = re.sub(r"[0-9a-f-]{32,36}|(?<=/)\d+", "ID", request.path_url.partition("?")[0])
    words = [request.method or "", path]
    method = re.search(r"<methodName>(\w+)<", body)
    mask = re.search(r"mask\[id,(\w+)", unquote(body + request.path_url))
    if mask:
        words[1] += f" {mask[1]}"
    if method:
        words.append(method[1])
    elif "/rest/v3" in path:
        words.append(path.rpartition("/")[2].removesuffix(".json"))
    elif path.endswith("/action"):
        words[1] += f" {next(iter(json.loads(body)))}"
    return " ".join(words)


# Answers that are none of the API's own, or say that it does not do it: status, body, headers. What the clients make of them differs.
ANSWERS = {
    "500": (500, '{"message": "Internal server error"}', {}),
    "503-html": (503, "<html><body><h1>503 Service Unavailable</h1></body></html>", {"Content-Type": "text/html"}),
    "429": (429, '{"message": "Too many requests"}', {"Retry-After": "2"}),
    "408": (408, '{"message": "Request timeout"}', {}),
    "403": (403, '{"errorCode": "NOT_GRANTED_CALL", "message": "This call has not been granted", "httpCode": "403 Forbidden"}', {}),
    "404": (404, '{"message": "The requested object does not exist"}', {}),
    "409": (409, '{"message": "An action is already running"}', {}),
    "broken-json": (200, '{"id": 1', {}),
    "empty": (200, "", {}),
    "null": (200, "null", {}),
}
# Of these the call may have been carried out before.
BEFORE_AND_AFTER = ("time-out", "reset", "500")
KINDS = [f"{kind}, {when}" for kind in BEFORE_AND_AFTER for when in ("not done", "done")] + \
        [kind for kind in ANSWERS if kind not in BEFORE_AND_AFTER]
# How long the clients wait for an answer, of which each is made with 30 s.
TIME_OUT = 30.0


class Fault:
    """What goes wrong at one call, once or for good.

    fault: {"site": n, "kind": one of KINDS, "for_good": whether each call of that name fails from then on}. pause: takes the seconds
    that a time-out takes.
    """

    def __init__(self, fault: dict[str, t.Any], pause: Callable[[float], None]):
        self.site: int = fault["site"]
        self.kind, _comma, self.when = fault["kind"].partition(", ")
        self.for_good: bool = fault["for_good"]
        self.pause = pause
        self.name: str | None = None

    def strikes(self, number: int | None, call: str) -> bool:
        """Whether this call fails. number: which site it is, or None for none."""
        if self.name is None and number == self.site:
            self.name = call
            return True
        return self.for_good and call == self.name

    def answer(self, request: requests.PreparedRequest, send: Callable[[], requests.Response]) -> requests.Response:
        """A response, or what requests raises."""
        if self.when == "done":
            send()
        if self.kind == "time-out":
            self.pause(TIME_OUT)
            raise requests.exceptions.ReadTimeout("Read timed out. (read timeout=30)", request=request)
        if self.kind == "reset":
            raise requests.exceptions.ConnectionError(
                ProtocolError("Connection aborted.", ConnectionResetError(104, "Connection reset by peer")), request=request)
        response = requests.Response()
        status, body, headers = ANSWERS[self.kind]
        response.status_code, response.reason = status, http.client.responses[status]
        response.raw = HTTPResponse(io.BytesIO(body.encode()), headers={"Content-Type": "application/json", **headers}, status=status,
                                    preload_content=False)
        response.headers = requests.structures.CaseInsensitiveDict(response.raw.headers)
        response.url, response.request = request.url or "", request
        return response


class Calls:
    """All calls of this process from now on. made: what each asked for. sites: those at which one can fail, so that polling is one.

    before, after: called with what a call asks for before it is made, and after the answer of one that is a site came.
    """

    def __init__(self, fault: dict[str, t.Any] | None = None, pause: Callable[[float], None] = time.sleep,
                 before: Callable[[str], None] = lambda call: None, after: Callable[[str], None] = lambda call: None):
        self.made: list[str] = []
        self.sites: list[str] = []
        self._fault = Fault(fault, pause) if fault else None
        self._before, self._after = before, after
        self._seen: set[tuple[str | None, str]] = set()
        real = requests.Session.send

        def send(session: requests.Session, request: requests.PreparedRequest, **more: t.Any) -> requests.Response:
            return self._make(request, lambda: real(session, request, **more))

        mock.patch.object(requests.Session, "send", send).start()

    def _make(self, request: requests.PreparedRequest, send: Callable[[], requests.Response]) -> requests.Response:
        call = label(request)
        step = (self.made[-1] if self.made else None, call)
        self.made.append(call)
        is_new = step not in self._seen
        if is_new:
            self.sites.append(call)
        self._before(call)
        if self._fault and self._fault.strikes(len(self.sites) if is_new else None, call):
            self._seen.add(step)
            return self._fault.answer(request, send)
        response = send()
        if is_new:
            self._seen.add(step)
            self._after(call)
        return response
