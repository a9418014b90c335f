# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Finding, mounting and leaving each image of the zoo, in a machine; judged by what the recipe put there and by a verifier
that trusts nothing of the collection.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from disks import IMAGES, Guest, System, There, Zoo, changed, listing
from disks.build import ensure
from disks.module import call, install
from lifeboat_lab.images import ensure as ensure_lab

# What a line of fstab that is left out must say of itself.
REASONS = {"swap": "swap|a file", "noauto": "noauto", "missing": "Nothing has|has no|cannot be told|No ", "network": "network",
           "pseudo": "no device", "second": "earlier line|The root file system|Nothing has|has no", "short": "",
           "bind": "bind", "loop": "a file"}
FAMILIES = {"Windows": "windows", "FreeBSD": "bsd"}


@pytest.fixture(scope="module")
def zoo(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zoo]:
    lab = ensure_lab(print)
    named = {item.callspec.params["name"] for item in request.session.items
             if isinstance(item, pytest.Function) and hasattr(item, "callspec") and "name" in item.callspec.params}
    ensure([IMAGES[name] for name in sorted(named)], IMAGES, print, lab)
    with Zoo(tmp_path_factory.mktemp("zoo"), lab, print) as zoo:
        install(zoo.guest)
        yield zoo


def keys(there: There) -> list[dict[str, Any]]:
    """The keys of the image's containers, as the option luks takes them."""
    found = []
    for number, secret in enumerate(there.image.secrets):
        uuid = next(content.uuid for content in there.image.contents if content.where == secret.where)
        if secret.file:
            there.guest.run(f"umask 077; cat > /run/key{number}", stdin=secret.key)
            found.append({"device": uuid, "key_file": f"/run/key{number}"})
        else:
            found.append({"device": uuid, "passphrase": secret.key.decode()})
    return found


def expected(there: There) -> list[System]:
    """The installed systems, in an order of their own."""
    return sorted(there.image.systems, key=lambda system: (system.hostname, system.root.uuid))


def check(there: There, info: dict[str, Any]) -> None:
    """What storage_info says against what the recipe put there."""
    others = [FAMILIES[reason.split(",")[0]] for reason in there.image.not_systems.values() if reason.split(",")[0] in FAMILIES]
    assert [each["os"]["family"] for each in info["systems"] if not each["mountable"]] == others
    found = sorted((system for system in info["systems"] if system["mountable"]), key=lambda system: (system["hostname"], system["id"]))
    assert len(found) == len(there.image.systems), [(each["id"], each["root"], each["hostname"]) for each in found]
    for told, system in zip(found, expected(there), strict=True):
        assert (told["os"]["id"], told["hostname"], told["mountable"]) == (system.id, system.hostname, True)
        assert told["boot_mode"] == system.boot_mode
        assert told["arch"] == "x86_64" and told["kernels"] and all(kernel["initramfs"] for kernel in told["kernels"])
        root = system.root
        assert told["uuid"] == root.uuid
        assert told["root"] == there.device(root.where) if root.where[0].isdigit() else told["root"]
        resolved = {entry["file"]: entry for entry in told["fstab"] if entry["status"] == "resolved"}
        wanted = {mount.path: mount for mount in system.mounts}
        # a fstab may not have the root at all
        assert resolved.keys() | {"/"} == wanted.keys(), told["fstab"]
        for path, entry in resolved.items():
            assert entry["uuid"] == wanted[path].uuid, entry
        for entry in told["fstab"]:
            if entry["status"] == "resolved":
                assert entry["spec"] not in system.left_out and f"{entry['spec']} {entry['file']}" not in system.left_out
                continue
            kind = system.left_out.get(f"{entry['spec']} {entry['file']}") or system.left_out[entry["spec"]]
            assert entry["reason"] and re.search(REASONS[kind], entry["reason"]), entry


@pytest.mark.parametrize("name", IMAGES)
def test_what_is_on_it_is_found(zoo: Zoo, name: str, record_property: Any) -> None:
    with zoo.plugged(name) as there:
        luks = keys(there)
        info = call(there.guest, "storage_info", luks=luks)
        assert not info.get("failed"), info
        record_property("took", info["took"])
        check(there, info)
        assert there.left() == []
        # Nothing of the rescue system's is ever a candidate.
        assert all(disk["rescue"] == (disk["serial"] == "rescue") for disk in info["disks"] if disk["serial"])
    assert there.written() == {}


