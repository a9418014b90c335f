# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The way into rescue. Private to this collection."""

from __future__ import annotations

import dataclasses
import typing as t

from ..._errors import BadInput, Busy, WrongSystem
from ..._wait import Backoff
from .._providers import _base
from .._providers._base import BootOption, Server
from .._ssh._keys import SESSION_KEY_COMMENT
from . import _access, _decide, _in_use, _observe, _reboot, _record, _request, _result, _settings, _words
from ._evidence import INSTALLED, RESCUE, Observation
from ._record import Record

if t.TYPE_CHECKING:
    from ._context import Context


# How long other work of the provider on the server is waited for: the end of a reboot that has had its effect takes seconds.
BUSY_SECONDS = 30.0


def enter(ctx: Context, has_waited: bool = False) -> dict[str, t.Any]:
    """Have the rescue system run, and be able to log in to it. has_waited: for other work of the provider, which has ended."""
    record = ctx.folder.load()
    server, observation = _observe.observe(ctx, record)
    record = _observe.adopted(ctx, record, server, observation)
    if record is None and not ctx.options.force:
        observation = _access.observe_by_known_password(ctx, server, observation)
    option = _observe.boot_option(ctx, server, record)
    step = _decide.entering(_now(ctx, record, server, observation, option))
    if step == _decide.TAKE_OVER:
        return _take_over(ctx, server, observation, option)
    if step == _decide.OTHERS:
        raise Busy(f"{server.name} is set to boot {option.name if option else 'a rescue system'}, and what runs there does not let us in "
                   f"({observation.refused or observation.reason}): it may be in rescue for somebody else.", state="Nothing was changed.",
                   todo="Continue where that was begun, or with its key (private_key_file). If the key is lost, "
                        f"{ctx.options.by_force} takes the server over, by one reboot more; what is mounted there, and not written, "
                        "is lost.")
    if record is not None:
        if step == _decide.STAY:
            return _stay(ctx, record, server, observation)
        if step == _decide.STAY_UNSEEN:
            return _result.make(ctx, server, record, observation, option, changed=False)
        if step == _decide.SILENT:
            raise _words.silent(ctx, server, observation)
    return _boot(ctx, record, server, observation, has_waited)


def _now(ctx: Context, record: Record | None, server: Server, observation: Observation, option: BootOption | None) -> _decide.Now:
    fresh = _observe.is_fresh(ctx, record, observation)
    queued = record is not None and record.phase == _record.REBOOTING and bool(fresh) and _request.is_to_come(ctx, record)
    ours = BootOption(**record.boot) if record and record.boot else None
    return _decide.Now(
        phase=record.phase if record else "", system=observation.system, logged_in=observation.client is not None,
        armed=_observe.is_armed(option), is_ours=server.boot in (None, ours.id if ours else None), fresh=fresh, queued=queued,
        familiar=observation.host_key is not None and observation.host_key in _observe.known_keys(ctx, None).familiar,
        no_ssh=bool(record and record.no_ssh and (ctx.no_ssh or (ours and ctx.provider.is_windows(ours)))),
        separate=ctx.is_separate, force=ctx.options.force, answers=observation.host_key is not None)


def _boot(ctx: Context, record: Record | None, server: Server, observation: Observation, has_waited: bool) -> dict[str, t.Any]:
    """Set the rescue system to boot next, and reboot."""
    going_on = record is not None and record.phase in (_record.ARMING, _record.REBOOTING)
    option = _chosen(ctx, server)
    if not going_on:
        _refuse_other_session(ctx, server, record)
        if _was_at_work(ctx, server, may_wait=not has_waited):
            # It may have been put into rescue meanwhile.
            return enter(ctx, has_waited=True)
    seen = _host_key_seen(ctx, server, observation) if record is None else None
    record = _new_record(ctx, record, server)
    record.host_key_seen = record.host_key_seen or seen
    wanted = _wanted_settings(ctx, record, server, option)
    changes = _settings.differing(ctx, server, wanted)
    if record.phase == _record.REBOOTING:
        # What the provider does not show, this session has written before it asked for the reboot.
        changes = {name: value for name, value in changes.items() if name in server.settings or record.armed.get(name) != value}
    before, after = dict(server.settings), {**server.settings, **wanted}
    if not wanted:
        # What boots is no setting here, but it is what changes.
        was = _observe.boot_option(ctx, server, record)
        before["boot"], after["boot"] = was.name if was else None, option.name
    if ctx.check_mode:
        return _result.make(ctx, server, record if going_on else None, observation, option, changed=True, before=before, after=after)
    if observation.system == RESCUE and record.reboot is None:
        _in_use.refuse_dirty(ctx, record, observation)
    record.armed = {**record.armed, **wanted}
    if not ctx.is_separate:
        _announce(ctx, record, server, option)
    elif changes:
        _arm(ctx, record, server, option, changes)
    record.boot = option.as_result()
    record.no_ssh = ctx.no_ssh
    ctx.mark("armed")
    observation = _reboot.reboot(ctx, record, RESCUE, observation, option=None if ctx.is_separate else option)
    settle(ctx, record, observation)
    server = Server(server.name, server.address, option.id, {**server.settings, **wanted})
    told = option if ctx.provider.facts.tells_armed else None
    result = _result.make(ctx, server, record, observation, told, changed=True, before=before, after=after)
    result["console_url"] = _words.console_url(ctx, server.name)
    return result


