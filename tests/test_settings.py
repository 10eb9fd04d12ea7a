"""The table of settings: names, sources, accepted values, and the line that refuses a text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxpi.config import IndexSettings, RuleSettings, ViewSettings
from proxpi.settings import RETIRED, SETTINGS, Given, Setting, Settings, table
from proxpi.values import SettingsError, peer

BY_NAME = {setting.name: setting for setting in SETTINGS}
TIMES = "download_timeout connect_timeout read_timeout drain_timeout"
SIZES = "cache_size page_limit list_limit"
PATHS = "cache_dir ca_bundle client_cert"
SWITCHES = "binary_file_mime_type disable_index_ssl_verification offline"
TWO = {"PROXPI_EXTRA_INDEX_URLS": "http://a/,http://b/"}
INDEXES = "index_url extra_index_urls"


def read(**variables: str) -> Settings:
    """Read the settings of an environment; names are without their ``PROXPI_``."""
    return Settings.read({f"PROXPI_{name}": value for name, value in variables.items()}, {})


def value(name: str, text: str) -> Any:
    return getattr(read(**{name.upper(): text}), name)


def refusal(environment: dict[str, str], **options: str) -> str:
    """Return the one line that refuses an environment and options."""
    given_options = {name.replace("_", "-"): value for name, value in options.items()}
    with pytest.raises(SettingsError) as refused:
        Settings.read(environment, given_options)
    line = str(refused.value)
    assert "\n" not in line
    return line


def refused(name: str, text: str) -> str:
    """Return the text of the line after the variable and the value of one setting."""
    variable = f"PROXPI_{name.upper()}"
    line = refusal({variable: text})
    assert line.startswith(f"{variable}={text!r}: "), line
    assert line.endswith(" is accepted"), line
    return line.removeprefix(f"{variable}={text!r}: ")


def test_defaults() -> None:
    """Without any setting proxpi serves the default index, on loopback, from a new folder."""
    assert read() == Settings(
        listen=("tcp:5000:interface=127.0.0.1",),
        indexes=(IndexSettings(name="root", url=BY_NAME["index_url"].default, ttl=1800.0),),
        views=(ViewSettings("default", ("root",)),),
        rules=RuleSettings(),
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
        trusted_proxies=(),
        admin_token=None,
        offline=False,
        prefetch=True,
        drain_timeout=8.0,
        logging_level="INFO",
        log_format="text",
    )


def test_the_table() -> None:
    """Each row has its field, its names, and its line in the README's table."""
    fields = [field.name for field in attrs.fields(Settings)]
    combined = [
        "config",
        "index_url",
        "index_ttl",
        "extra_index_urls",
        "extra_index_ttls",
        "exclude_newer",
    ]
    values = [name for name in BY_NAME if name not in combined]
    made = ["indexes", "views", "rules", "in_force", "warnings"]
    assert sorted([*values, *made]) == sorted(fields)
    for setting in SETTINGS:
        for part in (setting.variable, setting.explains, setting.default or setting.otherwise):
            assert part in table()
        assert setting.explains.endswith(".")


def test_an_empty_variable_is_an_unset_one() -> None:
    """All variables set to nothing are the same as none set."""
    empty = {setting.variable: "" for setting in SETTINGS}
    files = {f"{setting.variable}_FILE": "" for setting in SETTINGS}
    assert Settings.read(empty | files, {}) == read()


def test_an_option_beats_the_environment() -> None:
    """An option wins, also over a wrong variable; an empty one is the default; one may repeat."""
    environment = {"PROXPI_INDEX_TTL": "abc", "PROXPI_CACHE_DIR": "/environment"}
    settings = Settings.read(environment, {"index-ttl": "7", "cache-dir": "", "cache-size": None})
    assert (settings.indexes[0].ttl, settings.cache_dir) == (7.0, None)
    assert refusal({}, index_ttl="abc") == (
        "PROXPI_INDEX_TTL='abc' (--index-ttl): not understood; "
        "a number of seconds, 0 or more, also with a unit such as 500ms, 30m or 2 days, is accepted"
    )
    listen = {"listen": ["tcp:1", "unix:/a,b"]}
    assert Settings.read({"PROXPI_LISTEN": "tcp:3"}, {**listen}).listen == ("tcp:1", "unix:/a,b")
    assert read(LISTEN="tcp:3").listen == ("tcp:3",)


