"""Pages and project lists: requested from the indexes, revalidated, merged, rendered and stored.

Nothing here knows HTTP clients of proxpi, or package files.
"""

from proxpi.index.breaker import Breakers
from proxpi.index.client import ACCEPT, IndexClient, Root
from proxpi.index.index_status import IndexStatus
from proxpi.index.list_store import ListStore
from proxpi.index.page_cache import NoSuchFile, NoSuchProject, NotInView, Page, PageCache, Refetched
from proxpi.index.page_entries import PageEntries
from proxpi.index.page_store import FoundPage, PageStore
from proxpi.index.project_list import ListEntries, NoSuchList, ProjectList, ProjectListCache
from proxpi.index.sources import Index, Member, Members, View

__all__ = [
    "ACCEPT",
    "Breakers",
    "FoundPage",
    "Index",
    "IndexClient",
    "IndexStatus",
    "ListEntries",
    "ListStore",
    "Member",
    "Members",
    "NoSuchFile",
    "NoSuchList",
    "NoSuchProject",
    "NotInView",
    "Page",
    "PageCache",
    "PageEntries",
    "PageStore",
    "ProjectList",
    "ProjectListCache",
    "Refetched",
    "Root",
    "View",
]
