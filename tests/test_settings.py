"""The table of settings: what is read, from where, and the line that refuses a text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxpi.settings import RETIRED, SETTINGS, Settings, SettingsError, table

BY_NAME = {setting.name: setting for setting in SETTINGS}
TIMES = ["index_ttl", "download_timeout", "connect_timeout", "read_timeout", "drain_timeout"]
SIZES = ["cache_size", "page_limit", "list_limit"]
PATHS = ["cache_dir", "ca_bundle", "client_cert"]
TWO = {"PROXPI_EXTRA_INDEX_URLS": "http://a/,http://b/"}


def read(**variables: str) -> Settings:
    """Read the settings of an environment; names are without their ``PROXPI_``."""
    return Settings.read({f"PROXPI_{name}": value for name, value in variables.items()}, {})


def value(name: str, text: str) -> Any:
    """Read one setting."""
    return getattr(read(**{name.upper(): text}), name)


def refusal(environment: dict[str, str], **options: str) -> str:
    """Give the one line that refuses an environment and options."""
    given_options = {name.replace("_", "-"): value for name, value in options.items()}
    with pytest.raises(SettingsError) as refused:
        Settings.read(environment, given_options)
    line = str(refused.value)
    assert "\n" not in line
    return line


def refused(name: str, text: str) -> str:
    """Give what the line says after the variable and the text of one setting."""
    variable = f"PROXPI_{name.upper()}"
    line = refusal({variable: text})
    assert line.startswith(f"{variable}={text!r}: "), line
    assert line.endswith(" is accepted"), line
    return line.removeprefix(f"{variable}={text!r}: ")


def test_defaults() -> None:
    """Without any setting proxpi serves the default index, on loopback, from a new folder."""
    assert read() == Settings(
        listen=("tcp:5000:interface=127.0.0.1",),
        index_url=BY_NAME["index_url"].default,
        index_ttl=1800.0,
        extra_index_urls=(),
        extra_index_ttls=(),
        cache_size=5368709120,
        cache_dir=None,
        binary_file_mime_type=False,
        disable_index_ssl_verification=False,
        ca_bundle=None,
        client_cert=None,
        download_timeout=0.9,
        slow_download="redirect",
        connect_timeout=3.1,
        read_timeout=20.0,
        upstream_connections=32,
        page_limit=64 * 1024 * 1024,
        list_limit=256 * 1024 * 1024,
        allow_hosts=(),
        hosts=(),
        offline=False,
        drain_timeout=8.0,
        logging_level="INFO",
    )


def test_the_table() -> None:
    """Each row has its field, its names, and its line in the README's table."""
    fields = [field.name for field in attrs.fields(Settings)]
    assert [*(setting.name for setting in SETTINGS), "by_option", "warnings"] == fields
    setting = BY_NAME["index_url"]
    assert (setting.variable, setting.option) == ("PROXPI_INDEX_URL", "index-url")
    for setting in SETTINGS:
        assert f"``{setting.variable}``" in table()
        assert setting.explains in table()
        assert (setting.default or setting.otherwise) in table()
        assert setting.explains.endswith(".")


def test_an_empty_variable_is_an_unset_one() -> None:
    """All variables set to nothing are the same as none set."""
    empty = {setting.variable: "" for setting in SETTINGS}
    files = {f"{setting.variable}_FILE": "" for setting in SETTINGS}
    assert Settings.read(empty | files, {}) == read()


def test_an_option_beats_the_environment() -> None:
    """An option wins, also over a wrong variable; an empty option brings the default back."""
    environment = {"PROXPI_INDEX_TTL": "abc", "PROXPI_CACHE_DIR": "/environment"}
    settings = Settings.read(environment, {"index-ttl": "7", "cache-dir": "", "cache-size": None})
    assert (settings.index_ttl, settings.cache_dir) == (7.0, None)
    assert refusal({}, index_ttl="abc") == (
        "PROXPI_INDEX_TTL='abc' (--index-ttl): not understood; "
        "a number of seconds, 0 or more, also with a unit such as 500ms, 30m or 2 days, is accepted"
    )


def test_listen() -> None:
    """As an option, the endpoint may be given more than once; a variable is one endpoint."""
    options: dict[str, str | list[str] | None] = {"listen": ["tcp:1", "unix:/a,b"]}
    assert Settings.read({"PROXPI_LISTEN": "tcp:3"}, options).listen == ("tcp:1", "unix:/a,b")
    assert read(LISTEN="tcp:3").listen == ("tcp:3",)


