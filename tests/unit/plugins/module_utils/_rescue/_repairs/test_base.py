# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a repair is run, by one whose parts fail as a test wants."""

from __future__ import annotations

import pytest

from ansible_collections.lifeboat.rescue.plugins.module_utils._errors import BadInput, TargetError
from ansible_collections.lifeboat.rescue.plugins.module_utils._rescue._changes import Change
from ansible_collections.lifeboat.rescue.plugins.module_utils._rescue._repairs._base import Finding, NotProved, Repair, run

BROKEN = Finding("toy.broken", "no_boot", "It is broken.")
KEYS = {"changed", "needed", "findings", "changes", "diff", "proof", "warnings", "msg", "timings"}


class Step(Change):
    """fails: where, `apply` or `undo`."""

    def __init__(self, told, path, fails=""):
        super().__init__("/", path, f"{path} done")
        self.told, self.fails = told, fails

    def apply(self):
        self.told.append(f"apply {self.path}")
        if "apply" in self.fails:
            raise TargetError(f"{self.path} fails.")

    def undo(self):
        self.told.append(f"undo {self.path}")
        if "undo" in self.fails:
            raise TargetError("It cannot be written.")


class Toy(Repair):
    """findings: of each check. fails: what raises. helps: whether what is done helps."""

    name = "toy"

    def __init__(self, findings=(BROKEN,), fails="", helps=True, steps=("", "")):
        super().__init__(None, "/")
        self.told, self.findings, self.fails, self.helps, self.steps = [], list(findings), fails, helps, steps

    def _say(self, what):
        self.told.append(what)
        if what == self.fails:
            raise BadInput(f"{what} fails.", "Nothing was changed.")

    def check(self):
        self._say("check" if "check" not in self.told else "check again")
        is_fixed = self.helps and any(each.startswith("apply") for each in self.told)
        return [finding for finding in self.findings if not (is_fixed and finding.fixable)]

    def plan(self, findings):
        self._say("plan")
        return [Step(self.told, f"/{number}", fails) for number, fails in enumerate(self.steps, 1)
                if any(finding.fixable for finding in findings)]

    def rehearse(self, changes):
        self._say("rehearse")

    def prove(self):
        self._say("prove")
        return "It is seen to work."


def test_the_order():
    toy = Toy()
    result = run(toy, check_mode=False)
    assert toy.told == ["check", "plan", "rehearse", "apply /1", "apply /2", "prove", "check again"]
    assert set(result) == KEYS and (result["changed"], result["needed"], result["proof"]) == (True, True, "It is seen to work.")
    assert result["changes"] == [{"what": f"/{n} done", "path": f"/{n}", "backup": None} for n in (1, 2)]
    assert result["findings"] == [{"code": "toy.broken", "severity": "no_boot", "sentence": "It is broken.", "evidence": {},
                                   "certain": True, "fixable": True}]
    assert result["msg"] == "/1 done; /2 done." and set(result["timings"]) == {"check", "plan", "apply"}


def test_check_mode_ends_before_the_first_change():
    toy = Toy()
    result = run(toy, check_mode=True)
    assert toy.told == ["check", "plan", "rehearse"] and set(result) == KEYS
    assert (result["changed"], result["needed"], result["proof"]) == (True, True, None)


@pytest.mark.parametrize(("findings", "needed", "warnings"), [
    ([], False, []),
    ([Finding("a.b", "note", "Odd.", fixable=False)], False, []),
    ([Finding("a.b", "no_login", "Nobody gets in.", fixable=False)], False, ["Nobody gets in."]),
    ([Finding("a.b", "no_login", "Perhaps.", certain=False)], None, []),
    ([Finding("a.b", "no_login", "Perhaps.", certain=False), Finding("a.c", "degraded", "Surely.")], True, []),
])
def test_needed(findings, needed, warnings):
    result = run(Toy(findings), check_mode=True)
    assert (result["needed"], result["warnings"]) == (needed, warnings)


@pytest.mark.parametrize("fails", ["check", "plan", "rehearse"])
def test_what_fails_before_the_first_change_has_changed_nothing(fails):
    toy = Toy(fails=fails)
    with pytest.raises(BadInput, match=r"fails\. Nothing was changed"):
        run(toy, check_mode=False)
    assert not [each for each in toy.told if each.startswith(("apply", "undo"))]


@pytest.mark.parametrize(("options", "error", "told"), [
    ({"steps": ("", "apply", "")}, TargetError, ["apply /1", "apply /2", "undo /2", "undo /1"]),
    ({"fails": "prove"}, BadInput, ["apply /1", "apply /2", "prove", "undo /2", "undo /1"]),
    ({"fails": "check again"}, BadInput, ["apply /1", "apply /2", "prove", "check again", "undo /2", "undo /1"]),
    ({"helps": False}, NotProved, ["apply /1", "apply /2", "prove", "check again", "undo /2", "undo /1"]),
])
def test_what_was_done_is_taken_back_in_reverse(options, error, told):
    toy = Toy(**options)
    with pytest.raises(error, match="Everything was put back as it was"):
        run(toy, check_mode=False)
    assert toy.told[3:] == told


def test_what_cannot_be_put_back_is_named_and_the_rest_is_put_back():
    toy = Toy(fails="prove", steps=("", "undo", ""))
    with pytest.raises(BadInput, match=r"Not put back as it was: /2 \(It cannot be written\.\)"):
        run(toy, check_mode=False)
    assert toy.told[-3:] == ["undo /3", "undo /2", "undo /1"]


def test_an_exception_of_another_kind_is_taken_back_too(monkeypatch):
    toy = Toy()

    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(toy, "prove", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(toy, check_mode=False)
    assert toy.told[-2:] == ["undo /2", "undo /1"]
