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
    """The probes succeed; a file of the original is used, and another one cached beside it."""
    [deployment] = (
        each for each in yaml.safe_load_all(_SNIPPET.read_text()) if each["kind"] == "Deployment"
    )
    pod = deployment["spec"]["template"]["spec"]
    [container] = pod["containers"]
    rights, volume = pod["securityContext"], tmp_path / "volume"
    own = container["securityContext"]
    options = [f"--user={rights['runAsUser']}:{rights['runAsGroup']}", "--network=host"]
    options += [f"--group-add={rights['fsGroup']}", f"--read-only={own['readOnlyRootFilesystem']}"]
    options += [f"--cap-drop={each}" for each in own["capabilities"]["drop"]]
    options += ["--read-only-tmpfs=false", "--security-opt=no-new-privileges"]
    options += [f"--volume={volume}:{container['volumeMounts'][0]['mountPath']}"]
    options += [f"--env={each['name']}={each['value']}" for each in container["env"]]
    with FakeIndex() as index:
        old, new = make_wheel("demo", "1.0"), make_wheel("demo", "2.0")
        kept = volume / "127-0-0-1" / index.add(old).lstrip("/")
        index.add(new)
        kept.parent.mkdir(parents=True)
        kept.write_bytes(old.data)
        # What fsGroup does to a volume, whose files belong to root.
        for path in (volume, *volume.rglob("*")):
            os.chown(path, 0, rights["fsGroup"])
            path.chmod(0o2775 if path.is_dir() else 0o664)
        options += [f"--env=PROXPI_INDEX_URL={index.url}"]
        listen = "--listen=tcp:0:interface=127.0.0.1"
        with run_container(image(), listen, options=options) as started:
            origin = started.wait_for_line(r"listening on (http://[^/]+)/").group(1)
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                assert request(origin, "GET", container[probe]["httpGet"]["path"]).status == 200
            for wheel, outcome in ((old, "HIT"), (new, "MISS"), (new, "HIT")):
                reply = request(origin, "GET", f"/index/demo/{wheel.filename}")
                assert (reply.body, reply.headers["x-cache"]) == (wheel.data, outcome)
            assert "#warn" not in started.output
            assert started.stop() == 0
        assert old.filename not in str(index.files_asked())
    assert kept.with_name(new.filename).stat().st_uid == rights["runAsUser"]
