"""A name server that lies or keeps silent, and a process that asks no other one.

The resolver of the C library asks port 53 of what ``/etc/resolv.conf`` names, and nothing else
can be told to it. So a process gets a file system of its own (``unshare --mount``) in which that
file is another one. Both, the port and the file system, need root.
"""

from __future__ import annotations

import random
import socket
import subprocess
import threading
from ipaddress import ip_address
from pathlib import Path
from typing import Literal, Self

import attrs

_HEADER = 12
#: Bytes of an address by the type of its record: A and AAAA.
_LENGTHS = {1: 4, 28: 16}
_ANSWER, _NO_SUCH_NAME = b"\x81\x80", b"\x81\x83"
_POINTER_TO_QUESTION = b"\xc0\x0c"
_IN_OTHER_FILES = (
    'mount --bind "$1" /etc/resolv.conf'
    ' && if test -e /etc/nsswitch.conf; then mount --bind "$2" /etc/nsswitch.conf; fi'
    ' && shift 2 && exec "$@"'
)


@attrs.define(eq=False)
class Names:
    """A name server, which serves as long as the ``with`` block lasts.

    ``address`` is what every name stands for, but for those in ``zone``, which have addresses of
    their own; ``mood`` is how questions are answered; those for ``hanging`` names never are.
    """

    folder: Path
    address: str
    mood: Literal["known", "absent", "silent"] = "known"
    zone: dict[str, list[str]] = attrs.field(factory=dict)
    hanging: set[str] = attrs.field(factory=set)
    _socket: socket.socket = attrs.field(init=False)
    _thread: threading.Thread = attrs.field(init=False)

    def __enter__(self) -> Self:
        host = ".".join(["127", *(str(random.randint(1, 254)) for _ in range(3))])
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._socket.bind((host, 53))
        except PermissionError:
            self._socket.close()
            raise AssertionError(_NEEDED) from None
        (self.folder / "resolv.conf").write_text(f"nameserver {host}\n")
        (self.folder / "nsswitch.conf").write_text("hosts: dns\n")
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        if subprocess.run([*self.within, "true"], capture_output=True, check=False).returncode:
            self._stop()
            raise AssertionError(_NEEDED)
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self._stop()

    def _stop(self) -> None:
        # Not closed under the thread's feet: an empty datagram is the end.
        self._socket.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    @property
    def within(self) -> list[str]:
        """The beginning of a command whose lookups go to this name server."""
        files = [str(self.folder / "resolv.conf"), str(self.folder / "nsswitch.conf")]
        return ["unshare", "--mount", "sh", "-c", _IN_OTHER_FILES, "sh", *files]

    def _serve(self) -> None:
        while True:
            message, asker = self._socket.recvfrom(512)
            if not message:
                return
            if self.mood != "silent" and self._name(message) not in self.hanging:
                self._socket.sendto(self._answer(message), asker)

    def _answer(self, message: bytes) -> bytes:
        """Answer one question (RFC 1035, 4.1)."""
        end = message.index(b"\0", _HEADER) + 1
        kind = int.from_bytes(message[end : end + 2], "big")
        question = message[_HEADER : end + 4]
        flags = _NO_SUCH_NAME if self.mood == "absent" else _ANSWER
        addresses = self.zone.get(self._name(message), [self.address])
        found = [
            packed
            for packed in (ip_address(address).packed for address in addresses)
            if self.mood == "known" and len(packed) == _LENGTHS.get(kind)
        ]
        head = message[:2] + flags + b"\0\1" + len(found).to_bytes(2, "big") + bytes(4)
        # Of class IN, to be forgotten at once.
        about = _POINTER_TO_QUESTION + kind.to_bytes(2, "big") + b"\0\1" + bytes(4)
        records = [about + len(packed).to_bytes(2, "big") + packed for packed in found]
        return head + question + b"".join(records)

    @staticmethod
    def _name(message: bytes) -> str:
        """Read the name that is asked for."""
        labels, place = [], _HEADER
        while length := message[place]:
            labels.append(message[place + 1 : place + 1 + length].decode("ascii"))
            place += 1 + length
        return ".".join(labels).lower()


_NEEDED = (
    "this test gives proxpi a name server of its own: it needs root (in a container "
    "CAP_SYS_ADMIN, too) for port 53 and for `unshare --mount` of util-linux; "
    "run the tests as root"
)
