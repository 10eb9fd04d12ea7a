"""Everything that goes out: one pool of connections, trust, credentials, and bodies with an end.

The floors above ask :class:`proxpi.upstream.client.Upstream` and know nothing of agents.
This floor knows nothing of projects and pages.
"""
