# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether something of the installed system is in use in the rescue system. Private to this collection."""

from __future__ import annotations

import json
import typing as t

from ..._errors import LoginRefused, TargetError
from ._evidence import TEMPORARY_ROOTS

if t.TYPE_CHECKING:
    from ._context import Context
    from ._evidence import Observation
    from ._record import Record

# Mounts; after an empty line who writes to which block device, and which encrypted containers are open (arrays and volume
# groups may have been found by the rescue system itself); after another one the journal of storage_mount. That is root's, where
# another logs in; not to read it is to fail. mdmon holds its arrays' disks open for as long as they are.
_IN_USE = """cat /proc/mounts || exit 1
echo
uses='for fd in /proc/[0-9]*/fd/*; do
    [ -b "$fd" ] || continue
    process=${fd%/fd/*} value=0
    while read -r word value; do [ "$word" != flags: ] || break; done <"$process/fdinfo/${fd##*/}"
    read -r name <"$process/comm"
    case $name,$value in mdmon,*) ;; *[123]) echo "$(readlink "$fd") is written to by $name (pid ${process##*/})" ;; esac
done
for file in /sys/class/block/dm-*/dm/uuid; do
    [ -e "$file" ] && read -r uuid <"$file" && read -r name <"${file%/uuid}/name" || continue
    case $uuid in CRYPT-*) echo "/dev/mapper/$name is open" ;; esac
done'
if [ "$(id -u)" = 0 ] || ! sudo -n sh -c "$uses" 2>/dev/null; then eval "$uses" 2>/dev/null; fi
echo
[ -e /run/lifeboat ] || exit 0
show='[ ! -e /run/lifeboat/journal.json ] || cat /run/lifeboat/journal.json'
if [ -x /run/lifeboat ]; then eval "$show"; else sudo -n sh -c "$show"; fi"""


def refuse_dirty(ctx: Context, record: Record, observation: Observation) -> None:
    """Raise TargetError where something of the installed system is in use in the rescue system, or nobody can say."""
    if ctx.options.force:
        return
    if observation.client is None:
        raise LoginRefused(f"Cannot log in to the rescue system of {record.server} ({observation.refused or observation.reason}), "
                           "so it is not known whether something of the installed system is still mounted there.",
                           state="Nothing was changed.",
                           todo=f"Run this again with the key that it takes, or with {ctx.options.by_force}.")
    status, text = observation.client.run(_IN_USE)
    if status != 0:
        raise TargetError(f"The rescue system of {record.server} did not say whether something of the installed system is still in "
                          f"use there (exit code {status}).", state="The server stays in rescue; nothing was changed.",
                          todo="Run this again, as root where rescue_user is somebody else, or with "
                               f"{ctx.options.by_force}.")
    uses = _uses(text, observation.evidence.root_source if observation.evidence else None)
    if uses:
        raise TargetError(f"Something of the installed system of {record.server} is still in use in the rescue system: "
                          f"{'; '.join(uses[:20])}.", state="The server stays in rescue; nothing was changed.",
                          todo="Run the playbook lifeboat.rescue.leave, which unmounts it first (as lifeboat.rescue.storage_mount with "
                               "state=unmounted does, in the rescue system), end what was begun by hand, or run this with "
                               f"{ctx.options.by_force} and lose what is not written.",
                          details={"mounts": uses})


def _uses(text: str, own: str | None) -> list[str]:
    """What the script above told, a clause each. own: what the rescue system itself lives on."""
    mounts, _gap, rest = text.partition("\n\n")
    holders, _gap, journal = rest.partition("\n\n") if not rest.startswith("\n") else ("", "", rest[1:])
    lines = [line.split()[:3] for line in mounts.splitlines()]
    held = [line for line in lines if len(line) == 3 and (line[0].startswith("/dev/") or line[2] == "zfs")]
    uses = [f"{source} on {where}" for source, where, fstype in held
            if source != own and fstype not in TEMPORARY_ROOTS] + list(dict.fromkeys(holders.splitlines()))
    if not uses and journal.strip():
        try:
            return [json.dumps(step) for step in json.loads(journal).get("steps", [])]
        except ValueError:
            return ["an unreadable journal /run/lifeboat/journal.json"]
    return uses