def test_switches() -> None:
    """Four words, in any case, are off, and any other is on."""
    for name in ("binary_file_mime_type", "disable_index_ssl_verification", "offline"):
        for text in ("0", "no", "off", "false", "No", "OFF", "False", " off "):
            assert value(name, text) is False
        for text in ("1", "yes", "on", "TRUE", "whatever"):
            assert value(name, text) is True


@pytest.mark.parametrize("name", TIMES)
@given(seconds=st.floats(min_value=0.001, allow_infinity=False))
def test_times(name: str, seconds: float) -> None:
    """Any finite number of seconds is accepted, with blanks around it or a unit."""
    assert value(name, f" {seconds!r} ") == seconds
    assert value(name, "1h30m") == 5400.0


@pytest.mark.parametrize("name", TIMES)
def test_no_times(name: str) -> None:
    """No number, a negative one and one without an end are refused, by name."""
    for text in ("abc", "-1", "nan", "inf", "-inf", "1,5", " ", "1_0", "\u0663"):
        assert refused(name, text).startswith("not understood; a number of seconds, 0 or more")
    assert refused(name, "1e999").startswith("too long; ")


def test_no_seconds() -> None:
    """Zero is a time to live and a wait of nothing; for the other two it is the default."""
    settings = read(INDEX_TTL="0", DOWNLOAD_TIMEOUT="0", CONNECT_TIMEOUT="0", READ_TIMEOUT="0.0")
    assert (settings.index_ttl, settings.download_timeout) == (0.0, 0.0)
    assert (settings.connect_timeout, settings.read_timeout) == (3.1, 20.0)


@pytest.mark.parametrize("name", SIZES)
def test_sizes(name: str) -> None:
    """Each size may have a unit; a negative, broken or enormous one is refused."""
    for text, meant in ((" 123 ", 123), ("5GB", 5 * 10**9), ("5 gib", 5 * 2**30), ("1", 1)):
        assert value(name, text) == meant
    for text in ("-1", "1.5", "5XB", "1e9", "1_000", "\u0663", "nan", "inf"):
        assert refused(name, text).startswith("not understood; a whole number of bytes, ")
    assert refused(name, "9999PB").startswith("too large; ")


def test_none_at_all() -> None:
    """The cache may be empty; no connection and no byte of a page would be no proxy."""
    assert value("cache_size", "0") == 0
    assert value("upstream_connections", "1") == 1
    for name in ("upstream_connections", "page_limit", "list_limit"):
        for text in ("0", "-1", "1.5", "many"):
            assert refused(name, text).startswith("not understood; a whole number")


@pytest.mark.parametrize(
    ("name", "text", "hosts"),
    [
        ("allow_hosts", "Files.Corp., a", "files.corp a"),
        ("allow_hosts", "10.0.0.1,[fd00::1],FD00::2", "10.0.0.1/32 fd00::1/128 fd00::2/128"),
        ("allow_hosts", "10.1.2.3/8,fd00::/8", "10.0.0.0/8 fd00::/8"),
        ("allow_hosts", "index_1.corp,xn--bcher-kva.example", "index_1.corp xn--bcher-kva.example"),
        ("allow_hosts", " , ", ""),
        ("hosts", "Proxpi.Corp.example., a:5000 ,[::1]:80", "proxpi.corp.example a ::1"),
        ("hosts", "10.0.0.1", "10.0.0.1"),
    ],
)
def test_hosts(name: str, text: str, hosts: str) -> None:
    """Names, addresses and networks that links may lead to; names as they stand in ``Host``."""
    assert value(name, text) == tuple(hosts.split())


def test_no_hosts() -> None:
    """Anything else is refused: it would allow nothing, or more than was meant."""
    for text in [
        "*",
        ".corp",
        "a..b",
        "http://a",
        "a:80",
        "a/8",
        "10.0.0.1/33",
        "1.2.3",
        "300.1.1.1",
        "bü",
    ]:
        assert refused("allow_hosts", text)
    bad = "https://proxpi.corp.example/ http://a:80 //a a/ a/b a?b u@a a: a:b https: *.corp ::1"
    for text in [*bad.split(), "a b"]:
        assert refused("hosts", f"b,{text}").startswith("not understood; ")


