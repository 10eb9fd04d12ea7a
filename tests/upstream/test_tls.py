"""TLS to upstreams: the policy, trusted certificates, the client certificate, handshakes."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast
from unittest import mock

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface.verify import verifyObject

from proxpi.settings import Given
from proxpi.simple.urls import Origin
from proxpi.upstream import tls
from proxpi.upstream.errors import TLSFailed
from proxpi.upstream.tls import ClientCertificate, Handshake
from proxpi.values import SettingsError
from tests.support.certificates import Authority

HOST = "index.example"
CODES = SSL.X509VerificationCodes
FILE = "a PEM file with certificates, or a folder of such files, is accepted"
OTHERS = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")


@pytest.fixture
def authorities(tmp_path: Path) -> list[Authority]:
    return [Authority(tmp_path, name) for name in ("one", "two", "three")]


def connection(policy: IPolicyForHTTPS, host: bytes, port: int = 443) -> SSL.Connection:
    verifyObject(IPolicyForHTTPS, policy)
    creator = policy.creatorForNetloc(host, port)
    verifyObject(IOpenSSLClientConnectionCreator, creator)
    return creator.clientConnectionForTLS(cast(TLSMemoryBIOProtocol, None))


@pytest.mark.parametrize(("verify", "mode"), [(True, SSL.VERIFY_PEER), (False, SSL.VERIFY_NONE)])
def test_policy(tmp_path: Path, verify: bool, mode: int) -> None:
    """Certificates are checked unless that is off; servers are told a name, not an address.

    The client certificate is shown to the origins that may see it only.
    """
    policy = tls.policy(verify=verify, shown_to=lambda origin: True)
    for host, name in {
        b"index.example": b"index.example",
        b"INDEX.example.": b"index.example",
        b"192.0.2.1": None,
        b"2001:db8::1": None,
    }.items():
        made = connection(policy, host)
        assert (made.get_verify_mode(), made.get_servername()) == (mode, name)
        assert made.get_certificate() is None
        assert made.get_context() is connection(policy, b"b.example").get_context()
    path = Authority(tmp_path).issue("client", "proxpi@index.example")
    given = Given("PROXPI_CLIENT_CERT", str(path))
    origin = Origin("https", "index.example", 8443)
    policy = tls.policy(verify=verify, client_cert=given, shown_to=lambda each: each == origin)
    for host, port, shown in ((b"Index.example", 8443, True), (b"::1", 443, False)):
        made = connection(policy, host, port)
        assert (made.get_certificate() is not None, made.get_verify_mode()) == (shown, mode)


def trusts(
    authorities: Iterable[Authority], ca_bundle: object = None, **environment: object
) -> list[bool]:
    """Return for each authority whether the settings make its certificates trusted."""
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
        found.append(False)
        with suppress(crypto.X509StoreContextError):
            crypto.X509StoreContext(store, leaf).verify_certificate()
            found[-1] = True
    return found


def refusal(ca_bundle: object = None, **environment: object) -> str:
    with pytest.raises(SettingsError) as caught:
        trusts([], ca_bundle, **environment)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_trust(authorities: list[Authority], tmp_path: Path) -> None:
    """proxpi's bundle is added to the system, or to what other programs' variables name instead."""
    one, two, three = (authority.path for authority in authorities)
    bundle = tmp_path / "bundle.pem"
    bundle.write_text(f"# ours\n{one.read_text()}\n# theirs\n{two.read_text()}")
    # OpenSSL itself would look in a folder for names that are made of digests alone.
    folder, other = tmp_path / "folder", tmp_path / "other"
    (folder / "deeper").mkdir(parents=True)
    (folder / "company.crt").write_bytes(one.read_bytes())
    (folder / "again.crt").symlink_to("company.crt")
    (folder / "nowhere.crt").symlink_to("missing")
    (folder / "README").write_text("no certificate")
    other.mkdir()
    (other / "ca.pem").write_bytes(two.read_bytes())
    folders = os.pathsep.join(map(str, (folder, other)))
    cases: list[Any] = [
        (None, {}, [False, False, False]),
        (bundle, {}, [True, True, False]),
        (folder, {}, [True, False, False]),
        *((None, {variable: two}, [False, True, False]) for variable in OTHERS[:3]),
        *((None, {variable: folder}, [True, False, False]) for variable in OTHERS[:2]),
        (None, {"SSL_CERT_DIR": folders}, [True, True, False]),
        (three, {"REQUESTS_CA_BUNDLE": one, "SSL_CERT_FILE": two}, [True, True, True]),
        (None, {"REQUESTS_CA_BUNDLE": one, "CURL_CA_BUNDLE": two}, [True, False, False]),
        (None, {"REQUESTS_CA_BUNDLE": "", "CURL_CA_BUNDLE": two}, [False, True, False]),
    ]
    for ca_bundle, named, trusted in cases:
        assert trusts(authorities, ca_bundle, **named) == trusted, (ca_bundle, named)
    assert "'/no/such'" in refusal(SSL_CERT_DIR=f"{folders}:/no/such")


def test_the_system(authorities: list[Authority]) -> None:
    """The system is trusted, unless a variable of another program replaces it.

    An empty variable is an unset one, and does not keep OpenSSL from the system's trust.
    """
    path = authorities[0].path
    empty = {"SSL_CERT_FILE": "", "SSL_CERT_DIR": ""}
    seen: list[set[str]] = []

    def look(context: SSL.Context) -> None:
        seen.append(empty.keys() & os.environ.keys())

    with (
        mock.patch.dict(os.environ, empty),
        mock.patch.object(SSL.Context, "set_default_verify_paths", look),
    ):
        for variable in OTHERS:
            trusts([], path, **{variable: path})
        assert seen == []
        trusts([], path)
        trusts([], **empty)
        assert empty.items() <= os.environ.items(), "the environment itself is not changed"
    assert seen == [set(), set()]


@pytest.mark.parametrize("variable", ["PROXPI_CA_BUNDLE", *OTHERS])
def test_no_trust(tmp_path: Path, variable: str) -> None:
    """A missing file, an empty one and a folder without PEM are refused by the variable's name."""

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


