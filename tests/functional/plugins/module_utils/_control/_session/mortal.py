# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Controllers that die by SIGKILL at one of their calls to a provider's API, just before it leaves, or just after its answer came; or
of whose calls one fails.

    python mortal.py

Takes jobs as lines of JSON, one controller process for each, and answers each with a line: {"died": whether it was killed,
"result": the module's result or null, "calls": what it asked the API for, "sites": those at which one can fail, "lines": its progress}.
A job has `params`, those of rescue_mode, and `now`, the time. It may have `kill`: {"when": "after", "number": n} for the n-th call
that is a new one or follows another one than before (so that polling is one), {"when": "before", "number": n} for the n-th call that
is to change something. Or `fault`: {"site": n, "kind": one of KINDS, "for_good": whether each call of that name fails from then on},
for the n-th call that is a new one or follows another one. Nothing of a controller is cleaned up when it dies, and its locks go with it.

Its time is simulated: {"wait": seconds, "asked": how many calls were made by then} is a line of a controller that waits, and the
answer is a line with the time then.
"""

from __future__ import annotations

import gc
import http.client
import io
import json
import logging
import os
import re
import signal
from urllib.parse import unquote

import requests
from urllib3.exceptions import ProtocolError
from urllib3.response import HTTPResponse

from ansible_collections.lifeboat.rescue.plugins.module_utils._control import _entry
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._session import _evidence
from lifeboat_lab.simulated import SimulatedClock

WRITES = re.compile(r"PUT |POST \S*/reboot$|POST \S*/(action|metadata)\b|DELETE |.*SoftLayer_.* (?!get)\w+$")


# Of each library, where nobody answers.
NOBODY = {
    "openstack": {"openstack_auth": {"auth_url": "http://127.0.0.1:1/v3", "username": "nobody", "password": "none", "project_name": "none",
                                     "user_domain_id": "default", "project_domain_id": "default"}},
    "ovh_dedicated": {f"ovh_{name}": "http://127.0.0.1:1" if name == "endpoint" else "none"
                      for name in ("endpoint", "application_key", "application_secret", "consumer_key")},
    "softlayer": {"softlayer_endpoint_url": "http://127.0.0.1:1/xmlrpc", "softlayer_username": "nobody", "softlayer_api_key": "none"},
}


def read_line():
    """A line of standard input, and nothing of the next one, which may be for another process."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            break
        line += byte
    return line


def say(words):
    os.write(1, json.dumps(words).encode() + b"\n")


class Nothing:
    """A world in which nothing happens."""

    now = 0.0

    def advance(self, seconds):
        self.now += seconds


class Elsewhere:
    """The world's time, which is kept by who gives the jobs."""

    def __init__(self, now, calls):
        self.now = now
        self.calls = calls

    def advance(self, seconds):
        say({"wait": seconds, "asked": len(self.calls)})
        self.now = json.loads(read_line())


def label(request):
    """What a request asks for."""
    body = request.body.decode() if isinstance(request.body, bytes) else request.body or ""
    path = re.sub(r"[0-9a-f-]{32,36}|(?<=/)\d+", "ID", request.path_url.partition("?")[0])
    words = [request.method, path]
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
    """What goes wrong at one call, once or for good. clock: by which a time-out takes its time."""

    def __init__(self, fault, clock):
        self.site = fault["site"]
        self.kind, _comma, self.when = fault["kind"].partition(", ")
        self.for_good = fault["for_good"]
        self.clock = clock
        self.name = None

    def strikes(self, number, call):
        """Whether this call fails. number: which site it is, or None for none."""
        if self.name is None and number == self.site:
            self.name = call
            return True
        return self.for_good and call == self.name

    def answer(self, session, request, send, more):
        """A response, or what requests raises."""
        if self.when == "done":
            send(session, request, **more)
        if self.kind == "time-out":
            self.clock.pause(TIME_OUT)
            raise requests.exceptions.ReadTimeout("Read timed out. (read timeout=30)", request=request)
        if self.kind == "reset":
            raise requests.exceptions.ConnectionError(
                ProtocolError("Connection aborted.", ConnectionResetError(104, "Connection reset by peer")), request=request)
        response = requests.Response()
        response.status_code, body, headers = ANSWERS[self.kind]
        response.reason = http.client.responses[response.status_code]
        response.raw = HTTPResponse(io.BytesIO(body.encode()), headers={"Content-Type": "application/json", **headers},
                                    status=response.status_code, preload_content=False)
        response.headers = requests.structures.CaseInsensitiveDict(response.raw.headers)
        response.url, response.request = request.url, request
        return response


def live(job, report):
    """Do the job, in a process of its own; die where it says so. report: file descriptor for its last words."""
    kill, calls, seen, sites, lines = job.get("kill"), [], set(), [], []
    counts = {"before": 0, "after": 0}
    send = requests.Session.send

    def last_words(result=None):
        os.write(report, json.dumps({"calls": calls, "sites": sites, "lines": lines, "result": result}).encode())

    def die_at(when):
        counts[when] += 1
        if kill and (kill["when"], kill["number"]) == (when, counts[when]):
            last_words()
            os.kill(os.getpid(), signal.SIGKILL)

    def mortal_send(session, request, **more):
        call = label(request)
        step = (calls[-1] if calls else None, call)
        calls.append(call)
        is_new = step not in seen
        if is_new:
            sites.append(call)
        if WRITES.match(call):
            die_at("before")
        if fault and fault.strikes(len(sites) if is_new else None, call):
            seen.add(step)
            return fault.answer(session, request, send, more)
        response = send(session, request, **more)
        if is_new:
            seen.add(step)
            die_at("after")
        return response

    clock = SimulatedClock(Elsewhere(job["now"], calls))
    fault = Fault(job["fault"], clock) if job.get("fault") else None
    requests.Session.send = mortal_send
    last_words(_entry.run("rescue_mode", job["params"], False, lines.append, clock))


def main():
    """One controller after the other."""
    # Its thread that looks ahead is in real time; this only makes who waits for it wait less.
    _evidence.Ahead.slice = 0.02
    logging.disable()  # the libraries', of failures that are meant
    for provider, options in NOBODY.items():
        # Their libraries import much at the first call. They do so here, once, and not in each process.
        told = _entry.run("rescue_mode_info", {"provider": provider, "server": "none", "address": "127.0.0.1", "rescue_port": 1,
                                               "session_dir": "/nonexistent", **options}, True, str, SimulatedClock(Nothing()))
        assert "failed for 60 s" in told["msg"], told
    gc.freeze()
    while line := read_line():
        reader, report = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(reader)
            try:
                live(json.loads(line), report)
            finally:
                os._exit(0)
        os.close(report)
        with open(reader, "rb") as stream:
            said = stream.read()
        status = os.waitpid(pid, 0)[1]
        died = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        say({"died": died, **(json.loads(said) if said else {"result": None, "calls": [], "sites": [], "lines": ["no word"]})})


if __name__ == "__main__":
    main()
