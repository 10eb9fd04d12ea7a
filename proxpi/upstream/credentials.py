"""Credentials for upstreams, each bound to the one origin they were given for.

An origin is scheme, host and port (RFC 6454). What was given for one is never sent to
another, whether a link, a redirect or a mistake leads there.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from urllib.parse import urlsplit

import attrs

from proxpi.simple import urls

Origin = tuple[str, str, int]


@attrs.frozen(repr=False)
class Credentials:
    """Which ``Authorization`` header goes to which origin, and to which path there."""

    _headers: Mapping[Origin, Sequence[tuple[str, bytes]]]

    @classmethod
    def from_urls(cls, index_urls: Iterable[str]) -> Credentials:
        """Take user and password out of index URLs (percent-decoded, RFC 3986 3.2.1)."""
        headers: dict[Origin, list[tuple[str, bytes]]] = {}
        for url in index_urls:
            pair = urls.userinfo(url)
            if pair is not None:
                path = urlsplit(url).path
                headers.setdefault(urls.origin(url), []).append((path, basic(*pair)))
        return cls(headers)

    def header_for(self, url: str) -> bytes | None:
        """
        Give the value of ``Authorization`` for a request to `url`, if there is one.

        Of several indexes on one origin it is that of the index whose path `url` shares most
        with: their files mostly lie near them.
        """
        given = self._headers.get(urls.origin(url), ())
        path = urlsplit(url).path
        best = max(given, key=lambda pair: _shared(pair[0], path), default=None)
        return best[1] if best is not None else None


def _shared(one: str, other: str) -> int:
    """Count the segments with which both paths begin."""
    pairs = zip(one.split("/"), other.split("/"), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def basic(user: str, password: str) -> bytes:
    """Write user and password as RFC 7617 has it, in UTF-8."""
    return b"Basic " + base64.b64encode(f"{user}:{password}".encode())
