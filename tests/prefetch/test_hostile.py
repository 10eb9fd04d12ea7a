"""Metadata and pages of an attacker cost prefetching a bounded amount, and change no response."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from hypothesis import given, settings
from hypothesis import strategies as st

from proxpi.prefetch import requirements
from proxpi.prefetch.candidates import Constraints, predict
from proxpi.prefetch.client import read_user_agent
from proxpi.simple import model
from tests.support.agent import Reply
from tests.support.cases import FILES, INDEX, entry, page, sha256
from tests.support.growth import assert_linear
from tests.support.prefetching import USER_AGENT, PrefetchCase

LONG, DEEP = 10_000, 400
#: Lines of core metadata that follow the fields of an ordinary one.
METADATA: dict[str, list[str]] = {
    "cycle": ["Requires-Dist: app", "Requires-Dist: good[x]"],
    "many": [f"Requires-Dist: p{number}" for number in range(LONG)],
    "many of one name": [f"Requires-Dist: good>={number}" for number in range(LONG)],
    "markers": ["Requires-Dist: good; python_version ~~ '3'", "Requires-Dist: good; 'a' == 'b'"],
    "versions in markers": [f"Requires-Dist: p; python_version < '{'9' * 900}'"],
    "nested markers": [f"Requires-Dist: good; {'(' * DEEP}os_name == 'posix'{')' * DEEP}"],
    "long markers": ["Requires-Dist: good; " + " or ".join(["os_name == 'x'"] * LONG)],
    "names": [
        *("Requires-Dist: a\n b", "Requires-Dist: a\rb", "Requires-Dist: a%0d%0ab"),
        *("Requires-Dist: ../../etc", "Requires-Dist: a\x00b", "Requires-Dist: \x1b[2J"),
        *("Requires-Dist: ä", "Requires-Dist: .", f"Requires-Dist: {'n' * 900}"),
    ],
    "extras": [
        *("Requires-Dist: app[a]; extra != 'a'", "Requires-Dist: app[b]; extra == 'a'"),
        *("Requires-Dist: app[a]; extra == 'b'", "Requires-Dist: good; extra not in 'a'"),
        *(f"Requires-Dist: app[e{n + 1}]; extra == 'e{n}' or n == 0" for n in range(500)),
    ],
    "versions": [
        *(f"Requires-Dist: good=={'1' * LONG}", f"Requires-Dist: good=={'9' * 900}!1"),
        *(f"Requires-Dist: good=={'1.' * 400}1", "Requires-Dist: good===\x7f"),
    ],
    "clauses": ["Requires-Dist: good!=" + ",!=".join(f"9.{n}" for n in range(LONG))],
    "large": ["Description: " + "x" * 4 * 1024 * 1024, "Requires-Dist: good"],
    "folded": ["Requires-Dist: good" + "\n " * LONG],
}


class Metadata(PrefetchCase):
    """Core metadata of a wheel that a client installs."""

    def responses(self, lines: list[str], *, prefetch: bool) -> list[Any]:
        """Request a page, its metadata, and what an ordinary project has, as two clients."""
        self.agent.script.clear()
        self.build(prefetch=prefetch)
        assert self.ask("DELETE", "/cache").status == 200
        text = "\n".join(["Metadata-Version: 2.4", "Requires-Dist: good", *lines, "", ""])
        self.project_with("app", text.encode())
        self.project("good", "app[a]")
        answers = [self.page("app"), self.metadata("app"), self.page("good")]
        answers += [self.metadata("good"), self.get("/index/good/"), self.page("app")]
        answers += [self.wheel("app"), self.wheel("good")]
        return [(each.status, each.body, each.headers.get("etag")) for each in answers]

    def compare(self, lines: list[str]) -> list[str]:
        """Check the responses; return the names of the pages requested upstream."""
        expected = self.responses(lines, prefetch=False)
        self.agent.asked.clear()
        assert self.responses(lines, prefetch=True) == expected
        assert self.unhandled() == []
        assert len({asked.url for asked in self.agent.asked}) == len(self.agent.asked)
        urls = [asked.url for asked in self.agent.asked]
        return [unquote(url.removeprefix(INDEX)).rstrip("/") for url in urls if INDEX in url]

    def test_hostile_metadata(self) -> None:
        """No response changes, nothing is logged, and few names are requested: valid ones."""
        for kind, lines in METADATA.items():
            names = self.compare(lines)
            assert {"app", "good"} <= {*names}, kind
            assert len(names) <= 2 + 20, kind
            assert all(name.isalnum() and len(name) < 100 for name in names), kind

    @settings(max_examples=20, deadline=None)
    @given(st.lists(st.text(max_size=30).map(lambda text: f"Requires-Dist: {text}"), max_size=10))
    def test_any_metadata(self, lines: list[str]) -> None:
        """Arbitrary text changes no response either."""
        self.compare([line.encode(errors="replace").decode() for line in lines])


class Pages(PrefetchCase):
    """A page of an attacker."""

    def test_hostile_page(self) -> None:
        """File names of every kind lead to the request for the file that fits, and to no other."""
        wheel, data = "app-1.0-py3-none-any.whl", b"wheel"
        names = [
            *("app-1.0\n-py3-none-any.whl", 'app-2.0"-py3-none-any.whl', "app-..-py3-none-any.whl"),
            *("../app-3.0-py3-none-any.whl", "app-4.0-py3-none-any.whl\x00", "app--.whl", "-.whl"),
            *(f"app-{'9' * 200}-py3-none-any.whl.x", f"app-5.0-{'cp27.' * 50}cp27-none-any.whl"),
            *("app-6.0-py3-none-win_amd64.whl", f"app-{'1-' * 120}.tar.gz", "app-7.0.exe"),
            *(f"{'a' * 2000}-8.0-py3-none-any.whl", "app-9.0-py3-none-\ud800.whl", ".", "..", ""),
        ]
        files = [entry(wheel, data, metadata={"sha256": sha256(b"")})]
        files += [entry(name, b"", url=f"{FILES}odd-{n}") for n, name in enumerate(names)]
        self.agent.at(f"{INDEX}app/", page(*files, name="app"))
        self.agent.at(f"{FILES}{wheel}.metadata", Reply(200, b""))
        assert self.page("app").status == 200
        assert [asked.url for asked in self.agent.asked] == [
            f"{INDEX}app/",
            f"{FILES}{wheel}.metadata",
        ]
        assert self.unhandled() == []


def test_searches_are_linear() -> None:
    """The search of a page costs time in proportion to it, whether or not a file fits."""
    client = read_user_agent(USER_AGENT)
    clauses = ",".join(f"!=9.{number}" for number in range(300))

    def encoded(name: str, **keys: Any) -> Any:
        def made(size: int) -> bytes:
            names = [name.replace("%d", str(number)) for number in range(size)]
            files = [{"filename": each, "url": "u", "hashes": {}, **keys} for each in names]
            return model.encode(model.Project("demo", files, {}))

        return made

    def search(data: bytes) -> None:
        predict([data], Constraints(frozenset({clauses})), client)

    assert_linear(search, encoded("demo-%d-py3-none-any.whl"), 500)
    assert_linear(search, encoded("demo-%d-py3-none-any.whl", yanked=True), 500)
    assert_linear(search, encoded("demo-%d.0-cp27-cp27m-win32.whl"), 500)
    assert_linear(search, encoded("demo-1-%d-py3-none-any.whl", yanked=True), 500)
    assert_linear(search, encoded(f"demo-{'1-' * 100}%d.tar.gz"), 500)


def test_reading_is_linear() -> None:
    """Core metadata of any size costs time in proportion to it."""
    for piece in (
        *(b"Requires-Dist: a\n", b"Requires-Dist: a" + b"<1," * 200 + b"\n"),
        *(b"Requires-Dist:" + b" " * 500 + b"\n", b"Requires-Dist: a\n \t \n \n"),
        *(b"\r\n \n", b"Requires-Dist: a;" + b"(" * 300 + b"\n"),
    ):
        assert_linear(
            requirements.read_requirements,
            lambda size, piece=piece: piece * (size // len(piece)),  # type: ignore[misc]
            20_000,
        )
