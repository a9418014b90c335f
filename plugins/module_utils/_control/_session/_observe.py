# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who answers, what the provider says, and what the record says: read, before anything is decided. Private to this collection."""

from __future__ import annotations

import typing as t

from ..._errors import BadInput, LoginRefused, NotFound
from .._providers import _base
from .._providers._base import BootOption, Server
from .._ssh._host_keys import HostKey, read_known_hosts
from . import _access, _preflight, _record
from ._evidence import INSTALLED, RESCUE, UNKNOWN, BackgroundObservation, KnownHostKeys, Observation, SshObserver
from ._record import Record

if t.TYPE_CHECKING:
    from ._context import Context

# How long a rescue system that was proved to run has for its banner, in seconds.
EXPECTED_SECONDS = 60.0


def known_keys(ctx: Context, record: Record | None) -> KnownHostKeys:
    """The host keys that are known, of the record, the options and the user's files."""
    installed: list[HostKey] = list(record.known_installed_keys()) if record else []
    installed += [key for key in map(HostKey.from_line, ctx.options.installed_host_keys) if key]
    familiar: list[HostKey] = []
    for name in ctx.options.known_hosts_files:
        # The label is the server's name in the inventory, by which its user may know it.
        for address in {ctx.options.installed_address, ctx.provider_address, ctx.options.label} - {None, ""}:
            familiar += read_known_hosts(name, address or "", ctx.options.installed_port)
    for line in filter(None, [record.host_key_seen] if record else []):
        seen = HostKey.from_line(line)
        familiar += [seen] if seen else []
    pinned = HostKey.from_line(record.rescue_host_key) if record and record.rescue_host_key else None
    return KnownHostKeys(tuple(installed), tuple(familiar), pinned)


def address_of(ctx: Context, server: Server) -> str:
    """Where the rescue system answers, or BadInput."""
    address = ctx.options.address or server.address
    if not address:
        raise BadInput(f"{ctx.provider.facts.name} shows no address of {server.name}.", state="Nothing was changed.",
                       todo="Set the host's variable lifeboat_address, or the option address.")
    return address


class _Looking:
    """One look at a server: at its own port, and at the installed system's where that is another one."""

    def __init__(self, ctx: Context, record: Record | None):
        self.ctx = ctx
        self.record = record
        self.port = record.rescue_port if record else ctx.options.rescue_port
        self.logins = _access.logins(ctx, record)
        # The rescue system was proved to run. A slow one, at work, must not be taken for one that is gone.
        is_expected = record is not None and record.phase in (_record.RESCUE, _record.RESTORING) and not record.no_ssh
        self.patience = max(ctx.options.connect_timeout, EXPECTED_SECONDS) if is_expected else ctx.options.connect_timeout
        self.deadline = ctx.clock.deadline(self.patience)

    def watch(self, address: str, port: int) -> SshObserver:
        return SshObserver(address, port, known_keys(self.ctx, self.record), self.logins, clock=self.ctx.clock,
                           proxy_command=self.ctx.options.proxy_command)

    def ahead(self) -> BackgroundObservation | None:
        """Who looks while the provider is asked, where the address is known already."""
        ctx = self.ctx
        address = ctx.options.address or ctx.options.installed_address or (self.record.address if self.record else None)
        return BackgroundObservation(self.watch(address, self.port)) if address else None

    def first(self, ahead: BackgroundObservation | None, server: Server) -> tuple[SshObserver, Observation | None]:
        """What the first second shows, and by whom it goes on. ahead: None where it looks at another address."""
        if ahead is not None:
            return ahead.watch, ahead.poll(min(1.0, self.deadline.left), known_keys(self.ctx, self.record))
        watch = self.watch(address_of(self.ctx, server), self.port)
        self.deadline = self.ctx.clock.deadline(self.patience)
        return watch, watch.poll(min(1.0, self.deadline.left))

    def go_on(self, watch: SshObserver, observation: Observation | None) -> Observation | None:
        """Wait for who did not answer at once."""
        usual = self.ctx.options.connect_timeout
        if observation is None and (not watch.is_refused or self.patience > usual):
            # A refusal is an answer, silence is not.
            observation = watch.poll(min(usual, self.deadline.left))
        if observation is None and self.patience > usual:
            self.ctx.say("ssh", f"port {self.port}: {watch.heard}; the rescue system ran there, so it has {self.deadline.left:.0f} s "
                                "to answer")
            observation = watch.poll(self.deadline.left)
        return observation

    def elsewhere(self, server: Server) -> Observation | None:
        """Who answers at the installed system's own port."""
        options = self.ctx.options
        if options.installed_port == self.port:
            return None
        with self.watch(options.installed_address or address_of(self.ctx, server), options.installed_port) as other:
            return other.poll(self.deadline.left)


