"""The configuration file: indexes, views and rules, and the line that refuses an entry."""

from __future__ import annotations

import datetime
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from proxpi.config import ADVISORIES_URL, RESERVED_SEGMENTS, RuleSettings
from proxpi.settings import Settings
from proxpi.values import SettingsError
from proxpi.web.admin.api import AdminApi
from proxpi.web.routes import ROOTS

Read: TypeAlias = Callable[..., Settings]

TWO = """
[[index]]
name = "public"
url = "https://index.example/simple"
[[index]]
name = "own"
url = "file:///srv/wheels"
"""
DIGEST = "0f" * 32


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "proxpi.toml"


@pytest.fixture
def read(file: Path) -> Read:
    """Return a function that reads the settings of a file's text, variables and options."""

    def read(text: str, variables: dict[str, str] | None = None, **options: str) -> Settings:
        file.write_text(text)
        environment = {f"PROXPI_{name}": value for name, value in (variables or {}).items()}
        given_options = {name.replace("_", "-"): value for name, value in options.items()}
        return Settings.read({"PROXPI_CONFIG": str(file), **environment}, given_options)

    return read


def refusal(read: Read, text: str, variables: dict[str, str] | None = None, **options: str) -> str:
    """Return the one line that refuses a file beside variables and options."""
    with pytest.raises(SettingsError) as refused:
        read(text, variables, **options)
    line = str(refused.value)
    assert len(line.splitlines()) == 1
    return line


def names(settings: Settings) -> list[str]:
    return [index.name for index in settings.indexes]


def views(settings: Settings) -> dict[str, tuple[str, ...]]:
    return {view.name: view.indexes for view in settings.views}


def rules(settings: Settings) -> dict[str, object]:
    """Return the rules that differ from the defaults; selectors as texts."""
    found: dict[str, object] = {}
    for name in RuleSettings.__attrs_attrs__:
        value = getattr(settings.rules, name.name)
        if value != getattr(RuleSettings(), name.name):
            found[name.name] = tuple(map(str, value)) if isinstance(value, tuple) else value
    return found


def test_indexes(read: Read) -> None:
    """An index has a name, a URL, a TTL by its kind, and patterns of normalized names."""
    settings = read("""
        [[index]]
        name = "cu126"
        url = "https://user:secret@wheels.example/whl/cu126"
        ttl = "30 min"
        projects = ["Torch*", "nvidia_*"]
        [[index]]
        name = "own"
        url = "file://localhost/srv/my%20wheels/"
        owns = ["acme-*", "*-internal"]
        [[index]]
        name = "0-public"
        url = "https://index.example/simple/"
        [[index]]
        name = "always"
        url = "https://index.example/always/"
        ttl = 0
        """)
    cu126, own, public, always = settings.indexes
    assert settings.index_urls == (
        "https://user:secret@wheels.example/whl/cu126/",
        "file:///srv/my%20wheels/",
        "https://index.example/simple/",
        "https://index.example/always/",
    )
    assert (cu126.ttl, own.ttl, public.ttl, always.ttl) == (1800.0, 10.0, 1800.0, 0.0)
    assert cu126.projects is not None
    assert [str(each) for each in cu126.projects] == ["torch*", "nvidia-*"]
    assert [str(each) for each in own.owns] == ["acme-*", "*-internal"]
    assert (own.projects, public.projects, public.owns) == (None, None, ())
    assert "secret" not in repr(settings)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {"default": ("public", "own")}),
        (
            '[[view]]\nname = "a"\nindexes = ["own", "public"]',
            {"default": ("public", "own"), "a": ("own", "public")},
        ),
        (
            '[[view]]\nname="a"\nindexes=["public"]\n[[view]]\nname="default"\nindexes=["own"]',
            {"default": ("own",), "a": ("public",)},
        ),
    ],
)
def test_views(read: Read, text: str, expected: dict[str, tuple[str, ...]]) -> None:
    """A view has its indexes in its order; the default view is first, with all unless stated."""
    settings = read(TWO + text)
    assert views(settings) == expected
    assert settings.views[0].name == "default"


