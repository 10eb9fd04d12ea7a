"""Names of an internal index: whatever happens to their owner, no public file takes their place.

The public index offers ``acme-tool`` 99.0, which no client may get: not on a page, not as a file or
core metadata by its URL, not by prefetching. And it learns no internal name: no request for one
arrives there.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import attrs
import pytest

from tests.support import configs
from tests.support.clients import pip_install, uv_install
from tests.support.distributions import make_sdist, make_wheel
from tests.support.fake_index import Behavior, FakeIndex
from tests.support.prefetching import USER_AGENT
from tests.support.process import GUARD_SECONDS
from tests.support.processes import EXPIRED_AT_ONCE, StartProxy
from tests.support.proxy import Proxy

JSON, HTML = "application/vnd.pypi.simple.v1+json", "text/html"
OWN, OWN_SDIST = make_wheel("acme-tool", "1.0"), make_sdist("acme-tool", "1.0")
FAKED, FAKED_SDIST = make_wheel("acme-tool", "99.0"), make_sdist("acme-tool", "99.0")
#: Spellings of the project, each of which a client may send.
NAMES = ["acme-tool", "Acme_Tool", "ACME.tool", "acme--tool", "%61cme-tool", "acme%2Dtool"]
#: The trees of the views; ``public`` has no owner of these names.
TREES = ["/index/", "/simple/", "/both/index/", "/public/index/", "/public/simple/"]


PREFETCH = "/prefetch?python=3.12&platform=manylinux_2_28_x86_64"
SIGN_IN = b"""<!DOCTYPE html><html><head><title>Sign in</title></head><body>
<form action="/login" method="post"><input name="user"><input type="password">
</form></body></html>"""


@pytest.fixture
def public(fake_index: FakeIndex) -> FakeIndex:
    for file in (FAKED, FAKED_SDIST, make_wheel("acme-tool", "1.0", padding=10)):
        fake_index.add(file)
    fake_index.add(make_wheel("demo-app", "1.0", requires=["acme-tool", "demo-lib"]))
    fake_index.add(make_wheel("demo-lib", "1.0"))
    return fake_index


@pytest.fixture
def owner(extra_index: FakeIndex) -> FakeIndex:
    for file in (OWN, OWN_SDIST):
        extra_index.add(file)
    return extra_index


def _config(
    folder: Path, public: FakeIndex, owner: FakeIndex | str, ttl: str, **owned: object
) -> Path:
    return configs.write(
        folder,
        configs.index("public", public, ttl=ttl),
        configs.index("own", owner, ttl=ttl, **owned),
        configs.view("both", "public", "own"),
        configs.view("public", "public"),
    )


@attrs.frozen
class Failure:
    """What the owner does, and the statuses of its page while nothing is cached, and then."""

    fail: Callable[[FakeIndex], object]
    cold: int
    stale: int = 200


def _answers(status: int, body: bytes = b"no") -> Callable[[FakeIndex], None]:
    headers: dict[str, str | None] = {"Content-Type": "text/html"}
    behavior = Behavior(status=status, body=body, headers=headers)
    return lambda index: index.script("/simple/*", behavior)


def _hang(index: FakeIndex) -> None:
    index.script("/simple/*", Behavior(hold=True))


def _lack(index: FakeIndex) -> None:
    index.forget("acme-tool")


FAILURES = {
    "is up": Failure(lambda index: None, 200),
    "refuses connections": Failure(FakeIndex.close, 503),
    "hangs": Failure(_hang, 503),
    "answers 401": Failure(_answers(401), 502),
    "answers 403": Failure(_answers(403), 404),
    "answers 404": Failure(_answers(404), 404, 404),
    "answers 500": Failure(_answers(500), 503),
    "sends no page": Failure(_answers(200, SIGN_IN), 502),
    "sends nothing": Failure(_answers(200, b""), 502),
    "lacks the project": Failure(_lack, 404, 404),
}


def _file_paths(tree: str, name: str) -> list[str]:
    wheel = f"{tree}{name}/{FAKED.filename}"
    return [wheel, f"{wheel}.metadata", f"{tree}{name}/{FAKED_SDIST.filename}"]


def _assert_never_public(proxy: Proxy, public: FakeIndex, *names: str) -> None:
    """Check that no response has a public file of an owned name, and that none was requested.

    The requests are sent together: to one after another a silent owner would not respond in time.
    """
    pages = list(product(TREES, names, (JSON, HTML)))
    files = [
        (method, path)
        for method, tree, name in product(("GET", "HEAD"), TREES, names)
        for path in _file_paths(tree, name)
    ]
    with ThreadPoolExecutor(32) as pool:
        found = pool.map(lambda page: proxy.get(f"{page[0]}{page[1]}/", Accept=page[2]), pages)
        replies = pool.map(lambda file: proxy.request(*file), files)
    for page, reply in zip(pages, found, strict=True):
        assert b"99.0" not in reply.body, page
        assert reply.status in (200, 301, 404, 502, 503), (page, reply)
        assert reply.status != 200 or "public" not in page[0], page
    for file, reply in zip(files, replies, strict=True):
        assert reply.status in (404, 502, 503), (file, reply)
        assert FAKED.data[:40] not in reply.body
    assert not [seen.path for seen in public.requests() if "acme" in seen.path.lower()]


def _page(proxy: Proxy) -> tuple[int, str]:
    reply = proxy.get("/index/acme-tool/", Accept=JSON)
    return reply.status, reply.headers.get("x-cache", "")


@pytest.mark.parametrize("failure", FAILURES)
def test_cold(
    public: FakeIndex, owner: FakeIndex, start_proxy: StartProxy, tmp_path: Path, failure: str
) -> None:
    """While nothing is cached, the owner's failure is an error or an absence, and no 99.0."""
    config = _config(tmp_path, public, owner, "1800", owns=["acme-*"])
    proxy = start_proxy(config=config, download_timeout=2)
    FAILURES[failure].fail(owner)
    assert _page(proxy)[0] == FAILURES[failure].cold
    waits = FAILURES[failure].cold == 503
    _assert_never_public(proxy, public, *(NAMES[:1] if waits else NAMES))
    assert "Traceback" not in proxy.output


