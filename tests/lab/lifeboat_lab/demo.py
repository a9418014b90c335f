# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The demonstration: a server locks everyone out, one playbook brings it back, and that is proved."""

from __future__ import annotations

import difflib
import json
import secrets
import shlex
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import paramiko

from .images import LabError, ensure
from .world import Host, World

# Somebody meant well. Port 22 is missing.
LOCKED_OUT = """\
#!/usr/sbin/nft -f
flush ruleset

table inet filter {
    set blocked {
        type ipv4_addr
        elements = { 192.0.2.66, 198.51.100.7 }
    }
    chain input {
        type filter hook input priority filter; policy drop;
        ip saddr @blocked counter drop
        ct state established,related accept
        iif lo accept
        meta l4proto { icmp, ipv6-icmp } accept
        tcp dport { 80, 443 } accept comment "web"
    }
    chain forward {
        type filter hook forward priority filter; policy drop;
    }
}
"""


class Demo:
    """One run of it."""

    def __init__(self, host: Host, started: float):
        self.host = host
        self.world = host.world
        self._started = started

    def step(self, text: str) -> None:
        """Say what comes next."""
        print(f"\n\033[1m[{time.monotonic() - self._started:5.1f} s] {text}\033[0m", flush=True)

    def need(self, true: object, what: str) -> None:
        """Say that something is proved. Raises LabError where it is not."""
        if not true:
            raise LabError(f"Not so: {what}")
        print(f"  proved: {what}", flush=True)

    def lock_out(self) -> str:
        """Load and keep rules that drop port 22, and lose the root password. Return the rules as the kernel lists them."""
        done = self.host.ssh("cat >/etc/nftables.conf && nft -f /etc/nftables.conf && "
                             "echo root:$(head -c 32 /dev/urandom | base64 -w 0) | chpasswd && nft list ruleset && sync",
                             stdin=LOCKED_OUT)
        if done.returncode:
            raise LabError(f"The server could not be broken: {done.stderr}")
        return done.stdout

    def rescue(self, password: str) -> None:
        """Run the playbook as a user would, with its output shown while it runs. Raises LabError where it fails."""
        variables = self.world.directory / "vault.yml"
        variables.touch(0o600)
        variables.write_text(json.dumps({"reset_root_password_password": password}))
        argv = self.world.command("ansible-playbook", [
            "lifeboat.rescue.rescue", "-e", "rescue_hosts=web1", "-e", "rescue_tasks=reset_root_password,fix_firewall",
            "-e", f"@{variables}"])
        print(f"  $ {shlex.join(argv)}\n", flush=True)
        if subprocess.run(argv, env=self.world.ansible_environment(), stdin=subprocess.DEVNULL, timeout=900,
                          check=False).returncode:
            raise LabError("The playbook failed.")

    def log_in(self, password: str) -> tuple[str, str]:
        """Log in by the new password. Return the rules as the kernel lists them now, and the file that they came from."""
        # sshd is restarted while the system comes up.
        self.host.wait_for_ssh(120)
        with paramiko.SSHClient() as client:
            client.load_host_keys(str(self.world.known_hosts))
            client.connect(self.host.machine.address, self.host.machine.port, "root", password, timeout=60,
                           banner_timeout=60, auth_timeout=60, look_for_keys=False, allow_agent=False)
            answers = []
            for command in ("nft list ruleset", "cat /etc/nftables.conf"):
                _stdin, stdout, _stderr = client.exec_command(command, timeout=60)
                answers.append(stdout.read().decode())
        return answers[0], answers[1]


def added_lines(before: str, after: str) -> tuple[list[str], list[str]]:
    """(lines that came, lines that went), without the numbers of counters."""
    changes = [line for line in difflib.ndiff(_plain(before), _plain(after)) if line[:2] in ("+ ", "- ")]
    return [c[2:].strip() for c in changes if c[0] == "+"], [c[2:].strip() for c in changes if c[0] == "-"]


def _plain(text: str) -> list[str]:
    words = (line.split("counter packets")[0] + ("counter drop" if "counter packets" in line else "")
             for line in text.splitlines())
    return [line for line in words if line.strip()]


def demo(say: Callable[[str], None]) -> int:
    """Run it. Raises LabError where anything is not as it should be."""
    images = ensure(say)
    with tempfile.TemporaryDirectory(prefix="lifeboat-demo-") as directory, World(Path(directory), images=images) as world:
        show = Demo(world.hosts["web1"], time.monotonic())
        host = show.host
        show.step(f"web1 boots: a Debian 12 on a disk of its own, {host.server.name} at its provider")
        host.machine.power_on()
        host.wait_for_ssh(240)

        show.step("Somebody loads firewall rules without port 22, and nobody knows the root password any more")
        before = show.lock_out()
        show.need(host.banner(5) is None, "SSH does not answer any more")

        show.step("lifeboat.rescue brings it back")
        password = secrets.token_urlsafe(16)
        show.rescue(password)

        show.step("Is it back?")
        after, text = show.log_in(password)
        show.need(True, "root logs in by SSH with the new password")
        came, went = added_lines(before, after)
        show.need(not went and came and all("lifeboat.rescue" in line for line in came),
                  f"the firewall's rules are the same but for: {'; '.join(came)}")
        show.need(text.startswith(LOCKED_OUT.rstrip("\n")), "/etc/nftables.conf has kept every line that it had")
        show.need([boot.kind for boot in host.machine.boots] == ["installed", "rescue", "installed"],
                  "the server rebooted twice: into the rescue system, and back")
        show.need(host.server.armed().bootType == "harddisk" and not host.server.rescueSshKey,
                  "the provider's settings are as they were")
        show.need(not (world.sessions / "ovh_dedicated" / host.server.name).exists(), "no key and no record is left")
        show.step("Done. ./dev lab starts a lab to play with.")
    return 0
