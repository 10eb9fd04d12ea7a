"""``DELETE`` of one file and of everything, also while files are being fetched or sent."""

from __future__ import annotations

import json
import os
from typing import Any

from tests.support.house import FILES, INDEX, entry, page, sha256
from tests.support.internet import Reply, Silence
from tests.web.admin.test_api import OTHER_SITES, OWN_SITE, SUCCESS, AppCase
from tests.web.test_simple_api import root_list

NAME = "demo-1.0-py3-none-any.whl"
DATA = b"a wheel " * 1000
METADATA = b"Metadata-Version: 2.1\n"
PATH = f"/index/demo/{NAME}"


class FilesCase(AppCase):
    """Tests of an index with a wheel, its metadata and its signature."""

    def setUp(self) -> None:
        """List it."""
        super().setUp()
        keys: dict[str, Any] = {"metadata": {"sha256": sha256(METADATA)}, "gpg-sig": True}
        self.other = "demo-1.0+local.tar.gz"
        listed = entry(NAME, DATA, **keys)
        other = entry(self.other, b"other", url=FILES + "demo-1.0%2Blocal.tar.gz")
        self.internet.at(INDEX + "demo/", page(listed, other))
        self.internet.at(FILES + NAME, Reply(200, DATA))
        self.internet.at(f"{FILES}{NAME}.metadata", Reply(200, METADATA))
        self.internet.at(f"{FILES}{NAME}.asc", Reply(200, b"signed"))
        self.internet.at(other["url"], Reply(200, b"other"))
        self.paths = [PATH, f"{PATH}.metadata", f"{PATH}.asc", f"/index/demo/{self.other}"]

    def fill(self) -> None:
        """Have everything here."""
        for path in ["/index/", "/index/demo/", *self.paths]:
            assert self.get(path).status == 200, path

    def here(self) -> list[bool]:
        """Tell which of the files are here, without changing it."""
        return [self.mirror.ready("demo", path[12:]) is not None for path in self.paths]

    def forgets(self, path: str, *headers: str) -> None:
        """Forget something, which has to succeed."""
        answer = self.ask("DELETE", path, *headers)
        assert (answer.status, json.loads(answer.body)) == (200, SUCCESS), path
        assert answer.headers["content-type"] == "application/json"


class OneFile(FilesCase):
    """``DELETE /cache/<project>/<file>``."""

    def test_file(self) -> None:
        """A file goes, with what lies beside it, in any spelling; nothing else does."""
        for spelling in ("demo", "Demo", "%64emo"):
            self.fill()
            self.forgets(f"/cache/{spelling}/{NAME}")
            assert self.here() == [False, False, False, True]
            assert not list(self.folder.rglob(f"{NAME}*"))
        assert not self.asked("/index/demo/")

    def test_encoded(self) -> None:
        """A name may be percent-encoded, or not."""
        for encoded in ("demo-1.0+local.tar.gz", "demo-1.0%2Blocal.tar.gz"):
            self.fill()
            self.forgets(f"/cache/demo/{encoded}")
            assert self.here() == [True, True, True, False]

    def test_beside(self) -> None:
        """What lies beside a file can be forgotten by itself."""
        self.fill()
        self.forgets(f"/cache/demo/{NAME}.metadata")
        assert self.here() == [True, False, True, True]

    def test_asked_again(self) -> None:
        """The next who asks gets what the upstream has by then."""
        self.fill()
        self.forgets(f"/cache/demo/{NAME}")
        assert self.get(PATH).headers["x-cache"] == "MISS"
        assert self.internet.urls().count(FILES + NAME) == 2

    def test_nothing_there(self) -> None:
        """To forget what is not here is no error, and asks nobody."""
        for path in (f"/cache/demo/{NAME}", "/cache/unknown/x.whl", "/cache/demo/x.whl"):
            self.forgets(path)
        assert self.internet.asked == []

    def test_page_unknown(self) -> None:
        """A file whose page was removed is known by its name."""
        self.fill()
        self.cache_dir.prepare()
        self.result(self.pages.clear())
        self.forgets(f"/cache/demo/{NAME}")
        assert not list(self.folder.rglob(f"{NAME}*"))

    def test_page_unknown_and_encoded(self) -> None:
        """So is one whose name is encoded in its URL, however it is in the request."""
        for encoded in ("+", "%2B", "%2b"):
            self.fill()
            self.result(self.pages.clear())
            self.forgets(f"/cache/demo/demo-1.0{encoded}local.tar.gz")
            assert not list(self.folder.rglob("*local*"))

    def test_other_hosts(self) -> None:
        """Copies from hosts that the page names no more go as well."""
        self.fill()
        before = self.folder / "old-example" / NAME
        before.parent.mkdir()
        before.write_bytes(DATA)
        self.cache_dir.prepare()
        self.forgets(f"/cache/demo/{NAME}")
        assert not before.exists()
        assert self.here() == [False, False, False, True]

    def test_no_name(self) -> None:
        """What can be no name is an error, in the API's own form."""
        for path in ("-x/x.whl", "demo/%00", "demo/a%5Cb", "demo/" + "x" * 3000, "a%20b/x.whl"):
            answer = self.ask("DELETE", f"/cache/{path}")
            assert (answer.status, json.loads(answer.body)["status"]) == (404, "error"), path[:20]

    def test_while_it_is_fetched(self) -> None:
        """Who waits gets it; it is not kept, and whoever asks later starts anew."""
        first, second = Silence(), Silence()
        self.internet.at(FILES + NAME, first, second)
        waiting, later = self.connect(), self.connect()
        waiting.ask("GET", PATH)
        self.forgets(f"/cache/demo/{NAME}")
        later.ask("GET", PATH)
        assert self.internet.urls().count(FILES + NAME) == 2
        first.answer(Reply(200, DATA))
        answer = waiting.answer()
        assert answer is not None
        assert (answer.status, answer.body) == (200, DATA)
        assert later.answer() is None
        assert self.here() == [False] * 4
        second.answer(Reply(200, DATA))
        answer = later.answer()
        assert answer is not None
        assert (answer.status, answer.body) == (200, DATA)
        assert self.here()[0]
        self.clock.advance(0)

    def test_while_it_is_sent(self) -> None:
        """Who is being sent it gets all of it."""
        big = os.urandom(3_000_000)
        self.internet.at(INDEX + "demo/", page(entry(NAME, big)))
        self.internet.at(FILES + NAME, Reply(200, big))
        self.get(PATH)
        sending = self.connect()
        sending.ask("GET", PATH)
        self.forgets(f"/cache/demo/{NAME}")
        assert not self.here()[0]
        answer = sending.answer()
        assert answer is not None
        assert (answer.body == big, answer.whole) == (True, True)

    def test_other_sites(self) -> None:
        """A page of another site forgets nothing; this one's may."""
        for path in (f"/cache/demo/{NAME}", "/cache"):
            for headers in OTHER_SITES:
                self.fill()
                answer = self.ask("DELETE", path, *headers)
                assert (answer.status, json.loads(answer.body)["status"]) == (403, "error")
                assert self.here() == [True] * 4
            for headers in OWN_SITE:
                self.fill()
                self.forgets(path, *headers)
                assert not self.here()[0]

    def test_methods(self) -> None:
        """Any other method is refused, and nothing is done."""
        self.fill()
        for path in (f"/cache/demo/{NAME}", "/cache", "/cache/"):
            for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "BREW"):
                answer = self.ask(method, path)
                assert (answer.status, answer.headers["allow"]) == (405, "DELETE, OPTIONS"), path
            answer = self.ask("OPTIONS", path)
            assert (answer.status, answer.headers["allow"]) == (204, "DELETE, OPTIONS")
        assert self.here() == [True] * 4

    def test_cannot_be_removed(self) -> None:
        """If the disk refuses, that is said, in the API's own form."""
        self.fill()

        def refuse(*_: object) -> None:
            raise PermissionError(13, "Permission denied")

        self.put(os, "rename", refuse)
        answer = self.ask("DELETE", f"/cache/demo/{NAME}")
        assert (answer.status, json.loads(answer.body)["status"]) == (503, "error")
        assert "Permission denied" in json.loads(answer.body)["message"]


