"""Networks in which only one version of IP works, while a host has addresses of both."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.egress.network import Network
from tests.support.distributions import make_wheel
from tests.support.fake_index import FakeIndex
from tests.support.names import Names
from tests.support.proxy import Proxy
from tests.support.servers import Gate

IPV4, IPV6 = "1.2.3.4", "2600::1"
#: Seconds that connecting may take; what is tried in vain must not use them up.
LONG = 50


def _serve(stack: ExitStack, folder: Path, network: Network, *open_at: str) -> None:
    """Let index.test have both addresses, and check that it serves through proxpi."""
    index = stack.enter_context(FakeIndex())
    port = int(index.origin.rpartition(":")[2])
    for host in network.addresses:
        gate = stack.enter_context(Gate(port, host, port))
        if host not in open_at:
            gate.clog()
    zone = {"index.test": [IPV6, IPV4]}
    names = stack.enter_context(Names(folder, IPV4, zone=zone))
    settings = {
        "PROXPI_INDEX_URL": f"http://index.test:{port}/simple/",
        "PROXPI_CONNECT_TIMEOUT": str(LONG),
        "PROXPI_DOWNLOAD_TIMEOUT": str(LONG),
    }
    proxy = stack.enter_context(Proxy(settings, folder=folder, within=names.within))
    began = time.monotonic()
    for number in range(3):
        wheel = make_wheel(f"demo-{number}")
        index.add(wheel)
        reply = proxy.get(f"/index/demo-{number}/")
        assert (reply.status, reply.headers["x-cache"]) == (200, "MISS"), reply.text
        assert proxy.get(f"/index/demo-{number}/{wheel.filename}").body == wheel.data
    # One address after the other, each for as long as it may take, would be more.
    assert time.monotonic() - began < LONG


def test_no_ipv6(stack: ExitStack, tmp_path: Path) -> None:
    """Where there is no IPv6 at all, an address of that kind costs nothing."""
    network = stack.enter_context(Network((IPV4,)))
    network.without_ipv6()
    _serve(stack, tmp_path, network, IPV4)


def test_no_route_for_ipv4(stack: ExitStack, tmp_path: Path) -> None:
    """Where no route leads to IPv4, its address costs nothing."""
    network = stack.enter_context(Network((IPV6,)))
    _serve(stack, tmp_path, network, IPV6)


@pytest.mark.parametrize("open_at", [IPV4, IPV6])
def test_black_hole(stack: ExitStack, tmp_path: Path, open_at: str) -> None:
    """Where one of both never answers, the other one is tried soon."""
    network = stack.enter_context(Network((IPV4, IPV6)))
    _serve(stack, tmp_path, network, open_at)
