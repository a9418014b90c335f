# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What needs no kernel; the integration target fix_firewall has the rest."""

from __future__ import annotations

import pytest

from ansible_collections.lifeboat.rescue.plugins.module_utils._rescue._command import Result
from ansible_collections.lifeboat.rescue.plugins.module_utils._rescue._repairs import _fix_firewall

# nft writes tabs.
RULESET = """\
table inet filter {
    set bad {
        type ipv4_addr
    }

    chain input {
        type filter hook input priority filter; policy drop;
        tcp dport 80 accept
    }

    chain sub {
        drop
    }

    chain open {
        type filter hook input priority 10; policy accept;
        log prefix "drop: " accept
    }

    chain output {
        type filter hook output priority filter; policy accept;
        jump sub
    }
}
table ip6 six {
    chain in {
        type filter hook input priority filter; policy accept;
        tcp dport 22 reject
    }
}
table ip nat {
    chain pre {
        type nat hook prerouting priority dstnat; policy accept;
        tcp dport 1 drop
    }
}
""".replace("    ", "\t")


def test_chains():
    assert [(c.family, c.table, c.name, c.hook, c.may_drop) for c in _fix_firewall._nft_chains(RULESET)] == [
        ("inet", "filter", "input", "input", True), ("inet", "filter", "open", "input", False),
        ("inet", "filter", "output", "output", True), ("ip6", "six", "in", "input", True)]


@pytest.fixture
def nftables(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nftables.conf").write_text("table inet filter {\n}")
    return _fix_firewall.Nftables(None, str(tmp_path))


def test_nftables_plans_grow_and_touch_only_what_blocks(nftables):
    first, second = ([change.after.decode().splitlines()[2:] for change in plan]
                     for plan in nftables.plans({4: [22, 2222]}, RULESET))
    end = f'accept comment "{_fix_firewall.COMMENT}"'
    assert first == [[f"insert rule inet filter input tcp dport {{ 22, 2222 }} {end}"]]
    assert second == [[*first[0], f"insert rule inet filter output tcp sport {{ 22, 2222 }} {end}"]]


def test_an_older_addition_is_replaced(nftables):
    old = list(nftables.plans({4: [22], 6: [22]}, RULESET))[-1][0]
    with open(f"{nftables.root}/etc/nftables.conf", "wb") as file:
        file.write(old.after)
    new = next(nftables.plans({4: [2222], 6: [2222]}, RULESET))[0].after.decode()
    assert new.count("insert rule") == 2 and "dport 22 " not in new and new.startswith("table inet filter {\n}\n")


def test_the_file_that_the_unit_names(tmp_path):
    unit = tmp_path / "usr/lib/systemd/system/nftables.service"
    unit.parent.mkdir(parents=True)
    unit.write_text("[Service]\nExecStart=/sbin/nft -f /etc/sysconfig/nftables.conf\n")
    assert _fix_firewall.Nftables(None, str(tmp_path)).path == "etc/sysconfig/nftables.conf"


def test_interfaces_that_rules_speak_of(tmp_path):
    (tmp_path / "etc/n.d").mkdir(parents=True)
    (tmp_path / "etc/nftables.conf").write_text(
        'include "/etc/n.d/*.nft"\ndefine wan = { eth0, "eth1.5" }\niif eth2 accept\noifname != "br-lan" drop\n')
    (tmp_path / "etc/n.d/a.nft").write_text('include "/etc/nftables.conf"\niifname { wg0, ppp* }\n')
    names = _fix_firewall.Nftables(None, str(tmp_path)).interfaces()
    assert {"eth0", "eth1.5", "eth2", "br-lan", "wg0"} <= names


def test_iptables_additions():
    data = b"*nat\n:INPUT ACCEPT\nCOMMIT\n# c\n*filter\n:INPUT DROP [0:0]\n-I INPUT -j DROP\nCOMMIT\n"
    after = _fix_firewall._add_to_tables(data, [("filter", "INPUT", "--dport")], [22, 2222])
    lines = after.decode().splitlines()
    added = [line for line in lines if _fix_firewall.COMMENT in line]
    # The last inserted is the first in the chain, and ahead of the file's own -I.
    assert [line.split("--dport ")[1].split()[0] for line in added] == ["2222", "22"]
    assert lines[-1] == "COMMIT" and lines[-3:-1] == added
    assert b"".join(line + b"\n" for line in after.splitlines() if _fix_firewall.COMMENT.encode() not in line) == data
    assert _fix_firewall._add_to_tables(after, [("filter", "INPUT", "--dport")], [22, 2222]) == after


def test_names_and_addresses_of_the_way_out():
    answers = {
        "ip -4 route": "default via 192.0.2.1 dev eth0 proto dhcp\n",
        "ip -6 route": "",
        "ip link": "2: eth0: <UP>\n    altname enp0s3\n    altname ens3\n",
        "udevadm info": "ID_NET_NAME_PATH=enp0s3\nID_NET_NAME_SLOT=ens3\nID_NET_NAME=eno1\nID_BUS=pci\n",
        "ip -4 -o": "2: eth0    inet 192.0.2.7/24 scope global eth0\n",
    }

    def run(argv, **options):
        return Result(0, next(text for start, text in answers.items() if " ".join(argv).startswith(start)), "")

    assert _fix_firewall._outside(run) == (["eth0", "enp0s3", "ens3", "eno1"], {4: "192.0.2.7"})


def test_without_a_way_out():
    assert _fix_firewall._outside(lambda argv, **options: Result(1, "", "")) == (["eth0"], {})
