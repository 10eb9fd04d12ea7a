"""Recordings have what a predictor may read, and nothing that none would look at."""

from __future__ import annotations

import json
from typing import Any

from applications import Case
from record import trim

from proxpi.prefetch import read_user_agent

LINUX = {
    "installer": {"name": "uv", "version": "0.13.9"},
    "python": "3.13.0",
    "implementation": {"name": "CPython", "version": "3.13.0"},
    "distro": {"name": "Debian", "libc": {"lib": "glibc", "version": "2.36"}},
    "system": {"name": "Linux", "release": "6.1"},
    "cpu": "x86_64",
}
AGENT = f"uv/0.13.9 {json.dumps(LINUX)}"


def entry(filename: str) -> dict[str, Any]:
    return {"filename": filename, "size": 1000}


def test_trimming_keeps_what_fits_and_is_recent() -> None:
    """Wheels of other platforms go, and releases far older than those whose metadata is there."""
    wheels = [entry(f"a-{number}-py3-none-any.whl") for number in range(10)]
    other = [entry("a-9-cp313-cp313-win_amd64.whl"), entry("a-8.5b1-py3-none-any.whl")]
    sdists = [entry("a-9.tar.gz"), entry("a-1.tar.gz")]
    recording = {
        "user_agent": AGENT,
        "pages": {"a": [*wheels, *other, *sdists]},
        "metadata": {"a-7-py3-none-any.whl": ""},
    }
    kept = [each["filename"] for each in trim(recording)["pages"]["a"]]
    assert sorted(kept) == [*(f"a-{n}-py3-none-any.whl" for n in (4, 5, 6, 7, 8, 9)), "a-9.tar.gz"]


def test_a_client_of_macos_states_macos() -> None:
    """Where uv resolves for another platform, the recorded statement is that of the platform."""
    assert Case("web", "uv").agent(AGENT) == AGENT
    client = read_user_agent(Case("web", "uv", macos=True).agent(AGENT))
    assert client.rank("a-1-cp313-cp313-macosx_12_0_arm64.whl") is not None
    assert client.rank("a-1-cp313-cp313-manylinux_2_28_x86_64.whl") is None
    assert (client.environment or {})["sys_platform"] == "darwin"
