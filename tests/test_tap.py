"""The service: how it is built, starts, announces itself, and stops."""

from __future__ import annotations

import errno
import os
import queue
import signal
import tempfile
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import attrs
import pytest
from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.testing import MemoryReactorClock
from twisted.python import usage
from zope.interface import implementer

from proxpi import __version__, tap
from tests.support.cases import FolderCase
from tests.support.certificates import make_certificate
from tests.support.exchange import Exchange
from tests.support.logs import Log, logged
from tests.support.process import GUARD_SECONDS

INDEX = "https://user:secret@index.example/simple/"
TAKEN = 5009


@implementer(IListeningPort)
class Port:
    def __init__(self, host: object) -> None:
        self.host, self.open = host, True

    def getHost(self) -> Any:
        return self.host

    def startListening(self) -> None:
        pass

    def stopListening(self) -> None:
        self.open = False


class Reactor(MemoryReactorClock):
    """A reactor in memory, on which one port is taken."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ports: list[Port] = []
        self._from_threads: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        super().listenTCP(port, factory, backlog, interface)  # type: ignore[no-untyped-call]
        if port == TAKEN:
            refusal = OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
            raise CannotListenError(interface, port, refusal)
        address = IPv6Address if ":" in interface else IPv4Address
        return self._opened(address("TCP", interface or "0.0.0.0", port or 49152))

    def listenSSL(self, port: int, factory: Any, *rest: Any, **more: Any) -> Any:
        super().listenSSL(port, factory, *rest, **more)  # type: ignore[no-untyped-call]
        return self._opened(IPv4Address("TCP", "0.0.0.0", port))

    def listenUNIX(self, address: str, *rest: Any, **more: Any) -> Any:
        super().listenUNIX(address, *rest, **more)  # type: ignore[no-untyped-call]
        return self._opened(UNIXAddress(address))

    def _opened(self, host: object) -> Port:
        self.ports.append(Port(host))
        return self.ports[-1]

    def callFromThread(self, call: Callable[..., object], *arguments: object) -> None:
        if threading.current_thread() is threading.main_thread():
            call(*arguments)
        else:
            self._from_threads.put(lambda: call(*arguments))

    def wait(self, awaited: Deferred[Any]) -> None:
        """Make the calls of threads until a Deferred has fired."""
        while not awaited.called:
            self._from_threads.get(timeout=GUARD_SECONDS)()

    def begin(self) -> None:
        hooks, self.whenRunningHooks = self.whenRunningHooks, []
        for call, arguments, named in hooks:
            call(*arguments, **named)


@attrs.frozen
class Part:
    """A part that works in the background."""

    name: str
    events: list[str]
    end: Deferred[None] | None

    def start(self) -> None:
        self.events.append(f"{self.name} starts")

    def stop(self) -> Deferred[None] | None:
        self.events.append(f"{self.name} stops")
        return self.end


class TapCase(FolderCase):
    """Tests that start and stop the service as twistd does."""

    def setUp(self) -> None:
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
        options = tap.Options()  # type: ignore[no-untyped-call]
        options.parseOptions([f"--index-url={INDEX}", *arguments])
        return tap.makeService(options)

    def start(self, *arguments: str) -> Any:
        service = self.make(*arguments)
        service.privilegedStartService()
        service.startService()
        self.reactor.begin()
        return service

    def stop(self, service: Any) -> None:
        self.ended(service.stopService())

    def ended(self, stopped: Deferred[None]) -> None:
        self.reactor.wait(stopped)
        self.result(stopped)

    def announced(self, *arguments: str) -> Log:
        """Start and stop it, and give what it says."""
        with logged("proxpi") as log:
            self.stop(self.start(*arguments))
        return log

    def refusal(self, act: Callable[[], object]) -> str:
        """Return the one line with which the start is refused."""
        with pytest.raises(SystemExit) as caught:
            act()
        text = str(caught.value)
        assert "\n" not in text
        assert text.startswith("proxpi: "), text
        return text


class Life(TapCase):
    def test_default(self) -> None:
        """Without any option it listens on port 5000 of this machine alone, once it is started."""
        service = self.make()
        assert self.reactor.tcpServers == []
        service.privilegedStartService()
        [(port, _, _, interface)] = self.reactor.tcpServers
        assert (port, interface) == (5000, "127.0.0.1")
        service.startService()
        self.stop(service)

    def test_serving(self) -> None:
        """Every endpoint leads to the same site, which answers; all are closed at the stop."""
        ends = ["--listen=tcp:1", "--listen=tcp:2:interface=\\:\\:1", "--listen=unix:/run/p"]
        service = self.start(*ends)
        (_, site, _, _), (_, other, _, interface) = self.reactor.tcpServers
        assert (site, "::1") == (other, interface)
        exchange = Exchange(site, self.reactor)
        for path, status in [
            ("/health", 200),
            ("/admin/style.css", 200),
            ("/index", 301),
            ("/index/-x/", 404),
        ]:
            exchange.ask("GET", path)
            assert exchange.response().status == status
        exchange.hang_up()
        assert [port.open for port in self.reactor.ports] == [True] * 3
        self.stop(service)
        assert [port.open for port in self.reactor.ports] == [False] * 3

    def stopping(self, *arguments: str) -> tuple[Any, Any, Exchange]:
        """Start, and stop while a client waits for its response."""
        service = self.start(*arguments)
        del self.reactor.seconds  # the monotonic clock: the test has one of its own
        exchange = Exchange(self.reactor.tcpServers[-1][1], self.reactor)
        exchange.ask("GET", "/index/demo/")
        return service, service.stopService(), exchange

    def test_drained(self) -> None:
        """The stop waits for responses under way, for as long as the setting says."""
        _, stopped, exchange = self.stopping("--drain-timeout=3")
        self.reactor.pump([0.1] * 29)
        self.pending(stopped)
        self.reactor.pump([0.1] * 3)
        self.ended(stopped)
        assert exchange.aborted

    def test_aborted(self) -> None:
        """The drain can be aborted."""
        service, stopped, exchange = self.stopping()
        self.pending(stopped)
        [proxpi] = service
        proxpi.abort_drain()
        self.reactor.pump([0.1] * 2)
        self.ended(stopped)
        assert exchange.aborted

    def test_background(self) -> None:
        """Parts that work in the background are started and stopped; none can hold up the stop."""
        [proxpi] = self.make()
        events: list[str] = []
        parts = [Part("one", events, None), Part("two", events, Deferred())]
        service = attrs.evolve(proxpi, background=parts)
        service.privilegedStartService()
        assert events == []
        service.startService()
        assert events == ["one starts", "two starts"]
        del self.reactor.seconds  # the monotonic clock: the test has one of its own
        stopped = service.stopService()
        assert events[2:] == ["one stops", "two stops"]
        self.reactor.pump([0.1] * 6)
        self.ended(stopped)
        assert len(self.unhandled()) == 1

    def test_signals(self) -> None:
        """Where twistd does not run, the service takes no signal from the program that does."""
        numbers = (signal.SIGTERM, signal.SIGINT)
        before = [signal.getsignal(number) for number in numbers]
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        service = self.start()
        assert before == [signal.getsignal(number) for number in numbers]
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask
        self.stop(service)


class Announcement(TapCase):
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

    def test_all(self) -> None:
        """Version, every address and index, and the folder are named, and no password."""
        extra = "--extra-index-urls=https://other:hidden@other.example/simple"
        folder = f"{self.folder}/cache"
        log = self.announced("--listen=tcp:1", "--listen=tcp:2", extra, f"--cache-dir={folder}")
        assert log.text == (
            f"proxpi {__version__} listening on http://0.0.0.0:1/index/ and "
            "http://0.0.0.0:2/index/ for https://index.example/simple/ and "
            f"https://other.example/simple/ with files in {folder}"
        )

    def test_views(self) -> None:
        """Each view but the default one has a line with its path and its indexes."""
        file = self.folder / "proxpi.toml"
        file.write_text('[[view]]\nname = "public"\nindexes = ["root"]\n')
        assert "/public/index/ has the indexes root" in self.announced(f"--config={file}").text

    def test_folder(self) -> None:
        """A folder that is missing at the start is a warning: it may be mounted later."""
        missing, there = f"file://{self.folder}/missing/", f"file://{self.folder}/"
        log = self.announced(f"--index-url={there}", f"--extra-index-urls={missing}")
        assert log.levels == ["warn", "info"]
        assert f"{missing} is no folder now" in log.text

    def test_warnings(self) -> None:
        """A variable without effect, a broken netrc and missing verification are warnings each."""
        path = self.folder / "logins"
        path.write_text("machine index.example login a hidden")
        os.environ |= {"PROXPI_WORKERS": "2", "NETRC": str(path)}
        log = self.announced("--disable-index-ssl-verification=on")
        assert log.levels == ["warn", "warn", "warn", "info"]
        for part in ("PROXPI_WORKERS has no effect", str(path), "certificates are NOT checked"):
            assert part in log.text
        assert "hidden" not in log.text
        os.environ |= {"PROXPI_WORKERS": "", "NETRC": os.devnull}
        assert self.announced().levels == ["info"]


class Refused(TapCase):
    def test_port_in_use(self) -> None:
        """A port in use ends the start, and the line names a free one; no folder is left behind."""
        service = self.make("--listen=tcp:1", f"--listen=tcp:{TAKEN}:interface=127.0.0.1")
        text = self.refusal(service.privilegedStartService)
        assert f"PROXPI_LISTEN='tcp:{TAKEN}:interface=127.0.0.1'" in text
        assert text.endswith(
            f" (--listen): port {TAKEN} is in use; a free one, "
            f"such as --listen=tcp:{TAKEN + 1}:interface=127.0.0.1, is accepted"
        )
        assert list(self.folder.glob("proxpi-*")) == []

    def test_endpoints(self) -> None:
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

    def test_certificates(self) -> None:
        """Certificates that cannot be used end the start before anything listens."""
        missing = str(self.folder / "missing.pem")
        for option in ("ca-bundle", "client-cert"):
            text = self.refusal(partial(self.make, f"--{option}={missing}"))
            variable = f"PROXPI_{option.replace('-', '_').upper()}"
            given = f"proxpi: {variable}={missing!r}"
            assert text.startswith(f"{given} (--{option}): cannot be read")
            assert text.endswith("is accepted")
            os.environ[variable] = missing
            assert self.refusal(self.make).startswith(f"{given}: cannot be read")
            del os.environ[variable]

    def test_deny_files(self) -> None:
        """A file of rules that cannot be used ends the start; the line names it and the key."""
        config, denied = self.folder / "proxpi.toml", self.folder / "deny.txt"
        config.write_text(f'[rules]\ndeny-files = ["{denied}"]\n')
        start = f"proxpi: [rules]: deny-files: {denied}"
        missing = self.refusal(partial(self.make, f"--config={config}"))
        assert missing.startswith(f"{start}: No such file or directory; a file with one selector")
        denied.write_text("evil\nnot this\n")
        assert self.refusal(partial(self.make, f"--config={config}")).startswith(
            f"{start}, line 2: 'not this'"
        )
        denied.write_text("evil\n")
        self.stop(self.start(f"--config={config}"))

    def test_folder_in_the_cache(self) -> None:
        """The folder of an index is none of the cache folder, where evictions would remove it."""
        (self.folder / "link").symlink_to(self.folder / "cache")
        cache, wheels = f"--cache-dir={self.folder}/cache", f"--index-url=file://{self.folder}"
        for path in ("cache", "cache/wheels", "link/wheels"):
            text = self.refusal(partial(self.make, cache, f"{wheels}/{path}"))
            assert f"'{self.folder}/{path}/'" in text and "accepted" in text
        self.make(cache, f"{wheels}/cached")

    def test_forward_proxy(self) -> None:
        """A proxy that cannot be used ends the start as a setting does, its password hidden."""
        os.environ["all_proxy"] = "socks5://user:secret@proxy.example:1080"
        assert self.refusal(self.make) == (
            "proxpi: all_proxy='socks5://***@proxy.example:1080': socks5 proxies are not "
            "supported; an http or https URL with a host is accepted"
        )


class CacheFolder(TapCase):
    def temporary(self) -> list[str]:
        return [path.name for path in self.folder.glob("proxpi-*")]

    def test_temporary(self) -> None:
        """A temporary folder is removed at the end; without a place for it one line says so."""
        service = self.start()
        [name] = self.temporary()
        (self.folder / name / "file").write_bytes(b"x")
        self.stop(service)
        assert self.temporary() == []
        nowhere = mock.Mock(side_effect=FileNotFoundError("No usable temporary directory"))
        with mock.patch("tempfile.gettempdir", nowhere):
            assert "PROXPI_CACHE_DIR" in self.refusal(self.make)

    def test_own(self) -> None:
        """The user's folder is made, and stays, also if the start fails."""
        self.stop(self.start(f"--cache-dir={self.folder}/a/b"))
        assert (self.folder / "a/b/.proxpi").is_dir()
        assert self.temporary() == []
        service = self.make(f"--cache-dir={self.folder}/c", f"--listen=tcp:{TAKEN}")
        self.refusal(service.privilegedStartService)
        assert (self.folder / "c").is_dir()

    def test_relative(self) -> None:
        """A relative folder is relative to where the start was, also for a daemon that moves."""
        self.addCleanup(os.chdir, Path.cwd())
        os.chdir(self.folder)
        service = self.make("--cache-dir=here")
        os.chdir("/")
        service.privilegedStartService()
        service.startService()
        assert (self.folder / "here/.proxpi").is_dir()
        self.stop(service)

    def test_cannot_be_made(self) -> None:
        """A folder that cannot be made ends the start with a line that names it."""
        (self.folder / "file").write_bytes(b"x")
        for path in (f"{self.folder}/file", f"{self.folder}/file/below"):
            text = self.refusal(self.make(f"--cache-dir={path}").privilegedStartService)
            assert f"PROXPI_CACHE_DIR={path!r}" in text
            assert "accepted" in text

    def test_another_user(self) -> None:
        """Files that root makes for a process that becomes another user are that user's."""
        given: list[tuple[Path, int]] = []
        options = tap.Options()  # type: ignore[no-untyped-call]
        options.parseOptions([f"--index-url={INDEX}", f"--cache-dir={self.folder}/a/b"])
        options.parent = usage.Options()
        options.parent["uid"] = 4711
        for _ in range(2):
            with mock.patch.object(tap, "Shutdown", lambda *_: Service()):
                service: Any = tap.makeService(options)
            with mock.patch("os.chown", lambda path, user, _: given.append((path, user))):
                service.privilegedStartService()
            service.startService()
            self.stop(service)
        assert sorted(given) == [(self.folder / "a", 4711), (self.folder / "a/b", 4711)]
