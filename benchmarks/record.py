"""Records resolutions: the requests of real clients for real trees, and what a predictor may read.

A recording is one JSON object, compressed with gzip:

``user_agent``
   The client's, as it sent it. For macOS, uv ran on Linux for the other platform, and its statement
   of the platform was replaced.
``command``
   The kind of the run, its options, and the requirements.
``requests``
   The client's requests in the order in which the index got them: seconds since the first one,
   ``page``, ``metadata`` or ``file``, the project, and the file name (empty for a page). The index
   was 50 ms away.
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
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from applications import CASES, Case
from captures import Captures, default_folder
from environments import BenchmarkError, exit_on_sigterm
from installers import capture
from packaging.metadata import parse_email
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)
from packaging.version import Version

from proxpi.prefetch import Client, applies, read_user_agent

#: Bytes of the largest stand-in: the recorded requests are the same, and take less time.
LARGEST = 64 * 1024
_RELEASE = re.compile(r'"release":"[^"]*"')
_LINES = ("requires-dist:", "requires-python:", "provides-extra:")
#: The most metadata that a predictor may guess, and the most rounds that find it.
_GUESSES, _ROUNDS = 3_000, 12
#: Releases of a trimmed page that are older than all whose metadata is there.
_OLDER = 3


def record(case: Case, captures: Captures) -> dict[str, Any]:
    """Run a client; return the recording."""
    requirements, installer = case.requirements(captures), case.installer()
    log = capture(installer, requirements, captures).log
    began, agent = min(log)[0], case.agent(log[0][1])
    requests = [
        [round(received_at - began, 3), kind, project, filename]
        for received_at, _, kind, project, filename, *_ in sorted(log)
    ]
    pages, metadata = reach(requests, requirements, read_user_agent(agent), captures)
    return {
        "user_agent": agent,
        "command": [installer.kind, *installer.options, *requirements],
        "requests": requests,
        "pages": pages,
        "metadata": metadata,
    }


def reach(
    requests: Sequence[Sequence[Any]], roots: Sequence[str], client: Client, captures: Captures
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, str]]:
    """Return the requested pages and metadata, and those that a predictor may guess."""
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
                for name, specifier in _requirements(metadata, client):
                    wanted[name].add(specifier)
            new = wanted.keys() - pages.keys()
            pages |= zip(new, pool.map(captures.entries, new), strict=True)
            todo = {
                (project, filename)
                for project, page in pages.items()
                for filename in _newest(page, wanted[project], client)
                if filename not in found
            }
            if not todo or len(found) > _GUESSES:
                break
    listed = {project: page for project, page in sorted(pages.items()) if page}
    return listed, dict(sorted(found.items()))


def _stated(metadata: bytes) -> str:
    head = metadata.decode("utf-8", "replace").replace("\r", "").partition("\n\n")[0]
    lines = [line for line in head.split("\n") if line.lower().startswith(_LINES)]
    return "".join(f"{line}\n" for line in lines)


def _requirements(metadata: bytes, client: Client) -> Iterator[tuple[str, str]]:
    raw, _ = parse_email(metadata)
    for text in raw.get("requires_dist", []):
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        if applies(requirement.marker, client.environment):
            yield canonicalize_name(requirement.name), str(requirement.specifier)


def _newest(
    page: Sequence[Mapping[str, Any]], specifiers: set[str], client: Client
) -> Iterator[str]:
    """Yield the newest wheel that fits the client, for all specifiers together and for each."""
    fitting = []
    for entry in page:
        filename = entry["filename"]
        try:
            _, version, build, _ = parse_wheel_filename(filename)
            python = SpecifierSet(entry.get("requires-python") or "")
        except (InvalidWheelFilename, InvalidSpecifier):
            continue
        rank = client.rank(filename)
        full = (client.environment or {}).get("python_full_version", "")
        if rank is not None and not entry.get("yanked") and python.contains(full, True):
            fitting.append((version, -rank, build, filename))
    fitting.sort(reverse=True)
    for specifier in {*specifiers, ",".join(filter(None, specifiers))}:
        accepted = SpecifierSet(specifier)
        final = (each for each in fitting if accepted.contains(each[0]))
        if (first := next(final, None)) is not None:
            yield first[3]


def trim(recording: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recording without the releases and wheels that no predictor would look at.

    It keeps what fits the client, from the oldest release on whose metadata is there, and a few
    older ones; older pre-releases go. The client's kernel is replaced.
    """
    agent = _RELEASE.sub('"release":"6.1.0"', recording["user_agent"])
    client = read_user_agent(agent)
    oldest: dict[str, Version] = {}
    for filename in recording["metadata"]:
        name, version, _, _ = parse_wheel_filename(filename)
        oldest[name] = min(version, oldest.get(name, version))
    pages = {}
    for project, page in recording["pages"].items():
        fitting = (
            entry
            for entry in page
            if not entry["filename"].endswith(".whl") or client.rank(entry["filename"]) is not None
        )
        versions = ((_version(entry["filename"]), entry) for entry in fitting)
        listed = [(version, entry) for version, entry in versions if version is not None]
        listed.sort(key=lambda each: each[0], reverse=True)
        newest = next((version for version, _ in listed if not version.is_prerelease), None)
        kept, older = [], set[Version]()
        for version, entry in listed:
            if version < oldest.get(project, version):
                older.add(version)
            old = newest is not None and version.is_prerelease and version < newest
            known = entry["filename"] in recording["metadata"]
            if known or (not old and len(older) <= _OLDER):
                kept.append(entry | ({"yanked": True} if entry.get("yanked") else {}))
        pages[project] = kept
    return {**recording, "user_agent": agent, "pages": pages}


def _version(filename: str) -> Version | None:
    """Return the version of a wheel or a source distribution."""
    try:
        if filename.endswith(".whl"):
            return parse_wheel_filename(filename)[1]
        return parse_sdist_filename(filename)[1]
    except (InvalidWheelFilename, InvalidSdistFilename):
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where to write the recordings")
    names = [case.name for case in CASES]
    parser.add_argument("--only", action="append", choices=names, metavar="NAME", help="one run")
    parser.add_argument("--trim", action="store_true", help="leave out what no predictor reads")
    options = parser.parse_args()
    exit_on_sigterm()
    captures = Captures(default_folder(), LARGEST)
    options.folder.mkdir(parents=True, exist_ok=True)
    for case in CASES:
        if not options.only or case.name in options.only:
            try:
                made = record(case, captures)
                _save(options.folder / f"{case.name}.json.gz", trim(made) if options.trim else made)
            except BenchmarkError as error:
                print(f"{case.name}: {error}", file=sys.stderr, flush=True)


def _save(path: Path, recording: Mapping[str, Any]) -> None:
    data = gzip.compress(json.dumps(recording, separators=(",", ":")).encode(), 9, mtime=0)
    path.write_bytes(data)
    counts = {"requests": len(recording["requests"])}
    counts |= {key: len(recording[key]) for key in ("pages", "metadata")}
    print(path.name, counts, f"{len(data) / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