def _chosen(ctx: Context, server: Server) -> BootOption:
    """The rescue system that is wanted, which these credentials may boot."""
    option = ctx.provider.choose(server.name, ctx.options.rescue)
    if ctx.provider.is_windows(option):
        ctx.no_ssh = True
    elif ctx.provider.rescue_rank(option) is None:
        raise BadInput(f"{option.name} of {server.name} is no rescue system that can be logged in to by SSH.",
                       todo="Choose another one, or leave the option rescue out.")
    ctx.provider.check_rights(server.name)
    return option


def _stay(ctx: Context, record: Record, server: Server, observation: Observation) -> dict[str, t.Any]:
    """Already there: remember that, and arm again where somebody set something else to boot next. No reboot."""
    changed = record.phase != _record.RESCUE or record.adopted
    record.adopted = False
    option = _observe.boot_option(ctx, server, record)
    changes: dict[str, t.Any] = {}
    if record.boot and server.boot != record.boot["id"] and ctx.is_separate:
        option = BootOption(**record.boot)
        changes = ctx.provider.boot_settings(option)
    after = {**server.settings, **changes}
    if not ctx.check_mode:
        if changed:
            settle(ctx, record, observation)
        else:
            changed = _observe.pin(ctx, record, observation)
        if changes and option and _settings.write_and_read(ctx, server.name, changes, changes).boot != option.id:
            raise WrongSystem(f"The provider accepted the boot option {option.name} for {server.name}, but it is not set.",
                              state="The rescue system runs; nothing was rebooted.", todo="Run this again.")
    return _result.make(ctx, server, record, observation, option, changed=changed or bool(changes), before=server.settings, after=after)


def _take_over(ctx: Context, server: Server, observation: Observation, option: BootOption | None) -> dict[str, t.Any]:
    """Somebody else put it in rescue, and we can log in: that is what was asked for. No reboot, no write at the provider."""
    record = _observe.empty_record(ctx, server)
    record.before = ctx.provider.restorable_settings(server)
    record.user = observation.user or record.user
    record.key_file = ctx.options.private_key_file
    own = ctx.options.installed_login
    if record.key_file is None and own and own.key_file and own.user == observation.user and _access.is_usable(own.key_file):
        record.key_file = own.key_file
    if record.key_file is None and observation.by_password and observation.client and not ctx.check_mode:
        observation.client.plant_key(_access.public_key(ctx, record))
    record.boot = option.as_result() if option and option.kind == _base.RESCUE else None
    record.found = _result.found_by(ctx, server, observation)
    ctx.say("found", f"the rescue system runs already, since {record.found['since']}; somebody else booted it")
    if not ctx.check_mode:
        settle(ctx, record, observation)
    return _result.make(ctx, server, record, observation, option, changed=True, before=server.settings, after=server.settings)


def _refuse_other_session(ctx: Context, server: Server, record: Record | None) -> None:
    key = ctx.provider.armed_key(server) or ""
    if record is None and SESSION_KEY_COMMENT in key and _observe.is_armed(_observe.boot_option(ctx, server, None)) \
            and not ctx.options.force:
        name = key[key.index(SESSION_KEY_COMMENT):].split()[0]
        raise Busy(f"Another session ({name}) has set {server.name} to boot its rescue system.",
                   state="This one changed nothing.",
                   todo="Continue on the controller that began that session, which has its key. If the key is lost, run this with "
                        f"{ctx.options.by_force}: it takes the server over, by one reboot more.")


