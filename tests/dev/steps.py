# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What there is to run, part by part. Within a part the long steps come first, for the run that has no timings yet."""

from __future__ import annotations

import ast
import configparser
import dataclasses
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import ansible_test
import yaml
from running import Step

CHECKOUT = Path(__file__).resolve().parents[2]
BIN = Path(sys.prefix, "bin")
SCRIPTS = ("lab", "dev", "bench")  # the directories below tests that hold programs
IMAGES, TREES, ZOO = "lab images", "lab trees", "lab zoo"
# Tests of the lab that keep a core busy.
SERVERS = ("test_box.py", "test_commands.py", "test_disks.py", "test_machine.py")
UNKIND = "tests/session/test_unkind.py"
MATRIX = "tests/functional/plugins/module_utils/_control/_session/test_matrix.py"
KILLED = "tests/functional/plugins/module_utils/_control/_session/test_killed.py"
BOX_MATRIX = "tests/session/test_matrix.py"
NEW_SEEDS = "40"  # drawn by `./dev test unkind`

# One of each kind, for `./dev test quick`; and all unit tests.
QUICK_LINT = ("ruff", "mypy")
QUICK_TARGET = "reset_root_password"
_FUNCTIONAL = "tests/functional/plugins"
QUICK_TESTS = {
    "functional": [
        f"{_FUNCTIONAL}/connection/test_chroot_ssh.py::test_the_root_is_the_tree",
        f"{_FUNCTIONAL}/module_utils/_rescue/test_changes.py",
        f"{_FUNCTIONAL}/module_utils/_control/_ssh/test_port.py::test_a_watch_of_a_closed_port",
        f"{_FUNCTIONAL}/module_utils/_rescue/_storage/test_storage.py::test_check_do_repeat",
        f"{_FUNCTIONAL}/module_utils/_control/_providers/_openstack/test_provider.py::test_credentials_come_from_clouds_yaml",
        f"{_FUNCTIONAL}/module_utils/_control/_providers/_ovh/test_dedicated.py::test_a_server_is_read_by_one_call",
        f"{_FUNCTIONAL}/module_utils/_control/_providers/_ovh/test_vps.py::test_boot_options",
        f"{_FUNCTIONAL}/module_utils/_control/_providers/_softlayer/test_provider.py::test_a_server_is_read_by_one_call",
        f"{_FUNCTIONAL}/module_utils/_control/_session/test_killed.py::test_killed_at_each_call[ovh_dedicated-present-before]",
        f"{_FUNCTIONAL}/module_utils/_control/_session/test_session.py::test_there_and_back",
    ],
    "session": [
        "tests/session/test_faults.py::test_the_installed_system_boots_instead",
        "tests/session/test_killed.py::test_killed[leaving]",
        "tests/session/test_readme.py::test_an_inventory_as_in_the_readme",
        "tests/session/test_rescue_mode.py",
    ],
    "lab": [
        "tests/lab/tests/test_box.py::test_each_boot_is_one_of_its_own",
        "tests/lab/tests/test_disks.py::test_to_look_writes_nothing_and_one_byte_is_seen",
        "tests/lab/tests/test_machine.py::test_rescue_is_what_was_asked_for",
        "tests/lab/tests/test_ovh_api.py::test_wrong_keys_are_refused",
        "tests/lab/tests/test_softlayer_api.py::test_a_wrong_key_is_refused",
        "tests/lab/tests/test_unkind.py::test_ovh_a_setting_lags",
    ],
    "e2e": [
        "tests/e2e/test_chain.py::test_by_hand",
        "tests/e2e/test_disks.py::test_it_is_mounted_and_left_clean[gpt-bios-ext4-0-ro]",
        "tests/e2e/test_disks.py::test_it_is_mounted_and_left_clean[gpt-bios-ext4-0-rw]",
    ],
}


