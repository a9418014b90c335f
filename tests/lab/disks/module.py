# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the collection's modules in a machine, as Ansible runs them: with its module_utils and its arguments, in a process each."""

from __future__ import annotations

import io
import json
import tarfile
import time
from pathlib import Path
from typing import Any

import ansible.module_utils
import ansible.release

from .guest import Guest
from .session import There

COLLECTION = Path(__file__).parents[3]
MODULES = "ansible_collections.lifeboat.rescue.plugins.modules"

# Runs in the machine: a module, as a module is run.
RUN = """
import importlib, json, sys
from ansible.module_utils import basic
basic._ANSIBLE_ARGS = json.dumps({"ANSIBLE_MODULE_ARGS": json.loads(sys.argv[2])}).encode()
basic._ANSIBLE_PROFILE = "legacy"
importlib.import_module(sys.argv[1]).main()
"""


def install(guest: Guest) -> None:
    """Bring the modules, and what they import, into the machine's memory, unless they are there since its boot."""
    boot = len(guest.machine.boots)
    if guest.product_since == boot:
        return
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        ours = "ansible_collections/lifeboat/rescue/plugins"
        for source, place in ((COLLECTION / "plugins/modules", f"{ours}/modules"),
                              (COLLECTION / "plugins/module_utils", f"{ours}/module_utils"),
                              (Path(ansible.module_utils.__file__).parent, "ansible/module_utils")):
            for path in sorted(source.rglob("*.py")):
                tar.add(path, f"{place}/{path.relative_to(source)}")
        # As Ansible sends it: what is on the controller alone does not come along.
        words = f"__version__ = {ansible.release.__version__!r}\n__author__ = 'Ansible'\n".encode()
        entry = tarfile.TarInfo("ansible/__init__.py")
        entry.size = len(words)
        tar.addfile(entry, io.BytesIO(words))
    guest.run("mkdir -p /run/product; tar -xz -C /run/product", stdin=data.getvalue())
    guest.product_since = boot
    run(guest, "")  # the imports are not what is measured


def run(guest: Guest, program: str, *arguments: str, timeout: float = 600) -> str:
    """Run a Python program that may import the collection; return what it printed, whatever its end."""
    install(guest)
    return guest.python(program, *arguments, path=["/run/product"], check=False, timeout=timeout,
                        imports=[f"{MODULES}.storage_info", f"{MODULES}.storage_mount"])


def call(guest: Guest, module: str, check_mode: bool = False, **arguments: Any) -> dict[str, Any]:
    """Run a module; return what it says, with `took`, in seconds, without those for Python to start and to import it."""
    words = json.dumps({**arguments, "_ansible_check_mode": check_mode, "_ansible_diff": True})
    install(guest)
    began = time.monotonic()
    said = run(guest, RUN, f"{MODULES}.{module}", words)
    took = time.monotonic() - began
    try:
        return {**json.loads(said.strip().splitlines()[-1]), "took": took}
    except (ValueError, IndexError):
        raise AssertionError(f"{module} said: {said[-4000:]}") from None


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
