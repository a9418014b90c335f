# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How we get in: keys and passwords, ours and the provider's. Private to this collection."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import typing as t

from ..._errors import BadInput, MissingLibrary
from .._providers._base import Credentials
from .._ssh import _keys
from .._ssh._client import Login
from .._ssh._host_keys import HostKey
from .._ssh._paramiko import load_paramiko
from ._evidence import UNKNOWN, KnownHostKeys, Observation, SshObserver

if t.TYPE_CHECKING:
    from .._providers._base import Server
    from ._context import Context
    from ._record import Record

NOTHING = "Nothing was changed."
# Keys on hardware ask for a touch each time that they sign.
_HARDWARE = "sk-"


def rescue_logins(ctx: Context, record: Record | None) -> list[tuple[Login, bool]]:
    """How to get in to the rescue system, each with whether only that system can have been given the key."""
    user = record.user if record else ctx.options.rescue_user
    logins: list[tuple[Login, bool]] = []
    if record and record.key_file:
        login = Login(user, key_file=record.key_file) if record.own_key else login_by(user, record.key_file)
        logins.append((login, record.own_key))
    if ctx.options.private_key_file and not (record and record.key_file == ctx.options.private_key_file):
        logins.append((login_by(user, ctx.options.private_key_file), False))
    elif ctx.options.public_key and not logins:
        logins.append((Login(user, agent=True, public_key=ctx.options.public_key), False))
    return logins


def logins(ctx: Context, record: Record | None) -> list[tuple[Login, bool]]:
    """The rescue system's, then the user's own to the installed system."""
    own = ctx.options.installed_login
    return rescue_logins(ctx, record) + ([(own, False)] if own else [])


def login_by(user: str, private_key_file: str) -> Login:
    """The login with a private key: with its file, or with an agent if the file wants a passphrase."""
    try:
        _keys.read_private_key(private_key_file)
    except BadInput:
        with contextlib.suppress(BadInput):
            public = _keys.public_key_of(private_key_file)
            check_agent(HostKey.from_line(public))
            return Login(user, agent=True, public_key=public)
    except MissingLibrary:  # told by whoever connects
        pass
    return Login(user, key_file=private_key_file)


def is_usable(private_key_file: str) -> bool:
    """Whether a private key's file can be read, without a passphrase."""
    try:
        _keys.read_private_key(private_key_file)
    except BadInput:
        return False
    return True


def check_agent(wanted: HostKey | None) -> None:
    """Raise BadInput where no agent has this key and signs with it."""
    paramiko = load_paramiko()
    with _keys.agent_key(wanted) as held:
        if held is None:
            raise BadInput("No agent has the private half of the key that is given, so it would not let us in.", state=NOTHING,
                           todo="Add it with ssh-add, or give the private key with private_key_file.")
        if held.get_name().startswith(_HARDWARE):
            return
        try:
            held.sign_ssh_data(b"lifeboat.rescue")
        except paramiko.SSHException as exc:
            raise BadInput(f"The agent has the key that is given, but does not sign with it: {exc}.", state=NOTHING,
                           todo="Unlock it, or give the private key with private_key_file.") from exc


def injected_password(ctx: Context, record: Record) -> str | None:
    """The password that goes with the call to the provider, where it takes one. Made of the key, so that it is kept nowhere."""
    if "injected" not in ctx.provider.facts.credentials or not record.key_file:
        return None
    return _keys.derive_password(record.key_file, record.id)


def credentials(ctx: Context, record: Record) -> Credentials | None:
    """The log-in by password to the rescue system, or None while there is none."""
    if "injected" in ctx.provider.facts.credentials:
        password = injected_password(ctx, record)
        return Credentials(ctx.options.rescue_user, password) if password else None
    return ctx.provider.read_credentials(record.server, record.credentials_baseline)


def observe_with(ctx: Context, address: str, port: int, observation: Observation, found: Credentials) -> Observation | None:
    """Log in by a password, only to the very host that was just seen; None where it does not let us in."""
    logins = [(Login(found.user, password=found.password), False)]
    with SshObserver(address, port, KnownHostKeys(pinned=observation.host_key), logins, clock=ctx.clock,
                     proxy_command=ctx.options.proxy_command) as watch:
        again = watch.poll(watch.timeout)
    if again is None or again.client is None or again.host_key != observation.host_key:
        return None
    return again


def observe_by_known_password(ctx: Context, server: Server, observation: Observation) -> Observation:
    """Who answers, by the password that the provider shows all the time, where nothing else lets us in.

    It lets in to the rescue system as to the installed one, so it tells whether somebody else has put the server into rescue.
    """
    if observation.system != UNKNOWN or observation.host_key is None or "known" not in ctx.provider.facts.credentials or ctx.no_ssh:
        return observation
    found = ctx.provider.read_credentials(server.name, None)
    again = found and observe_with(ctx, ctx.options.address or server.address, ctx.options.rescue_port, observation, found)
    if not again:
        return observation
    system, reason = KnownHostKeys().classify(observation.host_key, again.evidence, own_key=False)
    return again._replace(system=system, reason=reason, by_password=True)


def write_credentials(ctx: Context, record: Record, found: Credentials) -> None:
    """Put the rescue system's log-in into the file that the user asked for, which nobody else can read."""
    if not ctx.options.credentials_file:
        return
    path = os.path.expanduser(ctx.options.credentials_file)
    text = json.dumps({"host": record.address, "user": found.user, "password": found.password}, indent=1)
    handle, temporary = tempfile.mkstemp(prefix=".lifeboat-", dir=os.path.dirname(path) or ".")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text + "\n")
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):  # it has its name already
            os.unlink(temporary)
        raise
    ctx.say("credentials", f"the log-in to the rescue system is in {path}")


def public_key(ctx: Context, record: Record) -> str:
    """The key to be let in by the rescue system: the user's, or one made for this session."""
    if ctx.options.public_key:
        record.key_file, record.own_key = ctx.options.private_key_file, False
        return ctx.options.public_key.strip()
    if ctx.options.private_key_file:
        record.key_file, record.own_key = ctx.options.private_key_file, False
        return _keys.public_key_of(ctx.options.private_key_file)
    comment = f"{_keys.SESSION_KEY_COMMENT}{record.id}"
    if ctx.check_mode:
        return f"(an Ed25519 key made for this session) {comment}"
    if not (record.own_key and record.key_file):
        ctx.folder.save(record)
        record.key_file = ctx.folder.key_file
        record.own_key = True
        line = _keys.make_key_pair(record.key_file, comment)
        with open(record.key_file + ".pub", "w", encoding="utf-8") as stream:
            stream.write(line + "\n")
    return _keys.public_key_of(record.key_file or "")
