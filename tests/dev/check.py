# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the parts of ./dev test, and tells in the last line how many tests passed, failed and were left out.

It works on a copy of the files that git knows or would take: ansible-test wants them in a real directory
ansible_collections/lifeboat/rescue, and neither litter in the checkout nor an editor at work changes what is tested.
Two steps run at a time, for two cores: one of those that boot machines, which keep one core busy each, and one of the others.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import collections
import configparser
import contextlib
import dataclasses
import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TextIO

import ansible_test
import yaml

CHECKOUT = Path(__file__).resolve().parents[2]
BIN = Path(sys.prefix, "bin")
SCRIPTS = ("lab", "dev", "bench")  # the directories below tests that hold programs


@dataclasses.dataclass
class Totals:
    """Numbers of tests."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def add(self, other: Totals) -> None:
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped

    def __str__(self) -> str:
        text = f"{self.passed} passed, {self.failed} failed"
        return f"{text}, {self.skipped} skipped" if self.skipped else text


@dataclasses.dataclass
class Step:
    """Commands to run one after the other, all of which have to end with 0 within limit seconds.

    junit: the file in which pytest tells what it did; without one the step is one test.
    notes: lines of the output that match are shown even when all is well.
    live: show the output as it comes, each line with the name of the step.
    """

    name: str
    commands: Sequence[Sequence[str | Path]]
    limit: float = 600
    env: dict[str, str] = dataclasses.field(default_factory=dict)
    junit: Path | None = None
    notes: str | None = None
    live: bool = False


Job = Callable[[], Awaitable[None]]


class Bench:
    """A place where steps run: a copy of the checkout, the environment, and the totals so far."""

    def __init__(self, cache: Path, work: Path, totals: Totals):
        self.cache = cache
        self.work = work
        self.tree = work / "ansible_collections/lifeboat/rescue"
        self.totals = totals
        self.env = {
            **os.environ,
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "PYTHONPATH": f"{work}:{self.tree}/tests/lab",
            "MYPYPATH": ":".join(str(path) for path in [work, *(self.tree / "tests" / name for name in SCRIPTS)]),
            "PYTHONUNBUFFERED": "1",
            "ANSIBLE_COLLECTIONS_PATH": str(work),
            "ANSIBLE_HOME": str(work / "ansible"),
            "MYPY_CACHE_DIR": str(cache / "mypy"),
            "RUFF_CACHE_DIR": str(cache / "ruff"),
        }

    def copy_checkout(self) -> None:
        """Copy what git tracks or would take; where this is no git checkout, all."""
        git = ["git", "-C", str(CHECKOUT), "-c", f"safe.directory={CHECKOUT}"]
        names: list[str] = []
        if (CHECKOUT / ".git").exists():
            found = subprocess.run([*git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                                   stdout=subprocess.PIPE, check=True)
            names = sorted(set(found.stdout.decode().split("\0")) - {""})
        else:
            names = [str(path.relative_to(CHECKOUT)) for path in CHECKOUT.rglob("*")
                     if "__pycache__" not in path.parts and not path.is_dir()]
        for name in names:
            source, copy = CHECKOUT / name, self.tree / name
            if os.path.lexists(source):  # git still lists what was removed and not yet committed
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, copy, follow_symlinks=False)

    def will_run(self, steps: Sequence[Step]) -> collections.deque[Job]:
        """The steps, to be run here later."""
        return collections.deque(functools.partial(self.run, step) for step in steps)

    async def run(self, step: Step) -> None:
        """Run a step, print one line for it, and its output when it failed."""
        started = time.monotonic()
        log = self.work / f"{step.name.replace(' ', '-')}.log"
        problem = None
        with log.open("w", encoding="utf-8") as output:
            try:
                for command in step.commands:
                    problem = await self._run([str(word) for word in command], step, output,
                                              started + step.limit - time.monotonic())
                    if problem:
                        break
            except asyncio.CancelledError:
                last = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:])
                print(f"stop {step.name} ({time.monotonic() - started:.1f} s)\n{last}", flush=True)
                raise
        text = log.read_text(encoding="utf-8", errors="replace")
        totals = _junit(step.junit) if step.junit else Totals(passed=0 if problem else 1)
        if problem and not totals.failed:
            totals.failed = 1
        self.totals.add(totals)
        if problem and not step.live:
            print(text.rstrip(), flush=True)
        elif step.notes and not step.live:
            for line in dict.fromkeys(re.findall(step.notes, text, re.MULTILINE)):
                print(f"     {step.name}: {line}")
        verdict = f"{totals}" if step.junit else ""
        print(f"{'FAIL' if problem else 'ok  '} {step.name} ({time.monotonic() - started:.1f} s) "
              f"{'; '.join(filter(None, [verdict, problem]))}".rstrip(), flush=True)

    async def _run(self, command: list[str], step: Step, output: TextIO,
                   limit: float) -> str | None:
        """Run a command in a session of its own, so that its children can be ended too. Say what went wrong."""
        try:
            process = await asyncio.create_subprocess_exec(
                *command, cwd=self.tree, env={**self.env, **step.env}, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, limit=2**24)
        except OSError as exc:
            return f"cannot run {command[0]}: {exc.strerror}"
        assert process.stdout is not None
        try:
            async with asyncio.timeout(max(limit, 0)):
                async for line in process.stdout:
                    text = line.decode("utf-8", "replace")
                    output.write(text)
                    if step.live:
                        print(f"{step.name}: {text}", end="", flush=True)
                await process.wait()
        except TimeoutError:
            return f"did not end within {step.limit:g} s"
        finally:
            if process.returncode is None:
                await _end(process)
            output.flush()
        return f"exit code {process.returncode}" if process.returncode else None


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a process and its children: as Ctrl-C does, so that they can tidy up; after 30 s, hard."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(30):
                await process.wait()
        os.killpg(process.pid, signal.SIGKILL)


def _junit(path: Path) -> Totals:
    """The totals in pytest's report; none where it got not so far."""
    if not path.exists():
        return Totals()
    totals = Totals()
    for suite in ET.parse(path).iter("testsuite"):
        failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        skipped = int(suite.get("skipped", 0))
        # One test may both fail and break in its teardown.
        totals.add(Totals(max(int(suite.get("tests", 0)) - failed - skipped, 0), failed, skipped))
    return totals