def mounted(guest: Guest, path: str = "/mnt/target") -> dict[str, tuple[str, str, str]]:
    """What is mounted below a path, by findmnt: type, UUID and root in the file system."""
    lines = guest.run(f"findmnt --noheadings --raw --submounts --mountpoint {path} --output TARGET,FSTYPE,UUID,FSROOT").splitlines()
    return {words[0].replace("\\x20", " ")[len(path):] or "/": (words[1], words[2], words[3]) for words in map(str.split, lines)}


def systems() -> list[tuple[str, int]]:
    return [(name, number) for name, image in IMAGES.items() for number, dummy in enumerate(sorted(
        image.systems, key=lambda system: (system.hostname, system.root.uuid)))]


@pytest.mark.parametrize("mode", ["ro", "rw"])
@pytest.mark.parametrize(("name", "number"), systems())
def test_it_is_mounted_and_left_clean(zoo: Zoo, name: str, number: int, mode: str, record_property: Any) -> None:
    """Check mode, mount, again; unmount, again."""
    visit(zoo, name, number, mode, False, record_property)


@pytest.mark.parametrize("mode", ["ro", "rw"])
@pytest.mark.parametrize(("name", "number"), [("raid1-lvm", 0), ("raid1-lvm-degraded", 0), ("raid1-090", 0), ("thin-lvm", 0),
                                              ("cloned-lvm", 0), ("cloned-lvm", 1)])
def test_what_the_rescue_system_has_activated_is_left_as_found(zoo: Zoo, name: str, number: int, mode: str,
                                                               record_property: Any) -> None:
    visit(zoo, name, number, mode, True, record_property)


def visit(zoo: Zoo, name: str, number: int, mode: str, active: bool, record_property: Any) -> None:
    with zoo.plugged(name, active) as there:
        bits = sums(there) if mode == "ro" else ""
        system = expected(there)[number]
        guest, luks = there.guest, keys(there)
        info = call(guest, "storage_info", luks=luks)
        told = sorted(info["systems"], key=lambda each: (each["hostname"] or "", each["id"]))[number]
        arguments = {"mode": mode, "luks": luks, "system": told["id"], "degraded": "degraded" in name, "owner": "the test"}
        assert there.left() == []
        planned = call(guest, "storage_mount", check_mode=True, **arguments)
        assert planned.get("changed") is True, planned
        assert there.left() == []

        done = call(guest, "storage_mount", **arguments)
        assert done.get("changed") is True, done
        record_property("took", done["took"])
        seen = mounted(guest)
        # The driver of ext4 mounts them all.
        assert {path: each[:2] for path, each in seen.items()} == {
            mount.path: (re.sub("^ext[23]$", "ext4", mount.type), mount.uuid) for mount in system.mounts}
        for mount in system.mounts:
            assert mount.subvolume is None or seen[mount.path][2] == f"/{mount.subvolume}"
        assert guest.run("cat /mnt/target/etc/hostname").strip() == system.hostname
        assert guest.run("nsenter --mount=/run/lifeboat/target.ns sh -c 'read -r name < /etc/hostname; echo $name'").strip() == \
            system.hostname
        assert [each["target"] for each in planned["mounts"]] == [each["target"] for each in done["mounts"]]
        again = call(guest, "storage_mount", **arguments)
        assert again.get("changed") is False, again

        left = call(guest, "storage_mount", state="unmounted", owner="the test")
        assert left.get("clean") is True, left
        assert call(guest, "storage_mount", state="unmounted", owner="the test")["changed"] is False
        assert [line for line in there.left() if mode == "ro" or not active or not cannot_be_undone(line)] == []
        if mode == "ro":
            assert sums(there) == bits
    if mode == "ro" and not active:
        assert there.written() == {}


def sums(there: There) -> str:
    """sha256 of the disks, as they are read from the devices themselves."""
    paths = " ".join(sorted(path.split()[0] for path in there.devices.values()))
    return there.guest.run(f"for disk in {paths}; do dd if=$disk bs=1M iflag=direct status=none conv=noerror | sha256sum; done", timeout=300)


