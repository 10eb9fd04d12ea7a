"""Credentials for upstreams, each bound to the one origin they were given for.

An origin is scheme, host and port (RFC 6454). What was given for one is never sent to
another, whether a link, a redirect or a mistake leads there.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping

import attrs

from proxpi.simple import urls


@attrs.frozen(repr=False)
class Credentials:
    """Which ``Authorization`` header goes to which origin."""

    _headers: Mapping[tuple[str, str, int], bytes]

    @classmethod
    def from_urls(cls, index_urls: Iterable[str]) -> Credentials:
        """Take user and password out of index URLs (percent-decoded, RFC 3986 3.2.1)."""
        headers: dict[tuple[str, str, int], bytes] = {}
        for url in index_urls:
            pair = urls.userinfo(url)
            if pair is not None:
                # Two indexes on one origin: the first one's hold, as in all other matters.
                headers.setdefault(urls.origin(url), _basic(*pair))
        return cls(headers)

    def header_for(self, url: str) -> bytes | None:
        """Give the value of ``Authorization`` for a request to `url`, if there is one."""
        return self._headers.get(urls.origin(url))


def _basic(user: str, password: str) -> bytes:
    """Write user and password as RFC 7617 has it, in UTF-8."""
    return b"Basic " + base64.b64encode(f"{user}:{password}".encode())