class Workspace:
    """Copies of the checkout and the environment to test them in.

    ansible-test wants the files in a real directory ansible_collections/lifeboat/rescue; and neither litter in the checkout
    nor an editor at work changes what is tested. The linters have a copy of their own, and so has ansible-test sanity, because
    the tests leave behind what a linter finds fault with.

    select: of pytest, what `-k` takes; of other steps, a part of their name. quick: one of each kind.
    """

    def __init__(self, cache: Path, directory: Path, select: str | None = None, quick: bool = False):
        self.cache = cache
        self.directory = directory
        self.select = select
        self.quick = quick
        self.pytests = 0  # runs of pytest that there are
        self.tests = directory / "tests/ansible_collections/lifeboat/rescue"
        self.linted = directory / "lint/ansible_collections/lifeboat/rescue"
        self.sanity = directory / "sanity/ansible_collections/lifeboat/rescue"
        for copy in (self.tests, self.linted, self.sanity):
            copy_checkout(copy)

    def environment(self, tree: Path) -> dict[str, str]:
        """Return the environment for what runs on this copy."""
        above = tree.parents[2]
        return {
            **os.environ,
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "PYTHONPATH": f"{above}:{tree}/tests/lab",
            "MYPYPATH": ":".join(str(path) for path in [above, *(tree / "tests" / name for name in SCRIPTS)]),
            "PYTHONUNBUFFERED": "1",
            "ANSIBLE_COLLECTIONS_PATH": str(above),
            "ANSIBLE_HOME": str(above / "ansible"),
            "MYPY_CACHE_DIR": str(self.cache / "mypy"),
            "RUFF_CACHE_DIR": str(self.cache / "ruff"),
        }

    def selected(self, name: str) -> bool:
        """Whether a step without pytest is among those that were asked for."""
        return self.select is None or self.select.lower() in name.lower()


def copy_checkout(copy: Path) -> None:
    """Copy what git tracks or would take; outside of a git checkout, all."""
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
        source, target = CHECKOUT / name, copy / name
        if os.path.lexists(source):  # git still lists what was removed and not yet committed
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)


def lint(work: Workspace) -> list[Step]:
    """The static checks."""
    tree = work.linted
    scripts = [path for path in tree.rglob("*") if path.is_file() and not path.is_symlink()
               and re.match(rb"#!.*\b(ba|da)?sh\b", path.read_bytes()[:80])]
    scratch = work.directory / "importer"
    scratch.mkdir()
    version = yaml.safe_load((tree / "galaxy.yml").read_text(encoding="utf-8"))["version"]
    importer = work.directory / "galaxy-importer.cfg"
    # The other two run here by themselves.
    importer.write_text("[galaxy-importer]\nCHECK_REQUIRED_TAGS = True\nRUN_ANSIBLE_TEST = False\n"
                        "RUN_ANSIBLE_LINT = False\n", encoding="utf-8")
    environment = _with_home(work, tree)
    programs = [word for path in SCRIPTS for found in sorted((tree / "tests" / path).glob("*"))
                if (found / "__init__.py").exists() or found.suffix == ".py" for word in ("-p", found.stem)]
    commands: dict[str, list[list[str | Path]]] = {
        "ansible-lint": [["ansible-lint", "-q", "--nocolor"]],
        "mypy": [["mypy", "-p", "ansible_collections.lifeboat.rescue.plugins", *programs]],
        "galaxy-importer": [
            ["ansible-galaxy", "collection", "build", "--output-path", scratch, tree],
            ["python", "-m", "galaxy_importer.main", scratch / f"lifeboat-rescue-{version}.tar.gz"],
        ],
        "antsibull-docs": [["antsibull-docs", "lint-collection-docs", "--plugin-docs", "--skip-rstcheck",
                            "--validate-collection-refs", "all", "--disallow-unknown-collection-refs", "."]],
        "execution environment": [["ansible-builder", "introspect", "--sanitize", tree.parents[2]]],
        "changelog": [["antsibull-changelog", "lint"]],
        "ruff": [["ruff", "check", "--quiet", "."]],
        "shellcheck": [["shellcheck", *scripts]],
        "reuse": [["reuse", "lint"]],
        "yamllint": [["yamllint", "--strict", "."]],
        "ansible-test sanity": [["ansible-test", "sanity", "--color", "no"]],
    }
    notes = {"ansible-test sanity": "^WARNING: (.*[Ss]kip.*)$", "galaxy-importer": "^((?:WARNING|ERROR).*)$"}
    chosen = [name for name in commands if (not work.quick or name in QUICK_LINT) and work.selected(f"lint {name}")]
    environment["GALAXY_IMPORTER_CONFIG"] = str(importer)
    places = {"ansible-test sanity": work.sanity, "galaxy-importer": scratch}  # they leave files behind
    environments = {"ansible-test sanity": _with_home(work, work.sanity)}
    return [Step(f"lint {name}", places.get(name, tree), [[BIN / str(program), *words] for program, *words in commands[name]],
                 environments.get(name, environment), 1800, notes=notes.get(name)) for name in chosen]


