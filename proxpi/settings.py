"""The one table of settings: options, environment, help and README's table come from it.

A :class:`Setting` of :data:`SETTINGS` has the name, default, parser and explanation of a setting.
:class:`Settings` holds the values. A variable that resembles a setting and has no effect gets one
warning: a misspelt name would otherwise start proxpi with an unwanted default. Nothing here imports
Twisted, and no file is read but those of ``PROXPI_…_FILE`` variables. Run as a module, it prints
the README's table.

A size is a whole number of bytes or a number with a unit: ``kB`` to ``PB`` are powers of 1000,
``KiB`` to ``PiB`` and the bare letters ``K`` to ``P`` of 1024 (as for ``docker --memory``). A time
is a number of seconds, or one or more numbers with units (``500ms``, ``1h30m``). Case does not
matter.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from difflib import SequenceMatcher, get_close_matches
from typing import Any

import attrs

from proxpi.simple import urls

_PREFIX, _FILE = "PROXPI_", "_FILE"
_LISTEN = "PROXPI_LISTEN says where to listen"
#: Similarity from which on a name is taken for a misspelt one (1: equal).
_SIMILAR = 0.5
#: Variables of earlier releases, of the original and of gunicorn, each with its reason.
RETIRED = {
    "PROXPI_WORKERS": "proxpi serves from one process, which needs nothing in its place; unset it",
    "PROXPI_BIND": _LISTEN,
    "PROXPI_HOST": _LISTEN,
    "PROXPI_PORT": _LISTEN,
    "GUNICORN_CMD_ARGS": f"gunicorn is not what runs proxpi; {_LISTEN}",
}
# Kubernetes sets these for a service that is called proxpi, and Docker for a linked container.
_PLATFORM = re.compile(
    r"PROXPI_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_[A-Z]+(_(PROTO|PORT|ADDR))?)=|"
    r"PROXPI_PORT=\w+://"
)
_OFF = {"0", "no", "off", "false"}
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_EXTRA_INDEX_TTL = 180.0
_OLDER_EXTRA_INDEX_TTLS = "PROXPI_EXTRA_INDEX_TTL"
_SIZES = "also with a unit such as 500MB or 5GiB,"
_TIMES = "also with a unit such as 500ms, 30m or 2 days,"
_HOST_NAME = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9_~-][a-z0-9._~-]*))(?::\d+)?")


# Quantities

#: Bytes that a size can mean at most: no file system holds a larger file.
MOST_BYTES = 2**63 - 1

_WHOLE = re.compile(r"[0-9]+")
_SECONDS = re.compile(r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?")
# A few digits say more than any disk or calendar holds, and keep arithmetic short.
_PART = r"([0-9]{1,30}\.?[0-9]{0,30}|\.[0-9]{1,30})\s*([a-z]+)"
_SIZE = re.compile(_PART)
_PARTS = re.compile(rf"{_PART}(?:\s*{_PART})*")

_BYTES = {"b": 1, "byte": 1, "bytes": 1}
for _power, _letter in enumerate("kmgtp", 1):
    _BYTES[f"{_letter}b"] = 1000**_power
    _BYTES[f"{_letter}ib"] = _BYTES[_letter] = 1024**_power

_UNITS_OF_TIME = {
    "0.001": "ms msec msecs millisecond milliseconds",
    "1": "s sec secs second seconds",
    "60": "m min mins minute minutes",
    "3600": "h hr hrs hour hours",
    "86400": "d day days",
    "604800": "w week weeks",
}
_LENGTHS = {
    name: Decimal(length) for length, names in _UNITS_OF_TIME.items() for name in names.split()
}


class NotAccepted(ValueError):
    """A text that is refused for a reason that the user needs to know: the exception's text."""


def count(text: str) -> int:
    """Read a whole number, 0 or more; raises :exc:`ValueError`."""
    digits = text.strip()
    if not _WHOLE.fullmatch(digits):
        raise ValueError(text)
    return int(digits)


def size(text: str) -> int:
    """Read a size, in bytes; raises :exc:`ValueError`. A fraction of a byte is dropped."""
    if (found := _SIZE.fullmatch(text.strip().lower())) is None:
        number = count(text)
    else:
        digits, unit = found.groups()
        if unit not in _BYTES or (_BYTES[unit] == 1 and not _WHOLE.fullmatch(digits)):
            raise ValueError(text)
        number = int(Decimal(digits) * _BYTES[unit])
    if number > MOST_BYTES:
        raise NotAccepted("too large")
    return number