def _was_at_work(ctx: Context, server: Server, may_wait: bool) -> bool:
    """Whether the provider was at work on the server, which has ended by now; Busy where it does not end soon."""
    tasks = ctx.provider.unfinished_tasks(server.name)
    if not tasks or ctx.options.force:
        return False
    work = ", ".join(task.text for task in tasks)
    busy = Busy(f"{ctx.provider.facts.name} is at work on {server.name}: {work}.", state="Nothing was changed.",
                todo="Somebody else may be rescuing it. Wait until that has ended; if it is stuck, "
                     f"{ctx.options.by_force} does not wait for it.",
                details={"tasks": [task.id for task in tasks]})
    if not may_wait or ctx.check_mode:
        raise busy
    ctx.say("work", f"the provider is at work on it ({work}), which is waited for", f", for at most {BUSY_SECONDS:.0f} s")
    wait = ctx.clock.wait(BUSY_SECONDS, Backoff(1.0, 5.0))
    return bool(wait.until(lambda: None if ctx.provider.unfinished_tasks(server.name) else True, lambda: busy))


def _host_key_seen(ctx: Context, server: Server, observation: Observation) -> str | None:
    """The host key of the installed system, if that is what answers before anything was done."""
    if observation.host_key is None or observation.system == RESCUE:
        return None
    is_own = observation.system == INSTALLED or _observe.is_armed(_observe.boot_option(ctx, server, None)) is False
    return observation.host_key.line if is_own else None


def _new_record(ctx: Context, old: Record | None, server: Server) -> Record:
    """The record of this session: the old one where it is under way, or one that keeps what the old one must restore."""
    if old and old.phase in (_record.ARMING, _record.REBOOTING):
        return old
    record = _observe.empty_record(ctx, server)
    record.before = dict(old.before) if old else ctx.provider.restorable_settings(server)
    if old:
        record.installed_host_keys, record.host_key_seen = old.installed_host_keys, old.host_key_seen
        record.key_file, record.own_key = old.key_file, old.own_key
        record.tasks, record.armed = list(old.tasks), dict(old.armed)
    return record


def _wanted_settings(ctx: Context, record: Record, server: Server, option: BootOption) -> dict[str, t.Any]:
    public_key: str | None = None
    if ctx.no_ssh:
        pass
    elif not ctx.by_password:
        public_key = _access.public_key(ctx, record)
    elif not record.key_file and not ctx.check_mode:
        # The password is used once, to plant this key.
        _access.public_key(ctx, record)
    return ctx.provider.rescue_settings(server, option, public_key, {
        "rescue_mail": ctx.options.rescue_mail, "hold_interventions": ctx.options.hold_interventions})


def _announce(ctx: Context, record: Record, server: Server, option: BootOption) -> None:
    """Remember what will be asked for, unless a call that died has asked for that very thing."""
    if record.phase == _record.REBOOTING and record.boot and record.boot["id"] == option.id:
        return
    record.boot = option.as_result()
    if ctx.by_password:
        record.credentials_baseline = ctx.provider.credentials_baseline(server.name)
    # What was asked for before was asked for under other settings.
    record.reboot = None
    ctx.save(record, _record.ARMING)


def _arm(ctx: Context, record: Record, server: Server, option: BootOption, changes: t.Mapping[str, t.Any]) -> None:
    facts = ctx.provider.facts
    if record.phase != _record.REBOOTING or set(changes) & {*facts.boots_by, *facts.lets_in_by}:
        # A reboot that was requested under other settings is not the one that is wanted.
        record.phase = _record.ARMING
        _announce(ctx, record, server, option)
    ctx.say("api", f"setting {option.name} to boot next")
    shown = {name: value for name, value in changes.items() if name in server.settings}
    written = _settings.write_and_read(ctx, server.name, changes, shown)
    if written.boot != option.id:
        raise WrongSystem(f"The provider accepted the boot option {option.name} for {server.name}, but it is not set.",
                          state="Nothing was rebooted.", todo="Run this again.")
    left = _settings.differing(ctx, written, shown)
    if left:
        raise WrongSystem(f"The provider accepted {', '.join(sorted(left))} for {server.name}, but does not have it set.",
                          state=f"{option.name} is set to boot next; nothing was rebooted.", todo="Run this again.")


def settle(ctx: Context, record: Record, observation: Observation) -> None:
    """The rescue system is proved: pin its host key, leave a copy of the record there, remember."""
    record.rescue_host_key = None
    _observe.pin(ctx, record, observation)
    if observation.client:
        copy = dataclasses.replace(record, phase=_record.RESCUE)
        observation.client.run("umask 077; d=/run/lifeboat; [ -d $d ] || mkdir -p $d; "
                               "read -r line && printf '%s\\n' \"$line\" >$d/session.json", copy.signed().encode() + b"\n")
        observation.client.close()
    ctx.save(record, _record.RESCUE)
