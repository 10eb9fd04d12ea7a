"""Starting and stopping the real program, and finding it however it was installed."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import sysconfig
from pathlib import Path

import pytest

from proxpi.settings import SETTINGS
from tests.support.clients import Environment, isolated_environment, run
from tests.support.fake_index import FakeIndex
from tests.support.process import plain_environment
from tests.support.processes import StartProxy
from tests.support.proxy import TWISTD, measured

_ROOT = Path(__file__).parents[2]


def test_defaults(start_proxy: StartProxy) -> None:
    """Started with nothing but a free port, it says where it listens, and is healthy."""
    proxy = start_proxy()
    assert proxy.url.endswith("/index/")
    health = proxy.get("/health")
    assert (health.status, json.loads(health.body)) == (200, {"status": "success", "data": None})
    assert proxy.get("/").status == 200


def test_options(fake_index: FakeIndex, start_proxy: StartProxy) -> None:
    """An option takes precedence over its variable."""
    options = ["--index-url", fake_index.url, "--index-ttl=30"]
    page = start_proxy(None, *options, index_url="http://127.0.0.1:9/", index_ttl=60).get("/index/")
    assert page.status == 200
    assert 0 < int(page.headers["cache-control"].removeprefix("public, max-age=")) <= 30


def test_help(tmp_path: Path) -> None:
    """The help names each setting's option, default and variable."""
    command = [TWISTD, "proxpi", "--help"]
    # Lines may be broken anywhere, so they are compared without white space.
    text = "".join(run(command, tmp_path, plain_environment(**measured())).split())
    for setting in SETTINGS:
        assert f"--{setting.option}=" in text
        assert setting.variable in text
        assert "".join(f"Default: {setting.default or setting.otherwise}".split()) in text


def _refused(start: StartProxy, *options: str, **settings: str) -> list[str]:
    """Return the lines of a start that fails, without traceback and help."""
    proxy = start(None, *options, listens=False, **settings)
    assert proxy.wait() > 0
    assert "Traceback" not in proxy.output
    assert "Usage:" not in proxy.output
    return proxy.output.splitlines()


def test_bad_values(start_proxy: StartProxy) -> None:
    """A bad value stops the start with one line: variable, value, and what is accepted."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        in_use = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
        for variable, value in (
            ("PROXPI_INDEX_TTL", "soon"),
            ("PROXPI_EXTRA_INDEX_URLS", "http://127.0.0.1:9/,ftp://index.example/"),
            ("PROXPI_EXTRA_INDEX_TTLS", "1,2,3"),
            ("PROXPI_LISTEN", "carrier-pigeon:5000"),
            ("PROXPI_LISTEN", in_use),
            ("PROXPI_CACHE_DIR", "/dev/null/cache"),
            ("PROXPI_CACHE_DIR", "~no-such-user/cache"),
            ("PROXPI_CACHE_SIZE", "5XB"),
        ):
            lines = _refused(start_proxy, **{variable: value})
            (line,) = (line for line in lines if variable in line)
            assert value in line and "accepted" in line
            assert re.search(r"[.;:,][.;]|;;", line.replace(value, "")) is None, "one sentence"


def test_bad_config(start_proxy: StartProxy, tmp_path: Path) -> None:
    """A wrong entry of the config file, or two places for indexes, stop the start likewise."""
    file = tmp_path / "proxpi.toml"
    file.write_text('[[index]]\nname = "own"\nurl = "http://u:secret@127.0.0.1:9/"\nowns = "own"\n')
    [line] = _refused(start_proxy, config=str(file))
    assert line.startswith(f'proxpi: {file}: [[index]] "own": owns = "own": ')
    file.write_text(file.read_text().replace('owns = "own"', ""))
    [line] = _refused(start_proxy, "--config", str(file), "--index-url", "http://127.0.0.1:9/")
    assert "--index-url" in line and str(file) in line
    assert "secret" not in line


def test_bad_options(start_proxy: StartProxy) -> None:
    """A bad value, an option of gunicorn, or a switch without value: the start stops likewise."""
    lines = _refused(start_proxy, "--cache-size", "plenty")
    (line,) = (line for line in lines if "PROXPI_CACHE_SIZE" in line)
    assert "plenty" in line and "accepted" in line
    [line] = _refused(start_proxy, "--threads", "4", "--bind", "fd://3")
    assert "--listen=tcp:5000" in line
    [line] = _refused(start_proxy, "--offline", "--listen=tcp:0:interface=127.0.0.1")
    assert "option --offline needs a value, such as --offline=on" in line


def test_log_of_the_start(start_proxy: StartProxy, tmp_path: Path) -> None:
    """One line tells addresses and folder; each variable without effect is a warning."""
    (tmp_path / "a").mkdir()
    proxy = start_proxy(
        None,
        "--listen=tcp:0:interface=127.0.0.1",
        "--listen=haproxy:tcp:0:interface=127.0.0.1",
        cache_dir=tmp_path / "a" / ".." / "cache",
        indx_url="http://u:secret@h/",
        workers=2,
    )
    proxy.stop()
    assert not re.search("starting |actory|secret|reactor class|Shut Down|Closed", proxy.output)
    assert "[proxpi#" in proxy.output.splitlines()[0], "no line of twistd precedes"
    assert f"files in {tmp_path / 'cache'}" in proxy.output
    found = [line for line in proxy.output.splitlines() if "no effect" in line]
    assert len(found) == 2
    assert "did you mean PROXPI_INDEX_URL?" in found[0]
    assert "PROXPI_WORKERS" in found[1]
    assert (tmp_path / "cache").is_dir()


@pytest.mark.parametrize("level", ["WARNING", "INFO", "DEBUG"])
def test_levels(start_proxy: StartProxy, level: str) -> None:
    """Successful health checks are logged at DEBUG alone, requests at INFO, warnings always."""
    proxy = start_proxy(
        None, listens=level != "WARNING", logging_level=level, disable_index_ssl_verification="on"
    )
    proxy.wait_for_line(r"#(warn|error|critical)\]")
    if level == "WARNING":
        proxy.stop()
        assert "#info]" not in proxy.output
        return
    assert proxy.get("/health").status == proxy.request("HEAD", "/health").status == 200
    assert proxy.request("POST", "/health").status == 405
    proxy.wait_for_line("POST /health 405")
    assert ("/health 200" in proxy.output) == (level == "DEBUG")


def test_json(start_proxy: StartProxy) -> None:
    """From the first line to the last, the log is one JSON object a line."""
    proxy = start_proxy(None, log_format="json", logging_level="DEBUG", indx_url="http://h/")
    proxy.request("GET", "/no%22thing\\", {"X-Request-ID": "an-id", "User-Agent": '"\\'})
    proxy.wait_for_line("an-id")
    proxy.stop()
    lines = [json.loads(line) for line in proxy.output.splitlines()]
    assert {"time", "level", "logger", "message"} <= set.intersection(*map(set, lines))
    assert lines[0]["level"] == "warn" and "PROXPI_INDX_URL" in lines[0]["message"]
    [found] = [line for line in lines if line.get("request_id") == "an-id"]
    assert (found["path"], found["status"], found["outcome"]) == ("/no%22thing\\", 404, "refused")


def test_plugin_cache(start_proxy: StartProxy, tmp_path: Path) -> None:
    """Where twistd cannot write its list of plugins, as another user, no line says so."""
    plugins = tmp_path / "path" / "twisted" / "plugins"
    (plugins / "dropin.cache").mkdir(parents=True)
    (plugins / "proxpi_other.py").write_text("")
    paths = [str(tmp_path / "path"), *filter(None, [measured().get("PYTHONPATH")])]
    proxy = start_proxy(PYTHONPATH=os.pathsep.join(paths))
    assert "plugin cache" not in proxy.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals(start_proxy: StartProxy, tmp_path: Path, number: signal.Signals) -> None:
    """The process ends by the signal, without errors, and removes its temporary folder."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    proxy = start_proxy(TMPDIR=temporary)
    assert len(list(temporary.iterdir())) == 1
    assert proxy.stop(number) == -number
    assert list(temporary.iterdir()) == []
    assert "Traceback" not in proxy.output
    assert "Unhandled" not in proxy.output