def _with_home(work: Workspace, tree: Path) -> dict[str, str]:
    """Return the environment with a HOME in the cache, so that nothing litters the user's own.

    ansible-test has no other way to be told where its cache is. It downloads get-pip.py into there, unless it finds
    one; and strips pip's variables from the environment, so what they and pip's own files say goes into a file.
    """
    home = work.cache / "home"
    environment = work.environment(tree)
    source = Path(ansible_test.__path__[0], "_internal/python_requirements.py").read_text(encoding="utf-8")
    downloads = home / ".ansible/test/cache"
    downloads.mkdir(parents=True, exist_ok=True)
    for version in set(re.findall(r"pip='([\d.]+)'", source)):
        shutil.copyfile(CHECKOUT / "tests/dev/get_pip.py", downloads / f"get_pip_{version.replace('.', '_')}.py")
    # Other Pythons, if there are some: what runs in a rescue system is compiled and imported with each.
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    others = sorted(path for path in pyenv.glob("versions/3.*/bin") if path.is_dir())
    _write_pip_settings(home)
    return {**environment, "HOME": str(home), "PATH": ":".join([environment["PATH"], *map(str, others)])}


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


def unit(work: Workspace) -> list[Step]:
    """Functions, parsers and tables."""
    return [dataclasses.replace(_pytest(work, "unit", ["tests/unit"]), live=False)]


def functional(work: Workspace) -> list[Step]:
    """Functions and modules against the real thing: sshd, this kernel, Nova, the APIs of the lab."""
    if work.quick:
        return [_pytest(work, "functional", QUICK_TESTS["functional"], waits=True)]
    return [
        _pytest(work, "functional nova", ["tests/functional"], "-m", "nova"),
        _pytest(work, "functional", ["tests/functional", f"--ignore={MATRIX}"], "-m", "not nova", "--numprocesses=2", "--dist=loadfile",
                waits=True),
        # Its servers are waited for in real time, however fast theirs passes.
        _pytest(work, "functional matrix", [MATRIX], "-m", "not nova", "--numprocesses=6", "--dist=worksteal", waits=True),
    ]


def session(work: Workspace) -> list[Step]:
    """Entering, leaving and what goes wrong on the way, by whole calls, on boxes. Several at a time, for they mostly wait."""
    together = ("--numprocesses=6", "--dist=worksteal")
    if work.quick:
        return [*images(work), *trees(work), _pytest(work, "session", QUICK_TESTS["session"], *together, needs=[TREES], waits=True)]
    return [
        *images(work), *trees(work),
        # These two run all of their servers at a time by themselves.
        _pytest(work, "session unkind", [UNKIND], needs=[TREES], waits=True),
        _pytest(work, "session matrix", [BOX_MATRIX], needs=[TREES], waits=True),
        _pytest(work, "session", ["tests/session", f"--ignore={UNKIND}", f"--ignore={BOX_MATRIX}"], *together, needs=[TREES]),
    ]


def unkind(work: Workspace) -> list[Step]:
    """The session against mixtures that nobody has seen yet; each test is named by its seed."""
    step = _pytest(work, "unkind", [f"{UNKIND}::test_there_and_back"], needs=[TREES])
    drawn = os.environ.get("LIFEBOAT_UNKIND", NEW_SEEDS)
    return [*images(work), *trees(work), dataclasses.replace(step, env={**step.env, "LIFEBOAT_UNKIND": drawn})]


def matrix(work: Workspace) -> list[Step]:
    """Each call of a session fails in each way, at each provider, and the controller is killed at each."""
    steps = [_pytest(work, "matrix", [MATRIX, KILLED], f"--numprocesses={2 * (os.cpu_count() or 1)}", "--dist=worksteal"),
             # In real time, so nothing else runs beside it.
             dataclasses.replace(_pytest(work, "matrix by password", [BOX_MATRIX], needs=[TREES], waits=True), after=["matrix"])]
    return [*images(work), *trees(work), *(dataclasses.replace(step, env={**step.env, "LIFEBOAT_MATRIX": "all"}) for step in steps)]


