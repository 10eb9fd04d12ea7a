"""The head of an upstream's answer, and what its status means."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import attrs
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse
from werkzeug.http import parse_date

from proxpi.upstream.codings import transforming
from proxpi.upstream.errors import CredentialsRejected, UpstreamFailed

#: A length that somebody may mean; Python refuses numbers of thousands of digits.
_NUMBER = re.compile("[0-9]{1,18}")
_CONTENT_RANGE = re.compile(
    r"\s*bytes\s+(\d{1,18})-(\d{1,18})/(\d{1,18}|\*)\s*", re.IGNORECASE | re.ASCII
)
#: Where the content codings of a page are kept from treq.
ENCODING = b"X-Proxpi-Content-Encoding"


class Once:
    """A response that knows whether its body was taken."""

    def __init__(self, response: IResponse) -> None:
        self._response = response
        self.delivered = False

    def deliverBody(self, protocol: Any) -> None:
        """Deliver the body as the response itself would."""
        self.delivered = True
        self._response.deliverBody(protocol)

    @property
    def length(self) -> int | None:
        """Bytes that are announced to come."""
        return self._response.length if isinstance(self._response.length, int) else None


@attrs.frozen
class Answer:
    """The head of an upstream's answer; its body has not been taken yet.

    :ivar url: where the answer came from, after redirects, without credentials
    """

    method: str
    url: str
    status: int
    headers: Headers
    response: Once

    def header(self, name: str) -> str | None:
        """Give the last value of a header field."""
        values = self.headers.getRawHeaders(name.encode("ascii"))
        return values[-1].decode("latin-1") if values else None

    @property
    def codings(self) -> tuple[str, ...]:
        """The content codings that change the bytes of the body, in the order of application."""
        fields = [
            value.decode("latin-1")
            for name in (b"Content-Encoding", ENCODING)
            for value in self.headers.getRawHeaders(name, [])
        ]
        return transforming(fields)

    @property
    def length(self) -> int | None:
        """Bytes that the body is announced to have, or would have if it were asked for."""
        # Twisted leaves the field in place only where no body follows: in an answer to HEAD.
        if self.method != "HEAD":
            return self.response.length
        announced = self.header("Content-Length")
        return int(announced) if announced and _NUMBER.fullmatch(announced) else None

    def refusal(self) -> UpstreamFailed:
        """Say why an answer of this status is of no use."""
        if self.status in (401, 403):
            cause = f"credentials rejected (status {self.status})"
            return CredentialsRejected(self.url, cause, temporary=False)
        return UpstreamFailed(
            self.url,
            f"status {self.status}",
            temporary=self.status in (408, 425, 429) or self.status >= 500,
            retry_after=_seconds(self.header("Retry-After")),
            scope="rate limit" if self.status == 429 else "resource",
        )


@attrs.frozen
class ContentRange:
    """What a 206 says that it has: bytes from `start` to before `stop` of so many, if it knows."""

    start: int
    stop: int
    size: int | None

    @classmethod
    def of(cls, answer: Answer) -> ContentRange | None:
        """Read it from an answer that is a single range of the bytes as they are."""
        match = _CONTENT_RANGE.fullmatch(answer.header("Content-Range") or "")
        if answer.status != 206 or match is None or answer.codings:
            return None
        start, last, size = match.groups()
        found = cls(int(start), int(last) + 1, None if size == "*" else int(size))
        return found if answer.length in (None, found.stop - found.start) else None


def _seconds(retry_after: str | None) -> float | None:
    """Read ``Retry-After``: seconds or a date (RFC 9110 10.2.3)."""
    if retry_after is None:
        return None
    if retry_after.strip().isdecimal():
        return min(float(retry_after), 86_400.0)  # a number of any length may come
    date = parse_date(retry_after)
    return max(0.0, (date - datetime.now(UTC)).total_seconds()) if date else None
