"""The table of settings: what is read, from where, and what is said of what cannot be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxpi.settings import SETTINGS, Settings, SettingsError, table

BY_NAME = {setting.name: setting for setting in SETTINGS}
SECONDS = ["index_ttl", "download_timeout", "connect_timeout", "read_timeout"]


def read(**variables: str) -> Settings:
    """The settings of an environment; names are without their ``PROXPI_``."""
    return Settings.read({f"PROXPI_{name}": value for name, value in variables.items()}, {})


def refusal(environment: dict[str, str], **options: str) -> str:
    """The one line that refuses an environment and options."""
    given_options = {name.replace("_", "-"): value for name, value in options.items()}
    with pytest.raises(SettingsError) as refused:
        Settings.read(environment, given_options)
    line = str(refused.value)
    assert "\n" not in line
    return line


def test_nothing_given() -> None:
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


def test_the_table_has_the_fields() -> None:
    """Each row of the table has its field in the settings, in the same order."""
    fields = [field.name for field in attrs.fields(Settings)]
    assert [*(setting.name for setting in SETTINGS), "by_option", "warnings"] == fields


def test_names_of_a_setting() -> None:
    """Variable and option are made of the one name."""
    setting = BY_NAME["index_url"]
    assert (setting.variable, setting.option) == ("PROXPI_INDEX_URL", "index-url")


def test_an_empty_variable_is_an_unset_one() -> None:
    """All variables set to nothing are the same as none set."""
    empty = {setting.variable: "" for setting in SETTINGS}
    files = {f"{setting.variable}_FILE": "" for setting in SETTINGS}
    assert Settings.read(empty | files, {}) == read()


def test_an_option_beats_the_environment() -> None:
    """What stands on the command line wins, and an empty option brings the default back."""
    environment = {"PROXPI_INDEX_TTL": "5", "PROXPI_CACHE_DIR": "/environment"}
    settings = Settings.read(environment, {"index-ttl": "7", "cache-dir": "", "cache-size": None})
    assert (settings.index_ttl, settings.cache_dir) == (7.0, None)


def test_an_option_beats_even_a_variable_that_is_wrong() -> None:
    """A variable that is not used is not judged."""
    assert Settings.read({"PROXPI_INDEX_TTL": "abc"}, {"index-ttl": "7"}).index_ttl == 7.0


def test_several_places_to_listen() -> None:
    """As an option, the place to listen may be given more than once; a variable is one place."""
    options: dict[str, str | list[str] | None] = {"listen": ["tcp:1", "unix:/a,b"]}
    assert Settings.read({"PROXPI_LISTEN": "tcp:3"}, options).listen == ("tcp:1", "unix:/a,b")
    assert read(LISTEN="tcp:3").listen == ("tcp:3",)


@pytest.mark.parametrize("text", ["0", "no", "off", "false", "No", "OFF", "False", " off "])
def test_switched_off(text: str) -> None:
    """Four words, in any case, switch off."""
    settings = read(BINARY_FILE_MIME_TYPE=text, DISABLE_INDEX_SSL_VERIFICATION=text)
    assert not settings.binary_file_mime_type
    assert not settings.disable_index_ssl_verification


@pytest.mark.parametrize("text", ["1", "yes", "on", "TRUE", "whatever"])
def test_switched_on(text: str) -> None:
    """Any other word switches on."""
    settings = read(BINARY_FILE_MIME_TYPE=text, DISABLE_INDEX_SSL_VERIFICATION=text)
    assert settings.binary_file_mime_type
    assert settings.disable_index_ssl_verification


@pytest.mark.parametrize("name", SECONDS)
@given(seconds=st.floats(min_value=0.001, allow_infinity=False))
def test_seconds(name: str, seconds: float) -> None:
    """Any finite number of seconds is taken, also with blanks around it."""
    assert getattr(read(**{name.upper(): f" {seconds!r} "}), name) == seconds


def test_no_seconds() -> None:
    """Zero is a time to live and a patience of nothing; for the other two it is the default."""
    settings = read(INDEX_TTL="0", DOWNLOAD_TIMEOUT="0", CONNECT_TIMEOUT="0", READ_TIMEOUT="0.0")
    assert (settings.index_ttl, settings.download_timeout) == (0.0, 0.0)
    assert (settings.connect_timeout, settings.read_timeout) == (3.1, 20.0)


@pytest.mark.parametrize("name", SECONDS)
@pytest.mark.parametrize("text", ["abc", "-1", "nan", "inf", "-inf", "1,5", " ", "1_0", "\u0663"])
def test_no_number_of_seconds(name: str, text: str) -> None:
    """What is no number, is negative or has no end is refused, by name."""
    variable = BY_NAME[name].variable
    line = refusal({variable: text})
    assert line.startswith(f"{variable}={text!r}: not understood; a number of seconds, 0 or more")
    assert line.endswith(" is accepted")


def test_size_of_the_cache() -> None:
    """A whole number of bytes, which may be zero."""
    assert read(CACHE_SIZE="0").cache_size == 0
    assert read(CACHE_SIZE=" 123 ").cache_size == 123


@pytest.mark.parametrize("text", ["-1", "1.5", "5XB", "1e9", "1_000", "\u0663", "nan", "inf"])
def test_no_size(text: str) -> None:
    """A negative or broken size, and one with an unknown unit, is refused."""
    assert refusal({"PROXPI_CACHE_SIZE": text}) == (
        f"PROXPI_CACHE_SIZE={text!r}: not understood; "
        "a whole number of bytes, 0 or more, also with a unit such as 500MB or 5GiB, is accepted"
    )


@pytest.mark.parametrize("name", ["cache_size", "page_limit", "list_limit"])
def test_every_size_has_units(name: str) -> None:
    """Each size may have a unit, and none may be larger than a disk."""
    variable = BY_NAME[name].variable
    assert getattr(Settings.read({variable: "5GB"}, {}), name) == 5_000_000_000
    assert getattr(Settings.read({variable: "5 gib"}, {}), name) == 5 * 2**30
    assert refusal({variable: "9999PB"}).startswith(f"{variable}='9999PB': too large; ")


@pytest.mark.parametrize("name", [*SECONDS, "drain_timeout"])
def test_every_time_has_units(name: str) -> None:
    """Each time may have a unit, and none may be longer than a clock counts."""
    variable = BY_NAME[name].variable
    assert getattr(Settings.read({variable: "1h30m"}, {}), name) == 5400.0
    assert refusal({variable: "1e999"}).startswith(f"{variable}='1e999': too long; ")


def test_times_to_live_with_units() -> None:
    """So may each of a list of times, which a comma separates."""
    extra = {"EXTRA_INDEX_URLS": "http://a/,http://b/", "EXTRA_INDEX_TTLS": "30m, 2 days"}
    assert read(**extra).extra_index_ttls == (1800.0, 172800.0)


def test_connections_and_limits() -> None:
    """There is at least one connection, and one byte: none at all would be no proxy."""
    for name in ("upstream_connections", "page_limit", "list_limit"):
        setting = BY_NAME[name]
        assert getattr(Settings.read({setting.variable: "1"}, {}), name) == 1
        for text in ("0", "-1", "1.5", "many"):
            assert setting.variable in refusal({setting.variable: text})


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("Files.Corp., a", ("files.corp", "a")),
        ("10.0.0.1,[fd00::1],FD00::2", ("10.0.0.1/32", "fd00::1/128", "fd00::2/128")),
        ("10.1.2.3/8,fd00::/8", ("10.0.0.0/8", "fd00::/8")),
        ("index_1.corp,xn--bcher-kva.example", ("index_1.corp", "xn--bcher-kva.example")),
        (" , ", ()),
    ],
)
def test_allowed_hosts(text: str, hosts: tuple[str, ...]) -> None:
    """Names, addresses and networks, in any case."""
    assert Settings.read({"PROXPI_ALLOW_HOSTS": text}, {}).allow_hosts == hosts


@pytest.mark.parametrize(
    "text",
    [
        "*",
        ".corp",
        "a..b",
        "http://a",
        "a:80",
        "a/8",
        "10.0.0.1/33",
        "1.2.3",
        "300.1.1.1",
        "b\u00fc",
    ],
)
def test_no_host(text: str) -> None:
    """Anything else is refused: it would open nothing, or more than was meant."""
    assert "PROXPI_ALLOW_HOSTS" in refusal({"PROXPI_ALLOW_HOSTS": text})


def test_hosts() -> None:
    """Names as they stand in ``Host``, in any case, with a port or without."""
    text = "Proxpi.Corp.example., a:5000 ,[::1]:80,10.0.0.1"
    assert read(HOSTS=text).hosts == ("proxpi.corp.example", "a", "::1", "10.0.0.1")


@pytest.mark.parametrize(
    "text",
    [
        "https://proxpi.corp.example/",
        "http://a:80",
        "//a",
        "a/",
        "a/b",
        "a?b",
        "u@a",
        "a:",
        "a:b",
        "https:",
        "*.corp",
        "a b",
        "::1",
    ],
)
def test_no_hosts(text: str) -> None:
    """Anything else is refused, as it would be the ``Host`` of no request."""
    assert f"PROXPI_HOSTS={'b,' + text!r}: not understood; " in refusal(
        {"PROXPI_HOSTS": f"b,{text}"}
    )


def test_logging_level() -> None:
    """A level is called as Python calls it, in any case, and nothing else."""
    assert read(LOGGING_LEVEL=" warning").logging_level == "WARNING"
    assert "DEBUG, INFO, WARNING, ERROR, CRITICAL" in refusal({"PROXPI_LOGGING_LEVEL": "LOUD"})


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
def test_index_url(text: str, url: str) -> None:
    """An index's URL ends in one slash, and is else as it was."""
    settings = read(INDEX_URL=text, EXTRA_INDEX_URLS=f"{text},,http://other/")
    assert settings.index_url == url
    assert settings.extra_index_urls == (url, "http://other/")


