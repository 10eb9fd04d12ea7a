"""Configuration files of a proxpi, written table by table."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.fake_index import FakeIndex


def table(header: str, **values: object) -> str:
    """Write a table; ``exclude_newer`` stands for the key ``exclude-newer``."""
    lines = [f"{key.replace('_', '-')} = {json.dumps(value)}" for key, value in values.items()]
    return "\n".join([header, *lines, ""])


def index(name: str, at: FakeIndex | str, **values: object) -> str:
    url = at if isinstance(at, str) else at.url
    return table("[[index]]", name=name, url=url, **values)


def view(name: str, *indexes: str) -> str:
    return table("[[view]]", name=name, indexes=indexes)


def rules(**values: object) -> str:
    return table("[rules]", **values)


def write(folder: Path, *tables: str) -> Path:
    """Write the tables to a file, in place of one from before; return its path."""
    path = folder / "proxpi.toml"
    path.write_text("\n".join(tables), encoding="utf-8")
    return path
