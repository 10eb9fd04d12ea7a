"""The configuration file (TOML): indexes, views and rules, which are more than a variable can say.

Its tables are ``[[index]]``, ``[[view]]`` and ``[rules]``; each key has a row in the table of keys
below. A file that is not understood ends the start: half of the rules would be worse than none. So
an unknown key is an error, and each error is one line that names file, table, key, value and what
is accepted. Passwords in values are hidden.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Literal

import attrs

from proxpi.local_files import is_local
from proxpi.simple import NamePattern, Selector, ages, printable, selectors, urls
from proxpi.values import (
    URL_OR_FOLDER,
    NotAccepted,
    SettingsError,
    index_url,
    one_of,
    path,
    reasoned,
    seconds,
)

#: The view that is served without its name, below ``/index/``.
DEFAULT_VIEW = "default"
#: First segments of paths that proxpi uses, or may use: no view has these names.
RESERVED_SEGMENTS = (
    *("index", "simple", "packages", "pypi"),
    *("cache", "prefetch", "admin", "static"),
    *("health", "ready", "metrics", "stats"),
)
#: The public database of malicious packages; below it are ``all.zip`` and the entries (OSV).
ADVISORIES_URL = "https://osv-vulnerabilities.storage.googleapis.com/PyPI/"
#: Seconds that a page stays fresh if no TTL is given: that of a web server, and that of a folder,
#: whose new files are expected at once.
INDEX_TTL, FOLDER_TTL = 1800.0, 10.0

#: The entry of the file that a variable takes precedence over, as :attr:`InForce.variable`.
EXCLUDE_NEWER = "[rules] exclude-newer"
Source = Literal["default", "environment", "option", "file"]

_NAME = re.compile("[a-z0-9-]+")
_ADVISORY = re.compile("MAL-[A-Z0-9-]+")
_MOST_SHOWN = 120


@attrs.frozen
class InForce:
    """A value in force.

    :ivar variable: of a setting; for an entry of the configuration file, its table and key
    :ivar value: as it was written, in one line, without secrets
    :ivar source: ``file`` is the configuration file, or one that a ``PROXPI_…_FILE`` variable names
    """

    variable: str
    value: str
    source: Source


@attrs.frozen(kw_only=True)
class IndexSettings:
    """One index.

    :ivar url: ends in a slash, and may hold credentials, so the ``repr`` hides it; that of a folder
        begins with ``file:///``
    :ivar ttl: seconds that its pages stay fresh
    :ivar projects: the names that it is asked for; ``None``: all
    :ivar owns: the names that come from owners alone
    """

    name: str
    url: str = attrs.field(repr=False)
    ttl: float
    projects: tuple[NamePattern, ...] | None = None
    owns: tuple[NamePattern, ...] = ()


@attrs.frozen
class ViewSettings:
    """One view: the names of its indexes in order of precedence."""

    name: str
    indexes: tuple[str, ...]


@attrs.frozen(kw_only=True)
class RuleSettings:
    """The rules on the files that may be installed; the defaults exclude nothing.

    :ivar exclude_newer: files that are younger than an age, or than a date, are excluded
    :ivar exclude_newer_text: the same as it was written
    :ivar exclude_newer_except: files whose upload time does not matter
    :ivar exclude_newer_unknown: what becomes of a file without upload time: ``keep`` or
        ``exclude``; ``None``: it is excluded if its page states the upload time of another file
    :ivar deny_files: absolute paths of files with further selectors to deny
    :ivar allow: if given, all else is excluded
    :ivar advisories: ``off``, or ``malicious``: files that an advisory names are excluded
    :ivar advisories_url: the root of the advisories, on a web server or in a folder; ends in a
        slash, and may hold credentials
    :ivar advisories_except: ids of advisories that do not count, in upper case
    """

    exclude_newer: datetime.timedelta | datetime.datetime | None = None
    exclude_newer_text: str = ""
    exclude_newer_except: tuple[Selector, ...] = ()
    exclude_newer_unknown: str | None = None
    deny: tuple[Selector, ...] = ()
    deny_files: tuple[str, ...] = ()
    allow: tuple[Selector, ...] | None = None
    advisories: str = "off"
    advisories_url: str = attrs.field(default=ADVISORIES_URL, repr=False)
    advisories_except: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class Config:
    """The values of a configuration file, or those without one.

    :ivar indexes: those of the file or, if it has none, of variables
    :ivar views: the default view comes first
    :ivar warnings: one line for each entry without effect, and for a file that others can read
    """

    indexes: tuple[IndexSettings, ...]
    views: tuple[ViewSettings, ...]
    rules: RuleSettings = RuleSettings()
    warnings: tuple[str, ...] = ()


# The keys: TOML values are checked and parsed


class _WrongItem(ValueError):
    """An item of a list that is not accepted; `number` counts from 1."""

    def __init__(self, number: int, item: object, cause: ValueError) -> None:
        super().__init__(number)
        self.number, self.item, self.cause = number, item, cause


@attrs.frozen
class _Key:
    """A key of a table.

    :ivar parse: parses the value that TOML has, or raises :exc:`ValueError` as texts do
    :ivar accepts: the values that `parse` accepts, for error messages
    """

    parse: Callable[[Any], Any]
    accepts: str
    required: bool = False


def _text(parse: Callable[[str], Any]) -> Callable[[object], Any]:
    def parse_text(value: object) -> Any:
        if not isinstance(value, str):
            raise NotAccepted(f"{_kind(value)} in place of a text")
        return parse(value)

    return parse_text


def _list(parse: Callable[[str], Any], if_empty: str = "") -> Callable[[object], tuple[Any, ...]]:
    """:param if_empty: the reason why an empty list is refused"""

    def parse_list(value: object) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise NotAccepted(f"{_kind(value)} in place of a list")
        if if_empty and not value:
            raise NotAccepted(if_empty)
        return tuple(_items(value))

    def _items(items: list[object]) -> Iterator[Any]:
        for number, item in enumerate(items, 1):
            try:
                yield _text(parse)(item)
            except ValueError as error:
                raise _WrongItem(number, item, error) from None

    return parse_list


def _kind(value: object) -> str:
    kinds: dict[type, str] = {str: "a text", bool: "a switch", int: "a number", float: "a number"}
    kinds |= {list: "a list", dict: "a table"}
    return kinds.get(type(value), "a date or time")


def _time(value: object) -> float:
    if isinstance(value, str):
        return seconds(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise NotAccepted(f"{_kind(value)} in place of a time")
    return seconds(str(value))


def _exclude_newer(value: object) -> tuple[datetime.timedelta | datetime.datetime, str]:
    # TOML has dates of its own.
    text = value.isoformat() if isinstance(value, datetime.date) else value
    age: datetime.timedelta | datetime.datetime = _text(reasoned(ages.exclude_newer))(text)
    return age, str(text)


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError(text)
    return text


def _view_name(text: str) -> str:
    if text in RESERVED_SEGMENTS:
        raise NotAccepted(f"proxpi may use /{text}/ itself")
    return _name(text)


def _advisory(text: str) -> str:
    name = text.strip().upper()
    if not _ADVISORY.fullmatch(name):
        raise ValueError(text)
    return name


def _deny_file(text: str) -> str:
    if (found := path(text)) is None:
        raise NotAccepted("it is empty")
    return found


_NAMES = "lower-case letters from a to z, digits and hyphens"
_PATTERNS = f"a list whose items are {selectors.ACCEPTED_PATTERN}"
_SELECTORS = f"a list whose items are {selectors.ACCEPTED}"
_pattern, _selector = reasoned(selectors.name_pattern), reasoned(selectors.selector)

_INDEX = {
    "name": _Key(_text(_name), f"a name of {_NAMES}", required=True),
    "url": _Key(_text(index_url), URL_OR_FOLDER, required=True),
    "ttl": _Key(_time, "a number of seconds, 0 or more, or a text such as '30m' or '2 days',"),
    "projects": _Key(
        _list(_pattern, "an empty list: the index would never be asked; leave it out for all"),
        _PATTERNS,
    ),
    "owns": _Key(_list(_pattern), _PATTERNS),
}
_VIEW = {
    "name": _Key(_text(_view_name), f"another name, of {_NAMES},", required=True),
    "indexes": _Key(
        _list(str, "an empty list: the view would have no project"),
        "a list of names of indexes",
        required=True,
    ),
}
_RULES = {
    "exclude-newer": _Key(_exclude_newer, ages.ACCEPTED),
    "exclude-newer-except": _Key(_list(_selector), _SELECTORS),
    "exclude-newer-unknown": _Key(_text(one_of("keep", "exclude")), "keep or exclude"),
    "deny": _Key(_list(_selector), _SELECTORS),
    "deny-files": _Key(_list(_deny_file), "a list of paths"),
    "allow": _Key(
        _list(_selector, "an empty list: nothing could be installed; leave it out for all"),
        _SELECTORS,
    ),
    "advisories": _Key(_text(one_of("off", "malicious")), "off or malicious"),
    "advisories-url": _Key(_text(index_url), URL_OR_FOLDER),
    "advisories-except": _Key(_list(_advisory), "a list of ids such as MAL-2025-1"),
}
#: The tables of the file: titles and keys by name.
TABLES = {
    "index": ("[[index]]", _INDEX),
    "view": ("[[view]]", _VIEW),
    "rules": ("[rules]", _RULES),
}


# The file and its tables


@attrs.frozen
class _Table:
    """A table of the file, for its values and errors.

    :ivar title: as errors name it, such as ``[[index]] "cu126"``
    """

    file: str
    title: str
    keys: Mapping[str, _Key]
    stated: Mapping[str, object]

    def values(self) -> dict[str, Any]:
        """Parse the values of all keys; raises :exc:`SettingsError`."""
        for name in self.stated:
            if name not in self.keys:
                raise self._unknown(name)
        for name, key in self.keys.items():
            if key.required and name not in self.stated:
                raise SettingsError(
                    f"{self.file}: {self.title}: {name} is missing; {key.accepts} is accepted"
                )
        return {name: self._value(name) for name in self.keys if name in self.stated}

    def _value(self, name: str) -> Any:
        try:
            return self.keys[name].parse(self.stated[name])
        except _WrongItem as wrong:
            raise self.refusal(name, _reason(wrong.cause, wrong.item), wrong.number) from None
        except ValueError as error:
            raise self.refusal(name, _reason(error, self.stated[name])) from None

    def refusal(self, name: str, why: str, number: int = 0, accepts: str = "") -> SettingsError:
        """
        Make the error for a value.

        :param number: of the item of the list that is the value, from 1; 0 for all of it
        """
        value, item = self.stated[name], ""
        if number and isinstance(value, list):
            value, item = value[number - 1], f" (item {number})"
        accepts = accepts or self.keys[name].accepts
        return SettingsError(
            f"{self.file}: {self.title}: {name}{item} = {_shown(value)}: {why}; "
            f"{accepts} is accepted"
        )

    def _unknown(self, name: str) -> SettingsError:
        elsewhere = [title for title, keys in TABLES.values() if name in keys]
        [nearest] = get_close_matches(name.replace("_", "-"), self.keys, n=1, cutoff=0.0)
        hint = f"it is one of {elsewhere[0]}" if elsewhere else f"the nearest is {nearest}"
        return SettingsError(
            f"{self.file}: {self.title}: there is no key {_shown(name)} ({hint}); "
            f"{_and(self.keys)} are accepted"
        )


def _reason(error: ValueError, value: object) -> str:
    # A reason may repeat the value, and with it a password.
    if isinstance(error, NotAccepted) and not (isinstance(value, str) and "@" in value):
        return str(error)
    return "not understood"


def _shown(value: object) -> str:
    """Write a value for an error: one line, of limited length, without passwords."""
    if isinstance(value, str):
        text = json.dumps(urls.redacted(value), ensure_ascii=False)
    else:
        text = urls.redacted(json.dumps(value, ensure_ascii=False, default=str))
    text = printable(text)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"


def _written(value: object) -> str:
    """Write a value of any kind without quotes; limits as for :func:`_shown`."""
    items = value if isinstance(value, list) else [value]
    text = ", ".join(printable(urls.redacted(str(item))) for item in items)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"


def _and(names: Mapping[str, object] | Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


@attrs.frozen
class ConfigFile:
    """A file whose TOML is understood, and whose tables are not read yet.

    :ivar path: absolute
    :ivar exposed: whether other users of the machine can read it
    """

    path: str
    exposed: bool
    _stated: Mapping[str, Any]

    @classmethod
    def load(cls, path: str) -> ConfigFile:
        """Load a file; :exc:`NotAccepted` if it cannot be read, :exc:`SettingsError` if broken."""
        try:
            with open(path, "rb") as file:
                exposed = bool(os.fstat(file.fileno()).st_mode & 0o004)
                text = file.read().decode("utf-8-sig")
        except OSError as error:
            raise NotAccepted(f"cannot be read ({error.strerror})") from None
        except UnicodeDecodeError:
            raise NotAccepted("cannot be read (not text in UTF-8)") from None
        path = os.path.abspath(path)
        shown = printable(path)
        try:
            stated = tomllib.loads(text)
        except RecursionError:
            raise SettingsError(f"{shown}: nested too deeply; TOML is accepted") from None
        except ValueError as error:
            why = printable(str(error))
            raise SettingsError(f"{shown}: no TOML: {why}; TOML is accepted") from None
        for name, value in stated.items():
            _check_table(shown, name, value)
        return cls(path, exposed, stated)

    @property
    def name(self) -> str:
        """The path as errors name it."""
        return printable(self.path)

    @property
    def has_indexes(self) -> bool:
        return bool(self._stated.get("index"))

    def in_force(self) -> Iterator[InForce]:
        """Return the entries, once :meth:`read` has accepted them."""
        for kind, (title, _) in TABLES.items():
            stated = self._stated.get(kind, [])
            for table in [stated] if isinstance(stated, dict) else stated:
                place = f'{title} "{table["name"]}"' if "name" in table else title
                for key, value in table.items():
                    if key != "name":
                        yield InForce(f"{place} {key}", _written(value), "file")

    def read(self, variables: tuple[IndexSettings, ...]) -> Config:
        """
        Read the tables; raises :exc:`SettingsError`.

        :param variables: the indexes of variables, which count if the file has none
        """
        stated = self._indexes()
        indexes = stated or variables
        views = with_default(self._views([each.name for each in indexes]), indexes)
        for view in views:
            self._check_owners(view, [each for each in indexes if each.name in view.indexes])
        rules = self._rules()
        warnings = tuple(self._warnings(stated, views, rules))
        return Config(indexes=indexes, views=views, rules=rules, warnings=warnings)

    def _tables(self, kind: str) -> Iterator[tuple[_Table, dict[str, Any]]]:
        """Read the tables of one kind, which have names of their own."""
        title, keys = TABLES[kind]
        names = set()
        for number, stated in enumerate(self._stated.get(kind, ()), 1):
            name = stated.get("name")
            named = isinstance(name, str) and _NAME.fullmatch(name)
            each = f'{title} "{name}"' if named else f"{title} number {number}"
            table = _Table(self.name, each, keys, stated)
            values = table.values()
            if name in names:
                raise table.refusal("name", f"another {title} has it", accepts="a name of its own")
            names.add(name)
            yield table, values

    def _indexes(self) -> tuple[IndexSettings, ...]:
        indexes = []
        by_url: dict[str, str] = {}
        for table, values in self._tables("index"):
            values.setdefault("ttl", FOLDER_TTL if is_local(values["url"]) else INDEX_TTL)
            index = IndexSettings(**values)
            # The stores, and the credentials of requests, tell indexes by their public URLs.
            public = urls.public(index.url)
            if (other := by_url.setdefault(public, index.name)) != index.name:
                why = f'[[index]] "{other}" has the same URL'
                raise table.refusal("url", why, accepts="a URL of its own")
            indexes.append(index)
        return tuple(indexes)

    def _views(self, known: Sequence[str]) -> tuple[ViewSettings, ...]:
        views = []
        for table, values in self._tables("view"):
            view = ViewSettings(**values)
            for number, name in enumerate(view.indexes, 1):
                if name not in known:
                    accepts = f"a list of some of {_and(known)}"
                    raise table.refusal("indexes", "there is no such index", number, accepts)
                if name in view.indexes[: number - 1]:
                    raise table.refusal(
                        "indexes", "it stands there twice", number, "each index once"
                    )
            views.append(view)
        return tuple(views)

    def _check_owners(self, view: ViewSettings, indexes: Sequence[IndexSettings]) -> None:
        """Raise :exc:`SettingsError` if two indexes of a view own the same names."""
        owners: dict[NamePattern, str] = {}
        for index in indexes:
            for number, pattern in enumerate(index.owns, 1):
                if (other := owners.setdefault(pattern, index.name)) != index.name:
                    raise SettingsError(
                        f'{self.name}: [[index]] "{index.name}": owns (item {number}) = '
                        f'"{pattern}": [[index]] "{other}" owns the same names, and the view '
                        f'"{view.name}" has both; one owner in each view is accepted'
                    )

    def _rules(self) -> RuleSettings:
        title, keys = TABLES["rules"]
        table = _Table(self.name, title, keys, self._stated.get("rules", {}))
        values = {name.replace("-", "_"): value for name, value in table.values().items()}
        if "exclude_newer" in values:
            values["exclude_newer"], values["exclude_newer_text"] = values["exclude_newer"]
        folder = os.path.dirname(self.path)
        files = [os.path.join(folder, file) for file in values.pop("deny_files", ())]
        return RuleSettings(**values, deny_files=tuple(files))

    def _warnings(
        self,
        indexes: Sequence[IndexSettings],
        views: Sequence[ViewSettings],
        rules: RuleSettings,
    ) -> Iterator[str]:
        secrets = map(urls.userinfo, (*(each.url for each in indexes), rules.advisories_url))
        if self.exposed and any(secrets):
            yield f"{self.name} has a password, and every user can read it: chmod o-r"
        listed = {name for view in views for name in view.indexes}
        for index in indexes:
            if index.name not in listed:
                effect = "the projects that it owns are in no view" if index.owns else "no effect"
                yield f'{self.name}: no [[view]] lists [[index]] "{index.name}": {effect}'


def _check_table(file: str, name: str, value: object) -> None:
    """Raise :exc:`SettingsError` for a table that is none of the three, or has another form."""
    if name not in TABLES:
        tables = isinstance(value, list) and all(isinstance(each, dict) for each in value)
        written = f"[[{name}]]" if tables else f"[{name}]"
        titles = [title for title, _ in TABLES.values()]
        elsewhere = [title for title, keys in TABLES.values() if name in keys]
        if isinstance(value, dict) or (tables and value):
            [nearest] = get_close_matches(name, TABLES, n=1, cutoff=0.0)
            why = f"there is no table {_shown(written)} (the nearest is {TABLES[nearest][0]})"
        else:
            place = f" (it is one of {elsewhere[0]})" if elsewhere else ""
            why = f"the key {_shown(name)} stands in no table{place}"
        raise SettingsError(f"{file}: {why}; {_and(titles)} are accepted")
    title, _ = TABLES[name]
    right = isinstance(value, dict)
    if title.startswith("[["):
        right = isinstance(value, list) and all(isinstance(each, dict) for each in value)
    if not right:
        raise SettingsError(f"{file}: {name} is {_kind(value)}; {title} is accepted")


def with_default(
    views: Sequence[ViewSettings], indexes: Sequence[IndexSettings]
) -> tuple[ViewSettings, ...]:
    """Return the views with the default view first; if none has its name, it has all indexes."""
    default = [view for view in views if view.name == DEFAULT_VIEW]
    others = [view for view in views if view.name != DEFAULT_VIEW]
    names = tuple(index.name for index in indexes)
    return (*(default or [ViewSettings(DEFAULT_VIEW, names)]), *others)
