"""Archives of wheels, honest and others, for tests that read core metadata out of them."""

from __future__ import annotations

import io
import zipfile

MEMBER = "demo-1.0.dist-info/METADATA"
METADATA = b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n"
PADDING = ("demo/data", bytes(range(256)) * 4000)


def archive(
    *members: tuple[str, bytes], packing: int = zipfile.ZIP_STORED, comment: bytes = b""
) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", packing) as written:
        for name, data in members:
            written.writestr(zipfile.ZipInfo(name), data, packing)
        written.comment = comment
    return sink.getvalue()


WHEEL = archive(PADDING, (MEMBER, METADATA))
AT_THE_START = archive((MEMBER, METADATA), PADDING)
