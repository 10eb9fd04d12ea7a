"""Servers inside a test: each connection has a thread, and the test says how it is answered.

:class:`Conversations` runs a function of the test on each connection, :class:`Gate` is a network
before a fake index, :class:`SecureFront` a TLS server before one.
"""

from __future__ import annotations

import random
import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import attrs

from tests.support.certificates import serving
from tests.support.process import GUARD_SECONDS

_PIECE = 65536
#: Connections that fill a queue of length 0.
_FILLERS = 4
_RESET = struct.pack("ii", 1, 0)


def readable(*sockets: socket.socket, seconds: float | None) -> list[socket.socket]:
    """Return the readable sockets, as soon as there is one; none after so many seconds."""
    poll = select.poll()
    for each in sockets:
        poll.register(each, select.POLLIN)
    ready = {number for number, _ in poll.poll(None if seconds is None else seconds * 1000)}
    return [each for each in sockets if each.fileno() in ready]


def reset(connection: socket.socket) -> None:
    """Close a connection with a RST, as a crash does."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    connection.close()


class Server:
    """Listens as long as the ``with`` block lasts.

    Errors of :meth:`serve`, except `OSError` (the client has left), are raised at the end.
    """

    def __init__(
        self, host: str = "127.0.0.1", port: int = 0, context: ssl.SSLContext | None = None
    ) -> None:
        self.host, self.port, self.context = host, port, context
        self.connections = 0
        self.listener: socket.socket | None = None
        self._threads: list[threading.Thread] = []
        self._open: set[socket.socket] = set()
        self._errors: list[BaseException] = []
        self._changed = threading.Condition()

    def serve(self, connection: socket.socket, number: int) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        self.listen()
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self.stop_listening()
        self.end()
        for thread in self._threads:
            thread.join(GUARD_SECONDS)
        if error is None and self._errors:
            raise self._errors[0]

    def end(self) -> None:
        self.drop()

    @property
    def origin(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.context else 'http'}://{host}:{self.port}"

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET6 if ":" in self.host else socket.AF_INET

    def bound(self) -> socket.socket:
        """Return a socket at the address, whose port is chosen the first time."""
        bound = socket.socket(self.family)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((self.host, self.port))
        self.port = bound.getsockname()[1]
        return bound

    def listen(self) -> None:
        self.listener = self.bound()
        self.listener.listen(128)
        self._start(self._accept, self.listener)

    def stop_listening(self) -> None:
        listener, self.listener = self.listener, None
        if listener is not None:
            # Not only closed: a process that is just being started has a copy for a moment.
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def drop(self, *, with_reset: bool = False) -> None:
        """Close all connections, at both ends; with a RST as a crash does."""
        with self._changed:
            for connection in self._open:
                with suppress(OSError):
                    if with_reset:
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    connection.shutdown(socket.SHUT_RDWR)
            self._changed.wait_for(lambda: not self._open, GUARD_SECONDS)

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                number, self.connections = self.connections, self.connections + 1
                self._start(self._hold, connection, number)

    def _hold(self, connection: socket.socket, number: int) -> None:
        try:
            connection.settimeout(GUARD_SECONDS)
            if self.context is not None:
                connection = self.context.wrap_socket(
                    connection, server_side=True, do_handshake_on_connect=False
                )
            with self.held(connection):
                if isinstance(connection, ssl.SSLSocket):
                    connection.do_handshake()
                self.serve(connection, number)
        except OSError:
            pass
        except BaseException as error:  # noqa: BLE001 (of another thread: raised at the end)
            self._errors.append(error)

    @contextmanager
    def held(self, connection: socket.socket) -> Iterator[None]:
        """Let a connection be one of those that are open, and close it at the end."""
        with self._changed:
            self._open.add(connection)
        try:
            yield
        finally:
            connection.close()
            with self._changed:
                self._open.discard(connection)
                self._changed.notify_all()

    def join(
        self, one: socket.socket, port: int, doomed: Callable[[], bool] = lambda: False
    ) -> None:
        """Pass bytes on to and from a port of 127.0.0.1 until one side ends, or is doomed to."""
        other = socket.create_connection(("127.0.0.1", port))
        with self.held(other):
            ways = {one: other, other: one}
            while True:
                waiting = isinstance(one, ssl.SSLSocket) and one.pending()
                ready = [one] if waiting else readable(*ways, seconds=GUARD_SECONDS)
                for source in ready:
                    try:
                        data = source.recv(_PIECE)
                    except ConnectionResetError:
                        reset(ways[source])
                        return
                    if not data or doomed():
                        return
                    ways[source].sendall(data)
                if not ready:
                    return


class Connection:
    """The server's end of a connection; ``number`` counts them from 0."""

    def __init__(self, number: int, connected: socket.socket) -> None:
        self.number = number
        self.socket = connected
        self._unread = b""

    def head(self) -> str | None:
        """Read the head of a request; ``None`` if the client has left."""
        while b"\r\n\r\n" not in self._unread:
            try:
                data = self.socket.recv(_PIECE)
            except OSError:
                return None
            if not data:
                return None
            self._unread += data
        head, _, self._unread = self._unread.partition(b"\r\n\r\n")
        return head.decode("latin-1")

    def request(self) -> str | None:
        """Read a request without a body; return its target, or ``None`` if the client has left."""
        head = self.head()
        return None if head is None else head.split(" ")[1]

    def answer(self, body: bytes, *fields: str, status: int = 200) -> None:
        """Answer with a body, on a connection that seems to be kept."""
        lines = [f"HTTP/1.1 {status} Status", f"Content-Length: {len(body)}", *fields, "", ""]
        self.send("\r\n".join(lines).encode() + body)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        reset(self.socket)


