"""Credentials go to their own host alone, and nowhere into what proxpi writes."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote, quote_plus, urlsplit

import pytest

from tests.support.certificates import Authority, serving
from tests.support.distributions import Distribution, make_wheel
from tests.support.fake_index import Behavior, FakeIndex
from tests.support.processes import StartProxy
from tests.support.proxy import Proxy, Reply
from tests.support.servers import SecureFront

ROOT = ("root-re@der", "r00t/p@ss:w%rd?x#y")
TOKEN = ("t0ken-of-the-extra", "")
NETRC = ("netrc-us3r", "netrc-p@ss/word")
#: In what upstreams send: before a host in a redirect, and in a link.
MOVED, LINKED = ("moved-us3r", "m0ved-p@ss"), ("linked-us3r", "l1nked-p@ss")
#: In queries: a client that is redirected needs that of a link; no other party needs any.
MOVED_QUERY, LINKED_QUERY = "moved-qu3ry-t0ken", "linked-qu3ry-t0ken"
JSON, HTML = "application/vnd.pypi.simple.v1+json", "text/html"
PAIRS = (ROOT, TOKEN, NETRC, MOVED, LINKED)
_ZLIB = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")


def userinfo(pair: tuple[str, str]) -> str:
    return ":".join(quote(part, safe="") for part in pair if part) + "@"


def within(url: str, pair: tuple[str, str]) -> str:
    return url.replace("://", f"://{userinfo(pair)}")


def forms(pair: tuple[str, str]) -> set[str]:
    found = {base64.b64encode(":".join(pair).encode()).decode().rstrip("=")}
    for part in filter(None, pair):
        found |= {part, quote(part), quote(part, safe=""), quote_plus(part), repr(part)[1:-1]}
        found.add(base64.b64encode(part.encode()).decode().rstrip("="))
    return found


def secrets_in(data: bytes | str, *queries: str) -> set[str]:
    text = data.decode("latin-1") if isinstance(data, bytes) else data
    wanted = set(queries).union(*(forms(pair) for pair in PAIRS))
    return {form for form in wanted if form.lower() in text.lower()}


def unpacked(data: bytes) -> Iterator[bytes]:
    yield data
    for start in _ZLIB:
        position = data.find(start)
        while position >= 0:
            try:
                yield zlib.decompressobj().decompress(data[position:])
            except zlib.error:
                pass
            position = data.find(start, position + 1)


class Run:
    """A proxpi before three indexes: the first with TLS and a password, the second with a token,
    the third open, with links that hold secrets, and with a host of files that netrc names."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self.folder = folder
        self.cache = folder / "cache"
        authority = Authority(folder)
        self.root = stack.enter_context(FakeIndex())
        self.root.require_auth(*ROOT)
        self.extra = stack.enter_context(FakeIndex())
        self.extra.require_auth(*TOKEN)
        self.open = stack.enter_context(FakeIndex(files_elsewhere=True))
        self.open.require_auth(*NETRC, origin="files")
        port = int(self.root.origin.rpartition(":")[2])
        context = serving(authority.issue("server", "127.0.0.1"))
        self.front = stack.enter_context(SecureFront(port, context))
        netrc = folder / "netrc"
        netrc.write_text(f'machine localhost login {NETRC[0]} password "{NETRC[1]}"\n')
        self.files = {
            "rooted": self.root.add(make_wheel("rooted")),
            "extra": self.extra.add(make_wheel("extra")),
            "linked": self._link(make_wheel("linked"), self.open.origin),
            "guarded": self._link(
                make_wheel("guarded"), f"http://localhost:{self.open.files_port}"
            ),
        }
        self.settings = {
            "PROXPI_INDEX_URL": within(f"{self.front.origin}/simple/", ROOT),
            "PROXPI_EXTRA_INDEX_URLS": f"{within(self.extra.url, TOKEN)},{self.open.url}",
            "PROXPI_INDEX_TTL": "0.000001",
            "PROXPI_EXTRA_INDEX_TTLS": "0.000001,0.000001",
            "PROXPI_CA_BUNDLE": str(authority.path),
            "PROXPI_CACHE_DIR": str(self.cache),
            "PROXPI_DOWNLOAD_TIMEOUT": "0",
            "PROXPI_LOGGING_LEVEL": "DEBUG",
            "NETRC": str(netrc),
        }
        self._script()

    def _link(self, wheel: Distribution, origin: str) -> str:
        path = f"/files/{wheel.project}/{wheel.filename}"
        return self.open.add(wheel, url=f"{within(origin, LINKED)}{path}?sig={LINKED_QUERY}")

    def _script(self) -> None:
        query = f"?sig={MOVED_QUERY}"
        self.files["moved"] = self.extra.add(make_wheel("moved"))
        there = within(self.extra.origin, MOVED)
        self.extra.script("/simple/moved/", Behavior(times=1, redirect=f"{there}/simple/moved/"))
        refusing = f"http://{userinfo(MOVED)}127.0.0.1:1/simple/{query}"
        for path, behavior in {
            "unauthorized": Behavior(status=401),
            "forbidden": Behavior(status=403),
            "broken": Behavior(status=500),
            "garbage": Behavior(
                status=200, body=b"\x00 no page", headers={"Content-Type": "text/plain"}
            ),
            "cut": Behavior(status=200, body=b"<html>" * 99, truncate_after=9),
            "loop": Behavior(redirect=f"{there}/simple/loop/{query}"),
            "refused": Behavior(redirect=refusing),
            "strange": Behavior(redirect=f"ftp://{userinfo(MOVED)}index.example/{query}"),
            "odd": Behavior(redirect=f"http://{userinfo(MOVED)}index.example:port/{query}"),
            "no-tls": Behavior(redirect=f"{there.replace('http:', 'https:')}/simple/{query}"),
            "unknown": Behavior(redirect=f"http://{userinfo(MOVED)}index.invalid/{query}"),
        }.items():
            self.extra.script(f"/simple/{path}/", behavior)
        plain = f"http://{userinfo(MOVED)}127.0.0.1/{query}"
        self.root.script("/simple/downgraded/", Behavior(redirect=plain))
        self.failing = ["unauthorized", "forbidden", "broken", "garbage", "cut", "loop"]
        self.failing += ["refused", "strange", "odd", "no-tls", "unknown", "downgraded"]


