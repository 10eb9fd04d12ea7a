"""A slow link to a server on this machine: 50 ms round trip, 4 MiB a second for each connection.

It stands between a program and the local index, in a process of its own, and delays what it passes
on. Connecting costs a round trip, as it does on a real link: what the client says first goes on a
round trip after the connection was made. There is no slow start and no loss. It takes the server's
port, prints its own, and serves until it is ended; it touches the loopback alone.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress

#: Seconds that anything takes in one direction.
DELAY = 0.025
#: Bytes per second of a connection, in one direction.
RATE = 4 * 1024 * 1024
#: Chunks that are on their way at most; it holds more than the link does.
_UNDER_WAY = 64
_CHUNK = 16 * 1024


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, wait: float) -> None:
    """Pass on one direction of a connection, until its end.

    :param wait: seconds that it takes until the first byte may go
    """
    lane = asyncio.Queue[tuple[float, bytes]](_UNDER_WAY)
    clock = asyncio.get_running_loop().time

    async def deliver() -> None:
        while True:
            due, data = await lane.get()
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
            free = max(free, clock()) + len(data) / RATE
            await lane.put((free + DELAY, data))
            if not data:
                break
        await delivered
    finally:
        delivered.cancel()


async def _connected(port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    to_reader, to_writer = await asyncio.open_connection("127.0.0.1", port)
    ways = [
        asyncio.create_task(_carry(reader, to_writer, 2 * DELAY)),
        asyncio.create_task(_carry(to_reader, writer, 0)),
    ]
    with suppress(ConnectionError):
        await asyncio.gather(*ways)
    for way in ways:
        way.cancel()
    for end in (writer, to_writer):
        end.close()


async def main(port: int) -> None:
    """Serve on a free port of the loopback, and print which it is."""
    server = await asyncio.start_server(
        lambda reader, writer: _connected(port, reader, writer), "127.0.0.1", 0
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
