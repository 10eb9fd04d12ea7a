"""How many may ask one server at a time, and in which order the others get their turn."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred

from proxpi.upstream.connections import ConnectionLimit
from proxpi.upstream.errors import UpstreamFailed
from tests.support.cases import Case, run

ONE, OTHER = "https://one.example/a", "https://other.example/a"


class SlotsTests(Case):
    """Two slots for each origin."""

    def setUp(self) -> None:
        """Have slots."""
        self.slots = ConnectionLimit(2)
        self.served: list[str] = []
        self.users: list[Deferred[None]] = []
        self.addCleanup(self.leave_all)

    def leave_all(self) -> None:
        """Let nobody hold or wait for a slot when the test is over."""
        for user in reversed(self.users):
            user.addErrback(lambda _: None).cancel()

    def use(self, name: str, *urls: str) -> Deferred[None]:
        """Hold slots for these URLs, one after the other; cancel it to let the last one go."""

        async def use() -> None:
            async with self.slots.slot(urls[0]) as slot:
                for url in urls[1:]:
                    await slot.move(url)
                self.served.append(name)
                await Deferred()

        self.users.append(run(use()))
        return self.users[-1]

    def leave(self, user: Deferred[None]) -> None:
        """Let go of a slot, or of the place in the row."""
        user.cancel()
        self.error(user, CancelledError)

    def test_in_order(self) -> None:
        """First come, first served."""
        users = [self.use(name, ONE) for name in "abcde"]
        assert self.served == ["a", "b"]
        self.leave(users[1])
        self.leave(users[0])
        self.leave(users[2])
        assert self.served == list("abcde")

    def test_leaving_the_row(self) -> None:
        """Whoever gives up while waiting takes nobody's turn."""
        users = [self.use(name, ONE) for name in "abcd"]
        self.leave(users[2])
        self.leave(users[0])
        assert self.served == ["a", "b", "d"]

    def test_origins(self) -> None:
        """Each origin has its own: another port is another origin, another case is not."""
        for url in (ONE, OTHER, "https://one.example:444/", "http://one.example/"):
            self.use(url, url)
            self.use(url, url.upper().replace("HTTP", "http"))
        assert len(self.served) == 8
        self.use("more", ONE)
        assert "more" not in self.served

    def test_redirected(self) -> None:
        """A redirect changes the slot: the first one is free, the other one is waited for."""
        others = [self.use("x", OTHER), self.use("x", OTHER)]
        moves = self.use("moves", ONE, "https://one.example/b", OTHER)
        self.use("a", ONE)
        self.use("b", ONE)
        assert self.served == ["x", "x", "a", "b"]
        self.leave(others[0])
        assert self.served[-1] == "moves"
        self.leave(moves)

    def test_redirected_to_each_other(self) -> None:
        """Two crowds that are redirected to each other's server do not block each other."""
        users = [self.use("to other", ONE, OTHER) for _ in range(4)]
        users += [self.use("to one", OTHER, ONE) for _ in range(4)]
        for user in users:
            self.leave(user)
        assert self.served.count("to other") + self.served.count("to one") >= 4

    def test_cancelled_while_moving(self) -> None:
        """Whoever gives up between two servers holds a slot of neither."""
        others = [self.use("x", OTHER), self.use("x", OTHER)]
        for _ in range(5):
            self.leave(self.use("moves", ONE, OTHER))
        self.use("a", ONE)
        self.use("b", ONE)
        assert self.served == ["x", "x", "a", "b"]
        self.leave(others[0])
        self.use("c", OTHER)
        assert self.served[-1] == "c"

    def test_narrower_limit(self) -> None:
        """A slot of a narrower limit moves along: none of an origin is held after a redirect."""
        narrow = ConnectionLimit(1)

        async def use(name: str, *urls: str) -> None:
            async with self.slots.slot(urls[0], narrow) as slot:
                for url in urls[1:]:
                    await slot.move(url)
                self.served.append(name)
                await Deferred()

        for name, urls in (("a", (ONE, OTHER)), ("b", (ONE, OTHER)), ("c", (ONE,)), ("d", (ONE,))):
            self.users.append(run(use(name, *urls)))
        assert self.served == ["a", "c"]
        self.use("e", ONE)
        self.use("f", OTHER)
        assert self.served == ["a", "c", "e", "f"]
        self.leave(self.users[0])
        assert self.served[-1] == "b"
        self.leave(self.users[1])
        self.leave(self.users[2])
        assert self.served[-1] == "d"
        self.leave_all()
        assert (self.slots._taken, narrow._taken) == ({}, {})

    def test_what_lingers(self) -> None:
        """A slot that is left with something under way is free once that has come to its end."""
        ended: Deferred[object] = Deferred()

        async def use() -> None:
            async with self.slots.slot(ONE) as slot:
                slot.leave_after(ended)

        self.result(run(use()))
        self.use("a", ONE)
        self.use("b", ONE)
        assert self.served == ["a"]
        ended.callback(None)
        assert self.served == ["a", "b"]

    def test_nothing_is_kept(self) -> None:
        """Of an origin that nobody asks any more nothing is left."""
        users = [self.use(name, ONE) for name in "abcd"]
        for user in users:
            self.leave(user)
        assert self.slots._taken == {}

    def test_waiters_that_fail_at_once(self) -> None:
        """A turn that is over as soon as it comes is the next one's."""

        async def fail_at_once() -> None:
            async with self.slots.slot(ONE):
                raise LookupError

        users = [self.use(name, ONE) for name in "ab"]
        failing = [run(fail_at_once()) for _ in range(5)]
        self.leave(users[0])
        self.leave(users[1])
        for failed in failing:
            self.error(failed, LookupError)
        assert self.slots._taken == {}

    def test_no_server(self) -> None:
        """What is no URL of a server has no slots."""
        for url in ("ftp://one.example/", "", "one.example"):
            error = self.error(self.use("a", url), UpstreamFailed)
            assert (error.cause, error.temporary) == ("only http and https are supported", False)
