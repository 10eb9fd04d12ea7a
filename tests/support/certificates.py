"""Certificates for addresses and names of this machine, made when a test asks for them."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

import trustme


class Authority:
    """An authority that no system trusts; a program that trusts ``path``, a PEM file, does."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self._ca = trustme.CA(organization_unit_name=name)
        self.path = folder / f"{name}.pem"
        self._ca.cert_pem.write_to_path(self.path)

    def issue(self, name: str, *hosts: str, expired: bool = False) -> Path:
        """Make a PEM file with a key and its certificate, which is valid or ended yesterday."""
        day = datetime.timedelta(days=1)
        end = datetime.datetime.now(datetime.UTC) - day if expired else None
        start = end - day if end else None
        leaf = self._ca.issue_cert(*hosts, not_before=start, not_after=end)
        path = self._folder / f"{name}.pem"
        leaf.private_key_and_cert_chain_pem.write_to_path(path)
        return path

    def self_signed(self, name: str) -> Path:
        """A PEM file with a key and a certificate that has signed itself: the authority's own."""
        path = self._folder / f"{name}.pem"
        path.write_bytes(self._ca.private_key_pem.bytes() + self._ca.cert_pem.bytes())
        return path


def make_certificate(
    folder: Path, name: str = "certificate", address: str = "127.0.0.1", *, expired: bool = False
) -> Path:
    """A PEM file: a key, its certificate, and that of its authority, which no system trusts."""
    authority = Authority(folder, f"authority-of-{name}")
    path = authority.issue(name, address, "localhost", expired=expired)
    path.write_bytes(path.read_bytes() + authority.path.read_bytes())
    return path


def serving(
    certificate: Path, clients: Path | None = None, version: ssl.TLSVersion | None = None
) -> ssl.SSLContext:
    """Make the context of a server that wants certificates of `clients`, and only one version."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if version is not None:
        if version < ssl.TLSVersion.TLSv1_2:
            context.set_ciphers("ALL:@SECLEVEL=0")  # what so old a version needs
        context.minimum_version = context.maximum_version = version
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(clients)
    context.load_cert_chain(certificate)
    return context
