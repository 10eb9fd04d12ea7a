"""Real clients that are told to refresh see a release that is younger than the cached page."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from proxpi.index.revalidation import REFRESH_PAUSE
from tests.support.clients import isolated_environment, run
from tests.support.distributions import make_wheel
from tests.support.fake_index import Behavior, FakeIndex
from tests.support.processes import StartProxy

UV = str(Path(sys.executable).with_name("uv"))
#: Commands that resolve what ``demo.in`` requires; the URL of the index follows.
COMMANDS = {
    "uv": (UV, "--no-config", "pip", "compile", "demo.in", "--default-index"),
    "pip": ("install", "--dry-run", "--no-deps", "--requirement", "demo.in", "--index-url"),
}


@pytest.mark.parametrize(
    ("client", "refresh"),
    [("uv", "--refresh"), ("uv", "--refresh-package=demo"), ("pip", "--refresh-package=demo")],
)
def test_refresh(
    fake_index: FakeIndex,
    start_proxy: StartProxy,
    tmp_path: Path,
    new_pip: tuple[str, ...],
    client: str,
    refresh: str,
) -> None:
    """Without a refresh a client sees the cached page, with one the page as its index has it."""
    proxy = start_proxy(fake_index, prefetch="off")
    (tmp_path / "demo.in").write_text("demo", encoding="ascii")
    environment = isolated_environment(tmp_path)

    def resolve(*options: str) -> str:
        command = COMMANDS[client] if client == "uv" else (*new_pip, *COMMANDS[client])
        output = run([*command, proxy.url, *options], tmp_path, environment)
        return output.replace("demo==", "demo-")

    fake_index.add(make_wheel("demo", "1.0"))
    assert "demo-1.0" in resolve()
    fake_index.add(make_wheel("demo", "2.0"))
    assert "demo-1.0" in resolve()
    # A page takes so long that the other one is old enough to be refreshed.
    fake_index.script("/simple/slow/", Behavior(delay=REFRESH_PAUSE))
    proxy.get("/index/slow/")
    fake_index.clear_requests()
    assert "demo-2.0" in resolve(refresh)
    seen = [each for each in fake_index.requests() if not each.is_file]
    # On a slow machine the requests of one run are so far apart that a second one is a refresh.
    assert {(each.path, "if-none-match" in each.headers) for each in seen} == {
        ("/simple/demo/", True)
    }
    assert "demo-2.0" in resolve(refresh)
