# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The part of the QEMU Machine Protocol that the lab needs: commands without an answer of interest, and events."""

from __future__ import annotations

import contextlib
import json
import socket


class Qmp:
    """One monitor connection. Commands may come from any thread; events are read by one."""

    def __init__(self, connection: socket.socket):
        self._socket = connection
        self._file = connection.makefile("rb")
        self.send("qmp_capabilities")

    def send(self, command: str) -> None:
        """Send a command. A QEMU that is gone already is no error."""
        with contextlib.suppress(OSError):
            self._socket.sendall(json.dumps({"execute": command}).encode() + b"\n")

    def events(self):
        """Yield (name, data) of each event until QEMU is gone."""
        with contextlib.suppress(OSError, ValueError):  # ValueError: closed meanwhile
            for line in self._file:
                message = json.loads(line)
                if "event" in message:
                    yield message["event"], message.get("data", {})

    def close(self) -> None:
        """Drop the connection."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._file.close()
        self._socket.close()