def seconds(text: str) -> float:
    """Read a time, in seconds; raises :exc:`ValueError`."""
    written = text.strip().lower()
    if _SECONDS.fullmatch(written):
        total = float(written)
    elif _PARTS.fullmatch(written):
        parts = re.findall(_PART, written)
        if not all(unit in _LENGTHS for _, unit in parts):
            raise ValueError(text)
        total = float(sum(Decimal(digits) * _LENGTHS[unit] for digits, unit in parts))
    else:
        raise ValueError(text)
    if not math.isfinite(total):
        raise NotAccepted("too long")
    return total


# Settings


class SettingsError(Exception):
    """A text that is not accepted; the message is one line that names the accepted texts."""


@attrs.frozen(kw_only=True)
class Setting:
    """One row of the table.

    :ivar default: the text that is parsed if none is given; `otherwise` explains an empty one
    :ivar parse: parses a text, or raises :exc:`ValueError` (:exc:`NotAccepted` with a reason)
    :ivar accepts: the texts that `parse` accepts, for error messages
    :ivar secret: whether a file may hold it, and messages hide passwords in it
    :ivar repeatable: whether the option may be repeated; the value is a tuple then
    """

    name: str
    default: str = ""
    otherwise: str = "none"
    parse: Callable[[str], Any] = str
    accepts: str
    explains: str
    secret: bool = False
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
        text = urls.redacted(given.text) if self.secret else given.text
        also = f" (--{self.option})" if given.by_option else ""
        accepts = accepts or self.accepts
        return SettingsError(f"{given.variable}={text!r}{also}: {why}; {accepts} is accepted")

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


def _switch(text: str) -> bool:
    return text.strip().lower() not in _OFF


def _positive(parse: Callable[[str], int]) -> Callable[[str], int]:
    def positive(text: str) -> int:
        if number := parse(text):
            return number
        raise ValueError(text)

    return positive


def _one_of(*choices: str) -> Callable[[str], str]:
    def one_of(text: str) -> str:
        for choice in choices:
            if text.strip().lower() == choice.lower():
                return choice
        raise ValueError(text)

    return one_of


def _host_name(text: str) -> str:
    """Parse a ``Host`` header without its port."""
    match = _HOST_NAME.fullmatch(text.strip().lower())
    if match is None:
        raise ValueError(text)
    return (match[1] or match[2]).removesuffix(".")


def _path(text: str) -> str | None:
    """Parse a path, in which ``~`` and ``~user`` are home folders; ``None`` if it is empty."""
    expanded = os.path.expanduser(text)
    if expanded.startswith("~"):
        home = expanded.partition("/")[0]
        raise NotAccepted(f"the home folder {home} is not known (./{home} is a plain name)")
    return expanded or None


def _index(text: str) -> str:
    """Parse the URL of an index; the result ends in one slash."""
    url = urls.with_ascii_host(text.strip())
    urls.origin(url)
    if re.search(r"[\s\x00-\x1f\x7f#?]", url):
        raise ValueError("blanks, queries and fragments have no place in it")
    return url.rstrip("/") + "/"


def _list_of(parse: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    return lambda text: tuple(parse(item) for item in text.split(",") if item.strip())


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
        parse=_index,
        accepts="an http or https URL with a host",
        explains="Root URL of the main index's Simple API, with or without a last slash; "
        "user:password@ before the host is understood.",
        secret=True,
    ),
    Setting(
        name="index_ttl",
        default="1800",
        **_A_TIME,
        explains="Seconds that a page of the main index stays fresh; 0 asks each time.",
    ),
    Setting(
        name="extra_index_urls",
        parse=_list_of(_index),
        accepts="a comma-separated list of http or https URLs with a host",
        explains="More indexes, comma-separated, asked after the main one in this order.",
        secret=True,
    ),
    Setting(
        name="extra_index_ttls",
        otherwise=f"{_EXTRA_INDEX_TTL:.0f} each",
        parse=_list_of(seconds),
        accepts="a comma-separated list with a number of seconds, 0 or more, per extra index, "
        + _TIMES,
        explains="Seconds that pages of the extra indexes stay fresh, one number per index, "
        "comma-separated.",
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
        parse=_path,
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
        parse=_path,
        accepts="a PEM file with certificates, or a folder of such files,",
        explains="PEM file with certificates to trust besides those of the system, or a folder of "
        "such files. REQUESTS_CA_BUNDLE, or else CURL_CA_BUNDLE, SSL_CERT_FILE and SSL_CERT_DIR "
        "take the place of the system's.",
    ),
    Setting(
        name="client_cert",
        parse=_path,
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
        parse=_one_of("redirect", "stream"),
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
        parse=_one_of(*_LEVELS),
        accepts="one of " + ", ".join(_LEVELS) + " in any case",
        explains="The least level that is logged: " + ", ".join(_LEVELS) + ".",
    ),
)


def setting(name: str) -> Setting:
    return next(row for row in SETTINGS if row.name == name)


DEFAULT_VIEW = "default"


