# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which system answers, and since when: judged by what was seen."""

from __future__ import annotations

import pytest

from ansible_collections.lifeboat.rescue.plugins.module_utils._control._session._evidence import (
    INSTALLED,
    RESCUE,
    UNKNOWN,
    KnownHostKeys,
    Observation,
)
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._ssh._client import Evidence
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._ssh._host_keys import HostKey

DISK, FAMILIAR, PINNED, OTHER = (HostKey("ssh-ed25519", name) for name in (b"disk", b"familiar", b"pinned", b"other"))
KNOWN = KnownHostKeys((DISK,), (FAMILIAR,), PINNED)


def says(fstype=None, hostname="web1"):
    return Evidence(root_fstype=fstype, root_source="/dev/sda1", hostname=hostname)


@pytest.mark.parametrize(("key", "evidence", "own_key", "system"), [
    # Nobody could log in: only the host key tells.
    (DISK, None, False, INSTALLED),
    (FAMILIAR, None, False, INSTALLED),
    (PINNED, None, False, RESCUE),
    (OTHER, None, False, UNKNOWN),
    # What is on the server's own disk is not to be talked away.
    (DISK, says("overlay"), False, INSTALLED),
    (DISK, says("overlay", "rescue"), True, INSTALLED),
    (DISK, says("ext4"), True, INSTALLED),
    # The root file system.
    *((key, says(fstype), own_key, RESCUE) for key in (FAMILIAR, PINNED, OTHER) for own_key in (False, True)
      for fstype in ("overlay", "tmpfs", "nfs", "rootfs", "squashfs")),
    *((OTHER, says(fstype), False, INSTALLED) for fstype in ("ext4", "xfs", "btrfs", "zfs")),
    (FAMILIAR, says("ext4"), False, INSTALLED),
    # A key that was given to nobody but the provider's rescue system.
    (OTHER, says("ext4"), True, RESCUE),
    (OTHER, says(None), True, RESCUE),
    # A name says something only where nothing else does: a company may well call its servers so.
    (OTHER, says(None, "rescue-customer-eu"), False, RESCUE),
    (OTHER, says("ext4", "rescue-customer-eu"), False, INSTALLED),
    (OTHER, says(None), False, UNKNOWN),
    (OTHER, Evidence(), False, UNKNOWN),
    # Windows says nothing but its name.
    (OTHER, Evidence(os="Microsoft Windows [Version 10.0.20348.2700]"), False, INSTALLED),
])
def test_judgement(key, evidence, own_key, system):
    found, reason = KNOWN.classify(key, evidence, own_key)
    assert found == system
    assert reason and not reason.endswith(".")


def test_nothing_known_is_nothing_claimed():
    assert KnownHostKeys().classify(OTHER, None, True)[0] == UNKNOWN


def observation(**said):
    return Observation(RESCUE, "", "", evidence=Evidence(**said))


@pytest.mark.parametrize(("seen", "ago", "before", "fresh"), [
    (observation(boot_id="b", uptime=5000), 60, "a", True),
    (observation(boot_id="a", uptime=5), 60, "a", False),  # a new boot has a new id, whatever the uptime
    (observation(boot_id="b", uptime=30), 60, None, True),
    (observation(boot_id="b", uptime=90), 60, None, False),
    (observation(uptime=30), 60, "a", True),
    (observation(uptime=90), 60, "a", False),
    (observation(boot_id="b"), 60, None, None),
    (observation(), 60, "a", None),
    (Observation(RESCUE, "", ""), 60, "a", None),
])
def test_freshness(seen, ago, before, fresh):
    assert seen.fresh(ago, before) is fresh


def test_a_result_has_every_key_and_no_session():
    empty, full = Observation(UNKNOWN, "why", "what").as_result(), observation(boot_id="b", session="x").as_result()
    assert empty.keys() == full.keys() == {"reason", "banner", "connect_error", "logged_in", "host_key", "boot_id", "uptime", "hostname",
                                           "kernel", "os", "root_fstype", "root_source"}
    assert (empty["banner"], empty["connect_error"]) == (None, "what")
    assert (empty["logged_in"], full["logged_in"]) == (False, True)
