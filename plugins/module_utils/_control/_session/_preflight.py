# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether all is there that the way into rescue, and back, needs: found out before anything goes down. Private to this collection.

What is missing is missing before as it is afterwards: a library, the private half of a key, an address, a place for the session.
Each function raises BadInput or MissingLibrary, and changes nothing.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import typing as t

from ..._errors import BadInput, LifeboatError
from .._ssh import _keys
from .._ssh._host_keys import HostKey
from .._ssh._paramiko import load_paramiko
from ._access import NOTHING, check_agent

if t.TYPE_CHECKING:
    from .._providers._base import Server
    from ._context import Context


def check(ctx: Context) -> None:
    """Raise what entering would fail for, as far as it can be told without the provider."""
    for each in _CHECKS:
        each(ctx)


def check_way(ctx: Context) -> None:
    """Raise what leaving or rebooting would fail for: nobody could see what comes of it."""
    load_paramiko()
    _check_addresses(ctx)


def reasons(ctx: Context, server: Server) -> list[str]:
    """Why entering would fail, a sentence each, by all that can be told beforehand. Changes nothing."""
    found: list[str] = []
    for each in (*_CHECKS, lambda ctx: check_server(ctx, server), lambda ctx: ctx.provider.check_rights(server.name)):
        try:
            each(ctx)
        except LifeboatError as exc:
            found.append(exc.what)
    return list(dict.fromkeys(found))


def check_server(ctx: Context, server: Server) -> None:
    """The address that the provider tells must be the server's. What the user gave is his own word."""
    address = server.address
    if not address or ctx.options.address or address == ctx.options.installed_address or ctx.options.proxy_command:
        return
    check_address(server.name, address, ctx.options.rescue_port)
    if not ctx.provider.is_local() and is_own(address):
        raise BadInput(f"{ctx.provider.facts.name} tells the address {address} of {server.name}, which is one of this machine's own.",
                       state=NOTHING, todo="Set the host's variable lifeboat_address, or the option address.")
    for other in ctx.folder.others():
        if (other.address, other.rescue_port) == (address, ctx.options.rescue_port):
            raise BadInput(f"{ctx.provider.facts.name} tells the address {address} of {server.name}, at which this controller has a rescue "
                           f"session of {other.server}.", state=NOTHING, todo="Set the host's variable lifeboat_address, or the option "
                           "address, to the address that is this server's alone.")


def is_own(address: str) -> bool:
    """Whether an address is one of this machine's own, loopback among them: what is sent to such a one is sent from it."""
    for family, _kind, _protocol, _name, place in socket.getaddrinfo(address, 9, type=socket.SOCK_DGRAM):
        found = ipaddress.ip_address(place[0])
        if found.is_loopback or found.is_unspecified:  # the latter leads to it, too
            return True
        with socket.socket(family, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
            sock.connect(place)  # which sends nothing
            if sock.getsockname()[0] == place[0]:
                return True
    return False


def _check_login(ctx: Context) -> None:
    if not ctx.no_ssh:
        check_keys(ctx.options.public_key, ctx.options.private_key_file)
        _check_lasting(ctx)


def _check_addresses(ctx: Context) -> None:
    if ctx.options.proxy_command:
        return  # it is the bastion that resolves them
    if ctx.options.address:
        check_address(ctx.options.server, ctx.options.address, ctx.options.rescue_port)
    if ctx.options.installed_address:
        check_address(ctx.options.server, ctx.options.installed_address, ctx.options.installed_port,
                      "ansible_host, or lifeboat_installed_host")


def _check_files(ctx: Context) -> None:
    ctx.folder.check()
    if ctx.options.credentials_file:
        directory = os.path.dirname(os.path.expanduser(ctx.options.credentials_file)) or "."
        if not os.access(directory, os.W_OK | os.X_OK):
            raise BadInput(f"credentials_file cannot be written: {directory} is no directory that can be written to.")
        if os.path.isdir(os.path.expanduser(ctx.options.credentials_file)):
            raise BadInput(f"credentials_file cannot be written: {ctx.options.credentials_file} is a directory.")


def _check_choice(ctx: Context) -> None:
    if ctx.options.rescue in ("harddisk", "poweroff"):
        raise BadInput(f"{ctx.options.rescue!r} is no rescue system.", todo="Use the module netboot to set it.")


def _check_lasting(ctx: Context) -> None:
    """A key that is made for the session must be there for whoever comes next."""
    if ctx.options.is_lasting or ctx.options.public_key or ctx.options.private_key_file:
        return
    raise BadInput("The home of this job goes with it, and with that the key that would be made for the session: nobody could log in to "
                   f"the rescue system of {ctx.options.server} afterwards.", state=NOTHING,
                   todo="Give a key in the host's variable lifeboat_private_key_file, or a folder that lasts in lifeboat_session_dir.")


def check_address(server: str, address: str, port: int, variable: str = "lifeboat_address") -> None:
    """The address must be one that can be connected to, at least by its form. variable: the host's, which gives another one."""
    try:
        socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        raise BadInput(f"The address {address!r} of {server} cannot be resolved: {exc}.", state=NOTHING,
                       todo=f"Set the host's variable {variable}, to an address that can.") from exc


def check_keys(public_key: str | None, private_key_file: str | None) -> None:
    """What the provider is given must let us in.

    public_key alone: an agent must have its private half. Both: they must be a pair. private_key_file alone: its .pub, if there is
    one, must be its own. Neither: a key is made for the session.
    """
    paramiko = load_paramiko()
    if public_key is None and private_key_file is None:
        return
    given = HostKey.from_line(_keys.check_public_key(public_key)) if public_key else None
    if private_key_file is None:
        check_agent(given)
        return
    wanted = given or HostKey.from_line(_keys.public_key_of(private_key_file))
    try:
        private = _keys.read_private_key(private_key_file)
    except BadInput:
        # It may want a passphrase, and be in an agent.
        with contextlib.suppress(BadInput):
            check_agent(wanted)
            return
        raise
    if wanted is not None and private.asbytes() != wanted.blob:
        where = "public_key" if given else f"{private_key_file}.pub"
        raise BadInput(f"{where} is not the public half of the private key {private_key_file}, which would not be let in.", state=NOTHING,
                       todo="Give the two halves of one pair; ssh-keygen -y prints the public half of a private key.")
    try:
        _keys.sign(private_key_file, "lifeboat.rescue")
    except (paramiko.SSHException, ValueError) as exc:
        raise BadInput(f"The private key {private_key_file} cannot sign: {exc}.", state=NOTHING) from exc


_CHECKS = (_check_choice, _check_files, _check_addresses, _check_login)
