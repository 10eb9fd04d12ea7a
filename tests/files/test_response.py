"""Responses to a request for the rest of a file: what each of them is good for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from twisted.web.http_headers import Headers

from proxpi.files.fetch import GONE, Missing, Use, check_head, use_of
from proxpi.files.resolver import FileReference, Gone
from proxpi.upstream.errors import UpstreamFailed
from proxpi.upstream.response import Response

URL = "https://files.example/demo-1.0.tar.gz"
SIZE, ARRIVED = 100, 40
TAG, OTHER = '"one"', '"two"'
DATE, LATER = "Mon, 01 Jan 2024 00:00:00 GMT", "Tue, 02 Jan 2024 00:00:00 GMT"
HASHED = FileReference(URL, ("sha256", "0" * 64), SIZE, private=False)
BARE = FileReference(URL, None, None, private=False)


def answer(
    status: int, content_range: str | None = None, length: int | None = None, **fields: Any
) -> Response:
    """Give the head of a response; `content_range` is told without its unit."""
    headers = Headers({name.replace("_", "-"): [value] for name, value in fields.items()})
    if content_range is not None:
        headers.setRawHeaders("Content-Range", [f"bytes {content_range}"])
    original: Any = SimpleNamespace(code=status, headers=headers, length=length)
    return Response("GET", URL, original)


def use(
    reference: FileReference, head: Response, validator: str | None = TAG, total: int | None = SIZE
) -> Use:
    """Decide for a file of which some bytes have arrived."""
    return use_of(
        reference, head, Missing(ARRIVED, None, total, validator, reference.digest is None)
    )


@pytest.mark.parametrize("reference", [HASHED, BARE])
@pytest.mark.parametrize("status", GONE)
def test_gone(reference: FileReference, status: int) -> None:
    """A fresh page is asked where nothing lies at the reference."""
    assert use(reference, answer(status)) is Use.GONE


@pytest.mark.parametrize("reference", [HASHED, BARE])
@pytest.mark.parametrize(
    "head", [answer(200), answer(203), answer(206, "0-99/100"), answer(200, ETag=OTHER)]
)
def test_whole(reference: FileReference, head: Response) -> None:
    """Whatever has all of the file is compared with what arrived, whichever version it is."""
    assert use(reference, head) is Use.WHOLE


@pytest.mark.parametrize("reference", [HASHED, BARE])
@pytest.mark.parametrize(
    "head",
    [
        answer(206, "40-99/100", ETag=TAG),
        answer(206, "40-79/100", ETag=TAG),
        answer(206, "40-99/*", ETag=TAG),
        answer(206, "40-99/100", 60, ETag=TAG),
    ],
)
def test_rest(reference: FileReference, head: Response) -> None:
    """The rest, or its beginning, of the same version is appended."""
    assert use(reference, head) is Use.PART


@pytest.mark.parametrize("reference", [HASHED, BARE])
@pytest.mark.parametrize(
    "head",
    [
        answer(206, "39-99/100", ETag=TAG),
        answer(206, "41-99/100", ETag=TAG),
        answer(206, "40-99/101", ETag=TAG),
        answer(206, "40-99/100", 59, ETag=TAG),
        answer(206, "40-99/100", ETag=TAG, Content_Encoding="gzip"),
        answer(206, "40-99/100", ETag=OTHER),
        answer(206, "forty-99/100", ETag=TAG),
        answer(206, ETag=TAG),
        answer(204),
        answer(416),
        answer(503),
    ],
)
def test_useless(reference: FileReference, head: Response) -> None:
    """Another range, another version, another coding, and any refusal: the whole is asked for."""
    assert use(reference, head) is Use.NONE


@pytest.mark.parametrize(
    ("validator", "fields", "expected"),
    [
        (TAG, {}, Use.NONE),
        (TAG, {"ETag": f"W/{TAG}"}, Use.NONE),
        (DATE, {}, Use.PART),
        (DATE, {"Last_Modified": DATE}, Use.PART),
        (DATE, {"Last_Modified": LATER}, Use.NONE),
        (DATE, {"ETag": f"W/{TAG}"}, Use.NONE),
        (None, {}, Use.NONE),
    ],
)
def test_proof(validator: str | None, fields: dict[str, Any], expected: Use) -> None:
    """Without a digest the version has to be proven; an answer to a date may leave it out."""
    assert use(BARE, answer(206, "40-99/100", **fields), validator) is expected


def test_digest_is_proof() -> None:
    """With a digest nothing has to be proven; only what contradicts counts."""
    for validator in (None, TAG, DATE):
        assert use(HASHED, answer(206, "40-99/100"), validator) is Use.PART
    assert use(HASHED, answer(206, "40-99/100", ETag=OTHER), TAG) is Use.NONE


def test_length_unknown() -> None:
    """Without a digest a part of a file whose length nobody tells may be any part of the rest."""
    head = answer(206, "40-99/*", ETag=TAG)
    assert use(BARE, head, total=None) is Use.NONE
    assert use(HASHED, head, total=None) is Use.PART


@pytest.mark.parametrize(
    "fields", [{}, {"Content_Encoding": "gzip"}, {"Content_Type": "text/html"}]
)
@pytest.mark.parametrize("length", [None, SIZE, SIZE + 1])
def test_doubtful(fields: dict[str, Any], length: int | None) -> None:
    """A whole response is doubtful by its size, its coding or its type; a digest will tell."""
    doubtful = bool(fields) or length == SIZE + 1
    assert check_head(HASHED, answer(200, length=length, **fields)) is doubtful


def test_no_file() -> None:
    """Without a digest, what cannot be the file is refused at its head."""
    sized = FileReference(URL, None, SIZE, private=False)
    for head in (
        answer(200, length=SIZE + 1),
        answer(200, length=SIZE + 1, Content_Type="text/html"),
        answer(200, Content_Encoding="br"),
        answer(204),
        answer(206, "1-99/100"),
        answer(500),
    ):
        with pytest.raises(UpstreamFailed):
            check_head(sized, head)
    for status in GONE:
        with pytest.raises(Gone):
            check_head(sized, answer(status))
    assert check_head(sized, answer(200, length=SIZE)) is False