def _install_wheel(environment: Environment, folder: Path) -> None:
    uv = str(Path(sys.executable).with_name("uv"))
    # What builds a distribution needs the machine's own way to a registry.
    build = [uv, "build", "--wheel", "--out-dir", str(folder / "dist"), str(_ROOT)]
    run(build, folder, dict(os.environ))
    (wheel,) = (folder / "dist").glob("*.whl")
    install = [uv, "pip", "install", "--offline", "--no-deps", "--python", str(environment.python)]
    run([*install, str(wheel)], folder, isolated_environment(folder))


def _pip(environment: Environment, folder: Path, *options: str) -> None:
    pip = [sys.executable, "-m", "pip", "--python", str(environment.python)]
    run([*pip, "install", "--no-deps", *options, str(_ROOT)], folder, dict(os.environ))


@pytest.mark.parametrize("way", ["a wheel", "pip", "editable"])
def test_plugin(tmp_path: Path, way: str) -> None:
    """twistd knows the command however proxpi was installed, from any folder."""
    environment = Environment.make(tmp_path / "environment")
    if way == "a wheel":
        _install_wheel(environment, tmp_path)
    else:
        _pip(environment, tmp_path, *["--editable"] * (way == "editable"))
    # The dependencies come from this run's environment. A path file in a folder that another one
    # names is not read, so a proxpi that is installed there is not found.
    paths = {"base": str(environment.folder), "platbase": str(environment.folder)}
    site = Path(sysconfig.get_path("purelib", "venv", vars=paths))
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    twistd = [str(environment.python), "-c", "from twisted.scripts.twistd import run; run()"]
    plain = plain_environment(HOME=str(tmp_path))
    assert "--cache-size=" in run([*twistd, "proxpi", "--help"], tmp_path, plain)
    where = [str(environment.python), "-c", "import proxpi; print(proxpi.__file__)"]
    module = Path(run(where, tmp_path, plain).strip())
    assert module.is_relative_to(_ROOT if way == "editable" else environment.folder)
    assert "proxpi" in run([*twistd, "--help"], tmp_path, plain)


def test_imports(tmp_path: Path) -> None:
    """The start does not import what only the admin page and the cache API need."""
    code = "import sys, proxpi.tap; print(*{'klein', 'jinja2'} & {*sys.modules})"
    environment = plain_environment(**measured())
    assert run([sys.executable, "-c", code], tmp_path, environment).strip() == ""
