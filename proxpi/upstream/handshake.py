"""One TLS handshake with an upstream: whether it is who it should be, and what went wrong.

The chain is checked by OpenSSL, the name by service-identity (RFC 9525). What they find, and what
the other side says in an alert (RFC 8446 6), becomes one sentence that says what to do, with
which the connection ends; the bare errors would not tell an expired certificate from an unknown
one, nor a client certificate that is missing from a cipher that is.
"""

from __future__ import annotations

import attrs
from OpenSSL import SSL
from OpenSSL.crypto import X509
from service_identity.exceptions import CertificateError, VerificationError
from service_identity.hazmat import DNS_ID, IPAddress_ID, verify_service_identity
from service_identity.pyopenssl import extract_patterns
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure

from proxpi.upstream.errors import TLSFailed

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
_HANDSHAKE_FAILURE, _PROTOCOL_VERSION = 40, 70
_INSUFFICIENT_SECURITY, _INTERNAL_ERROR = 71, 80
_UNRECOGNIZED_NAME, _CERTIFICATE_REQUIRED = 112, 116
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


@attrs.define(eq=False)
class Handshake:
    """What is noted of a handshake while OpenSSL goes through it.

    :ivar shows_certificate: whether a client certificate is shown to this host
    :ivar has_certificate: whether there is one at all
    """

    _protocol: TLSMemoryBIOProtocol
    _host: str
    _is_address: bool
    shows_certificate: bool
    has_certificate: bool
    _wanted: bool = attrs.field(init=False, default=False)

    def verify(
        self, connection: SSL.Connection, certificate: X509, code: int, depth: int, good: int
    ) -> bool:
        """Judge a certificate of the chain; what is raised here would be lost."""
        try:
            cause = self._trouble(certificate, code, depth) if not good else None
            if cause is None and depth == 0:
                cause = self._name_trouble(certificate)
        except Exception as error:  # noqa: BLE001 (a certificate can be odd in any way)
            cause = f"the certificate of {self._host} is not understood ({type(error).__name__})"
        if cause is not None:
            self._fail(cause, temporary=False)
        return cause is None

    def note(self, connection: SSL.Connection, where: int, value: int) -> None:
        """Take note of a step, or of an alert of the other side."""
        if where & _READ_ALERT == _READ_ALERT:
            level, alert = divmod(value, 256)
            if level == _FATAL:
                self._fail(*self._alerted(alert))
        elif b"certificate request" in connection.get_state_string():
            self._wanted = True

    def _fail(self, cause: str, temporary: bool) -> None:
        self._protocol.failVerification(Failure(TLSFailed(cause, temporary=temporary)))

    def _trouble(self, certificate: X509, code: int, depth: int) -> str:
        """Say what is wrong with a chain, at a certificate of it."""
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

    def _name_trouble(self, certificate: X509) -> str | None:
        """Say for whom a certificate is, if not for this host."""
        wanted = IPAddress_ID(self._host) if self._is_address else DNS_ID(self._host)
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

    def _alerted(self, alert: int) -> tuple[str, bool]:
        """Say why the other side broke off, and whether waiting may help."""
        host = self._host
        missing = alert == _HANDSHAKE_FAILURE and self._wanted and not self.shows_certificate
        if alert == _CERTIFICATE_REQUIRED or missing:
            if not self.has_certificate:
                return f"{host} wants a client certificate; set PROXPI_CLIENT_CERT", False
            if not self.shows_certificate:
                where = "only to indexes and to the hosts that netrc names"
                return (
                    f"{host} wants a client certificate; PROXPI_CLIENT_CERT is shown {where}",
                    False,
                )
        refusal = _OF_A_CERTIFICATE.get(alert)
        if refusal is not None and self.shows_certificate:
            return f"{host} refuses the certificate of PROXPI_CLIENT_CERT ({refusal})", False
        if alert == _PROTOCOL_VERSION:
            return f"{host} speaks no version of TLS that is safe (1.2 or newer)", False
        if alert in (_HANDSHAKE_FAILURE, _INSUFFICIENT_SECURITY):
            return f"{host} broke off the TLS handshake: no cipher or method in common", False
        if alert == _UNRECOGNIZED_NAME:
            return f"the TLS server at {host} does not go by that name", False
        return f"{host} broke off the TLS handshake (alert {alert})", alert == _INTERNAL_ERROR


def _plain(text: str) -> str:
    """Give what a certificate says in a form that fits into a line."""
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
