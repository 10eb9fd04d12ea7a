"""What went wrong in a handshake, in a sentence that says what to do."""

from __future__ import annotations

import contextlib
import datetime
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from OpenSSL import SSL, crypto
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure

from proxpi.upstream.errors import TLSFailed
from proxpi.upstream.tls import Handshake
from tests.support.certificates import Authority

HOST = "index.example"
CODES = SSL.X509VerificationCodes
FATAL, WARNING = 2, 1


class Line:
    """A connection that takes note of why it is broken off."""

    def __init__(self) -> None:
        self.causes: list[tuple[str, bool]] = []

    def failVerification(self, reason: Failure) -> None:
        """See `TLSMemoryBIOProtocol`."""
        error = reason.value
        assert isinstance(error, TLSFailed)
        self.causes.append((error.cause, error.temporary))


class State:
    """OpenSSL's connection, somewhere in a handshake."""

    def __init__(self, state: bytes = b"") -> None:
        self.state = state

    def get_state_string(self) -> bytes:
        """See `SSL.Connection`."""
        return self.state


def handshake(line: Line, host: str = HOST, *, shows: bool = False, has: bool = False) -> Handshake:
    """Give a handshake with a host."""
    protocol = cast(TLSMemoryBIOProtocol, line)
    return Handshake(protocol, host, host[0].isdigit() or ":" in host, shows, has)


def judged(certificate: Path | Any, code: int = 0, depth: int = 0, host: str = HOST) -> str | None:
    """Give why a certificate is refused, if it is."""
    line = Line()
    if isinstance(certificate, Path):
        certificate = crypto.load_certificate(crypto.FILETYPE_PEM, certificate.read_bytes())
    found = handshake(line, host).verify(cast(Any, None), certificate, code, depth, not code)
    assert found is not bool(line.causes)
    for cause, temporary in line.causes:
        assert not temporary, "waiting mends no certificate"
        return cause
    return None


def alerted(alert: int, *, wanted: bool = False, shows: bool = False, has: bool = False) -> Any:
    """Give what is made of an alert."""
    line = Line()
    noted = handshake(line, shows=shows, has=has)
    if wanted:
        state = State(b"SSLv3/TLS read server certificate request")
        noted.note(cast(SSL.Connection, state), SSL.SSL_CB_CONNECT_LOOP, 1)
    state = State(b"error")
    noted.note(cast(SSL.Connection, state), SSL.SSL_CB_READ_ALERT, FATAL << 8 | alert)
    [found] = line.causes
    return found


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """An authority."""
    return Authority(tmp_path)


@pytest.mark.parametrize(
    ("names", "host"),
    [
        (["index.example"], HOST),
        (["*.pkgs.example"], "index.pkgs.example"),
        (["10.0.0.1", "other.example", "index.example"], HOST),
        (["127.0.0.1"], "127.0.0.1"),
        (["::1"], "::1"),
        (["2001:db8::1"], "2001:db8:0:0::1"),
    ],
)
def test_right_names(authority: Authority, names: list[str], host: str) -> None:
    """A certificate that has the host among its names or addresses is one of the host."""
    assert judged(authority.issue("leaf", *names), host=host) is None


@pytest.mark.parametrize(
    ("names", "host", "whom"),
    [
        (["other.example"], HOST, "other.example"),
        (["10.0.0.1", "a.example"], HOST, "a.example, 10.0.0.1"),
        (["127.0.0.1"], "127.0.0.2", "127.0.0.1"),
        (["::1"], "::2", "::1"),
        (["index.example"], "127.0.0.1", "index.example"),
        ([f"{letter * 40}.example" for letter in "abc"], HOST, "…"),
    ],
)
def test_wrong_names(authority: Authority, names: list[str], host: str, whom: str) -> None:
    """One that has not is refused, and it is said whose it is."""
    cause = judged(authority.issue("leaf", *names), host=host)
    assert cause is not None
    assert cause.startswith(f"the certificate is not for {host} but for ")
    assert cause.endswith(whom)
    assert len(cause) < 200


def test_names_count_at_the_leaf_alone(authority: Authority) -> None:
    """An authority in the chain need not have the host's name."""
    assert judged(authority.path, depth=1) is None
    assert (
        judged(authority.path) == "the certificate is not for index.example but for no host at all"
    )


def test_dates(authority: Authority) -> None:
    """What has expired is told with the day, at whichever place of the chain."""
    day = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    leaf = authority.issue("leaf", HOST, expired=True)
    own, above = "the certificate of index.example", "a certificate that vouches for index.example"
    for depth, whose in ((0, own), (1, above)):
        expired = judged(leaf, CODES.ERR_CERT_HAS_EXPIRED, depth)
        assert expired == f"{whose} expired on {day:%Y-%m-%d}"
    early = judged(leaf, CODES.ERR_CERT_NOT_YET_VALID)
    before = day - datetime.timedelta(days=1)
    assert early == f"{own} is not valid before {before:%Y-%m-%d}"


@pytest.mark.parametrize(
    "code",
    [
        CODES.ERR_SELF_SIGNED_CERT_IN_CHAIN,
        CODES.ERR_UNABLE_TO_GET_ISSUER_CERT,
        CODES.ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY,
        CODES.ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE,
    ],
)
def test_unknown_issuer(tmp_path: Path, code: int) -> None:
    """Whose issuer is not known is told with the issuer, and with what to set."""
    leaf = Authority(tmp_path, "Us\nand them").issue("leaf", HOST)
    cause = judged(leaf, code)
    assert cause is not None
    assert "from an unknown issuer (OU=Us?and them," in cause
    assert cause.endswith("add the issuer's certificate to PROXPI_CA_BUNDLE")


