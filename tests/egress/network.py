"""A network of its own for a test: with addresses that the world knows, and nothing behind them.

Linux gives each thread a network (network_namespaces(7)); sockets and processes belong to that of
the thread that made them. So what a test starts in its own network is all there is in it, and
when the last of that ends, nothing is left of it.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import attrs

from tests.egress.debian import need

_CLONE_NEWNET = 0x40000000

NEEDED = (
    "this test makes a network of its own: it needs root (in a container CAP_SYS_ADMIN, too); "
    "run the tests as root"
)


def go_into(network: int) -> None:
    """Let this thread be in the network of a descriptor, if it is not there yet."""
    here = os.stat(f"/proc/self/task/{threading.get_native_id()}/ns/net")
    if not os.path.samestat(here, os.fstat(network)):
        libc = ctypes.CDLL(None, use_errno=True)
        gone = libc.setns(network, _CLONE_NEWNET)
        assert gone == 0, os.strerror(ctypes.get_errno())


@attrs.define(eq=False)
class Network:
    """A network in which this thread is as long as the ``with`` block lasts.

    It has loopback, on which ``addresses`` are, too.
    """

    addresses: tuple[str, ...] = ()
    _before: int = attrs.field(init=False)

    def __enter__(self) -> Self:
        ip = need("iproute2", "ip")
        libc = ctypes.CDLL(None, use_errno=True)
        self._before = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY)
        if libc.unshare(_CLONE_NEWNET):
            os.close(self._before)
            raise AssertionError(f"{NEEDED} ({os.strerror(ctypes.get_errno())})")
        try:
            subprocess.run([ip, "link", "set", "lo", "up"], check=True)
            for address in self.addresses:
                place = [f"{address}/128", "dev", "lo", "nodad"]
                place = place if ":" in address else [f"{address}/32", "dev", "lo"]
                subprocess.run([ip, "addr", "add", *place], check=True)
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        try:
            go_into(self._before)
        finally:
            os.close(self._before)

    def without_ipv6(self) -> None:
        """Let there be no IPv6 from now on, not even on loopback."""
        Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").write_text("1")
