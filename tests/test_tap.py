"""The service: from its settings to open doors, and back to closed ones."""

from __future__ import annotations

import errno
import os
import queue
import resource
import signal
import tempfile
import threading
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.testing import MemoryReactorClock
from zope.interface import implementer

from proxpi import __version__, tap
from proxpi.logs import Logged
from proxpi.resources import allocate
from tests.support.cases import FolderCase
from tests.support.certificates import make_certificate
from tests.support.exchange import Exchange
from tests.support.logs import Log, logged
from tests.support.proxy import GUARD_SECONDS

INDEX = "https://user:secret@index.example/simple/"
TAKEN = 5009


@implementer(IListeningPort)
class Port:
    """A port that knows whether it is open."""

    def __init__(self, host: object) -> None:
        self.host = host
        self.open = True

    def getHost(self) -> Any:
        """See `IListeningPort`."""
        return self.host

    def startListening(self) -> None:
        """See `IListeningPort`."""

    def stopListening(self) -> None:
        """See `IListeningPort`."""
        self.open = False


class Reactor(MemoryReactorClock):
    """A reactor in memory, on which one port is taken."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ports: list[Port] = []
        self._from_threads: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        """See `IReactorTCP`."""
        super().listenTCP(port, factory, backlog, interface)  # type: ignore[no-untyped-call]
        if port == TAKEN:
            refusal = OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
            raise CannotListenError(interface, port, refusal)
        address = IPv6Address if ":" in interface else IPv4Address
        return self._opened(address("TCP", interface or "0.0.0.0", port or 49152))

    def listenSSL(self, port: int, factory: Any, *rest: Any, **more: Any) -> Any:
        """See `IReactorSSL`."""
        super().listenSSL(port, factory, *rest, **more)  # type: ignore[no-untyped-call]
        return self._opened(IPv4Address("TCP", "0.0.0.0", port))

    def listenUNIX(self, address: str, *rest: Any, **more: Any) -> Any:
        """See `IReactorUNIX`."""
        super().listenUNIX(address, *rest, **more)  # type: ignore[no-untyped-call]
        return self._opened(UNIXAddress(address))

    def _opened(self, host: object) -> Port:
        self.ports.append(Port(host))
        return self.ports[-1]

    def callFromThread(self, call: Callable[..., object], *arguments: object) -> None:
        """See `IReactorFromThreads`."""
        if threading.current_thread() is threading.main_thread():
            call(*arguments)
        else:
            self._from_threads.put(lambda: call(*arguments))

    def wait(self, awaited: Deferred[Any]) -> None:
        """Do what threads ask for until a Deferred has fired."""
        while not awaited.called:
            self._from_threads.get(timeout=GUARD_SECONDS)()

    def begin(self) -> None:
        """Do what is to be done once the reactor runs."""
        hooks, self.whenRunningHooks = self.whenRunningHooks, []
        for call, arguments, named in hooks:
            call(*arguments, **named)


class TapCase(FolderCase):
    """Tests that start and stop the service as twistd does."""

    def setUp(self) -> None:
        """Take all settings away, and put the reactor and the temporary folders elsewhere."""
        super().setUp()
        self.reactor = Reactor()
        kept = {name: os.environ[name] for name in os.environ if "PROX" not in name.upper()}
        for patch in (
            mock.patch.dict(os.environ, kept, clear=True),
            mock.patch("twisted.internet.reactor", self.reactor, create=True),
            mock.patch.object(tempfile, "tempdir", str(self.folder)),
        ):
            patch.start()
            self.addCleanup(patch.stop)

    def make(self, *arguments: str) -> Any:
        """Make the service for a command line."""
        options = tap.Options()  # type: ignore[no-untyped-call]
        options.parseOptions([f"--index-url={INDEX}", *arguments])
        return tap.makeService(options)

    def start(self, *arguments: str) -> Any:
        """Start it."""
        service = self.make(*arguments)
        service.privilegedStartService()
        service.startService()
        self.reactor.begin()
        return service

    def stop(self, service: Any) -> None:
        """Stop it, and wait for that."""
        self.ended(service.stopService())

    def ended(self, stopped: Deferred[None]) -> None:
        """Wait for the end, and for the threads that it waits for."""
        self.reactor.wait(stopped)
        self.result(stopped)

    def announced(self, *arguments: str) -> Log:
        """Start and stop it, and give what it says."""
        with logged("proxpi") as log:
            self.stop(self.start(*arguments))
        return log

    def refusal(self, act: Callable[[], object]) -> str:
        """Give the one line with which the start is refused."""
        with pytest.raises(SystemExit) as caught:
            act()
        text = str(caught.value)
        assert "\n" not in text
        assert text.startswith("proxpi: "), text
        return text


class Life(TapCase):
    """From start to stop."""

    def test_default(self) -> None:
        """Without any option it listens on port 5000 of this machine alone."""
        options = tap.Options()  # type: ignore[no-untyped-call]
        options.parseOptions([])
        made = tap.makeService(options)
        assert isinstance(made, Logged)
        service: Any = made
        assert self.reactor.tcpServers == [], "not before it is started"
        service.privilegedStartService()
        [(port, _, _, interface)] = self.reactor.tcpServers
        assert (port, interface) == (5000, "127.0.0.1")
        service.startService()
        self.stop(service)

    def test_serving(self) -> None:
        """What comes in is answered: by the app, and by the tree of pages."""
        service = self.start()
        site = self.reactor.tcpServers[0][1]
        exchange = Exchange(site, self.reactor)
        for path, status in [("/health", 200), ("/", 200), ("/index", 301), ("/index/-x/", 404)]:
            exchange.ask("GET", path)
            answer = exchange.answer()
            assert answer is not None
            assert answer.status == status
        exchange.hang_up()
        self.stop(service)

    def test_stop(self) -> None:
        """All doors are closed."""
        service = self.start("--listen=tcp:1", "--listen=tcp:2", "--listen=unix:/run/p")
        assert [port.open for port in self.reactor.ports] == [True] * 3
        self.stop(service)
        assert [port.open for port in self.reactor.ports] == [False] * 3

    def test_same_site_at_every_door(self) -> None:
        """Each address leads to the same pages and files."""
        service = self.start("--listen=tcp:1", "--listen=tcp:2:interface=\\:\\:1")
        (_, one, _, _), (_, two, _, interface) = self.reactor.tcpServers
        assert one is two
        assert interface == "::1"
        self.stop(service)

    def test_threads(self) -> None:
        """Slow work runs in threads that do not hold up the end of the process."""
        resources = allocate(self.reactor, indexes=1, connections=1, open_files=1)
        for run in (resources.pages, resources.writes, resources.reads):
            done = run(threading.current_thread)
            self.reactor.wait(done)
            thread = self.result(done)
            assert thread is not threading.current_thread()
            assert thread.daemon


class Limits(TapCase):
    """The limit of descriptors, and what follows from it."""

    def room(
        self, soft: int, hard: int, *arguments: str, refused: bool = False
    ) -> tuple[int, list[Any]]:
        """Start and stop with such limits; give the room for clients, and what was set."""
        done: list[Any] = []

        def setrlimit(_: int, limits: Any) -> None:
            if refused:
                raise ValueError("not so many")
            done.append(limits)

        self.put(resource, "getrlimit", lambda _: (soft, hard))
        self.put(resource, "setrlimit", setrlimit)
        self.stop(self.start(*arguments))
        site: Any = self.reactor.tcpServers[-1][1]
        return site._limiter._limit, done

    def test_raised(self) -> None:
        """The soft one becomes the hard one, and a part of it is kept from the clients."""
        room, done = self.room(1024, 20_000)
        assert done == [(20_000, 20_000)]
        assert 19_000 < room < 20_000 - 64

    def test_connections(self) -> None:
        """What connections to upstreams need is kept, too: those of pages and files, and files."""
        room = self.room(1024, 20_000)[0]
        more = self.room(1024, 20_000, "--upstream-connections=132")[0]
        assert room - more == 100 * 3 * 2

    def test_low(self) -> None:
        """With next to nothing, half of it is theirs."""
        assert self.room(64, 64)[0] == 32

    def test_not_to_be_raised(self) -> None:
        """Where it cannot be raised, it is as it is."""
        room, done = self.room(1024, 20_000, refused=True)
        assert done == []
        assert 500 < room < 1024 - 64

    def test_unlimited(self) -> None:
        """Without any limit there is room for very many."""
        assert self.room(1024, resource.RLIM_INFINITY)[0] > 100_000


class Stop(TapCase):
    """SIGTERM, and one more."""

    def stopping(self, *arguments: str) -> tuple[Any, Any, Exchange]:
        """Start, and stop while a client waits for its answer."""
        service = self.start(*arguments)
        del self.reactor.seconds  # the machine's time, which twistd is given
        exchange = Exchange(self.reactor.tcpServers[-1][1], self.reactor)
        exchange.ask("GET", "/index/demo/")
        return service, service.stopService(), exchange

    def test_drained(self) -> None:
        """The end waits for what is being answered, for as long as the setting says."""
        _, stopped, exchange = self.stopping("--drain-timeout=3")
        self.reactor.pump([0.1] * 29)
        self.pending(stopped)
        self.reactor.pump([0.1] * 3)
        self.ended(stopped)
        assert exchange.aborted

    def test_aborted(self) -> None:
        """The waiting can be ended."""
        service, stopped, exchange = self.stopping()
        self.pending(stopped)
        [proxpi] = service
        proxpi.abort_drain()
        self.reactor.pump([0.1] * 2)
        self.reactor.wait(stopped)
        self.result(stopped)
        assert exchange.aborted

    def test_signals_of_others(self) -> None:
        """Where twistd does not run, no signal is taken from whoever does."""
        before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        service = self.start()
        assert before == [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask
        self.stop(service)


class Announcement(TapCase):
    """The line that says where everything is."""

    def test_addresses(self) -> None:
        """Addresses are written as people type them."""
        certificate = make_certificate(self.folder)
        for endpoint, address in [
            ("tcp:5000:interface=127.0.0.1", "http://127.0.0.1:5000/index/"),
            ("tcp:5000", "http://0.0.0.0:5000/index/"),
            ("tcp:0:interface=127.0.0.1", "http://127.0.0.1:49152/index/"),
            ("tcp:5000:interface=\\:\\:1", "http://[::1]:5000/index/"),
            (f"ssl:5443:privateKey={certificate}", "https://0.0.0.0:5443/index/"),
            ("unix:/run/proxpi.sock", "unix:/run/proxpi.sock"),
        ]:
            assert address in self.announced(f"--listen={endpoint}").text

    def test_several(self) -> None:
        """Every address and every index is named, and no password."""
        text = self.announced(
            "--listen=tcp:1",
            "--listen=tcp:2",
            "--extra-index-urls=https://other:hidden@other.example/simple",
        ).text
        for part in ("http://0.0.0.0:1/", "http://0.0.0.0:2/", "https://index.example/simple/"):
            assert part in text
        assert "https://other.example/simple/" in text
        for secret in ("secret", "hidden", "user"):
            assert secret not in text

    def test_folder_and_version(self) -> None:
        """So are the cache folder and the version."""
        text = self.announced(f"--cache-dir={self.folder}/cache").text
        assert f"{self.folder}/cache" in text
        assert f"proxpi {__version__} " in text

    def test_retired_setting(self) -> None:
        """A variable that has no effect any more is one warning, and proxpi serves."""
        os.environ["PROXPI_WORKERS"] = "2"
        log = self.announced()
        [line] = [line for line in log.lines if "PROXPI_WORKERS" in line]
        assert "has no effect" in line
        assert log.levels == ["warn", "info"]

    def test_without_verification(self) -> None:
        """That nothing is verified is said loudly, and only then."""
        log = self.announced("--disable-index-ssl-verification=on")
        assert "warn" in log.levels
        assert "PROXPI_DISABLE_INDEX_SSL_VERIFICATION" in log.text
        assert self.announced().levels == ["info"]


class Refused(TapCase):
    """Addresses at which nobody can listen."""

    def test_port_in_use(self) -> None:
        """A port in use ends the start with a line that names it, and leaves nothing behind."""
        service = self.make(f"--listen=tcp:{TAKEN}:interface=127.0.0.1")
        text = self.refusal(service.privilegedStartService)
        assert f"PROXPI_LISTEN='tcp:{TAKEN}:interface=127.0.0.1'" in text
        assert text.endswith(
            f" (--listen): port {TAKEN} is in use; a free one, "
            f"such as --listen=tcp:{TAKEN + 1}:interface=127.0.0.1, is accepted"
        )
        assert list(self.folder.glob("proxpi-*")) == []

    def test_one_sentence(self) -> None:
        """However an endpoint refuses, its reason is a part of one sentence."""
        for error, why in [
            (
                CannotListenError("", 1, OSError(errno.EACCES, "Permission denied")),
                "permission denied",
            ),
            (CannotListenError("::", 1, OSError("odd thing.")), "odd thing"),
            (OSError(errno.ENOENT, "No such file or directory", "/a"), "no such file or directory"),
            (ValueError("not\nthis."), "not this"),
        ]:
            with mock.patch.object(self.reactor, "listenTCP", mock.Mock(side_effect=error)):
                text = self.refusal(self.make("--listen=tcp:1").privilegedStartService)
            assert text == (
                f"proxpi: PROXPI_LISTEN='tcp:1' (--listen): {why}; "
                "an endpoint that is free and may be used is accepted"
            )

    def test_second_port_in_use(self) -> None:
        """So does the second of two."""
        service = self.make("--listen=tcp:1", f"--listen=tcp:{TAKEN}")
        assert str(TAKEN) in self.refusal(service.privilegedStartService)

    def test_folder_of_the_user_stays(self) -> None:
        """The user's folder is not removed, whatever happens."""
        service = self.make(f"--cache-dir={self.folder}/cache", f"--listen=tcp:{TAKEN}")
        self.refusal(service.privilegedStartService)
        assert (self.folder / "cache").is_dir()
