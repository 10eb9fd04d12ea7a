"""Certificates from files: which are trusted, which is shown, and what cannot be."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from unittest import mock

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from OpenSSL import SSL, crypto

from proxpi.settings import Given, SettingsError
from proxpi.upstream import tls
from tests.support.certificates import Authority

FILE = "a PEM file with certificates, or a folder of such files, is accepted"
OTHERS = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")


def trusts(
    authorities: Iterable[Authority], ca_bundle: object = None, **environment: object
) -> list[bool]:
    """Tell for authorities whether the settings make what they issue trusted."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    named = {name: str(value) for name, value in environment.items()}
    given = Given("PROXPI_CA_BUNDLE", str(ca_bundle)) if ca_bundle is not None else None
    tls.trust(context, named, given)
    store = context.get_cert_store()
    assert store is not None
    found = []
    for number, authority in enumerate(authorities):
        pem = authority.issue(f"leaf-{number}", "index.example").read_bytes()
        leaf = crypto.load_certificate(crypto.FILETYPE_PEM, pem)
        try:
            crypto.X509StoreContext(store, leaf).verify_certificate()
        except crypto.X509StoreContextError:
            found.append(False)
        else:
            found.append(True)
    return found


def refusal(ca_bundle: object = None, **environment: object) -> str:
    """Give the line that says what is wrong with the settings."""
    with pytest.raises(SettingsError) as caught:
        trusts([], ca_bundle, **environment)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def authorities(tmp_path: Path) -> list[Authority]:
    """Three authorities."""
    return [Authority(tmp_path, name) for name in ("one", "two", "three")]


def test_nobody(authorities: list[Authority]) -> None:
    """The system does not know an authority that was made just now."""
    assert trusts(authorities) == [False] * 3


def test_several_in_one_file(authorities: list[Authority], tmp_path: Path) -> None:
    """A bundle may hold any number of certificates, and text between them."""
    one, two, _ = authorities
    bundle = tmp_path / "bundle.pem"
    bundle.write_text(f"# ours\n{one.path.read_text()}\n# theirs\n{two.path.read_text()}")
    assert trusts(authorities, bundle) == [True, True, False]


@pytest.mark.parametrize("variable", OTHERS[:3])
def test_other_programs(authorities: list[Authority], variable: str) -> None:
    """The variables of requests and OpenSSL are honored."""
    assert trusts(authorities, **{variable: authorities[1].path}) == [False, True, False]


@pytest.mark.parametrize("variable", OTHERS[:2])
def test_a_folder(authorities: list[Authority], tmp_path: Path, variable: str) -> None:
    """A folder stands for all certificates in it, whatever the names, and whatever else is there.

    OpenSSL itself would look for names that are made of digests alone.
    """
    folder = tmp_path / "folder"
    (folder / "deeper").mkdir(parents=True)
    (folder / "company.crt").write_bytes(authorities[0].path.read_bytes())
    (folder / "again.crt").symlink_to("company.crt")
    (folder / "nowhere.crt").symlink_to("missing")
    (folder / "README").write_text("no certificate")
    assert trusts(authorities, **{variable: folder}) == [True, False, False]
    assert trusts(authorities, folder) == [True, False, False]


def test_several_folders(authorities: list[Authority], tmp_path: Path) -> None:
    """``SSL_CERT_DIR`` may name several."""
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder, authority in zip(folders, authorities, strict=False):
        folder.mkdir()
        (folder / "ca.pem").write_bytes(authority.path.read_bytes())
    text = os.pathsep.join(map(str, folders))
    assert trusts(authorities, SSL_CERT_DIR=text) == [True, True, False]
    assert "'/no/such'" in refusal(SSL_CERT_DIR=f"{text}:/no/such")


def test_all_together(authorities: list[Authority]) -> None:
    """The bundle of proxpi is added to what the others name, each of which counts."""
    one, two, three = (authority.path for authority in authorities)
    assert trusts(authorities, three, REQUESTS_CA_BUNDLE=one, SSL_CERT_FILE=two) == [True] * 3


def test_requests_before_curl(authorities: list[Authority]) -> None:
    """Of the two variables that requests reads it takes the first alone."""
    one, two, _ = (authority.path for authority in authorities)
    both = trusts(authorities, REQUESTS_CA_BUNDLE=one, CURL_CA_BUNDLE=two)
    assert both == [True, False, False]
    assert trusts(authorities, REQUESTS_CA_BUNDLE="", CURL_CA_BUNDLE=two) == [False, True, False]