def test_words() -> None:
    """A level is called as Python calls it, and an answer as the table does, in any case."""
    assert value("logging_level", " warning") == "WARNING"
    assert value("slow_download", "Stream") == "stream"
    assert "DEBUG, INFO, WARNING, ERROR, CRITICAL" in refused("logging_level", "LOUD")
    assert "redirect or stream" in refused("slow_download", "wait")


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://h", "http://h/"),
        ("https://h/simple", "https://h/simple/"),
        (" https://h/simple// ", "https://h/simple/"),
        ("https://u:p%40w@h:8443/a/", "https://u:p%40w@h:8443/a/"),
        ("http://[::1]:80/a", "http://[::1]:80/a/"),
        ("https://bücher.example/simple", "https://xn--bcher-kva.example/simple/"),
        ("https://u:pß@Bücher.example:81", "https://u:pß@xn--bcher-kva.example:81/"),
    ],
)
def test_index_urls(text: str, url: str) -> None:
    """An index's URL ends in one slash, and is otherwise as it was."""
    settings = read(INDEX_URL=text, EXTRA_INDEX_URLS=f"{text},,http://other/")
    assert settings.index_url == url
    assert settings.extra_index_urls == (url, "http://other/")


def test_no_index_urls() -> None:
    """A URL without scheme or host, or with a query or fragment, is refused."""
    bad = "h/simple //h/ ftp://h/ http:// http://h:99999/ http://h/#a http://h/a?key=b x"
    for text in [*bad.split(), "http://h /", "http://\u2488.example/", f"http://{'é' * 300}.x/"]:
        why = "not understood; an http or https URL with a host is accepted"
        assert refused("index_url", text) == why
        assert refused("extra_index_urls", f"http://h/,{text}")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("INDEX_URL", "ftp://user:secret@h/"),
        ("INDEX_URL", "https//user:secret@h/"),
        ("INDEX_URL", "user:secret@h"),
        ("INDEX_URL", "http://user:se#secret@h/"),
        ("INDEX_URL", "http://user:se/secret@h:x/"),
        ("EXTRA_INDEX_URLS", "user:secret@h"),
        ("EXTRA_INDEX_URLS", "http://a:secret@h/,ftp://b:secret@i/"),
        ("EXTRA_INDEX_URLS", "http://a:x,secret@h/,ftp://i/"),
    ],
)
def test_a_refusal_hides_the_password(name: str, text: str) -> None:
    """The line that refuses a URL, however broken, shows no password."""
    line = refusal({f"PROXPI_{name}": text})
    assert "secret" not in line
    assert "***@" in line


def test_the_settings_hide_the_password() -> None:
    """Settings in a log or a traceback show no password."""
    urls = "http://user:secret@h/"
    assert "secret" not in repr(read(INDEX_URL=urls, EXTRA_INDEX_URLS=urls))


@pytest.mark.parametrize(
    ("environment", "options", "ttls"),
    [
        ({}, {}, (180.0, 180.0)),
        ({"PROXPI_EXTRA_INDEX_TTLS": "30m, 2.5"}, {}, (1800.0, 2.5)),
        ({"PROXPI_EXTRA_INDEX_TTL": "3,4", "PROXPI_EXTRA_INDEX_TTLS": "1,2"}, {}, (3.0, 4.0)),
        ({"PROXPI_EXTRA_INDEX_TTL": "", "PROXPI_EXTRA_INDEX_TTLS": "1,2"}, {}, (1.0, 2.0)),
        ({"PROXPI_EXTRA_INDEX_TTL": "3,4"}, {"extra-index-ttls": "5,6"}, (5.0, 6.0)),
    ],
)
def test_ttls_of_extra_indexes(
    environment: dict[str, str], options: dict[str, str | list[str] | None], ttls: tuple[float, ...]
) -> None:
    """One per extra index, 180 by default; the original's older variable wins, an option most."""
    assert Settings.read(TWO | environment, options).extra_index_ttls == ttls


@pytest.mark.parametrize("variable", ["PROXPI_EXTRA_INDEX_TTLS", "PROXPI_EXTRA_INDEX_TTL"])
def test_counts_that_differ(variable: str) -> None:
    """Times to live that are more or fewer than the indexes are an error that says so."""
    line = refusal(TWO | {variable: "1"})
    assert line.startswith(f"{variable}='1': 1 given for the 2 of PROXPI_EXTRA_INDEX_URLS; ")
    assert "3 given for the 2" in refusal(TWO | {variable: "1,2,3"})
    assert "1 given for the 0" in refusal({variable: "1"})


