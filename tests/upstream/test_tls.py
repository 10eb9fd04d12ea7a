"""Trust: certificates are checked, unless the operator has said otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface.verify import verifyObject

from proxpi.settings import Given
from proxpi.simple.urls import Origin
from proxpi.upstream import tls
from tests.support.certificates import Authority

VERIFYING = [True, False]


def connection(policy: IPolicyForHTTPS, host: bytes, port: int = 443) -> SSL.Connection:
    """Give a connection as the policy makes them."""
    creator = policy.creatorForNetloc(host, port)
    verifyObject(IOpenSSLClientConnectionCreator, creator)
    return creator.clientConnectionForTLS(cast(TLSMemoryBIOProtocol, None))


@pytest.mark.parametrize("verify", VERIFYING)
def test_interface(verify: bool) -> None:
    """It is what Twisted's agent asks for."""
    verifyObject(IPolicyForHTTPS, tls.policy(verify=verify))


@pytest.mark.parametrize(("verify", "mode"), [(True, SSL.VERIFY_PEER), (False, SSL.VERIFY_NONE)])
@pytest.mark.parametrize("host", [b"index.example", b"192.0.2.1", b"2001:db8::1"])
def test_verifying(verify: bool, mode: int, host: bytes) -> None:
    """Certificates are checked, those of addresses as well, unless that is switched off."""
    assert connection(tls.policy(verify=verify), host).get_verify_mode() == mode


@pytest.mark.parametrize("verify", VERIFYING)
@pytest.mark.parametrize("host", [b"index.example", b"INDEX.example", b"index.example."])
def test_name(verify: bool, host: bytes) -> None:
    """A server is told which host is wanted, as a certificate would write it."""
    assert connection(tls.policy(verify=verify), host).get_servername() == b"index.example"


@pytest.mark.parametrize("verify", VERIFYING)
@pytest.mark.parametrize("address", [b"192.0.2.1", b"2001:db8::1"])
def test_no_name_for_addresses(verify: bool, address: bytes) -> None:
    """An address is no server name (RFC 6066)."""
    assert connection(tls.policy(verify=verify), address).get_servername() is None


@pytest.mark.parametrize("verify", VERIFYING)
def test_one_context(verify: bool) -> None:
    """Connections share what is costly to make."""
    policy = tls.policy(verify=verify)
    hosts = (b"a.example", b"b.example")
    assert len({id(connection(policy, host).get_context()) for host in hosts}) == 1


@pytest.mark.parametrize("verify", VERIFYING)
def test_client_certificate(tmp_path: Path, verify: bool) -> None:
    """Only the origins that may see the client certificate are shown it."""
    asked: list[Origin] = []

    def shown_to(origin: Origin) -> bool:
        asked.append(origin)
        return origin[1] == "index.example"

    path = Authority(tmp_path).issue("client", "proxpi@index.example")
    given = Given("PROXPI_CLIENT_CERT", str(path))
    policy = tls.policy(verify=verify, client_cert=given, shown_to=shown_to)
    index, other = connection(policy, b"Index.example", 8443), connection(policy, b"::1")
    assert asked == [("https", "index.example", 8443), ("https", "::1", 443)]
    assert index.get_certificate() is not None
    assert other.get_certificate() is None
    assert index.get_verify_mode() == other.get_verify_mode()


def test_nothing_to_show() -> None:
    """Without a client certificate nobody is shown one."""
    policy = tls.policy(verify=True, shown_to=lambda origin: True)
    assert connection(policy, b"index.example").get_certificate() is None
