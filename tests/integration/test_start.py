"""Starting and stopping the real program, and finding it however it was installed."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from proxpi.settings import SETTINGS
from tests.integration.conftest import StartProxy
from tests.support.clients import Environment, isolated_environment, run
from tests.support.fake_index import FakeIndex
from tests.support.proxy import TWISTD, Proxy, measured, plain_environment

_ROOT = Path(__file__).parents[2]


def test_starts_without_options(start_proxy: StartProxy) -> None:
    """Started with nothing but a free port, it says where it listens and is healthy."""
    proxy = start_proxy()
    assert proxy.url.endswith("/index/")
    health = proxy.get("/health")
    assert (health.status, json.loads(health.body)) == (200, {"status": "success", "data": None})
    assert proxy.get("/").status == 200


def test_options_beat_the_environment(fake_index: FakeIndex, tmp_path: Path) -> None:
    """What is given as an option is used in the place of its variable."""
    settings = {"PROXPI_INDEX_URL": "http://127.0.0.1:9/", "PROXPI_INDEX_TTL": "60"}
    options = ["--index-url", fake_index.url, "--index-ttl=30"]
    with Proxy(settings, options, folder=tmp_path) as proxy:
        page = proxy.get("/index/")
        assert page.status == 200
        assert 0 < int(page.headers["cache-control"].removeprefix("public, max-age=")) <= 30


def test_help_explains_each_setting(tmp_path: Path) -> None:
    """The help names each setting's option, default and variable."""
    command = [TWISTD, "proxpi", "--help"]
    # Lines may be broken anywhere, so they are compared without what is between words.
    text = "".join(run(command, tmp_path, plain_environment(**measured())).split())
    for setting in SETTINGS:
        assert f"--{setting.option}=" in text
        assert setting.variable in text
        assert "".join(f"Default: {setting.default or setting.otherwise}".split()) in text


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PROXPI_INDEX_TTL", "soon"),
        ("PROXPI_DOWNLOAD_TIMEOUT", "nan"),
        ("PROXPI_CACHE_SIZE", "-1"),
        ("PROXPI_CACHE_SIZE", "5XB"),
        ("PROXPI_INDEX_URL", "index.example/simple/"),
        ("PROXPI_EXTRA_INDEX_URLS", "http://127.0.0.1:9/,ftp://index.example/"),
        ("PROXPI_EXTRA_INDEX_TTLS", "1,2,3"),
        ("PROXPI_LISTEN", "carrier-pigeon:5000"),
        ("PROXPI_LOGGING_LEVEL", "SHOUT"),
        ("PROXPI_CACHE_DIR", "/dev/null/cache"),
        ("PROXPI_CACHE_DIR", "~no-such-user/cache"),
    ],
)
def test_a_bad_value_stops_the_start(tmp_path: Path, variable: str, value: str) -> None:
    """One line names variable, value and what is accepted; no traceback, no help, a bad status."""
    _assert_refused(tmp_path, {variable: value}, [], variable, value)


def test_a_bad_option_stops_the_start(tmp_path: Path) -> None:
    """The same for a value given as an option."""
    options = ["--cache-size", "plenty"]
    _assert_refused(tmp_path, {}, options, "PROXPI_CACHE_SIZE", "plenty")


def test_an_option_of_gunicorn_stops_the_start(tmp_path: Path) -> None:
    """What the original was started with is answered by one line, and nothing else."""
    options = ["--threads", "4", "--bind", "0.0.0.0:5000"]
    with Proxy({}, options, folder=tmp_path, listens=False) as proxy:
        assert proxy.wait() > 0
        [line] = proxy.output.splitlines()
    assert "--listen tcp:5000" in line


def test_a_switch_without_a_value_stops_the_start(tmp_path: Path) -> None:
    """The option behind it is not its value, so nothing listens elsewhere than it was told."""
    options = ["--offline", "--listen=tcp:0:interface=127.0.0.1"]
    with Proxy({}, options, folder=tmp_path, listens=False) as proxy:
        assert proxy.wait() > 0
        [line] = proxy.output.splitlines()
    assert "option --offline needs a value, such as --offline=on" in line


def test_one_line_says_where_it_listens(fake_index: FakeIndex, tmp_path: Path) -> None:
    """No line of Twisted's names ports or factories, and the cache folder is shown in full."""
    (tmp_path / "a").mkdir()
    settings = {"PROXPI_INDEX_URL": fake_index.url}
    settings["PROXPI_CACHE_DIR"] = str(tmp_path / "a" / ".." / "cache")
    options = ["--listen=tcp:0:interface=127.0.0.1", "--listen=haproxy:tcp:0:interface=127.0.0.1"]
    with Proxy(settings, options, folder=tmp_path) as proxy:
        proxy.stop()
        assert "starting on" not in proxy.output
        assert "actory" not in proxy.output
        assert f"files in {tmp_path / 'cache'}" in proxy.output


def test_variables_without_effect(fake_index: FakeIndex, tmp_path: Path) -> None:
    """Each is one warning in the log that names it and not its value, and proxpi serves."""
    values = {"PROXPI_INDEX_URL": fake_index.url, "PROXPI_INDX_URL": "http://u:secret@h/"}
    with Proxy(values | {"PROXPI_WORKERS": "2"}, folder=tmp_path) as proxy:
        found = [line for line in proxy.output.splitlines() if "no effect" in line]
        assert len(found) == 2
        assert "did you mean PROXPI_INDEX_URL?" in found[0]
        assert "PROXPI_WORKERS" in found[1]
        assert "secret" not in proxy.output


