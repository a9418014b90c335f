# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The way out of rescue. Private to this collection."""

from __future__ import annotations

import typing as t

from ..._errors import ProviderError, TargetError, TimedOut, WrongSystem
from ..._wait import Backoff
from .._providers._base import BootOption, Refused, Server
from . import _access, _decide, _in_use, _observe, _reboot, _record, _result, _settings
from ._evidence import INSTALLED, RESCUE, Observation
from ._record import Record
from ._words import NAMES

if t.TYPE_CHECKING:
    from ._context import Context


def leave(ctx: Context) -> dict[str, t.Any]:
    """Have the installed system run, and every setting as it was."""
    record = ctx.folder.load()
    server, observation = _observe.observe(ctx, record)
    record = _observe.adopted(ctx, record, server, observation)
    if record is None:
        observation = _access.observe_by_known_password(ctx, server, observation)
    option = _observe.boot_option(ctx, server, record)
    step = _decide.leaving(_decide.Now(
        phase=record.phase if record else "", system=observation.system, armed=_observe.is_armed(option), separate=ctx.is_separate,
        familiar=observation.host_key is not None and observation.host_key in _observe.known_keys(ctx, None).familiar,
        requested=record is not None and record.reboot is not None, force=ctx.options.force))
    if step == _decide.NOTHING:
        return _result.make(ctx, server, None, observation, option, changed=False)
    if step in (_decide.UNTOLD, _decide.ENDED, _decide.SILENT):
        raise _refusal(ctx, step, record, server, observation, option)
    record = record or _record_of_another(ctx, server, observation)
    record.installed_host_keys = list({*record.installed_host_keys, *ctx.options.installed_host_keys})
    if observation.system == RESCUE:
        # Refused while something is mounted, whatever the phase: only a request to reboot goes before it.
        _in_use.refuse_dirty(ctx, record, observation)
    if ctx.check_mode:
        return _result.make(ctx, server, record, observation, option, changed=True, before=server.settings, after=record.before)
    return _carry_out(ctx, record, server, observation, must_reboot=step == _decide.LEAVE)


def _carry_out(ctx: Context, record: Record, server: Server, observation: Observation, must_reboot: bool) -> dict[str, t.Any]:
    before = dict(server.settings)
    changes = _to_restore(ctx, record, server)
    boots = {name: value for name, value in changes.items() if name in ctx.provider.facts.boots_by}
    if boots and ctx.is_separate:
        if record.phase != _record.LEAVING:
            ctx.save(record, _record.RESTORING if must_reboot else record.phase)
        server = _restore_boot_option(ctx, server, boots)
    ctx.mark("restored")
    if must_reboot:
        if record.phase != _record.LEAVING:
            record.reboot = None
            ctx.save(record, _record.LEAVING)
        observation = _reboot.reboot(ctx, record, INSTALLED, observation, option=_way_out(ctx, server))
    # The rest comes when the installed system is back: should the rescue system boot once more, it lets the session's key in.
    if must_reboot and not ctx.is_separate:
        ctx.save(record, _record.RESTORING)
    server, may_pass = _restored(ctx, record, server)
    if may_pass and not record.failed_to_restore:
        raise _not_yet_restored(ctx, record, server, observation)
    ctx.folder.clear()
    result = _result.make(ctx, server, None, observation, _observe.boot_option(ctx, server, None), changed=True, before=before,
                          after=server.settings)
    result["tasks"] = record.tasks
    warnings = _not_restored(ctx, record, server)
    if warnings:
        result["warnings"] = warnings
    if must_reboot:
        # That is what was waited for.
        result["fresh"] = True
    return result


def _record_of_another(ctx: Context, server: Server, observation: Observation) -> Record:
    """A record for what somebody else has begun, and we end."""
    record = _observe.empty_record(ctx, server)
    record.before = ctx.provider.restorable_settings(server)
    record.phase = _record.RESCUE
    record.rescue_host_key = observation.host_key.line if observation.host_key and observation.system == RESCUE else None
    return record


def _not_yet_restored(ctx: Context, record: Record, server: Server, observation: Observation) -> ProviderError:
    """Settings that are not restored, for a reason that may pass. The next call that finds the installed system tries it once more, and
    ends the session in any case. The phase stays: what was requested by then has happened, and is not requested again.
    """
    record.failed_to_restore = True
    ctx.save(record, record.phase)
    left = _to_restore(ctx, record, server)
    values = " ".join(f"{name} was {value!r}, and is {server.settings.get(name)!r}."
                      for name, value in left.items() if name in record.before)
    return ProviderError(
        f"The provider did not restore {', '.join(left)} of {server.name}.",
        state=" ".join(filter(None, (f"{NAMES[observation.system].capitalize()} runs.", values, "The session stays open for that."))),
        todo="Run this again. If it is not restored then either, that call says so and ends the session.")


def _not_restored(ctx: Context, record: Record, server: Server) -> list[str]:
    """A sentence for each setting that is not as it was, or of which nobody knows."""
    left = _settings.differing(ctx, server, record.before)
    return [f"The provider did not restore {name} of {server.name}: it was {value!r}, and is {server.settings.get(name)!r}. "
            "Set it by hand." for name, value in left.items()] + \
           [f"The provider does not show {name} of {server.name}, so it is not known what it was before, nor what it is now. Look at it."
            for name in _unknown(record)]