def lint(bench: Bench) -> list[Step]:
    """The static checks."""
    scripts = [path for path in bench.tree.rglob("*") if path.is_file() and not path.is_symlink()
               and re.match(rb"#!.*\b(ba|da)?sh\b", path.read_bytes()[:80])]
    dist = bench.work / "dist"
    version = yaml.safe_load((bench.tree / "galaxy.yml").read_text(encoding="utf-8"))["version"]
    importer = bench.work / "galaxy-importer.cfg"
    # The other two run here by themselves.
    importer.write_text("[galaxy-importer]\nCHECK_REQUIRED_TAGS = True\nRUN_ANSIBLE_TEST = False\n"
                        "RUN_ANSIBLE_LINT = False\n", encoding="utf-8")
    home = _home(bench)
    sanity = Step("lint ansible-test sanity", [[BIN / "ansible-test", "sanity", "--color", "no"]], 1800,
                  env=home, notes="^WARNING: (.*[Ss]kip.*)$")
    programs = [word for path in SCRIPTS for found in sorted((bench.tree / "tests" / path).glob("*"))
                if (found / "__init__.py").exists() or found.suffix == ".py" for word in ("-p", found.stem)]
    others: dict[str, list[str | Path]] = {
        "ruff": ["ruff", "check", "--quiet", "."],
        "shellcheck": ["shellcheck", *scripts],
        "reuse": ["reuse", "lint"],
        "yamllint": ["yamllint", "--strict", "."],
        "mypy": ["mypy", "-p", "ansible_collections.lifeboat.rescue.plugins", *programs],
        "changelog": ["antsibull-changelog", "lint"],
        "antsibull-docs": ["antsibull-docs", "lint-collection-docs", "--plugin-docs", "--skip-rstcheck",
                           "--validate-collection-refs", "all", "--disallow-unknown-collection-refs", "."],
        "ansible-lint": ["ansible-lint", "-q", "--nocolor"],
        "execution environment": ["ansible-builder", "introspect", "--sanitize", bench.work],
    }
    steps = [Step(f"lint {name}", [[BIN / str(program), *words]], env=home)
             for name, (program, *words) in others.items()]
    steps.append(Step("lint galaxy-importer", [
        [BIN / "ansible-galaxy", "collection", "build", "--output-path", dist],
        [BIN / "python", "-m", "galaxy_importer.main", dist / f"lifeboat-rescue-{version}.tar.gz"],
    ], env={**home, "GALAXY_IMPORTER_CONFIG": str(importer)}, notes="^((?:WARNING|ERROR).*)$"))
    # Last, because it leaves files behind that reuse would find.
    return [*steps, sanity]


