"""A forward proxy that lies, stalls and drops on demand, in threads of the test itself.

Whatever host a tunnel is asked for, it leads to one port of 127.0.0.1: so a name needs to exist
nowhere. What is said before a tunnel begins, and what becomes of it, is a test's to choose.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Self

from tests.support.process import GUARD_SECONDS

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"

Speak = Callable[[socket.socket], bool]


def at_once(connection: socket.socket) -> bool:
    """Say that the tunnel is there."""
    connection.sendall(ESTABLISHED)
    return True


class Relay:
    """A proxy that runs while the ``with`` block does.

    ``speak`` answers a request for a tunnel, and says whether there is to be one; otherwise the
    connection is closed. It may be changed at any time.

    :ivar heads: what was said to it, each up to the blank line
    """

    def __init__(self, port: int = 0, speak: Speak = at_once) -> None:
        self._port = port
        self.speak = speak
        self.heads: list[str] = []
        self._open: set[socket.socket] = set()
        self._doomed: set[socket.socket] = set()
        self._changed = threading.Condition()

    def __enter__(self) -> Self:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        self._start(self._accept)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.drop()

    def drop(self) -> None:
        """Close all connections, at both ends."""
        with self._changed:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self._changed.wait_for(lambda: not self._open, GUARD_SECONDS)

    def drop_when_used(self) -> None:
        """Let each tunnel that is there go on until something is sent into it, then close it."""
        with self._changed:
            self._doomed = set(self._open)

    def wait_until_left(self, at_most: int = 0) -> None:
        """Wait until the other side has closed its connections, all but so many."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._open) <= at_most, GUARD_SECONDS)

    @staticmethod
    def _start(work: Callable[..., None], *arguments: object) -> threading.Thread:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        thread.start()
        return thread

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with ExitStack() as stack, suppress(OSError):
            self._keep(stack, connection)
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                byte = connection.recv(1)
                if not byte:
                    return
                head += byte
            with self._changed:
                self.heads.append(head.decode())
                self._changed.notify_all()
            if self.speak(connection):
                upstream = socket.create_connection(("127.0.0.1", self._port))
                self._keep(stack, upstream)
                back = self._start(self._pump, upstream, connection)
                self._pump(connection, upstream)
                back.join()

    def _keep(self, stack: ExitStack, connection: socket.socket) -> None:
        def close() -> None:
            connection.close()
            with self._changed:
                self._open.discard(connection)
                self._changed.notify_all()

        with self._changed:
            self._open.add(connection)
        stack.callback(close)

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while (data := source.recv(65536)) and source not in self._doomed:
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
