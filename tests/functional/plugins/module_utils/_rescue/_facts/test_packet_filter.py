# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The probe against the real kernel: real rulesets, real packets."""

from __future__ import annotations

import os
import shutil

import pytest

from ansible_collections.lifeboat.rescue.plugins.module_utils._rescue import _command
from ansible_collections.lifeboat.rescue.plugins.module_utils._rescue._facts import _packet_filter

pytestmark = pytest.mark.skipif(os.geteuid() != 0 or not os.path.exists("/dev/net/tun") or not shutil.which("nft"),
                                reason="needs root, /dev/net/tun and nft")

SSH4, SSH6, ALT4 = _packet_filter.Knock(4, 22), _packet_filter.Knock(6, 22), _packet_filter.Knock(4, 2222)
IN = "type filter hook input priority 0; policy drop;"
OUT = "type filter hook output priority 0; policy drop;"
A, R, D = _packet_filter.ACCEPTED, _packet_filter.REJECTED, _packet_filter.DROPPED


@pytest.mark.parametrize(("ruleset", "expected"), [
    ("", (A, A, A)),
    (f"table inet t {{\n chain i {{\n {IN} tcp dport 22 accept\n }}\n}}", (A, A, D)),
    (f"table ip t {{\n chain i {{\n {IN} tcp dport 22 accept\n }}\n}}", (A, A, D)),
    (f"table ip6 t {{\n chain i {{\n {IN}\n }}\n}}", (A, D, A)),
    (f"table inet t {{\n chain i {{\n {IN} tcp dport 22 accept; tcp dport 2222 reject\n }}\n}}", (A, A, R)),
    (f"table inet t {{\n chain i {{\n {IN} tcp dport 22 reject with tcp reset\n }}\n}}", (R, R, D)),
    # The classic: the first packet gets in, and nothing after it.
    (f"table inet t {{\n chain i {{\n {IN} ct state new tcp dport 22 accept\n }}\n}}", (D, D, D)),
    (f"table inet t {{\n chain i {{\n {IN} tcp dport 22 accept\n }}\n chain o {{\n {OUT}\n }}\n}}", (D, D, D)),
    # It comes in by the interface named, not by loopback and not by another one.
    (f'table inet t {{\n chain i {{\n {IN} iif "lo" accept; iif "wan1" tcp dport 22 accept\n }}\n}}', (A, A, D)),
    (f'table inet t {{\n chain i {{\n {IN} iif "vpn0" tcp dport 22 accept\n }}\n}}', (D, D, D)),
    ("table netdev t {\n chain i {\n type filter hook ingress device wan1 priority 0; tcp dport 22 drop\n }\n}",
     (D, D, A)),
    (f"table inet t {{\n chain i {{\n {IN} ip daddr 192.0.2.7 tcp dport 22 accept\n }}\n}}", (A, D, D)),
])
def test_verdicts(ruleset, expected):
    run = _command.Runner(timeout=20)
    verdicts, loaded = _packet_filter.ask(run, [SSH4, SSH6, ALT4], lambda: run(["nft", "-f", "-"], stdin=ruleset + "\n").rc,
                                          interface="wan1", others=["vpn0"], addresses={4: "192.0.2.7"})
    assert loaded == 0
    assert (verdicts[SSH4], verdicts[SSH6], verdicts[ALT4]) == expected


def test_the_running_system_is_not_touched():
    run = _command.Runner(timeout=20)
    before = run(["nft", "list", "ruleset"]).out, os.readlink("/proc/self/ns/net"), os.listdir("/sys/class/net")
    _packet_filter.ask(run, [SSH4], lambda: run(["nft", "-f", "-"], stdin="table inet probe_test {\n}\n").rc)
    assert (run(["nft", "list", "ruleset"]).out, os.readlink("/proc/self/ns/net"),
            os.listdir("/sys/class/net")) == before


def test_a_firewall_that_does_not_load_is_told():
    run = _command.Runner(timeout=20)
    with pytest.raises(_packet_filter.ProbeFailed, match="syntax error"):
        _packet_filter.ask(run, [SSH4], lambda: run(["nft", "-f", "-"], stdin="nonsense\n"))


def test_a_child_that_hangs_is_ended():
    run = _command.Runner(timeout=20)
    with pytest.raises(_packet_filter.ProbeFailed, match="still busy after 1 s"):
        _packet_filter.ask(run, [SSH4], lambda: run(["sleep", "31.07"]), limit=1)
    assert "31.07" not in run(["ps", "-e", "-o", "args"]).out
