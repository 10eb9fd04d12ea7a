"""Requests to upstreams: connections and their limits, TLS, proxies, credentials, and bodies.

The layers above use :class:`proxpi.upstream.client.UpstreamClient` and know nothing of agents.
This layer knows nothing of projects and pages.
"""
