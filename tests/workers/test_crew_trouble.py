"""Workers that come, go, hang, or are refused something; and how much all of it may take."""

from __future__ import annotations

import errno
import os
from itertools import cycle
from typing import Any

from twisted.internet.error import ProcessTerminated

from proxpi.web.known import HEADS
from proxpi.workers.crew import PAUSE
from proxpi.workers.member import DEAD, DEAF
from tests.support.exchange import request as written
from tests.support.house import entry, page
from tests.support.logs import logged
from tests.web.knowing import DATA, INDEX_PAGE, JSON, LARGE, PAGE, SMALL, undated
from tests.workers.crewed import CrewCase

HEAD = written("GET", PAGE, JSON)
FILE = written("GET", PAGE + SMALL)


class Ending(CrewCase):
    """Workers come and go."""

    def test_killed(self) -> None:
        """One that is killed is replaced, and what it counted is not lost."""
        self.site.known.uses()
        client = self.client()
        self.ask_with(client, *[FILE] * 6)
        gone = next(number for number in range(2) if self.where[number + 1])
        process = self.worker(gone)
        with logged("proxpi.workers") as log:
            process.end(ProcessTerminated(signal=9))
        assert f"worker {gone + 1} has ended" in log.text
        assert self.site.known.uses() == [(f"files-example/packages/{SMALL}", 5)]
        assert self.where == (0, 0, 0)
        self.clock.advance(PAUSE)
        self.settle()
        assert self.worker(gone) is not process
        for _ in range(4):
            assert DATA[SMALL] in self.ask_with(self.client(), FILE)
        assert self.where[0] == 0

    def test_all_killed(self) -> None:
        """As long as there is none, the main process answers."""
        self.ask_with(self.client(), *[FILE] * 3)
        for number in range(2):
            self.worker(number).end(ProcessTerminated(signal=9))
        crew, self.crew = self.crew, None
        client = self.client()
        assert DATA[SMALL] in self.ask_with(client, FILE)
        self.crew = crew
        assert self.where[0] == 1

    def test_drained(self) -> None:
        """At the end, workers finish what they are sending, and nothing else."""
        assert self.crew is not None
        head = written("GET", PAGE + LARGE)
        for _ in range(4):
            self.ask_with(self.client(), head)
        clients = [self.client(room=4096) for _ in range(2)]
        clients[0].send(head)
        done = self.crew.drain(5)
        self.settle()
        self.assertNoResult(done)  # type: ignore[no-untyped-call]
        assert DATA[LARGE] in clients[0].settle()
        for _ in range(20):
            self.clock.advance(0.1)
            self.settle()
            clients[0].read()
            clients[1].read()
        self.successResultOf(done)
        assert clients[1].received == b""

    def test_hurried(self) -> None:
        """Who wants no more waiting gets none."""
        assert self.crew is not None
        done = self.crew.drain(5)
        self.crew.hurry()
        self.successResultOf(done)

    def test_hanging(self) -> None:
        """One that does not end is ended."""
        assert self.crew is not None
        for number in range(2):
            self.put(self.worker(number).front, "_drain", lambda _: None)
        done = self.crew.drain(5)
        self.settle()
        self.assertNoResult(done)  # type: ignore[no-untyped-call]
        self.clock.advance(5 + PAUSE)
        self.successResultOf(done)


class Hanging(CrewCase):
    """A worker that does nothing any more, and does not end."""

    def test_others_do_its_work(self) -> None:
        """Nothing is given to it, and after a while it is ended and replaced."""
        self.ask_with(self.client(), *[FILE] * 3)
        stopped = self.worker(0)
        self.put(stopped.front, "_live", lambda: None)
        for call in self.clock.getDelayedCalls():
            if getattr(call.func, "__self__", None) is stopped.front:
                call.cancel()
        self.advance(DEAF + 1)
        self.turns = cycle([1])
        before = self.where[1]
        for _ in range(6):
            client = self.client()
            assert DATA[SMALL] in self.ask_with(client, FILE, written("GET", "/health"), FILE)
        assert self.where[1] == before
        with logged("proxpi.workers") as log:
            self.advance(DEAD)
        assert "worker 1 hangs" in log.text
        assert self.worker(0) is not stopped

    def advance(self, seconds: float) -> None:
        """Let time go by, with all that happens in it."""
        for _ in range(int(seconds) + 1):
            self.clock.advance(1)
            self.settle()

    def test_paused(self) -> None:
        """All of them together may stop for a while, as a container does that is paused."""
        before = self.worker(0), self.worker(1)
        for _ in range(3):
            # The main process is the first to go on.
            silent = [each.front._row for each in before]
            self.clock.rightNow += 10 * DEAD
            assert self.crew is not None
            self.crew._watch()
            assert all(row.alive_at < self.clock.seconds() - DEAD for row in silent)
            self.advance(3)
        assert (self.worker(0), self.worker(1)) == before


