"""A document of ``/stats`` that has something of everything, with hostile texts."""

from __future__ import annotations

from typing import Any

#: Markup that a page must not contain as such.
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>\u202e\x1b[31m\n"


def traffic(**values: Any) -> dict[str, Any]:
    """The numbers of one period."""
    return {
        "requests": 41234,
        "from_cache": 38765,
        "errors": 3,
        "hit_ratio": 0.9401,
        "sent_bytes": 18_200_000_000,
        "saved_bytes": 12_400_000_000,
        "saved_seconds": 12000.0,
        "received_bytes": 1_900_000_000,
        "upstream_requests": 2400,
        **values,
    }


def series(step: int) -> dict[str, Any]:
    """The numbers of two slots."""
    return {
        "step_seconds": step,
        "start": "2026-11-30T12:00:00Z",
        "requests": [10, 0],
        "from_cache": [9, 0],
        "saved_bytes": [1_000_000, 0],
        "saved_seconds": [3.5, 0.0],
        "errors": [1, 0],
    }


def document(hostile: str = HOSTILE) -> dict[str, Any]:
    """Return a document whose texts from elsewhere all contain `hostile`."""
    project = {"project": f"torch{hostile}", "uses": 520, "bytes": 12_200_000_000, "files": 14}
    index = {
        "name": "root",
        "url": "https://index.example/simple/",
        "kind": "http",
        "state": "reachable",
        "failing_since": None,
        "error": None,
        "next_try": None,
        "latency_seconds": 0.0412,
        "ttl_seconds": 1800.0,
        "pages": {"cached": 1204, "fresh": 1100, "stale": 104},
    }
    download = {
        "project": "torch",
        "file": f"torch-2.9.1.whl{hostile}",
        "index": "root",
        "size": 900_000_000,
        "arrived": 405_000_000,
        "bytes_per_second": 34_200_000.0,
        "waiting": 3,
        "started": "2026-12-01T11:59:48Z",
        "background": False,
    }
    return {
        "version": 1,
        "proxpi": {
            "version": "2.0.0",
            "started": "2026-11-28T08:00:00Z",
            "uptime_seconds": 273_600.0,  # until 2026-12-01T12:00:00Z
            "memory_bytes": 84_000_000,
        },
        "state": {
            "level": "degraded",
            "sentence": "Serving; 1 of 2 indexes reachable; 94 % of requests from the cache today",
        },
        "traffic": {
            "now": traffic(requests=0, hit_ratio=None),
            "day": traffic(),
            "month": traffic(hit_ratio=0.915),
        },
        "history": {"day": series(300), "month": series(3600)},
        "indexes": [
            index,
            {
                **index,
                "name": "internal",
                "url": f"https://internal.example/{hostile}/",
                "state": "failing",
                "failing_since": "2026-12-01T11:42:00Z",
                "error": f"connection refused{hostile}",
                "next_try": "2026-12-01T12:00:12Z",
                "latency_seconds": None,
            },
        ],
        "views": [
            {"name": "default", "indexes": ["root", "internal"]},
            {"name": "cu126", "indexes": ["root"]},
        ],
        "waiting": 3,
        "downloads": [
            download,
            {**download, "file": "scipy.whl", "size": None, "waiting": 1, "background": True},
        ],
        "prefetching": {"under_way": [f"numpy{hostile}"], "sent": 812, "used": 745, "wasted": 31},
        "problems": [
            {
                "text": f"internal: connection refused{hostile}",
                "consequence": f"proxpi serves the stale page of 10:42.{hostile}",
                "remedy": f"Check that internal.example answers.{hostile}",
                "count": 214,
                "first": "2026-11-30T22:01:10Z",
                "last": "2026-12-01T11:59:58Z",
            },
        ],
        "cache": {
            "folder": f"/var/cache/proxpi{hostile}",
            "used_bytes": 48_900_000_000,
            "capacity_bytes": 50_000_000_000,
            "files": 8123,
            "evicted": 412,
            "last_evicted": [
                {"file": f"cudnn.whl{hostile}", "bytes": 700_000_000, "at": "2026-12-01T11:50:00Z"}
            ],
            "most_used": [project],
            "biggest": [project],
        },
        "excluded_files": 1,
        "excluded": [
            {
                "project": "demo",
                "file": f"demo-1.0.zip{hostile}",
                "rule": f'the rule deny = "demo{hostile}"',
                "available": "2026-12-08T10:00:00Z",
            }
        ],
        "advisories": {
            "source": f"https://osv.example/all.zip{hostile}",
            "entries": 12004,
            "projects": 9000,
            "age": 3100.0,
            "error": f"status 500{hostile}",
        },
        "settings": [
            {"variable": "PROXPI_LISTEN", "value": f"tcp:5000{hostile}", "source": "default"},
            {"variable": "PROXPI_ADMIN_TOKEN", "value": "set", "source": "file"},
        ],
    }


def project(name: str = "numpy") -> dict[str, Any]:
    """A cached project."""
    return {
        "project": name,
        "files": 14,
        "bytes": 12_200_000_000,
        "uses": 520,
        "last_used": "2026-12-01T11:50:00Z",
        "state": "stale",
        "indexes": ["root"],
    }


def projects(**values: Any) -> dict[str, Any]:
    """A page of the list of cached projects."""
    unused = {**project("-"), "last_used": None, "state": None, "indexes": []}
    listed = [project(f"numpy{values.get('search', '')}"), unused]
    numbers = {"page": 2, "pages": 3, "total": 120, "projects": listed}
    return {"version": 1, "search": "", "sort": "name", **numbers, **values}


def files(hostile: str = HOSTILE, **values: Any) -> dict[str, Any]:
    """A page of the list of the cached files of a project."""
    file = {
        "file": f"numpy-2.0.whl{hostile}",
        "bytes": 16_000_000,
        "uses": 12,
        "last_used": "2026-12-01T11:50:00Z",
        "verified": True,
        "index": "root",
        "host": "files-example",
    }
    unverified = {**file, "file": "numpy-2.0.zip", "verified": False, "index": None}
    return {
        "version": 1,
        "project": "numpy",
        "sort": "size",
        "page": 1,
        "pages": 1,
        "total": 2,
        "row": project(),
        "cached_pages": [{"index": "root", "state": "fresh", "confirmed": "2026-12-01T11:50:00Z"}],
        "files": [file, unverified],
        **values,
    }