def test_self_signed(authority: Authority) -> None:
    """What nobody but itself vouches for is told so."""
    cause = judged(authority.path, CODES.ERR_DEPTH_ZERO_SELF_SIGNED_CERT)
    assert cause == (
        "the certificate of index.example is signed by itself; "
        "to trust it, add it to PROXPI_CA_BUNDLE"
    )


@pytest.mark.parametrize(
    ("code", "words"), [(CODES.ERR_CERT_REVOKED, "cert revoked"), (9999, "9999")]
)
def test_other_trouble(authority: Authority, code: int, words: str) -> None:
    """For the rest OpenSSL's own words will do."""
    cause = judged(authority.path, code)
    assert cause == f"the certificate of index.example is not valid ({words})"


Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def _issued(name: str, key: Key, by: Key) -> x509.Certificate:
    """Give a certificate that the authority issues for a key, perhaps its own."""
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    issuer, subject = (
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, each)])
        for each in ("authority", name)
    )
    is_authority = x509.BasicConstraints(name == "authority", None)
    whose = x509.SubjectAlternativeName([x509.DNSName(HOST)])
    builder = x509.CertificateBuilder(
        issuer, subject, key.public_key(), x509.random_serial_number(), now - day, now + day
    )
    extended = builder.add_extension(is_authority, critical=True).add_extension(whose, False)
    return extended.sign(by, hashes.SHA256())


@pytest.mark.parametrize(
    ("weak", "words"),
    [
        ("leaf", "the certificate of index.example has a key that is too small"),
        ("authority", "a certificate that vouches for index.example has a key that is too small"),
        (None, None),
    ],
)
def test_small_keys(weak: str | None, words: str | None) -> None:
    """A key that OpenSSL finds too small is told so, at whichever place of the chain."""
    authority, leaf = (
        rsa.generate_private_key(65537, 1024)
        if name == weak
        else ec.generate_private_key(ec.SECP256R1())
        for name in ("authority", "leaf")
    )
    serving, asking = SSL.Context(SSL.TLS_SERVER_METHOD), SSL.Context(SSL.TLS_CLIENT_METHOD)
    serving.set_cipher_list(b"ALL:@SECLEVEL=0")
    serving.use_certificate(_issued("leaf", leaf, authority))
    serving.use_privatekey(leaf)
    asking.set_cipher_list(b"DEFAULT:@SECLEVEL=2")
    store = asking.get_cert_store()
    assert store is not None
    store.add_cert(crypto.X509.from_cryptography(_issued("authority", authority, authority)))
    line = Line()
    client, server = SSL.Connection(asking), SSL.Connection(serving)
    client.set_verify(SSL.VERIFY_PEER, handshake(line).verify)
    client.set_connect_state()
    server.set_accept_state()
    for one, other in ((client, server), (server, client), (client, server)):
        with contextlib.suppress(SSL.Error):  # it wants to read more, or is broken off
            one.do_handshake()
        with contextlib.suppress(SSL.WantReadError):
            other.bio_write(one.bio_read(1 << 16))
    assert line.causes[:1] == ([(words, False)] if words else [])
    finished = client.get_state_string() == b"SSL negotiation finished successfully"
    assert finished is (weak is None)


def test_weak_digest(authority: Authority) -> None:
    """So is a digest that is too weak; nobody signs with such a one here any more."""
    assert judged(authority.path, 68, 1) == (
        "a certificate that vouches for index.example is signed with a digest that is too weak"
    )


def test_what_is_not_understood() -> None:
    """A certificate that nobody understands is refused, too."""
    cause = judged(object())
    assert cause == "the certificate of index.example is not understood (AttributeError)"


def test_client_certificate_wanted() -> None:
    """A server that wants a certificate gets one told, in either version of TLS."""
    set_it = ("index.example wants a client certificate; set PROXPI_CLIENT_CERT", False)
    assert alerted(116) == set_it
    assert alerted(40, wanted=True) == set_it
    for alert in (116, 40):
        cause, temporary = alerted(alert, wanted=True, has=True)
        assert not temporary
        assert "wants a client certificate; PROXPI_CLIENT_CERT is shown only to" in cause


@pytest.mark.parametrize("alert", [42, 43, 44, 45, 46, 48, 49, 51])
def test_client_certificate_refused(alert: int) -> None:
    """A certificate that the server does not like is told from one that is missing."""
    cause, temporary = alerted(alert, wanted=True, shows=True, has=True)
    assert cause.startswith("index.example refuses the certificate of PROXPI_CLIENT_CERT (")
    assert not temporary


@pytest.mark.parametrize(
    ("alert", "words", "temporary"),
    [
        (70, "speaks no version of TLS that is safe", False),
        (40, "no cipher or method in common", False),
        (71, "no cipher or method in common", False),
        (112, "does not go by that name", False),
        (48, "broke off the TLS handshake (alert 48)", False),
        (80, "broke off the TLS handshake (alert 80)", True),
    ],
)
def test_other_alerts(alert: int, words: str, temporary: bool) -> None:
    """Other alerts have their sentence, which names the host; few of them pass by themselves."""
    cause, found = alerted(alert)
    assert words in cause
    assert HOST in cause
    assert found is temporary


def test_warnings() -> None:
    """An alert that is but a warning, as at the end of each connection, breaks nothing off."""
    line = Line()
    state = cast(SSL.Connection, State())
    handshake(line).note(state, SSL.SSL_CB_READ_ALERT, WARNING << 8)
    assert line.causes == []
