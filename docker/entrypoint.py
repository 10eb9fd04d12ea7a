"""The entry point of the image: it runs ``twistd proxpi`` in this process, as uid 1000 if possible.

Started as root, the default, it changes the owner of the cache folder to that user once, since
volumes of the original proxpi belong to root. twistd changes the user after it has read settings,
secrets and keys and has bound its ports. Without the capabilities for that, or started as another
user, proxpi keeps the user. The entry point changes nothing outside of the cache folder.
"""

from __future__ import annotations

import os
import signal
import stat
import sys
from collections.abc import Sequence
from contextlib import suppress

from twisted.logger import Logger
from twisted.python.util import switchUID

USER = 1000
#: Folders of the system: a cache folder among them is a mistake, and stays as it is.
_SYSTEM = {"bin", "boot", "dev", "etc", "lib", "lib64", "proc", "sbin", "sys", "usr"}
#: Folders that contain volumes, or those of several programs.
_PARENTS = {"", "home", "media", "mnt", "opt", "root", "run", "srv", "tmp"}
_PARENTS |= {"var", "var/cache", "var/lib"}

_STAYS = (
    f"proxpi runs as root: it cannot change to the user {USER}, for which it needs the "
    f"capabilities SETUID and SETGID, and that user in /etc/passwd; or start it with --user={USER}"
)
_FAILED = "the owner of {path} cannot be changed to the user {user}: {why}"
# proxpi writes the events to its log, in its format, once it has one.
_log = Logger(namespace="proxpi")


def main() -> None:
    if os.getpid() == 1:
        # The kernel ignores signals to the first process of a container that it does not handle.
        # The reactor replaces these handlers.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: os._exit(0))
    arguments = sys.argv[1:]
    if arguments and not arguments[0].startswith("-"):
        sys.exit(
            f"proxpi: {arguments[0]!r} is not understood; only options of proxpi are accepted "
            f"after the name of the image; to run a program of it: --entrypoint={arguments[0]}"
        )
    twistd = ["twistd", "-n", "--pidfile="]
    starts = {"--help", "--version"}.isdisjoint(arguments)
    if starts and os.geteuid() == 0:
        folder = _cache_folder(arguments)
        if not _may_change_user():
            _log.warn("{why}", why=_STAYS)
        elif not folder or give(folder):
            twistd += [f"--uid={USER}", f"--gid={USER}"]
    sys.argv = [*twistd, "proxpi", *arguments]
    from twisted.scripts.twistd import run

    run()


def _may_change_user() -> bool:
    """Try as twistd does it, in a process of its own.

    Capabilities, user namespaces and filters decide, and whether /etc/passwd has the user.
    """
    if child := os.fork():
        return os.waitpid(child, 0)[1] == 0
    status = 1
    try:
        switchUID(USER, USER)
        status = 0
    finally:
        os._exit(status)


def _cache_folder(arguments: Sequence[str]) -> str:
    """Return the folder that the last option or the environment names; empty if none does."""
    folder = os.environ.get("PROXPI_CACHE_DIR", "")
    for number, argument in enumerate(arguments):
        name, has_value, value = argument.partition("=")
        if name == "--cache-dir":
            folder = value if has_value else "".join(arguments[number + 1 : number + 2])
    return os.path.expanduser(folder)


def give(folder: str, user: int = USER) -> bool:
    """Give a folder and all in it to the user, once; return whether proxpi may run as that user."""
    path = os.path.realpath(folder)
    relative = path.strip("/")
    if relative in _PARENTS or relative.partition("/")[0] in _SYSTEM:
        _log.warn(
            "PROXPI_CACHE_DIR={path} is a folder of the system: it keeps its owner", path=path
        )
        return True
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return True  # proxpi makes it, or says why that fails
    try:
        if _is_given(descriptor, user):
            return True
        _give_all(descriptor, user)
        _log.info("{path} and all in it now belong to the user {user}", path=path, user=user)
    except PermissionError as error:
        _log.warn(f"{_FAILED}: proxpi runs as root", path=path, user=user, why=error.strerror)
        return False
    except OSError as error:
        _log.warn(_FAILED, path=path, user=user, why=error.strerror)
    finally:
        os.close(descriptor)
    return True


def _is_given(folder: int, user: int) -> bool:
    """Whether an earlier start has finished: it gives the folder last, and the rest in order."""
    device = os.fstat(folder).st_dev
    found = [os.fstat(folder)]
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                found.append(entry.stat(follow_symlinks=False))
    return {status.st_uid for status in found if _is_inside(status, device)} == {user}


def _is_inside(status: os.stat_result, device: int) -> bool:
    """Whether an entry is in the cache folder alone: no other volume, and no further hard links.

    A file with hard links may be a backup's, too: its owner would change there as well.
    """
    return status.st_dev == device and (stat.S_ISDIR(status.st_mode) or status.st_nlink == 1)


def _give_all(folder: int, user: int) -> None:
    """Give an open folder; each folder in it follows what is in that one.

    Another process that uses the folder may remove files in the meantime.
    """
    device = os.fstat(folder).st_dev

    def is_given(name: str, parent: int) -> bool:
        with suppress(FileNotFoundError):
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if not _is_inside(status, device):
                return False
            if status.st_uid != user:  # otherwise proxpi would verify the file again, by its ctime
                os.chown(name, user, user, dir_fd=parent, follow_symlinks=False)
            return True
        return False

    def fail(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    for name in os.listdir(folder):
        with suppress(FileNotFoundError):
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if status.st_dev == device and stat.S_ISDIR(status.st_mode):
                for _, folders, files, parent in os.fwalk(name, dir_fd=folder, onerror=fail):
                    folders[:] = [each for each in folders if is_given(each, parent)]
                    for each in files:
                        is_given(each, parent)
            is_given(name, folder)
    os.chown(folder, user, user)


if __name__ == "__main__":
    main()
