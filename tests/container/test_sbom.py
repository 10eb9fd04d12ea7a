"""The bill of materials of the image, as a release has it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import defaultdict

from proxpi import __version__
from tests.support.containers import ROOT, image, podman

#: Writes a list of packages to standard error, and what the bill is made of to standard output: to
#: export all of the container takes ten times as long.
COMMANDS = r"""
dpkg-query --show --showformat='package ${Package} ${Version}\n' >&2
tar --create --directory=/ opt/proxpi usr/lib/os-release var/lib/dpkg/status
"""


def test_components() -> None:
    """The bill has all packages of the base, proxpi, and of its dependencies the locked ones."""
    command = [*podman().command, "run", "--rm", "--network=none", "--entrypoint=sh"]
    exported = subprocess.run(
        [*command, image(), "-c", COMMANDS],
        env=podman().environment,
        capture_output=True,
        check=True,
    )
    bill = [sys.executable, str(ROOT / "docker/sbom.py")]
    written = json.loads(subprocess.check_output(bill, input=exported.stdout))
    assert written["metadata"]["component"]["type"] == "container"
    found = defaultdict[str, dict[str, str]](dict)
    for component in written["components"]:
        found[component["purl"].partition("/")[0]][component["name"]] = component["version"]
    packages = re.findall(r"^package (\S+) (\S+)$", exported.stderr.decode(), re.MULTILINE)
    assert found["pkg:deb"] == dict(packages)
    lock = (ROOT / "docker/requirements.txt").read_text()
    locked = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", lock, re.MULTILINE))
    assert dict(found["pkg:pypi"].items() - locked.items()) == {"proxpi": __version__}
    assert {"twisted", "cryptography", "treq"} <= found["pkg:pypi"].keys()
