"""The first process of the image: it becomes ``twistd proxpi``, as uid 1000 if it may.

Started as root, as by default, it gives the cache folder to that user once, since volumes of the
original proxpi belong to root. twistd changes the user after it has read settings, secrets and keys
and has bound its ports. Where that is not allowed, and with another user, proxpi runs as started.
Nothing outside of the cache folder is changed.
"""

from __future__ import annotations

import os
import signal
import stat
import sys
from collections.abc import Sequence

USER = 1000
#: Folders of the system: a cache folder among them is a mistake, and stays as it is.
_SYSTEM = ("bin", "boot", "dev", "etc", "lib", "lib64", "proc", "run", "sbin", "sys", "usr")
#: Folders that have the cache folder in them, or volumes.
_PARENTS = ("", "home", "media", "mnt", "opt", "root", "srv", "tmp", "var", "var/cache", "var/lib")


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
    if os.geteuid() == 0 and _may_change_user():
        folder = _cache_folder(arguments)
        if not folder or give(folder):
            twistd += [f"--uid={USER}", f"--gid={USER}"]
    sys.argv = [*twistd, "proxpi", *arguments]
    from twisted.scripts.twistd import run

    run()


def _may_change_user() -> bool:
    """Try in a process of its own: capabilities, user namespaces and filters decide."""
    if child := os.fork():
        return os.waitpid(child, 0)[1] == 0
    status = 1
    try:
        os.setgroups([USER])
        os.setgid(USER)
        os.setuid(USER)
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
        _say(f"PROXPI_CACHE_DIR={folder!r} is a folder of the system: it keeps its owner")
        return True
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return True  # proxpi makes it, or says why that fails
    try:
        if _is_given(descriptor, user):
            return True
        _say(f"giving {path} and all in it to the user {user}, once")
        _give_folder(descriptor, os.fstat(descriptor).st_dev, user)
    except PermissionError as error:
        _say(f"{path} cannot be given to the user {user} ({error.strerror}): proxpi runs as root")
        return False
    except OSError as error:
        _say(f"{path} cannot be given to the user {user}: {error.strerror}")
    finally:
        os.close(descriptor)
    return True


def _is_given(folder: int, user: int) -> bool:
    """Whether an earlier start has finished: children come before the folder that has them."""
    owners = {entry.stat(follow_symlinks=False).st_uid for entry in os.scandir(folder)}
    return owners | {os.fstat(folder).st_uid} == {user}


def _give_folder(folder: int, device: int, user: int) -> None:
    """Give an open folder, after all in it; other file systems in it keep their owners."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries]
    for name in names:
        try:
            _give(name, folder, device, user)
        except FileNotFoundError:
            pass  # another container uses the folder
    if os.fstat(folder).st_uid != user:
        os.chown(folder, user, user)


def _give(name: str, parent: int, device: int, user: int) -> None:
    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if status.st_dev != device:
        return
    if stat.S_ISDIR(status.st_mode):
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
        folder = os.open(name, flags, dir_fd=parent)
        try:
            _give_folder(folder, device, user)
        finally:
            os.close(folder)
    elif status.st_uid != user:
        # The change of the owner changes the ctime, so that proxpi reads the file again.
        os.chown(name, user, user, dir_fd=parent, follow_symlinks=False)


def _say(text: str) -> None:
    print(f"proxpi: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
