"""The one table of settings: options, environment, help and README's table come from it.

A :class:`Setting` of :data:`SETTINGS` has the name, default, parser and explanation of a setting.
:class:`Settings` holds the values. A variable that resembles a setting and has no effect gets one
warning: a misspelt name would otherwise start proxpi with an unwanted default. Nothing here imports
Twisted, and no file is read but those of ``PROXPI_…_FILE`` variables and the configuration file
(:mod:`proxpi.config`). Run as a module, it prints the README's table.

A setting of variables and of the configuration file has one value: an option takes precedence over
a variable, and a variable over the file. Indexes come from one of the two places alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher, get_close_matches
from typing import Any

import attrs

from proxpi.config import (
    EXCLUDE_NEWER,
    FOLDER_TTL,
    Config,
    ConfigFile,
    IndexSettings,
    InForce,
    RuleSettings,
    Source,
    ViewSettings,
    with_default,
)
from proxpi.local_files import is_local
from proxpi.simple import ages, printable, urls
from proxpi.values import (
    URL_OR_FOLDER,
    NotAccepted,
    Peer,
    SettingsError,
    count,
    index_url,
    one_of,
    path,
    peer,
    reasoned,
    seconds,
    size,
)

_PREFIX, _FILE = "PROXPI_", "_FILE"
_LISTEN = "PROXPI_LISTEN says where to listen"
_FLASK = f"flask does not run proxpi; {_LISTEN}"
#: Similarity from which on a name is taken for a misspelt one (1: equal).
_SIMILAR = 0.5
#: Variables of earlier releases, and of gunicorn and flask, which run the original, with reasons.
RETIRED = {
    "PROXPI_WORKERS": "proxpi serves from one process, which needs nothing in its place; unset it",
    "PROXPI_BIND": _LISTEN,
    "PROXPI_HOST": _LISTEN,
    "PROXPI_PORT": _LISTEN,
    "GUNICORN_CMD_ARGS": f"gunicorn does not run proxpi; {_LISTEN}",
    "FLASK_RUN_HOST": _FLASK,
    "FLASK_RUN_PORT": _FLASK,
    "FLASK_RUN_CERT": _FLASK,
    "FLASK_RUN_KEY": _FLASK,
}
# Kubernetes sets these for a service that is called proxpi, and Docker for a linked container.
_PLATFORM = re.compile(
    r"PROXPI_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_[A-Z]+(_(PROTO|PORT|ADDR))?)=|"
    r"PROXPI_PORT=\w+://"
)
_OFF = {"0", "no", "off", "false"}
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
#: Other names that Python's logging has for levels.
_LEVEL_ALIASES = {"NOTSET": "DEBUG", "WARN": "WARNING", "FATAL": "CRITICAL"}
_EXTRA_INDEX_TTL = 180.0
_OLDER_EXTRA_INDEX_TTLS = "PROXPI_EXTRA_INDEX_TTL"
#: Settings that ``[[index]]`` tables take the place of.
_OF_INDEXES = ("index_url", "extra_index_urls", "extra_index_ttls")
_SIZES = "also with a unit such as 500MB or 5GiB,"
_TIMES = "also with a unit such as 500ms, 30m or 2 days,"
_TOKEN = re.compile(r"[!-~]{8,}")
_HOST_NAME = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9_~-][a-z0-9._~-]*))(?::\d+)?")


@attrs.frozen(kw_only=True)
class Setting:
    """One row of the table.

    :ivar default: the text that is parsed if none is given; `otherwise` explains an empty one
    :ivar parse: parses a text, or raises :exc:`ValueError` (:exc:`NotAccepted` with a reason)
    :ivar accepts: the texts that `parse` accepts, for error messages
    :ivar secret: whether a file may hold it, and nothing shows it whole
    :ivar show: makes the public form of a secret value that is a URL, or several
    :ivar repeatable: whether the option may be repeated; the value is a tuple then
    """

    name: str
    default: str = ""
    otherwise: str = "none"
    parse: Callable[[str], Any] = str
    accepts: str
    explains: str
    secret: bool = False
    show: Callable[[Any], str] | None = None
    repeatable: bool = False

    @property
    def variable(self) -> str:
        """The environment variable, such as ``PROXPI_INDEX_URL``."""
        return f"PROXPI_{self.name.upper()}"

    @property
    def option(self) -> str:
        """The option of ``twistd proxpi`` without its dashes, such as ``index-url``."""
        return self.name.replace("_", "-")

    def refusal(self, given: Given, why: str, accepts: str = "") -> SettingsError:
        """Make the error for a text: it names the text, its source and the accepted texts."""
        text = given.text
        if self.secret:
            text = urls.redacted(text) if self.show is not None else "***"
        also = f" (--{self.option})" if given.by_option else ""
        accepts = accepts or self.accepts
        return SettingsError(f"{given.variable}={text!r}{also}: {why}; {accepts} is accepted")

    def in_force(self, given: Sequence[Given]) -> InForce:
        """Return the row of accepted texts, or of the default."""
        shown = ", ".join(self._public(each.text) for each in given)
        source = given[-1].source if given else "default"
        return InForce(self.variable, shown or self.default or self.otherwise, source)

    def _public(self, text: str) -> str:
        """Write an accepted text in one line without its secrets."""
        if self.secret:
            return self.show(self.parse(text)) if self.show is not None else "set"
        return printable(text)

    def values(self, given: Sequence[Given]) -> Any:
        """Parse the texts, or the default; a repeatable setting has a tuple of values."""
        parsed = [self.value(each) for each in given or [Given(self.variable, self.default)]]
        return tuple(parsed) if self.repeatable else parsed[-1]

    def value(self, given: Given) -> Any:
        """Parse a text; raises :exc:`SettingsError` if it is not accepted."""
        try:
            return self.parse(given.text)
        except ValueError as error:
            why = str(error) if isinstance(error, NotAccepted) else "not understood"
            raise self.refusal(given, why) from None


@attrs.frozen
class Given:
    """The text of a setting and its source: a variable, or the option of the same name."""

    variable: str
    text: str
    by_option: bool = False

    @property
    def source(self) -> Source:
        if self.by_option:
            return "option"
        return "file" if self.variable.endswith(_FILE) else "environment"


def _switch(text: str) -> bool:
    return text.strip().lower() not in _OFF


def _level(text: str) -> str:
    name = text.strip().upper()
    return one_of(*_LEVELS)(_LEVEL_ALIASES.get(name, name))


def _positive(parse: Callable[[str], int]) -> Callable[[str], int]:
    def positive(text: str) -> int:
        if number := parse(text):
            return number
        raise ValueError(text)

    return positive


def _host_name(text: str) -> str:
    """Parse a ``Host`` header without its port."""
    match = _HOST_NAME.fullmatch(text.strip().lower())
    if match is None:
        raise ValueError(text)
    return (match[1] or match[2]).removesuffix(".")


def _token(text: str) -> str | None:
    """Parse a token that ``Authorization: Bearer`` can carry."""
    if text and not _TOKEN.fullmatch(text):
        raise ValueError(text)
    return text or None


def _list_of(parse: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    return lambda text: tuple(parse(item) for item in text.split(",") if item.strip())


def _public(index_urls: Sequence[str]) -> str:
    return ", ".join(map(urls.public, index_urls))


_A_TIME: dict[str, Any] = {
    "parse": seconds,
    "accepts": f"a number of seconds, 0 or more, {_TIMES}",
}
_A_LIMIT: dict[str, Any] = {
    "parse": _positive(size),
    "accepts": f"a whole number of bytes, 1 or more, {_SIZES}",
}
_A_SWITCH: dict[str, Any] = {"default": "off", "parse": _switch, "accepts": "on or off"}


def _a_timeout(default: float) -> dict[str, Any]:
    accepts = f"a number of seconds, 0 or more (0: the default), {_TIMES}"
    return {
        "default": f"{default:g}",
        "parse": lambda text: seconds(text) or default,
        "accepts": accepts,
    }


SETTINGS: tuple[Setting, ...] = (
    Setting(
        name="listen",
        default="tcp:5000:interface=127.0.0.1",
        accepts="a Twisted server endpoint string such as 'tcp:5000'",
        explains="Where to listen: a Twisted server endpoint string. "
        "As an option it may be given several times.",
        repeatable=True,
    ),
    Setting(
        name="index_url",
        default="https://pypi.org/simple/",
        parse=index_url,
        accepts=URL_OR_FOLDER,
        explains="Root URL of the main index's Simple API, with or without a last slash; "
        "user:password@ before the host is understood. file:///srv/wheels is a folder of files.",
        secret=True,
        show=urls.public,
    ),
    Setting(
        name="index_ttl",
        default="1800",
        **_A_TIME,
        explains="Seconds that a page of the main index stays fresh; 0 asks each time. For a "
        f"folder the default is {FOLDER_TTL:.0f}.",
    ),
    Setting(
        name="extra_index_urls",
        parse=_list_of(index_url),
        accepts=f"a comma-separated list whose items are {URL_OR_FOLDER}",
        explains="More indexes, comma-separated, asked after the main one in this order.",
        secret=True,
        show=_public,
    ),
    Setting(
        name="extra_index_ttls",
        otherwise=f"{_EXTRA_INDEX_TTL:.0f} each, {FOLDER_TTL:.0f} for folders",
        parse=_list_of(seconds),
        accepts="a comma-separated list with a number of seconds, 0 or more, per extra index, "
        + _TIMES,
        explains="Seconds that pages of the extra indexes stay fresh, one number per index, "
        "comma-separated.",
    ),
    Setting(
        name="config",
        parse=path,
        accepts="a TOML file",
        explains="TOML file with indexes, views and rules. Its [[index]] tables take the place of "
        "PROXPI_INDEX_URL and PROXPI_EXTRA_INDEX_URLS; otherwise options and variables take "
        "precedence over it.",
    ),
    Setting(
        name="exclude_newer",
        parse=lambda text: reasoned(ages.exclude_newer)(text) if text else None,
        accepts=ages.ACCEPTED,
        explains="Exclude files that are younger than an age such as 7 days, or than a date.",
    ),
    Setting(
        name="cache_size",
        default="5368709120",
        parse=size,
        accepts=f"a whole number of bytes, 0 or more, {_SIZES}",
        explains="Bytes of package files to keep on disk. 0 keeps none: clients are redirected, "
        "unless PROXPI_SLOW_DOWNLOAD is stream.",
    ),
    Setting(
        name="cache_dir",
        otherwise="a new temporary folder, removed at exit",
        parse=path,
        accepts="a folder",
        explains="Folder that keeps files and index pages; it is made if missing.",
    ),
    Setting(
        name="binary_file_mime_type",
        **_A_SWITCH,
        explains="Serve every file as application/octet-stream instead of its guessed type.",
    ),
    Setting(
        name="disable_index_ssl_verification",
        **_A_SWITCH,
        explains="Check no certificate of an upstream: anyone on the network path can then change "
        "what is installed.",
    ),
    Setting(
        name="ca_bundle",
        parse=path,
        accepts="a PEM file with certificates, or a folder of such files,",
        explains="PEM file with certificates to trust besides those of the system, or a folder of "
        "such files. REQUESTS_CA_BUNDLE, or else CURL_CA_BUNDLE, SSL_CERT_FILE and SSL_CERT_DIR "
        "take the place of the system's.",
    ),
    Setting(
        name="client_cert",
        parse=path,
        accepts="a PEM file with a certificate and its key, not encrypted,",
        explains="PEM file with the certificate, and its key, that indexes are shown when they "
        "ask for one.",
    ),
    Setting(
        name="download_timeout",
        default="0.9",
        **_A_TIME,
        explains="Seconds that a client waits for a file that is not cached yet before it is "
        "redirected to the upstream.",
    ),
    Setting(
        name="slow_download",
        default="redirect",
        parse=one_of("redirect", "stream"),
        accepts="redirect or stream",
        explains="Answer to a client whose file is not cached in time. redirect: a 302 to the "
        "upstream. stream: the bytes as they arrive, while they are cached.",
    ),
    Setting(
        name="connect_timeout",
        **_a_timeout(3.1),
        explains="Seconds that connecting to an upstream may take; 0 means the default.",
    ),
    Setting(
        name="read_timeout",
        **_a_timeout(20),
        explains="Seconds of silence from an upstream before it is given up; 0 means the default.",
    ),
    Setting(
        name="upstream_connections",
        default="32",
        parse=_positive(count),
        accepts="a whole number, 1 or more,",
        explains="Connections to one upstream host for files, and as many again for pages.",
    ),
    Setting(
        name="page_limit",
        default="67108864",
        **_A_LIMIT,
        explains="Bytes that a page of an index may have, decompressed.",
    ),
    Setting(
        name="list_limit",
        default="268435456",
        **_A_LIMIT,
        explains="Bytes that an index's list of projects may have, decompressed.",
    ),
    Setting(
        name="allow_hosts",
        parse=_list_of(urls.host),
        accepts="a comma-separated list of host names, addresses and networks such as 10.0.0.0/8",
        explains="Hosts that links and redirects may lead to although they are private: names, "
        "addresses, networks, comma-separated.",
    ),
    Setting(
        name="hosts",
        parse=_list_of(_host_name),
        accepts="a comma-separated list of host names, each with a port or without,",
        explains="Names of this proxpi under which a browser may change something, besides "
        "addresses, localhost, names without a dot and the machine's own; comma-separated.",
    ),
    Setting(
        name="trusted_proxies",
        parse=_list_of(peer),
        accepts="a comma-separated list of addresses, networks such as 10.0.0.0/8, and unix",
        explains="Reverse proxies whose X-Forwarded-For, -Proto, -Host, -Port and -Prefix, or "
        "Forwarded, are believed: addresses, networks, and unix for those that connect to a unix "
        "socket; comma-separated.",
    ),
    Setting(
        name="admin_token",
        parse=_token,
        accepts="a text of 8 or more printable ASCII characters without spaces",
        explains="Token that requests need to change something (POST /prefetch excepted): as "
        "Authorization: Bearer, as a Basic password, or by the login form of the admin page.",
        secret=True,
    ),
    Setting(
        name="offline",
        **_A_SWITCH,
        explains="Make no connection upstream: cached pages and files are served, however old; "
        "requests for anything else get a 503.",
    ),
    Setting(
        name="prefetch",
        **(_A_SWITCH | {"default": "on"}),
        explains="Fetch pages, metadata and wheels that a client is about to request.",
    ),
    Setting(
        name="drain_timeout",
        default="8",
        **_A_TIME,
        explains="Seconds that SIGTERM leaves to responses under way; a second one leaves none.",
    ),
    Setting(
        name="logging_level",
        default="INFO",
        parse=_level,
        accepts="one of " + ", ".join(_LEVELS) + " in any case",
        explains="The least level that is logged: " + ", ".join(_LEVELS) + ".",
    ),
    Setting(
        name="log_format",
        default="text",
        parse=one_of("text", "json"),
        accepts="text or json",
        explains="Format of the log: text, or json for one JSON object a line.",
    ),
)


def setting(name: str) -> Setting:
    return next(row for row in SETTINGS if row.name == name)


@attrs.frozen(kw_only=True)
class Settings:
    """The values of all settings: times in seconds, sizes in bytes.

    :ivar indexes: in order of precedence, with URLs of their own
    :ivar views: the first is the default view, which has all indexes if nothing else is stated
    :ivar in_force: every value as it was written, with its source; no part of equality
    :ivar warnings: one line for each variable, or entry of the file, without effect
    """

    listen: tuple[str, ...]
    indexes: tuple[IndexSettings, ...]
    views: tuple[ViewSettings, ...]
    rules: RuleSettings
    cache_size: int
    cache_dir: str | None
    binary_file_mime_type: bool
    disable_index_ssl_verification: bool
    ca_bundle: str | None
    client_cert: str | None
    download_timeout: float
    slow_download: str
    connect_timeout: float
    read_timeout: float
    upstream_connections: int
    page_limit: int
    list_limit: int
    allow_hosts: tuple[str, ...]
    hosts: tuple[str, ...]
    trusted_proxies: tuple[Peer, ...]
    admin_token: str | None = attrs.field(repr=False)
    offline: bool
    prefetch: bool
    drain_timeout: float
    logging_level: str
    log_format: str
    in_force: tuple[InForce, ...] = attrs.field(default=(), eq=False)
    warnings: tuple[str, ...] = ()

    @classmethod
    def read(
        cls,
        environment: Mapping[str, str],
        options: Mapping[str, str | list[str] | None],
    ) -> Settings:
        """
        Read the settings from options, then the environment, then the file, then the defaults.

        An empty text counts as not given.

        :param options: by name, such as ``index-url``; ``None`` was not given
        :raises SettingsError: for a text that is not accepted, a ``_FILE`` that cannot be read or
            stands beside its variable, counts that differ, a configuration file that is not
            understood, and indexes in it beside those of variables
        """
        texts = {row.name: _given(row, environment, options.get(row.option)) for row in SETTINGS}
        file = _config_file(texts["config"])
        warnings = list(_warnings(environment))
        if file is not None and file.has_indexes:
            warnings += _beside_indexes(file, texts)
        values = {row.name: row.values(texts[row.name]) for row in SETTINGS}
        indexes = _indexes(values, texts)
        if file is not None:
            config = file.read(indexes)
        else:
            config = Config(indexes=indexes, views=with_default((), indexes))
        rules = config.rules
        if (exclude_newer := values.pop("exclude_newer")) is not None:
            text = texts["exclude_newer"][-1].text
            rules = attrs.evolve(rules, exclude_newer=exclude_newer, exclude_newer_text=text)
        for name in ("config", *_OF_INDEXES, "index_ttl"):
            del values[name]
        return cls(
            **values,
            indexes=config.indexes,
            views=config.views,
            rules=rules,
            in_force=tuple(_in_force(texts, file, indexes[0].ttl)),
            warnings=(*warnings, *config.warnings),
        )

    @property
    def index_urls(self) -> tuple[str, ...]:
        return tuple(index.url for index in self.indexes)

    def given(self, name: str, text: str) -> Given:
        variable = setting(name).variable
        option = any(row.variable == variable and row.source == "option" for row in self.in_force)
        return Given(variable, text, by_option=option)

    def path(self, name: str) -> Given | None:
        """Return the path of a setting with its source, for errors on the file."""
        text: str | None = getattr(self, name)
        return None if text is None else self.given(name, text)


def _given(
    setting: Setting, environment: Mapping[str, str], option: str | list[str] | None
) -> list[Given]:
    """Return the texts of a setting, usually one; none for the default."""
    if option is None:
        return _in_environment(setting, environment)
    texts = [option] if isinstance(option, str) else option
    return [Given(setting.variable, text, by_option=True) for text in texts if text]


def _config_file(given: Sequence[Given]) -> ConfigFile | None:
    row = setting("config")
    if (file := row.values(given)) is None:
        return None
    try:
        return ConfigFile.load(file)
    except NotAccepted as error:
        raise row.refusal(given[-1], str(error), "a readable TOML file") from None


def _in_force(
    texts: Mapping[str, Sequence[Given]], file: ConfigFile | None, ttl: float
) -> Iterator[InForce]:
    """
    Return all values in force: of variables and options, then of the configuration file.

    :param ttl: that of the main index, whose default depends on its kind
    """
    entries = list(file.in_force()) if file is not None else []
    exclude_newer = next((row for row in entries if row.variable == EXCLUDE_NEWER), None)
    for row in SETTINGS:
        if file is not None and file.has_indexes and row.name in (*_OF_INDEXES, "index_ttl"):
            continue
        if row.name == "exclude_newer" and exclude_newer is not None and not texts[row.name]:
            continue
        in_force = row.in_force(texts[row.name])
        if row.name == "index_ttl" and in_force.source == "default":
            in_force = attrs.evolve(in_force, value=f"{ttl:g}")
        yield in_force
    overridden = {EXCLUDE_NEWER} if texts["exclude_newer"] else set()
    yield from (row for row in entries if row.variable not in overridden)


def _beside_indexes(file: ConfigFile, texts: Mapping[str, Sequence[Given]]) -> Iterator[str]:
    """Return the warnings of a file with indexes; `SettingsError` if variables have some, too."""
    for name in _OF_INDEXES:
        for given in texts[name]:
            why = f"{file.name} has [[index]] tables, too"
            raise setting(name).refusal(given, why, "only one of the two")
    for given in texts["index_ttl"]:
        yield f"{given.variable} has no effect: each [[index]] has a ttl of its own"


def _indexes(
    values: Mapping[str, Any], texts: Mapping[str, Sequence[Given]]
) -> tuple[IndexSettings, ...]:
    """Return the indexes of variables; a URL that is given again is left out."""
    extra_urls, extra_ttls = values["extra_index_urls"], values["extra_index_ttls"]
    if extra_ttls and len(extra_ttls) != len(extra_urls):
        given = texts["extra_index_ttls"][-1]
        why = f"{len(extra_ttls)} given for the {len(extra_urls)} of PROXPI_EXTRA_INDEX_URLS"
        raise setting("extra_index_ttls").refusal(given, why)
    main_ttl = [values["index_ttl"]] if texts["index_ttl"] else []
    indexes: dict[str, IndexSettings] = {}
    for number, url in enumerate((values["index_url"], *extra_urls)):
        stated = extra_ttls[number - 1 : number] if number else main_ttl
        default = _EXTRA_INDEX_TTL if number else values["index_ttl"]
        ttl = stated[0] if stated else FOLDER_TTL if is_local(url) else default
        name = f"extra-{number}" if number else "root"
        indexes.setdefault(url, IndexSettings(name=name, url=url, ttl=ttl))
    return tuple(indexes.values())


def _in_environment(setting: Setting, environment: Mapping[str, str]) -> list[Given]:
    variables = [setting.variable]
    if setting.name == "extra_index_ttls":
        variables.insert(0, _OLDER_EXTRA_INDEX_TTLS)
    given = [Given(name, environment[name]) for name in variables if environment.get(name)][:1]
    file = f"{setting.variable}_FILE"
    file_name = environment.get(file)
    if not (setting.secret and file_name):
        return given
    if given:
        raise SettingsError(
            f"{file}={file_name!r}: {setting.variable} is set too; only one is accepted"
        )
    why: object = "not text"
    try:
        with open(str(path(file_name)), encoding="utf-8") as secret:
            text = secret.read().strip()
        if text:
            return [Given(file, text)]
        why = "it is empty"  # and not the same as unset: a token may have been meant
    except OSError as error:
        why = error.strerror
    except NotAccepted as error:
        why = error
    except ValueError:  # not UTF-8
        pass
    raise SettingsError(
        f"{file}={file_name!r}: cannot be read ({why}); a readable file is accepted"
    )


def _warnings(environment: Mapping[str, str]) -> Iterator[str]:
    """Return one line for each variable that is set and has no effect; values may be secret."""
    known = {_OLDER_EXTRA_INDEX_TTLS}
    known |= {setting.variable for setting in SETTINGS}
    known |= {setting.variable + _FILE for setting in SETTINGS if setting.secret}
    for name, value in sorted(environment.items()):
        if not value or name in known or _PLATFORM.match(f"{name}={value}"):
            continue
        if name in RETIRED or name.upper().startswith(_PREFIX):
            yield f"{name} has no effect: {_reason(name, known)}"


def _reason(name: str, known: set[str]) -> str:
    if name in RETIRED:
        return RETIRED[name]
    if name.removesuffix(_FILE) in known:
        return f"only what may hold a secret is read from a file; set {name.removesuffix(_FILE)}"
    # Compared without the prefix, which would make all of them resemble each other.
    endings = [variable.removeprefix(_PREFIX) for variable in sorted(known)]
    ending = name.upper().removeprefix(_PREFIX)
    [nearest] = get_close_matches(ending, endings, n=1, cutoff=0.0)
    if SequenceMatcher(a=nearest, b=ending).ratio() < _SIMILAR:
        return f"there is no such setting (the nearest name is {_PREFIX}{nearest})"
    return f"there is no such setting; did you mean {_PREFIX}{nearest}?"


def table() -> str:
    """Write the settings as the README's list table (reStructuredText)."""
    rows = [("Variable", "Default", "Meaning")]
    for setting in SETTINGS:
        default = f"``{setting.default}``" if setting.default else setting.otherwise
        rows.append((f"``{setting.variable}``", default, setting.explains))
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in rows:
        marks = ("   * - ", "     - ", "     - ")
        lines += [mark + cell for mark, cell in zip(marks, row, strict=True)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")
