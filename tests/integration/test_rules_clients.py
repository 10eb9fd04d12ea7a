"""Rules and real clients: they resolve as with their own options, and get no excluded file."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.support import configs
from tests.support.clients import isolated_environment, pip_install, run, uv_install
from tests.support.distributions import Distribution, make_sdist, make_wheel
from tests.support.fake_index import FakeIndex
from tests.support.process import GUARD_SECONDS
from tests.support.processes import StartProxy
from tests.support.proxy import Proxy, Reply

JSON = "application/vnd.pypi.simple.v1+json"
PREFETCH = "/prefetch?python=3.12&platform=manylinux_2_28_x86_64"
UV = str(Path(sys.executable).with_name("uv"))
EDGE = datetime(2026, 3, 1, 12, tzinfo=UTC)
REQUIREMENTS = ("demo-app", "demo-edge", "demo-pre", "demo-yanked")


@attrs.frozen
class Listed:
    """A file of the tree, and how long after the edge it was uploaded (before, if negative)."""

    file: Distribution
    after: timedelta
    keys: Mapping[str, Any] = attrs.field(factory=dict)

    def upload_time(self, edge: datetime) -> str:
        return (edge + self.after).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _tree() -> Iterator[Listed]:
    """Versions with wheels and sdists of different days, extras, markers and pre-releases."""

    def days(number: float) -> timedelta:
        return timedelta(days=number)

    one = timedelta(microseconds=1)
    app = ["demo-lib[fast]>=1", "demo-windows; sys_platform == 'win32'"]
    extras = ["fast", "slow"]
    lib = ["demo-fast; extra == 'fast'", "demo-slow; extra == 'slow'"]
    yield Listed(make_wheel("demo-app", "1.0", requires=app), days(-90))
    yield Listed(make_wheel("demo-app", "2.0", requires=[*app, "demo-old<2"]), days(-10))
    yield Listed(make_wheel("demo-app", "3.0rc1", requires=app), days(-5))
    yield Listed(make_wheel("demo-app", "3.0", requires=["demo-lib[slow]>=2"]), days(10))
    # The wheel of 1.5 came later than its sdist, and the sdist of 1.0 years later.
    yield Listed(make_wheel("demo-lib", "1.0", requires=lib, extras=extras), days(-90))
    yield Listed(make_sdist("demo-lib", "1.0", requires=lib), days(20))
    yield Listed(make_sdist("demo-lib", "1.5", requires=["demo-fast"]), days(-40))
    yield Listed(make_wheel("demo-lib", "1.5", requires=lib, extras=extras), days(5))
    yield Listed(make_wheel("demo-lib", "2.0", requires=lib, extras=extras), days(9))
    for project in ("demo-fast", "demo-slow", "demo-windows", "demo-old"):
        yield Listed(make_wheel(project, "1.0"), days(-100))
        yield Listed(make_wheel(project, "1.1"), days(-1))
        yield Listed(make_wheel(project, "2.0"), days(2))
    for version in ("1.0a1", "1.0rc1"):
        yield Listed(make_wheel("demo-pre", version), days(-50 if "a" in version else -2))
    yield Listed(make_wheel("demo-pre", "1.0"), days(11))
    yield Listed(make_wheel("demo-yanked", "1.0"), days(-50))
    yield Listed(make_wheel("demo-yanked", "1.1"), days(-20), {"yanked": "broken"})
    yield Listed(make_wheel("demo-edge", "0.1"), days(-90))
    yield Listed(make_wheel("demo-edge", "1.0"), -one)
    yield Listed(make_wheel("demo-edge", "2.0"), 0 * one)
    yield Listed(make_wheel("demo-edge", "3.0"), one)
    yield Listed(make_sdist("demo-edge", "3.0"), timedelta(seconds=1))


def add_tree(
    index: FakeIndex,
    edge: datetime = EDGE,
    *,
    keep: Callable[[Distribution], bool] = lambda file: True,
) -> None:
    for listed in _tree():
        if keep(listed.file):
            index.add(listed.file, upload_time=listed.upload_time(edge), **listed.keys)


def uv_resolves(folder: Path, index_url: str, *options: str) -> list[str]:
    """Return what uv pins, with the digests of all files of each version that it sees."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "requirements.in").write_text("\n".join(REQUIREMENTS))
    command = [UV, "--no-config", "--no-cache", "pip", "compile", "--quiet", "--no-header"]
    command += ["--generate-hashes", "--no-annotate", "--default-index", index_url, *options]
    command += ["--output-file", "requirements.txt", "requirements.in"]
    run(command, folder, isolated_environment(folder, UV_PYTHON=sys.executable, TZ="UTC"))
    return (folder / "requirements.txt").read_text().splitlines()


