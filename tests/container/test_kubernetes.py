"""The pod of docs/ci/kubernetes.yaml, with its rights and settings, as a container of podman."""

from __future__ import annotations

import os
from pathlib import Path

import yaml

from tests.support.containers import image, run_container
from tests.support.distributions import make_wheel
from tests.support.fake_index import FakeIndex
from tests.support.proxy import request

_SNIPPET = Path(__file__).parents[2] / "docs/ci/kubernetes.yaml"


def test_pod(tmp_path: Path) -> None:
    """The probes succeed; a file is streamed and cached in a volume that the group may write."""
    [deployment] = (
        each for each in yaml.safe_load_all(_SNIPPET.read_text()) if each["kind"] == "Deployment"
    )
    pod = deployment["spec"]["template"]["spec"]
    [container] = pod["containers"]
    rights, volume = pod["securityContext"], tmp_path / "volume"
    volume.mkdir()
    # What fsGroup does to a volume, which belongs to root.
    os.chown(volume, 0, rights["fsGroup"])
    volume.chmod(0o2775)
    own = container["securityContext"]
    options = [f"--user={rights['runAsUser']}:{rights['runAsGroup']}", "--network=host"]
    options += [f"--group-add={rights['fsGroup']}", f"--read-only={own['readOnlyRootFilesystem']}"]
    options += [f"--cap-drop={each}" for each in own["capabilities"]["drop"]]
    options += ["--read-only-tmpfs=false", "--security-opt=no-new-privileges"]
    options += [f"--volume={volume}:{container['volumeMounts'][0]['mountPath']}"]
    options += [f"--env={each['name']}={each['value']}" for each in container["env"]]
    with FakeIndex() as index:
        wheel = make_wheel("demo")
        index.add(wheel)
        options += [f"--env=PROXPI_INDEX_URL={index.url}"]
        listen = "--listen=tcp:0:interface=127.0.0.1"
        with run_container(image(), listen, options=options) as started:
            origin = started.wait_for_line(r"listening on (http://[^/]+)/").group(1)
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                assert request(origin, "GET", container[probe]["httpGet"]["path"]).status == 200
            path = f"/index/demo/{wheel.filename}"
            assert request(origin, "GET", path).body == wheel.data
            assert request(origin, "GET", path).headers["x-cache"] == "HIT"
            assert "#warn" not in started.output
            assert started.stop() == 0
    [cached] = volume.rglob(wheel.filename)
    assert cached.stat().st_uid == rights["runAsUser"]
