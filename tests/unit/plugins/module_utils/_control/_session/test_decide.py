# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a session does next, in all situations that there are."""

from __future__ import annotations

import itertools

import pytest

from ansible_collections.lifeboat.rescue.plugins.module_utils._control._session._decide import (
    AGAIN,
    ARRIVED,
    BOOT,
    ENDED,
    HARD,
    LATE,
    LEAVE,
    NOTHING,
    OTHERS,
    RESTORE,
    SILENT,
    STAY,
    STAY_UNSEEN,
    TAKE_OVER,
    UNTOLD,
    WAIT,
    WRONG,
    Now,
    Situation,
    entering,
    is_proved,
    leaving,
    next_step,
)

ALL = [Situation(*values) for values in itertools.product(
    ("rescue", "installed"), ("soft", "hard"), ("", "unknown", "rescue", "installed"), (None, False, True), (False, True),
    ("", "queued", "running", "done", "unknown"), (0.0, 100.0), (50.0,), *[(False, True)] * 7)]
PHASES = ("", "arming", "rebooting", "rescue", "restoring", "leaving")
BEFORE = [Now(*values) for values in itertools.product(
    PHASES, ("unknown", "rescue", "installed"), (False, True), (None, False, True), (False, True), (None, False, True),
    *[(False, True)] * 7)]


def named(now):
    return ", ".join(f"{name}={value}" for name, value in now._asdict().items())


@pytest.mark.parametrize(("situation", "step"), [
    # Nobody answers, or who answers cannot be told: that is no reboot, and no system.
    (Situation("rescue", "hard", task="running", seconds=999, patience=420), WAIT),
    (Situation("rescue", "hard", task="done", seconds=10, patience=420), WAIT),
    (Situation("rescue", "hard", "unknown", task="done", seconds=10, patience=420), WAIT),
    (Situation("installed", "hard", "unknown", fresh=True, task="done", seconds=10, patience=420), WAIT),
    # The provider has not begun: whoever answers, the reboot is still to come.
    (Situation("rescue", "hard", "rescue", True, True, "queued", 999, 420), WAIT),
    (Situation("rescue", "hard", "installed", True, True, "queued", 999, 420), WAIT),
    # Proved.
    (Situation("rescue", "hard", "rescue", True, True, "running"), ARRIVED),
    (Situation("rescue", "soft", "rescue", True, True), ARRIVED),
    # It may be the late effect of an earlier request, as long as the provider is at work.
    (Situation("rescue", "hard", "rescue", True, True, "running", alone=False), WAIT),
    (Situation("rescue", "hard", "rescue", True, True, "done", alone=False), ARRIVED),
    (Situation("rescue", "hard", "rescue", True, True, "unknown", alone=False), ARRIVED),
    (Situation("installed", "hard", "installed", True, False, "done"), ARRIVED),
    # A rescue system that does not let us in is of no use; one from before is not what was asked for.
    (Situation("rescue", "hard", "rescue", True, False, "done", 10, 420), WAIT),
    (Situation("rescue", "hard", "rescue", False, True, "done", 10, 420), WAIT),
    # The wrong one has booted.
    (Situation("rescue", "hard", "installed", True, True, "done", 10, 420), AGAIN),
    (Situation("rescue", "hard", "installed", True, True, "done", 10, 420, more=False), WRONG),
    (Situation("installed", "hard", "rescue", True, True, "done", 10, 420), AGAIN),
    (Situation("installed", "soft", "rescue", True, True, "", 10, 420, soft_only=True), WRONG),
    # Something new has booted, and only the provider's password would let us in: another boot brings none.
    (Situation("rescue", "hard", "unknown", True, False, "done", 420, 420, lacks_password=True), LATE),
    (Situation("rescue", "hard", "unknown", None, False, "done", 420, 420, lacks_password=True), AGAIN),
    (Situation("rescue", "hard", "unknown", None, False, "done", 420, 420, lacks_password=True, denied=True), LATE),
    (Situation("rescue", "hard", "", None, False, "done", 420, 420, lacks_password=True, denied=True), AGAIN),
    # No effect in time. On the way into rescue the provider is asked; on the way out only where the rescue system is seen.
    (Situation("rescue", "soft", "installed", False, True, "", 120, 120), HARD),
    (Situation("rescue", "soft", "", seconds=420, patience=420), HARD),
    (Situation("rescue", "hard", "", None, False, "done", 420, 420), AGAIN),
    (Situation("rescue", "hard", "", None, False, "done", 420, 420, more=False), LATE),
    (Situation("installed", "soft", "rescue", False, True, "", 120, 120), HARD),
    (Situation("installed", "soft", "", seconds=420, patience=420), LATE),
    (Situation("installed", "soft", "unknown", seconds=420, patience=420), LATE),
    (Situation("installed", "hard", "rescue", False, True, "done", 420, 420), AGAIN),
    (Situation("installed", "hard", "", None, False, "done", 420, 420), LATE),
    # It is reset on the user's word alone, who has seen that a call ended without proof.
    (Situation("installed", "hard", "", None, False, "done", 420, 420, force=True), AGAIN),
    (Situation("installed", "hard", "unknown", None, False, "done", 420, 420, force=True), AGAIN),
    (Situation("installed", "soft", "unknown", seconds=420, patience=420, force=True), HARD),
    (Situation("installed", "hard", "unknown", None, False, "done", 10, 420, force=True), WAIT),
    (Situation("installed", "hard", "unknown", None, False, "running", 999, 420, force=True), WAIT),
    (Situation("installed", "hard", "installed", True, False, "done", 999, 420, force=True), ARRIVED),
    (Situation("installed", "hard", "unknown", None, False, "done", 420, 420, more=False, force=True), LATE),
    # A reboot for its own sake.
    (Situation("installed", "soft", "installed", False, True, "", 120, 120, any_boot=True), HARD),
    (Situation("installed", "soft", "installed", None, True, "", 420, 420, any_boot=True), LATE),
    (Situation("installed", "soft", "", seconds=420, patience=420, any_boot=True), LATE),
    (Situation("installed", "hard", "installed", None, False, "done", 420, 420, any_boot=True), LATE),
    (Situation("installed", "hard", "unknown", True, False, "done", 10, 420, any_boot=True), ARRIVED),
], ids=lambda value: named(value) if isinstance(value, Situation) else value)
def test_what_is_done_next(situation, step):
    assert next_step(situation) == step