class Conversations(Server):
    """Runs ``converse``, which also ends it, on each connection; over TLS with a certificate."""

    def __init__(
        self, converse: Callable[[Connection], object], certificate: Path | None = None
    ) -> None:
        super().__init__(context=_context(certificate))
        self._converse = converse

    def serve(self, connection: socket.socket, number: int) -> None:
        self._converse(Connection(number, connection))

    def end(self) -> None:
        pass


class Gate(Server):
    """A network before a port of 127.0.0.1, which fails, rather than an index.

    It passes bytes on, speaks TLS if it has a certificate, and can be closed, clogged and opened
    again at the same address: one of its own, unless it is given, so that the port stays free
    meanwhile (Linux: all of 127/8 is this machine).
    """

    def __init__(self, behind: int, host: str | None = None, port: int = 0) -> None:
        own = ".".join(["127", *(str(random.randint(1, 254)) for _ in range(3))])
        super().__init__(host or own, port)
        self._behind = behind
        self._answer: bytes | None = None
        self._fillers: list[socket.socket] = []

    def serve(self, connection: socket.socket, number: int) -> None:
        if self._answer is None:
            self.join(connection, self._behind)
        else:
            connection.recv(_PIECE)
            connection.sendall(self._answer)

    def open(self, certificate: Path | None = None) -> None:
        """Let clients through, with TLS if there is a certificate (a PEM file with its key)."""
        self.close()
        self.context, self._answer = _context(certificate), None
        self.listen()

    def answer(self, data: bytes) -> None:
        """Send this response to any bytes, without TLS, and close."""
        self.close()
        self.context, self._answer = None, data
        self.listen()

    def close(self) -> None:
        """Refuse connections, and break off those that are open."""
        self.stop_listening()
        for filler in self._fillers:
            filler.close()
        self._fillers.clear()
        self.drop()

    def clog(self) -> None:
        """Answer no attempt to connect: the kernel drops each SYN, since the queue is full."""
        self.close()
        self.listener = self.bound()
        self.listener.listen(0)
        for _ in range(_FILLERS):
            filler = socket.socket(self.family)
            filler.setblocking(False)
            filler.connect_ex((self.host, self.port))
            self._fillers.append(filler)

    def end(self) -> None:
        self.close()


@attrs.frozen
class Shown:
    """The names in a client's handshake: the host's name, and its own certificate's, if any."""

    name: str | None
    certificate: bool


class SecureFront(Server):
    """A TLS server before a port of 127.0.0.1, which speaks plain HTTP.

    So versions, certificates and alerts are those of real servers.

    :ivar shown: the handshakes that went well
    """

    def __init__(self, port: int, context: ssl.SSLContext, host: str = "127.0.0.1") -> None:
        super().__init__(host, context=context)
        self._behind = port
        self.shown: list[Shown] = []
        self._names: dict[ssl.SSLObject | ssl.SSLSocket, str | None] = {}
        context.sni_callback = lambda connection, name, _: self._names.update({connection: name})

    def serve(self, connection: Any, number: int) -> None:
        certificate = bool(connection.getpeercert(binary_form=True))
        self.shown.append(Shown(self._names.pop(connection, None), certificate))
        self.join(connection, self._behind)


def _context(certificate: Path | None) -> ssl.SSLContext | None:
    return None if certificate is None else serving(certificate)
