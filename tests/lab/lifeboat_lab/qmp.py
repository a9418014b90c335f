# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The part of the QEMU Machine Protocol that the lab needs: commands, their answers, and events."""

from __future__ import annotations

import contextlib
import itertools
import json
import queue
import socket
import threading
from collections.abc import Iterator
from typing import Any

from .recipe import LabError


class Qmp:
    """One monitor connection. Commands may come from any thread; events, and with them the answers, are read by one."""

    def __init__(self, connection: socket.socket):
        self._socket = connection
        self._file = connection.makefile("rb")
        self._sending = threading.Lock()
        self._numbers = itertools.count(1)
        self._answers: dict[int, queue.SimpleQueue[dict[str, Any]]] = {}
        self.send("qmp_capabilities")

    def send(self, command: str) -> None:
        """Send a command whose answer is of no interest. A QEMU that is gone already is no error."""
        with contextlib.suppress(OSError):
            self._send({"execute": command})

    def execute(self, command: str, timeout: float = 60, **arguments: Any) -> Any:
        """Send a command and return its answer; in names of arguments _ stands for -. Raises LabError.

        Not for the thread that reads the events.
        """
        number = next(self._numbers)
        answer = self._answers[number] = queue.SimpleQueue()
        try:
            self._send({"execute": command, "id": number,
                        "arguments": {name.replace("_", "-"): value for name, value in arguments.items()}})
            message = answer.get(timeout=timeout)
        except OSError:
            raise LabError(f"{command}: QEMU is gone.") from None
        except queue.Empty:
            raise LabError(f"{command}: QEMU has not answered in {timeout:g} s.") from None
        finally:
            self._answers.pop(number, None)
        if "error" in message:
            raise LabError(f"{command}: {message['error']['desc']}")
        return message["return"]

    def _send(self, message: dict[str, Any]) -> None:
        with self._sending:
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def events(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield (name, data) of each event until QEMU is gone."""
        with contextlib.suppress(OSError, ValueError):  # ValueError: closed meanwhile
            for line in self._file:
                message = json.loads(line)
                if "event" in message:
                    yield message["event"], message.get("data", {})
                elif answer := self._answers.get(message.get("id")):
                    answer.put(message)
        for answer in list(self._answers.values()):
            answer.put({"error": {"desc": "QEMU has ended."}})

    def close(self) -> None:
        """Drop the connection."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._file.close()
        self._socket.close()