class Everything(FilesCase):
    """``DELETE /cache``."""

    def kept(self) -> list[str]:
        """Give the files in the folder that hold anything of an index."""
        found = [path for path in self.folder.rglob("*") if path.is_file()]
        return [path.name for path in found if path.suffix not in (".json",)]

    def test_all(self) -> None:
        """Pages, list and files go, and whatever is asked for is asked for upstream."""
        self.fill()
        self.forgets("/cache")
        assert self.kept() == []
        for asked in ("/index/", "/index/demo/", *self.paths):
            assert self.asked(asked), asked

    def test_foreign_files(self) -> None:
        """What others put into the folder stays."""
        self.fill()
        foreign = [self.folder / "readme.txt", self.folder / "Their Folder" / "x.whl"]
        for file in foreign:
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(b"x")
        self.forgets("/cache")
        assert sorted(self.kept()) == ["readme.txt", "x.whl"]

    def test_for_good(self) -> None:
        """Nothing of it stands in in an outage, after a restart neither."""
        self.fill()
        self.forgets("/cache")
        for url in (INDEX, INDEX + "demo/", FILES + NAME):
            self.internet.at(url, Reply(503))
        for _ in range(2):
            for path in ("/index/", "/index/demo/", PATH):
                assert self.ask("GET", path, within=20).status == 503
            self.build()

    def test_crash(self) -> None:
        """What a crash has left of it is removed at the start."""
        left = self.folder / ".proxpi" / "partial-0123"
        left.mkdir()
        (left / "demo.page").write_bytes(b"x")
        self.build()
        assert not left.exists()

    def test_while_fetching(self) -> None:
        """What was under way is for those who wait, and stays nowhere."""
        self.fill()
        self.forgets("/cache")
        self.get("/index/demo/")
        silence = Silence()
        self.internet.at(FILES + NAME, silence)
        waiting = self.connect()
        waiting.ask("GET", PATH)
        self.forgets("/cache")
        silence.answer(Reply(200, DATA))
        answer = waiting.answer()
        assert answer is not None
        assert answer.body == DATA
        assert self.kept() == []
        self.clock.advance(0)

    def test_pages_under_way(self) -> None:
        """Who waits for a page or a list gets that; it is not kept, and asked for anew."""
        for url, path, new in (
            (INDEX + "demo/", "/index/demo/", page(entry("new.whl", b"x"))),
            (INDEX, "/index/", root_list("new")),
        ):
            old = Silence()
            self.internet.at(url, old, new)
            waiting = self.connect()
            waiting.ask("GET", path)
            self.forgets("/cache")
            old.answer(page(entry("old.whl", b"x")) if "demo" in path else root_list("old"))
            self.clock.pump([0.5] * 8)
            answer = waiting.answer()
            assert answer is not None
            assert b"old" in answer.body
            answer = self.get(path)
            assert answer.headers["x-cache"] == "MISS"
            assert b"new" in answer.body
