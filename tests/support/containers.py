"""Podman for tests: the image of this clone, and containers and networks that end with a block.

Podman and what it starts are the system's, or Debian's packages, unpacked (:mod:`debian`). Its
images, volumes, networks and configuration are in the environment that runs the tests: it reads
nothing of this machine's, and asks no registry.
"""

from __future__ import annotations

import fcntl
import hashlib
import ipaddress
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import attrs

from tests.support.debian import beside, need
from tests.support.process import GUARD_SECONDS, Process, plain_environment
from tests.support.proxy import way_out

ROOT = Path(__file__).parents[2]
_PLACE = Path(sys.prefix, "containers")
#: The state of containers: outside of the environment, since paths of sockets have to be short.
_STATE = Path("/run", f"proxpi-{hashlib.sha256(os.fsencode(_PLACE)).hexdigest()[:8]}")
_NEEDED = (
    "this test runs containers: it needs root (in a container CAP_SYS_ADMIN, too); "
    "run the tests as root"
)
_BASE = "localhost/proxpi-base"
#: The packages of a base image: what the official images of Python have.
_BASE_PACKAGES = "python3,python3-venv,python3-pip,ca-certificates"
_BUILD_SECONDS = 600.0
#: A secret of the builds.
SECRET = "secret-of-the-build"
_CERTIFICATES = "/etc/ssl/certs"
#: There are no signatures: images are made here.
_POLICY = '{"default": [{"type": "insecureAcceptAnything"}]}'

_CONFIGURATION = """\
[containers]
# runc cannot raise the limits of a machine, which podman asks for.
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
conmon_path = ["{conmon}"]
events_logger = "file"
helper_binaries_dir = ["{helpers}"]
runtime = "runc"
tmp_dir = "{state}/libpod"
[engine.runtimes]
runc = ["{runc}"]
[network]
network_backend = "netavark"
network_config_dir = "{networks}"
"""


@attrs.frozen
class Podman:
    """The command of podman with its global options, and the environment that it runs in."""

    command: Sequence[str]
    environment: Mapping[str, str]

    def run(self, *arguments: str, timeout: float = GUARD_SECONDS) -> str:
        """Return the output of a command; an ``AssertionError`` with it if the command fails."""
        ended = self.ended(*arguments, timeout=timeout)
        shown = f"podman {' '.join(arguments)} ended with {ended.returncode}"
        assert not ended.returncode, f"{shown}:\n{ended.stdout}{ended.stderr}"
        return ended.stdout.strip()

    def ended(
        self, *arguments: str, timeout: float = GUARD_SECONDS
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, whatever its exit status."""
        return subprocess.run(
            [*self.command, *arguments],
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )


@cache
def podman() -> Podman:
    """Return podman as the tests use it; the first call unpacks and configures it."""
    allowed = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    assert not allowed.returncode, f"{_NEEDED} ({allowed.stderr.decode().strip()})"
    path, conmon, runc = (need(name, name) for name in ("podman", "conmon", "runc"))
    need("aardvark-dns", "aardvark-dns")
    helpers = beside(need("netavark", "netavark", ["aardvark-dns"])) / "usr/lib/podman"
    tables = need("iptables", "xtables-nft-multi")
    commands, home = _PLACE / "bin", _PLACE / "home"
    with _turn():
        for name in ("iptables", "ip6tables"):
            _write(commands / name, f'#!/bin/sh\nexec {tables} {name} "$@"\n', 0o755)
        _write(home / ".config/containers/policy.json", _POLICY)
        configuration = _PLACE / "containers.conf"
        places = {"state": _STATE, "networks": _PLACE / "networks"}
        programs = {"conmon": conmon, "helpers": helpers, "runc": runc}
        _write(configuration, _CONFIGURATION.format(**places, **programs))
    libraries = (beside(tables) / "usr/lib").glob("*/xtables")
    environment = plain_environment(
        HOME=str(home),
        PATH=os.pathsep.join([str(commands), os.environ["PATH"], "/usr/sbin", "/sbin"]),
        XTABLES_LIBDIR=str(next(libraries)),
        CONTAINERS_CONF=str(configuration),
        CONTAINERS_REGISTRIES_CONF=os.devnull,
        # The tests run the health checks, no timer of systemd.
        DISABLE_HC_SYSTEMD="true",
    )
    command = [path, "--log-level=error", f"--root={_PLACE}/store", f"--runroot={_STATE}/run"]
    overlay = ["--storage-driver=overlay", "--storage-opt=overlay.skip_mount_home=true"]
    found = Podman([*command, *overlay], environment)
    if found.ended("info").returncode:  # on an overlay itself
        found = Podman([*command, "--storage-driver=vfs"], environment)
    found.run("info")
    return found


@cache
def base_image() -> str:
    """Return the name of an image with the Python of the system's distribution; it is made once."""
    found = podman()
    with _turn():
        if found.ended("image", "exists", _BASE).returncode:
            listed = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)"]
            targets = subprocess.check_output([*listed, "Created-By: Packages"], text=True)
            mirror, suite = targets.splitlines()[0].split()
            with TemporaryDirectory(dir=_PLACE) as folder:
                made = Path(folder, "base.tar")
                command = [need("mmdebstrap", "mmdebstrap"), "--mode=root", "--variant=minbase"]
                command += [f"--include={_BASE_PACKAGES}", suite, str(made), mirror]
                ended = subprocess.run(
                    command, capture_output=True, text=True, timeout=_BUILD_SECONDS, check=False
                )
                assert not ended.returncode, f"{command} failed:\n{ended.stderr}"
                found.run("import", str(made), _BASE, timeout=_BUILD_SECONDS)
    return _BASE


