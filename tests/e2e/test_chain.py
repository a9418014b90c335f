# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The whole job on a server that locks everyone out: plan, do, repeat; what it left, and what it did not."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import threading
from pathlib import Path

from lifeboat_lab.demo import Demo
from lifeboat_lab.inspect import diff_manifests, inspect_disk
from lifeboat_lab.world import World

JOB = ("lifeboat.rescue.rescue", "-e", "rescue_hosts=web1", "-e", "rescue_tasks=reset_root_password,fix_firewall")


class ProcessArguments(threading.Thread):
    """Reads the arguments of every process of this machine, over and over."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen: set[bytes] = set()
        self._end = threading.Event()

    def run(self) -> None:
        while not self._end.wait(0.05):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    self.seen.add(path.read_bytes())
                except OSError:
                    continue

    def stop(self) -> bytes:
        self._end.set()
        self.join()
        return b"\n".join(self.seen)


def test_the_whole_chain(booted: World, password_file: Path, tmp_path: Path) -> None:
    world, host = booted, booted.hosts["web1"]
    password = json.loads(password_file.read_text())["reset_root_password_password"]
    host.server.rescueMail, host.server.monitoring = "ops@example.com", True
    settings = {name: getattr(host.server, name)
                for name in ("bootId", "rescueSshKey", "rescueMail", "monitoring", "noIntervention")}
    job = (*JOB, "-e", f"@{password_file}")
    Demo(host, 0).lock_out()
    assert host.banner(5) is None, "it is locked"

    # The plan writes nothing.
    done = world.ansible_playbook(*job, "--check", "--diff")
    assert done.returncode == 0, done.stdout
    assert "Would boot web1 into rescue12-customer" in done.stdout
    assert world.api.writes() == [] and len(host.machine.boots) == 1

    # The job, as loud as it gets.
    arguments = ProcessArguments()
    arguments.start()
    done = world.ansible_playbook(*job, "-vvv")
    seen = arguments.stop()
    assert done.returncode == 0, done.stdout
    assert [boot.kind for boot in host.machine.boots] == ["installed", "rescue", "installed"]
    assert {name: getattr(host.server, name) for name in settings} == settings
    after, text = Demo(host, 0).log_in(password)
    assert 'tcp dport 22' in after and "lifeboat.rescue" in text

    # Nothing is left on the controller, and no secret was shown.
    assert world.session_files() == []
    secrets = {*world.api.sensitive(), password}
    shown = done.stdout
    assert not [secret for secret in secrets if secret in shown]
    assert not [secret for secret in secrets if secret.encode() in seen]
    assert "PRIVATE KEY" not in shown and b"PRIVATE KEY" not in seen
    hashes = re.findall(r"\$(?:y|6|5|1|2b)\$[./0-9A-Za-z$=,]{8,}", shown)
    assert not hashes
    left = [path for path in (world.directory / "ansible").rglob("*") if path.is_file()]
    assert not [path for path in left if any(secret.encode() in path.read_bytes() for secret in secrets)]

    # Between the boots of the rescue system and of the installed one, only what was meant has changed.
    boots = host.machine.boots
    before, between = (inspect_disk(boots[number].disks, tmp_path / f"inspect-{number}", world.images) for number in (1, 2))
    changes = diff_manifests(before, between)
    backups = {path for path in changes if ".lifeboat-" in path or path == "/etc/shadow-"}
    assert set(changes) - backups == {"/etc/nftables.conf", "/etc/shadow"}, sorted(changes)
    for path in ("/etc/nftables.conf", "/etc/shadow"):
        was, now = changes[path]
        assert was and now and was._replace(size=0, digest="") == now._replace(size=0, digest=""), path
    for path in backups:
        now = changes[path][1]
        original = before["/etc/shadow" if "shadow" in path else "/etc/nftables.conf"]
        assert now == original, path

    # Again: no reboot, no write, nothing changed.
    writes = len(world.api.writes())
    done = world.ansible_playbook(*job)
    assert done.returncode == 0, done.stdout
    assert "changed=0" in done.stdout and "nothing of what was asked for is needed" in done.stdout
    assert len(world.api.writes()) == writes and len(host.machine.boots) == 3


def test_a_failed_repair_leaves_it_in_rescue_unmounted(cheap_world: World, tmp_path: Path) -> None:
    """And the next run, with the cause mended, goes on from there without another boot into rescue.

    The first one mounts for reading only, where modules run all the same, with a /tmp in memory.
    """
    world, host = cheap_world, cheap_world.hosts["web1"]
    tasks = tmp_path / "tasks.yml"
    tasks.write_text("- name: Touch a file inside\n  ansible.builtin.copy:\n    content: x\n    dest: '{{ place }}/was-here'\n"
                     "    mode: '0600'\n- name: Fail\n  ansible.builtin.fail:\n    msg: on purpose\n"
                     "  when: fail_on_purpose | default(true) | bool\n")
    job = ("lifeboat.rescue.rescue", "-e", "rescue_hosts=web1", "-e", f"rescue_tasks={tasks}", "-e", "place=/root")
    done = world.ansible_playbook(*job, "-e", "place=/tmp", "-e", "mount_and_chroot_mode=ro")
    said = " ".join(done.stdout.split())
    assert done.returncode == 2 and "web1 stays in rescue, unmounted" in said and "on purpose" in said, done.stdout
    assert [boot.kind for boot in host.machine.boots] == ["rescue"]
    done = world.ansible_playbook(*job, "-e", "fail_on_purpose=false")
    assert done.returncode == 0, done.stdout
    assert [boot.kind for boot in host.machine.boots] == ["rescue", "installed"]
    assert host.ssh("cat /root/was-here").stdout == "x"

    # Or it leaves all the same, and still says that the repair failed.
    done = world.ansible_playbook(*job, "-e", "rescue_leave_on_failure=true")
    said = " ".join(done.stdout.split())
    assert done.returncode == 2 and "on purpose" in said and "was booted into its installed system again" in said, done.stdout
    assert [boot.kind for boot in host.machine.boots] == ["rescue", "installed"] * 2
    host.wait_for_ssh(120)
    assert host.server.armed().bootType == "harddisk" and world.session_files() == []


def test_by_hand(cheap_world: World, tmp_path: Path) -> None:
    """The playbooks enter and leave: what they print works as it is printed, and the examples of the documentation do."""
    world, host = cheap_world, cheap_world.hosts["web1"]
    examples = []
    for name in ("storage_info", "storage_mount"):
        told = subprocess.run(["ansible-doc", "--json", f"lifeboat.rescue.{name}"], env=world.ansible_environment(), check=True,
                              capture_output=True, text=True, timeout=60).stdout
        examples.append(tmp_path / f"{name}.yml")
        examples[-1].write_text(json.loads(told)[f"lifeboat.rescue.{name}"]["examples"])
    done = world.ansible_playbook("lifeboat.rescue.enter", *map(str, examples), "-e", "rescue_hosts=web1", "-e", "rescue_mount=false",
                                  WEB1_DISK_PASSPHRASE="nothing here is encrypted")
    assert done.returncode == 0 and "Its disks are not mounted." in done.stdout, done.stdout
    assert re.search(r"web1.rescue +: ok=[0-9]+ +changed=2 ", done.stdout), "mounted and unmounted"

    done = world.ansible_playbook("lifeboat.rescue.enter", "-e", "rescue_hosts=web1")
    assert done.returncode == 0, done.stdout
    printed = dict(re.findall(r'"([A-Z][A-Za-z, ]+): ([^"]*)"', done.stdout))
    login, shell, back = (printed[words] for words in (
        "Log in to the rescue system", "There, a shell in the installed system", "Back again"))
    seen = subprocess.run([*shlex.split(login), shell], input="cat /etc/hostname; ls /mnt\n", capture_output=True, text=True, timeout=60,
                          check=False)
    assert (seen.returncode, seen.stdout) == (0, "installed\n"), seen

    words = shlex.split(back)
    assert words[:3] == ["ansible-playbook", "-i", str(world.inventory)]
    done = world.ansible_playbook(*words[3:], "--check")
    assert done.returncode == 0 and "failed=0" in done.stdout, done.stdout
    still = subprocess.run([*shlex.split(login), "findmnt /mnt/target"], capture_output=True, text=True, timeout=60, check=False)
    assert still.returncode == 0 and [boot.kind for boot in host.machine.boots] == ["rescue"]
    done = world.ansible_playbook(*words[3:])
    assert done.returncode == 0, done.stdout
    assert [boot.kind for boot in host.machine.boots] == ["rescue", "installed"]
    assert host.server.armed().bootType == "harddisk" and world.session_files() == []


def test_the_lab_ends_with_everything_it_started(tmp_path: Path) -> None:
    before = set(subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, text=True, check=False).stdout.split())
    with World(tmp_path / "world") as made:
        made.hosts["web1"].machine.power_on()
        made.hosts["web1"].machine.wait_for_boot(1, 60)
        assert made.hosts["web1"].machine.pid
    after = set(subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, text=True, check=False).stdout.split())
    assert after <= before
