"""Requests to upstreams: connections and their limits, TLS, proxies, credentials, and bodies.

The layers above use :class:`proxpi.upstream.client.UpstreamClient` and know nothing of agents.
This layer knows nothing of projects and pages.
"""

from proxpi.upstream.address_policy import AddressPolicy
from proxpi.upstream.client import LIST_LIMIT, PAGE_LIMIT, USER_AGENT, UpstreamClient
from proxpi.upstream.connections import ConnectionLimits, Queue, connection_pool
from proxpi.upstream.connector import Connector
from proxpi.upstream.credentials import Credentials, Netrc
from proxpi.upstream.dns import DNSResolver
from proxpi.upstream.errors import (
    BodyStalled,
    BodyTooLong,
    BodyTruncated,
    BodyUndecodable,
    BodyUnusable,
    CredentialsRejected,
    Offline,
    ProxyFailed,
    UpstreamFailed,
    all_settled,
    upstream_failed,
)
from proxpi.upstream.proxies import Proxies
from proxpi.upstream.proxy_agent import ProxyAgent
from proxpi.upstream.response import MIN_RATE, ContentRange, Decoder, Response, SizeLimit, decode

__all__ = [
    "LIST_LIMIT",
    "MIN_RATE",
    "PAGE_LIMIT",
    "USER_AGENT",
    "AddressPolicy",
    "BodyStalled",
    "BodyTooLong",
    "BodyTruncated",
    "BodyUndecodable",
    "BodyUnusable",
    "ConnectionLimits",
    "Connector",
    "ContentRange",
    "Credentials",
    "CredentialsRejected",
    "DNSResolver",
    "Decoder",
    "Netrc",
    "Offline",
    "Proxies",
    "ProxyAgent",
    "ProxyFailed",
    "Queue",
    "Response",
    "SizeLimit",
    "UpstreamClient",
    "UpstreamFailed",
    "all_settled",
    "connection_pool",
    "decode",
    "upstream_failed",
]