def in_force(settings: Settings) -> dict[str, tuple[str, str]]:
    """Return the values in force with their sources, by variable."""
    return {row.variable: (row.value, row.source) for row in settings.in_force}


def test_values_in_force_have_a_source(tmp_path: Path) -> None:
    """Each setting is in force once, as it was written, and says where that comes from."""
    rows = in_force(read())
    assert list(rows) == [setting.variable for setting in SETTINGS]
    assert {source for _, source in rows.values()} == {"default"}
    assert rows["PROXPI_CACHE_DIR"] == ("a new temporary folder, removed at exit", "default")
    (tmp_path / "url").write_text("https://in-file.example/")
    environment = {"PROXPI_CACHE_SIZE": "5GB", "PROXPI_INDEX_URL_FILE": f"{tmp_path}/url"}
    environment["PROXPI_READ_TIMEOUT"] = "3"
    options: dict[str, str | list[str] | None] = {"read-timeout": "4"}
    options["listen"] = ["tcp:1", "tcp:2"]
    rows = in_force(Settings.read(environment, options))
    assert rows["PROXPI_CACHE_SIZE"] == ("5GB", "environment")
    assert rows["PROXPI_INDEX_URL"] == ("https://in-file.example/", "file")
    assert rows["PROXPI_READ_TIMEOUT"] == ("4", "option")
    assert rows["PROXPI_LISTEN"] == ("tcp:1, tcp:2", "option")
    folder = in_force(read(INDEX_URL="file:///srv/wheels"))
    assert folder["PROXPI_INDEX_TTL"] == ("10", "default")


def test_values_in_force_hide_secrets() -> None:
    """A URL is shown without its credentials, and a secret that is no URL not at all."""
    secret = Setting(name="a_secret", accepts="any text", explains="A secret.", secret=True)
    assert secret.in_force([Given("PROXPI_A_SECRET", "hush")]).value == "set"
    assert secret.in_force([]).value == "none"
    assert "hush" not in str(secret.refusal(Given("PROXPI_A_SECRET", "hush"), "too short"))
    extra = "https://me:pa@ss@a.example/,http://you@b.example"
    rows = in_force(read(INDEX_URL="https://me:pa,ss@c.example", EXTRA_INDEX_URLS=extra))
    assert rows["PROXPI_INDEX_URL"][0] == "https://c.example/"
    assert rows["PROXPI_EXTRA_INDEX_URLS"][0] == "https://a.example/, http://b.example/"


def test_values_in_force_are_one_line_each() -> None:
    """A line break in a value is escaped."""
    assert in_force(read(CACHE_DIR="/a\n[b]"))["PROXPI_CACHE_DIR"][0] == r"/a\n[b]"


#: The settings of a kind, texts separated by bars, and their meaning.
ACCEPTED: list[tuple[str, str, object]] = [
    (SWITCHES, "0|no|off|false|No|OFF|False| off ", False),
    (SWITCHES, "1|yes|on|TRUE|maybe", True),
    (TIMES, "5400| 5400.0 |1h30m", 5400.0),
    (SIZES, " 5368709120 |5 gib", 5 * 2**30),
    ("download_timeout drain_timeout cache_size", "0", 0),
    ("connect_timeout", "0|0.0", 3.1),
    ("read_timeout", "0|0.0", 20.0),
    ("upstream_connections page_limit list_limit", "1", 1),
    ("logging_level", " warning", "WARNING"),
    ("logging_level", "warn", "WARNING"),
    ("logging_level", "FATAL", "CRITICAL"),
    ("slow_download", "Stream", "stream"),
    ("allow_hosts", "Files.Corp., a", ("files.corp", "a")),
    ("allow_hosts", "10.0.0.1,[fd00::1]", ("10.0.0.1/32", "fd00::1/128")),
    ("allow_hosts", "10.1.2.3/8,fd00::/8", ("10.0.0.0/8", "fd00::/8")),
    ("allow_hosts", "index_1.corp,xn--b.example", ("index_1.corp", "xn--b.example")),
    ("allow_hosts", " , ", ()),
    ("hosts", "Proxpi.Corp., a:5000 ,[::1]:80,10.1.1.1", ("proxpi.corp", "a", "::1", "10.1.1.1")),
    (
        "trusted_proxies",
        "10.1.2.3/8, Unix,[fd00::1]",
        (*map(peer, ("10.0.0.0/8", "unix", "fd00::1")),),
    ),
    ("trusted_proxies", "10.0.0.1|10.0.0.1/32,", (peer("10.0.0.1"),)),
    ("cache_dir", "", None),
    (PATHS, "~", "/home/me"),
    (PATHS, "~/a/~", "/home/me/a/~"),
    (PATHS, "~root/a", f"{Path('~root').expanduser()}/a"),
    (PATHS, "a/~/b", "a/~/b"),
    (PATHS, "./~", "./~"),
]


