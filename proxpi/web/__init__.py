"""HTTP for clients: connections, requests, routes, responses and their bodies.

:mod:`~proxpi.web.server` makes a :mod:`~proxpi.web.channel` for each connection. The channel reads
requests, which a resource answers (:mod:`~proxpi.web.simple_api`, :mod:`~proxpi.web.files`,
:mod:`~proxpi.web.admin`); :mod:`~proxpi.web.transfer` sends the bodies. A hit that was sent before
comes from the :mod:`~proxpi.web.response_cache`, without a resource. The layers below know no
requests of clients.
"""

from proxpi.web.admin.csrf import machine_names
from proxpi.web.files import Files
from proxpi.web.forwarded import TrustedProxies
from proxpi.web.readiness import Readiness
from proxpi.web.response_cache import FILES, ResponseCache
from proxpi.web.server import ConnectionLimiter, Site
from proxpi.web.simple_api import SimpleApi

__all__ = [
    "FILES",
    "ConnectionLimiter",
    "Files",
    "Readiness",
    "ResponseCache",
    "SimpleApi",
    "Site",
    "TrustedProxies",
    "machine_names",
]
