"""One row of the table of settings, and what somebody gave for it. Values, with no I/O."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from proxpi.quantities import NotAccepted
from proxpi.simple import urls


class SettingsError(Exception):
    """A setting that cannot be understood; its text is one line that says what is accepted."""


@attrs.frozen(kw_only=True)
class Setting:
    """One row of the table.

    ``default`` is written as a user would write it; an empty one means that nothing is given,
    and ``otherwise`` says to people what happens then. ``parse`` makes the value of a text or
    raises :exc:`ValueError` (:exc:`NotAccepted` where the reason is not plain); ``accepts`` tells
    what it understands. A ``secret`` may be given as a file too, and is never shown with a
    password in it. A ``repeatable`` one may be given several times as an option: its value is a
    tuple.
    """

    name: str
    default: str = ""
    otherwise: str = "none"
    parse: Callable[[str], Any] = str
    accepts: str
    explains: str
    secret: bool = False
    repeatable: bool = False

    @property
    def variable(self) -> str:
        """The environment variable: ``PROXPI_INDEX_URL``."""
        return f"PROXPI_{self.name.upper()}"

    @property
    def option(self) -> str:
        """The option of ``twistd proxpi``, without its dashes: ``index-url``."""
        return self.name.replace("_", "-")

    def refusal(self, given: Given, why: str = "not understood") -> SettingsError:
        """The error that says what was given where, and what is accepted instead."""
        text = urls.hidden(given.text) if self.secret else given.text
        also = f" (--{self.option})" if given.by_option else ""
        return SettingsError(f"{given.variable}={text!r}{also}: {why}; {self.accepts} is accepted")

    def value(self, given: Given) -> Any:
        """What a text means; :exc:`SettingsError` if it means nothing."""
        try:
            return self.parse(given.text)
        except NotAccepted as reason:
            raise self.refusal(given, str(reason)) from None
        except ValueError:
            raise self.refusal(given) from None


@attrs.frozen
class Given:
    """A text somebody gave for a setting, and where: in which variable, or as its option."""

    variable: str
    text: str
    by_option: bool = False
