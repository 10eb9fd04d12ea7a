"""The actions of the admin page: the effect of each, and its result on the page."""

from __future__ import annotations

import json
import os
import re
from typing import Any, ClassVar

from proxpi.web.admin import actions
from proxpi.web.admin.actions import Actions, Result, Results
from tests.support.agent import Reply, Silence
from tests.support.cases import FILES, INDEX, JSON, ProxpiCase, entry, page, root_list, run
from tests.support.exchange import HOST, Response
from tests.support.logs import logged

EXTRA = "https://extra.example/simple/"
WHEEL, SDIST = "demo-1.0-py3-none-any.whl", "demo-1.0.tar.gz"
DATA = b"a wheel " * 1000
FORM = "Content-Type: application/x-www-form-urlencoded"
BROWSER = ("Accept: text/html,*/*;q=0.8", FORM, f"Origin: http://{HOST}")
EVIL = "<script>alert(1)</script>"
SENTENCE = re.compile(r'<p class="(done.*?)" role="(.*?)">(.*?)</p>')
PATHS = ("forget-list", "forget-project", "forget-file", "forget-everything", "refetch")


def tagged(reply: Reply, etag: str) -> Reply:
    return Reply(200, reply.body, {**reply.headers, "ETag": etag})


class ActionsCase(ProxpiCase):
    def setUp(self) -> None:
        super().setUp()
        self.agent.at(INDEX, root_list(["demo"]))
        self.page = page(entry(WHEEL, DATA), entry(SDIST, b"sdist"))
        self.agent.at(f"{INDEX}demo/", tagged(self.page, '"1"'))
        self.agent.at(FILES + WHEEL, Reply(200, DATA))
        self.agent.at(FILES + SDIST, Reply(200, b"sdist"))

    def fill(self) -> None:
        for path in ("/index/", "/index/demo/", f"/index/demo/{WHEEL}", f"/index/demo/{SDIST}"):
            assert self.get(path).status == 200, path

    def post(self, action: str, body: str = "", *headers: str, within: float = 0.0) -> Response:
        return self.ask("POST", f"/admin/{action}", *(headers or BROWSER), body=body, within=within)

    def said(self, action: str, body: str = "", *, failed: bool = False) -> str:
        """Return the sentence on the page to which an action leads."""
        response = self.post(action, body)
        assert response.status == 303
        text = self.get(response.headers["location"].removeprefix("..")).text
        [(classes, role, sentence)] = SENTENCE.findall(text)
        assert (classes, role) == (("done failed", "alert") if failed else ("done", "status"))
        return str(sentence)

    def refused(self, action: str, body: str = "", *headers: str) -> tuple[int, str]:
        """Return status and text of the page that refuses an action."""
        response = self.post(action, body, *headers)
        assert response.headers["content-type"] == "text/html; charset=utf-8"
        assert '<a href="../">' in response.text
        return response.status, response.text

    def asked(self, path: str) -> bool:
        self.agent.asked.clear()
        self.get(path)
        return bool(self.agent.asked)


class Forgetting(ActionsCase):
    def test_list(self) -> None:
        """The list is fetched again, and nothing else."""
        self.fill()
        assert self.said("forget-list").startswith("The project list is forgotten.")
        assert [self.asked(path) for path in ("/index/demo/", "/index/")] == [False, True]

    def test_project(self) -> None:
        """A page is fetched again; its files stay. A page that was not there is no success."""
        self.fill()
        assert self.said("forget-project", "project=+Demo+").startswith("demo is forgotten.")
        assert [self.asked(path) for path in ("/index/", "/index/demo/")] == [False, True]
        assert self.mirror.ready("demo", WHEEL) is not None
        absent = self.said("forget-project", "project=other")
        assert absent == "There was no page of other in the cache."

    def test_file(self) -> None:
        """A file is removed, with how many bytes; one that was not there is no success."""
        self.fill()
        removed = self.said("forget-file", f"project=demo&file={WHEEL}")
        assert removed.startswith(f"{WHEEL} is removed: 1 file of 8.0 kB.")
        assert self.mirror.ready("demo", WHEEL) is None
        assert self.mirror.ready("demo", SDIST) is not None
        again = self.said("forget-file", f"project=demo&file={WHEEL}")
        assert again == f"There was no file {WHEEL} of demo in the cache."

    def test_everything(self) -> None:
        """Everything is removed once the words are typed, in any case; else nothing is."""
        self.fill()
        for typed in ("", "confirm=", "confirm=yes", "confirm=forget", "forget+everything"):
            status, text = self.refused("forget-everything", typed)
            assert (status, "type" in text) == (400, True)
        assert not any(self.asked(path) for path in ("/index/", "/index/demo/"))
        assert self.mirror.ready("demo", WHEEL) is not None
        said = self.said("forget-everything", "confirm=+Forget+EVERYTHING+")
        assert said == "Everything is removed: all pages, and 2 files of 8.0 kB."
        assert self.mirror.ready("demo", WHEEL) is None
        assert self.asked("/index/demo/")

    def test_disk_refuses(self) -> None:
        """If the disk refuses, the page says so, with a status that says so too."""
        self.fill()

        def refuse(*_: object) -> None:
            raise PermissionError(13, "Permission denied")

        self.put(os, "rename", refuse)
        for action, body in (
            ("forget-file", f"project=demo&file={WHEEL}"),
            ("forget-everything", "confirm=forget everything"),
        ):
            status, text = self.refused(action, body)
            assert (status, "Permission denied" in text) == (503, True), action


