"""The accounting of responses: each is counted once, by its kind and its outcome.

The *kind* is that of the requested resource. The *outcome* follows from the status and ``X-Cache``:

=============  ==============================  ====================================================
status         ``X-Cache``                     outcome
=============  ==============================  ====================================================
499            -                               disconnected: the client left before any response
500 or more    -                               error
400 or more    -                               refused
302            -                               redirect: to the upstream
any other      HIT, MISS, STALE, REVALIDATED   the same in small letters
any other      none                            none: no cached content is involved
=============  ==============================  ====================================================

A hit saves the bytes of its body, and the mean time of the misses of its index and kind so far. A
stale or revalidated response saves the bytes of its body alone.
"""

from __future__ import annotations

from proxpi import metrics

#: The status of a request whose client left before any response, as nginx writes it.
DISCONNECTED = 499


def outcome(status: int, cache: str) -> str:
    """
    Return the outcome of a response.

    :param cache: its ``X-Cache``, empty for none
    """
    if status == DISCONNECTED:
        return "disconnected"
    if status >= 500:
        return "error"
    if status >= 400:
        return "refused"
    if status == 302:
        return "redirect"
    return cache.lower() or "none"


def count(
    kind: str,
    outcome: str,
    index: str,
    *,
    sent: int,
    seconds: float = 0.0,
    upstream: float | None = None,
    times: int = 1,
) -> None:
    """
    Count responses.

    :param index: the name of the index that their content is from, if any
    :param sent: bytes of all their bodies that were sent
    :param seconds: from the request to the head of the response, of each
    :param upstream: seconds for which each waited for an upstream, if it did
    """
    metrics.REQUESTS.labels(kind, outcome).inc(times)
    metrics.REQUEST_SECONDS.labels(kind, outcome).observe(seconds, times)
    metrics.SENT_BYTES.labels(kind).inc(sent)
    if outcome in metrics.FROM_CACHE:
        metrics.SAVED_BYTES.labels(kind).inc(sent)
    if not index:
        return
    misses = metrics.MISS_SECONDS.labels(index, kind)
    if outcome == "hit":
        metrics.SAVED_SECONDS.labels(index).inc(misses.mean * times)
    elif outcome == "miss" and upstream is not None:
        misses.observe(upstream)
