"""A hundred packages, installed by uv and by pip, through a warm proxy and from plain files.

The plain files are the same pages and the same wheels, served by nginx as they lie on disk: that is
what installing takes without a proxy, from the nearest place there can be. All servers run at the
same time, and the clients turn from one to the next; each install goes into a new folder, with no
cache of the client's own.
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
from bench import Bench, Scenario, Sizes, links
from environments import Unusable, environment
from load import gunzipped, page, warmed
from programs import Program, Running
from values import NGINX, ORIGINAL, OURS, Measure, Target

#: Installs of each kind in a round.
TIMES = {"uv": 3, "pip": 2}


def _measures(sizes: Sizes) -> list[Measure]:
    what = f"{sizes.packages} packages installed, warm (nginx: from plain files)"
    return [Measure("install_uv", f"{what}: by uv, s"), Measure("install_pip", "… by pip, s")]


def _run(bench: Bench, programs: Sequence[Program]) -> None:
    clients = environment("clients", ["pip", "uv"]) / "bin"
    names = wheels.names(bench.sizes.packages)
    with ExitStack() as stack:
        servers = [
            stack.enter_context(bench.started(program))
            for program in programs
            if program.name in (OURS, ORIGINAL)
        ]
        for server in servers:
            _warm(server, names)
        root = bench.new_folder()
        proxy = next(server for server in servers if server.program.name == OURS)
        _written(proxy, names, root / "index")
        static = nginx.static(root)
        if static is not None and any(program.name == NGINX for program in programs):
            servers.append(stack.enter_context(bench.started(static)))
        _measured(bench, servers, clients, names)


def _measured(bench: Bench, servers: list[Running], clients: Path, names: list[str]) -> None:
    for client, times in TIMES.items():
        spent = defaultdict[int, list[float]](list)
        for turn in range(times):
            for server in servers[turn % 2 :] + servers[: turn % 2]:
                once = server.program.name == ORIGINAL
                if not (once and turn):
                    spent[server.port].append(_install(bench, clients / client, server, names))
        for server in servers:
            bench.note(f"install_{client}", server, median(spent[server.port]))


def _warm(server: Running, names: list[str]) -> None:
    for name in names:
        for file in links(gunzipped(page(server, f"/index/{name}/"))):
            warmed(server, f"/index/{name}/{file}")
            warmed(server, f"/index/{name}/{file}.metadata")


def _written(server: Running, names: list[str], root: Path) -> None:
    """Write pages and files as the proxy gives them: the links of its pages lead here as well."""
    for name in names:
        folder = root / name
        folder.mkdir(parents=True)
        body = gunzipped(page(server, f"/index/{name}/"))
        (folder / "page.json").write_bytes(body)
        for file in links(body):
            for path in (file, f"{file}.metadata"):
                (folder / path).write_bytes(page(server, f"/index/{name}/{path}", {}).body)


def _install(bench: Bench, client: Path, server: Running, names: list[str]) -> float:
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
        raise Unusable(f"{what}: {done.stderr[-1000:]}")
    shutil.rmtree(folder)
    return spent


SCENARIOS = [
    Scenario(
        "installs",
        _measures,
        [Target("install_uv", False, 1.05, NGINX), Target("install_pip", False, 1.05, NGINX)],
        _run,
    )
]