def test_a_secret_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting that may hold a password, and no other, can be given as a file."""
    monkeypatch.setenv("HOME", str(tmp_path))
    file = tmp_path / "url"
    file.write_text("http://user:secret@h/simple\n")
    settings = read(INDEX_URL_FILE="~/url", EXTRA_INDEX_URLS_FILE=str(file), INDEX_TTL_FILE="/x")
    assert settings.index_url == "http://user:secret@h/simple/"
    assert settings.extra_index_urls == (settings.index_url,)
    assert settings.index_ttl == 1800.0
    line = refusal({"PROXPI_INDEX_URL": "http://h/", "PROXPI_INDEX_URL_FILE": "/x"})
    assert line == "PROXPI_INDEX_URL_FILE='/x': PROXPI_INDEX_URL is set too; only one is accepted"
    assert "~no-such-user is not known" in refused("index_url_file", "~no-such-user/url")


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b""])
def test_a_file_without_a_secret(tmp_path: Path, content: bytes | None) -> None:
    """A file that is missing, is no text or is empty is an error that names it."""
    file = tmp_path / "url"
    if content is not None:
        file.write_bytes(content)
    line = refusal({"PROXPI_INDEX_URL_FILE": str(file)})
    assert line.startswith("PROXPI_INDEX_URL_FILE=")
    assert line.endswith(" is accepted")


@pytest.mark.parametrize("name", PATHS)
def test_home_folders(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a path, ``~`` and ``~user`` are home folders, but only at its beginning."""
    monkeypatch.setenv("HOME", "/home/me")
    root = Path("~root").expanduser()
    for text, path in (
        ("~", "/home/me"),
        ("~/a/~", "/home/me/a/~"),
        ("~root/a", f"{root}/a"),
        ("a/~/b", "a/~/b"),
        ("./~", "./~"),
    ):
        assert value(name, text) == path
    assert "~no-such-user is not known" in refused(name, "~no-such-user/a")


@given(
    st.dictionaries(
        st.sampled_from([setting.variable for setting in SETTINGS]),
        st.text(st.characters(codec="utf-8", exclude_characters="\0")),
    )
)
def test_any_environment(environment: dict[str, Any]) -> None:
    """Any text is accepted or refused in one line."""
    try:
        Settings.read(environment, {})
    except SettingsError as error:
        assert len(str(error).splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        *RETIRED.items(),
        ("PROXPI_INDX_URL", "did you mean PROXPI_INDEX_URL?"),
        ("PROXPI_INDEXURL", "did you mean PROXPI_INDEX_URL?"),
        ("proxpi_index_url", "did you mean PROXPI_INDEX_URL?"),
        ("PROXPI_INDX_URL_FILE", "did you mean PROXPI_INDEX_URL_FILE?"),
        ("PROXPI_EXTRA_INDEX_URL", "did you mean PROXPI_EXTRA_INDEX_URLS?"),
        ("PROXPI_CACHESIZE", "did you mean PROXPI_CACHE_SIZE?"),
        ("PROXPI_LOG_LEVEL", "did you mean PROXPI_LOGGING_LEVEL?"),
        ("PROXPI_DRAIN", "did you mean PROXPI_DRAIN_TIMEOUT?"),
        ("PROXPI_CACHE_SIZE_FILE", "only what may hold a secret is read from a file; set"),
        *((f"PROXPI_{odd}", "the nearest name is PROXPI_") for odd in ("FOO", "X", "123")),
        *((f"PROXPI_{odd}", "there is no such setting") for odd in ("", "_", "\u00fc")),
    ],
)
def test_a_variable_without_effect(name: str, reason: str) -> None:
    """It is one warning with the reason or the nearest setting, and without the value."""
    settings = Settings.read({name: "secret", "PROXPI_INDEX_TTL": "5"}, {})
    [warning] = settings.warnings
    assert warning.startswith(f"{name} has no effect: ")
    assert reason in warning
    assert "secret" not in warning.replace("may hold a secret", "")
    assert settings.index_ttl == 5.0
    assert Settings.read({name: ""}, {}).warnings == ()


def test_no_warning() -> None:
    """Settings, other programs' variables, and those of Kubernetes and Docker are no mistakes."""
    services = {
        "PROXPI_SERVICE_HOST": "10.0.0.1",
        "PROXPI_SERVICE_PORT": "5000",
        "PROXPI_SERVICE_PORT_HTTP": "5000",
        "PROXPI_PORT": "tcp://10.0.0.1:5000",
        "PROXPI_PORT_5000_TCP": "tcp://10.0.0.1:5000",
        "PROXPI_PORT_5000_TCP_ADDR": "10.0.0.1",
        "PATH": "/bin",
        "MY_PROXPI_URL": "x",
        "PROXY": "x",
    }
    extra = {"PROXPI_EXTRA_INDEX_URLS": "http://a/", "PROXPI_EXTRA_INDEX_TTL": "5"}
    assert Settings.read(services | extra, {}).warnings == ()
