"""A TCP proxy with the delay of a slow link: 50 ms round trip, a rate for each connection.

It delays the bytes between a program and the local index. Connecting costs a round trip: the first
bytes of the client are forwarded a round trip after the connection was made. It simulates neither
slow start nor loss. The program takes the server's port and the rate in MiB per second, prints its
own port, and serves on the loopback interface until it is ended.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress

#: Seconds of delay in one direction.
DELAY = 0.025
#: Maximal number of delayed chunks; they exceed the bandwidth-delay product.
_MAX_DELAYED = 256
_CHUNK = 16 * 1024


async def _forward(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, wait: float, rate: float
) -> None:
    """Forward one direction of a connection until its end.

    :param wait: seconds of delay for the connection itself
    :param rate: bytes per second
    """
    queue = asyncio.Queue[tuple[float, bytes]](_MAX_DELAYED)
    clock = asyncio.get_running_loop().time

    async def deliver() -> None:
        while True:
            due, data = await queue.get()
            await asyncio.sleep(due - clock())
            if not data:
                writer.write_eof()
                return
            writer.write(data)
            await writer.drain()

    delivered = asyncio.create_task(deliver())
    try:
        free = clock() + wait
        while not delivered.done():
            data = await reader.read(_CHUNK)
            free = max(free, clock()) + len(data) / rate
            await queue.put((free + DELAY, data))
            if not data:
                break
        await delivered
    finally:
        delivered.cancel()


async def _connected(
    port: int, rate: float, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    to_reader, to_writer = await asyncio.open_connection("127.0.0.1", port)
    directions = [
        asyncio.create_task(_forward(reader, to_writer, 2 * DELAY, rate)),
        asyncio.create_task(_forward(to_reader, writer, 0, rate)),
    ]
    with suppress(ConnectionError):
        await asyncio.gather(*directions)
    for direction in directions:
        direction.cancel()
    for end in (writer, to_writer):
        end.close()


async def main(port: int, rate: float) -> None:
    """Serve on a free port and print it."""
    # The event loop itself refers to a task only weakly.
    connections: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(_connected(port, rate, reader, writer))
        connections.add(task)
        task.add_done_callback(connections.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2]) * 1024 * 1024))
