# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a session does next: decided from facts alone, and tested as tables. Private to this collection.

Silence is no fact, nor is a refused login: they prove neither that a server went down nor that it came up.
"""

from __future__ import annotations

import typing as t

from .._providers._base import OPEN, QUEUED
from . import _record
from ._evidence import INSTALLED, RESCUE, UNKNOWN

# How to enter. It is in rescue already, by this session; the same, and nobody logs in by SSH; it is, by somebody else, and lets us
# in; it may be, by somebody else, and does not let us in; it was, and does not answer; boot the rescue system.
STAY = "stay"
STAY_UNSEEN = "stay_unseen"
TAKE_OVER = "take_over"
OTHERS = "others"
SILENT = "silent"
BOOT = "boot"
# How to leave, beside SILENT. The installed system runs, and nothing is to be restored; nobody can tell what runs; the provider ended
# the rescue; restore settings; boot the installed system, and restore.
NOTHING = "nothing"
UNTOLD = "untold"
ENDED = "ended"
RESTORE = "restore"
LEAVE = "leave"


class Now(t.NamedTuple):
    """All that counts before a session's way in or out is taken.

    phase: of the session, "" for none. system: who answers. answers: whether anybody does. logged_in: whether it let us in.
    armed: whether a rescue system boots next; None where nobody tells. is_ours: whether what boots next is this session's, or nobody
    tells. fresh: whether what answers booted after this session's request. queued: whether the provider has not begun with that.
    familiar: whether the host key is one known from before the session. no_ssh: nobody logs in to this rescue system by SSH.
    separate: whether setting what boots and rebooting are two steps. requested: whether a reboot is under way that this session asked
    for. force: the user's word.
    """

    phase: str = ""
    system: str = UNKNOWN
    logged_in: bool = False
    armed: bool | None = None
    is_ours: bool = True
    fresh: bool | None = None
    queued: bool = False
    familiar: bool = False
    no_ssh: bool = False
    separate: bool = True
    requested: bool = True
    force: bool = False
    answers: bool = True


def entering(now: Now) -> str:
    """How to enter."""
    if now.system == RESCUE and now.logged_in:
        if now.phase == _record.RESCUE or (now.phase == _record.REBOOTING and now.fresh is True and not now.queued):
            return STAY
        # A root file system alone is not enough here: an installed system may have an overlay, too.
        if not now.phase and not now.force and not now.familiar and now.armed is not False:
            return TAKE_OVER
    if now.phase == _record.RESCUE and now.system == UNKNOWN and not now.force:
        if now.no_ssh and now.armed is not False:
            return STAY_UNSEEN
        # What boots next says nothing of what runs, where setting that reboots nothing.
        if now.is_ours or now.separate:
            return SILENT
    if not now.phase and now.system == UNKNOWN and now.armed is True and not now.force and (now.answers or not now.separate):
        return OTHERS
    return BOOT


def leaving(now: Now) -> str:
    """How to leave."""
    if not now.phase and now.system == RESCUE and now.familiar and not now.armed:
        return NOTHING  # an installed system may have an overlay, or come over the network
    if not now.phase and now.system != RESCUE and not now.armed:
        # Where setting what boots and rebooting are one, the provider's word is proof enough.
        return NOTHING if now.system == INSTALLED or (now.armed is False and not now.separate) else UNTOLD
    if now.phase in ("", _record.RESCUE) and now.system == UNKNOWN and not now.force:
        return ENDED if not now.separate and now.armed is False else SILENT
    if now.phase in (_record.REBOOTING, _record.LEAVING) and now.system == UNKNOWN and not now.requested and not now.force:
        # The provider says that it rebooted nothing, so it may well be the installed system that runs.
        return RESTORE if not now.separate and now.armed is False else UNTOLD
    # While arming nothing was rebooted; a reboot requested since then may still bring the rescue system. Where that is one with the
    # reboot, restoring is what follows it: the installed system was proved to run, and may be off again by now, as it was before.
    is_back = not now.separate and now.phase == _record.RESTORING
    is_lost = now.system == UNKNOWN and now.phase != _record.ARMING and not is_back
    is_set = not now.separate and now.armed is True
    is_under_way = now.phase in (_record.REBOOTING, _record.LEAVING) and (now.requested or now.system != INSTALLED)
    return LEAVE if now.system == RESCUE or is_under_way or is_lost or is_set else RESTORE


# What a wait for a reboot does next. The goal is proved; look again; ask the provider for a hard reboot; ask it for one more power cycle;
# end, because the wrong system booted; end, because nothing was proved in time.
ARRIVED = "arrived"
WAIT = "wait"
HARD = "hard"
AGAIN = "again"
WRONG = "wrong"
LATE = "late"


class Situation(t.NamedTuple):
    """All that counts.

    goal: the system that is to run. any_boot: a new boot is enough, whatever system it is of. method: soft or hard.
    soft_only: no other method may be used. task: the state of the provider's job, "" if there is none.
    system: who answers, "" for nobody. fresh: whether that booted after the request; None if it is not known.
    logged_in: whether it let us in. seconds: since the request, or, if the provider had a job for it, since that ended.
    patience: the seconds that there are. more: whether one more hard reboot may be requested. lacks_password: whether the provider
    has not given the password by which alone anybody is let in; another boot would bring none. denied: whether we may not even read it.
    force: the user's word, given after an earlier call had ended without proof, that the installed system may be reset. alone: whether
    what answers anew can but come of this request, and not of an earlier one.
    """

    goal: str
    method: str
    system: str = ""
    fresh: bool | None = None
    logged_in: bool = False
    task: str = ""
    seconds: float = 0.0
    patience: float = 0.0
    more: bool = True
    lacks_password: bool = False
    denied: bool = False
    any_boot: bool = False
    soft_only: bool = False
    force: bool = False
    alone: bool = True


def is_proved(now: Situation) -> bool:
    """Whether the goal runs, since the request. A rescue system that does not let us in is of no use."""
    if now.fresh is not True:
        return False
    if now.any_boot:
        return True
    return now.system == now.goal and (now.goal != RESCUE or now.logged_in)


def next_step(now: Situation) -> str:
    """What to do now."""
    if now.method == "hard" and now.task == QUEUED:
        return WAIT  # whatever answers, the reboot that was requested is still to come
    is_open = now.method == "hard" and now.task in OPEN
    if is_proved(now) and (now.alone or not is_open):
        return ARRIVED
    if is_open:
        return WAIT  # the provider takes no other request meanwhile
    if now.system not in ("", UNKNOWN, now.goal) and now.fresh is True:
        return AGAIN if now.more and not now.soft_only else WRONG
    if now.seconds < now.patience:
        return WAIT
    if now.soft_only or (now.lacks_password and (now.fresh is True or (now.denied and bool(now.system)))):
        return LATE
    if now.goal == INSTALLED and not now.force and not _is_still_in_rescue(now):
        # What does not answer may be the installed system, which checks its disks, say. It is reset only if it was to reboot, and is
        # proved not to have done so.
        return HARD if now.method == "soft" and now.any_boot and now.fresh is False else LATE
    if now.method == "soft":
        return HARD
    return AGAIN if now.more else LATE


def _is_still_in_rescue(now: Situation) -> bool:
    """Whether it is proved that the rescue system from before the request still runs."""
    return now.system == RESCUE and now.fresh is False
