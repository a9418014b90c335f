# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Connections through a bastion, by a command as OpenSSH's ProxyCommand. Private to this collection."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess

# How long a command has to end when its connection is closed, before it is killed.
END_SECONDS = 1.0


class ProxySocket(socket.socket):
    """A connection whose other end is the standard input and output of a command, which ends with it."""

    process: subprocess.Popen[bytes]

    def close(self) -> None:
        super().close()
        process = self.process
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if process.stderr:
            process.stderr.close()

    def words(self) -> str:
        """What the command said last on its standard error, if it has ended, as it does when it has hung up; else nothing."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(END_SECONDS / 4)
        if self.process.poll() is None or not self.process.stderr:
            return ""
        lines = self.process.stderr.read().decode("utf-8", "replace").split("\n")
        return " ".join(" ".join(line.split()) for line in lines if line.strip())[-200:]


def open_proxy(command: str, address: str, port: int) -> ProxySocket:
    """Begin to connect. command: %h stands for the address, %p for the port, %% for a per cent sign.

    It has no terminal, so it cannot ask for anything.
    """
    tokens = {"%h": address, "%p": str(port), "%%": "%"}
    words = re.sub("%[hp%]", lambda found: tokens[found.group()], command)
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(["/bin/sh", "-c", f"exec {words}"], stdin=theirs.fileno(), stdout=theirs.fileno(),
                                   stderr=subprocess.PIPE, start_new_session=True)
    sock = ProxySocket(fileno=ours.detach())
    sock.process = process
    return sock