def cannot_be_undone(line: str) -> bool:
    """What the first write to an array leaves: it is not read-only any more, and its members know which of them are alone."""
    return re.match(r"(array|device) is (new|gone): md\d+ ", line) is not None


def test_a_degraded_array_is_started_only_when_asked(zoo: Zoo) -> None:
    with zoo.plugged("raid1-lvm-degraded") as there:
        refused = call(there.guest, "storage_mount")
        assert refused["failed"] and "lacks 1 of its 2 disks" in refused["msg"] and "degraded=true" in refused["msg"]
        assert there.left() == []
    assert there.written() == {}


def test_locked_containers_are_told(zoo: Zoo) -> None:
    with zoo.plugged("lvm-on-luks") as there:
        info = call(there.guest, "storage_info")
        [container] = info["containers"]
        assert (container["open"], container["key"], info["systems"]) == (False, None, [])
        [locked] = [each for each in info["filesystems"] if each["type"] == "crypto_LUKS"]
        assert locked["reason"] == "It is locked, and no key for it was given."
        wrong = call(there.guest, "storage_info", luks=[{"passphrase": "wrong horse"}])
        [locked] = [each for each in wrong["filesystems"] if each["type"] == "crypto_LUKS"]
        assert "none of the keys that were given opens it" in locked["reason"] and "wrong horse" not in json.dumps(wrong)
        right = call(there.guest, "storage_info", luks=[{"passphrase": "wrong horse"}, {"passphrase": "correct horse"}])
        assert right["containers"][0]["key"] == "passphrase" and len(right["systems"]) == 1
        assert there.left() == []
    assert there.written() == {}


def test_after_a_visit_all_files_are_as_they_were(zoo: Zoo) -> None:
    with zoo.plugged("gpt-bios-ext4") as there:
        before = listing(there.guest, there.device("0.2"), "ext4")
        assert call(there.guest, "storage_mount", mode="rw")["changed"]
        assert call(there.guest, "storage_mount", state="unmounted")["clean"]
        assert changed(before, listing(there.guest, there.device("0.2"), "ext4")) == []


# Runs in the machine: mounts or unmounts, and dies by SIGKILL right after the journal was written for the n-th time.
DIE = """
import json, os, signal, sys
from ansible_collections.lifeboat.rescue.plugins.module_utils._storage import _journal, _layers, _mounting
state, mode, number, keys = sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
Journal, count = _journal.Journal, [0]
def then_die(method):
    def wrapped(self):
        method(self)
        count[0] += 1
        if count[0] == number:
            os.kill(os.getpid(), signal.SIGKILL)
    return wrapped
Journal.save, Journal.end = then_die(Journal.save), then_die(Journal.end)
storage = _mounting.Storage(keys=[_layers.Key(key["device"], key.get("passphrase"), key.get("key_file")) for key in keys])
if state == "mounted":
    storage.mount("/mnt/target", mode)
else:
    storage.unmount()
print(count[0])
"""


@pytest.mark.parametrize(("name", "mode"), [("raid1-lvm", "rw"), ("luks-on-lv", "rw"), ("raid1-lvm", "ro"), ("btrfs-at", "rw")])
@pytest.mark.parametrize("state", ["mounted", "unmounted"])
def test_killed_at_each_step(zoo: Zoo, name: str, mode: str, state: str) -> None:
    """Whatever was announced or done by then, the next call ends clean."""
    with zoo.plugged(name) as there:
        guest, luks = there.guest, keys(there)
        number, survived = 0, ""
        while not survived:
            number += 1
            if state == "unmounted":
                done = call(guest, "storage_mount", mode=mode, luks=luks)
                assert done.get("changed"), done
            survived = guest.python(DIE, state, mode, str(number), json.dumps(luks), check=False, timeout=600).strip()
            if number % 3 == 0:
                # Or somebody goes on with what was begun.
                again = call(guest, "storage_mount", mode=mode, luks=luks)
                assert not again.get("failed"), (number, again)
            left = call(guest, "storage_mount", state="unmounted")
            assert left.get("clean"), (number, left)
            assert there.left() == [], number
            assert number < 100
        assert number > 5 and int(survived) == number - 1
    if mode == "ro":
        assert there.written() == {}
