# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The key pairs that log in: read, made, signed with. Private to this collection."""

from __future__ import annotations

import base64
import contextlib
import hmac
import os
import typing as t

from ..._errors import BadInput
from ._host_keys import HostKey
from ._paramiko import load_paramiko

# By its comment a key that was made for a session is known in the provider's settings.
SESSION_KEY_COMMENT = "lifeboat.rescue-"


def read_private_key(path: str) -> t.Any:
    """The private key of a file, as paramiko has it. BadInput where it is none, or wants a passphrase."""
    paramiko = load_paramiko()
    path = os.path.expanduser(path)
    try:
        return paramiko.PKey.from_path(path)
    except FileNotFoundError:
        raise BadInput(f"There is no private key at {path}.") from None
    except (paramiko.PasswordRequiredException, TypeError):
        raise BadInput(f"The private key {path} wants a passphrase.",
                       todo="Load it into ssh-agent, or give another one.") from None
    except (paramiko.SSHException, ValueError, OSError, IndexError, paramiko.pkey.UnknownKeyType) as exc:
        raise BadInput(f"{path} is not a private key that paramiko can read: {exc}.") from exc


@contextlib.contextmanager
def agent_key(public: HostKey | None) -> t.Iterator[t.Any]:
    """The key of the agent with this public half, as paramiko has it, or None."""
    paramiko = load_paramiko()
    try:
        agent = paramiko.Agent()
    except paramiko.SSHException:
        # What is at SSH_AUTH_SOCK is none.
        yield None
        return
    with contextlib.closing(agent):
        yield next((key for key in agent.get_keys() if public and key.asbytes() == public.blob), None)


def _signature(key: t.Any, text: str) -> str:
    more = {"algorithm": "rsa-sha2-512"} if key.get_name() == "ssh-rsa" else {}
    signed = key.sign_ssh_data(text.encode(), **more)
    return base64.b64encode(signed if isinstance(signed, bytes) else signed.asbytes()).decode()


def sign(path: str, text: str) -> str:
    """A signature of a text by the private key of a file, for is_signed(). If it wants a passphrase, an agent that has it signs."""
    try:
        return _signature(read_private_key(path), text)
    except BadInput:
        with agent_key(HostKey.from_line(public_key_of(path))) as key:
            if key is None:
                raise
            return _signature(key, text)


def is_signed(path: str, text: str, signature: str) -> bool:
    """Whether the private key of this file signed a text."""
    paramiko = load_paramiko()
    try:
        private = read_private_key(path)
        name, blob = private.get_name(), private.asbytes()
    except BadInput:
        known = HostKey.from_line(public_key_of(path))
        if known is None:
            raise
        name, blob = known
    # paramiko verifies by a public key only, where the key is an Ed25519 one.
    try:
        public = paramiko.PKey.from_type_string(name, blob)
        return bool(public.verify_ssh_sig(text.encode(), paramiko.Message(base64.b64decode(signature))))
    except (TypeError, ValueError, paramiko.SSHException, paramiko.pkey.UnknownKeyType):
        return False


def derive_password(path: str, purpose: str) -> str:
    """A password that follows from a private key's file: the same for the same purpose, and known to nobody without the file."""
    with open(os.path.expanduser(path), "rb") as stream:
        digest = hmac.new(stream.read(), f"lifeboat.rescue password {purpose}".encode(), "sha256").digest()
    return base64.urlsafe_b64encode(digest[:18]).decode()


def make_key_pair(path: str, comment: str) -> str:
    """Make an Ed25519 pair, the private key at path (0600). Return the public key's line."""
    load_paramiko()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519

    private = ed25519.Ed25519PrivateKey.generate()
    text = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH,
                                 serialization.NoEncryption())
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "wb") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    line = private.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return f"{line.decode()} {comment}"


def public_key_of(path: str) -> str:
    """The public key's line of a private key file (from its `.pub` where there is one)."""
    expanded = os.path.expanduser(path)
    try:
        with open(expanded + ".pub", encoding="utf-8") as stream:
            return check_public_key(stream.read().strip())
    except OSError:
        key = read_private_key(path)
        return f"{key.get_name()} {key.get_base64()}"


def check_public_key(line: str) -> str:
    """The line itself, when it is one public key as in authorized_keys; BadInput otherwise."""
    if "\n" in line.strip() or HostKey.from_line(line) is None:
        shown = line.strip().split()[0] if line.strip() else "nothing"
        if "PRIVATE" in line:
            raise BadInput("The SSH key given is a private key.", todo="Give the public one, the line of the .pub file.")
        raise BadInput(f"This is not an SSH public key (it begins with {shown[:20]!r}).",
                       todo="Give one line like `ssh-ed25519 AAAA… comment`.")
    return line.strip()