def test_nothing_arrives_without_proof():
    for now in ALL:
        if next_step(now) == ARRIVED:
            assert now.fresh is True and (now.task != "queued" or now.method == "soft"), now
            assert now.any_boot or now.system == now.goal, now
            assert is_proved(now)


def test_while_the_provider_has_work_nothing_more_is_requested():
    for now in ALL:
        if now.method == "hard" and now.task in ("queued", "running"):
            assert next_step(now) in (WAIT, ARRIVED), now


def test_on_the_way_out_nothing_is_reset_but_what_is_proved_to_be_the_rescue_system():
    for now in ALL:
        if now.goal == "installed" and not now.any_boot and not now.force and next_step(now) in (AGAIN, HARD):
            assert now.system == "rescue" and now.fresh is not None, now


def test_every_wait_ends():
    for now in ALL:
        is_open = now.method == "hard" and now.task in ("queued", "running")
        if not is_open and next_step(now._replace(seconds=now.patience)) == WAIT:
            pytest.fail(named(now))


@pytest.mark.parametrize(("now", "step"), [
    # Nobody is in rescue.
    (Now(), BOOT),
    (Now(system="installed", logged_in=True), BOOT),
    (Now(answers=False, armed=True), BOOT),
    # By somebody else, perhaps: who answers does not let us in, or the provider says so.
    (Now(armed=True), OTHERS),
    (Now(armed=True, answers=False, separate=False), OTHERS),
    (Now(armed=True, force=True), BOOT),
    (Now("leaving", armed=True), BOOT),
    # By somebody else: taken over, unless the provider or a familiar host key speaks against it.
    (Now(system="rescue", logged_in=True), TAKE_OVER),
    (Now(system="rescue", logged_in=True, armed=True), TAKE_OVER),
    (Now(system="rescue", logged_in=True, armed=False), BOOT),
    (Now(system="rescue", logged_in=True, familiar=True), BOOT),
    (Now(system="rescue", logged_in=True, force=True), BOOT),
    # By this session.
    (Now("rescue", "rescue", True), STAY),
    (Now("rescue", "rescue", True, armed=False, is_ours=False), STAY),
    (Now("rebooting", "rescue", True, fresh=True), STAY),
    (Now("rebooting", "rescue", True, fresh=True, queued=True), BOOT),
    (Now("rebooting", "rescue", True, fresh=False), BOOT),
    (Now("rescue", "unknown"), SILENT),
    (Now("rescue", "unknown", force=True), BOOT),
    (Now("rescue", "unknown", is_ours=False), SILENT),
    (Now("rescue", "unknown", is_ours=False, separate=False), BOOT),
    (Now("rescue", "unknown", no_ssh=True), STAY_UNSEEN),
    (Now("rescue", "unknown", no_ssh=True, armed=False, is_ours=False), SILENT),
    # A server that did not come back is rescued at once.
    (Now("leaving", "unknown"), BOOT),
    (Now("restoring", "unknown"), BOOT),
    (Now("leaving", "rescue", True), BOOT),
])
def test_how_to_enter(now, step):
    assert entering(now) == step