def test_owners_in_views(read: Read) -> None:
    """Two indexes may own the same names if no view has both."""
    owns = 'owns = ["torch"]'
    text = TWO.replace('"public"\n', f'"public"\n{owns}\n').replace('"own"\n', f'"own"\n{owns}\n')
    for name, index in (("default", "public"), ("cpu", "own")):
        text += f'[[view]]\nname = "{name}"\nindexes = ["{index}"]\n'
    assert [[str(each) for each in index.owns] for index in read(text).indexes] == [["torch"]] * 2


def test_rules(read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rules are parsed; paths are absolute, from the folder of the file or of the user."""
    monkeypatch.setenv("HOME", "/home/me")
    settings = read(f"""
        [rules]
        exclude-newer = "7 days"
        exclude-newer-except = ["acme-*", "requests==2.40.0"]
        exclude-newer-unknown = "keep"
        deny = ["evil", "left-pad>=1.2,<1.3", "sha256:{DIGEST}"]
        deny-files = ["/etc/proxpi/deny.txt", "deny.txt", "~/deny.txt"]
        allow = ["acme-*", "numpy"]
        advisories = "malicious"
        advisories-url = "file:///srv/osv"
        advisories-except = ["mal-2025-1"]
        """)
    assert rules(settings) == {
        "exclude_newer": datetime.timedelta(days=7),
        "exclude_newer_text": "7 days",
        "exclude_newer_except": ("acme-*", "requests==2.40.0"),
        "exclude_newer_unknown": "keep",
        "deny": ("evil", "left-pad>=1.2,<1.3", f"sha256:{DIGEST}"),
        "deny_files": ("/etc/proxpi/deny.txt", f"{tmp_path}/deny.txt", "/home/me/deny.txt"),
        "allow": ("acme-*", "numpy"),
        "advisories": "malicious",
        "advisories_url": "file:///srv/osv/",
        "advisories_except": ("MAL-2025-1",),
    }


def test_no_entry(read: Read) -> None:
    """A file without entries, with a byte-order mark or not, changes nothing."""
    for text in ("", "\ufeff# nothing\n", "index = []\nview = []\n[rules]\n"):
        settings = read(text)
        assert settings == Settings.read({}, {})
    assert rules(settings) == {}
    assert (settings.rules.advisories, settings.rules.advisories_url) == ("off", ADVISORIES_URL)


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("2025-03-16", "2025-03-16"),
        ("2025-03-15T22:00:00-02:00", "2025-03-15T22:00:00-02:00"),
        ('"2025-03-17T00:00:00Z"', "2025-03-17T00:00:00Z"),
    ],
)
def test_dates(read: Read, written: str, text: str) -> None:
    """A date of TOML is the same as its text."""
    found = read(f"[rules]\nexclude-newer = {written}").rules
    days = {"2025-03-15T22:00:00-02:00": 16}
    assert found.exclude_newer == datetime.datetime(
        2025, 3, days.get(text, 17), tzinfo=datetime.UTC
    )
    assert found.exclude_newer_text == text


def test_precedence(read: Read) -> None:
    """An option takes precedence over a variable, and a variable over the file."""
    text = '[rules]\nexclude-newer = "7 days"\ndeny = ["evil"]'
    for option, variable, expected in (
        (None, "", "7 days"),
        (None, "3 days", "3 days"),
        ("1 day", "3 days", "1 day"),
        ("", "3 days", "7 days"),
    ):
        options = {} if option is None else {"exclude_newer": option}
        found = read(text, {"EXCLUDE_NEWER": variable}, **options).rules
        assert found.exclude_newer == datetime.timedelta(days=int(expected[0]))
        assert found.exclude_newer_text == expected
        assert [str(selector) for selector in found.deny] == ["evil"]
    line = refusal(read, text, {"EXCLUDE_NEWER": "soon"})
    assert line.startswith("PROXPI_EXCLUDE_NEWER='soon': not understood; an age such as 7 days, ")


def test_the_age_alone() -> None:
    """``PROXPI_EXCLUDE_NEWER`` needs no file."""
    found = Settings.read({"PROXPI_EXCLUDE_NEWER": "P7D"}, {}).rules
    assert (found.exclude_newer, found.exclude_newer_text) == (datetime.timedelta(days=7), "P7D")


def test_indexes_of_variables(read: Read) -> None:
    """Views of a file without ``[[index]]`` have the indexes of variables, by their names."""
    text = '[[view]]\nname = "a"\nindexes = ["extra-1", "root"]'
    settings = read(text, {"EXTRA_INDEX_URLS": "http://a.example/"})
    assert names(settings) == ["root", "extra-1"]
    assert views(settings) == {"default": ("root", "extra-1"), "a": ("extra-1", "root")}
    assert refusal(read, text).endswith(
        '[[view]] "a": indexes (item 1) = "extra-1": there is no such index; '
        "a list of some of root is accepted"
    )


@pytest.mark.parametrize("name", ["INDEX_URL", "EXTRA_INDEX_URLS", "EXTRA_INDEX_TTLS"])
def test_two_places(read: Read, file: Path, name: str) -> None:
    """Indexes of the file beside those of variables, options or files are an error naming both."""
    variable, value = f"PROXPI_{name}", "5" if name.endswith("TTLS") else "http://u:secret@h/"
    both = f"{file} has [[index]] tables, too; only one of the two is accepted"
    shown = value.replace("u:secret", "***")
    assert refusal(read, TWO, {name: value}) == f"{variable}={shown!r}: {both}"
    line = refusal(read, TWO, {}, **{name.lower(): value})
    assert line == f"{variable}={shown!r} (--{name.lower().replace('_', '-')}): {both}"
    assert names(read(TWO, {name: ""}, **{name.lower(): ""})) == ["public", "own"]


def test_two_places_with_secrets(read: Read, tmp_path: Path) -> None:
    """A file with the URL of an index counts as the variable, as does the older one of TTLs."""
    secret = tmp_path / "url"
    secret.write_text("http://u:secret@h/")
    line = refusal(read, TWO, {"INDEX_URL_FILE": str(secret)})
    assert line.startswith("PROXPI_INDEX_URL_FILE='http://***@h/': ")
    assert refusal(read, TWO, {"EXTRA_INDEX_TTL": "5"}).startswith("PROXPI_EXTRA_INDEX_TTL='5': ")


def test_a_ttl_without_effect(read: Read) -> None:
    """A TTL of the main index has no effect beside ``[[index]]``, and that is one warning."""
    settings = read(TWO, {"INDEX_TTL": "5"})
    assert settings.warnings == (
        "PROXPI_INDEX_TTL has no effect: each [[index]] has a ttl of its own",
    )
    assert [index.ttl for index in settings.indexes] == [1800.0, 10.0]


def test_an_index_in_no_view(read: Read, file: Path) -> None:
    """An index that no view lists is one warning, which says that nobody gets what it owns."""
    text = '[[view]]\nname = "default"\nindexes = ["public"]'
    line = f'{file}: no [[view]] lists [[index]] "own": '
    assert read(TWO + text).warnings == (f"{line}no effect",)
    owner = TWO + 'owns = ["acme-*"]\n' + text
    assert read(owner).warnings == (f"{line}the projects that it owns are in no view",)


@pytest.mark.parametrize(
    ("entry", "mode", "warns"),
    [
        ('[[index]]\nname = "a"\nurl = "http://u:secret@h/"', 0o644, True),
        ('[[index]]\nname = "a"\nurl = "http://u:secret@h/"', 0o640, False),
        ('[[index]]\nname = "a"\nurl = "http://h/"', 0o644, False),
        ('[rules]\nadvisories-url = "http://u:secret@h/"', 0o604, True),
    ],
)
def test_a_password_that_others_read(
    read: Read, file: Path, entry: str, mode: int, warns: bool
) -> None:
    """A file with a password that every user of the machine can read is one warning."""
    file.touch()
    file.chmod(mode)
    warnings = read(entry).warnings
    assert stat.S_IMODE(file.stat().st_mode) == mode
    assert warnings == (
        (f"{file} has a password, and every user can read it: chmod o-r",) if warns else ()
    )


def index(*lines: str, name: str = "a", url: str = "http://h/") -> str:
    head = f"[[index]]\nname = {json.dumps(name)}\nurl = {json.dumps(url)}\n"
    return "\n".join([head, *lines, ""])


#: Texts of the file, and the line behind its name.
REFUSED = [
    # Names
    (
        '[[index]]\nurl = "http://h/"',
        "[[index]] number 1: name is missing; a name of lower-case letters from",
    ),
    (
        '[[index]]\nname = "a"',
        '[[index]] "a": url is missing; an http or https URL with a host, or',
    ),
    (
        index(name="A"),
        '[[index]] number 1: name = "A": not understood; a name of lower-case letters from a to z',
    ),
    (index(name=""), '[[index]] number 1: name = "": not understood; '),
    (index(name="a\n"), '[[index]] number 1: name = "a\\n": not understood; '),
    (index(name="ü"), '[[index]] number 1: name = "ü": not understood; '),
    (
        index().replace('"a"', "1"),
        "[[index]] number 1: name = 1: a number in place of a text; a na",
    ),
    (
        index() + index(url="http://i/"),
        '[[index]] "a": name = "a": another [[index]] has it; a name of its own is accepted',
    ),
    # URLs
    (
        index(url="ftp://u:secret@h/"),
        '[[index]] "a": url = "ftp://***@h/": not understood; an http',
    ),
    (
        index(url="file:wheels"),
        '[[index]] "a": url = "file:wheels": the path of the folder is not ab',
    ),
    (
        index(url="file://srv/a"),
        '[[index]] "a": url = "file://srv/a": a host has no place in the URL of a folder, such as',
    ),
    (
        index(url="~/packages"),
        '[[index]] "a": url = "~/packages": the URL of this folder is file:///',
    ),
    (
        index() + index(name="b", url="http://h"),
        '[[index]] "b": url = "http://h": [[index]] "a" has the same URL; a URL of its own is acc',
    ),
    (
        index(url="http://u:one@h/") + index(name="b", url="http://v:two@h"),
        '[[index]] "b": url = "http://***@h": [[index]] "a" has the same URL; a URL of its own is',
    ),
    (
        index(url="http://h/?token=secret"),
        '[[index]] "a": url = "http://h/?***": not understood; ',
    ),
    (
        index(url="file:/srv/./a") + index(name="b", url="file:///srv/a"),
        '[[index]] "b": url = "file:///srv/a": [[index]] "a" has the same URL; ',
    ),
    # Times
    (
        index('ttl = "abc"'),
        '[[index]] "a": ttl = "abc": not understood; a number of seconds, 0 or m',
    ),
    (index("ttl = -1"), '[[index]] "a": ttl = -1: not understood; '),
    (index("ttl = inf"), '[[index]] "a": ttl = Infinity: not understood; '),
    (index("ttl = 1" + "0" * 400), '[[index]] "a": ttl = 1000'),
    (index("ttl = true"), '[[index]] "a": ttl = true: a switch in place of a time; '),
    (
        index("ttl = 12:00:00"),
        '[[index]] "a": ttl = "12:00:00": a date or time in place of a time; ',
    ),
    # Patterns
    (
        index('projects = "torch"'),
        '[[index]] "a": projects = "torch": a text in place of a list; a list whose items',
    ),
    (
        index("projects = []"),
        '[[index]] "a": projects = []: an empty list: the index would never be ',
    ),
    (
        index('projects = ["a", "b c"]'),
        '[[index]] "a": projects (item 2) = "b c": \'b c\' is no pr',
    ),
    (index("owns = [1]"), '[[index]] "a": owns (item 1) = 1: a number in place of a text; '),
    (
        index('owns = ["http://u:secret@h/"]'),
        '[[index]] "a": owns (item 1) = "http://***@h/": not un',
    ),
    (
        index('owns = ["acme-*"]') + index('owns = ["x", "Acme_*"]', name="b", url="http://i/"),
        '[[index]] "b": owns (item 2) = "acme-*": [[index]] "a" owns the same names, and the vi',
    ),
    # Views
    (
        TWO + '[[view]]\nindexes = ["own"]',
        "[[view]] number 1: name is missing; another name, of low",
    ),
    (
        TWO + '[[view]]\nname = "a"',
        '[[view]] "a": indexes is missing; a list of names of indexes is ',
    ),
    (
        TWO + '[[view]]\nname = "a"\nindexes = []',
        '[[view]] "a": indexes = []: an empty list: the vi',
    ),
    (
        TWO + '[[view]]\nname = "a"\nindexes = "own"',
        '[[view]] "a": indexes = "own": a text in place of a list; a list of names of ind',
    ),
    (
        TWO + '[[view]]\nname = "a"\nindexes = ["own", "privat"]',
        '[[view]] "a": indexes (item 2) = "privat": there is no such index; a list of some of pu',
    ),
    (
        TWO + '[[view]]\nname = "a"\nindexes = ["own", "own"]',
        '[[view]] "a": indexes (item 2) = "own": it stands there twice; each index once is',
    ),
    (
        TWO + '[[view]]\nname = "a"\nindexes = ["own"]\n' * 2,
        '[[view]] "a": name = "a": another [[view]] has it; a name of its own is accepted',
    ),
    *(
        (
            TWO + f'[[view]]\nname = "{name}"\nindexes = ["own"]',
            f'[[view]] "{name}": name = "{name}": proxpi may use /{name}/ itself; another name',
        )
        for name in RESERVED_SEGMENTS
    ),
    # Rules
    (
        "[rules]\nexclude-newer = 7",
        "[rules]: exclude-newer = 7: a number in place of a text; an age",
    ),
    (
        '[rules]\nexclude-newer = "7"',
        '[rules]: exclude-newer = "7": it has no unit, such as 7 days;',
    ),
    (
        '[rules]\nexclude-newer = ""',
        '[rules]: exclude-newer = "": not understood; an age such as 7',
    ),
    (
        "[rules]\nexclude-newer = 2025-03-16T12:00:00",
        '[rules]: exclude-newer = "2025-03-16 12:00:00"',
    ),
    (
        '[rules]\nexclude-newer-unknown = "drop"',
        '[rules]: exclude-newer-unknown = "drop": not under',
    ),
    (
        '[rules]\ndeny = "evil"',
        '[rules]: deny = "evil": a text in place of a list; a list whose items',
    ),
    (
        '[rules]\ndeny = ["a", "b<>1"]',
        "[rules]: deny (item 2) = \"b<>1\": '<>1' are no versions such",
    ),
    (
        '[rules]\ndeny = ["sha256:12"]',
        '[rules]: deny (item 1) = "sha256:12": a SHA-256 digest has 64',
    ),
    (
        '[rules]\ndeny-files = ["~no-such-user/a"]',
        '[rules]: deny-files (item 1) = "~no-such-user/a"',
    ),
    (
        '[rules]\ndeny-files = [""]',
        '[rules]: deny-files (item 1) = "": it is empty; a list of paths ',
    ),
    (
        "[rules]\nallow = []",
        "[rules]: allow = []: an empty list: nothing could be installed; leave i",
    ),
    (
        "[rules]\nadvisories = false",
        "[rules]: advisories = false: a switch in place of a text; off ",
    ),
    (
        '[rules]\nadvisories = "on"',
        '[rules]: advisories = "on": not understood; off or malicious is',
    ),
    (
        '[rules]\nadvisories-url = "/srv/osv"',
        '[rules]: advisories-url = "/srv/osv": the URL of this ',
    ),
    ('[rules]\nadvisories-except = ["requests"]', "[rules]: advisories-except (item 1) = "),
    # Keys and tables
    (
        index("tls = 5"),
        '[[index]] "a": there is no key "tls" (the nearest is ttl); name, url, ttl, projects and',
    ),
    (
        "[rules]\nexclude_newer = 1",
        '[rules]: there is no key "exclude_newer" (the nearest is exclude-n',
    ),
    (
        index("deny = []"),
        '[[index]] "a": there is no key "deny" (it is one of [rules]); name, url, ',
    ),
    (
        "[server]\nport = 1",
        'there is no table "[server]" (the nearest is [[view]]); [[index]], [[view',
    ),
    (
        "[[routes]]",
        'there is no table "[[routes]]" (the nearest is [rules]); [[index]], [[view]] and ',
    ),
    (
        '[[indexes]]\nname = "a"',
        'there is no table "[[indexes]]" (the nearest is [[index]]); [[index]], [[view]] and ',
    ),
    (
        'deny = ["evil"]',
        'the key "deny" stands in no table (it is one of [rules]); [[index]], [[view]]',
    ),
    ("port = 1", 'the key "port" stands in no table; [[index]], [[view]] and [rules] are accepted'),
    ('[index]\nname = "a"', "index is a table; [[index]] is accepted"),
    ("[[rules]]", "rules is a list; [rules] is accepted"),
    ("index = [1]", "index is a list; [[index]] is accepted"),
    # TOML
    ("a = = 1", "no TOML: Invalid value (at line 1, column 5); TOML is accepted"),
    (
        "[rules]\n[rules]",
        "no TOML: Cannot declare ('rules',) twice (at line 2, column 7); TOML is ",
    ),
    ("a = " + "[" * 20_000, "nested too deeply; TOML is accepted"),
    ("a = 1" + "0" * 5_000, "no TOML: "),
]


@pytest.mark.parametrize(("text", "line"), REFUSED, ids=range(len(REFUSED)))
def test_refused(read: Read, file: Path, text: str, line: str) -> None:
    """A wrong entry is one line: file, table, key, value without password, what is accepted."""
    found = refusal(read, text)
    assert found.startswith(f"{file}: {line}"), found
    assert found.endswith(("is accepted", "are accepted"))
    assert "secret" not in found


def test_a_long_value(read: Read) -> None:
    """The line that refuses a long value shows its beginning."""
    line = refusal(read, f'[rules]\nadvisories = "{"x" * 100_000}"')
    assert 'advisories = "xxx' in line
    assert len(line) < 400


def test_a_file_that_cannot_be_read(file: Path) -> None:
    """A file that is missing, a folder or not text is refused as the value of its setting."""
    for name, why in (("none.toml", "No such file or directory"), ("", "Is a directory")):
        path = os.path.join(file.parent, name)
        with pytest.raises(SettingsError) as refused:
            Settings.read({"PROXPI_CONFIG": path}, {})
        line = f"PROXPI_CONFIG={path!r}: cannot be read ({why}); a readable TOML file is accepted"
        assert str(refused.value) == line
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError) as refused:
        Settings.read({}, {"config": str(file)})
    line = f"PROXPI_CONFIG={str(file)!r} (--config): cannot be read (not text in UTF-8); "
    assert str(refused.value).startswith(line)


def test_no_view_hides_a_route() -> None:
    """The first segments of proxpi's own URLs are names that no view can have."""
    rules = AdminApi.app.url_map.iter_rules()
    segments = {rule.rule.strip("/").partition("/")[0] for rule in rules}
    segments |= {root.decode() for root in ROOTS}
    assert segments - {""} <= set(RESERVED_SEGMENTS)


VALUES = st.recursive(
    st.one_of(st.text(max_size=8), st.integers(), st.booleans(), st.just("http://a/")),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)
KEYS = st.sampled_from(["name", "url", "ttl", "projects", "owns", "indexes", "deny", "allow", "x"])


@given(st.sampled_from(["[[index]]", "[[view]]", "[rules]"]), st.dictionaries(KEYS, VALUES))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_table(read: Read, title: str, entries: dict[str, object]) -> None:
    """Any table is accepted or refused in one line."""
    lines = [f"{name} = {json.dumps(value)}" for name, value in entries.items()]
    try:
        read("\n".join([title, *lines]))
    except SettingsError as error:
        assert len(str(error).splitlines()) == 1


# Set-ups of other servers, moved over


def test_routes_of_simpleindex(read: Read) -> None:
    """Routes to folders for some names, and to a public index for the others.

    The first is ``"uranusjr-{subproject}"`` of its README, the second its annotated example.
    """
    settings = read("""
        [[index]]
        name = "uranusjr"
        url = "file:///srv/simpleindex"    # one folder a project
        projects = ["uranusjr-*"]
        owns = ["uranusjr-*"]
        [[index]]
        name = "packages"
        url = "file:///srv/simpleindex/index"
        projects = ["my-first-package", "my-second-package"]
        owns = ["my-first-package", "my-second-package"]
        [[index]]
        name = "public"
        url = "https://index.example/simple/"
        """)
    assert views(settings) == {"default": ("uranusjr", "packages", "public")}


def test_folders_of_pypiserver(read: Read) -> None:
    """Several folders with a fallback, and the two applications of its ``paste.ini``."""
    settings = read("""
        [[index]]
        name = "stable"
        url = "file:///home/me/stable-packages"
        [[index]]
        name = "unstable"
        url = "file:///home/me/unstable-packages"
        [[index]]
        name = "fallback"
        url = "https://index.example/simple/"

        [[view]]
        name = "default"                   # /
        indexes = ["stable", "fallback"]
        [[view]]
        name = "unstable"                  # /unstable/
        indexes = ["stable", "unstable", "fallback"]
        """)
    assert views(settings) == {
        "default": ("stable", "fallback"),
        "unstable": ("stable", "unstable", "fallback"),
    }


def test_a_folder_alone() -> None:
    """``pypi-server run --disable-fallback FOLDER`` is one variable; with a fallback it is two."""
    [folder] = Settings.read({"PROXPI_INDEX_URL": "file:///home/me/packages"}, {}).indexes
    assert (folder.url, folder.ttl) == ("file:///home/me/packages/", 10.0)
    both = {"PROXPI_EXTRA_INDEX_URLS": "https://index.example/simple/"}
    settings = Settings.read({"PROXPI_INDEX_URL": "file:///home/me/packages", **both}, {})
    assert names(settings) == ["root", "extra-1"]


def test_entries_in_force(read: Read) -> None:
    """Entries are in force with the file as source, without passwords, in place of variables."""
    text = (
        '[[index]]\nname = "own"\nurl = "https://me:secret@own.example/"\nowns = ["a", "b-*"]\n'
        '[[view]]\nname = "cpu"\nindexes = ["own"]\n'
        '[rules]\nexclude-newer = "7 days"\ndeny = ["bad==1"]\n'
    )
    rows = {row.variable: (row.value, row.source) for row in read(text).in_force}
    assert rows['[[index]] "own" url'] == ("https://***@own.example/", "file")
    assert rows['[[index]] "own" owns'] == ("a, b-*", "file")
    assert rows['[[view]] "cpu" indexes'] == ("own", "file")
    assert rows["[rules] exclude-newer"] == ("7 days", "file")
    assert rows["[rules] deny"] == ("bad==1", "file")
    assert not rows.keys() & {"PROXPI_INDEX_URL", "PROXPI_INDEX_TTL", "PROXPI_EXCLUDE_NEWER"}


def test_a_variable_beats_the_entry_of_the_file_in_force(read: Read) -> None:
    """Where both say which files are too young, the one that counts is in force, alone."""
    rows = read('[rules]\nexclude-newer = "7 days"\n', {"EXCLUDE_NEWER": "1 day"}).in_force
    found = {row.variable: row.value for row in rows if "newer" in row.variable.lower()}
    assert found == {"PROXPI_EXCLUDE_NEWER": "1 day"}
