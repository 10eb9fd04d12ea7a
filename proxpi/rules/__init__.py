"""Rules on the files that may be installed: by name, version, digest, age, and advisories.

A rule excludes files from the pages of all indexes. The decisions are pure; deny files and the
feed of advisories are read again in the background. Nothing here knows pages in the cache, package
files or clients.
"""

from proxpi.rules.deny_files import DenyFiles
from proxpi.rules.exclusions import Exclusions
from proxpi.rules.rules import Exclusion, ProjectRules, Rules, apply, states_times

__all__ = [
    "DenyFiles",
    "Exclusion",
    "Exclusions",
    "ProjectRules",
    "Rules",
    "apply",
    "states_times",
]
