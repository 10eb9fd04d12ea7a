"""TLS to upstreams: the policy, trusted certificates, the client certificate, handshakes."""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast
from unittest import mock

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
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

from proxpi.settings import Given, SettingsError
from proxpi.simple.urls import Origin
from proxpi.upstream import tls
from proxpi.upstream.errors import TLSFailed
from proxpi.upstream.tls import Handshake
from tests.support.certificates import Authority

HOST = "index.example"
CODES = SSL.X509VerificationCodes
FILE = "a PEM file with certificates, or a folder of such files, is accepted"
OTHERS = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")


@pytest.fixture
def authorities(tmp_path: Path) -> list[Authority]:
    """Three authorities."""
    return [Authority(tmp_path, name) for name in ("one", "two", "three")]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """An authority."""
    return Authority(tmp_path)


def connection(policy: IPolicyForHTTPS, host: bytes, port: int = 443) -> SSL.Connection:
    """Give a connection as the policy makes them."""
    verifyObject(IPolicyForHTTPS, policy)
    creator = policy.creatorForNetloc(host, port)
    verifyObject(IOpenSSLClientConnectionCreator, creator)
    return creator.clientConnectionForTLS(cast(TLSMemoryBIOProtocol, None))


@pytest.mark.parametrize(("verify", "mode"), [(True, SSL.VERIFY_PEER), (False, SSL.VERIFY_NONE)])
@pytest.mark.parametrize(
    ("host", "name"),
    [
        (b"index.example", b"index.example"),
        (b"INDEX.example.", b"index.example"),
        (b"192.0.2.1", None),
        (b"2001:db8::1", None),
    ],
)
def test_policy(verify: bool, mode: int, host: bytes, name: bytes | None) -> None:
    """Certificates are checked unless that is off; servers are told a name, not an address."""
    policy = tls.policy(verify=verify, shown_to=lambda origin: True)
    made = connection(policy, host)
    assert (made.get_verify_mode(), made.get_servername()) == (mode, name)
    assert made.get_certificate() is None
    assert made.get_context() is connection(policy, b"b.example").get_context()


@pytest.mark.parametrize("verify", [True, False])
def test_client_certificate(authority: Authority, verify: bool) -> None:
    """The client certificate is shown to the origins that may see it only."""
    asked: list[Origin] = []

    def shown_to(origin: Origin) -> bool:
        asked.append(origin)
        return origin.host == "index.example"

    path = authority.issue("client", "proxpi@index.example")
    given = Given("PROXPI_CLIENT_CERT", str(path))
    policy = tls.policy(verify=verify, client_cert=given, shown_to=shown_to)
    index, other = connection(policy, b"Index.example", 8443), connection(policy, b"::1")
    assert asked == [("https", "index.example", 8443), ("https", "::1", 443)]
    assert index.get_certificate() is not None
    assert other.get_certificate() is None
    assert index.get_verify_mode() == other.get_verify_mode()


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


def test_client_certificate_file(authorities: list[Authority]) -> None:
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
    return Handshake(protocol, host, "shown" if shows else "withheld" if has else "none")


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
    noted.note(cast(SSL.Connection, state), SSL.SSL_CB_READ_ALERT, 2 << 8 | alert)
    [found] = line.causes
    return found


@pytest.mark.parametrize(
    ("names", "host", "error"),
    [
        (["*.pkgs.example"], "index.pkgs.example", None),
        (["10.0.0.1", "other.example", "index.example"], HOST, None),
        (["127.0.0.1"], "127.0.0.1", None),
        (["2001:db8::1"], "2001:db8:0:0::1", None),
        (["10.0.0.1", "a.example"], HOST, "a.example, 10.0.0.1"),
        (["127.0.0.1"], "127.0.0.2", "127.0.0.1"),
        (["::1"], "::2", "::1"),
        (["index.example"], "127.0.0.1", "index.example"),
        ([f"{letter * 40}.example" for letter in "abc"], HOST, "…"),
    ],
)
def test_names(authority: Authority, names: list[str], host: str, error: str | None) -> None:
    """A certificate needs the host among its names; the error says whose it is."""
    cause = judged(authority.issue("leaf", *names), host=host)
    if error is None:
        assert cause is None
        return
    assert cause is not None
    assert cause.startswith(f"the certificate is not for {host} but for ")
    assert cause.endswith(error)
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
    handshake(line).note(state, SSL.SSL_CB_READ_ALERT, 1 << 8)
    assert line.causes == []