def _looks_at_the_system(ca_bundle: object = None, **environment: object) -> bool:
    with mock.patch.object(SSL.Context, "set_default_verify_paths") as system:
        trusts([], ca_bundle, **environment)
    return bool(system.called)


def test_the_system(authorities: list[Authority]) -> None:
    """The system is trusted too, unless a variable of other programs says what is instead."""
    path = authorities[0].path
    assert _looks_at_the_system()
    assert _looks_at_the_system(path)
    for variable in OTHERS:
        assert not _looks_at_the_system(path, **{variable: path})


def test_an_empty_variable() -> None:
    """An empty variable is an unset one, and does not keep OpenSSL from the system's trust."""
    empty = {"SSL_CERT_FILE": "", "SSL_CERT_DIR": ""}
    seen: list[set[str]] = []

    def look(context: SSL.Context) -> None:
        seen.append(empty.keys() & os.environ.keys())

    with (
        mock.patch.dict(os.environ, empty),
        mock.patch.object(SSL.Context, "set_default_verify_paths", look),
    ):
        trusts([], **empty)
        assert empty.items() <= os.environ.items(), "nobody else's environment is changed"
    assert seen == [set()]


@pytest.mark.parametrize("variable", ["PROXPI_CA_BUNDLE", *OTHERS])
def test_no_trust(tmp_path: Path, variable: str) -> None:
    """What is not there, holds nothing, or is no PEM, is refused, and the variable is named."""

    def refused(path: Path) -> str:
        own = variable == "PROXPI_CA_BUNDLE"
        return refusal(path) if own else refusal(**{variable: path})

    missing, empty, folder = tmp_path / "missing", tmp_path / "empty", tmp_path / "folder"
    empty.write_bytes(b"")
    folder.mkdir()
    (folder / "note").write_text("nothing")
    why = "cannot be read (No such file or directory)"
    assert refused(missing) == f"{variable}={str(missing)!r}: {why}; {FILE}"
    for path in (empty, folder):
        assert refused(path) == f"{variable}={str(path)!r}: holds no certificate; {FILE}"


def shown(path: Path) -> SSL.Context:
    """Give a context that shows what is in a file."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    tls.show(context, Given("PROXPI_CLIENT_CERT", str(path)))
    return context


def test_client_certificate(authorities: list[Authority]) -> None:
    """A certificate and its key, in either order, can be shown."""
    path = authorities[0].issue("client", "proxpi@index.example")
    key, mark, certificate = path.read_text().partition("-----BEGIN CERT")
    for text in (key + mark + certificate, mark + certificate + key):
        path.write_text(text)
        assert SSL.Connection(shown(path)).get_certificate() is not None


def _refusal_to_show(path: Path) -> str:
    with pytest.raises(SettingsError) as caught:
        shown(path)
    text = str(caught.value)
    start, end = f"PROXPI_CLIENT_CERT={str(path)!r}: ", " is accepted"
    assert text.startswith(start) and text.endswith(end) and "\n" not in text
    return text.removeprefix(start).partition(";")[0]


def test_no_client_certificate(authorities: list[Authority], tmp_path: Path) -> None:
    """What cannot be shown is refused, for a reason that tells what to mend."""
    client, other = (one.issue(f"client-{one.path.stem}", "a@b.example") for one in authorities[:2])
    key, mark, certificate = client.read_text().partition("-----BEGIN CERT")
    private = load_pem_private_key(client.read_bytes(), None)
    secret = BestAvailableEncryption(b"a word")
    encrypted = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, secret).decode()
    path = tmp_path / "wrong.pem"
    for text, why in [
        ("", "holds no certificate"),
        (key, "holds no certificate"),
        (mark + certificate, "holds no key"),
        (mark + certificate + encrypted, "its key is encrypted"),
        (
            other.read_text().partition(mark)[0] + mark + certificate,
            "its key is not that of its first certificate",
        ),
    ]:
        path.write_text(text)
        assert _refusal_to_show(path) == why
    path.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    assert _refusal_to_show(path) == "holds no certificate"
    assert _refusal_to_show(tmp_path) == "cannot be read (Is a directory)"
    assert _refusal_to_show(tmp_path / "x") == "cannot be read (No such file or directory)"
