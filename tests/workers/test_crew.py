"""Workers: what they answer, what they leave to the main process, and what all of them agree on."""

from __future__ import annotations

from proxpi.tap import Others
from tests.support.exchange import request as written
from tests.support.house import entry, page
from tests.support.logs import logged
from tests.web.knowing import DATA, INDEX_PAGE, JSON, LARGE, PAGE, SMALL, undated
from tests.workers.crewed import CrewCase

HEAD = written("GET", PAGE, JSON)
FILE = written("GET", PAGE + SMALL)


class Answering(CrewCase):
    """Who answers what."""

    def test_who(self) -> None:
        """The main process answers what is new, and a worker what was answered before."""
        client = self.client()
        places = [self.where]
        answers = []
        for _ in range(4):
            answers.append(undated(self.ask_with(client, HEAD)))
            places.append(self.where)
        # The form is made first, and then found to be there.
        assert places[:3] == [(0, 1, 0), (1, 0, 0), (1, 0, 0)]
        assert places[3][0] == 0 and sum(places[3]) == 1 and places[4] == places[3]
        assert len(set(answers)) == 1 and b"X-Cache: HIT" in answers[0]
        # The other one learns it when it is asked.
        for _ in range(2):
            assert undated(self.ask_with(self.client(), HEAD)) == answers[0]
            assert self.where[0] == 0
        self.ask_with(client, written("GET", "/health"))
        assert self.where[0] == 1

    def test_one_upstream(self) -> None:
        """However many workers are asked at once, the index is asked once."""
        clients = [self.client() for _ in range(6)]
        self.pages.forget("demo")
        before = len(self.internet.urls())
        for client in clients:
            client.send(HEAD)
        for client in clients:
            assert b"200 OK" in client.settle()
        assert len(self.internet.urls()) == before + 1

    def known_to_both(self, head: bytes) -> None:
        """Let both workers know a head."""
        for _ in range(4):
            self.ask_with(self.client(), head)
        for number in range(2):
            front = self.worker(number).front
            assert front.known.find(head, self.clock.seconds()) is not None

    def test_forgotten(self) -> None:
        """What is forgotten is forgotten by all in that very moment, told or not."""
        self.known_to_both(HEAD)
        self.known_to_both(FILE)
        self.pages.forget("demo")
        for number in range(2):
            known = self.worker(number).front.known
            assert known.find(HEAD, self.clock.seconds()) is None
            assert known.find(FILE, self.clock.seconds()) is None
        self.settle()
        for number in range(2):
            known = self.worker(number).front.known
            assert not known._heads and not known._answers

    def test_open_files(self) -> None:
        """What is removed is closed by all."""
        self.known_to_both(FILE)
        assert len(self.open_files()) == 3
        self.mirror.forget("demo", SMALL)
        self.settle()
        assert self.open_files() == []

    def test_expired(self) -> None:
        """Workers give a page no longer than the main process would."""
        self.known_to_both(HEAD)
        self.clock.advance(1801)
        before = len(self.internet.urls())
        assert b"X-Cache: " in self.ask_with(self.client(), HEAD)
        assert len(self.internet.urls()) == before + 1

    def test_replaced_file(self) -> None:
        """Nor a file that is another one now."""
        self.known_to_both(FILE)
        path = self.folder / "files-example/packages" / SMALL
        path.write_bytes(b"x" * len(DATA[SMALL]))
        assert DATA[SMALL] in self.ask_with(self.client(), FILE)

    def test_what_a_worker_cannot_have(self) -> None:
        """An answer that a worker was told of, and does not give, is the main process's to give."""
        self.known_to_both(FILE)
        for number in range(2):
            for answer in self.worker(number).front.known:
                self.worker(number).front.known.forget(answer)
        before = self.where[0]
        for _ in range(2):
            assert DATA[SMALL] in self.ask_with(self.client(), FILE)
        assert self.where[0] == before + 2
        # It is told once more.
        self.known_to_both(FILE)

    def test_uses(self) -> None:
        """All uses are counted, whoever answered."""
        self.site.known.uses()
        client = self.client()
        self.ask_with(client, *[FILE] * 6)
        # The first one opened the file itself, and counted.
        assert self.site.known.uses() == [(f"files-example/packages/{SMALL}", 5)]

    def test_logged(self) -> None:
        """All of them are logged, in one place."""
        with logged("proxpi.access") as log:
            client = self.client()
            self.ask_with(client, *[FILE] * 5)
            self.clock.advance(1)
            self.settle()
        line = f"192.0.2.1 GET {PAGE}{SMALL} 200 {len(DATA[SMALL])} HIT 0.000s"
        assert [*log.lines, *self.lines] == [line] * 5
        assert len(self.lines) == 4


class Sending(CrewCase):
    """Bodies that take a while."""

    def setUp(self) -> None:
        """Let the workers know a large file."""
        super().setUp()
        self.head = written("GET", PAGE + LARGE)
        for _ in range(4):
            self.ask_with(self.client(), self.head)

    def test_slow(self) -> None:
        """A worker sends the rest of a file at the client's pace, and then goes on."""
        client = self.client(room=4096)
        client.send(self.head)
        client.send(written("GET", "/health"))
        assert list(self.crew_sending()) == [f"files-example/packages/{LARGE}"]
        received = client.settle()
        assert DATA[LARGE] in received and received.endswith(b'"data":null}')
        assert list(self.crew_sending()) == []

    def test_unsent(self) -> None:
        """What a worker has not sent yet goes along with a connection."""
        for _ in range(4):
            whole = self.ask_with(self.client(), HEAD)
        client = self.client(room=4096)
        sent, before = 0, self.where[0]
        while self.where[0] == before:
            client.send(HEAD)
            sent += 1
        client.send(written("GET", "/health"))
        received = client.settle()
        assert undated(received).startswith(undated(whole) * sent)
        assert received.endswith(b'"data":null}')

    def crew_sending(self) -> list[str]:
        """Give what is being sent by workers."""
        assert self.crew is not None
        return list(self.crew.sending())

    def test_not_evicted(self) -> None:
        """A file that a worker is sending does not go to make room."""
        assert self.crew is not None
        self.disk.share(self.others())
        client = self.client(room=4096)
        client.send(self.head)
        self.disk._room.capacity = self.disk.used - 1
        self.disk._room.shrink()
        assert (self.folder / "files-example/packages" / LARGE).exists()
        assert not (self.folder / "files-example/packages" / SMALL).exists()
        assert DATA[LARGE] in client.settle()

    def others(self) -> Others:
        """Give what the disk asks."""
        assert self.crew is not None
        return Others(self.site.known, self.disk, self.crew)

    def test_large_page(self) -> None:
        """A large page lies in memory once for all, and arrives whole."""
        names = [f"demo-{number}.tar.gz" for number in range(2000)]
        self.clock.advance(1801)
        self.internet.at(INDEX_PAGE, page(*(entry(name, b"") for name in names)))
        whole = self.ask_with(self.client(), HEAD, HEAD)
        for _ in range(4):
            client = self.client(room=4096)
            client.send(HEAD)
            client.send(HEAD)
            assert undated(client.settle()) == undated(whole) * 2
        assert self.where[0] <= 1

    def test_gone(self) -> None:
        """A client that goes away leaves nothing behind."""
        client = self.client(room=4096)
        client.send(self.head)
        client.hang_up()
        self.settle()
        assert self.crew_sending() == []
