"""Fixtures and helpers of the tests with real processes: fake indexes, and proxies before them.

A process takes a second to start, so a module whose tests only ask has one for all of them:
``shared_index`` and ``shared_proxy``. Its tests use projects of their own.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from tests.support.distributions import Distribution
from tests.support.fake_index import FakeIndex
from tests.support.proxy import Proxy
from tests.support.servers import Connection, Server

#: A time to live, in seconds, within which no second request comes.
EXPIRED_AT_ONCE = "0.000001"

StartProxy = Callable[..., Proxy]


@contextmanager
def proxies(folder: Path) -> Iterator[StartProxy]:
    """
    Start proxies, which end with the block, in front of an index, whose certificate they trust.

    Keywords in upper case are variables, others settings without ``PROXPI_``. Clients wait half a
    minute for a file, so that no test depends on the speed of the machine. A test that counts each
    connection or request sets ``prefetch="off"``: background requests are not those of its client.
    """
    with ExitStack() as stack:

        def start(
            index: FakeIndex | None = None,
            *options: str,
            within: Sequence[str] = (),
            listens: bool = True,
            descriptors: Sequence[int] = (),
            **variables: object,
        ) -> Proxy:
            given: dict[str, object] = {"download_timeout": 30}
            if index is not None:
                given["index_url"] = index.url
                if index.certificate is not None:
                    given["SSL_CERT_FILE"] = index.certificate
            environment = {
                name if name.isupper() else f"PROXPI_{name.upper()}": str(value)
                for name, value in (given | variables).items()
            }
            keywords: dict[str, Any] = {"folder": folder, "listens": listens, "within": within}
            keywords["descriptors"] = descriptors
            return stack.enter_context(Proxy(environment, options, **keywords))

        yield start


def serve_large(index: FakeIndex, proxy: Proxy, size: int) -> tuple[bytes, str]:
    """Fetch a file of random bytes into the cache; return it and its path."""
    file = Distribution("large", "1.0", "large-1.0.tar.gz", os.urandom(size), "")
    index.add(file)
    path = f"/index/large/{file.filename}"
    assert proxy.get(path).body == file.data
    return file.data, path


@contextmanager
def health_checks(proxy: Proxy) -> Iterator[list[float]]:
    """Request the health all the time; return the seconds of each response."""
    waits: list[float] = []
    done = threading.Event()

    def check() -> None:
        while not done.is_set():
            started = time.monotonic()
            assert proxy.get("/health").status == 200
            waits.append(time.monotonic() - started)

    with ThreadPoolExecutor(1) as pool:
        checking = pool.submit(check)
        try:
            yield waits
        finally:
            done.set()
            checking.result()


def kill_at(
    moment: Callable[[], object], proxy: Proxy, clients: Sequence[Callable[[], object]]
) -> None:
    """Kill a proxy at a moment, while clients send requests until it is gone."""
    gone = threading.Event()

    def ask(client: Callable[[], object]) -> None:
        with suppress(OSError, HTTPException):
            while not gone.is_set():
                client()

    with ThreadPoolExecutor(len(clients)) as pool:
        asking = [pool.submit(ask, client) for client in clients]
        moment()
        proxy.stop(signal.SIGKILL)
        gone.set()
        for each in asking:
            each.result()


class HttpServer(Server):
    """Answers requests for a path with status, header fields and body."""

    def __init__(self, answer: Callable[[str], tuple[int, dict[str, str], bytes]]) -> None:
        super().__init__()
        self._answer = answer

    def serve(self, connection: socket.socket, number: int) -> None:
        client = Connection(number, connection)
        while (path := client.request()) is not None:
            status, headers, body = self._answer(path)
            client.answer(body, *(f"{name}: {headers[name]}" for name in headers), status=status)


@pytest.fixture
def start_proxy(tmp_path: Path) -> Iterator[StartProxy]:
    with proxies(tmp_path) as start:
        yield start


@pytest.fixture
def fake_index() -> Iterator[FakeIndex]:
    with FakeIndex() as index:
        yield index


@pytest.fixture
def extra_index() -> Iterator[FakeIndex]:
    with FakeIndex() as index:
        yield index


@pytest.fixture(scope="module")
def shared_index() -> Iterator[FakeIndex]:
    with FakeIndex() as index:
        yield index


@pytest.fixture(scope="module")
def shared_proxy(
    shared_index: FakeIndex, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxy]:
    """A proxy in front of it, for all tests of a module."""
    with proxies(tmp_path_factory.mktemp("shared")) as start:
        yield start(shared_index)
