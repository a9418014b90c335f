# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import getpass
import os
import socket
import typing as t

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """The module, told which job it works for, and which job is known to be dead."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = True
    _supports_diff = True

    def run(self, tmp: t.Any = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        super().run(tmp, task_vars)
        arguments = {"owner": owner(), **self._task.args}

        def call(**more: t.Any) -> dict[str, t.Any]:
            return t.cast("dict[str, t.Any]", self._execute_module(module_args={**arguments, **more}, task_vars=task_vars,
                                                                   wrap_async=bool(self._task.async_val)))

        result = call()
        holder = ((result.get("failure") or {}).get("details") or {}).get("owner")
        if result.get("failed") and holder and is_gone(holder):
            return call(gone=holder)
        return result


def owner() -> str:
    """Whose run of Ansible it is: user, controller, process and when that began. Of its workers this is the parent."""
    process = os.getppid()
    return f"{getpass.getuser()}@{_controller()} (process {process}, {_began(process)})"


def is_gone(other: str) -> bool:
    """Whether a run of Ansible is known to have ended: one on this controller, whose process is not there any more."""
    name, _space, rest = other.rpartition(" (process ")
    number, _comma, began = rest.rstrip(")").partition(", ")
    return name.rpartition("@")[2] == _controller() and number.isdigit() and bool(began) and _began(int(number)) != began


def _controller() -> str:
    """The name of the controller, and of its boot: two may have one name, and two containers of one may have the same process numbers."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return f"{socket.gethostname()}.{file.read(8)}.{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return socket.gethostname()


def _began(process: int) -> str:
    """When a process began, in the kernel's words (proc(5), field 22), so that another one with its number is not taken for it.

    "" where it is not there. On a controller without /proc: whether it is there.
    """
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        pass
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "running" if not os.path.isdir("/proc/self") else ""