def pip_resolves(
    pip: tuple[str, ...], folder: Path, index_url: str, *options: str
) -> list[tuple[str, str]]:
    """Return the files that pip would install, with their digests."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [*pip, "install", "--dry-run", "--ignore-installed"]
    command += ["--no-cache-dir", "--no-input", "--quiet"]
    command += ["--report", "report.json", "--index-url", index_url, *options, *REQUIREMENTS]
    run(command, folder, isolated_environment(folder, TZ="UTC"))
    installs = json.loads((folder / "report.json").read_text())["install"]
    found = [each["download_info"] for each in installs]
    return sorted(
        (each["url"].rpartition("/")[2], each["archive_info"]["hashes"]["sha256"]) for each in found
    )


def _assert_resolves_alike(
    pip_command: tuple[str, ...],
    folder: Path,
    proxy: Proxy,
    index: FakeIndex,
    *,
    uv: tuple[str, ...],
    pip: tuple[str, ...],
) -> None:
    """Check that clients resolve through proxpi as they do directly, with these options."""
    through = uv_resolves(folder / "uv", proxy.url)
    assert through == uv_resolves(folder / "uv-alone", index.url, *uv)
    files = pip_resolves(pip_command, folder / "pip", proxy.url)
    assert files == pip_resolves(pip_command, folder / "pip-alone", index.url, *pip)


#: ``exclude-newer``, and the option of pip, which takes a date for its beginning, if it differs.
DATES = {
    "2026-02-01T00:00:00Z": "",
    "2026-02-28": "2026-03-01T00:00:00Z",
    "2026-03-01T12:00:00Z": "",
    "2026-03-01T13:00:00.001+01:00": "",
    "2026-03-01T12:00:01Z": "",
    "2026-03-10T12:00:00.001Z": "",
}


@pytest.mark.parametrize("date", DATES)
def test_dates(
    fake_index: FakeIndex,
    start_proxy: StartProxy,
    tmp_path: Path,
    new_pip: tuple[str, ...],
    date: str,
) -> None:
    """With ``exclude-newer`` at proxpi, uv and pip resolve as with their own option.

    proxpi requests no excluded file, nor its core metadata, in the background either.
    """
    add_tree(fake_index)
    proxy, moment = start_proxy(fake_index, exclude_newer=date), DATES[date] or date
    _assert_resolves_alike(
        new_pip,
        tmp_path,
        proxy,
        fake_index,
        uv=("--exclude-newer", date),
        pip=("--uploaded-prior-to", moment),
    )
    excluded = {
        listed.file.filename
        for listed in _tree()
        if EDGE + listed.after >= datetime.fromisoformat(moment)
    }
    requested = {
        seen.path.removesuffix(".metadata").rpartition("/")[2]
        for seen in fake_index.wait_until_quiet()
        if seen.headers["user-agent"].startswith("proxpi")
    }
    assert excluded and not excluded & requested


@pytest.mark.parametrize("hours", [-1, 1])
def test_ages(
    fake_index: FakeIndex,
    start_proxy: StartProxy,
    tmp_path: Path,
    new_pip: tuple[str, ...],
    hours: int,
) -> None:
    """With an age at proxpi, uv and pip resolve as with the same age as their own option."""
    add_tree(fake_index, datetime.now(UTC) - timedelta(days=7, hours=hours))
    config = configs.write(
        tmp_path, configs.index("public", fake_index), configs.rules(exclude_newer="7 days")
    )
    _assert_resolves_alike(
        new_pip,
        tmp_path,
        start_proxy(config=config),
        fake_index,
        uv=("--exclude-newer", "7 days"),
        pip=("--uploaded-prior-to", "P7D"),
    )


def test_exceptions(fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path) -> None:
    """A project in ``exclude-newer-except`` resolves as with the same exception of uv's."""
    add_tree(fake_index)
    date = "2026-03-01T12:00:00Z"
    config = configs.write(
        tmp_path,
        configs.index("public", fake_index),
        configs.rules(exclude_newer=date, exclude_newer_except=["demo-e*", "Demo.Fast"]),
    )
    excepted = [f"--exclude-newer-package={name}=2100-01-01" for name in ("demo-edge", "demo-fast")]
    through = uv_resolves(tmp_path / "uv", start_proxy(config=config).url)
    alone = uv_resolves(tmp_path / "alone", fake_index.url, "--exclude-newer", date, *excepted)
    assert through == alone


