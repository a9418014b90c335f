# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each call of an entering by password fails, in each way: by a secret of the API, by mail, by a password that it shows or takes.

As tests/functional/…/_session/test_matrix.py has it for a key, but on boxes, for it is a real sshd that asks for the password; so in real
time, with all cells of a run at once. Each call is one cell by its name, where an entering by key does not make it, or makes none else.
`./dev test matrix` runs all of it (LIFEBOAT_MATRIX=all); another run has a few of the failures, each once. None of these calls
lists what may be late.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import functools
import itertools
import json
import os

import pytest

from lifeboat_lab import failing
from lifeboat_lab.ovh_api import MINIMUM_RULES
from lifeboat_lab.server import Rescue
from lifeboat_lab.unkind import Mixture

from .cells import Bench, Cell

IS_WHOLE = os.environ.get("LIFEBOAT_MATRIX") == "all"
# So many calls in a row are to be enough.
MOST_CALLS = 4
AT_A_TIME = 48
SOME = ("reset, done", "403", "null")
# By name: the provider, and whether the API gives a secret.
WAYS = {"secret": ("ovh_dedicated", True), "mail": ("ovh_dedicated", False), "mail-vps": ("ovh_vps", False),
        "known-vs": ("softlayer", False), "known-hw": ("softlayer_hardware", False), "given": ("openstack", False)}
SECRET = ("POST", "/dedicated/server/*/authenticationSecret")


class PasswordCell(Cell):
    """A server whose rescue system takes a password alone. login: another one than by password."""

    def __init__(self, way, bench, number, login="password"):
        self.way, self.login = way, login
        super().__init__(Mixture(WAYS[way][0], "enter", {}), bench, number)
        if way == "mail":
            self.server.mail.custom_hidden = False

    def next_boot(self):
        boot = super().next_boot()
        by_password = isinstance(boot, Rescue) and self.login == "password"
        return dataclasses.replace(boot, authorized_keys=()) if by_password else boot

    def ask(self, state, fault=None):
        """A call of rescue_mode; what it answers."""
        more = self.bench.by_mail if self.way == "mail" else {}
        self.tell(f"{state}, {fault or 'nothing fails'}")
        answer = self.bench.controllers.call("rescue_mode", self.params(state=state, login=self.login, **more), 600.0, fault)
        for seconds, line in answer["lines"]:
            self.tell(f"  after {seconds} s: {line}")
        self.tell(f"  after {answer['seconds']} s: {answer['result'].get('msg', 'done')}")
        return answer

    def clean(self):
        """The sites of an entering in which nothing fails, and after it, the server is as it was."""
        answer = self.ask("present")
        self.demand(not answer["result"].get("failed"), "It fails without a fault")
        self.leave()
        return answer["sites"]

    def leave(self):
        self.settle()
        result = self.ask("absent")["result"]
        self.demand(not result.get("failed") and result["running"] == "installed", "It cannot leave")
        self.settle()
        self.demand(self.kinds() == ["installed", "rescue", "installed"], f"More was rebooted than once: {self.kinds()}")
        self.demand(self.settings() == self.before and not self.records, "Something is left")

    def run(self, fault):
        """There and back, while a call of the way in fails. The code of the failure, or "ok"."""
        answer = self.ask("present", fault)
        first = answer["result"]
        failure = first.get("failure") or {}
        if first.get("failed"):
            self.demand("Internal error" not in first["msg"] and failure["code"] != "error" and failure["todo"], "It has no name for it")
            self.demand(failure["state"] or not first["changed"], "It does not say what state the server is in")
        else:
            self.demand(first["running"] == "rescue" == self.kinds()[-1], "It says rescue, which does not run")
        text = json.dumps(answer)
        self.demand(not any(secret in text for secret in self.account.sensitive()), "A secret is shown")
        result = first
        for _again in range(MOST_CALLS - 1):
            if not result.get("failed"):
                break
            self.settle()
            result = self.ask("present")["result"]
        self.demand(not result.get("failed"), "It does not go on")
        self.leave()
        return failure.get("code", "ok")


def run_one(bench, numbers, way, fault=None, login="password"):
    """One cell; of one without a fault, its sites."""
    with bench.room(WAYS[way][0]):
        cell = PasswordCell(way, bench, next(numbers), login)
        try:
            return cell.run(fault) if fault else cell.clean()
        finally:
            cell.close()


def cells():
    """What each test is about, for those that this run has."""
    for way, kind, for_good in itertools.product(WAYS, failing.KINDS, (False, True)):
        # Nova costs as much as all the others.
        if IS_WHOLE or (kind in SOME and not for_good and way != "given"):
            yield way, kind, for_good


def sites_of(found, by_key):
    """Those that an entering by key does not have, or all where it has the same, each by its name, as (number, call)."""
    others = set() if set(found) <= set(by_key) else set(by_key)
    return [(number, call) for number, call in enumerate(found, 1) if call not in others and call not in found[:number - 1]]


@pytest.fixture(scope="module")
def ended(request, tmp_path_factory):
    """All that this run is to do, done at once, by what each test is about: (call, future) each."""
    bench = Bench(tmp_path_factory.mktemp("matrix"))
    rules = [rule for rule in (*MINIMUM_RULES, ("GET", "/dedicated/server"), ("GET", "/auth/currentCredential")) if rule != SECRET]
    bench.by_mail = {f"ovh_{name}": value for name, value in bench.ovh.add_credential(rules).client_arguments().items()}
    wanted = [tuple(item.callspec.params[name] for name in ("way", "kind", "for_good"))
              for item in request.session.items if item.path == request.path]
    numbers = itertools.count(1)
    with bench.stack, concurrent.futures.ThreadPoolExecutor(AT_A_TIME) as pool:
        run = functools.partial(pool.submit, run_one, bench, numbers)
        ways = list(dict.fromkeys(way for way, *_others in wanted))
        by_password, by_key = ({way: run(way, login=login) for way in ways} for login in ("password", "key"))
        sites = {way: sites_of(by_password[way].result(), by_key[way].result()) for way in ways}
        done = {}
        for way, kind, for_good in wanted:
            faults = [(call, {"site": number, "kind": kind, "for_good": for_good}) for number, call in sites[way]]
            done[way, kind, for_good] = [(call, run(way, fault)) for call, fault in faults]
        yield done


@pytest.mark.parametrize(("way", "kind", "for_good"), list(cells()))
def test_each_call_fails(ended, way, kind, for_good):
    done = ended[way, kind, for_good]
    concurrent.futures.wait([future for _call, future in done])
    bad = [f"{call}: {future.exception()}" for call, future in done if future.exception()]
    assert not bad, "\n".join(bad)
    counts = collections.Counter(future.result() for _call, future in done)
    print(f"{len(done)} cells: {dict(counts)}")
    assert done
