# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Builds the images of the zoo, and keeps them.

Each is kept by the hash of its own recipe, so that a change of one builds one. They are built in rescue machines, with
what real installers use: nothing of the host is touched, and nothing is needed on it but what the lab needs already.
Several machines share the work.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import queue
import re
import shutil
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from lifeboat_lab import grub, recipe
from lifeboat_lab.images import Images, LabError
from lifeboat_lab.images import ensure as ensure_lab
from lifeboat_lab.machine import Machine, overlay

from . import verify
from .describe import Image
from .guest import Guest
from .trees import Debian

MACHINES = 2
# What makes the file systems of others, and is in no rescue system: packages, and what of them is kept.
TOOLS = ("bcache-tools", "makefs", "zfs-test")
KEPT = re.compile(r"\./(?:usr/)?(?:sbin/(?:make-bcache|makefs|ztest)|lib64/[^/]*|lib/x86_64-linux-gnu/[^/]*\.so[^/]*)")
KEPT_DAYS = 7  # of images that another state of the recipes made
FILES = "files.json"
LIMIT = 900  # seconds for one image; under emulation beside much else
BUILDER = Path(__file__).with_name("builder.sh")
MIB = 1024 * 1024


class Golden:
    """Where the disks of the images are. They are for reading only."""

    def __init__(self, directories: dict[str, Path]):
        self._directories = directories

    def disks(self, image: Image) -> list[Path]:
        """Return its disks, raw; also those that are not there, in the image's story."""
        return [self._directories[image.of or image.name] / f"disk{number}.img" for number in range(len(image.disks))]

    def files(self, image: Image) -> verify.Listings:
        """Return what is on them, but for what is to be replayed: of images that were pulled out there is no listing."""
        found = json.loads((self._directories[image.of or image.name] / FILES).read_text())
        return [(kind, uuid, {path: verify.File(*values) for path, values in files.items()}) for kind, uuid, files in found]


