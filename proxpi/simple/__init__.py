"""The Simple Repository API (PEP 503, 629, 691, 700, 714, 740, 792) as functions over values.

Nothing in this package does I/O, reads a clock, logs, or knows Twisted: bytes and values come in,
bytes and values go out, and so every rule of the specification is tested without a server.
"""

from proxpi.simple.ages import exclude_newer
from proxpi.simple.caching import Span, Unsatisfiable
from proxpi.simple.html import Markup, is_complete_html
from proxpi.simple.model import (
    FileEntry,
    FileExcluded,
    ListedFile,
    NotListed,
    Project,
    SkippedLinks,
)
from proxpi.simple.names import may_change, printable
from proxpi.simple.negotiate import Serialization
from proxpi.simple.parse import NotAnIndexPage, require_known_version
from proxpi.simple.render import render_html, render_json, render_list
from proxpi.simple.selectors import NamePattern, Selector, name_pattern, selector
from proxpi.simple.urls import URL, Origin

__all__ = [
    "URL",
    "FileEntry",
    "FileExcluded",
    "ListedFile",
    "Markup",
    "NamePattern",
    "NotAnIndexPage",
    "NotListed",
    "Origin",
    "Project",
    "Selector",
    "Serialization",
    "SkippedLinks",
    "Span",
    "Unsatisfiable",
    "exclude_newer",
    "is_complete_html",
    "may_change",
    "name_pattern",
    "printable",
    "render_html",
    "render_json",
    "render_list",
    "require_known_version",
    "selector",
]
