"""A network of its own for a test: with addresses that the world knows, and nothing behind them.

Linux gives each thread a network (network_namespaces(7)); sockets and processes belong to that of
the thread that made them. So a network holds only what its test started, and ends with it.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.debian import need

_CLONE_NEWNET = 0x40000000
_NEEDED = (
    "this test makes a network of its own: it needs root (in a container CAP_SYS_ADMIN, too); "
    "run the tests as root"
)


@contextmanager
def network(*addresses: str) -> Iterator[None]:
    """Put this thread into a network of its own, which has these addresses on its loopback."""
    ip = need("iproute2", "ip")
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY)
    try:
        assert not libc.unshare(_CLONE_NEWNET), f"{_NEEDED} ({os.strerror(ctypes.get_errno())})"
        try:
            subprocess.run([ip, "link", "set", "lo", "up"], check=True)
            for address in addresses:
                place = [f"{address}/128", "nodad"] if ":" in address else [f"{address}/32"]
                subprocess.run([ip, "addr", "add", *place, "dev", "lo"], check=True)
            yield
        finally:
            assert not libc.setns(before, _CLONE_NEWNET), os.strerror(ctypes.get_errno())
    finally:
        os.close(before)
