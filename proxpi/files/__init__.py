"""The file mirror: package files, fetched once, verified, and kept on disk.

It knows nothing of clients, and of indexes only what its ``ProjectPages`` protocol tells it.
"""

from proxpi.files.cache_dir import CacheDir, OpenFile, Removed
from proxpi.files.cached_files import CachedFiles
from proxpi.files.downloads import Downloads
from proxpi.files.eviction_index import CachedResponses, EvictionIndex, IndexedFile
from proxpi.files.extraction import Extraction
from proxpi.files.folder_files import FolderFiles
from proxpi.files.layout import OWN_FOLDER, measure, try_to_write
from proxpi.files.mirror import FileHead, Mirror, Prefetched, Redirect
from proxpi.files.passthrough import RangeClient, RangeResponse
from proxpi.files.progress import DownloadStatus, Progress
from proxpi.files.quota import DeletionQueue, Quota
from proxpi.files.resolver import (
    METADATA,
    SIGNATURE,
    FileReference,
    MissingUpstream,
    ProjectPages,
    Resolver,
)
from proxpi.files.spool import Reader
from proxpi.files.usage_log import UsageLog
from proxpi.files.wheel_metadata import WheelMetadata

__all__ = [
    "METADATA",
    "OWN_FOLDER",
    "SIGNATURE",
    "CacheDir",
    "CachedFiles",
    "CachedResponses",
    "DeletionQueue",
    "DownloadStatus",
    "Downloads",
    "EvictionIndex",
    "Extraction",
    "FileHead",
    "FileReference",
    "FolderFiles",
    "IndexedFile",
    "Mirror",
    "MissingUpstream",
    "OpenFile",
    "Prefetched",
    "Progress",
    "ProjectPages",
    "Quota",
    "RangeClient",
    "RangeResponse",
    "Reader",
    "Redirect",
    "Removed",
    "Resolver",
    "UsageLog",
    "WheelMetadata",
    "measure",
    "try_to_write",
]
