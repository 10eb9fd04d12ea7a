"""The corpus is consistent: pages match files, and wheels are valid."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import zipfile
from typing import Any

import pytest
import wheels
from corpus import MIB, blob_size, content, page, project_page, root_list
from packaging.metadata import Metadata
from packaging.utils import parse_wheel_filename

ORIGIN = "http://127.0.0.1:1"


def files(project: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(project_page(ORIGIN, project) or b"")["files"]
    return found


@pytest.mark.parametrize("project", ["bulk-017-of-3", "tiny-001-of-2", "wheel-of-1", "wheel-007"])
def test_a_file_matches_its_page(project: str) -> None:
    """Size and digest are those of the bytes; the URL ends with the file name."""
    for file in files(project):
        data = content(file["filename"])
        assert data is not None
        assert file["size"] == len(data)
        assert file["hashes"]["sha256"] == hashlib.sha256(data).hexdigest()
        assert file["url"].startswith(ORIGIN)
        assert file["url"].endswith(f"/{file['filename']}")


def test_a_name_states_number_and_size_of_files() -> None:
    """A project name states the number of files and, of a blob, the MiB; others are unknown."""
    assert len(files("bulk-017-of-3")) == 3
    [blob] = files("blob-2-of-1")
    assert blob["size"] == blob_size(blob["filename"]) == 2 * MIB
    assert project_page(ORIGIN, "requests") is None
    assert page(ORIGIN, "requests", compressed=True) is None
    assert content("requests.tar.gz") is None


def test_a_wheel_is_valid() -> None:
    """RECORD lists every member with its digest; the metadata matches the page."""
    [file] = files("wheel-007")
    name, version, _, _ = parse_wheel_filename(file["filename"])
    archive = zipfile.ZipFile(io.BytesIO(content(file["filename"]) or b""))
    about = f"wheel_007-{wheels.VERSION}.dist-info"
    rows = [line.split(",") for line in archive.read(f"{about}/RECORD").decode().splitlines()]
    assert {row[0] for row in rows} == set(archive.namelist())
    for member, digest, size in rows[:-1]:
        data = archive.read(member)
        encoded = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        assert (digest, size) == (f"sha256={encoded}", str(len(data)))
    metadata = content(f"{file['filename']}.metadata") or b""
    assert archive.read(f"{about}/METADATA") == metadata
    assert file["core-metadata"]["sha256"] == hashlib.sha256(metadata).hexdigest()
    parsed = Metadata.from_email(metadata)
    assert (parsed.name, parsed.version) == (name, version)


@pytest.mark.parametrize(("kind", "mark"), [("json", b'"name"'), ("html", b"</a>")])
def test_a_list_has_the_given_length(kind: str, mark: bytes) -> None:
    """The project list is as long as its root states."""
    assert root_list(kind, 50).count(mark) == 50
