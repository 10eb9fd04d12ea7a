"""The options of ``twistd proxpi``: made from the table, and refused in one line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxpi import __version__
from proxpi.options import Options
from proxpi.settings import SETTINGS

OTHERS = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the settings of whoever runs the tests out of them."""
    for setting in SETTINGS:
        monkeypatch.delenv(setting.variable, raising=False)
        monkeypatch.delenv(f"{setting.variable}_FILE", raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "request_method"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def parsed(*arguments: str) -> Options:
    """The options of a command line."""
    options = Options()  # type: ignore[no-untyped-call]
    options.parseOptions(arguments)
    return options


def refusal(*arguments: str) -> str:
    """What a command line is refused with: the one line of the ``SystemExit``."""
    with pytest.raises(SystemExit) as ended:
        parsed(*arguments)
    line = ended.value.code
    assert isinstance(line, str)  # the interpreter prints it and ends with status 1
    assert len(line.splitlines()) == 1
    return line


def test_the_help_explains_each_setting(capsys: pytest.CaptureFixture[str]) -> None:
    """``--help`` shows each option with what it does, its default and its variable."""
    with pytest.raises(SystemExit) as ended:
        parsed("--help")
    assert ended.value.code == 0
    shown = "".join(capsys.readouterr().out.split())  # as it is wrapped anywhere
    for setting in SETTINGS:
        assert f"--{setting.option}=" in shown
        assert setting.explains.replace(" ", "") in shown
        default = (setting.default or setting.otherwise).replace(" ", "")
        assert f"Default:{default}.Variable:{setting.variable}" in shown
        assert (f"{setting.variable}_FILE" in shown) == setting.secret


def test_the_help_names_what_has_no_option(capsys: pytest.CaptureFixture[str]) -> None:
    """Below the options it names the variables of other programs that are read."""
    with pytest.raises(SystemExit):
        parsed("--help")
    closing = capsys.readouterr().out.partition("--version")[2]
    for scheme in ("HTTP", "HTTPS", "ALL", "NO"):
        assert re.search(rf"\b{scheme}_PROXY\b", closing)
    for name in ("NETRC", *OTHERS):
        assert re.search(rf"\b{name}\b", closing)


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    """``--version`` is proxpi's own."""
    with pytest.raises(SystemExit) as ended:
        parsed("--version")
    assert (ended.value.code, capsys.readouterr().out) == (0, f"proxpi {__version__}\n")


def test_options_and_environment_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings come from the command line first, then from the environment."""
    monkeypatch.setenv("PROXPI_INDEX_TTL", "5")
    monkeypatch.setenv("PROXPI_CACHE_SIZE", "6")
    settings = parsed("--index-ttl=7", "--binary-file-mime-type=on").settings
    assert (settings.index_ttl, settings.cache_size) == (7.0, 6)
    assert settings.binary_file_mime_type


def test_several_places_to_listen() -> None:
    """``--listen`` given twice are two places, in their order."""
    settings = parsed("--listen=tcp:1", "--listen", "unix:/tmp/socket").settings
    assert settings.listen == ("tcp:1", "unix:/tmp/socket")


@pytest.mark.parametrize("argument", ["--no-such", "surplus", "--index-ttl", "-x"])
def test_usage_errors(argument: str) -> None:
    """An unknown option, a surplus word or a missing value is one line, not the whole help."""
    assert refusal(argument).startswith("proxpi: ")


def test_an_option_that_resembles_another_one() -> None:
    """A misspelt option is named together with the nearest one; what is no option is named, too."""
    assert refusal("--idex-url=x") == (
        "proxpi: option --idex-url not recognized; did you mean --index-url?"
    )
    assert refusal("--index-url-file=/x") == (
        "proxpi: --index-url-file is no option; a file is named by PROXPI_INDEX_URL_FILE alone"
    )
    assert refusal("surplus") == ("proxpi: 'surplus' is not understood; only options are accepted")


@pytest.mark.parametrize(
    ("arguments", "option", "value"),
    [
        ("--offline --listen=tcp:47573", "--offline", "such as --offline=on"),
        ("--listen=tcp:1 --offline", "--offline", "such as --offline=on"),
        ("--binary-file-mime-type -n", "--binary-file-mime-type", "--binary-file-mime-type=on"),
        ("--off --index-ttl=5", "--offline", "such as --offline=on"),
        ("--offline=--listen=tcp:1", "--offline", "such as --offline=on"),
        ("--index-ttl --offline=on", "--index-ttl", "such as --index-ttl=1800"),
        ("--listen --offline=on", "--listen", "such as --listen=tcp:5000"),
        ("--listen=tcp:1 --listen --offline=on", "--listen", "such as --listen=tcp:5000"),
        ("--cache-dir --help", "--cache-dir", "a folder is accepted"),
        ("--index-url", "--index-url", "--index-url=https://"),
    ],
)
def test_an_option_without_a_value(arguments: str, option: str, value: str) -> None:
    """An option does not take the next one, or nothing, as its value: the line shows a value."""
    line = refusal(*arguments.split())
    assert line.startswith(f"proxpi: option {option} needs a value")
    assert value in line


@pytest.mark.parametrize(
    ("arguments", "names", "instead"),
    [
        ("--bind 0.0.0.0:5000", "--bind is an option", "tcp:5000 is what --bind 0.0.0.0:5000 was"),
        (
            "--bind 127.0.0.1:8000",
            "--bind is an option",
            "tcp:8000:interface=127.0.0.1 is what --bind 127.0.0.1:8000 was",
        ),
        ("--bind=:80", "--bind is an option", "tcp:80 is what --bind :80 was"),
        (
            "--bind=localhost:80",
            "--bind is an option",
            "tcp:80:interface=127.0.0.1 is what --bind localhost:80 was",
        ),
        ("-b unix:/a", "-b is an option", "unix:/a is what --bind unix:/a was"),
        (
            "-b [::1]:80",
            "-b is an option",
            r"'tcp6:80:interface=\:\:1' is what --bind [::1]:80 was",
        ),
        (
            "-b[::]:80 --threads 4 -w2",
            "-b, --threads, -w are options",
            "tcp6:80 is what --bind [::]:80 was; leave the rest out",
        ),
        ("--bind", "--bind is an option", "tcp:5000 is what --bind 0.0.0.0:5000 was"),
        ("--bind fd://3", "--bind is an option", "tcp:5000 is what --bind 0.0.0.0:5000 was"),
    ],
)
def test_an_address_of_gunicorn(arguments: str, names: str, instead: str) -> None:
    """The address that gunicorn was given is answered by the endpoint string that it becomes."""
    assert refusal(*arguments.split()) == (
        f"proxpi: {names} of gunicorn, which does not run proxpi; --listen {instead}"
    )


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ("--threads 4", "--threads is an option"),
        ("--index-ttl=1 --timeout=3 --workers 4", "--timeout, --workers are options"),
        ("-k gthread -t 30", "-k, -t are options"),
        ("--access-logfile - --preload x:app", "--access-logfile, --preload are options"),
    ],
)
def test_other_options_of_gunicorn(arguments: str, names: str) -> None:
    """Options of gunicorn without an address are to be left out, and no endpoint is named."""
    left_out = "leave it out" if "is an" in names else "leave them out"
    assert refusal(*arguments.split()) == (
        f"proxpi: {names} of gunicorn, which does not run proxpi; {left_out}"
    )


def test_a_bad_value() -> None:
    """A value that cannot be understood is named with option, variable and what is accepted."""
    assert refusal("--index-ttl=abc") == (
        "proxpi: PROXPI_INDEX_TTL='abc' (--index-ttl): not understood; "
        "a number of seconds, 0 or more, also with a unit such as 500ms, 30m or 2 days, is accepted"
    )


BAD_ENDPOINTS = [
    "nonsense",
    "tcp",
    "tcp:",
    "tcp:http:80:90",
    "tcp:5000:color=red",
    "tcp:5000:backlog=many",
    "ssl:5443:privateKey=/no/such/key.pem",
    "unix:/tmp/socket:mode=rw",
    "systemd:domain=INET:index=0",
    ":",
]


@pytest.mark.parametrize("endpoint", BAD_ENDPOINTS)
def test_a_bad_endpoint(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """However an endpoint string is wrong, the line names variable, value and an example."""
    line = refusal("--listen=tcp:5000", f"--listen={endpoint}")
    assert line.startswith(f"proxpi: PROXPI_LISTEN={endpoint!r} (--listen): not understood (")
    assert line.endswith("; a Twisted server endpoint string such as 'tcp:5000' is accepted")
    monkeypatch.setenv("PROXPI_LISTEN", endpoint)
    assert refusal().startswith(f"proxpi: PROXPI_LISTEN={endpoint!r}: not understood (")


@pytest.mark.parametrize(
    ("endpoint", "why"),
    [
        ("127.0.0.1:5000", "write tcp:5000:interface=127.0.0.1"),
        ("localhost:80", "write tcp:80:interface=127.0.0.1"),
        ("0.0.0.0:80", "write tcp:80"),
        ("8080", "write tcp:8080"),
        ("haproxy:tcp", "a part is missing, such as the port, or is unknown"),
        ("ssl", "a part is missing, such as the port, or is unknown"),
        ("systemd:domain=INET:index=0", "systemd passed no such socket on"),
        ("haproxy:systemd:domain=INET:index=3", "systemd passed no such socket on"),
    ],
)
def test_why_an_endpoint_is_bad(endpoint: str, why: str) -> None:
    """The reason is a clear clause, which names the endpoint string that was probably meant."""
    assert f": not understood ({why}); " in refusal(f"--listen={endpoint}")


@given(st.text(min_size=1).filter(lambda text: text.strip()))
def test_any_endpoint(text: str) -> None:
    """Whatever is given as an endpoint string is taken or refused in one line."""
    try:
        parsed(f"--listen={text}")
    except SystemExit as ended:
        assert len(str(ended.code).splitlines()) == 1


def test_options_load_without_a_reactor() -> None:
    """Reading options installs no reactor: which one it is to be is twistd's choice."""
    program = (
        "import sys, proxpi.options, proxpi.logs\n"
        "sys.exit('twisted.internet.reactor' in sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
