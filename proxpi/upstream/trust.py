"""Certificates from files: those that vouch for upstreams, and the one that upstreams are shown.

They are read once, at the start. What cannot be used is said then, in one line
like that of any other setting, and not in the middle of a build.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificates
from OpenSSL import SSL

from proxpi.settings import Given, setting

_CA_BUNDLE = setting("ca_bundle")
_CLIENT_CERT = setting("client_cert")
#: Other programs' variables, each of which names all that is to be trusted. Of the first two,
#: which are those of requests, the first counts; the others are OpenSSL's.
_OF_REQUESTS = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_OF_OPENSSL = ("SSL_CERT_FILE", "SSL_CERT_DIR")


def trust(context: SSL.Context, environment: Mapping[str, str], ca_bundle: Given | None) -> None:
    """
    Let a context trust what the environment names, else the system, and `ca_bundle` besides.

    :param ca_bundle: what was given as ``PROXPI_CA_BUNDLE``
    :raises SettingsError: for a path that cannot be read, or that holds no certificate
    """
    instead = list(_instead(environment))
    for variable, path in instead:
        _add(context, Given(variable, path))
    if not instead:
        _trust_system(context)
    if ca_bundle is not None:
        _add(context, ca_bundle)


def _instead(environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Give the paths that other programs' variables name in place of the system's trust."""
    requests = [name for name in _OF_REQUESTS if environment.get(name)][:1]
    for variable in (*requests, *_OF_OPENSSL):
        text = environment.get(variable, "")
        # Folders may be several (SSL_CTX_load_verify_dir(3)).
        paths = text.split(os.pathsep) if variable == "SSL_CERT_DIR" else [text]
        yield from ((variable, path) for path in paths if path)


def _trust_system(context: SSL.Context) -> None:
    # OpenSSL and pyOpenSSL look into the process's own environment. There an empty variable would
    # do as a set one, and the system not be trusted; so there is none while they look.
    away = {name: os.environ.pop(name) for name in _OF_OPENSSL if name in os.environ}
    try:
        context.set_default_verify_paths()
    finally:
        os.environ.update(away)


def _add(context: SSL.Context, given: Given) -> None:
    """Trust the certificates of a file, or of all files of a folder, whatever their names."""
    try:
        if not os.path.isdir(given.text):
            open(given.text, "rb").close()  # to know why not, which OpenSSL does not tell
            found = _load(context, given.text)
        else:
            paths = {os.path.realpath(entry.path) for entry in os.scandir(given.text)}
            files = [path for path in sorted(paths) if os.path.isfile(path)]
            found = sum(_load(context, path) for path in files) > 0
    except OSError as error:
        raise _CA_BUNDLE.refusal(given, f"cannot be read ({error.strerror})") from None
    if not found:
        raise _CA_BUNDLE.refusal(given, "holds no certificate")


def _load(context: SSL.Context, path: str) -> bool:
    try:
        context.load_verify_locations(path)
    except SSL.Error:
        return False
    return True


def show(context: SSL.Context, client_cert: Given) -> None:
    """
    Let a context show a certificate to upstreams that ask for one.

    :param client_cert: what was given as ``PROXPI_CLIENT_CERT``: a PEM file with the certificate,
        those between it and its authority if need be, and its key, which is not encrypted
    :raises SettingsError: if it is anything else
    """
    try:
        with open(client_cert.text, "rb") as file:
            pem = file.read()
    except OSError as error:
        raise _CLIENT_CERT.refusal(client_cert, f"cannot be read ({error.strerror})") from None
    try:
        own, *chain = load_pem_x509_certificates(pem)
    except ValueError:
        raise _CLIENT_CERT.refusal(client_cert, "holds no certificate") from None
    try:
        key = load_pem_private_key(pem, None)
    except TypeError:
        raise _CLIENT_CERT.refusal(client_cert, "its key is encrypted") from None
    except (ValueError, UnsupportedAlgorithm):
        raise _CLIENT_CERT.refusal(client_cert, "holds no key") from None
    try:
        context.use_certificate(own)
        for certificate in chain:
            context.add_extra_chain_cert(certificate)
        context.use_privatekey(key)  # type: ignore[arg-type] # what kinds there are is seen now
        context.check_privatekey()
    except (SSL.Error, TypeError) as error:
        words = str(error)
        why = f"cannot be used ({words})"
        if "mismatch" in words:
            why = "its key is not that of its first certificate"
        raise _CLIENT_CERT.refusal(client_cert, why) from None
