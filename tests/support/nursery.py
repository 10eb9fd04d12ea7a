"""Where processes of fake indexes come from: forked from one that has imported all they need.

There is one such process (``python -m tests.support.nursery``) for each that runs tests. It takes
orders on its standard input, a socket: with each come the standard input and output of a process
to be, and the network (network_namespaces(7)) that it is to be in. It ends when the socket does.
"""

from __future__ import annotations

import functools
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

from tests.support import fake_server
from tests.support.network import go_into
from tests.support.process import plain_environment

_ROOT = Path(__file__).parents[2]
_MOST = 65536
_starting = threading.Lock()


@functools.cache
def _nursery() -> tuple[socket.socket, subprocess.Popen[bytes]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.nursery"],
            cwd=_ROOT,
            env=plain_environment(),
            stdin=theirs.fileno(),
        )
    return ours, process


def raise_index(orders: str, stdin: int, stdout: int) -> None:
    """Start a fake index with descriptors of its own, in the network of this thread."""
    network = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY)
    try:
        with _starting:
            nursery, _ = _nursery()
        socket.send_fds(nursery, [orders.encode()], [stdin, stdout, network])
    finally:
        os.close(network)


def _main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    with socket.socket(fileno=os.dup(0)) as parent:
        while True:
            orders, given, _, _ = socket.recv_fds(parent, _MOST, 3)
            if not orders:
                return
            if not os.fork():
                break
            for descriptor in given:
                os.close(descriptor)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    stdin, stdout, network = given
    os.dup2(stdin, 0)
    os.dup2(stdout, 1)
    go_into(network)
    for descriptor in given:
        os.close(descriptor)
    fake_server.main(orders.decode())


if __name__ == "__main__":
    _main()
