"""The software bill of materials of a file system, held against the schema of CycloneDX."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

PROGRAM = Path(__file__).parent.parent.parent / "docker/sbom.py"
SITE = "opt/proxpi/lib/python3.13/site-packages"
PROXPI = """\
Metadata-Version: 2.4
Name: proxpi
Version: 2.0.0
License-Expression: MIT
Requires-Dist: Some_Library[fast]>=1.0; python_version >= '3.11'
Requires-Dist: absent; extra == 'dev'
"""
LIBRARY = """\
Metadata-Version: 2.1
Name: some.library
Version: 1.2+local
Classifier: Framework :: Twisted
Classifier: License :: OSI Approved :: Apache Software License
"""
STATUS = """\
Package: libssl3
Status: install ok installed
Architecture: amd64
Source: openssl (3.0.1)
Version: 1:3.0.1-1+deb12u1
Depends: libc6 (>= 2.34), debconf (>= 0.5) | debconf-2.0

Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9
Pre-Depends: dpkg

Package: removed
Status: deinstall ok config-files
Architecture: amd64
Version: 1
"""
RELEASE = 'ID=debian\nVERSION_ID="12"\n'
ENVIRONMENT = "home = /usr/local/bin\nversion = 3.13.1\n"

IMAGE = {
    f"{SITE}/proxpi-2.0.0.dist-info/METADATA": PROXPI,
    f"{SITE}/some_library-1.2.dist-info/METADATA": LIBRARY,
    "opt/proxpi/pyvenv.cfg": ENVIRONMENT,
    "usr/lib/os-release": RELEASE,
    "var/lib/dpkg/status": STATUS,
}
LIBC = "pkg:deb/debian/libc6@2.36-9?arch=amd64&distro=debian-12&upstream=libc6"
SSL = "pkg:deb/debian/libssl3@1%3A3.0.1-1%2Bdeb12u1?arch=amd64&distro=debian-12&upstream=openssl"


def tar(files: dict[str, str]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return made.getvalue()


def run(file_system: bytes) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, str(PROGRAM)]
    return subprocess.run(command, input=file_system, capture_output=True, check=False)


def bill(files: dict[str, str]) -> dict[str, Any]:
    """Return the bill of materials of some files; it is valid."""
    ended = run(tar(files))
    assert ended.returncode == 0, ended.stderr
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(ended.stdout.decode()) is None
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def edges(found: dict[str, Any]) -> dict[str, list[str]]:
    return {each["ref"]: each["dependsOn"] for each in found["dependencies"]}


def test_image() -> None:
    """The bill of an image has its Python, its distributions and its packages, with their edges."""
    found = bill(IMAGE)
    whole = {"type": "container", "bom-ref": "proxpi", "name": "proxpi", "version": "2.0.0"}
    assert found["metadata"]["component"] == whole
    assert edges(found) == {
        "proxpi": [SSL, "pkg:generic/python@3.13.1", "pkg:pypi/proxpi@2.0.0"],
        "pkg:generic/python@3.13.1": [],
        "pkg:pypi/proxpi@2.0.0": ["pkg:pypi/some-library@1.2%2Blocal"],
        "pkg:pypi/some-library@1.2%2Blocal": [],
        SSL: [LIBC],
        LIBC: [],
    }
    assert {each["purl"] for each in found["components"]} == edges(found).keys() - {"proxpi"}


def test_licenses() -> None:
    """A distribution's license is its expression, or that of its classifiers."""
    licenses = {each["name"]: each.get("licenses") for each in bill(IMAGE)["components"]}
    assert licenses["proxpi"] == [{"expression": "MIT"}]
    assert licenses["some-library"] == [{"license": {"name": "Apache Software License"}}]


def test_environment() -> None:
    """The bill of an environment has its distributions alone, wherever its Python is from."""
    files = {
        "./lib/python3.13/site-packages/proxpi-2.0.0.dist-info/METADATA": PROXPI,
        "./pyvenv.cfg": "home = /usr/bin\nversion_info = 3.13.1\n",
    }
    found = bill(files)
    assert found["metadata"]["component"]["type"] == "application"
    assert edges(found) == {"proxpi": ["pkg:pypi/proxpi@2.0.0"], "pkg:pypi/proxpi@2.0.0": []}


def test_without_proxpi() -> None:
    """Another file system is refused in a line."""
    ended = run(tar({"var/lib/dpkg/status": STATUS, "usr/lib/os-release": RELEASE}))
    assert ended.returncode == 1
    assert ended.stderr == b"sbom: the file system on standard input has no installed proxpi\n"
    assert ended.stdout == b""