@pytest.mark.parametrize("failure", FAILURES)
def test_stale(
    public: FakeIndex, owner: FakeIndex, start_proxy: StartProxy, tmp_path: Path, failure: str
) -> None:
    """A page from before the failure is served; after ``DELETE`` and a restart, still no 99.0."""
    settings = {"cache_dir": tmp_path / "cache", "download_timeout": 2}
    config = _config(tmp_path, public, owner, EXPIRED_AT_ONCE, owns=["acme-*"])
    proxy = start_proxy(config=config, **settings)
    assert _page(proxy)[0] == 200
    assert proxy.get(f"/index/acme-tool/{OWN.filename}").body == OWN.data
    FAILURES[failure].fail(owner)
    assert _page(proxy)[0] == FAILURES[failure].stale
    _assert_never_public(proxy, public, *NAMES[:1])
    proxy.stop()
    proxy = start_proxy(config=config, **settings)
    assert _page(proxy)[0] == FAILURES[failure].stale
    _assert_never_public(proxy, public, *NAMES[:1])
    assert proxy.request("DELETE", "/cache/acme-tool").status == 200
    _assert_never_public(proxy, public, *NAMES[:1])
    owner.script("/simple/*")
    assert "Traceback" not in proxy.output


def test_recovery(
    public: FakeIndex, owner: FakeIndex, start_proxy: StartProxy, tmp_path: Path
) -> None:
    """Clients install the owner's version before an outage, in it from the cache, and after it."""
    own = {"projects": ["acme-*"], "owns": ["acme-*"]}
    proxy = start_proxy(config=_config(tmp_path, public, owner, EXPIRED_AT_ONCE, **own))
    both = proxy.url.replace("/index/", "/both/index/")
    environment, _ = pip_install(tmp_path / "pip", both, "demo-app")
    assert environment.version_of("acme_tool") == "1.0"
    owner.close()
    environment, _ = uv_install(tmp_path / "uv", proxy.url, "demo-app")
    assert environment.version_of("acme_tool") == "1.0"
    assert proxy.request("DELETE", "/cache").status == 200
    assert proxy.get(f"/index/acme-tool/{OWN.filename}").status == 503
    owner.reopen()
    end = time.monotonic() + GUARD_SECONDS
    while _page(proxy)[0] != 200:
        assert time.monotonic() < end
    environment, _ = uv_install(tmp_path / "after", proxy.url, "demo-app")
    assert environment.version_of("acme_tool") == "1.0"
    public_url = proxy.url.replace("/index/", "/public/index/")
    with pytest.raises(AssertionError, match="acme.tool"):
        uv_install(tmp_path / "public", public_url, "demo-app")
    _assert_never_public(proxy, public, *NAMES[:1])


