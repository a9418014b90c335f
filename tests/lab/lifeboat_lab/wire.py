# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""HTTP on loopback, for the APIs of the lab."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import struct
import sys
import threading
import typing as t
from collections.abc import Callable, Mapping
from email.message import Message
from http.server import BaseHTTPRequestHandler


class Reset(Exception):
    """The connection is to be reset instead of answered."""


class Answer(t.NamedTuple):
    """An answer. reason: instead of HTTP's own words for the status. headers: besides those that every answer has."""

    status: int
    content: bytes
    content_type: str = "application/json; charset=utf-8"
    headers: Mapping[str, str] = {}
    reason: str | None = None


class HttpServer(socketserver.ThreadingTCPServer):
    """HTTP without http.server.HTTPServer's look-up of its own name, and with connections that can be cut.

    answer: takes method, target as it stood in the request line, headers and body. Raises Reset for a connection to be reset.
    """

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], answer: Callable[[str, str, Message, bytes], Answer]) -> None:
        self.answer = answer
        self._open: set[socket.socket] = set()
        self._changed = threading.Condition()
        super().__init__(address, _Handler)

    def process_request(self, request: t.Any, client_address: t.Any) -> None:
        with self._changed:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: t.Any) -> None:
        super().shutdown_request(request)
        with self._changed:
            self._open.discard(request)
            self._changed.notify_all()

    def cut_connections(self) -> None:
        """Cut what is open, and see the threads of the connections end."""
        with self._changed:
            for connection in self._open:
                with contextlib.suppress(OSError):  # the other side was quicker
                    connection.shutdown(socket.SHUT_RDWR)
            self._changed.wait_for(lambda: not self._open, timeout=10)

    def handle_error(self, request: t.Any, client_address: t.Any) -> None:
        if not isinstance(sys.exc_info()[1], (Reset, ConnectionError)):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body leave in one packet: in two, the second waits 40 ms for an acknowledgement
    server: HttpServer

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            answer = self.server.answer(self.command, self.path, self.headers, body)
        except Reset:
            # With no time to linger, closing sends RST; the socket closes only with all of its files.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.rfile.close()
            self.wfile.close()
            self.connection.close()
            raise
        self.send_response(answer.status, answer.reason)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.content)))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.content)

    do_GET = do_PUT = do_POST = do_DELETE = _answer

    def log_message(self, format: str, *args: t.Any) -> None:
        """The APIs keep logs of their own."""
