"""What the merged page of a project says of one file: the word between index and mirror."""

from __future__ import annotations

import attrs

from proxpi.simple.model import Entry


class NotListed(Exception):
    """No index lists what is asked for; its subclasses say what that is."""


@attrs.frozen(eq=False)
class Listed:
    """A file that an index lists.

    :ivar entry: its entry on the page of the index that won
    :ivar private: whether that index needs credentials, so that a client could not fetch the
        file from it directly
    """

    entry: Entry
    private: bool