def test_owned_later(
    public: FakeIndex, owner: FakeIndex, start_proxy: StartProxy, tmp_path: Path
) -> None:
    """What was cached while no index owned the name is served to no client afterwards."""
    settings = {"cache_dir": tmp_path / "cache"}
    before = start_proxy(config=_config(tmp_path, public, owner, "1800"), **settings)
    for path in _file_paths("/index/", "acme-tool"):
        assert before.get(path).status == 200
    for tree in TREES:
        assert b"99.0" in before.get(f"{tree}acme-tool/", Accept=JSON).body
    before.stop()
    public.clear_requests()
    config = _config(tmp_path, public, owner, "1800", owns=["acme-*"])
    for fail in (owner.close, owner.reopen):
        fail()
        after = start_proxy(config=config, **settings)
        _assert_never_public(after, public, *NAMES)
        after.stop()
        assert "Traceback" not in after.output
    restricted = _config(tmp_path, public, owner, "1800", projects=["acme-*"], owns=["acme-*"])
    again = start_proxy(config=restricted, **settings)
    assert _page(again)[0] == 200
    _assert_never_public(again, public, *NAMES)


@pytest.mark.parametrize("up", [True, False])
def test_prefetching(
    public: FakeIndex, owner: FakeIndex, start_proxy: StartProxy, tmp_path: Path, up: bool
) -> None:
    """Neither a requirement of a public file nor a lock makes proxpi request the public index."""
    own = {"projects": ["acme-*"], "owns": ["acme-*"]}
    proxy = start_proxy(config=_config(tmp_path, public, owner, "1800", **own))
    if not up:
        owner.close()
    for tree in ("/index/", "/both/index/", "/public/index/"):
        page = proxy.request("GET", f"{tree}demo-app/", {"User-Agent": USER_AGENT, "Accept": JSON})
        assert page.status == 200
        wheel = f"{tree}demo-app/demo_app-1.0-py3-none-any.whl"
        for path in (f"{wheel}.metadata", wheel):
            assert proxy.request("GET", path, {"User-Agent": USER_AGENT}).status == 200
        lib = f"{tree}demo-lib/"
        assert proxy.request("GET", lib, {"User-Agent": USER_AGENT, "Accept": JSON}).status == 200
    pin = "acme-tool==99.0"
    locks = (f"{pin}\ndemo-lib==1.0\n", f"{pin} --hash=sha256:{FAKED.sha256}\n")
    for lock, view in product(locks, ("default", "both", "public")):
        reply = proxy.request("POST", f"{PREFETCH}&view={view}", body=lock.encode())
        *lines, _ = [json.loads(line) for line in reply.text.splitlines()]
        outcomes = {line["outcome"] for line in lines if "acme" in line["file"]}
        assert outcomes == {"failed"}, reply.text
    _assert_never_public(proxy, public, *NAMES[:1])
    public.wait_until_quiet()
    assert not [seen.path for seen in public.requests() if "acme" in seen.path.lower()]
    assert "Traceback" not in proxy.output


def _move(folder: Path) -> None:
    folder.rename(folder.with_name("moved"))


def _replace_with_file(folder: Path) -> None:
    _move(folder)
    folder.write_text("no folder")


def _dangle(folder: Path) -> None:
    _move(folder)
    folder.symlink_to("nothing")


def _empty(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


#: What happens to a folder that owns names, and the status of a page that was not cached.
FOLDERS: dict[str, tuple[Callable[[Path], object], int]] = {
    "is there": (lambda folder: None, 200),
    "is gone": (_move, 502),
    "is a file": (_replace_with_file, 502),
    "is a broken link": (_dangle, 502),
    "is empty": (_empty, 404),
}


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("happens", FOLDERS)
def test_folder(
    public: FakeIndex, start_proxy: StartProxy, tmp_path: Path, happens: str, kept: bool
) -> None:
    """A folder that owns names may go or be empty: no public file takes the place of its files."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for file in (OWN, OWN_SDIST):
        (folder / file.filename).write_bytes(file.data)
    url = f"file://{folder}/"
    proxy = start_proxy(config=_config(tmp_path, public, url, EXPIRED_AT_ONCE, owns=["acme-*"]))
    if kept:
        assert _page(proxy)[0] == 200
        assert proxy.get(f"/index/acme-tool/{OWN.filename}").body == OWN.data
    happen, cold = FOLDERS[happens]
    happen(folder)
    assert _page(proxy)[0] == (200 if kept and cold == 502 else cold)
    _assert_never_public(proxy, public, *NAMES[:1])
    assert "Traceback" not in proxy.output


def test_project_list(
    public: FakeIndex, owner: FakeIndex, start_proxy: StartProxy, tmp_path: Path
) -> None:
    """The list of a view has an owned name only if the owner lists it, and is in the view."""
    public.add(make_wheel("acme-squatted", "1.0"))
    proxy = start_proxy(config=_config(tmp_path, public, owner, "1800", owns=["acme-*"]))
    for tree in TREES:
        listed = json.loads(proxy.get(tree, Accept=JSON).body)["projects"]
        names = {project["name"] for project in listed}
        own = set() if "public" in tree else {"acme-tool"}
        assert names == {"demo-app", "demo-lib"} | own, tree
