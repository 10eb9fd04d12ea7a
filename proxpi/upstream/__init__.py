"""Requests to upstreams: connections and their limits, TLS, proxies, credentials, and bodies.

The floors above use :class:`proxpi.upstream.client.UpstreamClient` and know nothing of agents.
This floor knows nothing of projects and pages.
"""