def directory() -> Path:
    """Return where they are kept."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lifeboat.rescue" / "zoo"
    cache.mkdir(parents=True, exist_ok=True)
    return cache


def ensure(images: Iterable[Image], catalogue: dict[str, Image], say: Callable[[str], None] = lambda line: None,
           lab: Images | None = None) -> Golden:
    """Return the images' disks, built first where they are not in the cache. say is told what goes on.

    Raises LabError.
    """
    cache = directory()
    wanted = {name: catalogue[name] for name in sorted({image.of or image.name for image in images if image.disks})}
    places = {name: cache / f"{name}-{_hash(image)}" for name, image in wanted.items()}
    if not all(place.exists() for place in places.values()):
        with open(cache / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            _forget_old(cache)
            missing = [image for name, image in wanted.items() if not places[name].exists()]
            if missing:
                _build(missing, places, cache, say, lab or ensure_lab(say))
    for place in places.values():
        os.utime(place)  # for _forget_old
    return Golden(places)


def _hash(image: Image) -> str:
    """Return what tells one state of a recipe from another."""
    digest = hashlib.sha256((_used(image.recipe) + verify.LIST + verify.LIST_ALL).encode())
    digest.update(repr((image.recipe, [disk.size for disk in image.disks], image.pulled)).encode())
    for name, tree in sorted(image.trees.items()):
        digest.update(name.encode() + b"\0" + tree.state())
    return digest.hexdigest()[:16]


def _used(recipe: str) -> str:
    """Return those parts of builder.sh that a recipe uses: the head, and each function that is called."""
    head, *parts = re.split(r"^(?=(?:#.*\n)*\w+\(\) \{)", BUILDER.read_text(), flags=re.MULTILINE)
    head = re.sub(r"^#.*\n", "", head, flags=re.MULTILINE)
    functions = {match[1]: part for part in parts if (match := re.search(r"^(\w+)\(\) \{", part, re.MULTILINE))}
    used: dict[str, str] = {}
    todo = [recipe, "done_"]
    while todo:
        text = todo.pop()
        for name in set(re.findall(r"\w+", text)) & functions.keys() - used.keys():
            used[name] = functions[name]
            todo.append(functions[name])
    return head + "".join(part for _name, part in sorted(used.items()))


def _forget_old(cache: Path) -> None:
    for path in cache.iterdir():
        if path.name.startswith(".build-") or path.stat().st_mtime < time.time() - KEPT_DAYS * 86400:
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != "lock":
                path.unlink()


def _tools(cache: Path, say: Callable[[str], None]) -> Path:
    """Return a disk (erofs) with the tools of other systems, made first where it is not in the cache."""
    place = cache / f"tools-{hashlib.sha256(repr((TOOLS, KEPT)).encode()).hexdigest()[:16]}.erofs"
    if not place.exists():
        say(f"Fetching {', '.join(TOOLS)} for it from Debian")
        mirrors = [f"{line} contrib" for line in recipe._mirrors()]
        with tempfile.TemporaryDirectory(prefix=".build-", dir=cache) as name:
            scratch = Path(name)
            recipe.mmdebstrap(scratch, "--variant=extract", f"--include={','.join(TOOLS)}", recipe.SUITE, scratch / "tools.tar", *mirrors)
            with tarfile.open(scratch / "tools.tar") as tar:
                tar.extraction_filter = lambda member, path: member  # it is Debian's own
                tar.extractall(scratch / "tree", [member for member in tar if KEPT.fullmatch(member.name)])
            for folder in ("build", "dev", "proc", "tmp"):
                (scratch / "tree" / folder).mkdir()
            recipe.run("mkfs.erofs", "-zlz4", scratch / "tools.erofs", scratch / "tree")
            (scratch / "tools.erofs").rename(place)
    os.utime(place)
    return place


def _build(missing: list[Image], places: dict[str, Path], cache: Path, say: Callable[[str], None], lab: Images) -> None:
    machines = min(MACHINES, (len(missing) + 3) // 4)
    say(f"Building {len(missing)} images of the zoo in {cache} (about {max(1, len(missing) * 10 // machines // 60)} minutes, once)")
    started = time.monotonic()
    tools = _tools(cache, say) if any("tool " in image.recipe for image in missing) else None
    # those that are pulled out last, for they leave their machine with what it cannot unmount
    work: queue.SimpleQueue[Image] = queue.SimpleQueue()
    for image in sorted(missing, key=lambda image: image.pulled):
        work.put(image)
    errors: list[str] = []
    with tempfile.TemporaryDirectory(prefix=".build-", dir=cache) as scratch:
        workers = [threading.Thread(target=_work, args=(Path(scratch, str(number)), work, places, say, lab, tools, errors),
                                    daemon=True)
                   for number in range(machines)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    if errors:
        raise LabError("\n".join(errors))
    say(f"The zoo is built ({time.monotonic() - started:.0f} s)")


def _work(scratch: Path, work: queue.SimpleQueue[Image], places: dict[str, Path], say: Callable[[str], None], lab: Images,
          tools: Path | None, errors: list[str]) -> None:
    """Build images until there are no more, in a machine of its own."""
    scratch.mkdir()
    try:
        with Machine(f"builder{scratch.name}", [], scratch / "machine", images=lab, hotplug=True, memory=768,
                     resumes=True) as machine, \
                contextlib.closing(Guest(machine, scratch)) as guest, contextlib.suppress(queue.Empty):  # all are built
            # another machine has them too, and a disk that is written to belongs to one
            tools = overlay(tools, scratch / "tools.qcow2") if tools else None
            _prepare(guest, tools)
            while True:
                image = work.get_nowait()
                started = time.monotonic()
                try:
                    _make(image, guest, scratch / image.name).rename(places[image.name])
                except LabError as error:
                    errors.append(f"The image {image.name} cannot be built: {error}")
                    _prepare(guest, tools)
                else:
                    say(f"  {image.name} ({time.monotonic() - started:.1f} s)")
    except Exception as error:  # whoever waits is in another thread
        errors.append(f"{type(error).__name__}: {error}")


def _prepare(guest: Guest, tools: Path | None) -> None:
    """Boot the machine, and make it ready for recipes. tools: a disk of its own."""
    guest.boot()
    # arrays and volume groups are put together by the recipes, and by nobody else
    guest.run("for rule in 64-md-raid-assembly.rules 69-lvm.rules; do ln -s /dev/null /etc/udev/rules.d/$rule; done; "
              "udevadm control --reload; mkdir /build /target /tools")
    if tools:
        guest.machine.plug("tools", tools, serial="tools")
        guest.run(f"set -e; {FIND}\nmount -t erofs -o ro $(find_disk tools) /tools; for name in build dev proc; do "
                  "mount --bind /$name /tools/$name; done; mount -t tmpfs none /tools/tmp")


def _make(image: Image, guest: Guest, directory: Path) -> Path:
    """Make the disks of an image in directory; return that."""
    directory.mkdir()
    systems: dict[str, Path] = {}
    for name, tree in image.trees.items():
        if isinstance(tree, Debian):
            systems[name] = tree.build(directory)
        else:
            guest.run(f"cat > /build/{name}.tar", stdin=tree.tar())
    names = []
    for name, path in systems.items():
        guest.machine.plug(f"t-{name}", path, serial=f"tree-{name}")
        names.append(f"ln -s $(find_disk tree-{name}) /build/{name}.tar")
    for number, disk in enumerate(image.disks):
        path = directory / f"disk{number}.img"
        with path.open("wb") as file:
            file.truncate(disk.size * MIB)
        guest.machine.plug(f"d{number}", path, serial=f"build-{number}")
        names.append(f"D{number}=$(find_disk build-{number}); P{number}=$D{number}")
    script = [BUILDER.read_text(), FIND, *names, image.recipe]
    if not image.pulled:
        script.append("done_")
    try:
        guest.run("bash -s", stdin="\n".join(script).encode(), timeout=LIMIT)
        # for whoever wants to know whether they are still as they were; what was pulled out has things to come
        files = None if image.pulled else _list(guest, image)
    finally:
        for number in range(len(image.disks)):
            guest.machine.unplug(f"d{number}")
        for name in systems:
            guest.machine.unplug(f"t-{name}")
        guest.run("rm -rf /build/*; umount -l -R /target 2>/dev/null; dmesg --clear", check=False)
    for path in systems.values():
        with tarfile.open(path) as tar:
            boot, core = (_member(tar, f"./boot/grub/i386-pc/{name}.img") for name in ("boot", "core"))
        for number in range(len(image.disks)):
            grub.install(directory / f"disk{number}.img", boot, core, 2048)
        path.unlink()
    for path in directory.glob("target.*"):
        path.unlink()
    for path in directory.iterdir():
        _make_sparse(path)
        path.chmod(0o444)
    if files is not None:
        (directory / FILES).write_text(json.dumps(files))
    return directory


def _list(guest: Guest, image: Image) -> verify.Listings:
    """Return the files of a new image. Raises LabError where a file system of it is not seen."""
    # udev may not have noticed yet what was made of a whole disk.
    guest.run("udevadm trigger --action=change --subsystem-match=block --settle")
    files = verify.all_files(guest, image)
    unseen = {(content.type, content.uuid) for content in image.contents if content.type in verify.LISTED} - {
        (kind, uuid) for kind, uuid, _files in files}
    if unseen:
        raise LabError(f"These file systems are not seen: {sorted(unseen)}")
    return files


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    assert file is not None
    return file.read()


FIND = """
find_disk() {
    local try name
    for try in $(seq 100); do
        name=$(lsblk --nodeps --noheadings --paths --output NAME,SERIAL | awk -v serial="$1" '$2 == serial { print $1 }')
        [ -z "$name" ] || { echo "$name"; return; }
        sleep 0.1
    done
    echo "There is no disk $1." >&2
    exit 1
}
"""


def _make_sparse(path: Path) -> None:
    """Punch holes where there is nothing but zeros."""
    thin = path.with_suffix(".thin")
    with path.open("rb") as read, thin.open("wb") as write:
        while block := read.read(65536):
            if block.count(0) == len(block):
                write.seek(len(block), os.SEEK_CUR)
            else:
                write.write(block)
        write.truncate(read.tell())
    thin.replace(path)
