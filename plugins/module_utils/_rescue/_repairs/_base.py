# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The contract of a repair, and how each is run. Private to this collection.

    findings = repair.check()         what is wrong; writes nothing
    changes = repair.plan(findings)   what would be done; all bad input ends here
    repair.rehearse(changes)          proves the plan beforehand, where that can be done
                                      check mode ends here
    change.apply(), each              the old content is kept beside the new one
    repair.prove()                    by the field's own checker, or by asking the kernel
    repair.check()                    finds nothing more that this repair fixes

Where anything fails from the first change on, all of them are taken back, the last one first.
"""

from __future__ import annotations

import abc
import contextlib
import time
import typing as t

from ..._errors import LifeboatError

if t.TYPE_CHECKING:
    from .._changes import Change
    from .._command import Runner

Severity = t.Literal["no_boot", "no_login", "degraded", "note"]
Stage = t.Literal["before_mount", "mounted", "any"]
Result = t.Dict[str, t.Any]


class Finding(t.NamedTuple):
    """One thing that is wrong with the target.

    code: stable, `<what>.<how>`. sentence: for people. evidence: JSON data, no secret. certain: False where it only may be so.
    fixable: whether this repair, with the options that it has, fixes it.
    """

    code: str
    severity: Severity
    sentence: str
    evidence: t.Mapping[str, t.Any] = {}
    certain: bool = True
    fixable: bool = True

    def as_result(self) -> dict[str, t.Any]:
        """For the module's result."""
        return {**self._asdict(), "evidence": dict(self.evidence)}


class NotProved(LifeboatError):
    """What was done did not have its effect."""

    code = "not_proved"


class Repair(abc.ABC):
    """One repair of the target at root, by the options that it was made with. Making it raises BadInput for those that cannot be right.

    name: of the role, the module, the file, the test and the page. stage: when it can run. runs_target: whether it runs programs of the
    target.
    """

    name: t.ClassVar[str]
    stage: t.ClassVar[Stage] = "mounted"
    runs_target: t.ClassVar[bool] = False

    def __init__(self, run: Runner, root: str):
        self.run = run
        self.root = root

    @abc.abstractmethod
    def check(self) -> list[Finding]:
        """What is wrong. Writes nothing. Raises LifeboatError where that cannot be told."""

    @abc.abstractmethod
    def plan(self, findings: t.Sequence[Finding]) -> list[Change]:
        """What would be done about what is fixable, in this order. Writes nothing. Raises LifeboatError where nothing can be done."""

    def rehearse(self, changes: t.Sequence[Change]) -> None:  # noqa: B027 - a default, not something to be overridden
        """Prove the plan beforehand. Raises LifeboatError where it would not help. Default: it cannot be tried out."""

    @abc.abstractmethod
    def prove(self) -> str:
        """How it is known that what was done has its effect, as a sentence. Raises LifeboatError where it has not."""

    def summary(self, changes: t.Sequence[Change]) -> str:
        """What was found or done, in a sentence."""
        return f"{'; '.join(change.what for change in changes)}." if changes else "Nothing of what was asked for is needed."

    def held(self, changes_follow: bool) -> t.ContextManager[object]:
        """What keeps others away meanwhile. changes_follow: False in check mode."""
        return contextlib.nullcontext()


def run(repair: Repair, check_mode: bool) -> Result:
    """Run it. Return the module's result, with the same keys for each repair. Raises LifeboatError; then the target is as it was."""
    timings: dict[str, float] = {}
    with repair.held(not check_mode):
        with _timed(timings, "check"):
            findings = repair.check()
        with _timed(timings, "plan"):
            changes = repair.plan(findings)
            repair.rehearse(changes)
        proof = None
        if changes and not check_mode:
            with _timed(timings, "apply"):
                proof = _apply(repair, changes)
    return {
        "changed": bool(changes),
        "needed": _is_needed(findings),
        "findings": [finding.as_result() for finding in findings],
        "changes": [change.as_result() for change in changes],
        "diff": [diff for diff in (change.diff() for change in changes) if diff],
        "proof": proof,
        "warnings": [finding.sentence for finding in findings if not finding.fixable and finding.severity in ("no_boot", "no_login")],
        "msg": repair.summary(changes),
        "timings": timings,
    }


def _is_needed(findings: t.Iterable[Finding]) -> bool | None:
    """None where it cannot be told."""
    fixable = [finding for finding in findings if finding.fixable]
    return any(finding.certain for finding in fixable) or (None if fixable else False)


def _apply(repair: Repair, changes: t.Sequence[Change]) -> str:
    """Do it and prove it, or take it back. Returns the proof."""
    begun: list[Change] = []
    try:
        for change in changes:
            begun.append(change)
            change.apply()
        proof = repair.prove()
        left = [finding for finding in repair.check() if finding.fixable and finding.certain]
        if left:
            raise NotProved("What was done did not help: " + " ".join(finding.sentence for finding in left))
        return proof
    except BaseException as exc:
        told = _undo(begun)
        if isinstance(exc, LifeboatError):
            exc.state = told
        raise


def _undo(changes: t.Sequence[Change]) -> str:
    """Take back what was begun, the last one first; what state the target is in then, as a sentence."""
    kept = []
    for change in reversed(changes):
        try:
            change.undo()
        except (LifeboatError, OSError) as exc:
            kept.append(f"{change.path} ({exc})")
    if kept:
        return f"Not put back as it was: {', '.join(kept)}."
    return "Everything was put back as it was."


@contextlib.contextmanager
def _timed(timings: dict[str, float], name: str) -> t.Iterator[None]:
    began = time.monotonic()
    try:
        yield
    finally:
        timings[name] = round(time.monotonic() - began, 3)
