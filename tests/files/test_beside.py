"""What lies beside a file: its core metadata (PEP 658) and its signature."""

from __future__ import annotations

import gzip
import zlib

from proxpi.files.cache_dir import OpenFile
from proxpi.files.fetch import ENCODED
from proxpi.files.resolver import NotUpstream
from proxpi.simple.model import NotListed
from tests.files.mirrored import DATA, NAME, URL, MirrorCase
from tests.support.agent import Reply
from tests.support.cases import entry, sha256

METADATA = b"Metadata-Version: 2.1\nName: demo\n"
SIDECAR = NAME + ".metadata"


class Sidecar(MirrorCase):
    """The metadata of a wheel is fetched, checked and kept like a file."""

    def advertise(self, *replies: Reply, digest: object = None, private: bool = False) -> None:
        """Let the page advertise metadata, and the upstream answer so."""
        said = {"sha256": sha256(METADATA)} if digest is None else digest
        self.listed(private=private, metadata=said)
        self.internet.at(URL + ".metadata", *replies)

    def test_advertised(self) -> None:
        """It is fetched once; then it is here."""
        self.advertise(Reply(200, METADATA))
        assert self.mirror.ready("demo", SIDECAR) is None
        self.assert_bytes(self.result(self.fetch(SIDECAR)), METADATA)
        self.assert_served(SIDECAR, METADATA)
        assert self.internet.urls() == [URL + ".metadata"]
        assert (self.folder / "files-example/packages" / SIDECAR).read_bytes() == METADATA

    def test_cold(self) -> None:
        """It works with no page at hand."""
        self.listed(cold=True, metadata={"sha256": sha256(METADATA)})
        self.internet.at(URL + ".metadata", Reply(200, METADATA))
        self.assert_bytes(self.result(self.fetch(SIDECAR)), METADATA)

    def test_wrong(self) -> None:
        """Metadata without the advertised digest is never served, whoever asks, but suppressed."""
        for private in (False, True):
            self.advertise(Reply(200, b"other"), private=private)
            asked = self.fetch(SIDECAR)
            self.run_threads()  # where the wheel, which is none, is looked at
            self.error(asked, NotUpstream)
            assert self.internet.urls().count(URL + ".metadata") >= 2
            assert self.locate.suppressed.pop() == ("demo", NAME)
            assert self.mirror.ready("demo", SIDECAR) is None

    def test_without_digest(self) -> None:
        """Metadata that is advertised without a digest is taken as it comes."""
        self.advertise(Reply(200, METADATA), digest=True)
        self.assert_bytes(self.result(self.fetch(SIDECAR)), METADATA)

    def test_encoded(self) -> None:
        """Encoded metadata is decoded, although identity was asked for; some only say so."""
        squeezed, raw = zlib.compress(METADATA), zlib.compressobj(wbits=-15)
        bodies = (
            ("gzip", gzip.compress(METADATA)),
            ("x-gzip", gzip.compress(METADATA)),
            ("gzip, gzip", gzip.compress(gzip.compress(METADATA))),
            ("deflate", squeezed),
            ("deflate", raw.compress(METADATA) + raw.flush()),
            ("gzip", METADATA),
            ("br", METADATA),
        )
        for coding, body in bodies:
            for digest in (None, True):
                reply = Reply(200, body, {"Content-Encoding": coding, "ETag": '"1"'})
                self.advertise(reply, digest=digest)
                self.assert_bytes(self.result(self.fetch(SIDECAR)), METADATA)
                self.assert_served(SIDECAR, METADATA)
                self.mirror.delete("demo", SIDECAR)
        assert self.internet.urls() == [URL + ".metadata"] * 2 * len(bodies)

    def test_encoded_signature(self) -> None:
        """So is a signature, and core metadata that is not advertised."""
        signature = b"-----BEGIN PGP SIGNATURE-----"
        self.advertise(Reply(404), digest=False)
        for suffix, data in ((".asc", signature), (".metadata", METADATA)):
            for body in (gzip.compress(data), data):
                self.internet.at(URL + suffix, Reply(200, body, {"Content-Encoding": "gzip"}))
                self.assert_bytes(self.result(self.fetch(NAME + suffix)), data)
                self.mirror.delete("demo", NAME)

    def test_encoded_badly(self) -> None:
        """Metadata that cannot be decoded, or decodes to too much, is not kept."""
        bodies = (
            ("br", b"no metadata"),
            ("gzip", b"no metadata"),
            ("gzip", gzip.compress(METADATA)[:-9]),
            ("gzip", gzip.compress(METADATA)[:12] + b"garbled"),
            ("gzip", gzip.compress(bytes(ENCODED.size + 1))),
            ("gzip", bytes(ENCODED.size + 1)),
        )
        for coding, body in bodies:
            for digest in (None, True):
                reply = Reply(200, body, {"Content-Encoding": coding})
                self.advertise(reply, reply, digest=digest)
                asked = self.fetch(SIDECAR)
                self.run_threads()
                assert not isinstance(asked.result, OpenFile)
                asked.addErrback(lambda _: None)
                assert self.mirror.ready("demo", SIDECAR) is None

    def test_encoded_wheel(self) -> None:
        """A wheel is never decoded: its bytes have its digest as they come, or are refused."""
        packed = gzip.compress(DATA)
        self.listed(Reply(200, packed, {"Content-Encoding": "gzip"}))
        self.assert_sent_to(self.fetch())
        self.listed(Reply(200, DATA, {"Content-Encoding": "gzip"}))
        self.assert_bytes(self.result(self.fetch()))

    def test_not_advertised(self) -> None:
        """Metadata nobody advertised is asked for all the same."""
        self.advertise(Reply(200, METADATA), digest=False)
        self.assert_bytes(self.result(self.fetch(SIDECAR)), METADATA)

    def test_not_there(self) -> None:
        """Metadata that is not there, by a fresh page too, is not there."""
        self.advertise(Reply(404), digest=False)
        self.error(self.fetch(SIDECAR), NotUpstream)
        assert self.locate.asked_again == [("demo", NAME)]
        assert self.locate.suppressed == []

    def test_of_an_unknown_file(self) -> None:
        """There is no metadata of a file that no page lists."""
        self.error(self.fetch(SIDECAR), NotListed)
        assert self.internet.asked == []

    def test_signature(self) -> None:
        """The signature is taken as it comes."""
        self.listed(**{"gpg-sig": True})
        self.internet.at(URL + ".asc", Reply(200, b"signed"))
        self.assert_bytes(self.result(self.fetch(NAME + ".asc")), b"signed")
        self.assert_served(NAME + ".asc", b"signed")


class ListedByItself(MirrorCase):
    """A file whose name only looks as if it lay beside another."""

    NAME = "demo-1.0.tar.gz.asc"

    def serve(self, *, cold: bool) -> None:
        """List it, at a URL that does not follow from any other file's."""
        url = "https://other.example/signature"
        self.locate.lists(entry(self.NAME, DATA, url=url), cold=cold)
        self.internet.at(url, Reply(200, DATA))

    def test_at_hand(self) -> None:
        """What a page lists under its own name is that."""
        self.serve(cold=False)
        self.assert_bytes(self.result(self.fetch(self.NAME)))
        self.assert_served(self.NAME)

    def test_cold(self) -> None:
        """The same with no page at hand."""
        self.serve(cold=True)
        self.assert_bytes(self.result(self.fetch(self.NAME)))

    def test_cold_beside_another(self) -> None:
        """The same if the page also lists the file that it seems to belong to."""
        self.listed(cold=True)
        self.locate.lists(entry("demo-1.0.tar.gz", b"sdist"), cold=True)
        self.serve(cold=True)
        self.assert_bytes(self.result(self.fetch(self.NAME)))
