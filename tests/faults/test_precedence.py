"""An outage is no dependency confusion: what the first index fails to say, no other one says."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs
import pytest

from tests.support.behavior import Behavior
from tests.support.distributions import make_wheel
from tests.support.fake_index import FakeIndex
from tests.support.processes import EXPIRED_AT_ONCE, StartProxy
from tests.support.proxy import Proxy, Reply

OURS, THEIRS = "shared-1.0-py3-none-any.whl", "shared-9.9-py3-none-any.whl"
ALONE = "only_theirs-1.0-py3-none-any.whl"
PATHS = ["/index/shared/", "/index/shared/?format=application/vnd.pypi.simple.v1+json", "/index/"]
LOGIN = ("user", "s3cret-w0rd")


@attrs.frozen
class Failing:
    """How the first index fails, and what a client gets if there is nothing to fall back on."""

    name: str
    behavior: Behavior | None
    status: int

    def begin(self, index: FakeIndex) -> None:
        """Let it fail."""
        if self.behavior is None:
            index.close()
        else:
            index.script("/simple/*", self.behavior)


FAILING = [
    Failing("refused", None, 503),
    Failing("503", Behavior(status=503), 503),
    Failing("401", Behavior(status=401), 502),
]


@pytest.fixture
def both(fake_index: FakeIndex, extra_index: FakeIndex) -> tuple[FakeIndex, FakeIndex]:
    """Two indexes that both have a project; the second one has a higher version of it."""
    fake_index.add(make_wheel("shared", "1.0"))
    extra_index.add(make_wheel("shared", "9.9"))
    extra_index.add(make_wheel("only-theirs"))
    return fake_index, extra_index


def _start(
    start: StartProxy, both: tuple[FakeIndex, FakeIndex], folder: Path, **settings: str
) -> Proxy:
    first, second = both
    return start(
        first,
        index_ttl=EXPIRED_AT_ONCE,
        extra_index_urls=second.url,
        extra_index_ttls=EXPIRED_AT_ONCE,
        cache_dir=folder / "cache",
        **settings,
    )


def _is_old(reply: Reply, old: Reply) -> bool:
    stale = (reply.status, reply.headers.get("x-cache")) == (200, "STALE")
    return stale and reply.body == old.body


@pytest.mark.parametrize("failing", FAILING, ids=lambda failing: failing.name)
def test_the_second_index_never_answers_alone(
    both: tuple[FakeIndex, FakeIndex], start_proxy: StartProxy, tmp_path: Path, failing: Failing
) -> None:
    """With nothing cached an error, for files, too; else the page of both, even after a restart."""
    proxy = _start(start_proxy, both, tmp_path)
    old = [proxy.get(path) for path in PATHS]
    assert OURS in old[0].text and THEIRS in old[0].text
    assert "only-theirs" in old[2].text
    failing.begin(both[0])
    with ThreadPoolExecutor(2) as pool:
        cold = list(pool.map(proxy.get, ["/index/only-theirs/", f"/index/only-theirs/{ALONE}"]))
    assert [reply.status for reply in cold] == [failing.status] * 2
    assert both[1].files_asked() == []
    assert all(map(_is_old, [proxy.get(path) for path in PATHS], old))
    proxy.stop(signal.SIGKILL)
    again = _start(start_proxy, both, tmp_path)
    assert all(map(_is_old, [again.get(path) for path in PATHS], old))


def test_an_index_that_lacks_a_project_is_no_failing_one(
    both: tuple[FakeIndex, FakeIndex], start_proxy: StartProxy, tmp_path: Path
) -> None:
    """404, 410, and 403 to one without credentials mean "not here": the other one answers."""
    proxy = _start(start_proxy, both, tmp_path)
    for status in (404, 410, 403):
        project = f"lacked-{status}"
        both[1].add(make_wheel(project))
        both[0].script(f"/simple/{project}/", Behavior(status=status, body=b"no"))
        page = proxy.get(f"/index/{project}/")
        assert (page.status, page.headers["x-cache"]) == (200, "MISS")
        assert make_wheel(project).filename in page.text


def test_403_to_credentials_is_a_failure(
    both: tuple[FakeIndex, FakeIndex], start_proxy: StartProxy, tmp_path: Path
) -> None:
    """A token that has expired does not make a project look absent, and is told to nobody."""
    both[0].require_auth(*LOGIN)
    both[0].script("/simple/*", Behavior(status=403))
    url = both[0].url.replace("://", "://{}:{}@".format(*LOGIN))
    proxy = _start(start_proxy, both, tmp_path, index_url=url)
    reply = proxy.get("/index/shared/")
    assert reply.status == 502
    assert "credentials rejected" in reply.text
    assert LOGIN[1] not in reply.text + proxy.output
