# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Evidence as text."""

from __future__ import annotations

import pytest
import yaml

from ansible_collections.lifeboat.rescue.plugins.module_utils._control._ssh._client import Evidence

CASES = yaml.safe_load(r"""
- name: all of it
  text: |
    boot_id 5a1c
    uptime 12.34
    hostname rescue-customer-eu
    kernel 6.1.0-44-amd64
    root ext4 /dev/sda1
    os Debian GNU/Linux 12 (bookworm)
    session {"provider": "ovh_dedicated"}
  said: {boot_id: 5a1c, uptime: 12.34, hostname: rescue-customer-eu, kernel: 6.1.0-44-amd64, root_fstype: ext4,
         root_source: /dev/sda1, os: Debian GNU/Linux 12 (bookworm), session: '{"provider": "ovh_dedicated"}'}
- name: nothing
  text: ""
  said: {}
- name: what could not be read is an empty value
  text: "boot_id \nhostname \nkernel\nos  \n"
  said: {}
- name: an initramfs lists its rootfs first, and the overlay over it
  text: |
    root rootfs rootfs
    root overlay overlay
  said: {root_fstype: overlay, root_source: overlay}
- name: a root without a source
  text: "root tmpfs"
  said: {root_fstype: tmpfs, root_source: ""}
- name: junk of a login script before, between and after
  text: |
    *** Authorised users only ***
    boot_id 5a1c
    bash: warning: setlocale: LC_ALL: cannot change locale (de_DE.UTF-8)
    uptime 7.00
    Bye.
  said: {boot_id: 5a1c, uptime: 7.0}
- name: an uptime that is none
  text: "uptime yesterday\nboot_id x"
  said: {boot_id: x}
- name: carriage returns
  text: "boot_id 5a1c\r\nhostname web1\r\n"
  said: {boot_id: 5a1c, hostname: web1}
- name: the names of fields that we do not say are not taken
  text: "root_fstype tmpfs\n_asdict x\n"
  said: {}
""")


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_parsing_of_evidence(case):
    assert Evidence.parse(case["text"]) == Evidence(**case["said"])