def e2e(work: Workspace) -> list[Step]:
    """Whole jobs on machines that boot, a step for each file."""
    if work.quick:
        return [*images(work), *trees(work), _pytest(work, "e2e", QUICK_TESTS["e2e"], needs=[TREES])]
    files = sorted((work.tests / "tests/e2e").glob("test_*.py"), key=lambda path: path.stat().st_size, reverse=True)
    return [*images(work), *trees(work), *zoo(work),
            *(_pytest(work, f"e2e {path.stem[5:]}", [f"tests/e2e/{path.name}"], needs=[TREES, ZOO]) for path in files)]


def lab(work: Workspace) -> list[Step]:
    """What stands in for the world."""
    if work.quick:
        return [*images(work), *trees(work), _pytest(work, "lab", QUICK_TESTS["lab"], needs=[TREES])]
    servers = [f"tests/lab/tests/{path.name}" for path in sorted((work.tests / "tests/lab/tests").glob("test_*.py"))
               if path.name in SERVERS]
    return [*images(work), *trees(work), *zoo(work), _pytest(work, "lab", servers, needs=[TREES, ZOO]),
            _pytest(work, "lab apis", ["tests/lab/tests", *(f"--ignore={path}" for path in servers)], needs=[TREES], waits=True)]


def images(work: Workspace) -> list[Step]:
    """The lab's images, built if they are not in the cache."""
    return [Step(IMAGES, work.tests, [[BIN / "python", "-m", "lifeboat_lab.images"]], work.environment(work.tests), 1200, live=True)]


def trees(work: Workspace) -> list[Step]:
    """What boxes have as their systems, unpacked if it is not in the cache."""
    command: list[str | Path] = [BIN / "python", "-m", "lifeboat_lab.trees"]
    return [Step(TREES, work.tests, [command], work.environment(work.tests), 1200, [IMAGES], live=True)]


def zoo(work: Workspace) -> list[Step]:
    """The images of the zoo, built if they are not in the cache; for a part of the tests, each is built when it is asked for."""
    if work.quick or work.select is not None:
        return []
    return [Step(ZOO, work.tests, [[BIN / "python", "-m", "disks"]], work.environment(work.tests), 1800, [IMAGES], live=True)]


def openstack_full(work: Workspace) -> list[Step]:
    """The provider against all of OpenStack's services. One process, because all tests share one cloud."""
    step = _pytest(work, "openstack-full", ["tests/openstack_full", "tests/lab/tests/test_nova.py",
                                            "tests/functional/plugins/module_utils/_control/_providers/_openstack/test_provider.py"],
                   "-m", "not one_process", needs=[IMAGES])
    return [*images(work), dataclasses.replace(step, env={**step.env, "LIFEBOAT_CLOUD": "openstack-full"})]


def _pytest(work: Workspace, name: str, paths: Sequence[str], *options: str, needs: Iterable[str] = (), waits: bool = False) -> Step:
    junit = work.directory / f"{name.replace(' ', '-')}.xml"
    work.pytests += 1
    # Short, because there are sockets in it.
    options = (f"--basetemp={work.directory}/t{work.pytests}", *options)
    select = ["-k", work.select] if work.select is not None else []
    command: list[str | Path] = [BIN / "pytest", "-v", "-p", "no:cacheprovider", f"--junitxml={junit}", *options, *select, *paths]
    return Step(name, work.tests, [command], work.environment(work.tests), 3600, [*needs], junit=junit, notes=r"^(SKIPPED .*)$", live=True,
                waits=waits)


def integration(work: Workspace) -> list[Step]:
    """A step for each target of ansible-test integration."""
    steps = []
    for aliases in sorted((work.tests / "tests/integration/targets").glob("*/aliases")):
        target = aliases.parent.name
        words = [line.strip() for line in aliases.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
        if "hidden" in words or not work.selected(f"integration {target}") or (work.quick and target != QUICK_TARGET):
            continue
        command: list[str | Path] = [BIN / "ansible-test", "integration", "--color", "no", "-v", target]
        steps.append(Step(f"integration {target}", work.tests, [command], _with_home(work, work.tests), 1200,
                          root="needs/root" in words))
    return steps


PARTS: dict[str, Callable[[Workspace], list[Step]]] = {
    "e2e": e2e, "lab": lab, "session": session, "functional": functional, "unit": unit, "integration": integration, "lint": lint,
    "openstack-full": openstack_full, "unkind": unkind, "matrix": matrix}
