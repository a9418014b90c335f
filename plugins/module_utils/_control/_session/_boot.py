# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The boot option, and a reboot without a change of system. Private to this collection."""

from __future__ import annotations

import dataclasses
import typing as t

from ..._errors import BadInput, WrongSystem
from .._providers import _base
from . import _enter, _in_use, _observe, _reboot, _record, _result, _settings, _words
from ._evidence import INSTALLED, RESCUE, UNKNOWN

if t.TYPE_CHECKING:
    from ._context import Context


def netboot(ctx: Context, wanted: str) -> dict[str, t.Any]:
    """Set what boots next, and reboot nothing."""
    name = ctx.options.server
    if not ctx.is_separate:
        raise BadInput(f"{ctx.provider.facts.name} cannot set what boots next without rebooting at once.",
                       state="Nothing was changed.",
                       todo="Use rescue_mode, which does both: state=present for the rescue system, state=absent for the disk.")
    server = ctx.provider.read_server(name)
    option = ctx.provider.choose(name, wanted)
    if option.kind == _base.POWEROFF and wanted != "poweroff":
        raise BadInput(f"{option.name} powers {name} off at each boot.", state="Nothing was changed.",
                       todo="If that is what you want, say boot=poweroff.")
    changed = server.boot != option.id
    before = _observe.boot_option(ctx, server, None) if changed else option
    if changed and not ctx.check_mode:
        settings = ctx.provider.boot_settings(option)
        if _settings.write_and_read(ctx, name, settings, settings).boot != option.id:
            raise WrongSystem(f"The provider accepted the boot option {option.name} for {name}, but it is not set.",
                              state="Nothing was rebooted.", todo="Run this again.")
    record = ctx.folder.load()
    return {**_words.session_words(record), "changed": changed, "provider": ctx.provider.facts.name, "server": name,
            "boot": option.as_result(), "armed": _observe.is_armed(option), "session": _result.session_result(ctx, record),
            "diff": {"before": {"boot": before.as_result() if before else None}, "after": {"boot": option.as_result()},
                     "before_header": f"{name} next boot", "after_header": f"{name} next boot"}}


def plain_reboot(ctx: Context) -> dict[str, t.Any]:
    """Reboot into whatever is set to boot next."""
    record = ctx.folder.load()
    server, observation = _observe.observe(ctx, record)
    option = _observe.boot_option(ctx, server, record)
    # Out of the session it is no step of it, so nothing of it is to be in its record.
    work = dataclasses.replace(record) if record else _observe.empty_record(ctx, server)
    if observation.system == RESCUE:
        _in_use.refuse_dirty(ctx, work, observation)
    elif record and record.phase == _record.RESCUE and observation.system == UNKNOWN and not ctx.options.force:
        raise _words.silent(ctx, server, observation)
    if option is not None and option.kind == _base.POWEROFF:
        raise BadInput(f"{server.name} is set to power off at its next boot.", state="Nothing was rebooted.",
                       todo="Set another boot option with the module netboot first.")
    goal = RESCUE if _observe.is_armed(option) else INSTALLED
    if ctx.check_mode:
        return _result.make(ctx, server, record, observation, option, changed=True)
    # Within a session it is one of its steps. Otherwise nothing is to be remembered of it.
    ctx.remember = record is not None and goal == RESCUE
    work.reboot = None
    work.tasks = []
    observation = _reboot.reboot(ctx, work, goal, observation, any_boot=record is None or goal == INSTALLED)
    if ctx.remember:
        _enter.settle(ctx, work, observation)
    result = _result.make(ctx, server, work if ctx.remember else record, observation, option, changed=True)
    result["fresh"] = True
    result["tasks"] = work.tasks
    result.update(_words.session_words(work if ctx.remember else record))
    return result