_SDIST = make_sdist("demo-edge", "3.0")
_FAST = make_wheel("demo-fast", "2.0")
_ALLOWED = ["Demo_App<3", "demo-lib", "demo-f*", "demo-slow", "demo-old", "demo-pre", "demo-edge"]
#: Rules, and the files that an index without rules would have to lack instead.
SELECTIONS: dict[str, tuple[dict[str, Any], Callable[[Distribution], bool]]] = {
    "names": ({"deny": ["Demo_S*"]}, lambda file: file.project == "demo-slow"),
    "versions": (
        {"deny": ["demo-app==3.0", "demo-edge>=3", "demo-lib>1.0,<2"]},
        lambda file: (
            (file.project, file.version)
            in {("demo-app", "3.0"), ("demo-edge", "3.0"), ("demo-lib", "1.5")}
        ),
    ),
    "pre-releases": (
        {"deny": ["demo-pre>1.0a1,<=1.0", "demo-app>=3.0rc1"]},
        lambda file: (
            (file.project == "demo-pre" and file.version != "1.0a1")
            or (file.project == "demo-app" and file.version.startswith("3"))
        ),
    ),
    "digests": (
        {"deny": [f"sha256:{_SDIST.sha256}", f"sha256:{_FAST.sha256}"]},
        lambda file: file.sha256 in {_SDIST.sha256, _FAST.sha256},
    ),
    "allow": (
        {"allow": [*_ALLOWED, "demo-yanked==1.0"]},
        lambda file: (
            (file.project == "demo-app" and file.version.startswith("3"))
            or (file.project == "demo-yanked" and file.version != "1.0")
            or file.project == "demo-windows"
        ),
    ),
}


@pytest.mark.parametrize("selection", SELECTIONS)
def test_selections(
    fake_index: FakeIndex,
    new_pip: tuple[str, ...],
    extra_index: FakeIndex,
    start_proxy: StartProxy,
    tmp_path: Path,
    selection: str,
) -> None:
    """With ``deny`` or ``allow``, clients resolve as from an index that lacks those files."""
    values, lacks = SELECTIONS[selection]
    add_tree(fake_index)
    add_tree(extra_index, keep=lambda file: not lacks(file))
    config = configs.write(tmp_path, configs.index("public", fake_index), configs.rules(**values))
    proxy = start_proxy(config=config)
    _assert_resolves_alike(new_pip, tmp_path, proxy, extra_index, uv=(), pip=())