@pytest.mark.parametrize(
    "text",
    [
        "h/simple",
        "//h/",
        "ftp://h/",
        "http://",
        "http://h:99999/",
        "http://h /",
        "http://h/#a",
        "http://h/a?key=b",
        "http://\u2488.example/",
        f"http://{'é' * 300}.example/",
        "x",
    ],
)
def test_no_index_url(text: str) -> None:
    """A URL without scheme or host, or with what no server is asked for, is refused."""
    line = refusal({"PROXPI_INDEX_URL": text})
    assert line.startswith(f"PROXPI_INDEX_URL={text!r}: not understood; ")
    assert line.endswith("; an http or https URL with a host is accepted")
    assert refusal({"PROXPI_EXTRA_INDEX_URLS": f"http://h/,{text}"}).startswith(
        f"PROXPI_EXTRA_INDEX_URLS='http://h/,{text}'"
    )


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
    """What may be a password is not in the line that refuses a URL, however broken it is."""
    line = refusal({f"PROXPI_{name}": text})
    assert "secret" not in line
    assert "***@" in line


def test_the_settings_can_be_shown() -> None:
    """Settings in a log or a traceback show no password."""
    urls = "http://user:secret@h/"
    assert "secret" not in repr(read(INDEX_URL=urls, EXTRA_INDEX_URLS=urls))