def _busy(run: Run, proxy: Proxy) -> Iterator[Reply]:
    """Request all that there is."""
    for path in ("/", "/health", "/stats", "/metrics", "/index/", "/simple/", "/nothing"):
        yield proxy.get(path)
    for form in (JSON, HTML):
        yield proxy.get("/index/", Accept=form)
        for project in (*run.files, "absent"):
            yield proxy.get(f"/index/{project}/", Accept=form)
    for path in run.files.values():
        own = path.replace("/files/", "/index/")
        for method, headers in (("HEAD", {}), ("GET", {"Range": "bytes=0-9"}), ("GET", {})):
            yield proxy.request(method, own, headers)
        yield proxy.get(f"{own}.metadata")
        yield proxy.get(f"{own}.missing")
    for path in ("/cache/demo", "/cache/list", "/index/linked/"):
        yield proxy.request("DELETE", path)


def test_no_secret_is_written(stack: ExitStack, tmp_path: Path) -> None:
    """No log line, answer, redirect or file of the cache holds a user, a password or a token."""
    run = Run(stack, tmp_path)
    replies: list[Reply] = []
    with Proxy(run.settings, folder=run.folder) as proxy:
        replies += _busy(run, proxy)
        # At a time: an index that is known to fail would not be asked for the rest of them.
        with ThreadPoolExecutor(len(run.failing)) as threads:
            failed = list(threads.map(lambda name: proxy.get(f"/index/{name}/"), run.failing))
        assert {reply.status for reply in failed} == {502, 503}
        asked = {seen.path for seen in (*run.root.requests(), *run.extra.requests())}
        assert asked >= {f"/simple/{project}/" for project in run.failing}
        replies += failed
        # What was there stays there, as the fallback of an outage; files are gone, or locked.
        run.extra.close()
        run.root.require_auth("other", "user")
        run.open.require_auth("other", "user", origin="files")
        proxy.request("DELETE", "/cache/guarded/" + run.files["guarded"].rpartition("/")[2])
        replies += _busy(run, proxy)
        proxy.stop()
    with Proxy(run.settings, folder=run.folder) as again:
        replies += _busy(run, again)
        again.stop()
    redirects = {reply.headers["location"] for reply in replies if reply.status == 302}
    assert any(LINKED_QUERY in url for url in redirects), "a signed link is of no use without it"
    assert all("@" not in urlsplit(url).netloc for url in redirects)
    for output in (proxy.output, again.output):
        assert "credentials rejected" in output
        assert "Traceback" not in output
        assert not secrets_in(output, MOVED_QUERY, LINKED_QUERY)
    for reply in replies:
        redirect = reply.headers.pop("location", "") if reply.status == 302 else ""
        assert not secrets_in(redirect, MOVED_QUERY)
        assert not secrets_in(repr(reply.headers), MOVED_QUERY, LINKED_QUERY)
        assert not secrets_in(reply.body, MOVED_QUERY, LINKED_QUERY)
    kept = [path for path in run.cache.rglob("*") if path.is_file()]
    assert any(
        LINKED_QUERY.encode() in part for path in kept for part in unpacked(path.read_bytes())
    )
    for path in kept:
        assert not secrets_in(str(path))
        for part in unpacked(path.read_bytes()):
            assert not secrets_in(part, MOVED_QUERY)


@pytest.mark.parametrize("in_url", [True, False], ids=["login in the URL", "login in netrc"])
@pytest.mark.parametrize(("entry", "status"), [("machine 127.0.0.1", 200), ("default", 502)])
def test_netrc(
    tmp_path: Path, start_proxy: StartProxy, entry: str, status: int, in_url: bool
) -> None:
    """Pages get the login of the index's URL, else of netrc, files that of netrc for their host.

    The login for any host is sent to indexes only. Clients are not redirected to a host in netrc.
    """
    (tmp_path / ".netrc").write_text(f'{entry} login {NETRC[0]} password "{NETRC[1]}"')
    wheel = make_wheel("demo")
    with FakeIndex(files_elsewhere=True) as index:
        index.require_auth(*(ROOT if in_url else NETRC))
        index.require_auth(*NETRC, origin="files")
        index.add(wheel)
        url = within(index.url, ROOT) if in_url else index.url
        proxy = start_proxy(index_url=url, download_timeout=0 if status == 200 else 30)
        assert wheel.filename in proxy.get("/index/demo/").text
        reply = proxy.get(f"/index/demo/{wheel.filename}")
        files = [seen for seen in index.requests() if seen.origin == "files"]
    assert (reply.status, reply.body == wheel.data) == (status, status == 200)
    assert files and all(("authorization" in seen.headers) is (status == 200) for seen in files)
