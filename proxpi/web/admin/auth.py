"""The admin token: the requests that may change something, the login cookie, and slowed tries.

A request carries the token as ``Authorization: Bearer``, as a Basic password (with any user name),
or has the cookie that the login form sets. The cookie is an expiry time under an HMAC (RFC 2104)
whose key is random: proxpi stores no logins, and a restart ends all of them.

A *try* is a request with a token or password. The response to a wrong one is delayed: its address
waits :data:`FIRST_DELAY` seconds, and twice as long after each further one. Meanwhile no try of
that address is evaluated, so that parallel ones gain nothing. Other addresses are not affected. A
cookie is no try, since nothing that a client guesses signs one: a login still counts while another
client of the same address is delayed.
"""

from __future__ import annotations

import hmac
import math
import os
import re
from base64 import b64decode
from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256
from ipaddress import IPv6Address, ip_address, ip_network

import attrs
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from proxpi.problems import Problems
from proxpi.web.server import Request

COOKIE = b"proxpi-admin"
#: Seconds for which a login lasts.
SESSION = 12 * 3600
#: Seconds of the first delay of an address, and of the longest; each is twice the one before.
FIRST_DELAY, MAX_DELAY = 1.0, 30.0
#: Seconds after the last delay of an address at which its failures are forgotten.
MEMORY = 15 * 60.0
#: Addresses whose failures are remembered.
MAX_ADDRESSES = 1000
#: Responses that are delayed at the same time: each holds a connection.
MAX_DELAYED = 32

MISSING = "The admin token is needed here."
WRONG = "The admin token is wrong."
EXPIRED = "The login has expired, or proxpi was restarted."

_COOKIE_VALUE = re.compile(rb"([0-9]{1,12})\.([0-9a-f]{64})")


@attrs.define(eq=False)
class Unauthorized(Exception):
    """A request lacks the admin token, or has a wrong one."""

    text: str


@attrs.define(eq=False)
class TriesSlowed(Exception):
    """No try of this address is evaluated for some seconds."""

    seconds: float


class AdminToken:
    """Knows the token, by its digest, and signs the cookies of logins."""

    def __init__(self, token: str, wall: Callable[[], float]) -> None:
        """
        :param wall: gives the seconds since the epoch
        """
        self._digest = sha256(token.encode()).digest()
        self._key = os.urandom(32)
        self._wall = wall

    def accepts(self, token: bytes) -> bool:
        return hmac.compare_digest(sha256(token).digest(), self._digest)

    def new_cookie(self) -> bytes:
        expiry = b"%d" % (self._wall() + SESSION)
        return expiry + b"." + self._signature(expiry)

    def accepts_cookie(self, cookie: bytes) -> bool:
        """Return whether a cookie is one of this process, and has not expired."""
        match = _COOKIE_VALUE.fullmatch(cookie)
        if match is None or not hmac.compare_digest(self._signature(match[1]), match[2]):
            return False
        return self._wall() < float(match[1])

    def _signature(self, expiry: bytes) -> bytes:
        return hmac.digest(self._key, expiry, "sha256").hex().encode()


@attrs.define
class _Failures:
    """How often an address has failed, and until when it waits, in seconds of the clock."""

    count: int = 0
    until: float = -math.inf


@attrs.define(eq=False)
class FailedTries:
    """Counts the wrong tries of each address, and delays the responses."""

    _clock: IReactorTime
    _problems: Problems
    # The one that failed last is the last.
    _addresses: OrderedDict[str, _Failures] = attrs.field(init=False, factory=OrderedDict)
    _delayed: int = attrs.field(init=False, default=0)

    def require_no_delay(self, client: str) -> None:
        """
        :raises TriesSlowed: while the response to a try of the client's address is delayed
        """
        failures = self._addresses.get(network(client))
        if failures is not None and (left := failures.until - self._clock.seconds()) > 0:
            raise TriesSlowed(left)

    async def fail(self, client: str) -> None:
        """
        Count a failure, and wait for its delay.

        :raises TriesSlowed: at once, if too many responses are delayed already
        """
        now, key = self._clock.seconds(), network(client)
        failures = self._addresses.get(key)
        if failures is None or now > failures.until + MEMORY:
            failures = self._addresses[key] = _Failures()
        self._addresses.move_to_end(key)
        if len(self._addresses) > MAX_ADDRESSES:
            self._addresses.popitem(last=False)
        delay = min(FIRST_DELAY * 2.0 ** min(failures.count, 10), MAX_DELAY)
        failures.count += 1
        failures.until = now + delay
        self._problems.note(
            "admin token",  # one for all addresses, which attackers may have many of
            f"wrong admin token from {client}",
            "tries of this address are slowed",
            "if it is a reverse proxy, name it in PROXPI_TRUSTED_PROXIES",
            degrades=False,
        )
        if self._delayed >= MAX_DELAYED:
            raise TriesSlowed(delay)
        self._delayed += 1
        try:
            await deferLater(self._clock, delay)
        finally:
            self._delayed -= 1


@attrs.frozen(eq=False)
class Authentication:
    """Requires the admin token of requests."""

    _token: AdminToken
    _tries: FailedTries

    async def require(self, request: Request) -> None:
        """
        Require the token of a request, in its header or by its cookie.

        :raises Unauthorized: if it lacks the token or has a wrong one, after the delay
        :raises TriesSlowed: if it is not evaluated
        """
        token, cookie = _bearer_or_password(request), login_cookie(request)
        if cookie is not None and self._token.accepts_cookie(cookie):
            return
        if token is None:
            raise Unauthorized(MISSING if cookie is None else EXPIRED)
        await self._require_right(token, request.client_address)

    async def log_in(self, token: str, client: str) -> bytes:
        """
        Return a cookie for the right token.

        :raises Unauthorized: for a wrong one, after the delay
        :raises TriesSlowed: if it is not evaluated
        """
        await self._require_right(token.encode("utf-8", "replace"), client)
        return self._token.new_cookie()

    async def _require_right(self, token: bytes, client: str) -> None:
        self._tries.require_no_delay(client)
        if not self._token.accepts(token):
            await self._tries.fail(client)
            raise Unauthorized(WRONG)


def _bearer_or_password(request: Request) -> bytes | None:
    """Return the token of an ``Authorization`` (RFC 6750, RFC 7617); ``None`` without a usable one.

    Several such fields are none: each would be a try.
    """
    values = request.requestHeaders.getRawHeaders(b"Authorization") or []
    if len(values) != 1:
        return None
    scheme, _, credentials = values[0].strip().partition(b" ")
    credentials = credentials.strip()
    if scheme.lower() == b"bearer":
        return credentials or None
    if scheme.lower() != b"basic":
        return None
    try:
        _, colon, password = b64decode(credentials, validate=True).partition(b":")
    except ValueError:
        return None
    return password if colon else None


def login_cookie(request: Request) -> bytes | None:
    """Return the first cookie of a login (RFC 6265)."""
    for line in request.requestHeaders.getRawHeaders(b"Cookie") or []:
        for pair in line.split(b";"):
            name, _, value = pair.strip().partition(b"=")
            if name == COOKIE:
                return value
    return None


def network(client: str) -> str:
    """Return what counts as one address: a whole /64 of IPv6, which one host may have."""
    try:
        address = ip_address(client)
    except ValueError:
        return client  # a socket without addresses
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ip_network((int(address), 64), strict=False))
    return client
