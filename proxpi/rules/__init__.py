"""Rules on the files that may be installed: by name, version, digest, age, and advisories.

A rule excludes files from the pages of all indexes. The decisions are pure; deny files and the
feed of advisories are read again in the background. Nothing here knows pages in the cache, package
files or clients.
"""

from proxpi.rules.advisories import Advisories
from proxpi.rules.advisory_feed import open_feed
from proxpi.rules.advisory_store import AdvisoryStore
from proxpi.rules.deny_files import DenyFiles
from proxpi.rules.exclusions import Exclusions
from proxpi.rules.rules import Exclusion, ProjectRules, Rules, apply, states_times

__all__ = [
    "Advisories",
    "AdvisoryStore",
    "DenyFiles",
    "Exclusion",
    "Exclusions",
    "ProjectRules",
    "Rules",
    "apply",
    "open_feed",
    "states_times",
]
