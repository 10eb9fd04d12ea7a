"""Command lines of gunicorn, as containers of the original have them."""

from __future__ import annotations

import pytest

from proxpi.gunicorn import NotTranslated, translated


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ("--bind 0.0.0.0:5000 --threads 2", "--listen=tcp:5000"),
        ("--bind=:80", "--listen=tcp:80"),
        ("--bind=localhost:80", "--listen=tcp:80:interface=127.0.0.1"),
        ("-b 10.0.0.1:80 -b unix:/a", "--listen=tcp:80:interface=10.0.0.1 --listen=unix:/a"),
        ("-b [::1]:80", r"--listen=tcp6:80:interface=\:\:1"),
        ("-b[::]:80 -t4 -w2", "--listen=tcp6:80"),
        ("--threads --bind :5000", "--listen=tcp:5000"),
        ("--index-ttl=1 --timeout=3 --workers 4 --offline=on", "--index-ttl=1 --offline=on"),
        ("-k gthread -t 30 --preload --index-ttl 5", "--index-ttl 5"),
        ("--access-logfile - --log-level debug --reload", ""),
        ("--config=a.toml --no-such -x word", "--config=a.toml --no-such -x word"),
    ],
)
def test_translated(arguments: str, options: str) -> None:
    """An address becomes ``--listen``, the rest is left out, and each is one warning."""
    found, warnings = translated(arguments.split())
    assert found == options.split()
    taken = [word for word in arguments.split() if word.startswith("-") and word != "-"]
    kept = [word for word in taken if word in options.split()]
    assert len(warnings) == len(taken) - len(kept)
    for warning in warnings:
        assert "is an option of gunicorn" in warning
        assert "write --listen=" in warning or "leave it out" in warning


@pytest.mark.parametrize("arguments", ["--bind", "-b fd://3", "--bind 0.0.0.0", "--bind=--preload"])
def test_addresses_not_understood(arguments: str) -> None:
    """An address that is none is refused in one line with the option of proxpi."""
    with pytest.raises(
        NotTranslated, match=r"^-.* of gunicorn: not understood; .*--listen=tcp:5000"
    ):
        translated(arguments.split())


@pytest.mark.parametrize(
    ("arguments", "program", "instead"),
    [
        ("--certfile a.pem", "gunicorn", "ssl:5000:privateKey="),
        ("--bind :443 --keyfile=b.pem", "gunicorn", "ssl:5000:privateKey="),
        ("--cert a.pem --key b.pem", "flask", "ssl:5000:privateKey="),
        ("--host 0.0.0.0", "flask", "tcp:5000 serves all addresses"),
        ("--index-ttl=5 --port=8080", "flask", "tcp:5000 serves all addresses"),
    ],
)
def test_refused(arguments: str, program: str, instead: str) -> None:
    """TLS is not left out, and options of flask are not taken for others."""
    with pytest.raises(NotTranslated, match=f"of {program}, .*; --listen={instead}"):
        translated(arguments.split())
