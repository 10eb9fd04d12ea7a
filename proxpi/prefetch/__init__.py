"""Prefetching: pages, metadata and files are fetched before a client requests them.

The layer above ``index`` and ``files``, which it drives. It is pure but for ``drive``:

* ``client`` reads from ``User-Agent`` which requirements and wheels suit a client,
* ``requirements`` reads core metadata, ``candidates`` predicts which file a resolver will choose,
* ``decide`` makes steps of that, and ``drive`` executes them *in the background*: behind the
  requests of clients, without retries, until a client's request joins them and *lifts* them,
* ``lock_formats`` reads lock files, and ``locks`` selects from them the files for one platform.
  ``POST /prefetch`` fetches these as at the request of a client, not in the background.

No response depends on a prediction: a wrong one costs upstream requests, and the client nothing.
"""

from proxpi.prefetch.client import Client, applies, platforms_of, read_user_agent, wheel_tags
from proxpi.prefetch.drive import Prefetcher

__all__ = ["Client", "Prefetcher", "applies", "platforms_of", "read_user_agent", "wheel_tags"]