EVIL = make_wheel("evil", "1.0", padding=50_000)
EVIL_SDIST = make_sdist("evil", "1.0")
GOOD = make_wheel("good", "1.0", padding=50_000)
GOOD_SDIST = make_sdist("good", "1.0")
PAD = {version: make_wheel("left-pad", version) for version in ("1.1", "1.2", "1.3")}
MARKED = make_wheel("marked", "1.0", padding=50_000)
#: The lines of the deny file, each with the files that it excludes.
DENIED = {
    "evil": [EVIL, EVIL_SDIST],
    "left-pad>=1.2,<1.3": [PAD["1.2"]],
    f"sha256:{MARKED.sha256}": [MARKED],
}
EXCLUDED = [(line, file) for line, files in DENIED.items() for file in files]
#: By which a URL can name a file: {p} is its project, {f} its name, and {q} that in quotes.
SPELLINGS = [
    *("/index/{p}/{f}", "/simple/{p}/{f}", "/other/index/{p}/{f}", "/other/simple/{p}/{f}"),
    *("/index/{P}/{f}", "/index/%{p0}{p1}/{f}", "//index//{p}//{f}", "/index/{p}/{q}"),
    *("/index/{p}/{f}?x=1", "/index/{p}/{f}?", "/index/{p}/{f}/", "/index/{p}/{f}//"),
    *("/index/./{p}/{f}", "/index/x/../{p}/{f}", "/index/%2e/{p}/{f}", "/index/{p}%2f{f}"),
    *("/index/{p}/./{f}", "/index/{p}/x%2f..%2f{f}", "/index/{p}/{f}%20", "/index/{p}/{f}%00"),
    *("/index/{p}/{F}", "/index/{p};x/{f}", "/index/{p}/{f};x", "/%69ndex/{p}/{f}"),
    *("/index/{p}./{f}", "/index/-{p}/{f}", "/index/unknown/{f}", "/INDEX/{p}/{f}"),
    *("http://127.0.0.1/index/{p}/{f}", "/other//index/{p}/{f}", "/OTHER/index/{p}/{f}"),
    *("/default/index/{p}/{f}", "/index/{p}/{f}.metadata", "/other/index/{p}/{f}.metadata"),
    *("/index/{p}/{q}%2emetadata", "/index/{P}/{f}.metadata", "/index/{p}/{f}.metadata?x"),
]
#: Header fields by which a client might get bytes, or a word that it has the right ones.
FIELDS: list[dict[str, str]] = [
    {},
    {"Range": "bytes=0-99"},
    {"Range": "bytes=-100"},
    {"Range": "bytes=0-9,20-29", "If-Range": '"{sha256}"'},
    {"If-None-Match": '"{sha256}"'},
    {"If-None-Match": "*"},
    {"If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"},
    {"Accept-Encoding": "gzip", "Cache-Control": "no-cache"},
]


def _spelled(spelling: str, file: Distribution) -> str:
    project, filename = file.project, file.filename
    return spelling.format(
        p=project,
        P=project.upper().replace("-", "._"),
        p0=f"{ord(project[0]):02x}",
        p1=project[1:],
        f=filename,
        F=filename.upper(),
        q="".join(f"%{byte:02X}" for byte in filename.encode()),
    )


def _requests(file: Distribution) -> Iterator[tuple[str, str, dict[str, str]]]:
    """The requests for a file: each spelling, and each header field with the usual ones."""
    for spelling in SPELLINGS:
        yield "GET", _spelled(spelling, file), {}
        yield "HEAD", _spelled(spelling, file), {}
    for path in (
        f"/index/{file.project}/{file.filename}",
        f"/other/simple/{file.project}/{file.filename}",
    ):
        for ending in ("", ".metadata"):
            for fields in FIELDS:
                named = {name: value.format(sha256=file.sha256) for name, value in fields.items()}
                yield "GET", path + ending, named
                yield "HEAD", path + ending, named


def _assert_excluded(reply: Reply, rule: str, head: bool) -> None:
    """Check that a response is 403, with one sentence that names the rule, and nothing else."""
    assert reply.status == 403, reply
    assert reply.headers["content-type"].startswith("text/plain")
    assert not {"location", "etag", "accept-ranges", "content-range"} & {*reply.headers}
    if not head:
        sentence, end = reply.text[:-1], reply.text[-1:]
        assert (end, sentence.count("\n")) == ("\n", 0)
        assert re.fullmatch(rf'\S+ is excluded by .+"{re.escape(rule)}"\.', sentence), sentence


def _assert_out_of_reach(proxy: Proxy, index: FakeIndex) -> None:
    """Check that an excluded file is 403 in each way in which a client gets an allowed one."""
    usual = [proxy.request(*request).status for request in _requests(GOOD)]
    assert {200, 304} <= {*usual} or {302, 304} <= {*usual}
    for rule, file in EXCLUDED:
        for (method, path, fields), status in zip(_requests(file), usual, strict=True):
            reply = proxy.request(method, path, fields)
            where = f"{method} {path} {fields} is {reply}; of an allowed file it is {status}"
            if file.metadata is None and "metadata" in path:
                assert reply.status in (403, 404), where
            elif status in (200, 206, 302, 304, 416):
                assert reply.status == 403, where
                _assert_excluded(reply, rule, method == "HEAD")
            else:
                assert reply.status in (403, status), where
            assert file.data[:40] not in reply.body, where
            assert index.files_url not in reply.headers.get("location", ""), where