class Refetching(ActionsCase):
    """A page is revalidated at each index, and the result names each outcome."""

    def setUp(self) -> None:
        super().setUp()
        self.build(extra=EXTRA)
        self.agent.at(f"{EXTRA}demo/", Reply(404))
        self.get("/index/demo/")
        self.clock.advance(10)

    def refetch(self, *, failed: bool = False) -> str:
        self.agent.asked.clear()
        return self.said("refetch", "project=DEMO", failed=failed)

    def test_unchanged(self) -> None:
        """An index that confirms its page, and one that lacks the project; both were asked."""
        self.agent.at(f"{INDEX}demo/", Reply(304))
        said = self.refetch()
        assert said == "The page of demo: root has confirmed it; extra-1 does not have the project."
        assert self.agent.urls() == [f"{INDEX}demo/", f"{EXTRA}demo/"]

    def test_changed(self) -> None:
        """A new page is served at once, although the old one was fresh."""
        self.agent.at(f"{INDEX}demo/", page(entry("demo-2.0.zip", b"x")))
        assert self.refetch().startswith("The page of demo: root has sent a new page; ")
        listed = json.loads(self.get("/index/demo/", f"Accept: {JSON}").body)["files"]
        assert [file["filename"] for file in listed] == ["demo-2.0.zip"]

    def test_again(self) -> None:
        """An index that was asked a moment ago is not asked again."""
        self.refetch()
        said = self.refetch()
        expected = "root was asked a moment ago; extra-1 was asked a moment ago"
        assert said == f"The page of demo: {expected}."
        assert self.agent.asked == []

    def test_failed(self) -> None:
        """An index that fails is named with the cause; the others count all the same."""
        self.agent.at(f"{EXTRA}demo/", Reply(500))
        self.agent.at(f"{INDEX}demo/", Reply(304))
        response = self.connect()
        body = "project=demo"
        response.ask("POST", "/admin/refetch", *BROWSER, body=body)
        self.clock.pump([0.5] * 20)
        text = self.get(response.response().headers["location"].removeprefix("..")).text
        assert "The page of demo: root has confirmed it; extra-1 failed (status 500" in text
        assert "; its last page is kept)." in text
        assert 'class="done failed" role="alert"' in text

    def test_failed_without_a_page(self) -> None:
        """Without any page the failure is a sentence, too, and no status of the index."""
        self.agent.at(f"{INDEX}other/", Reply(401))
        self.agent.at(f"{EXTRA}other/", Reply(404))
        said = self.said("refetch", "project=other", failed=True)
        assert "root failed (" in said and "nothing of it is cached" in said

    def test_offline(self) -> None:
        """Offline no request is sent, and each index says why."""
        self.upstream.offline = True
        said = self.refetch(failed=True)
        assert said.count("; its last page is kept)") == 2, said
        assert self.agent.asked == []

    def test_no_index(self) -> None:
        """A project that no index may have is requested nowhere."""
        nowhere: Any = Actions(None, {}, None, None)  # type: ignore[arg-type]
        result = self.result(run(nowhere.refetch("demo")))
        assert result == Result("No index may have demo: nothing was requested.", failed=True)

    def test_silent(self) -> None:
        """The browser waits for an index that takes its time."""
        silence = Silence()
        self.agent.at(f"{INDEX}demo/", silence)
        waiting = self.connect()
        waiting.ask("POST", "/admin/refetch", *BROWSER, body="project=demo")
        self.clock.pump([0.5] * 14)
        assert waiting.answer() is None
        silence.answer(Reply(304))
        assert waiting.response().status == 303


