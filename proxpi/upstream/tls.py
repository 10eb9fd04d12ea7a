"""TLS to upstreams: trusted certificates, the client certificate, and errors of the handshake.

Certificate files are read once, at the start; one that cannot be used is a start-up error. There
are at most two OpenSSL contexts in a process: one that shows the client certificate, and one that
does not. All connections share them, since reading the system's certificates for each would stop
the reactor for 10 ms. Versions and ciphers are Twisted's choice: TLS 1.2 at least.

OpenSSL checks the chain, service-identity the name (RFC 9525). A handshake turns their findings,
and the alerts of the upstream (RFC 8446 6), into one sentence that says what to do.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Literal

import attrs
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificates
from OpenSSL import SSL
from OpenSSL.crypto import X509, X509StoreFlags
from service_identity.exceptions import CertificateError, VerificationError
from service_identity.hazmat import DNS_ID, IPAddress_ID, verify_service_identity
from service_identity.pyopenssl import extract_patterns
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import CertificateOptions
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from proxpi.settings import Given, setting
from proxpi.simple import Origin
from proxpi.upstream.errors import TLSFailed

_CA_BUNDLE = setting("ca_bundle")
_CLIENT_CERT = setting("client_cert")
#: Variables of requests (of which the first one set counts) and of OpenSSL; each of them replaces
#: the system's certificates.
_OF_REQUESTS = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_OF_OPENSSL = ("SSL_CERT_FILE", "SSL_CERT_DIR")


def trust(context: SSL.Context, environment: Mapping[str, str], ca_bundle: Given | None) -> None:
    """Trust the certificates that the environment names, else the system's, and `ca_bundle`."""
    named: list[Given] = []
    requests = [name for name in _OF_REQUESTS if environment.get(name)][:1]
    for variable in (*requests, *_OF_OPENSSL):
        text = environment.get(variable, "")
        # Folders may be several (SSL_CTX_load_verify_dir(3)).
        paths = text.split(os.pathsep) if variable == "SSL_CERT_DIR" else [text]
        named += [Given(variable, path) for path in paths if path]
    if not named:
        # OpenSSL and pyOpenSSL read the environment of the process, in which an empty variable
        # would count as set and the system not be trusted; so the variables are away meanwhile.
        away = {name: os.environ.pop(name) for name in _OF_OPENSSL if name in os.environ}
        try:
            context.set_default_verify_paths()
        finally:
            os.environ.update(away)
    for given in (*named, *([ca_bundle] if ca_bundle else [])):
        _add(context, given)


def _add(context: SSL.Context, given: Given) -> None:
    """Trust the certificates of a file, or of all files of a folder, under any names."""
    try:
        if os.path.isdir(given.text):
            paths = {os.path.realpath(entry.path) for entry in os.scandir(given.text)}
            files = [path for path in sorted(paths) if os.path.isfile(path)]
        else:
            open(given.text, "rb").close()  # OpenSSL does not tell why a file cannot be read
            files = [given.text]
    except OSError as error:
        raise _CA_BUNDLE.refusal(given, f"cannot be read ({error.strerror})") from None
    found = False
    for path in files:
        with suppress(SSL.Error):
            context.load_verify_locations(path)
            found = True
    if not found:
        raise _CA_BUNDLE.refusal(given, "holds no certificate")


def show(context: SSL.Context, client_cert: Given) -> None:
    """Show a certificate to upstreams: a PEM file of it, its chain, and its unencrypted key."""
    refusal = partial(_CLIENT_CERT.refusal, client_cert)
    try:
        pem = Path(client_cert.text).read_bytes()
        own, *chain = load_pem_x509_certificates(pem)
    except OSError as error:
        raise refusal(f"cannot be read ({error.strerror})") from None
    except ValueError:
        raise refusal("holds no certificate") from None
    try:
        key = load_pem_private_key(pem, None)
    except TypeError:
        raise refusal("its key is encrypted") from None
    except (ValueError, UnsupportedAlgorithm):
        raise refusal("holds no key") from None
    try:
        context.use_certificate(own)
        for certificate in chain:
            context.add_extra_chain_cert(certificate)
        context.use_privatekey(key)  # type: ignore[arg-type] # a wrong kind is a TypeError
        context.check_privatekey()
    except (SSL.Error, TypeError) as error:
        if "mismatch" in str(error):
            raise refusal("its key is not that of its first certificate") from None
        raise refusal(f"cannot be used ({error})") from None


