"""A gate before a fake index: the place where a network fails, rather than an index.

It hands on bytes between its clients and a port of this machine, speaks TLS to the clients if it
has a certificate, and can be closed, clogged and opened again at the same address. The address is
one of its own, so that the port stays free while nobody listens on it (Linux: all of 127/8 is
this machine).
"""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
import struct
import threading
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")

_PIECE = 65536
_GUARD_SECONDS = 60.0
#: More than a queue of length 0 takes.
_FILLERS = 4


class Gate:
    """A gate before ``port`` of 127.0.0.1, open as long as the ``with`` block lasts.

    ``host`` and ``own_port`` are where clients find it; they are its own unless they are given.
    """

    def __init__(self, port: int, host: str | None = None, own_port: int = 0) -> None:
        self._port = port
        self.host = host or ".".join(["127", *(str(random.randint(1, 254)) for _ in range(3))])
        self.own_port = own_port
        self._server: asyncio.Server | None = None
        self._listener: socket.socket | None = None
        self._fillers: list[socket.socket] = []
        self._clients: set[asyncio.StreamWriter] = set()
        self._conversations: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_GUARD_SECONDS)
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_GUARD_SECONDS)

    def open(self, certificate: Path | None = None) -> None:
        """Let clients through, with TLS if there is a certificate (a PEM file with its key)."""
        self._do(self._open(certificate))

    def close(self) -> None:
        """Refuse connections, and break off those that are open."""
        self._do(self._close())

    def clog(self) -> None:
        """Answer no attempt to connect: the kernel drops each SYN, since the queue is full."""
        self.close()
        self._listener = self._bound()
        self._listener.listen(0)
        for _ in range(_FILLERS):
            filler = socket.socket(self._family)
            filler.setblocking(False)
            filler.connect_ex((self.host, self.own_port))
            self._fillers.append(filler)

    @property
    def _family(self) -> socket.AddressFamily:
        return socket.AF_INET6 if ":" in self.host else socket.AF_INET

    def _bound(self) -> socket.socket:
        """A socket at the address, which is chosen the first time."""
        bound = socket.socket(self._family)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((self.host, self.own_port))
        self.own_port = bound.getsockname()[1]
        return bound

    def answer(self, data: bytes) -> None:
        """Say the same to whoever says anything, without TLS, and hang up."""

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(_PIECE)
            writer.write(data)
            writer.close()

        self._do(self._serve(answer, None))

    async def _open(self, certificate: Path | None) -> None:
        context = None
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
        await self._serve(self._let_through, context)

    async def _serve(
        self,
        converse: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
        context: ssl.SSLContext | None,
    ) -> None:
        await self._close()
        self._listener = self._bound()
        self._server = await asyncio.start_server(converse, sock=self._listener, ssl=context)

    async def _close(self) -> None:
        for filler in self._fillers:
            filler.close()
        self._fillers = []
        if self._listener is not None:
            # A process that is just being started holds a copy of the socket for a moment: it
            # would go on listening if it were only closed here.
            self._listener.shutdown(socket.SHUT_RDWR)
            if self._server is not None:
                self._server.close()
            self._listener.close()
            self._server = self._listener = None
        for client in list(self._clients):
            client.transport.abort()
        for conversation in list(self._conversations):
            conversation.cancel()
        await asyncio.gather(*self._conversations, return_exceptions=True)

    async def _let_through(
        self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter
    ) -> None:
        """Hand on what both sides say until one of them stops."""
        conversation = asyncio.current_task()
        assert conversation is not None
        self._conversations.add(conversation)
        self._clients.add(to_client)
        try:
            from_index, to_index = await asyncio.open_connection("127.0.0.1", self._port)
            sides = {
                asyncio.ensure_future(_hand_on(from_client, to_index)),
                asyncio.ensure_future(_hand_on(from_index, to_client)),
            }
            try:
                done, _ = await asyncio.wait(sides, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for side in sides:
                    side.cancel()
                to_index.transport.abort()
            if any(isinstance(side.exception(), ConnectionResetError) for side in done):
                _reset(to_client)
        except (OSError, asyncio.CancelledError):
            to_client.transport.abort()
        else:
            to_client.close()
        finally:
            self._clients.discard(to_client)
            self._conversations.discard(conversation)


async def _hand_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_PIECE):
        writer.write(data)
        await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection as an index does that crashes: at once, with a RST."""
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()
