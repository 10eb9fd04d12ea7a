"""File references: their URL, digest, identity and cache path, and how they are found."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxpi.files.resolver import (
    METADATA,
    SIGNATURE,
    FileReference,
    Resolver,
    file_reference,
)
from proxpi.simple.model import ListedFile, NotListed
from tests.support.cases import Case, entry, run, sha256
from tests.support.mirrors import FakeListings

DIGEST = "a" * 64
X = "https://files.example/x.whl"


def cache_path(url: str) -> str | None:
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
def test_cache_path(url: str, expected: str) -> None:
    """A file lies where the original puts it: host, then the path as it stands, and no more."""
    assert cache_path(url) == f"files-example-org/{expected}"


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
    assert cache_path(f"http://{host}:8080/x.whl") == f"{folder}/x.whl"


@pytest.mark.parametrize(
    "url",
    [
        *(f"https://files.example{path}" for path in ("", "/", "/../x.whl", "/a/../../x.whl")),
        *(f"https://files.example{path}" for path in ("/a/./x.whl", "/a/..", "/a\0b.whl")),
        "https://___/x.whl",
        "file:///etc/passwd",
    ],
)
def test_no_cache_path(url: str) -> None:
    """A URL that would lead out of the folder of its host has no cache path."""
    assert cache_path(url) is None


@given(st.text(alphabet="abAB01./%-_\\:~", max_size=40), st.text(max_size=20))
def test_never_outside(path: str, odd: str) -> None:
    """Whatever the path is, the file lies below the folder of its host."""
    found = cache_path(f"https://files.example/{path}{odd}")
    if found is not None:
        parts = PurePosixPath(found).parts
        assert parts[0] == "files-example" and len(parts) > 1
        assert not {".", "..", "/"} & set(parts) and "\0" not in found


def test_equality() -> None:
    """With a digest and a cache path the URL does not count; else it does, and the version."""
    digest = ("sha256", DIGEST)
    urls = ("http://h.example:1/x.whl", "http://h.example:2/x.whl?a=b")
    one, other = (FileReference(url, digest, None, False) for url in urls)
    assert (one == other, hash(one) == hash(other)) == (True, True)
    assert one not in (FileReference(urls[0], digest, None, True), urls[0])
    bare, elsewhere = (FileReference(url, None, None, False) for url in urls)
    assert bare.cache_path == elsewhere.cache_path and bare != elsewhere
    assert bare != FileReference(urls[0], None, None, False, version="1")


def test_listed() -> None:
    """The reference of a listed file has its URL to the letter, its digest and its size."""
    url = f"{X}?sig=a%2Fb+c"
    reference = file_reference(ListedFile(entry("x.whl", b"x", url=url), private=True))
    assert (reference.url, reference.size, reference.private) == (url, 1, True)
    assert reference.digest == ("sha256", reference.sha256) == ("sha256", sha256(b"x"))
    keys: dict[str, Any] = {"hashes": {"md5": "a" * 32}, "size": None}
    reference = file_reference(ListedFile(entry("x.whl", b"x", **keys), False))
    assert (reference.digest, reference.sha256) == (("md5", "a" * 32), None)


def test_public_url() -> None:
    """A client is never redirected to a URL with credentials or a fragment."""
    reference = FileReference("https://user:secret@files.example/x.whl?a=b#c", None, None, False)
    assert reference.public_url == f"{X}?a=b"


@pytest.mark.parametrize(
    ("metadata", "suffix", "digest"),
    [
        ({"sha256": DIGEST}, METADATA, ("sha256", DIGEST)),
        ({"sha256": DIGEST, "md5": "b" * 32}, METADATA, ("sha256", DIGEST)),
        (True, METADATA, None),
        (False, METADATA, None),
        ({"sha256": "short"}, METADATA, None),
        ({"sha256": DIGEST}, SIGNATURE, None),
    ],
)
def test_companions(metadata: object, suffix: str, digest: object) -> None:
    """A companion lies beside its file, before the query, and has the advertised digest alone."""
    listed = ListedFile(entry("x.whl", b"x", url=f"{X}?sig=1", metadata=metadata), True)
    reference = file_reference(listed, suffix)
    assert reference.url == f"{X}{suffix}?sig=1"
    assert (reference.digest, reference.size, reference.private) == (digest, None, True)


class Finding(Case):
    """References are found on pages that are at hand, or are fetched."""

    def test_companion_that_is_listed(self) -> None:
        """A file that is listed under the name of a companion is found as listed."""
        name, url = "demo-1.0.tar.gz.asc", "https://other.example/signature"
        for cold in (False, True):
            for beside in (False, True):
                pages = FakeListings()
                if beside:
                    pages.lists(entry("demo-1.0.tar.gz", b"sdist"), cold=cold)
                pages.lists(entry(name, b"signed", url=url), cold=cold)
                resolver = Resolver(pages)
                known = resolver.known("demo", name)
                assert (known is None) == cold
                found = self.result(run(resolver.find("demo", name)))
                assert (found.url, found.requested_as) == (url, ("demo", name))

    def test_companion_of_no_file(self) -> None:
        """There is no companion of a file that no page lists."""
        for name in ("demo-1.0.whl", "demo-1.0.whl.metadata", "demo-1.0.whl.asc"):
            self.error(run(Resolver(FakeListings()).find("demo", name)), NotListed)
