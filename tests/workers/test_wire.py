"""Packets between two processes: whole, in order, with their descriptors, and nothing left open."""

from __future__ import annotations

import os
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from proxpi.workers.board import SLOTS, Board
from proxpi.workers.packets import Connection, Unsent
from proxpi.workers.passing import Intake
from proxpi.workers.wire import LARGEST, Wire, pair
from proxpi.workers.worker import batched
from tests.support.kernel import Readiness
from tests.support.upstreams import Case


class Ends(Case):
    """Two ends in one thread."""

    def setUp(self) -> None:
        """Make them."""
        super().setUp()
        self.readiness = Readiness()
        self.got: list[tuple[bytes, int | None]] = []
        self.lost: Deferred[None] = Deferred()
        mine, theirs = pair()
        self.mine = Wire(mine, self.readiness, lambda *_: None, lambda: None)
        self.theirs = Wire(theirs, self.readiness, self.take, lambda: self.lost.callback(None))

    def tearDown(self) -> None:
        """Let go of both."""
        for end in (self.mine, self.theirs):
            if end.connected:
                end.connectionLost(None)  # type: ignore[arg-type]

    def take(self, packet: bytes, descriptor: int | None) -> None:
        """Note a packet."""
        self.got.append((packet, descriptor))

    def settle(self) -> None:
        """Let all of it arrive."""
        while self.readiness.turn():
            pass

    def descriptors(self) -> int:
        """How many this process has open."""
        return len(os.listdir("/proc/self/fd"))

    def test_order(self) -> None:
        """More than the system takes at once arrives all the same, each packet as it was."""
        packets = [os.urandom(1 + number * 997 % LARGEST) for number in range(500)]
        for packet in packets:
            self.mine.send(packet)
        self.settle()
        assert [packet for packet, _ in self.got] == packets

    def test_descriptors(self) -> None:
        """A descriptor comes with its own packet, and is closed where it came from."""
        before = self.descriptors()
        ends = [os.pipe() for _ in range(300)]
        for number, (read, _) in enumerate(ends):
            self.mine.send(b"without" * 5000)
            self.mine.send(b"%d" % number, read)
        self.settle()
        came = {packet: descriptor for packet, descriptor in self.got if descriptor is not None}
        assert len(came) == 300
        for number, (_, write) in enumerate(ends):
            os.write(write, b"%d" % number)
            assert os.read(came[b"%d" % number], 10) == b"%d" % number
            os.close(write)
            os.close(came[b"%d" % number])
        assert self.descriptors() == before

    def test_gone(self) -> None:
        """When the other end is gone it is told once, and what was to be sent is closed."""
        before = self.descriptors()
        for _ in range(300):
            self.theirs.send(b"x" * 5000, os.open(os.devnull, os.O_RDONLY))
        self.mine.connectionLost(None)  # type: ignore[arg-type]
        self.settle()
        assert self.lost.called
        self.theirs.send(b"more", os.open(os.devnull, os.O_RDONLY))
        assert self.descriptors() == before - 2

    def test_left(self) -> None:
        """What was sent before the other end went can still be had."""
        for number in range(200):
            self.mine.send(b"%d" % number)
        self.theirs.send(b"this is not read")
        self.mine.connectionLost(None)  # type: ignore[arg-type]
        self.theirs.finish()
        assert [packet for packet, _ in self.got] == [b"%d" % number for number in range(200)]
        assert self.lost.called


class Lost(Case):
    """A connection that there was no descriptor for."""

    def test_nothing_of_it_is_sent_to_another(self) -> None:
        """What its client was to be sent goes with it."""
        adopted: list[Any] = []
        intake = Intake(self, self, None)  # type: ignore[arg-type]
        self.adoptStreamConnection = lambda *given: adopted.append(given)
        intake.unsent(Unsent(b"secret"))
        intake.connection(Connection(1, 6, b""), None)
        assert not adopted and intake._unsent == []

    def test_nothing_of_another(self) -> None:
        """Nor is what belongs to a connection that never came."""
        adopted: list[Any] = []
        intake = Intake(self, self, None)  # type: ignore[arg-type]
        self.adoptStreamConnection = lambda *given: adopted.append(given)
        intake.unsent(Unsent(b"secret"))
        read, write = os.pipe()
        os.close(write)
        intake.connection(Connection(1, 0, b""), read)
        assert not adopted and intake._unsent == []
        with pytest.raises(OSError):
            os.close(read)


def test_batched() -> None:
    """Lines stay in order, and no list of them is larger than a packet."""
    lines = ["x" * (number * 37 % 5000) for number in range(1000)]
    lists = list(batched(iter(lines), 10_000))
    assert [line for some in lists for line in some] == lines
    assert all(sum(map(len, some)) <= 10_000 for some in lists)
    assert list(batched([], 10_000)) == []
    assert list(batched(["x" * 20_000], 10_000)) == [["x" * 20_000]]


def test_board() -> None:
    """What one process writes, the other reads; and rows do not run into each other."""
    mine = Board(3)
    theirs = Board(3, os.dup(mine.descriptor))
    theirs.rows[1].hit(SLOTS - 1, 1.5)
    theirs.rows[1].connections = 7
    theirs.rows[1].sending[0] = 2
    theirs.rows[1].senders = 1
    mine.holds[SLOTS - 1] = 9
    mine.connections = 4
    assert theirs.holds[SLOTS - 1] == 9 and theirs.connections == 4
    assert [row.connections for row in mine.rows] == [0, 7, 0]
    assert [row.hits[SLOTS - 1] for row in mine.rows] == [0, 1, 0]
    assert mine.rows[1].used_at[SLOTS - 1] == 1.5
    mine.rows[1].clear()
    assert theirs.rows[1].connections == theirs.rows[1].sending[0] == theirs.rows[1].senders == 0
    assert theirs.rows[1].hits[SLOTS - 1] == 1
    for board in (mine, theirs):
        board.close()