@pytest.fixture
def offered(fake_index: FakeIndex) -> FakeIndex:
    """An index that offers excluded files and others."""
    for file in (EVIL, EVIL_SDIST, GOOD, GOOD_SDIST, MARKED, *PAD.values()):
        fake_index.add(file)
    return fake_index


def _two_views(folder: Path, index: FakeIndex, **rules: object) -> Path:
    tables = [configs.index("public", index), configs.view("other", "public")]
    return configs.write(folder, *tables, configs.rules(**rules))


#: How files get to clients: settings of a proxpi.
MODES: dict[str, dict[str, object]] = {
    "waits": {},
    "redirects": {"download_timeout": 0},
    "streams": {"download_timeout": 0, "slow_download": "stream"},
    "no cache": {"cache_size": 0},
    "no cache, streams": {"cache_size": 0, "slow_download": "stream"},
}


@pytest.mark.parametrize("mode", MODES)
def test_never_cached(
    offered: FakeIndex, start_proxy: StartProxy, tmp_path: Path, mode: str
) -> None:
    """An excluded file is 403 by any URL and any header, and is not requested upstream."""
    config = _two_views(tmp_path, offered, deny=[*DENIED])
    proxy = start_proxy(config=config, **MODES[mode])
    _assert_out_of_reach(proxy, offered)
    requested = {seen.path.rpartition("/")[2] for seen in offered.wait_until_quiet()}
    assert not requested & {file.filename for _, file in EXCLUDED}
    assert "Traceback" not in proxy.output


