# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A call's result. Private to this collection."""

from __future__ import annotations

import shlex
import time
import typing as t

from . import _observe, _record
from ._evidence import INSTALLED, RESCUE, Observation

if t.TYPE_CHECKING:
    from .._providers._base import BootOption, Server
    from ._context import Context
    from ._record import Record


def make(ctx: Context, server: Server, record: Record | None, observation: Observation, option: BootOption | None, *, changed: bool,
         before: t.Mapping[str, t.Any] | None = None, after: t.Mapping[str, t.Any] | None = None) -> dict[str, t.Any]:
    """What a module returns; see its documentation. The connection of the look is closed."""
    if observation.client:
        observation.client.close()
    ctx.mark("total")
    result: dict[str, t.Any] = {
        "changed": changed,
        "provider": ctx.provider.facts.name,
        "server": server.name,
        "address": _observe.address_of(ctx, server),
        "armed": _observe.is_armed(option) if ctx.provider.facts.tells_armed else None,
        "running": observation.system,
        "fresh": _observe.is_fresh(ctx, record, observation),
        "evidence": observation.as_result(),
        "boot": option.as_result() if option else None,
        "tasks": list(record.tasks) if record else [],
        "timings": dict(ctx.timings),
        "session": session_result(ctx, record),
        "found": _found(ctx, server, record, observation, option),
        "console_url": None,
        "login": None,
    }
    if record and observation.system == RESCUE and record.rescue_host_key:
        result["login"] = _login(ctx, record)
    if before is not None and after is not None:
        result["diff"] = {"before": dict(before), "after": dict(after),
                          "before_header": f"{server.name} settings", "after_header": f"{server.name} settings"}
    return result


def found_by(ctx: Context, server: Server, observation: Observation) -> dict[str, t.Any]:
    """Since when a rescue system that is none of ours has run, and who asked for it, where that can be told."""
    since = None if observation.uptime is None else _time(ctx.clock.time() - observation.uptime)
    origin = ctx.provider.rescued(server.name)
    return {"since": origin.since or since, "by": origin.by}


def _found(ctx: Context, server: Server, record: Record | None, observation: Observation,
           option: BootOption | None) -> dict[str, t.Any] | None:
    if record is not None:
        return record.found
    # What is only going to be armed, as in check mode, nobody has put into rescue; and what runs its own system is not in it.
    armed = option is not None and option.id == server.boot and _observe.is_armed(option) and observation.system != INSTALLED
    return found_by(ctx, server, observation) if observation.system == RESCUE or armed else None


def session_result(ctx: Context, record: Record | None) -> dict[str, t.Any] | None:
    """The session, as a result shows it."""
    if record is None:
        return None
    reboot = record.reboot if record.phase in (_record.REBOOTING, _record.LEAVING) else None
    return {"id": record.id, "phase": record.phase, "folder": ctx.folder.path, "started_at": _time(record.started_at),
            "requested_at": _time(reboot.asked_at) if reboot else None}


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _login(ctx: Context, record: Record) -> dict[str, t.Any]:
    options = ["-o", f"UserKnownHostsFile={ctx.folder.known_hosts}", "-o", "StrictHostKeyChecking=yes"]
    if ctx.options.proxy_command:
        options += ["-o", f"ProxyCommand={ctx.options.proxy_command}"]
    command = ["ssh", "-p", str(record.rescue_port), *options]
    if record.key_file:
        command += ["-i", record.key_file]
    return {"user": record.user, "host": record.address, "port": record.rescue_port,
            "private_key_file": record.key_file, "known_hosts_file": ctx.folder.known_hosts,
            "proxy_command": ctx.options.proxy_command,
            "command": shlex.join([*command, f"{record.user}@{record.address}"])}