_Codes = SSL.X509VerificationCodes
_UNKNOWN_ISSUER = {
    _Codes.ERR_SELF_SIGNED_CERT_IN_CHAIN,
    _Codes.ERR_UNABLE_TO_GET_ISSUER_CERT,
    _Codes.ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY,
    _Codes.ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE,
}
# Security levels (SSL_CTX_set_security_level(3)) refuse with codes that pyOpenSSL has no names for.
_WEAKNESSES = {
    66: "has a key that is too small",
    67: "has a key that is too small",
    68: "is signed with a digest that is too weak",
}
_MEANINGS = {value: name for name, value in vars(_Codes).items() if name.startswith("ERR_")}
_READ_ALERT = SSL.SSL_CB_READ_ALERT
_FATAL = 2
# Alerts by their numbers: OpenSSL words them differently from version to version.
_HANDSHAKE_FAILURE, _INTERNAL_ERROR, _CERTIFICATE_REQUIRED = 40, 80, 116
_NO_METHOD = "{} broke off the TLS handshake: no cipher or method in common"
_ALERTS = {
    _HANDSHAKE_FAILURE: _NO_METHOD,
    70: "{} speaks no version of TLS that is safe (1.2 or newer)",
    71: _NO_METHOD,
    112: "the TLS server at {} does not go by that name",
}
_OF_A_CERTIFICATE = {
    42: "bad certificate",
    43: "unsupported certificate",
    44: "it is revoked",
    45: "it has expired",
    46: "certificate unknown",
    48: "unknown issuer",
    49: "access denied",
    51: "decrypt error",
}
_LONGEST = 100


ClientCertificate = Literal["none", "withheld", "shown"]


@attrs.define(eq=False)
class Handshake:
    """The callbacks of OpenSSL for one handshake."""

    _protocol: TLSMemoryBIOProtocol
    _host: str
    _client_certificate: ClientCertificate
    _certificate_requested: bool = attrs.field(init=False, default=False)

    def verify(
        self, connection: SSL.Connection, certificate: X509, code: int, depth: int, good: int
    ) -> bool:
        """Check a certificate of the chain; OpenSSL would swallow an exception."""
        try:
            cause = self._chain_error(certificate, code, depth) if not good else None
            if cause is None and depth == 0:
                cause = self._name_error(certificate)
        except Exception as error:  # noqa: BLE001 (a certificate can be odd in any way)
            cause = f"the certificate of {self._host} is not understood ({type(error).__name__})"
        if cause is not None:
            self._fail(cause, temporary=False)
        return cause is None

    def note(self, connection: SSL.Connection, where: int, value: int) -> None:
        """Note a step of the handshake, or fail with an alert of the upstream."""
        if where & _READ_ALERT == _READ_ALERT:
            level, alert = divmod(value, 256)
            if level == _FATAL:
                self._fail(*self._alert_error(alert))
        elif b"certificate request" in connection.get_state_string():
            self._certificate_requested = True

    def _fail(self, cause: str, temporary: bool) -> None:
        self._protocol.failVerification(Failure(TLSFailed(cause, temporary=temporary)))

    def _chain_error(self, certificate: X509, code: int, depth: int) -> str:
        host = self._host
        own = f"the certificate of {host}"
        this = own if depth == 0 else f"a certificate that vouches for {host}"
        x509 = certificate.to_cryptography()
        if code == _Codes.ERR_CERT_HAS_EXPIRED:
            return f"{this} expired on {x509.not_valid_after_utc:%Y-%m-%d}"
        if code == _Codes.ERR_CERT_NOT_YET_VALID:
            return f"{this} is not valid before {x509.not_valid_before_utc:%Y-%m-%d}"
        if code == _Codes.ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
            return f"{own} is signed by itself; to trust it, add it to PROXPI_CA_BUNDLE"
        if code in _UNKNOWN_ISSUER:
            issuer = _plain(x509.issuer.rfc4514_string())
            return (
                f"{own} is from an unknown issuer ({issuer}); "
                "to trust it, add the issuer's certificate to PROXPI_CA_BUNDLE"
            )
        if code in _WEAKNESSES:
            return f"{this} {_WEAKNESSES[code]}"
        meaning = _MEANINGS.get(code, f"ERR_{code}").removeprefix("ERR_")
        return f"{this} is not valid ({meaning.replace('_', ' ').lower()})"

    def _name_error(self, certificate: X509) -> str | None:
        wanted = IPAddress_ID(self._host) if _is_address(self._host) else DNS_ID(self._host)
        try:
            patterns = extract_patterns(certificate)
            verify_service_identity(patterns, [wanted], [])
        except (VerificationError, CertificateError) as error:
            names = []
            if isinstance(error, VerificationError):
                found = [getattr(pattern, "pattern", b"") for pattern in patterns]
                names = [n.decode() if isinstance(n, bytes) else str(n) for n in found if n]
            whom = _plain(", ".join(names)) or "no host at all"
            return f"the certificate is not for {self._host} but for {whom}"
        return None

    def _alert_error(self, alert: int) -> tuple[str, bool]:
        """Return the cause, and whether it is temporary."""
        host = self._host
        shown = self._client_certificate == "shown"
        requested = alert == _HANDSHAKE_FAILURE and self._certificate_requested
        if (alert == _CERTIFICATE_REQUIRED or requested) and not shown:
            advice = "set PROXPI_CLIENT_CERT"
            if self._client_certificate == "withheld":
                where = "only to indexes and to the hosts that netrc names"
                advice = f"PROXPI_CLIENT_CERT is shown {where}"
            return f"{host} wants a client certificate; {advice}", False
        if shown and alert in _OF_A_CERTIFICATE:
            refusal = _OF_A_CERTIFICATE[alert]
            return f"{host} refuses the certificate of PROXPI_CLIENT_CERT ({refusal})", False
        cause = _ALERTS.get(alert, f"{{}} broke off the TLS handshake (alert {alert})")
        return cause.format(host), alert == _INTERNAL_ERROR


