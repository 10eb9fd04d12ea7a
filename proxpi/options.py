"""The options of ``twistd proxpi``, made from the table of settings.

Whatever is wrong with them ends the start with one line, as ``SystemExit``: the usage error
that twistd knows would have it print its whole help around that line.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import ClassVar

from twisted.internet.endpoints import serverFromString
from twisted.python import usage

from proxpi import __version__
from proxpi.settings import SETTINGS, Given, Setting, Settings, SettingsError, setting
from proxpi.upstream.proxies import Proxies

_LISTEN = setting("listen")

#: Options of gunicorn, which ran the program that proxpi replaces.
_GUNICORN = re.compile(
    r"-[bktw].*|(--(access-?log\w*|backlog|bind|certfile|config|error-?log\w*|graceful-timeout|"
    r"keep-alive|keyfile|log-(config|file|level)|max-requests(-jitter)?|preload|reload|threads|"
    r"timeout|worker-(class|connections|tmp-dir)|workers))(=.*)?"
)


def _of_gunicorn(arguments: Sequence[str] | None) -> str:
    """Give the line that answers options of gunicorn; nothing if there are none."""
    matches = map(_GUNICORN.fullmatch, arguments or ())
    found = [match[1] or match[0][:2] for match in matches if match]
    what = f"{', '.join(found)} {'is' if len(found) == 1 else 'are'} for gunicorn"
    instead = "--listen tcp:5000 is what --bind 0.0.0.0:5000 was; leave the rest out"
    return f"{what}, which does not run proxpi; {instead}" if found else ""


def _nearest(error: str) -> str:
    """Give an error, and the question whether an option was meant that has almost the same name."""
    names = [f"--{row.option}" for row in SETTINGS]
    words = [word for word in error.split() if word.startswith("--") and word not in names]
    nearest = [name for word in words for name in get_close_matches(word, names, n=1)]
    return f"{error}; did you mean {nearest[0]}?" if nearest else error


def _help(row: Setting) -> str:
    variable = row.variable
    if row.secret:
        variable += f" (or {variable}_FILE, a file that holds it)"
    default = row.default or row.otherwise
    return f"{row.explains} Default: {default}. Variable: {variable}."


class Options(usage.Options):
    """Options named after the settings; ``settings`` are their values once they are parsed.

    ``proxies`` are the environment's forward proxies, which have no options.
    """

    optParameters: ClassVar[list[list[str | None]]] = [
        [row.option, None, None, _help(row)] for row in SETTINGS if row is not _LISTEN
    ]

    #: Ends the help: what has no option.
    longdesc = (
        "Variables of other programs are honored, too. HTTP_PROXY, HTTPS_PROXY and ALL_PROXY, in "
        "upper or lower case, name forward proxies, and NO_PROXY names the hosts that are "
        "connected to without. NETRC names a file with credentials for upstreams; default: "
        "~/.netrc. REQUESTS_CA_BUNDLE, or else CURL_CA_BUNDLE, and SSL_CERT_FILE and SSL_CERT_DIR "
        "name certificates to trust in place of those of the system."
    )

    settings: Settings
    proxies: Proxies

    def opt_listen(self, endpoint: str) -> None:
        self.setdefault("listen", []).append(endpoint)

    opt_listen.__doc__ = _help(_LISTEN)

    def opt_version(self) -> None:
        """Display proxpi's version and exit."""
        print(f"proxpi {__version__}")
        sys.exit(0)

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Parse ``options``; ``SystemExit`` with one line says what is wrong with them."""
        try:
            super().parseOptions(options)  # type: ignore[no-untyped-call]
        except SettingsError as error:
            raise SystemExit(f"proxpi: {error}") from None
        except usage.UsageError as error:
            raise SystemExit(f"proxpi: {_of_gunicorn(options) or _nearest(str(error))}") from None

    def parseArgs(self, *arguments: str) -> None:
        """Refuse what is no option."""
        if arguments:
            raise usage.UsageError(f"{arguments[0]!r} is not understood; only options are accepted")

    def postOptions(self) -> None:
        """Read the settings from these options and the environment."""
        self.settings = Settings.read(os.environ, self)
        self.proxies = Proxies.read(os.environ)
        for endpoint in self.settings.listen:
            try:
                serverFromString(None, endpoint)  # a reactor is only kept, for listening
            except Exception as error:  # noqa: BLE001 (each kind of endpoint refuses in its own way)
                given = Given(
                    _LISTEN.variable, endpoint, by_option="listen" in self.settings.by_option
                )
                why = f"not understood ({' '.join(str(error).split()).rstrip('.')})"
                raise _LISTEN.refusal(given, why) from None