def observe(ctx: Context, record: Record | None, read: Server | None = None) -> tuple[Server, Observation]:
    """Read the server at the provider, and see who answers, both at once where the address is known already.

    read: what the provider said of it just now, if it was asked.
    """
    looking = _Looking(ctx, record)
    ahead = looking.ahead()
    watch: SshObserver | None = None
    try:
        server = read or ctx.provider.read_server(ctx.options.server)
        ctx.provider_address = server.address
        _preflight.check_server(ctx, server)
        is_there = ahead is not None and ahead.watch.address == address_of(ctx, server)
        watch, observation = looking.first(ahead if is_there else None, server)
        if is_there:
            ahead = None
        observation = looking.go_on(watch, observation)
        heard = watch.heard
    finally:
        if ahead is not None:
            ahead.abandon()
        if watch is not None:
            watch.close()
    return server, observation or looking.elsewhere(server) or Observation(UNKNOWN, "nothing answers by SSH", heard)


def boot_option(ctx: Context, server: Server, record: Record | None) -> BootOption | None:
    """What boots next. The record saves the call where it knows."""
    if server.boot is None:
        return None
    if record and record.boot and record.boot["id"] == server.boot:
        return BootOption(**record.boot)
    try:
        return ctx.provider.boot_option(server.name, server.boot)
    except NotFound:
        return BootOption(server.boot, _base.OTHER, "unknown", "The provider does not know it any more.")


def is_armed(option: BootOption | None) -> bool | None:
    """Whether a rescue system boots next; None where nobody tells."""
    return None if option is None else option.kind == _base.RESCUE


def empty_record(ctx: Context, server: Server) -> Record:
    """The record of a session that begins here."""
    return Record(provider=ctx.provider.facts.name, server=server.name, address=address_of(ctx, server), started_at=ctx.clock.time(),
                  rescue_port=ctx.options.rescue_port, user=ctx.options.rescue_user)


def adopted(ctx: Context, record: Record | None, server: Server, observation: Observation, only_signed: bool = False) -> Record | None:
    """The record, or the copy that a session of another controller left in the rescue system.

    only_signed: nothing is taken over from one that our key has not signed.
    """
    if record is not None and record.adopted and observation.system != RESCUE and (
            observation.system == INSTALLED or not is_armed(boot_option(ctx, server, record))):
        # Where it was begun, it has been ended.
        if not ctx.check_mode:
            ctx.folder.clear()
        record = None
    if record is not None or observation.system != RESCUE or observation.evidence is None or not observation.evidence.session:
        return record
    try:
        copy, signed = Record.from_signed(observation.evidence.session, ctx.options.private_key_file)
    except ValueError:
        return None
    if (copy.provider, copy.server) != (ctx.provider.facts.name, server.name) or observation.host_key is None:
        return None
    if not signed and only_signed:
        return None
    if not signed:
        # It may be a compromised system that only plays rescue. What it may say is whether a flag was set.
        claimed, copy = copy.before, empty_record(ctx, server)
        copy.phase = _record.RESCUE
        flags = {name: value for name, value in claimed.items() if name in server.settings and isinstance(value, bool)}
        copy.before = {**ctx.provider.restorable_settings(server), **flags}
        ctx.say("record", "the session's record there is not signed by our key, so it is not believed")
    copy.own_key = False
    copy.key_file = ctx.options.private_key_file
    copy.rescue_host_key = None
    copy.adopted = only_signed
    if not ctx.check_mode:
        pin(ctx, copy, observation)
        ctx.save(copy, copy.phase)
    return copy


def pin(ctx: Context, record: Record, observation: Observation) -> bool:
    """Pin the rescue system's host key, once. Refuse another one."""
    if observation.host_key is None:
        return False
    line = observation.host_key.line
    if record.rescue_host_key == line:
        return False
    if record.rescue_host_key and not ctx.options.force:
        pinned = HostKey.from_line(record.rescue_host_key)
        raise LoginRefused(
            f"The rescue system of {record.server} answers with the host key {observation.host_key.fingerprint}, "
            f"but {pinned.fingerprint if pinned else 'another one'} is pinned for this session.",
            state="Somebody rebooted it, or somebody is in between. Nothing was changed.",
            todo=f"If you rebooted it yourself, run this again with {ctx.options.by_force}, which pins the new key.")
    record.rescue_host_key = line
    if not ctx.check_mode:
        ctx.folder.pin(record.address or "", record.rescue_port, observation.host_key)
    return True


def is_fresh(ctx: Context, record: Record | None, observation: Observation) -> bool | None:
    """Whether what answers booted after the record's request; None if that cannot be told, or there was none."""
    reboot = record.reboot if record else None
    return observation.fresh(ctx.clock.time() - reboot.asked_at, reboot.boot_id_before) if reboot else None