def build_image(name: str, *options: str) -> str:
    """
    Build an image in the clone with the base image as ``BASE``; return its name.

    Layers of earlier builds are used again. The options end with the folder of the context.
    """
    base = base_image()
    with _turn():
        _build(name, base, options)
    return name


@cache
def image(extras: str = "") -> str:
    """
    Return the name of the image of this clone, built with these extras, once in a run of tests.

    It is built as in a company, whose settings of pip contain :data:`SECRET`.
    """
    base, name = base_image(), f"localhost/proxpi{extras and '-'}{extras}"
    run, built = os.environ.get("PYTEST_XDIST_TESTRUNUID", ""), _PLACE / f"built-{extras}"
    with _turn():
        if not run or not built.exists() or built.read_text() != run:
            settings = _PLACE / "pip.conf"
            _write(settings, f"[global]\n# {SECRET}\n")
            options = [f"--secret=id=pip.conf,src={settings}", f"--build-arg=EXTRAS={extras}"]
            options += [f"--build-arg=PIP_TRUSTED_HOST={SECRET}", "--file=docker/Dockerfile", "."]
            _build(name, base, options)
            _write(built, run)
    return name


def _build(name: str, base: str, options: Sequence[str]) -> None:
    # Not with the isolation "chroot": it runs a program without the path of unpacked libraries.
    command = ["build", "--pull=never", "--format=docker", "--network=host"]
    # The base image does not know the authorities that this machine trusts.
    command += [f"--volume={_CERTIFICATES}:{_CERTIFICATES}:ro", f"--build-arg=BASE={base}"]
    found = attrs.evolve(podman(), environment={**podman().environment, **way_out()})
    found.run(*command, f"--tag={name}", *options, timeout=_BUILD_SECONDS)
    found.run("image", "prune", "--force", "--filter=until=24h")