def test_a_port_in_use_stops_the_start(tmp_path: Path) -> None:
    """Where another program listens, the start fails with a line that says so."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        value = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
        _assert_refused(tmp_path, {"PROXPI_LISTEN": value}, [], "PROXPI_LISTEN", value)


@pytest.mark.parametrize("level", ["INFO", "DEBUG"])
def test_health_checks_are_not_logged(tmp_path: Path, level: str) -> None:
    """A successful check, which comes every few seconds, has a line at DEBUG alone."""
    with Proxy({"PROXPI_LOGGING_LEVEL": level}, folder=tmp_path) as proxy:
        assert proxy.get("/health").status == 200
        assert proxy.request("HEAD", "/health").status == 200
        assert proxy.request("POST", "/health").status == 405
        proxy.wait_for_line("POST /health 405")
        checks = [line for line in proxy.output.splitlines() if "/health 200" in line]
        assert bool(checks) == (level == "DEBUG")


def test_a_list_of_plugins_that_cannot_be_kept(tmp_path: Path) -> None:
    """Where twistd may not write down its plugins, as for another user, no line says so."""
    plugins = tmp_path / "path" / "twisted" / "plugins"
    (plugins / "dropin.cache").mkdir(parents=True)
    (plugins / "proxpi_other.py").write_text("")
    paths = [str(tmp_path / "path"), *filter(None, [measured().get("PYTHONPATH")])]
    with Proxy({"PYTHONPATH": os.pathsep.join(paths)}, folder=tmp_path) as proxy:
        assert "plugin cache" not in proxy.output


def _assert_refused(
    folder: Path, settings: dict[str, str], options: list[str], variable: str, value: str
) -> None:
    with Proxy(settings, options, folder=folder, listens=False) as proxy:
        assert proxy.wait() > 0
        (line,) = (line for line in proxy.output.splitlines() if variable in line)
        assert value in line
        assert "accepted" in line
        assert re.search(r"[.;:,][.;]|;;", line.replace(value, "")) is None, "one sentence"
        assert "Traceback" not in proxy.output
        assert "Usage:" not in proxy.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_cleanly(
    fake_index: FakeIndex, tmp_path: Path, number: signal.Signals
) -> None:
    """It ends by the signal, without complaint, and its temporary cache folder is gone."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    settings = {"PROXPI_INDEX_URL": fake_index.url, "TMPDIR": str(temporary)}
    with Proxy(settings, folder=tmp_path) as proxy:
        assert len(list(temporary.iterdir())) == 1
        assert proxy.stop(number) == -number
        assert list(temporary.iterdir()) == []
        assert "Traceback" not in proxy.output
        assert "Unhandled" not in proxy.output


def test_a_folder_of_the_user_stays(fake_index: FakeIndex, tmp_path: Path) -> None:
    """A cache folder that was asked for is made, and outlives the program."""
    folder = tmp_path / "new" / "cache"
    settings = {"PROXPI_INDEX_URL": fake_index.url, "PROXPI_CACHE_DIR": str(folder)}
    with Proxy(settings, folder=tmp_path) as proxy:
        assert str(folder) in proxy.output
        proxy.stop()
    assert folder.is_dir()


def _install_wheel(environment: Environment, folder: Path) -> None:
    uv = str(Path(sys.executable).with_name("uv"))
    run([uv, "build", "--wheel", "--out-dir", str(folder / "dist"), str(_ROOT)], folder, _machine())
    (wheel,) = (folder / "dist").glob("*.whl")
    python = str(environment.python)
    run(
        [uv, "pip", "install", "--offline", "--no-deps", "--python", python, str(wheel)],
        folder,
        isolated_environment(folder),
    )


def _install_folder(environment: Environment, folder: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--python", str(environment.python)]
    run([*pip, "install", "--no-deps", str(_ROOT)], folder, _machine())


def _install_editable(environment: Environment, folder: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--python", str(environment.python)]
    run([*pip, "install", "--no-deps", "--editable", str(_ROOT)], folder, _machine())


def _machine() -> dict[str, str]:
    """The machine's own environment: what builds a distribution needs its way to a registry."""
    return dict(os.environ)


@pytest.mark.parametrize(
    ("install", "inside"),
    [(_install_wheel, True), (_install_folder, True), (_install_editable, False)],
)
def test_the_plugin_is_found(tmp_path: Path, install: object, inside: bool) -> None:
    """twistd knows the command however proxpi was installed, from any folder."""
    assert callable(install)
    environment = Environment.make(tmp_path / "environment")
    install(environment, tmp_path)
    # What proxpi needs is lent by this run's own environment: a path file inside of a folder
    # that is named by one is not read, so an installed proxpi there is not seen.
    paths = {"base": str(environment.folder), "platbase": str(environment.folder)}
    site = Path(sysconfig.get_path("purelib", "venv", vars=paths))
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    twistd = [str(environment.python), "-c", "from twisted.scripts.twistd import run; run()"]
    plain = plain_environment(HOME=str(tmp_path))
    assert "--cache-size=" in run([*twistd, "proxpi", "--help"], tmp_path, plain)
    where = [str(environment.python), "-c", "import proxpi; print(proxpi.__file__)"]
    module = Path(run(where, tmp_path, plain).strip())
    assert module.is_relative_to(environment.folder if inside else _ROOT)
    listing = subprocess.run(
        [*twistd, "--help"], cwd=tmp_path, env=plain, capture_output=True, text=True, check=True
    )
    assert "proxpi" in listing.stdout


def test_starts_without_what_pages_and_files_need_not(tmp_path: Path) -> None:
    """What only the admin page and the cache API need is not loaded before one of them is asked."""
    code = "import sys, proxpi.tap; print(*(name for name in sys.modules if name == 'klein'))"
    environment = plain_environment(**measured())
    assert run([sys.executable, "-c", code], tmp_path, environment).strip() == ""
