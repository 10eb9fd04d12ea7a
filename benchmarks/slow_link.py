"""A TCP proxy with the delay of a slow link: a round trip, and a rate for each connection.

It delays the bytes between a program and the local index. Connecting costs a round trip: the first
bytes of the client are forwarded a round trip after the connection was made. It simulates neither
slow start nor loss. The program takes the server's port, the rate in MiB per second and the
milliseconds of a round trip, prints its own port, and serves on the loopback interface until it is
ended.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress

#: Maximal number of delayed chunks; they exceed the bandwidth-delay product.
_MAX_DELAYED = 256
_CHUNK = 16 * 1024


async def _forward(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    wait: float,
    rate: float,
    delay: float,
) -> None:
    """Forward one direction of a connection until its end.

    :param wait: seconds of delay for the connection itself
    :param rate: bytes per second
    :param delay: seconds of delay in this direction
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
            await queue.put((free + delay, data))
            if not data:
                break
        await delivered
    finally:
        delivered.cancel()


async def _connected(
    port: int,
    rate: float,
    delay: float,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    to_reader, to_writer = await asyncio.open_connection("127.0.0.1", port)
    directions = [
        asyncio.create_task(_forward(reader, to_writer, 2 * delay, rate, delay)),
        asyncio.create_task(_forward(to_reader, writer, 0, rate, delay)),
    ]
    with suppress(ConnectionError):
        await asyncio.gather(*directions)
    for direction in directions:
        direction.cancel()
    for end in (writer, to_writer):
        end.close()


async def main(port: int, rate: float, delay: float) -> None:
    """Serve on a free port and print it.

    :param rate: bytes per second
    :param delay: seconds of delay in one direction
    """
    # The event loop itself refers to a task only weakly.
    connections: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(_connected(port, rate, delay, reader, writer))
        connections.add(task)
        task.add_done_callback(connections.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    _port, _rate, _round_trip = map(int, sys.argv[1:])
    asyncio.run(main(_port, _rate * 1024 * 1024, _round_trip / 2_000))