def test_a_refusal_names_the_option() -> None:
    """A wrong option is named together with the variable that it stands for."""
    assert refusal({}, index_ttl="abc") == (
        "PROXPI_INDEX_TTL='abc' (--index-ttl): not understood; "
        "a number of seconds, 0 or more, also with a unit such as 500ms, 30m or 2 days, is accepted"
    )


TWO = {"PROXPI_EXTRA_INDEX_URLS": "http://a/,http://b/"}


@pytest.mark.parametrize(
    ("environment", "ttls"),
    [
        ({}, (180.0, 180.0)),
        ({"PROXPI_EXTRA_INDEX_TTLS": "1, 2.5"}, (1.0, 2.5)),
        ({"PROXPI_EXTRA_INDEX_TTL": "3,4", "PROXPI_EXTRA_INDEX_TTLS": "1,2"}, (3.0, 4.0)),
        ({"PROXPI_EXTRA_INDEX_TTL": "", "PROXPI_EXTRA_INDEX_TTLS": "1,2"}, (1.0, 2.0)),
    ],
)
def test_times_to_live_of_extra_indexes(
    environment: dict[str, str], ttls: tuple[float, ...]
) -> None:
    """One number per extra index, 180 by default; the original's older variable wins."""
    assert Settings.read(TWO | environment, {}).extra_index_ttls == ttls


