"""Where a file comes from, and where it lies: the original's layout, and never outside."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxpi.files.resolver import (
    METADATA,
    SIGNATURE,
    FileReference,
    companion_reference,
    file_reference,
)
from proxpi.simple.model import ListedFile
from tests.support.cases import entry, sha256

DIGEST = "a" * 64


def place(url: str) -> str | None:
    """Where the file of a URL lies."""
    return FileReference(url, None, None, False).cache_path


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://files.example.org/packages/a/b/x-1.0.whl", "packages/a/b/x-1.0.whl"),
        ("https://FILES.Example.ORG/x.whl", "x.whl"),
        ("https://files.example.org:8443/x.whl", "x.whl"),
        ("https://user:secret@files.example.org/x.whl", "x.whl"),
        ("https://files.example.org/x.whl?signature=a/b&expires=1", "x.whl"),
        ("https://files.example.org/x.whl#sha256=aa", "x.whl"),
        ("https://files.example.org/x-1.0%2Bcpu.whl", "x-1.0%2Bcpu.whl"),
        ("https://files.example.org/x-1.0+cpu.whl", "x-1.0+cpu.whl"),
        ("https://files.example.org/%2e%2e/%2Fetc/x.whl", "%2e%2e/%2Fetc/x.whl"),
        ("https://files.example.org//a//x.whl", "a/x.whl"),
    ],
)
def test_layout(url: str, expected: str) -> None:
    """A file lies where the original puts it: host, then the path as it stands, and no more."""
    assert place(url) == f"files-example-org/{expected}"


@pytest.mark.parametrize(
    ("host", "folder"),
    [
        ("127.0.0.1", "127-0-0-1"),
        ("[2001:db8::1]", "2001-db8-1"),
        ("a_b--c.example", "a-b-c-example"),
        ("localhost", "localhost"),
    ],
)
def test_host_folder(host: str, folder: str) -> None:
    """Each run of other characters in a host is one hyphen."""
    assert place(f"http://{host}:8080/x.whl") == f"{folder}/x.whl"


@pytest.mark.parametrize(
    "url",
    [
        "https://files.example/../x.whl",
        "https://files.example/a/../../x.whl",
        "https://files.example/a/./x.whl",
        "https://files.example/a/..",
        "https://files.example/a\0b.whl",
        "https://files.example/",
        "https://files.example",
        "https://___/x.whl",
        "file:///etc/passwd",
    ],
)
def test_no_place(url: str) -> None:
    """What would lead elsewhere, or nowhere, has no place in the cache folder."""
    assert place(url) is None


@given(st.text(alphabet="abAB01./%-_\\:~", max_size=40), st.text(max_size=20))
def test_never_outside(path: str, odd: str) -> None:
    """Whatever the path is, the file lies below the folder of its host."""
    found = place(f"https://files.example/{path}{odd}")
    if found is not None:
        parts = PurePosixPath(found).parts
        assert parts[0] == "files-example" and len(parts) > 1
        assert not {".", "..", "/"} & set(parts) and "\0" not in found


def test_ports_share_a_place_but_are_two_links() -> None:
    """Two upstreams that differ only in port lie at one place and are never taken for one."""
    one, other = (FileReference(f"http://h.example:{p}/x.whl", None, None, False) for p in (1, 2))
    assert one.cache_path == other.cache_path
    assert one != other


def test_listed() -> None:
    """The reference of a listed file has its URL to the letter, its digest and its size."""
    url = "https://files.example/x.whl?sig=a%2Fb+c"
    reference = file_reference(ListedFile(entry("x.whl", b"x", url=url), private=True))
    assert reference == FileReference(url, ("sha256", sha256(b"x")), 1, True)
    assert reference.sha256 == sha256(b"x")


def test_other_digests() -> None:
    """Any algorithm that can be computed verifies; only a sha256 is given as one."""
    reference = file_reference(
        ListedFile(entry("x.whl", b"x", hashes={"md5": "a" * 32}, size=None), False)
    )
    assert reference.digest == ("md5", "a" * 32)
    assert reference.sha256 is None
    assert FileReference("https://files.example/x.whl", None, None, False).sha256 is None


def test_public_url() -> None:
    """A client is never sent to a URL with credentials or a fragment."""
    reference = FileReference("https://user:secret@files.example/x.whl?a=b#c", None, None, False)
    assert reference.public_url == "https://files.example/x.whl?a=b"


@pytest.mark.parametrize("key", [{"sha256": DIGEST}, {"sha256": DIGEST, "md5": "b" * 32}])
def test_metadata(key: dict[str, str]) -> None:
    """The metadata lies beside the file, before the query, and has the advertised digest."""
    url = "https://files.example/x.whl?sig=1"
    listed = ListedFile(entry("x.whl", b"x", url=url, metadata=key), False)
    reference = companion_reference(listed, METADATA)
    assert reference.url == "https://files.example/x.whl.metadata?sig=1"
    assert reference.digest == ("sha256", DIGEST)
    assert reference.size is None


@pytest.mark.parametrize("key", [True, False, {}, {"sha256": "short"}])
def test_metadata_without_digest(key: object) -> None:
    """Metadata that is advertised without a digest, or not at all, can still be asked for."""
    listed = ListedFile(entry("x.whl", b"x", metadata=key), True)
    reference = companion_reference(listed, METADATA)
    assert (reference.digest, reference.private) == (None, True)


def test_signature() -> None:
    """The signature lies beside the file, and the file's digest is not its own."""
    listed = ListedFile(entry("x.whl", b"x", metadata={"sha256": DIGEST}), False)
    reference = companion_reference(listed, SIGNATURE)
    assert (reference.url[-10:], reference.digest, reference.size) == ("/x.whl.asc", None, None)