def _refusal(ctx: Context, step: str, record: Record | None, server: Server, observation: Observation,
             option: BootOption | None) -> TargetError:
    """Why leaving is refused."""
    if step == _decide.UNTOLD:
        why = f"{observation.reason}{f': {observation.refused}' if observation.refused else f' ({observation.heard})'}".rstrip(".")
        set_to = f"The provider has it boot {option.name} next, which says nothing of what runs. " if option else ""
        todo = "If it may be in rescue, run this on the controller that has its session, or log in with its key (private_key_file)."
        if record is not None:
            todo = f"The reboot that this session requested has failed. {ctx.options.by_force} reboots it into its own system, " \
                   "whatever runs."
        return TargetError(f"Cannot tell which system runs on {server.name}: {why}.",
                           state=f"{set_to}Nothing was changed.",
                           todo=f"{todo} The installed system is known by a login, by its host key in known_hosts or in "
                                "installed_host_keys.")
    if step == _decide.ENDED:
        return TargetError(
            f"{server.name} is no longer in rescue: {ctx.provider.facts.name} has it boot {option.name if option else ''}, "
            f"and nobody answers there by SSH ({observation.heard}).",
            state="This call changed nothing. Somebody ended the rescue, or the provider did after its own time for it.",
            todo="Look at its console. state=present brings it into rescue again; "
                 f"{ctx.options.by_force} reboots it once more into its own system, which "
                 "installed_host_keys or proof_port tell where it lets nobody in by SSH.")
    set_to = "" if option is None else f"; the server is set to boot {option.name}"
    return TargetError(
        f"The rescue system of {server.name} does not answer ({observation.heard}), so nobody can say whether "
        "something of the installed system is still mounted there.",
        state=f"Nothing was changed{set_to}.",
        todo=f"Look at its console; run this again when it answers, or with {ctx.options.by_force}.")


def _unknown(record: Record) -> list[str]:
    """Settings that this session has changed, without knowing what they were."""
    return [name for name in record.armed if name not in record.before]


def _to_restore(ctx: Context, record: Record, server: Server) -> dict[str, t.Any]:
    """The settings that are not as they were; of what they were is not known, they are to be empty."""
    return {**_settings.differing(ctx, server, record.before), **dict.fromkeys(_unknown(record))}


def _restore_boot_option(ctx: Context, server: Server, boots: t.Mapping[str, t.Any]) -> Server:
    """Have the installed system boot next. What is not set is not rebooted into."""
    ctx.say("api", "restoring what boots next")
    server = _settings.write_and_read(ctx, server.name, boots, boots)
    if _settings.differing(ctx, server, boots):
        option = _observe.boot_option(ctx, server, None)
        raise WrongSystem(f"The provider accepted what is to boot next on {server.name}, but it is not set.",
                          state=f"{option.name if option else 'Something else'} is set to boot next; nothing was rebooted.",
                          todo="Run this again; if that does not help, set it by hand.")
    return server


def _way_out(ctx: Context, server: Server) -> BootOption | None:
    """What to have booted for leaving; None where any reboot does, because the provider's settings are right by then."""
    if ctx.is_separate or not ctx.provider.facts.boot_option_lasts:
        return None
    return ctx.provider.choose(server.name, "harddisk")


def _restored(ctx: Context, record: Record, server: Server) -> tuple[Server, bool]:
    """Restore what is left to restore, with the installed system back. Whether what keeps the rest from it may pass by itself."""
    if ctx.is_separate:
        changes = _to_restore(ctx, record, server)
        if not changes:
            return server, False
        ctx.say("api", "restoring the provider's settings")
        try:
            server = _settings.write_and_read(ctx, record.server, changes, record.before)
            # What is not shown may well be restored; no other call would tell.
            return server, any(server.settings.get(name) is not None for name in _settings.differing(ctx, server, record.before))
        except Refused:
            # One value that it does not take must not keep the others from being restored.
            conflict = False
            for name, value in changes.items():
                try:
                    ctx.write(record.server, {name: value})
                except Refused as exc:
                    conflict = conflict or exc.conflict
            return ctx.provider.read_server(record.server), conflict
    # Here the provider has work of its own with that, and may take it for a while only.
    again = ctx.clock.pace(Backoff(_settings.REWRITE_SECONDS, _settings.REWRITE_SECONDS))

    def poll() -> Server | None:
        server = ctx.provider.read_server(record.server)
        changes = _settings.differing(ctx, server, record.before)
        if changes and again.due():
            ctx.say("api", "restoring the provider's settings")
            ctx.write(server.name, changes)
        return None if changes else server

    wait = ctx.clock.wait(_observe.EXPECTED_SECONDS, Backoff(1.0, 5.0))
    try:
        return t.cast(Server, wait.until(poll, lambda: TimedOut("The provider has not restored its settings."))), False
    except TimedOut:
        # The caller tells what was not restored.
        return ctx.provider.read_server(record.server), True