@pytest.mark.parametrize(("names", "texts", "meaning"), ACCEPTED)
def test_accepted(monkeypatch: pytest.MonkeyPatch, names: str, texts: str, meaning: object) -> None:
    """Each setting understands the texts of its kind, in any case and with blanks around them."""
    monkeypatch.setenv("HOME", "/home/me")
    for name in names.split():
        for text in texts.split("|"):
            assert value(name, text) == meaning, (name, text)


#: The settings of a kind, texts separated by bars, and the reason of the refusal.
REFUSED = [
    (
        f"{TIMES} index_ttl",
        "abc|-1|nan|inf|1,5| |1_0",
        "not understood; a number of seconds, 0 or more",
    ),
    (TIMES, "1e999", "too long; "),
    (SIZES, "-1|1.5|5XB|1e9|nan", "not understood; a whole number of bytes, "),
    (SIZES, "9999PB", "too large; "),
    ("upstream_connections page_limit list_limit", "0|-1|1.5|many", "not understood; a whole num"),
    ("logging_level", "LOUD", "not understood; one of DEBUG, INFO, WARNING, ERROR, CRITICAL"),
    ("slow_download", "wait", "not understood; redirect or stream"),
    ("allow_hosts", "*|.corp|a..b|http://a|a:80|a/8|10.0.0.1/33|1.2.3|300.1.1.1|bü", "not under"),
    ("hosts", "https://a.example/|http://a:80|//a|a/|a/b|a?b|u@a|a:|a:b|*.corp|::1|a b", "not und"),
    ("trusted_proxies", "nginx|10.0.0.1:80|10.0.0|*|10.0.0.0/33|unix:/a|[10.0.0.1]", "not und"),
    ("trusted_proxies", "fe80::1%eth0", "an interface has no place in an address"),
    (INDEXES, "h/simple|//h/|ftp://h/|http://|http://h:99999/|http://h /|x", "not understood; "),
    (INDEXES, "http://h/#a|http://\u2488.example/", "not understood; "),
    (INDEXES, f"http://{'é' * 300}.x/", "not understood; "),
    (PATHS, "~no\nsuch/a", r"the home folder ~no\nsuch is not known (./~no\nsuch is"),
    (PATHS, "~no-such-user/a", "the home folder ~no-such-user is not known"),
    ("index_url_file", "~no-such-user/u", "cannot be read (the home folder ~no-such-user is not"),
]


@pytest.mark.parametrize(("names", "texts", "why"), REFUSED)
def test_refused(names: str, texts: str, why: str) -> None:
    """Any other text is refused in one line with the reason and what is accepted."""
    for name in names.split():
        for text in texts.split("|"):
            assert refused(name, text).startswith(why), (name, text)


