"""Variables that look like settings and have no effect: each is one warning."""

from __future__ import annotations

import pytest

from proxpi.settings import RETIRED, SETTINGS, Settings


@pytest.mark.parametrize("name", RETIRED)
def test_a_retired_variable_is_a_warning(name: str) -> None:
    """A set variable of an earlier release, or of the original, is named with the reason."""
    settings = Settings.read({name: "2", "PROXPI_INDEX_TTL": "5"}, {})
    assert settings.warnings == (f"{name} has no effect: {RETIRED[name]}",)
    assert settings.index_ttl == 5.0
    assert Settings.read({name: ""}, {}).warnings == ()


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("PROXPI_INDX_URL", "PROXPI_INDEX_URL"),
        ("PROXPI_INDEXURL", "PROXPI_INDEX_URL"),
        ("proxpi_index_url", "PROXPI_INDEX_URL"),
        ("PROXPI_INDX_URL_FILE", "PROXPI_INDEX_URL_FILE"),
        ("PROXPI_EXTRA_INDEX_URL", "PROXPI_EXTRA_INDEX_URLS"),
        ("PROXPI_CACHESIZE", "PROXPI_CACHE_SIZE"),
        ("PROXPI_LOG_LEVEL", "PROXPI_LOGGING_LEVEL"),
        ("PROXPI_DRAIN", "PROXPI_DRAIN_TIMEOUT"),
    ],
)
def test_an_unknown_variable_is_a_warning(name: str, nearest: str) -> None:
    """A set variable that is no setting is named, with the nearest setting and not its value."""
    [warning] = Settings.read({name: "secret"}, {}).warnings
    assert warning == f"{name} has no effect: there is no such setting; did you mean {nearest}?"
    assert Settings.read({name: ""}, {}).warnings == ()


def test_nothing_resembles_an_unknown_variable() -> None:
    """However odd its name, there is one line, and some setting is the nearest."""
    for name in ("PROXPI_", "PROXPI_X", "PROXPI_123", "PROXPI__", "PROXPI_\u00fc"):
        [warning] = Settings.read({name: "1"}, {}).warnings
        assert warning.startswith(f"{name} has no effect: ")


@pytest.mark.parametrize("name", ["PROXPI_FOO", "PROXPI_X", "PROXPI_123"])
def test_the_nearest_setting_is_no_suggestion(name: str) -> None:
    """A name that resembles no setting is not asked about; the nearest setting is named."""
    [warning] = Settings.read({name: "1"}, {}).warnings
    assert "did you mean" not in warning
    assert "the nearest name is PROXPI_" in warning


def test_a_file_for_what_is_no_secret_is_a_warning() -> None:
    """A variable that names a file for a plain setting is not read, and a line says so."""
    [warning] = Settings.read({"PROXPI_CACHE_SIZE_FILE": "/run/secrets/size"}, {}).warnings
    assert warning == (
        "PROXPI_CACHE_SIZE_FILE has no effect: only what may hold a secret is read from a file; "
        "set PROXPI_CACHE_SIZE"
    )


def test_no_warning() -> None:
    """Settings, other programs' variables, and those of Kubernetes and Docker are no mistakes."""
    assert Settings.read({setting.variable: "" for setting in SETTINGS}, {}).warnings == ()
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
