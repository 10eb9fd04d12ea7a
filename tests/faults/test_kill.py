"""Killed while it writes: the page before or the page after, never anything else."""

from __future__ import annotations

import http.server
import itertools
import json
import random
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from signal import SIGKILL

import attrs

from tests.support.processes import EXPIRED_AT_ONCE
from tests.support.proxy import Proxy

ROUNDS, LANES = 6, 4
PROJECTS = ["alpha", "beta", "gamma"]
FILES = 300
JSON = {"Accept": "application/vnd.pypi.simple.v1+json"}
HTML = {"Accept": "text/html"}


@attrs.define(eq=False)
class _Growing:
    """An index whose pages are others each time: every file name has the page's number."""

    url: str = ""
    served: dict[str, int] = attrs.field(factory=dict)
    _numbers: Iterator[int] = attrs.field(factory=lambda: itertools.count(1))

    def page(self, project: str) -> bytes:
        """The next page of a project."""
        number = self.served[project] = next(self._numbers)
        names = [f"{project}-{number}.{file}.tar.gz" for file in range(FILES)]
        files = [
            {"filename": name, "url": f"../../files/{name}", "hashes": {"sha256": "0" * 64}}
            for name in names
        ]
        page = {"meta": {"api-version": "1.0"}, "name": project, "files": files}
        return json.dumps(page).encode()

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[_Growing]:
        """Serve as long as the block lasts."""
        index = cls()

        class Answers(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = index.page(self.path.strip("/").rpartition("/")[2])
                self.send_response(200)
                self.send_header("Content-Type", JSON["Accept"])
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with suppress(ConnectionError):
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
            index.url = f"http://127.0.0.1:{server.server_port}/simple/"
            thread = threading.Thread(target=server.serve_forever, args=(0.05,))
            thread.start()
            try:
                yield index
            finally:
                server.shutdown()
                thread.join()


def _number(text: str, project: str) -> int:
    """Which page of a project this is; it is whole, and of one piece."""
    names = re.findall(rf"{project}-(\d+)\.(\d+)\.tar\.gz", text)
    numbers = {int(number) for number, _ in names}
    assert len(numbers) == 1
    assert {int(file) for _, file in names} == set(range(FILES))
    return numbers.pop()


def _ask_until_it_dies(proxy: Proxy, project: str, seen: dict[str, int]) -> None:
    """Ask for one page again and again, now in this form, now in that; note what came last."""
    with suppress(OSError, HTTPException):
        for form in itertools.cycle([JSON, HTML]):
            reply = proxy.request("GET", f"/index/{project}/", form)
            assert reply.status == 200
            seen[project] = _number(reply.text, project)


def _offline(settings: dict[str, str], folder: Path) -> dict[str, int]:
    """What a proxpi that asks nobody finds in the folder: one page, in both forms alike."""
    found = {}
    with Proxy(settings | {"PROXPI_OFFLINE": "1"}, folder=folder) as proxy:
        for project in PROJECTS:
            replies = [proxy.request("GET", f"/index/{project}/", form) for form in (JSON, HTML)]
            assert [reply.status for reply in replies] == [200, 200]
            assert "meta" in json.loads(replies[0].body)
            numbers = {_number(reply.text, project) for reply in replies}
            assert len(numbers) == 1
            found[project] = numbers.pop()
    return found


def _rounds(lane: int, folder: Path) -> int:
    """Kill it again and again on one folder; how many pages were written while it happened."""
    folder.mkdir()
    moments = random.Random(lane)
    between = 0
    with _Growing.running() as index:
        settings = {
            "PROXPI_INDEX_URL": index.url,
            "PROXPI_INDEX_TTL": EXPIRED_AT_ONCE,
            "PROXPI_CACHE_DIR": str(folder / "cache"),
        }
        for _ in range(ROUNDS):
            seen: dict[str, int] = {}
            with Proxy(settings, folder=folder) as proxy, ThreadPoolExecutor(len(PROJECTS)) as pool:
                for project in PROJECTS:
                    seen[project] = _number(proxy.get(f"/index/{project}/").text, project)
                asking = [
                    pool.submit(_ask_until_it_dies, proxy, project, seen) for project in PROJECTS
                ]
                # The moment is random on purpose; nothing is waited for.
                threading.Event().wait(moments.uniform(0, 0.3))
                proxy.stop(SIGKILL)
                for each in asking:
                    each.result()
            found = _offline(settings, folder)
            for project in PROJECTS:
                assert seen[project] <= found[project] <= index.served[project]
                between += found[project] < index.served[project]
    return between


def test_what_is_left_is_a_whole_page(tmp_path: Path) -> None:
    """Nothing that a client has seen is lost, and nothing half written is ever served."""
    with ThreadPoolExecutor(LANES) as pool:
        between = sum(pool.map(_rounds, range(LANES), [tmp_path / str(n) for n in range(LANES)]))
    # Otherwise each of them was killed when it had nothing to do.
    assert between