class Container(Process):
    """A container that runs while the ``with`` block does, and is removed at its end.

    Its output, exit status and signals are those of ``podman run``, which passes them on.
    """

    def __init__(self, name: str, command: Sequence[str], ready: str) -> None:
        super().__init__(command, folder=ROOT, environment=podman().environment)
        self.name, self._ready = name, ready

    def wait_until_ready(self) -> None:
        if self._ready:
            self.wait_for_line(self._ready)

    def stop(self, with_signal: signal.Signals = signal.SIGTERM) -> int:
        try:
            return super().stop(with_signal)
        finally:
            podman().run("rm", "--force", "--ignore", "--time=0", "--volumes", self.name)

    def logs(self) -> str:
        return self.output

    def exec(self, *command: str, timeout: float = GUARD_SECONDS) -> str:
        """Run a command in it; return its output."""
        return podman().run("exec", self.name, *command, timeout=timeout)

    def inspect(self, template: str) -> str:
        """Return a part of what podman knows of it, as a Go template."""
        return podman().run("container", "inspect", "--format", template, self.name)

    @property
    def address(self) -> str:
        """Its IP address in one of its networks; this machine reaches each."""
        networks = json.loads(self.inspect("{{json .NetworkSettings.Networks}}"))
        return str(next(iter(networks.values()))["IPAddress"])

    def wait_healthy(self) -> None:
        wait_healthy(self.name)


def wait_healthy(name: str) -> None:
    """Run the health check of a container's image until it succeeds."""
    end = time.monotonic() + GUARD_SECONDS
    while (ended := podman().ended("healthcheck", "run", name)).returncode:
        # 1: it failed, 125: there is none.
        shown = ended.stdout + ended.stderr
        assert ended.returncode == 1 and time.monotonic() < end, f"{name}: {shown}"


def run_container(
    image: str, *arguments: str, options: Sequence[str] = (), ready: str = "listening on"
) -> Container:
    """
    Return a container, to be used in a ``with`` block.

    :param arguments: of the image's entry point
    :param options: of ``podman run``, such as ``--network``
    :param ready: a pattern of the line that it writes when it can be used; ``""``: none
    """
    name = f"test-{uuid4().hex[:12]}"
    command = [*podman().command, "run", "--name", name, "--pull=never", *options, image]
    return Container(name, [*command, *arguments], ready)


@attrs.frozen
class Network:
    """A network of containers, in which this machine has an address.

    :ivar host: this machine's address, which it has while a container runs there; it has none in
        an internal network without a server for names
    """

    name: str
    host: str


@contextmanager
def network(*options: str) -> Iterator[Network]:
    """Make a network while the block runs; ``--internal``: without a route to any other one."""
    name = f"test-{uuid4().hex[:12]}"
    # Podman knows the networks of its own store only: the names and addresses are random. Its
    # default networks are in 10.88.0.0/13.
    subnet = ipaddress.ip_network(
        (0x0A600000 + (random.SystemRandom().randrange(1 << 13) << 8), 24)
    )
    podman().run("network", "create", f"--subnet={subnet}", *options, name)
    try:
        file = _PLACE / "networks" / f"{name}.json"
        known = json.loads(file.read_text())
        _write(file, json.dumps(known | {"network_interface": f"px{name[-12:]}"}))
        yield Network(name, str(subnet[1]))
    finally:
        podman().run("network", "rm", "--force", name)


@contextmanager
def volume() -> Iterator[str]:
    """Make a volume while the block runs; its first container fills it as Docker does."""
    name = podman().run("volume", "create")
    try:
        yield name
    finally:
        podman().run("volume", "rm", "--force", name)


@contextmanager
def _turn() -> Iterator[None]:
    """Let no other process of the tests change images or configuration in the meantime."""
    _PLACE.mkdir(parents=True, exist_ok=True)
    turn = os.open(_PLACE, os.O_RDONLY)
    try:
        fcntl.flock(turn, fcntl.LOCK_EX)
        yield
    finally:
        os.close(turn)


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    made = path.with_name(f"{path.name}.new")
    made.write_text(text)
    made.chmod(mode)
    made.replace(path)
