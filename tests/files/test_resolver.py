"""File references: their URL, digest, identity and cache path, and how they are found."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxpi.files.resolver import METADATA, SIGNATURE, FileReference, Resolver, file_reference
from proxpi.simple.model import ListedFile, NotListed
from tests.support.cases import Case, entry, run, sha256
from tests.support.mirrors import FakePages

DIGEST = "a" * 64
X = "https://files.example/x.whl"
SIGNED = f"{X}?sig=a%2Fb+c"
NO_PATH = ("", "/", "/../x.whl", "/a/../../x.whl", "/a/./x.whl", "/a/..", "/a\0b.whl")


def cache_path(url: str) -> str | None:
    return FileReference(url, None, None, False).cache_path


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://files.example/packages/a/b/x-1.0.whl", "files-example/packages/a/b/x-1.0.whl"),
        ("https://FILES.Example/x.whl", "files-example/x.whl"),
        ("https://files.example:8443/x.whl", "files-example/x.whl"),
        ("https://user:secret@files.example/x.whl", "files-example/x.whl"),
        (f"{X}?signature=a/b&expires=1", "files-example/x.whl"),
        (f"{X}#sha256=aa", "files-example/x.whl"),
        ("https://files.example/x-1.0%2Bcpu.whl", "files-example/x-1.0%2Bcpu.whl"),
        ("https://files.example/x-1.0+cpu.whl", "files-example/x-1.0+cpu.whl"),
        ("https://files.example/%2e%2e/%2Fetc/x.whl", "files-example/%2e%2e/%2Fetc/x.whl"),
        ("https://files.example//a//x.whl", "files-example/a/x.whl"),
        ("http://127.0.0.1:8080/x.whl", "127-0-0-1/x.whl"),
        ("http://[2001:db8::1]:8080/x.whl", "2001-db8-1/x.whl"),
        ("http://a_b--c.example/x.whl", "a-b-c-example/x.whl"),
        ("http://localhost/x.whl", "localhost/x.whl"),
        *((f"https://files.example{path}", None) for path in NO_PATH),
        ("https://___/x.whl", None),
        ("file:///etc/passwd", None),
    ],
)
def test_cache_path(url: str, expected: str | None) -> None:
    """A file lies where the original puts it: host, then the path as it stands; never outside."""
    assert cache_path(url) == expected


@given(st.text(alphabet="abAB01./%-_\\:~", max_size=40), st.text(max_size=20))
def test_never_outside(path: str, odd: str) -> None:
    """The file of any path lies below the folder of its host."""
    found = cache_path(f"https://files.example/{path}{odd}")
    if found is not None:
        parts = PurePosixPath(found).parts
        assert parts[0] == "files-example" and len(parts) > 1
        assert not {".", "..", "/"} & set(parts) and "\0" not in found


def test_equality() -> None:
    """With a digest and a cache path the URL does not count; else it does, and the listing key."""
    digest = ("sha256", DIGEST)
    urls = ("http://h.example:1/x.whl", "http://h.example:2/x.whl?a=b")
    one, other = (FileReference(url, digest, None, False) for url in urls)
    assert (one == other, hash(one) == hash(other)) == (True, True)
    assert one not in (FileReference(urls[0], digest, None, True), urls[0])
    bare, elsewhere = (FileReference(url, None, None, False) for url in urls)
    assert bare.cache_path == elsewhere.cache_path and bare != elsewhere
    assert bare != FileReference(urls[0], None, None, False, listing_key="1")


@pytest.mark.parametrize(
    ("keys", "digest"),
    [
        ({}, ("sha256", sha256(b"x"))),
        ({"hashes": {"md5": "a" * 32}, "size": 1}, ("md5", "a" * 32)),
    ],
)
def test_listed(keys: dict[str, Any], digest: tuple[str, str]) -> None:
    """The reference of a listed file has its URL to the letter, its digest and its size."""
    reference = file_reference(
        ListedFile(entry("x.whl", b"x", url=SIGNED, **keys), private=True, project="demo")
    )
    assert (reference.url, reference.size, reference.private) == (SIGNED, 1, True)
    assert reference.digest == digest
    assert reference.sha256 == (digest[1] if digest[0] == "sha256" else None)


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
    listed = ListedFile(entry("x.whl", b"x", url=f"{X}?sig=1", metadata=metadata), True, "demo")
    reference = file_reference(listed, suffix)
    assert reference.url == f"{X}{suffix}?sig=1"
    assert (reference.digest, reference.size, reference.private) == (digest, None, True)


class Finding(Case):
    """References are found on pages that are at hand, or are fetched."""

    def test_companion_that_is_listed(self) -> None:
        """A file that is listed under the name of a companion is found as listed."""
        name, url = "demo-1.0.tar.gz.asc", "https://other.example/signature"
        for cold, beside in ((False, False), (False, True), (True, False), (True, True)):
            pages = FakePages()
            if beside:
                pages.lists(entry("demo-1.0.tar.gz", b"sdist"), cold=cold)
            pages.lists(entry(name, b"signed", url=url), cold=cold)
            resolver = Resolver(pages)
            assert (resolver.known("demo", name) is None) == cold
            found = self.result(run(resolver.find("demo", name)))
            assert (found.url, found.requested_as) == (url, ("demo", name))

    def test_companion_of_no_file(self) -> None:
        """There is no companion of a file that no page lists."""
        for name in ("demo-1.0.whl", "demo-1.0.whl.metadata", "demo-1.0.whl.asc"):
            self.error(run(Resolver(FakePages()).find("demo", name)), NotListed)