def test_an_option_beats_the_older_variable() -> None:
    """The older variable wins over its successor, not over the command line."""
    environment = TWO | {"PROXPI_EXTRA_INDEX_TTL": "3,4"}
    settings = Settings.read(environment, {"extra-index-ttls": "5,6"})
    assert settings.extra_index_ttls == (5.0, 6.0)


@pytest.mark.parametrize("variable", ["PROXPI_EXTRA_INDEX_TTLS", "PROXPI_EXTRA_INDEX_TTL"])
def test_counts_that_differ(variable: str) -> None:
    """Times to live that are more or fewer than the indexes are an error that says so."""
    line = refusal(TWO | {variable: "1"})
    assert line.startswith(f"{variable}='1': 1 given for the 2 of PROXPI_EXTRA_INDEX_URLS; ")
    assert "3 given for the 2" in refusal(TWO | {variable: "1,2,3"})
    assert "1 given for the 0" in refusal({variable: "1"})


def test_a_secret_from_a_file(tmp_path: Path) -> None:
    """A setting that may hold a password can be given as a file that holds it."""
    file = tmp_path / "url"
    file.write_text("http://user:secret@h/simple\n")
    settings = read(INDEX_URL_FILE=str(file), EXTRA_INDEX_URLS_FILE=str(file))
    assert settings.index_url == "http://user:secret@h/simple/"
    assert settings.extra_index_urls == (settings.index_url,)


def test_only_secrets_come_from_files(tmp_path: Path) -> None:
    """A file is not read for a setting that is no secret."""
    assert read(INDEX_TTL_FILE=str(tmp_path / "none")).index_ttl == 1800.0


def test_a_secret_given_twice(tmp_path: Path) -> None:
    """Variable and file together are an error that names both."""
    line = refusal({"PROXPI_INDEX_URL": "http://h/", "PROXPI_INDEX_URL_FILE": "/x"})
    assert line == "PROXPI_INDEX_URL_FILE='/x': PROXPI_INDEX_URL is set too; only one is accepted"


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b""])
def test_a_file_without_a_secret(tmp_path: Path, content: bytes | None) -> None:
    """A file that is not there, is no text or has nothing in it is an error that names it."""
    file = tmp_path / "url"
    if content is not None:
        file.write_bytes(content)
    line = refusal({"PROXPI_INDEX_URL_FILE": str(file)})
    assert line.startswith("PROXPI_INDEX_URL_FILE=")
    assert line.endswith(" is accepted")


@given(
    st.dictionaries(
        st.sampled_from([setting.variable for setting in SETTINGS]),
        st.text(st.characters(codec="utf-8", exclude_characters="\0")),
    )
)
def test_any_environment(environment: dict[str, Any]) -> None:
    """Whatever stands in the variables is understood or refused in one line; nothing else."""
    try:
        Settings.read(environment, {})
    except SettingsError as error:
        assert len(str(error).splitlines()) == 1


def test_the_table_explains_every_setting() -> None:
    """The table for people has each variable with its default and its sentence."""
    rows = table()
    for setting in SETTINGS:
        assert f"``{setting.variable}``" in rows
        assert setting.explains in rows
        assert (setting.default or setting.otherwise) in rows
        assert setting.explains.endswith(".")