def test_folder(offered: FakeIndex, start_proxy: StartProxy, tmp_path: Path) -> None:
    """An excluded file of a folder is 403 as one of a web server is."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for file in (EVIL, EVIL_SDIST, GOOD, GOOD_SDIST, MARKED, *PAD.values()):
        (folder / file.filename).write_bytes(file.data)
    config = configs.write(
        tmp_path,
        configs.index("own", f"file://{folder}/"),
        configs.view("other", "own"),
        configs.rules(deny=[*DENIED]),
    )
    proxy = start_proxy(config=config)
    _assert_out_of_reach(proxy, offered)
    assert "Traceback" not in proxy.output


def _wait_for_status(proxy: Proxy, path: str, status: int) -> Reply:
    """Request a path until it has a status, since proxpi looks at deny files now and then."""
    end = time.monotonic() + GUARD_SECONDS
    while (reply := proxy.get(path)).status != status:
        assert time.monotonic() < end, reply
    return reply


def test_cached_beforehand(offered: FakeIndex, start_proxy: StartProxy, tmp_path: Path) -> None:
    """A cached file is 403 once a line of a deny file excludes it, and a hit after that line."""
    denied = tmp_path / "deny.txt"
    denied.write_text("# nothing yet\n")
    proxy = start_proxy(config=_two_views(tmp_path, offered, deny_files=[str(denied)]))
    paths = [f"/index/{file.project}/{file.filename}" for _, file in EXCLUDED]
    for path in (*paths, *(path.replace("/index/", "/other/simple/") for path in paths)):
        for _ in range(3):
            assert proxy.get(path).status == 200
    for _, file in EXCLUDED:
        if file.metadata is not None:
            assert proxy.get(f"/index/{file.project}/{file.filename}.metadata").status == 200
    denied.write_text("".join(f"{line}\n" for line in DENIED))
    for path in paths:
        _wait_for_status(proxy, path, 403)
    _assert_out_of_reach(proxy, offered)
    assert f"{denied}, line 1: " in proxy.get(paths[0]).text
    denied.write_text("")
    for path, (_, file) in zip(paths, EXCLUDED, strict=True):
        reply = _wait_for_status(proxy, path, 200)
        assert (reply.body, reply.headers["x-cache"]) == (file.data, "HIT")
    assert "Traceback" not in proxy.output


def test_restarted(offered: FakeIndex, start_proxy: StartProxy, tmp_path: Path) -> None:
    """Rules that are new at a restart exclude what is cached, also in an outage."""
    cache, path = tmp_path / "cache", f"/index/left-pad/{PAD['1.2'].filename}"
    before = start_proxy(config=_two_views(tmp_path, offered), cache_dir=cache)
    pages = {
        accept: before.get("/index/left-pad/", Accept=accept) for accept in (JSON, "text/html")
    }
    assert before.get(path).status == before.get(f"{path}.metadata").status == 200
    before.stop()
    offered.close()
    after = start_proxy(config=_two_views(tmp_path, offered, deny=[*DENIED]), cache_dir=cache)
    for accept, old in pages.items():
        tag = {"Accept": accept, "If-None-Match": old.headers["etag"]}
        reply = after.request("GET", "/index/left-pad/", tag)
        assert (reply.status, "1.2" in old.text, "1.2" in reply.text) == (200, True, False)
        assert reply.headers["etag"] != old.headers["etag"]
    for ending in ("", ".metadata"):
        _assert_excluded(after.get(path + ending), "left-pad>=1.2,<1.3", head=False)
    after.stop()
    again = start_proxy(config=_two_views(tmp_path, offered), cache_dir=cache)
    assert again.get("/index/left-pad/", Accept=JSON).body == pages[JSON].body
    assert again.get(path).headers["x-cache"] == "HIT"


def test_pages(offered: FakeIndex, start_proxy: StartProxy, tmp_path: Path) -> None:
    """Pages lack excluded files and their versions; the project list has each project."""
    plain = start_proxy(offered)
    proxy = start_proxy(config=_two_views(tmp_path, offered, deny=[*DENIED]))
    for root in ("/index/", "/simple/", "/other/index/", "/other/simple/"):
        page = json.loads(proxy.get(f"{root}left-pad/", Accept=JSON).body)
        assert page["versions"] == ["1.1", "1.3"]
        assert [file["filename"] for file in page["files"]] == [
            PAD[version].filename for version in page["versions"]
        ]
        html = proxy.get(f"{root}left-pad/").text
        assert (PAD["1.2"].filename in html, PAD["1.3"].filename in html) == (False, True)
        for project in ("evil", "marked"):
            page = json.loads(proxy.get(f"{root}{project}/", Accept=JSON).body)
            assert (page["name"], page["files"], page["versions"]) == (project, [], [])
        for accept in (JSON, "text/html"):
            for path in ("", "good/"):
                answer = proxy.get(root + path, Accept=accept)
                usual = plain.get(f"/index/{path}", Accept=accept)
                assert (answer.body, answer.headers["etag"]) == (usual.body, usual.headers["etag"])


def _uv(folder: Path, proxy: Proxy, *arguments: str) -> str:
    """Run uv in a project that requires three of the files."""
    folder.mkdir(parents=True, exist_ok=True)
    required = json.dumps(["evil==1.0", "good==1.0", "left-pad==1.2"])
    (folder / "pyproject.toml").write_text(
        f'[project]\nname = "consumer"\nversion = "0"\nrequires-python = ">=3.11"\n'
        f"dependencies = {required}\n"
    )
    environment = isolated_environment(
        folder / "home", UV_DEFAULT_INDEX=proxy.url, UV_PYTHON=sys.executable
    )
    return run([UV, "--no-config", "--no-cache", *arguments], folder, environment)


def test_locks(offered: FakeIndex, start_proxy: StartProxy, tmp_path: Path) -> None:
    """No lock gets an excluded file: of uv, of pip with digests or URLs, or by prefetching."""
    denied = tmp_path / "deny.txt"
    denied.write_text("")
    proxy = start_proxy(config=_two_views(tmp_path, offered, deny_files=[str(denied)]))
    locked, cached = tmp_path / "locked", f"/index/evil/{EVIL.filename}"
    _uv(locked, proxy, "lock")
    requirements = _uv(locked, proxy, "export", "--frozen", "--no-emit-project", "--quiet")
    pylock = _uv(locked, proxy, "export", "--frozen", "--quiet", "--format", "pylock.toml")
    _uv(locked, proxy, "sync", "--frozen", "--no-install-project")
    assert proxy.get(cached).status == 200
    denied.write_text("evil\nleft-pad==1.2\n")
    _wait_for_status(proxy, cached, 403)
    offered.wait_until_quiet()
    offered.clear_requests()

    with pytest.raises(AssertionError, match="403 Forbidden"):
        _uv(locked, proxy, "sync", "--frozen", "--no-install-project", "--reinstall")
    with pytest.raises(AssertionError, match="evil"):
        _uv(locked, proxy, "lock", "--upgrade")
    pinned = tmp_path / "requirements.txt"
    links = [
        f"{file.project} @ {proxy.origin}/index/{file.project}/{file.filename}"
        for file in (EVIL, PAD["1.2"])
    ]
    pins = {
        "digests": [requirements],
        "a URL": [f"{links[0]}#sha256={EVIL.sha256}"],
        "a URL with digests": [f"{links[1]} --hash=sha256:{PAD['1.2'].sha256}"],
    }
    for name, lines in pins.items():
        pinned.write_text("\n".join(lines))
        for install, words in ((pip_install, "403|No matching"), (uv_install, "403|unsatisfiable")):
            with pytest.raises(AssertionError, match=words):
                install(tmp_path / f"{install.__name__} {name}", proxy.url, "-r", str(pinned))
    for lock in ((locked / "uv.lock").read_text(), requirements, pylock):
        reply = proxy.request("POST", PREFETCH, body=lock.encode())
        *outcomes, _ = [json.loads(line) for line in reply.text.splitlines()]
        named = {outcome["file"]: outcome["outcome"] for outcome in outcomes}
        assert named.pop(GOOD.filename) in ("cached", "fetched")
        assert {*named.values()} == {"failed"}, outcomes
    requested = {seen.path.rpartition("/")[2] for seen in offered.wait_until_quiet()}
    assert not requested & {EVIL.filename, EVIL_SDIST.filename, PAD["1.2"].filename}


def test_comes_of_age(fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path) -> None:
    """A page is fresh until a file comes of age, and lists that file then, without a request."""
    young = datetime.now(UTC) - timedelta(days=7) + timedelta(seconds=6)
    fake_index.add(make_wheel("demo-app", "1.0"), upload_time="2026-01-01T00:00:00Z")
    wheel = make_wheel("demo-app", "2.0")
    fake_index.add(wheel, upload_time=young.strftime("%Y-%m-%dT%H:%M:%S.%fZ"))
    proxy = start_proxy(fake_index, exclude_newer="7 days")
    path = f"/index/demo-app/{wheel.filename}"
    page = proxy.get("/index/demo-app/", Accept=JSON)
    assert (json.loads(page.body)["versions"], proxy.get(path).status) == (["1.0"], 403)
    assert int(page.headers["cache-control"].removeprefix("public, max-age=")) <= 6
    _wait_for_status(proxy, path, 200)
    later = proxy.request(
        "GET", "/index/demo-app/", {"Accept": JSON, "If-None-Match": page.headers["etag"]}
    )
    assert (later.status, json.loads(later.body)["versions"]) == (200, ["1.0", "2.0"])
    assert len([seen for seen in fake_index.requests() if not seen.is_file]) == 1


#: ``exclude-newer-unknown``, and the versions that are listed then.
UNKNOWN: dict[str | None, set[str]] = {
    None: {"1.0", "3.0", "4.0"},
    "keep": {"1.0", "2.0", "3.0", "4.0"},
    "exclude": {"1.0"},
}


@pytest.mark.parametrize("unknown", UNKNOWN)
def test_unknown_times(
    fake_index: FakeIndex,
    extra_index: FakeIndex,
    start_proxy: StartProxy,
    tmp_path: Path,
    unknown: str | None,
) -> None:
    """Files without upload time are kept if their index states none at all, unless it is set."""
    fake_index.add(make_wheel("demo-app", "1.0"), upload_time="2026-01-01T00:00:00Z")
    fake_index.add(make_wheel("demo-app", "2.0"), upload_time=None)
    for version in ("3.0", "4.0"):
        extra_index.add(make_wheel("demo-app", version), upload_time=None)
    config = configs.write(
        tmp_path,
        configs.index("public", fake_index),
        configs.index("own", extra_index),
        configs.rules(
            exclude_newer="7 days", **({"exclude_newer_unknown": unknown} if unknown else {})
        ),
    )
    proxy = start_proxy(config=config)
    page = json.loads(proxy.get("/index/demo-app/", Accept=JSON).body)
    assert {*page["versions"]} == UNKNOWN[unknown]
    assert {file["filename"].split("-")[1] for file in page["files"]} == UNKNOWN[unknown]
