"""Records resolutions: the requests of real clients for real trees, and what a predictor may read.

A recording is one JSON object, compressed with gzip:

``user_agent``
   The client's, as it sent it.
``command``
   The kind of the run, and the requirements; options that matter are part of them.
``requests``
   The client's requests in the order in which the index got them: seconds since the first one,
   ``page``, ``metadata`` or ``file``, the project, and the file name (empty for a page). The index
   lies behind the slow link.
``pages``
   By project, the entries of its page, as the Simple API has them in JSON, without URL and digests.
``metadata``
   By file name of a wheel, the lines of its metadata that state requirements.

Pages and metadata cover the requests, and what a predictor may guess beside them: each required
project whose markers apply to the client, in the newest release that fits the client and any one
requirement, and in the newest release of all.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import attrs
from applications import APPLICATIONS
from captures import Captures, default_folder
from environments import BenchmarkError, exit_on_sigterm, interpreter_environment
from installers import COMPILE, LOCK, PIP, UV, Installer, capture
from packaging.metadata import parse_email
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

_LINES = ("requires-dist:", "requires-python:", "provides-extra:")
#: Bound of the projects that a predictor may guess, and of the rounds that find them.
_GUESSES, _ROUNDS = 3_000, 12
#: Prints the marker environment and the wheel tags of a Python.
_ABOUT = """
import json
from pip._vendor.packaging.markers import default_environment
from pip._vendor.packaging.tags import sys_tags
print(json.dumps([default_environment(), [str(tag) for tag in sys_tags()]]))
"""


@attrs.frozen
class About:
    """The marker environment of a Python, and the ranks of its wheel tags."""

    environment: dict[str, str]
    ranks: dict[str, int]

    @classmethod
    def of(cls, folder: Path) -> About:
        python = folder / "bin/python"
        done = subprocess.run([python, "-c", _ABOUT], capture_output=True, text=True, check=True)
        environment, tags = json.loads(done.stdout)
        return cls(environment, {tag: rank for rank, tag in enumerate(tags)})


def record(installer: Installer, requirements: Sequence[str], captures: Captures) -> dict[str, Any]:
    """Run a client at the captured index; return the recording."""
    log = capture(installer, requirements, captures).log
    began = min(came for came, *_ in log)
    requests = [
        [round(came - began, 3), kind, project, filename]
        for came, _, kind, project, filename, *_ in sorted(log)
    ]
    about = About.of(installer.environment)
    pages, metadata = reach(requests, requirements, about, captures)
    return {
        "user_agent": log[0][1],
        "command": [installer.kind, *installer.options, *requirements],
        "requests": requests,
        "pages": pages,
        "metadata": metadata,
    }


def reach(
    requests: Sequence[Sequence[Any]], roots: Sequence[str], about: About, captures: Captures
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, str]]:
    """Return pages and metadata of what was requested, and of what may be guessed."""
    wanted: dict[str, set[str]] = defaultdict(set)
    pages: dict[str, list[dict[str, Any]]] = {}
    found: dict[str, str] = {}
    todo = {(project, filename) for _, kind, project, filename in requests if kind == "metadata"}
    for text in roots:
        requirement = Requirement(text)
        wanted[canonicalize_name(requirement.name)].add(str(requirement.specifier))
    for _, _, project, _ in requests:
        wanted[project].add("")
    with ThreadPoolExecutor(16) as pool:
        for _ in range(_ROUNDS):
            read = pool.map(lambda each: captures.metadata(*each), todo)
            for (_, filename), metadata in zip(todo, read, strict=True):
                found[filename] = _stated(metadata)
                for name, specifier in _requirements(metadata, about.environment):
                    wanted[name].add(specifier)
            new = wanted.keys() - pages.keys()
            pages |= zip(new, pool.map(captures.page, new), strict=True)
            todo = {
                (project, filename)
                for project, page in pages.items()
                for filename in _newest(page, wanted[project], about)
                if filename not in found
            }
            if not todo or len(found) > _GUESSES:
                break
    listed = {
        project: [
            {key: value for key, value in entry.items() if key != "hashes"}
            | ({"core-metadata": True} if entry.get("core-metadata") else {})
            for entry in page
        ]
        for project, page in sorted(pages.items())
        if page
    }
    return listed, dict(sorted(found.items()))


def _stated(metadata: bytes) -> str:
    head = metadata.decode("utf-8", "replace").partition("\n\n")[0].replace("\r", "")
    lines = [line for line in head.split("\n") if line.lower().startswith(_LINES)]
    return "".join(f"{line}\n" for line in lines)


def _requirements(metadata: bytes, environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    raw, _ = parse_email(metadata)
    for text in raw.get("requires_dist", []):
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        marker = requirement.marker
        extras = ["", *raw.get("provides_extra", [])] if "extra" in str(marker) else [""]
        if len(extras) == 1 and (marker is None or marker.evaluate({**environment, "extra": ""})):
            yield canonicalize_name(requirement.name), str(requirement.specifier)


def _newest(page: Sequence[Mapping[str, Any]], specifiers: set[str], about: About) -> Iterator[str]:
    """Yield the newest wheel that fits the client, for all specifiers together and for each."""
    fitting = []
    for entry in page:
        try:
            _, version, build, tags = parse_wheel_filename(entry["filename"])
            python = SpecifierSet(entry.get("requires-python") or "")
        except (InvalidWheelFilename, InvalidSpecifier):
            continue
        ranks = [about.ranks[str(tag)] for tag in tags if str(tag) in about.ranks]
        full = about.environment["python_full_version"]
        if ranks and not entry.get("yanked") and python.contains(full, prereleases=True):
            fitting.append((version, -min(ranks), build, entry["filename"]))
    fitting.sort(reverse=True)
    for specifier in {*specifiers, ",".join(filter(None, specifiers))}:
        accepted = SpecifierSet(specifier)
        final = (each for each in fitting if accepted.contains(each[0]))
        if (first := next(final, None)) is not None:
            yield first[3]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where to write the recordings")
    parser.add_argument("--application", action="append", choices=list(APPLICATIONS))
    parser.add_argument("--kind", action="append", choices=[PIP, UV, LOCK, COMPILE])
    parser.add_argument("--python", action="append", help="version, for instance 3.13")
    options = parser.parse_args()
    exit_on_sigterm()
    captures = Captures(default_folder())
    options.folder.mkdir(parents=True, exist_ok=True)
    for application in options.application or APPLICATIONS:
        for version in options.python or ["3.11"]:
            folder = interpreter_environment(version)
            for kind in options.kind or [PIP, UV]:
                name = f"{application}-{kind}-{version}"
                try:
                    made = record(Installer(kind, folder), APPLICATIONS[application], captures)
                except BenchmarkError as error:
                    print(f"{name}: {error}", file=sys.stderr)
                    continue
                _save(options.folder / f"{name}.json.gz", made)


def _save(path: Path, recording: Mapping[str, Any]) -> None:
    data = gzip.compress(json.dumps(recording, separators=(",", ":")).encode(), 9, mtime=0)
    path.write_bytes(data)
    counts = {"requests": len(recording["requests"])}
    counts |= {key: len(recording[key]) for key in ("pages", "metadata")}
    print(path.name, counts, f"{len(data) / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