def test_index_urls() -> None:
    """The indexes of variables are the main one, then the extra ones, each named and once."""
    urls = "https://u:p%40w@h/b/,,http://h/a,file:///srv/wheels"
    settings = read(INDEX_URL="http://h/a", EXTRA_INDEX_URLS=urls)
    assert [(index.name, index.url) for index in settings.indexes] == [
        ("root", "http://h/a/"),
        ("extra-1", "https://u:p%40w@h/b/"),
        ("extra-3", "file:///srv/wheels/"),
    ]
    assert settings.index_urls == tuple(index.url for index in settings.indexes)
    assert settings.views == (ViewSettings("default", ("root", "extra-1", "extra-3")),)


@pytest.mark.parametrize(
    ("environment", "ttl"),
    [
        ({}, 1800.0),
        ({"INDEX_TTL": "5"}, 5.0),
        ({"INDEX_URL": "file:///srv"}, 10.0),
        ({"INDEX_URL": "file:///srv", "INDEX_TTL": "1800"}, 1800.0),
    ],
)
def test_ttl_of_the_main_index(environment: dict[str, str], ttl: float) -> None:
    """A page of the main index is fresh for the stated time, else for that of its kind."""
    assert read(**environment).indexes[0].ttl == ttl


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
        ("INDEX_URL", "http://h/a?token=secret"),
        ("ADMIN_TOKEN", "secret"),
        ("ADMIN_TOKEN", "a secret with spaces"),
        ("ADMIN_TOKEN", "secret-é-secret"),
        ("ADMIN_TOKEN", "http://h/secret\n"),
    ],
)
def test_a_refusal_hides_the_password(name: str, text: str) -> None:
    """The line that refuses a URL shows no password, nor its query; of a token it shows nothing."""
    line = refusal({f"PROXPI_{name}": text})
    assert "secret" not in line
    assert "***" in line


def test_the_settings_hide_the_password() -> None:
    """Settings in a log or a traceback show no password."""
    urls = "http://user:secret@h/"
    assert "secret" not in repr(read(INDEX_URL=urls, EXTRA_INDEX_URLS=urls, ADMIN_TOKEN="a-secret"))


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
    indexes = Settings.read(TWO | environment, options).indexes
    assert tuple(index.ttl for index in indexes[1:]) == ttls


@pytest.mark.parametrize("variable", ["PROXPI_EXTRA_INDEX_TTLS", "PROXPI_EXTRA_INDEX_TTL"])
def test_counts_that_differ(variable: str) -> None:
    """Times to live that are more or fewer than the indexes are an error that says so."""
    line = refusal(TWO | {variable: "1"})
    assert line.startswith(f"{variable}='1': 1 given for the 2 of PROXPI_EXTRA_INDEX_URLS; ")
    assert "3 given for the 2" in refusal(TWO | {variable: "1,2,3"})
    assert "1 given for the 0" in refusal({variable: "1"})


def test_a_secret_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting that may hold a password, and no other, is read from a file; a bad one is named."""
    monkeypatch.setenv("HOME", str(tmp_path))
    file = tmp_path / "url"
    file.write_text("http://user:secret@h/simple\n")
    settings = read(INDEX_URL_FILE="~/url", EXTRA_INDEX_URLS="http://i/", INDEX_TTL_FILE="/x")
    assert settings.index_urls == ("http://user:secret@h/simple/", "http://i/")
    assert settings.indexes[0].ttl == 1800.0
    line = refusal({"PROXPI_INDEX_URL": "http://h/", "PROXPI_INDEX_URL_FILE": "/x"})
    assert line == "PROXPI_INDEX_URL_FILE='/x': PROXPI_INDEX_URL is set too; only one is accepted"
    assert "(No such file or directory)" in refused("index_url_file", str(tmp_path / "none"))
    for content, why in ((b"\xff\xfe", "(not text)"), (b" \n", "(it is empty)")):
        file.write_bytes(content)
        assert why in refusal({"PROXPI_INDEX_URL_FILE": str(file)})


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
    """A variable without effect is one warning: its reason or nearest setting, no value."""
    settings = Settings.read({name: "secret", "PROXPI_INDEX_TTL": "5"}, {})
    [warning] = settings.warnings
    assert warning.startswith(f"{name} has no effect: ")
    assert reason in warning
    assert "secret" not in warning.replace("may hold a secret", "")
    assert settings.indexes[0].ttl == 5.0
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