class Refusals(ActionsCase):
    """A browser gets a page that says what to do; any other client gets JSON."""

    BODIES: ClassVar = {
        "forget-project": ("", "project=", "other=demo", "project=-x", "project=%FF", "x" * 60_000),
        "refetch": ("", "project=-x", f"project={EVIL}", "project=demo%0d%0aX:+y"),
        "forget-file": (
            *("", "project=demo", "file=x.whl", "project=-x&file=x.whl", "project=demo&file=.."),
            *("project=demo&file=a/b", "project=demo&file=%00", f"project=demo&file={EVIL}"),
            "project=demo&file=" + "x" * 3000,
        ),
    }

    def test_bad_names(self) -> None:
        """A name that can be none is a 400 that does not repeat it, as a page and as JSON."""
        for action, bodies in self.BODIES.items():
            for body in bodies:
                status, text = self.refused(action, body)
                assert (status, EVIL in text) == (400, False), body[:50]
                response = self.post(action, body, FORM)
                assert response.headers["content-type"] == "application/json"
                assert (response.status, json.loads(response.body)["status"]) == (400, "error")

    def test_too_large(self) -> None:
        """A form that is too large is a page as well."""
        assert self.refused("forget-list", "x" * 70_000)[0] == 413

    def test_other_sites(self) -> None:
        """A request of another origin is a page that names what a reverse proxy has to pass on."""
        for headers in (["Origin: https://evil.example"], ["Sec-Fetch-Site: cross-site"]):
            for action in (*PATHS, "logout"):
                status, text = self.refused(action, "project=demo", "Accept: text/html", *headers)
                assert status == 403
                for part in ("proxy_set_header Host $http_host", "PROXPI_TRUSTED_PROXIES"):
                    assert part in text

    def test_unknown_host(self) -> None:
        """A name that is not known is a page that names the setting."""
        headers = ("Accept: text/html", "Host: evil.example", "Sec-Fetch-Site: same-origin")
        status, text = self.refused("forget-list", "", *headers)
        assert (status, "Add the name in the address bar to PROXPI_HOSTS" in text) == (403, True)

    def test_odd_paths(self) -> None:
        """A path that is almost one of a form does nothing."""
        self.fill()
        for path in (
            *("//admin//forget-list", "/admin/%2e/forget-list", "/admin/forget-list/", "/admin/"),
            *("/x/../admin/forget-list", "/admin/forget%2Dlist/", "/ADMIN/forget-list", "/admin"),
            *("/admin%2Fforget-list", "/admin/forget-list;x", "/admin/forget-list%00", "//admin"),
        ):
            for accept in ("text/html", "*/*"):
                response = self.ask("POST", path, FORM, f"Accept: {accept}", body="project=demo")
                assert response.status in (404, 405), path
        assert not any(self.asked(path) for path in ("/index/", "/index/demo/"))

    def test_methods(self) -> None:
        """A browser that opens the URL of a form gets a page with a way back; nothing changes."""
        self.fill()
        for action in PATHS:
            for method in ("GET", "HEAD", "PUT", "DELETE"):
                response = self.ask(method, f"/admin/{action}", "Accept: text/html")
                assert (response.status, response.headers["allow"]) == (405, "OPTIONS, POST")
        assert '<a href="../">' in self.get("/admin/forget-list", "Accept: text/html").text
        assert not self.asked("/index/")

    def test_header_injection(self) -> None:
        """No field of a form or of the head gets into a field of the response."""
        for body in ("project=demo%0d%0aX-Evil:+1", "project=demo%0aSet-Cookie:+a", "token=%0d%0a"):
            for action in (*PATHS, "login", "logout"):
                response = self.post(action, body)
                assert not {"x-evil", "set-cookie"} & {*response.headers} or action == "logout"
                assert "evil" not in response.headers.get("location", "").lower()


class Shown(ActionsCase):
    def test_links(self) -> None:
        """No link makes the page state what has not happened."""
        nothing = self.get("/").text
        assert 'class="done"' not in nothing
        for key in ("x", "", EVIL, "forget-list", "%ff", "../", "a" * 5000):
            assert 'class="done"' not in self.get(f"/?done={key}").text, key

    def test_repeated(self) -> None:
        """A reload says the same, and does nothing."""
        self.fill()
        location = self.post("forget-list").headers["location"].removeprefix("..")
        self.get("/index/")
        assert self.get(location).text.count("The project list is forgotten.") == 1
        assert "The project list is forgotten." in self.get(location).text
        assert not self.asked("/index/")

    def test_log(self) -> None:
        """The log has who did what in one line, which no name can forge."""
        with logged("proxpi.admin") as log:
            self.said("forget-list")
            self.said("forget-file", "project=demo&file=x%E2%80%A8y%E2%80%AE.whl")
        first, second = log.lines
        assert first.startswith("192.0.2.1 on the admin page: The project list is forgotten.")
        assert "no file x\\u2028y\\u202e.whl of demo" in second

    def test_headers(self) -> None:
        """Each response may load nothing from elsewhere, be framed by no site, and is not kept."""
        for method, path, accept in (
            *(
                ("GET", path, "*/*")
                for path in ("/", "/stats", "/metrics", "/no", "/cache", "/admin")
            ),
            *(
                ("POST", f"/admin/{path}", accept)
                for path in PATHS
                for accept in ("text/html", "*/*")
            ),
            *(("DELETE", "/cache/demo", "*/*"), ("DELETE", "/cache/-x", "*/*")),
            *(("GET", "/admin/style.css", "*/*"), ("OPTIONS", "/", "*/*")),
        ):
            response = self.ask(method, path, f"Accept: {accept}", FORM)
            headers = response.headers
            for part in ("default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"):
                assert part in headers["content-security-policy"], path
            assert "unsafe" not in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "same-origin"
            assert headers["cache-control"] in ("no-store", "no-cache"), path


def test_results() -> None:
    """The last results are found by random keys."""
    results = Results()
    keys = [results.add(Result(str(number))) for number in range(actions.MAX_RESULTS + 1)]
    assert len({*keys}) == len(keys)
    assert {len(key) for key in keys} == {12}
    assert [results.find(key) for key in (keys[0], keys[1], "")] == [None, Result("1"), None]