@attrs.frozen
class IndexSettings:
    name: str
    url: str = attrs.field(repr=False)
    ttl: float
    projects: Any = None
    owns: Any = ()


@attrs.frozen
class ViewSettings:
    name: str
    indexes: Any


@attrs.frozen
class RuleSettings:
    exclude_newer: Any = None
    exclude_newer_text: str = ""
    exclude_newer_except: Any = ()
    exclude_newer_unknown: Any = None
    deny: Any = ()
    deny_files: Any = ()
    allow: Any = None


@attrs.frozen(kw_only=True)
class Settings:
    """The values of all settings: times in seconds, sizes in bytes.

    :ivar index_url: ends in a slash, and may hold credentials, so the ``repr`` hides it
    :ivar extra_index_ttls: as many as `extra_index_urls`
    :ivar by_option: the names of the settings that were given as options
    :ivar warnings: one line for each variable without effect
    """

    listen: tuple[str, ...]
    index_url: str = attrs.field(repr=False)
    index_ttl: float
    extra_index_urls: tuple[str, ...] = attrs.field(repr=False)
    extra_index_ttls: tuple[float, ...]
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
    offline: bool
    prefetch: bool
    drain_timeout: float
    logging_level: str
    by_option: frozenset[str] = frozenset()
    warnings: tuple[str, ...] = ()

    @classmethod
    def read(
        cls,
        environment: Mapping[str, str],
        options: Mapping[str, str | list[str] | None],
    ) -> Settings:
        """
        Read the settings from options, then the environment, then the defaults.

        An empty text counts as not given.

        :param options: by name, such as ``index-url``; ``None`` was not given
        :raises SettingsError: for a text that is not accepted, a ``_FILE`` that cannot be read or
            stands beside its variable, and counts that differ
        """
        values: dict[str, Any] = {}
        by_option = set()
        for setting in SETTINGS:
            given = _given(setting, environment, options.get(setting.option))
            if given[-1].by_option:
                by_option.add(setting.name)
            parsed = [setting.value(one) for one in given]
            values[setting.name] = tuple(parsed) if setting.repeatable else parsed[-1]
            if setting.name == "extra_index_ttls":
                indexes = len(values["extra_index_urls"])
                ttls = values[setting.name] or (_EXTRA_INDEX_TTL,) * indexes
                if len(ttls) != indexes:
                    why = f"{len(ttls)} given for the {indexes} of PROXPI_EXTRA_INDEX_URLS"
                    raise setting.refusal(given[-1], why)
                values[setting.name] = ttls
        return cls(**values, by_option=frozenset(by_option), warnings=tuple(_warnings(environment)))

    @property
    def index_urls(self) -> tuple[str, ...]:
        return (self.index_url, *self.extra_index_urls)

    @property
    def indexes(self) -> Any:
        ttls = (self.index_ttl, *self.extra_index_ttls)
        return [
            IndexSettings(f"extra-{n}" if n else "root", url, ttl)
            for n, (url, ttl) in enumerate(zip(self.index_urls, ttls))
        ]

    @property
    def rules(self) -> Any:
        return RuleSettings()

    @property
    def views(self) -> Any:
        return [ViewSettings("default", tuple(e.name for e in self.indexes))]

    def given(self, name: str, text: str) -> Given:
        return Given(setting(name).variable, text, by_option=name in self.by_option)

    def path(self, name: str) -> Given | None:
        """Return the path of a setting with its source, for errors on the file."""
        text: str | None = getattr(self, name)
        return None if text is None else self.given(name, text)


def _given(
    setting: Setting, environment: Mapping[str, str], option: str | list[str] | None
) -> list[Given]:
    if option is None:
        given = _in_environment(setting, environment)
    else:
        texts = [option] if isinstance(option, str) else option
        given = [Given(setting.variable, text, by_option=True) for text in texts if text]
    return given or [Given(setting.variable, setting.default)]


def _in_environment(setting: Setting, environment: Mapping[str, str]) -> list[Given]:
    variables = [setting.variable]
    if setting.name == "extra_index_ttls":
        variables.insert(0, _OLDER_EXTRA_INDEX_TTLS)
    given = [Given(name, environment[name]) for name in variables if environment.get(name)][:1]
    file = f"{setting.variable}_FILE"
    path = environment.get(file)
    if not (setting.secret and path):
        return given
    if given:
        raise SettingsError(f"{file}={path!r}: {setting.variable} is set too; only one is accepted")
    why: object = "not text"
    try:
        with open(str(_path(path)), encoding="utf-8") as secret:
            return [Given(file, secret.read().strip())]
    except OSError as error:
        why = error.strerror
    except NotAccepted as error:
        why = error
    except ValueError:  # not UTF-8
        pass
    raise SettingsError(f"{file}={path!r}: cannot be read ({why}); a readable file is accepted")


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
