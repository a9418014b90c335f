# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What Nova would refuse, told beforehand. Private to this collection."""

from __future__ import annotations

import typing as t

from ...._errors import NotAllowed, ProviderError
from ._client import state_of, task_of

if t.TYPE_CHECKING:
    from ._client import Client

_NOTHING = "Nothing was changed."
_REFUSED = {
    "paused": "openstack server unpause",
    "suspended": "openstack server resume",
    "shelved": "openstack server unshelve",
    "shelved_offloaded": "openstack server unshelve",
}
_RESCUABLE = ("active", "stopped", "error", "rescued")
_READ_ONLY_ROLES = {"reader", "auditor"}


def check(client: Client, name: str) -> None:
    """Raise NotAllowed or ProviderError where Nova would not rescue the server, by these credentials or as it is."""
    data, roles = client.show(name), client.roles()
    state, task = state_of(data), task_of(data)
    if roles and roles <= _READ_ONLY_ROLES:
        raise NotAllowed(f"The OpenStack user has only the role {', '.join(sorted(roles))} in this project, which may not "
                         "rescue servers.", state=_NOTHING, todo="It needs the role member.")
    if data.get("locked") and "admin" not in roles:
        why = f" ({data['locked_reason']})" if data.get("locked_reason") else ""
        raise NotAllowed(f"{name} is locked{why}, so Nova refuses to rescue it.", state=_NOTHING,
                         todo=f"Unlock it: openstack server unlock {data['id']}.")
    if state in _REFUSED:
        raise ProviderError(f"{name} is {data['status']}, and Nova rescues no such server.", state=_NOTHING,
                            todo=f"Use {_REFUSED[state]} {data['id']} first.")
    if state not in _RESCUABLE:
        raise ProviderError(f"{name} is {data['status']} ({state}), and Nova rescues no such server.", state=_NOTHING,
                            todo="It can be rescued while it is ACTIVE, SHUTOFF or ERROR.")
    if task not in (None, "rescuing", "unrescuing"):
        # Those two may be this session's own, by a call that died; the session tells them apart.
        raise ProviderError(f"Nova is at work on {name} ({task}).", state=_NOTHING, todo="Run this again when that has ended.")
