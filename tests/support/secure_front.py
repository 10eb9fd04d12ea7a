"""A TLS server before a fake index, with whatever OpenSSL of the interpreter can be told to be.

It takes requests over TLS, asks the fake index for the same without, and hands the answer on. So
versions, certificates and what is asked of clients are those of a `ssl.SSLContext`, and alerts
are sent as real servers send them.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

import attrs

_GUARD_SECONDS = 60.0


@attrs.frozen
class Shown:
    """What a client showed in a handshake: the host's name, and its own certificate's, if any."""

    name: str | None
    certificate: bool


class SecureFront(ThreadingHTTPServer):
    """Listens at ``host`` while the ``with`` block lasts, and asks ``port`` of 127.0.0.1.

    ``origin`` is where it is, by its address; ``shown`` are the handshakes that went well.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int, context: ssl.SSLContext, host: str = "127.0.0.1") -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.behind = port
        self.shown: list[Shown] = []
        self._context = context
        self._names: dict[ssl.SSLObject | ssl.SSLSocket, str | None] = {}
        context.sni_callback = lambda connection, name, _: self._names.update({connection: name})
        super().__init__((host, 0), _Exchange)
        self.port = self.server_address[1]
        self.origin = f"https://{f'[{host}]' if ':' in host else host}:{self.port}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.shutdown()
        self._thread.join(_GUARD_SECONDS)
        self.server_close()

    def server_bind(self) -> None:
        """Bind without looking up the name of the address."""
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Shake hands, in the connection's own thread, then answer its requests."""
        request.settimeout(_GUARD_SECONDS)
        try:
            secure = self._context.wrap_socket(request, server_side=True)
        except OSError:
            return  # an alert has been sent
        with secure:
            certificate = bool(secure.getpeercert(binary_form=True))
            self.shown.append(Shown(self._names.pop(secure, None), certificate))
            super().finish_request(secure, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that leave."""


class _Exchange(BaseHTTPRequestHandler):
    """Answers one connection's requests with what the index behind says."""

    protocol_version = "HTTP/1.1"
    server: SecureFront

    def do_GET(self) -> None:
        """Hand on a request, and its answer."""
        behind = http.client.HTTPConnection("127.0.0.1", self.server.behind, timeout=_GUARD_SECONDS)
        try:
            behind.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                behind.putheader(name, value)
            behind.endheaders()
            response = behind.getresponse()
            body = response.read()
        finally:
            behind.close()
        self.send_response_only(response.status)
        for name, value in response.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        length = response.headers["Content-Length"] if self.command == "HEAD" else len(body)
        self.send_header("Content-Length", str(length or 0))
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Write nothing."""
