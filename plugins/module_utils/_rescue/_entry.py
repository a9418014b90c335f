# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The edge between the modules of the rescue system and what they call. Private to this collection."""

from __future__ import annotations

import os
import traceback
import typing as t

from .._errors import BadInput, LifeboatError
from ._storage._layers import Key

# Goes with the doc fragment `storage`.
ARGUMENTS: dict[str, t.Any] = {
    "luks": {"type": "list", "elements": "dict", "default": [], "no_log": False, "options": {
        "device": {"type": "str"},
        "passphrase": {"type": "str", "no_log": True},
        "key_file": {"type": "path", "no_log": False},
        "clevis": {"type": "bool", "default": False},
    }, "mutually_exclusive": [("passphrase", "key_file")]},
}


def keys(asked: t.Sequence[t.Mapping[str, t.Any]]) -> list[Key]:
    """The keys of the option `luks`. Raises BadInput."""
    found = []
    for number, key in enumerate(asked, 1):
        ways = [name for name in ("passphrase", "key_file", "clevis") if key[name]]
        if len(ways) != 1:
            raise BadInput(f"Key {number} of luks needs one of passphrase, key_file and clevis=true.")
        if key["key_file"] and not os.path.isfile(key["key_file"]):
            raise BadInput(f"Key {number} of luks: the rescue system has no file {key['key_file']}.")
        found.append(Key(key["device"] or "", key["passphrase"], key["key_file"], key["clevis"]))
    return found


def answer(module: t.Any, call: t.Callable[[], dict[str, t.Any]]) -> None:
    """Leave an AnsibleModule with what call() returns, or with the failure that it raises.

    The list `warnings` in what it returns is shown as Ansible's own.
    """
    try:
        if os.geteuid() != 0:
            raise LifeboatError("This needs root.", None, "Log in to the rescue system as root, or set become=true.")
        result = call()
    except LifeboatError as exc:
        module.fail_json(**clean(exc.as_result()))
    except Exception as exc:
        told = LifeboatError(f"Internal error: {type(exc).__name__}: {exc}.", todo="This is a bug. Please report it with the traceback.")
        module.fail_json(**clean({**told.as_result(), "exception": traceback.format_exc()}))
    else:
        for warning in result.pop("warnings", ()):
            module.warn(clean(warning))
        module.exit_json(**clean(result))


def clean(value: t.Any) -> t.Any:
    r"""The same data, with bytes that are no UTF-8 (names on a disk may have any) written as "\xHH"."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if isinstance(value, dict):
        return {clean(key): clean(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean(each) for each in value]
    return value