class Refused(CrewCase):
    """What the system does not give."""

    def test_no_process(self) -> None:
        """A process that cannot be started is tried again, later each time."""
        self.worker(0).end(ProcessTerminated(signal=9))
        tried: list[float] = []

        def fail(*_: Any, **__: Any) -> None:
            tried.append(self.clock.seconds())
            raise OSError(errno.EAGAIN, "no more processes")

        begin = self.clock.seconds()
        self.put(self.clock, "spawnProcess", fail)
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            self.clock.advance(1)
            self.settle()
        assert [when - begin for when in tried] == [1, 3, 7, 15]
        assert len(os.listdir("/proc/self/fd")) == before

    def test_no_descriptor(self) -> None:
        """A large page that comes without its descriptor is not given by halves."""
        names = [f"demo-{number}.tar.gz" for number in range(2000)]
        self.clock.advance(1801)
        self.internet.at(INDEX_PAGE, page(*(entry(name, b"") for name in names)))
        whole = self.ask_with(self.client(), HEAD, HEAD)
        for number in range(2):
            front = self.worker(number).front
            learn = front._learn

            def without(told: Any, descriptor: int | None, learn: Any = learn) -> None:
                if descriptor is not None:
                    os.close(descriptor)
                learn(told, None)

            self.put(front, "_learn", without)
        for _ in range(4):
            assert undated(self.ask_with(self.client(), HEAD)) == undated(whole)

    def test_bad_connection(self) -> None:
        """One connection on which something goes wrong does not take the others along."""
        self.ask_with(self.client(), HEAD, HEAD)
        client = self.client()
        self.put(self.site, "pass_on", lambda *_: 1 / 0)
        with logged("proxpi.workers") as log:
            client.send(HEAD)
            client.settle()
        assert client.closed and "in a packet from another process" in log.text
        self.flushLoggedErrors(ZeroDivisionError)  # type: ignore[no-untyped-call]
        assert self.crew is not None and all(worker.able() for worker in self.crew._workers)


class Bounded(CrewCase):
    """No client makes a process keep more and more."""

    def test_heads(self) -> None:
        """Heads by which an answer is known are counted in workers, too."""
        self.ask_with(self.client(), *[FILE] * 3)
        for number in range(300):
            client = self.client()
            self.ask_with(client, written("GET", PAGE + SMALL, f"User-Agent: {number}"))
            client.hang_up()
        for front in (self.site, self.worker(0).front, self.worker(1).front):
            assert len(front.known._heads) <= HEADS


class Ordered(CrewCase):
    """What one client does is told of in the order in which it did it."""

    def test_lines(self) -> None:
        """A worker tells of what it answered before it hands a connection over."""
        self.ask_with(self.client(), *[FILE] * 4)
        self.clock.advance(1)
        self.settle()
        self.lines.clear()
        self.site.access = self.lines.append
        client = self.client()
        for head in (FILE, written("GET", "/health"), FILE):
            self.ask_with(client, head)
        self.clock.advance(1)
        self.settle()
        assert [line.split()[2] for line in self.lines] == [PAGE + SMALL, "/health", PAGE + SMALL]


class Crowded(CrewCase):
    """One room for all."""

    def test_room(self) -> None:
        """Connections count wherever they are; who is too much is told so by the main process."""
        for server in (self.site, self.worker(0).front, self.worker(1).front):
            server._room = 8
        self.ask_with(self.client(), *[HEAD] * 4)
        clients = [self.client() for _ in range(6)]
        assert [b"503" in self.ask_with(client, HEAD) for client in clients] == [False] * 5 + [True]
        health = self.ask_with(self.client(), written("GET", "/health"))
        assert health.startswith(b"HTTP/1.1 200")
        # Those that are refused take nothing from those that are not.
        for _ in range(20):
            self.client()
        for client in clients[:5]:
            assert b"404" in self.ask_with(client, written("GET", "/index/none/"))


def test_board_is_memory() -> None:
    """The board is no file that could be left behind."""
    assert not [name for name in os.listdir("/dev/shm") if name.startswith("proxpi")]
