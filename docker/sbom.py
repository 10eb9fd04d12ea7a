"""Writes the software bill of materials of a file system that has proxpi, in CycloneDX's JSON.

An image has packages of its Linux distribution beside those of its Python; tools for one kind list
none of the other. This program reads the file system as tar from standard input, needs nothing but
Python, and writes to standard output::

    docker export CONTAINER | python3 docker/sbom.py

A component depends on all that it may depend on: conditions on platforms and extras are ignored.
"""

from __future__ import annotations

import json
import re
import sys
import tarfile
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email import message_from_bytes, message_from_string
from email.message import Message
from typing import IO, Any
from urllib.parse import quote

_DISTRIBUTION = re.compile(r"(?:.*/)?[^/]+\.dist-info/METADATA")
_ENVIRONMENT = re.compile(r"(?:.*/)?pyvenv\.cfg")
_RELEASE = re.compile(r"(?:\./)?usr/lib/os-release")
_STATUS = re.compile(r"(?:\./)?var/lib/dpkg/status")
#: Where the official images have a Python that is no package of the Linux distribution.
_OWN_PYTHON = "/usr/local/bin"

Component = dict[str, Any]


def _component(name: str, version: str, purl: str, kind: str = "library") -> Component:
    return {"type": kind, "bom-ref": purl, "name": name, "version": version, "purl": purl}


def _assignments(text: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in text.splitlines())
    return {key.strip(): value.strip(' "') for key, _, value in pairs}


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _distribution(metadata: Message) -> tuple[Component, list[str]]:
    """Return a distribution of Python, and the names of those that it requires."""
    name, version = _normalized(metadata["Name"]), metadata["Version"]
    component = _component(name, version, f"pkg:pypi/{name}@{quote(version)}")
    licenses = [
        {"license": {"name": text.rpartition(" :: ")[2]}}
        for text in metadata.get_all("Classifier", [])
        if text.startswith("License ::")
    ]
    if expression := metadata["License-Expression"]:
        component["licenses"] = [{"expression": expression}]
    elif licenses:
        component["licenses"] = licenses
    required = metadata.get_all("Requires-Dist", [])
    return component, [_normalized(re.split(r"[^\w.-]", text)[0]) for text in required]


def _packages(status: str, release: Mapping[str, str]) -> Iterator[tuple[Component, list[str]]]:
    """Return the installed packages in dpkg's status, each with the names that it depends on."""
    vendor = release["ID"]
    for paragraph in status.split("\n\n"):
        fields = message_from_string(paragraph.strip())
        if fields["Status"] != "install ok installed":
            continue
        name, version = fields["Package"], fields["Version"]
        source = fields.get("Source", name).split()[0]
        purl = f"pkg:deb/{vendor}/{quote(name)}@{quote(version)}?arch={fields['Architecture']}"
        purl += f"&distro={vendor}-{release['VERSION_ID']}&upstream={quote(source)}"
        depends = f"{fields.get('Pre-Depends', '')},{fields.get('Depends', '')}"
        names = re.findall(r"[,|]\s*([a-z0-9][a-z0-9+.-]+)", f",{depends}")
        yield _component(name, version, purl), names


def _with_edges(
    found: list[tuple[Component, list[str]]],
) -> tuple[dict[str, Component], dict[str, list[str]]]:
    """Return components, and those that each may depend on, by reference."""
    references = defaultdict[str, set[str]](set)
    for component, _ in found:
        references[component["name"]].add(component["bom-ref"])
    edges = {
        component["bom-ref"]: sorted(set[str]().union(*(references[name] for name in names)))
        for component, names in found
    }
    components = {component["bom-ref"]: component for component, _ in found}
    return components, edges


def bill(file_system: IO[bytes]) -> dict[str, Any]:
    """Return the bill of materials of a file system: an image's, or an environment's.

    :param file_system: as tar, compressed or not
    :raises ValueError: with a sentence, if it has no proxpi
    """
    status, release, distributions = "", dict[str, str](), []
    pythons: set[str] = set()
    with tarfile.open(fileobj=file_system, mode="r|*") as members:
        for member in members:
            opened = members.extractfile(member) if member.isfile() else None
            if opened is None:
                continue
            if _DISTRIBUTION.fullmatch(member.name):
                distributions.append(_distribution(message_from_bytes(opened.read())))
            elif _ENVIRONMENT.fullmatch(member.name):
                environment = _assignments(opened.read().decode())
                if environment["home"] == _OWN_PYTHON:
                    pythons.add(environment.get("version") or environment["version_info"])
            elif _RELEASE.fullmatch(member.name):
                release = _assignments(opened.read().decode())
            elif _STATUS.fullmatch(member.name):
                status = opened.read().decode()
    versions = [part["version"] for part, _ in distributions if part["name"] == "proxpi"]
    if not versions:
        raise ValueError("the file system on standard input has no installed proxpi")
    components, edges = _with_edges(distributions)
    if status:
        more, more_edges = _with_edges([*_packages(status, release)])
        components |= more
        edges |= more_edges
    for version in pythons:
        python = _component("python", version, f"pkg:generic/python@{version}", "platform")
        components[python["bom-ref"]] = python
        edges[python["bom-ref"]] = []
    whole: Component = {"type": "container" if status else "application", "bom-ref": "proxpi"}
    whole |= {"name": "proxpi", "version": versions[0]}
    required = set[str]().union(*edges.values())
    edges["proxpi"] = sorted(components.keys() - required)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": uuid.uuid4().urn,
        "version": 1,
        "metadata": {
            "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
            "component": whole,
        },
        "components": [components[reference] for reference in sorted(components)],
        "dependencies": [{"ref": key, "dependsOn": edges[key]} for key in sorted(edges)],
    }


if __name__ == "__main__":
    try:
        json.dump(bill(sys.stdin.buffer), sys.stdout, indent=1)
    except ValueError as error:
        sys.exit(f"sbom: {error}")
