"""Networks in which only one version of IP works, while a host has addresses of both."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.egress.network import network
from tests.support.distributions import make_wheel
from tests.support.fake_index import FakeIndex
from tests.support.names import Names
from tests.support.processes import StartProxy
from tests.support.servers import Gate

IPV4, IPV6 = "1.2.3.4", "2600::1"
#: Seconds that connecting may take; an address that does not answer must not use them up.
LONG = 50


@pytest.mark.parametrize(
    ("addresses", "open_at"),
    [
        pytest.param([IPV4], IPV4, id="no IPv6"),
        pytest.param([IPV6], IPV6, id="no route for IPv4"),
        pytest.param([IPV4, IPV6], IPV4, id="IPv6 never answers"),
        pytest.param([IPV4, IPV6], IPV6, id="IPv4 never answers"),
    ],
)
def test_one_version(
    stack: ExitStack, tmp_path: Path, start_proxy: StartProxy, addresses: list[str], open_at: str
) -> None:
    """An address that cannot be reached, or never answers, costs a moment."""
    stack.enter_context(network(*addresses))
    if IPV6 not in addresses:  # not even on loopback
        Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").write_text("1")
    index = stack.enter_context(FakeIndex())
    port = int(index.origin.rpartition(":")[2])
    for host in addresses:
        gate = stack.enter_context(Gate(port, host, port))
        if host != open_at:
            gate.clog()
    names = stack.enter_context(Names(tmp_path, IPV4, zone={"index.test": [IPV6, IPV4]}))
    url = f"http://index.test:{port}/simple/"
    proxy = start_proxy(index_url=url, connect_timeout=LONG, within=names.within)
    began = time.monotonic()
    for number in range(3):
        wheel = make_wheel(f"demo-{number}")
        index.add(wheel)
        reply = proxy.get(f"/index/demo-{number}/")
        assert (reply.status, reply.headers["x-cache"]) == (200, "MISS"), reply.text
        assert proxy.get(f"/index/demo-{number}/{wheel.filename}").body == wheel.data
    # One address after the other, each for as long as it may take, would be more.
    assert time.monotonic() - began < LONG