def refusal_to_show(path: Path) -> str | None:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    try:
        tls.show(context, Given("PROXPI_CLIENT_CERT", str(path)))
    except SettingsError as error:
        text = str(error)
        start, end = f"PROXPI_CLIENT_CERT={str(path)!r}: ", " is accepted"
        assert text.startswith(start) and text.endswith(end) and "\n" not in text
        return text.removeprefix(start).partition(";")[0]
    assert SSL.Connection(context).get_certificate() is not None
    return None


def test_client_certificate(authorities: list[Authority], tmp_path: Path) -> None:
    """A certificate and its key are shown in either order, or refused with what is to be mended."""
    client, other = (one.issue(f"client-{one.path.stem}", "a@b.example") for one in authorities[:2])
    key, mark, certificate = client.read_text().partition("-----BEGIN CERT")
    private = load_pem_private_key(client.read_bytes(), None)
    secret = BestAvailableEncryption(b"a word")
    encrypted = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, secret).decode()
    path = tmp_path / "wrong.pem"
    cases: list[tuple[str, str | None]] = [
        (key + mark + certificate, None),
        (mark + certificate + key, None),
        ("", "holds no certificate"),
        (f"{mark}IFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "holds no certificate"),
        (key, "holds no certificate"),
        (mark + certificate, "holds no key"),
        (mark + certificate + encrypted, "its key is encrypted"),
        (
            other.read_text().partition(mark)[0] + mark + certificate,
            "its key is not that of its first certificate",
        ),
    ]
    for text, why in cases:
        path.write_text(text)
        assert refusal_to_show(path) == why
    assert refusal_to_show(tmp_path) == "cannot be read (Is a directory)"
    assert refusal_to_show(tmp_path / "x") == "cannot be read (No such file or directory)"


class Connection:
    """A connection that takes note of why it is broken off."""

    cause: str | None = None
    temporary = False

    def failVerification(self, reason: Failure) -> None:
        assert self.cause is None
        assert isinstance(reason.value, TLSFailed)
        self.cause, self.temporary = reason.value.cause, reason.value.temporary


def handshake(
    connection: Connection, host: str = HOST, certificate: ClientCertificate = "none"
) -> Handshake:
    return Handshake(cast(TLSMemoryBIOProtocol, connection), host, certificate)


def judged(certificate: Path | Any, code: int = 0, depth: int = 0, host: str = HOST) -> str | None:
    """Return the reason for which a certificate is refused, if it is."""
    made = Connection()
    if isinstance(certificate, Path):
        certificate = crypto.load_certificate(crypto.FILETYPE_PEM, certificate.read_bytes())
    found = handshake(made, host).verify(cast(Any, None), certificate, code, depth, not code)
    assert found is (made.cause is None)
    assert not made.temporary, "waiting mends no certificate"
    return made.cause


def test_names(tmp_path: Path) -> None:
    """A certificate needs the host among its names; the error says whose it is."""
    authority = Authority(tmp_path)
    for names, host in (
        (["*.pkgs.example"], "index.pkgs.example"),
        (["10.0.0.1", "other.example", "index.example"], HOST),
        (["127.0.0.1"], "127.0.0.1"),
        (["2001:db8::1"], "2001:db8:0:0::1"),
    ):
        assert judged(authority.issue("leaf", *names), host=host) is None
    for names, host, found in (
        (["10.0.0.1", "a.example"], HOST, "a.example, 10.0.0.1"),
        (["127.0.0.1"], "127.0.0.2", "127.0.0.1"),
        (["::1"], "::2", "::1"),
        (["index.example"], "127.0.0.1", "index.example"),
        ([f"{letter * 40}.example" for letter in "abc"], HOST, "…"),
    ):
        cause = judged(authority.issue("leaf", *names), host=host) or ""
        assert cause.startswith(f"the certificate is not for {host} but for ")
        assert cause.endswith(found) and len(cause) < 200


OWN, CHAIN = "the certificate of index.example", "a certificate that vouches for index.example"
DAY = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)


