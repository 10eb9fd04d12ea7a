"""Files that are not simply sent: those better had elsewhere, those that are not, and sidecars."""

from __future__ import annotations

import errno

from twisted.internet.error import ConnectionRefusedError

from proxpi.files.partial import PartialFile
from tests.support.house import FILES, INDEX, PRIVATE_INDEX, entry, page, sha256
from tests.support.internet import Reply
from tests.web.test_files import DATA, NAME, PATH, SIZE, FileCase


class Elsewhere(FileCase):
    """When a client is better served upstream, and when not."""

    def test_redirect(self) -> None:
        """A client whose time is up is sent upstream, without anything to be kept of it."""
        url = FILES + NAME + "?signature=a%2Fb"
        slow = Reply(200, b"", whole=False, length=SIZE)
        self.serve(NAME, DATA, slow, url=url)
        exchange = self.connect()
        exchange.ask("GET", PATH)
        assert exchange.answer() is None
        self.clock.advance(0.9)
        answer = exchange.answer()
        assert answer is not None
        assert (answer.status, answer.headers["location"]) == (302, url)
        assert answer.headers["content-length"] == "0"
        assert answer.headers["cache-control"] == "no-store"
        slow.bring(DATA)
        slow.end()
        assert self.get(PATH).headers["x-cache"] == "HIT"

    def test_failing(self) -> None:
        """A file that cannot be had is looked for upstream."""
        for reply in (Reply(503), Reply(403), ConnectionRefusedError()):
            self.serve(NAME, DATA, reply)
            assert self.get(PATH).status == 302

    def test_no_credentials(self) -> None:
        """No redirect bears credentials."""
        self.serve(NAME, DATA, url=f"https://user:secret@files.example/{NAME}")
        self.internet.at(f"https://files.example/{NAME}", Reply(503))
        answer = self.get(PATH)
        assert answer.headers["location"] == f"https://files.example/{NAME}"

    def test_private(self) -> None:
        """Behind credentials nobody is sent upstream: it is waited, or it fails here."""
        self.build(index=PRIVATE_INDEX)
        for reply, status in [(Reply(503), 503), (Reply(401), 502), (Reply(403), 502)]:
            self.serve(NAME, DATA, reply)
            answer = self.get(PATH)
            assert answer.status == status
            assert "location" not in answer.headers
            assert "secret" not in answer.text
        slow = Reply(200, b"", whole=False, length=SIZE)
        self.serve(NAME, DATA, slow)
        exchange = self.connect()
        exchange.ask("GET", PATH)
        self.clock.advance(10)
        assert exchange.answer() is None
        slow.bring(DATA)
        slow.end()
        answer_at_last = exchange.answer()
        assert answer_at_last is not None
        assert answer_at_last.body == DATA

    def test_full_disk(self) -> None:
        """With a full disk the client is sent upstream; behind credentials it passes through."""

        def refuse(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        self.put(PartialFile, "write", refuse)
        assert self.get(PATH).status == 302
        self.build(index=PRIVATE_INDEX)
        answer = self.get(PATH)
        assert (answer.status, answer.body) == (200, DATA)
        assert self.leftovers() == []

    def test_gone(self) -> None:
        """A file that is listed and not there is a 404 in plain words."""
        self.serve(NAME, DATA, Reply(404))
        for method in ("GET", "HEAD"):
            answer = self.ask("GET", PATH)
            assert answer.status == 404, method
        assert "not there" in answer.text

    def test_not_listed(self) -> None:
        """A file that no index lists is a 404, and so is one of no project."""
        for path in ("/index/demo/other.whl", "/index/other/other.whl"):
            for method in ("GET", "HEAD"):
                assert self.ask(method, path).status == 404

    def test_odd_names(self) -> None:
        """What can be no file's name is a 404 that no upstream hears of."""
        for name in ("..%2f..%2fetc%2fpasswd", "a%00.whl", "x" * 10_000, "%ff", "a/b", "%2e%2e"):
            assert self.get(f"/index/demo/{name}").status == 404, name[:20]
        assert self.internet.asked == []

    def test_page_fails(self) -> None:
        """Without a page there is no file: a 503."""
        self.internet.at(INDEX + "demo/", Reply(503))
        for method in ("GET", "HEAD"):
            answer = self.ask(method, PATH, within=10)
            assert (answer.status, answer.headers["retry-after"]) == (503, "5")

    def test_client_goes_away(self) -> None:
        """A client that goes while its file comes stops nothing, and nothing went wrong."""
        slow = Reply(200, b"", whole=False, length=SIZE)
        self.serve(NAME, DATA, slow)
        exchange = self.connect()
        exchange.ask("GET", PATH)
        exchange.hang_up()
        slow.bring(DATA)
        slow.end()
        assert self.clock.getDelayedCalls() == []
        assert self.get(PATH).headers["x-cache"] == "HIT"
        assert self.unhandled() == []


class Sidecars(FileCase):
    """What lies beside a file."""

    def test_metadata(self) -> None:
        """The metadata that a page advertises is served, and tagged by its digest."""
        metadata = b"Metadata-Version: 2.1\n"
        listed = entry(NAME, DATA, metadata={"sha256": sha256(metadata)})
        self.internet.at(INDEX + "demo/", page(listed))
        self.internet.at(f"{FILES}{NAME}.metadata", Reply(200, metadata))
        for expected in ("MISS", "HIT"):
            answer = self.get(f"{PATH}.metadata")
            assert (answer.status, answer.body) == (200, metadata)
            assert answer.headers["x-cache"] == expected
            assert answer.headers["etag"] == f'"{sha256(metadata)}"'
        head = self.ask("HEAD", f"{PATH}.metadata")
        assert head.headers["content-length"] == str(len(metadata))

    def test_not_there(self) -> None:
        """Metadata that nobody advertised and nobody has is a 404."""
        assert self.get(f"{PATH}.metadata").status == 404