def _home(bench: Bench) -> dict[str, str]:
    """The variables for a HOME in the cache, so that nothing litters the user's own.

    ansible-test has no other way to be told where its cache is. It downloads get-pip.py into there, unless it finds
    one; and strips pip's variables from the environment, so what they and pip's own files say goes into a file.
    """
    home = bench.cache / "home"
    source = Path(ansible_test.__path__[0], "_internal/python_requirements.py").read_text(encoding="utf-8")
    downloads = home / ".ansible/test/cache"
    downloads.mkdir(parents=True, exist_ok=True)
    for version in set(re.findall(r"pip='([\d.]+)'", source)):
        shutil.copyfile(CHECKOUT / "tests/dev/get_pip.py", downloads / f"get_pip_{version.replace('.', '_')}.py")
    # Other Pythons, where there are some: what runs in a rescue system is compiled and imported with each.
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    others = sorted(path for path in pyenv.glob("versions/3.*/bin") if path.is_dir())
    _write_pip_settings(home)
    return {"HOME": str(home), "PATH": ":".join([bench.env["PATH"], *map(str, others)])}


def _write_pip_settings(home: Path) -> None:
    """Write what pip has been told here, by files and by the environment, into the pip.conf of this home."""
    listed = subprocess.run([BIN / "python", "-m", "pip", "config", "list"],
                            stdout=subprocess.PIPE, text=True, check=True)
    settings = configparser.RawConfigParser()
    lines = sorted(listed.stdout.splitlines(), key=lambda line: line.startswith(":env:."))  # the environment wins
    for line in lines:
        name, value = line.split("=", 1)
        section, option = name.rsplit(".", 1)
        section = "global" if section == ":env:" else section
        if not settings.has_section(section):
            settings.add_section(section)
        settings.set(section, option, ast.literal_eval(value))
    file = home / ".config/pip/pip.conf"
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as output:
        settings.write(output)  # there may be a password in an index's URL


def tests(bench: Bench, parts: Sequence[str]) -> list[Step]:
    """The tests of these parts that boot no machine."""
    # 9 minutes alone on two cores; the kills at each call of each provider take half of it, and far longer beside machines.
    steps = [_pytest(bench, "unit", ["tests/unit"], 3600)] if "unit" in parts else []
    return steps + (_integration(bench) if "integration" in parts else [])


