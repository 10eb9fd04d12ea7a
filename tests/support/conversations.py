"""A server that does with each connection just what a test says, down to how it ends it."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

_GUARD_SECONDS = 60.0


class Connection:
    """The server's end of a connection; ``number`` counts them from 0."""

    def __init__(self, number: int, connected: socket.socket) -> None:
        self.number = number
        self.socket = connected
        self._unread = b""

    def request(self) -> str | None:
        """Read the head of a request, and give its target; ``None`` if the client has left."""
        while b"\r\n\r\n" not in self._unread:
            try:
                data = self.socket.recv(65536)
            except OSError:
                return None
            if not data:
                return None
            self._unread += data
        head, _, self._unread = self._unread.partition(b"\r\n\r\n")
        return head.split(b" ")[1].decode("ascii")

    def answer(self, body: bytes, *fields: str, status: int = 200) -> None:
        """Answer with a body, on a connection that seems to be kept."""
        lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}", *fields, "", ""]
        self.send("\r\n".join(lines).encode() + body)

    def send(self, data: bytes) -> None:
        """Send bytes as they are; `OSError` if nobody wants them any more."""
        self.socket.sendall(data)

    def close(self) -> None:
        """End it, as a server does that is done with it."""
        self.socket.close()

    def reset(self) -> None:
        """End it with a RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def wait_for_the_end(self) -> bool:
        """Read until the client closes; whether it has, in due time."""
        try:
            while self.socket.recv(65536):
                pass
        except TimeoutError:
            return False
        except OSError:
            pass
        return True


class Conversations:
    """Listens on a port of 127.0.0.1 as long as the ``with`` block lasts.

    ``converse`` gets each connection in a thread of its own, and what it raises is raised at the
    end of the block; with ``certificate`` (PEM) it speaks TLS. ``connections`` counts them.
    """

    def __init__(
        self, converse: Callable[[Connection], object], certificate: Path | None = None
    ) -> None:
        self._converse = converse
        self._context: ssl.SSLContext | None = None
        if certificate is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(certificate)
        self.connections = 0
        self._errors: list[BaseException] = []
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = []

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        scheme = "https" if self._context else "http"
        self.origin = f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}"
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join(_GUARD_SECONDS)
        for thread in self._threads:
            thread.join(_GUARD_SECONDS)
        if error is None and self._errors:
            raise self._errors[0]

    def _accept(self) -> None:
        while True:
            try:
                connected, _ = self._listener.accept()
            except OSError:
                return
            number, self.connections = self.connections, self.connections + 1
            thread = threading.Thread(target=self._hold, args=(number, connected), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _hold(self, number: int, connected: socket.socket) -> None:
        connected.settimeout(_GUARD_SECONDS)
        try:
            with connected:
                if self._context is not None:
                    connected = self._context.wrap_socket(connected, server_side=True)
                with connected:
                    self._converse(Connection(number, connected))
        except OSError:
            pass  # the client has left
        except BaseException as error:  # noqa: BLE001 (of another thread: raised at the end)
            self._errors.append(error)
