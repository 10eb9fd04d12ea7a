"""Prefetch: what a client is about to ask for is fetched ahead of it.

The layer above ``index`` and ``files``, which it drives. Its decisions are pure functions over
values: who the client is (``client``), which candidate its resolver will choose, what to fetch. No
response depends on them: a wrong decision costs upstream requests, and the client nothing.
"""

from proxpi.prefetch.client import Client, applies, platforms_of, read_user_agent, wheel_tags
from proxpi.prefetch.drive import Prefetcher

__all__ = ["Client", "Prefetcher", "applies", "platforms_of", "read_user_agent", "wheel_tags"]
