"""Scenario for installations: 100 packages by uv and by pip, from a warm proxy and static files.

nginx serves the same pages and wheels as static files: this is the time of an installation without
a proxy, at the least. All servers run at the same time; the clients alternate between them. Each
installation has a new target folder and no client cache.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import nginx
import wheels
from clients import get_cached, get_page, gunzip
from environments import BenchmarkError, environment
from programs import Program, Server
from results import NGINX, ORIGINAL, PROXPI, Measure, Target
from scenario import Benchmark, Scenario, Sizes

#: Installations of each kind in a round.
TIMES = {"uv": 3, "pip": 2}


def _measures(sizes: Sizes) -> list[Measure]:
    what = f"installation of {sizes.packages} packages, warm (nginx: static files)"
    return [Measure("install_uv", f"{what}: uv, s"), Measure("install_pip", "… pip, s")]


def _run(bench: Benchmark, programs: Sequence[Program]) -> None:
    clients = environment("clients", ["pip", "uv"]) / "bin"
    names = wheels.names(bench.sizes.packages)
    with ExitStack() as stack:
        servers = [
            stack.enter_context(bench.started(program))
            for program in programs
            if program.name in (PROXPI, ORIGINAL)
        ]
        for server in servers:
            _warm(bench, server, names)
        root = bench.new_folder()
        proxy = next(server for server in servers if server.program.name == PROXPI)
        _write_static_files(proxy, names, root / "index")
        static = nginx.static(root)
        if static is not None and any(program.name == NGINX for program in programs):
            servers.append(stack.enter_context(bench.started(static)))
        _measure(bench, servers, clients, names)


def _measure(bench: Benchmark, servers: list[Server], clients: Path, names: list[str]) -> None:
    for client, times in TIMES.items():
        spent = defaultdict[int, list[float]](list)
        for turn in range(times):
            for server in servers[turn % 2 :] + servers[: turn % 2]:
                once = server.program.name == ORIGINAL
                if not (once and turn):
                    spent[server.port].append(_install(bench, clients / client, server, names))
        for server in servers:
            bench.note(f"install_{client}", server, median(spent[server.port]))


def _warm(bench: Benchmark, server: Server, names: list[str]) -> None:
    for name in names:
        get_page(server, f"/index/{name}/")
        path, _ = bench.file(server, name)
        get_cached(server, path)
        get_cached(server, f"{path}.metadata")


def _write_static_files(server: Server, names: list[str], root: Path) -> None:
    """Write wheels, and pages as proxpi sends them: the relative links of its pages stay valid."""
    for name in names:
        folder = root / name
        folder.mkdir(parents=True)
        (folder / "page.json").write_bytes(gunzip(get_page(server, f"/index/{name}/")))
        wheel = wheels.wheel(name)
        (folder / wheel.filename).write_bytes(wheel.data)
        (folder / f"{wheel.filename}.metadata").write_bytes(wheel.metadata)


def _install(bench: Benchmark, client: Path, server: Server, names: list[str]) -> float:
    folder = bench.new_folder()
    into, index = ("--target", str(folder / "installed")), ("--index-url", server.url("/index/"))
    if client.name == "uv":
        python = str(client.with_name("python"))
        command = [str(client), "pip", "install", "--no-cache", "--no-config", "--python", python]
    else:
        command = [str(client), "install", "--no-cache-dir", "--disable-pip-version-check"]
    home = {"HOME": str(folder), "TMPDIR": str(folder), "PATH": os.environ.get("PATH", "")}
    began = time.perf_counter()
    done = subprocess.run(
        [*command, "--quiet", *into, *index, *names],
        env={**home, "PIP_CONFIG_FILE": os.devnull},
        capture_output=True,
        text=True,
        check=False,
    )
    spent = time.perf_counter() - began
    found = len(list((folder / "installed").glob("*.dist-info")))
    if done.returncode or found != len(names):
        what = f"{client.name} installed {found} of {len(names)} from {server.program.name}"
        raise BenchmarkError(f"{what}: {done.stderr[-1000:]}")
    shutil.rmtree(folder)
    return spent


SCENARIOS = [
    Scenario(
        "installs",
        _measures,
        [Target("install_uv", "≤", 1.05, NGINX), Target("install_pip", "≤", 1.05, NGINX)],
        _run,
    )
]