def test_chain(tmp_path: Path) -> None:
    """Each error of a chain has its sentence, about the certificate where it is found.

    It has the day of the certificate, or the name of an issuer that is not known.
    """
    authority = Authority(tmp_path, "Us\nand them")
    cases: list[tuple[int, int, str | None]] = [
        (0, 1, None),  # an authority need not have the host's name
        (0, 0, "the certificate is not for index.example but for no host at all"),
        (CODES.ERR_CERT_REVOKED, 0, f"{OWN} is not valid (cert revoked)"),
        (9999, 0, f"{OWN} is not valid (9999)"),
        # Security levels of OpenSSL.
        (66, 0, f"{OWN} has a key that is too small"),
        (67, 1, f"{CHAIN} has a key that is too small"),
        (68, 1, f"{CHAIN} is signed with a digest that is too weak"),
        (
            CODES.ERR_DEPTH_ZERO_SELF_SIGNED_CERT,
            0,
            f"{OWN} is signed by itself; to trust it, add it to PROXPI_CA_BUNDLE",
        ),
    ]
    for code, depth, expected in cases:
        assert judged(authority.path, code, depth) == expected
    leaf = authority.issue("leaf", HOST, expired=True)
    for depth, whose in ((0, OWN), (1, CHAIN)):
        expired = judged(leaf, CODES.ERR_CERT_HAS_EXPIRED, depth)
        assert expired == f"{whose} expired on {DAY:%Y-%m-%d}"
    early = judged(leaf, CODES.ERR_CERT_NOT_YET_VALID)
    assert early == f"{OWN} is not valid before {DAY - datetime.timedelta(days=1):%Y-%m-%d}"
    for code in (
        CODES.ERR_SELF_SIGNED_CERT_IN_CHAIN,
        CODES.ERR_UNABLE_TO_GET_ISSUER_CERT,
        CODES.ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY,
        CODES.ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE,
    ):
        cause = judged(leaf, code) or ""
        assert "from an unknown issuer (OU=Us?and them," in cause
        assert cause.endswith("add the issuer's certificate to PROXPI_CA_BUNDLE")
    assert judged(object()) == f"{OWN} is not understood (AttributeError)"


WANTS = "wants a client certificate; "


@pytest.mark.parametrize(
    ("alert", "certificate", "requested", "words", "temporary"),
    [
        # TLS 1.3 has an alert for a missing certificate, TLS 1.2 just a failure.
        (116, "none", False, f"{WANTS}set PROXPI_CLIENT_CERT", False),
        (40, "none", True, f"{WANTS}set PROXPI_CLIENT_CERT", False),
        (116, "withheld", True, f"{WANTS}PROXPI_CLIENT_CERT is shown only to", False),
        (40, "withheld", True, f"{WANTS}PROXPI_CLIENT_CERT is shown only to", False),
        *(
            (alert, "shown", True, "refuses the certificate of PROXPI_CLIENT_CERT (", False)
            for alert in (42, 43, 44, 45, 46, 48, 49, 51)
        ),
        (70, "none", False, "speaks no version of TLS that is safe", False),
        (40, "none", False, "no cipher or method in common", False),
        (71, "none", False, "no cipher or method in common", False),
        (112, "none", False, "does not go by that name", False),
        (48, "none", False, "broke off the TLS handshake (alert 48)", False),
        (80, "none", False, "broke off the TLS handshake (alert 80)", True),
    ],
)
def test_alerts(
    alert: int, certificate: ClientCertificate, requested: bool, words: str, temporary: bool
) -> None:
    """Each fatal alert has its sentence, which names the host; a warning ends nothing."""
    made, state = Connection(), mock.Mock()
    noted = handshake(made, certificate=certificate)
    if requested:
        state.get_state_string.return_value = b"SSLv3/TLS read server certificate request"
        noted.note(state, SSL.SSL_CB_CONNECT_LOOP, 1)
    noted.note(state, SSL.SSL_CB_READ_ALERT, 1 << 8)
    assert made.cause is None
    noted.note(state, SSL.SSL_CB_READ_ALERT, 2 << 8 | alert)
    assert words in (made.cause or "") and HOST in (made.cause or "")
    assert made.temporary is temporary