def machines(bench: Bench, parts: Sequence[str]) -> list[Step]:
    """The tests of these parts that boot machines, the long ones first."""
    steps = []
    if "e2e" in parts:
        # A file is a step, so that two can run at a time.
        files = sorted((bench.tree / "tests/e2e").glob("test_*.py"), key=lambda path: path.stat().st_size, reverse=True)
        steps += [_pytest(bench, f"e2e {path.stem[5:]}", [f"tests/e2e/{path.name}"], 3600) for path in files]
    if "lab" in parts:
        steps.append(_pytest(bench, "lab", ["tests/lab/tests"], 3600))
    if "openstack-full" in parts:
        # One process, because all of them share one cloud.
        step = _pytest(bench, "openstack-full", ["tests/openstack_full", "tests/lab/tests/test_nova.py",
                                                 "tests/unit/plugins/module_utils/_providers/test_openstack.py"], 3600,
                       "-m", "not one_process")
        steps.append(dataclasses.replace(step, env={"LIFEBOAT_CLOUD": "openstack-full"}))
    return steps


def _pytest(bench: Bench, part: str, paths: Sequence[str], limit: float, *options: str) -> Step:
    junit = bench.work / f"{part.replace(' ', '-')}.xml"
    live = part != "unit"
    command = [BIN / "pytest", "-v" if live else "-q", "-p", "no:cacheprovider", f"--junitxml={junit}", *options, *paths]
    return Step(part, [command], limit, junit=junit, live=live, notes=r"^(SKIPPED .*)$")


def _integration(bench: Bench) -> list[Step]:
    """A step for each target of ansible-test integration that may run here."""
    steps = []
    for target in sorted((bench.tree / "tests/integration/targets").glob("*/aliases")):
        name, aliases = target.parent.name, target.read_text(encoding="utf-8").split()
        if "hidden" in aliases or name.startswith("setup_"):  # others depend on it
            continue
        if "needs/root" in aliases and os.geteuid():
            print(f"skip integration {name}: it needs root")
            bench.totals.skipped += 1
            continue
        command: list[str | Path] = [BIN / "ansible-test", "integration", "--color", "no", "-v", name]
        steps.append(Step(f"integration {name}", [command], 1200, env=_home(bench)))
    if not steps and not bench.totals.skipped:
        raise SystemExit("tests/integration/targets holds no target with a file named aliases.")
    return steps


async def check(cache: Path, work: Path, parts: Sequence[str], totals: Totals) -> None:
    """Run these parts."""
    # Apart: the tests leave behind what a linter finds fault with.
    bench, linted = (Bench(cache, work / name, totals) for name in ("tests", "lint"))
    for place in (bench, linted):
        place.copy_checkout()
    booting = bench.will_run(machines(bench, parts))
    others = (linted.will_run(lint(linted)) if "lint" in parts else collections.deque()) + bench.will_run(tests(bench, parts))
    images = asyncio.Event()

    async def lane(*queues: collections.deque[Job]) -> None:
        for queue in queues:
            if queue is booting:
                await images.wait()
            while queue:
                await queue.popleft()()

    async def boot() -> None:
        if booting:
            await bench.run(Step("lab images", [[BIN / "python", "-m", "lifeboat_lab.images"]], 1200, live=True))
            if "lab" in parts:
                await bench.run(Step("lab zoo", [[BIN / "python", "-m", "disks"]], 1800, live=True))
        images.set()
        await lane(booting, others)

    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with asyncio.TaskGroup() as group:
        group.create_task(boot())
        group.create_task(lane(others, booting))


def main() -> int:
    """Run the parts named in the arguments; 0 when all tests passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("parts", nargs="+", choices=["lint", "unit", "lab", "e2e", "integration", "openstack-full"])
    arguments = parser.parse_args()
    totals = Totals()
    with tempfile.TemporaryDirectory(prefix="lifeboat.", ignore_cleanup_errors=True) as work:
        try:
            asyncio.run(check(arguments.cache, Path(work), arguments.parts, totals))
        except (KeyboardInterrupt, asyncio.CancelledError):
            print("Interrupted.", file=sys.stderr)
            return 130
    print(totals)
    return 1 if totals.failed or not totals.passed else 0


if __name__ == "__main__":
    sys.exit(main())