@pytest.mark.parametrize(("now", "step"), [
    # Nobody is in rescue: success only where that is proved, or is the provider's word.
    (Now(system="installed"), NOTHING),
    (Now(system="installed", separate=False, armed=False), NOTHING),
    # It has an overlay, or comes over the network, as rescue systems do; but its host key is known.
    (Now(system="rescue", familiar=True), NOTHING),
    (Now(system="rescue", familiar=True, armed=True), LEAVE),
    (Now(separate=False, armed=False), NOTHING),
    (Now(), UNTOLD),
    (Now(armed=False), UNTOLD),
    (Now(separate=False), UNTOLD),
    # Somebody else's.
    (Now(system="rescue"), LEAVE),
    (Now(system="installed", armed=True), RESTORE),
    (Now(system="installed", armed=True, separate=False), LEAVE),
    (Now(armed=True), SILENT),
    (Now(armed=True, force=True), LEAVE),
    # This session's.
    (Now("arming", "unknown", armed=True), RESTORE),
    (Now("arming", "installed", armed=True), RESTORE),
    (Now("rebooting", "installed", armed=True), LEAVE),
    (Now("rescue", "rescue", armed=True), LEAVE),
    (Now("rescue", "unknown", armed=True), SILENT),
    (Now("rescue", "unknown", armed=True, force=True), LEAVE),
    (Now("rescue", "unknown", armed=False, separate=False), ENDED),
    (Now("rescue", "installed", armed=True), RESTORE),
    (Now("restoring", "installed"), RESTORE),
    (Now("restoring", "unknown", armed=False, separate=False), RESTORE),
    (Now("leaving", "unknown"), LEAVE),
    (Now("leaving", "installed"), LEAVE),
    # What was requested has failed, so nothing is under way.
    (Now("rebooting", "installed", armed=True, requested=False), RESTORE),
    (Now("leaving", "installed", requested=False), RESTORE),
    (Now("leaving", "unknown", requested=False), UNTOLD),
    (Now("rebooting", "unknown", requested=False), UNTOLD),
    (Now("rebooting", "unknown", requested=False, separate=False, armed=False), RESTORE),
    (Now("leaving", "unknown", requested=False, force=True), LEAVE),
    (Now("leaving", "rescue", requested=False), LEAVE),
])
def test_how_to_leave(now, step):
    assert leaving(now) == step


def test_no_rescue_system_of_a_session_is_rebooted_unasked():
    """Neither while it lets us in, nor while it says nothing: it may be at work."""
    for now in BEFORE:
        if now.phase == "rescue" and now.is_ours and not now.force and now.system != "installed":
            reachable = now.system == "unknown" or now.logged_in
            assert not reachable or entering(now) in (STAY, STAY_UNSEEN, SILENT), now


def test_leaving_ends_well_only_with_proof_and_resets_no_installed_system_unasked():
    for now in BEFORE:
        step = leaving(now)
        if step == NOTHING:
            is_told = now.armed is False and not now.separate
            assert not now.phase and (now.system == "installed" or is_told or (now.familiar and not now.armed)), now
        if step == LEAVE and now.system == "installed":
            # A request that may still come is waited for; where the rescue system is set, that boots next.
            assert (now.phase in ("rebooting", "leaving") and now.requested) or (not now.separate and now.armed), now
