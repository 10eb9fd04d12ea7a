"""The options of ``twistd proxpi``, made from the table of settings.

A wrong option ends the start with one line and the remedy, as ``SystemExit``: twistd would print
its whole help around a usage error.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import ClassVar

import attrs
from twisted.internet.endpoints import serverFromString
from twisted.python import usage

from proxpi import __version__, gunicorn
from proxpi.settings import SETTINGS, Setting, Settings, setting
from proxpi.values import SettingsError

_LISTEN = setting("listen")

#: A value that looks like the next option.
_NEXT_OPTION = re.compile(r"--|-[A-Za-z]")


def _needs_value(row: Setting) -> SettingsError:
    example = "on" if row.default == "off" else row.default
    such = f", such as --{row.option}={example}" if example else f"; {row.accepts} is accepted"
    return SettingsError(f"option --{row.option} needs a value{such}")


def _nearest(error: str) -> str:
    """Return an error with its remedy, or with the option of the most similar name."""
    for row in SETTINGS:
        if error == f"option --{row.option} requires argument":
            return str(_needs_value(row))
        if row.secret and error.startswith(f"option --{row.option}-file "):
            return f"--{row.option}-file is no option; a file is named by {row.variable}_FILE alone"
    names = [f"--{row.option}" for row in SETTINGS]
    words = [word for word in error.split() if word.startswith("--") and word not in names]
    nearest = [name for word in words for name in get_close_matches(word, names, n=1)]
    return f"{error}; {f'did you mean {nearest[0]}?' if nearest else '--help shows all options'}"


def _misread(endpoint: str, error: Exception) -> str:
    """Return the reason why an endpoint string is not understood."""
    text = " ".join(str(error).split()).rstrip(".")
    if meant := gunicorn.endpoint(endpoint):
        text = f"write {meant}"
    elif isinstance(error, LookupError):
        text = "systemd passed no such socket on"
    elif isinstance(error, TypeError):  # Python's own message on the arguments of a function
        text = "a part is missing, such as the port, or is unknown"
    return f"not understood ({text.replace('invalid literal for int()', 'no number')})"


def _help(row: Setting) -> str:
    variable = row.variable
    if row.secret:
        variable += f" (or {variable}_FILE, a file that holds it)"
    default = row.default or row.otherwise
    return f"{row.explains} Default: {default}. Variable: {variable}."


class Options(usage.Options):
    """Options named after the settings; ``settings`` are their values once they are parsed."""

    optParameters: ClassVar[list[list[str | None]]] = [
        [row.option, None, None, _help(row)] for row in SETTINGS if row is not _LISTEN
    ]

    #: The end of the help: variables without options.
    longdesc = (
        "Sizes and times may have a unit, such as 5GiB, 500ms or 30m. A switch needs a value: "
        "--offline=on. Variables of other programs are honored, too. HTTP_PROXY, HTTPS_PROXY and "
        "ALL_PROXY, in upper or lower case, name forward proxies; NO_PROXY names hosts that "
        "are connected to without one. NETRC names a file with credentials for upstreams; default: "
        "~/.netrc. REQUESTS_CA_BUNDLE, or else CURL_CA_BUNDLE, and SSL_CERT_FILE and SSL_CERT_DIR "
        "name certificates to trust in place of those of the system."
    )

    settings: Settings
    _warnings: Sequence[str] = ()

    def opt_listen(self, endpoint: str) -> None:
        self.setdefault("listen", []).append(endpoint)

    opt_listen.__doc__ = _help(_LISTEN)

    def opt_version(self) -> None:
        """Display proxpi's version and exit."""
        print(f"proxpi {__version__}")
        sys.exit(0)

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Parse the options; raises ``SystemExit`` with one line for a wrong one."""
        try:
            options, self._warnings = gunicorn.translated(
                sys.argv[1:] if options is None else options
            )
            self._refuse_abbreviations(options)
            super().parseOptions(options)  # type: ignore[no-untyped-call]
        except (SettingsError, gunicorn.NotTranslated) as error:
            raise SystemExit(f"proxpi: {error}") from None
        except usage.UsageError as error:
            raise SystemExit(f"proxpi: {_nearest(str(error))}") from None

    def _refuse_abbreviations(self, words: Sequence[str]) -> None:
        # The image reads --cache-dir and --listen itself, and a later option may be as similar.
        names = {f"--{name.removesuffix('=')}" for name in self.longOpt}
        for word in words:
            name, _, _ = word.partition("=")
            if name.startswith("--") and name not in {*names, "--"}:
                raise usage.UsageError(f"option {name} not recognized")

    def parseArgs(self, *arguments: str) -> None:
        if arguments:
            raise SettingsError(f"{arguments[0]!r} is not understood; only options are accepted")

    def postOptions(self) -> None:
        for row in SETTINGS:
            values = self.get(row.option) or []
            if any(map(_NEXT_OPTION.match, values if row.repeatable else [values or ""])):
                raise _needs_value(row)
        settings = Settings.read(os.environ, self)
        warnings = (*self._warnings, *settings.warnings)
        self.settings = attrs.evolve(settings, warnings=warnings)
        for endpoint in self.settings.listen:
            try:
                serverFromString(None, endpoint)  # a reactor is only kept, for listening
            except Exception as error:  # noqa: BLE001 (each kind of endpoint refuses in its own way)
                given = self.settings.given("listen", endpoint)
                raise _LISTEN.refusal(given, _misread(endpoint, error)) from None
