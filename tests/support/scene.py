"""A proxpi on an eventful day: what its admin page has to show, hostile names included.

It has three indexes: ``root``, which responds; ``internal``, which is down; and a folder. Files
were evicted, and excluded by rules; one came with a wrong digest; the download of one waits. The
history of the traffic goes 30 days back.
"""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import quote

import attrs
from twisted.internet.defer import succeed
from twisted.internet.task import Clock

from proxpi.history import History, add
from proxpi.metrics import Totals
from tests.support import configs
from tests.support.distributions import Distribution, make_wheel
from tests.support.fake_index import Behavior, FakeIndex
from tests.support.processes import proxies
from tests.support.proxy import Proxy

#: A script that runs if any text is taken for markup.
SCRIPT = "<img src=x onerror=alert(1)>\"'&lt;script>alert(2)&lt;"
PASSWORD = "s3cr3t-passw0rd"
_DAY = 86400
_SLOW = "/files/torch/torch-2.9-py3-none-any.whl"
#: Sizes of files in kilobytes, and how often clients request them.
_FILES = {
    "numpy": (1600, 14),
    "pandas": (1200, 9),
    "scipy": (2900, 3),
    "requests": (62, 40),
    "attrs": (58, 22),
    "twisted": (310, 7),
    "cryptography": (420, 16),
    "matplotlib": (870, 4),
    "setuptools": (95, 31),
    "pip": (180, 12),
}


@attrs.frozen
class Scene:
    """What runs: the proxy, and the fake index ``root`` before which it stands.

    :ivar slow: the path of a file whose download stops in its middle, until its release
    """

    proxy: Proxy
    index: FakeIndex
    slow: str

    def release(self) -> None:
        """Let the slow download go on."""
        self.index.release(_SLOW)


def _file(name: str, version: str, kilobytes: int) -> Distribution:
    noise = random.Random(name).randbytes(kilobytes * 1000)
    return Distribution(name, version, f"{name}-{version}-py3-none-any.whl", noise)


def hostile(name: str, length: int = 0) -> Distribution:
    """Make a file whose name is markup, turns the direction of text, and has so many letters."""
    filename = f"{name}-1.0-{SCRIPT}-{'x' * length}\N{RIGHT-TO-LEFT OVERRIDE}.tar.gz"
    return Distribution(name, "1.0", filename, os.urandom(20_000))


def _remember(path: Path) -> None:
    """Write a history of 30 days: busy by day, quiet by night and at weekends."""
    chance, now = random.Random(0), time.time()
    totals = Totals()
    moment = now - 30 * _DAY
    history = History(
        path=path,
        totals=lambda: totals,
        clock=Clock(),
        in_thread=lambda work, *given: succeed(work(*given)),
        wall=lambda: moment,
    )
    while moment < now - 300:
        step = 300 if moment > now - _DAY else 3600
        hour, weekday = moment % _DAY / 3600, time.gmtime(moment).tm_wday
        busy = max(0.05, math.sin((hour - 6) / 12 * math.pi)) * (0.15 if weekday > 4 else 1)
        requests = int(busy * step * chance.uniform(0.6, 1.1))
        hits = int(requests * chance.uniform(0.9, 0.97))
        more = Totals(
            requests=requests,
            from_cache=hits,
            misses=requests - hits,
            sent_bytes=requests * 180_000,
            saved_bytes=hits * 180_000,
            saved_seconds=hits * 0.35,
            received_bytes=(requests - hits) * 180_000,
            upstream_requests=requests - hits,
        )
        totals = add([totals, more])
        history.sample()
        moment += step
    history.stop()


@contextmanager
def scene(folder: Path, **settings: object) -> Iterator[Scene]:
    """Start the proxy, and have clients use it; `settings` are those of `proxies`."""
    with ExitStack() as stack:
        index, down = (stack.enter_context(FakeIndex()) for _ in range(2))
        wheels = folder / "wheels"
        wheels.mkdir()
        own = make_wheel("acme-tools", "2.1", padding=150_000)
        (wheels / own.filename).write_bytes(own.data)
        config = configs.write(
            folder,
            configs.index("root", index.url.replace("://", f"://operator:{PASSWORD}@")),
            configs.index("internal", down, projects=["corp-*"], owns=["corp-*"]),
            configs.index("wheels", f"file://{wheels}/", projects=["acme-*"], owns=["acme-*"]),
            configs.view("default", "root", "internal", "wheels"),
            configs.view("team", "wheels", "root"),
            configs.rules(
                deny=["left-pad"], exclude_newer="7 days", exclude_newer_except=["acme-*"]
            ),
        )
        cache = folder / "cache"
        cache.mkdir()
        _remember(cache / ".proxpi/history")
        given = {"config": config, "cache_size": "7MB", "cache_dir": cache, "prefetch": "off"}
        proxy = stack.enter_context(proxies(folder))(**given | settings)
        index.require_auth("operator", PASSWORD)
        _play(proxy, index, down, own)
        yield Scene(proxy, index, _SLOW.replace("files", "index", 1))


def _play(proxy: Proxy, index: FakeIndex, down: FakeIndex, own: Distribution) -> None:
    """Request what the page is to show."""
    for name, (kilobytes, requests) in _FILES.items():
        file = _file(name, "1.0", kilobytes)
        index.add(file)
        for _ in range(requests):
            proxy.get(f"/index/{name}/")
            assert proxy.get_cached(f"/index/{name}/{file.filename}").status == 200
    strange, wrong = hostile("hostile"), _file("broken", "1.0", 30)
    index.add(strange, yanked=SCRIPT)
    index.script(index.add(wrong), Behavior(flip=10))
    index.add(_file("left-pad", "1.2", 10))
    index.add(_file("young", "3.0", 10), upload_time="2126-01-02T03:04:05Z")
    index.add(hostile("young", 160), upload_time="2126-01-02T03:04:05Z")
    down.add(_file("corp-auth", "1.0", 20))
    assert proxy.get("/index/corp-auth/").status == 200
    down.close()
    proxy.request("DELETE", "/cache/corp-auth")
    for path in ("corp-auth/", "corp-billing/", "left-pad/", "young/", "hostile/"):
        proxy.get(f"/index/{path}")
    for file in (own, wrong):
        proxy.get(f"/index/{file.project}/{file.filename}")
    proxy.get(f"/index/hostile/{quote(strange.filename)}")
    index.add(_file("torch", "2.9", 4000))
    index.script(_SLOW, Behavior(hold_after=3_000_000))