def _is_address(host: str) -> bool:
    return isIPAddress(host) or isIPv6Address(host)


def _plain(text: str) -> str:
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def policy(
    *,
    verify: bool,
    environment: Mapping[str, str] | None = None,
    ca_bundle: Given | None = None,
    client_cert: Given | None = None,
    shown_to: Callable[[Origin], bool] = lambda origin: False,
) -> IPolicyForHTTPS:
    """Make the policy for every TLS connection to an upstream.

    :param verify: ``False`` accepts any certificate (``PROXPI_DISABLE_INDEX_SSL_VERIFICATION``)
    :param environment: names certificates in the variables of other programs
    :param ca_bundle: path of additional trusted certificates (``PROXPI_CA_BUNDLE``)
    :param client_cert: path of the client certificate and its key (``PROXPI_CLIENT_CERT``)
    :param shown_to: tells whether an origin is shown the client certificate
    :raises SettingsError: for a path that cannot be used
    """

    def context() -> SSL.Context:
        made: SSL.Context = CertificateOptions(verify=False).getContext()
        trust(made, environment or {}, ca_bundle)
        store = made.get_cert_store()
        assert store is not None  # each context has one
        # A certificate in a bundle is trusted even if its issuer is not, as in curl.
        store.set_flags(X509StoreFlags.PARTIAL_CHAIN)
        return made

    showing = None
    if client_cert is not None:
        showing = context()
        show(showing, client_cert)
    return _Policy(context(), showing, verify, shown_to)


@implementer(IPolicyForHTTPS)
@attrs.frozen
class _Policy:
    _plain: SSL.Context
    _showing: SSL.Context | None
    _verify: bool
    _shown_to: Callable[[Origin], bool]

    def creatorForNetloc(self, hostname: bytes, port: int) -> IOpenSSLClientConnectionCreator:
        name = hostname.decode("ascii").lower()
        host = name.removesuffix(".")  # as certificates name hosts
        if self._showing is None:
            return _Creator(self._plain, host, self._verify, "none")
        if self._shown_to(Origin("https", name, port)):
            return _Creator(self._showing, host, self._verify, "shown")
        return _Creator(self._plain, host, self._verify, "withheld")


@implementer(IOpenSSLClientConnectionCreator)
@attrs.frozen
class _Creator:
    _context: SSL.Context
    _host: str
    _verify: bool
    _client_certificate: ClientCertificate

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        connection = SSL.Connection(self._context, None)
        # SNI (RFC 6066): servers with several names choose certificate and site by it.
        if not _is_address(self._host):
            connection.set_tlsext_host_name(self._host.encode("ascii"))
        handshake = Handshake(tlsProtocol, self._host, self._client_certificate)
        connection.set_info_callback(handshake.note)
        if self._verify:
            connection.set_verify(SSL.VERIFY_PEER, handshake.verify)
        return connection
