"""docs/ci/kubernetes.yaml is valid, its parts fit together, and its pod has least privileges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from proxpi.settings import Settings

_SNIPPET = Path(__file__).parents[2] / "docs/ci/kubernetes.yaml"
_OBJECTS: dict[str, Any] = {each["kind"]: each for each in yaml.safe_load_all(_SNIPPET.read_text())}
_POD = _OBJECTS["Deployment"]["spec"]["template"]
[_CONTAINER] = _POD["spec"]["containers"]


@pytest.mark.parametrize("version", ["1.29", "1.37"])
@pytest.mark.parametrize("kind", _OBJECTS)
def test_schema(kind: str, version: str) -> None:
    """Each object has the fields of its kind, and no other, in older and newer clusters."""
    kubernetes_validate.validate(_OBJECTS[kind], version, strict=True)


def test_parts_fit_together() -> None:
    """Service, policy and deployment select the pod; ports and volume have the same names."""
    labels = _POD["metadata"]["labels"].items()
    selectors = [
        _OBJECTS["Deployment"]["spec"]["selector"]["matchLabels"],
        _OBJECTS["Service"]["spec"]["selector"],
        _OBJECTS["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    ]
    for selector in selectors:
        assert selector and selector.items() <= labels
    [port] = _CONTAINER["ports"]
    [service] = _OBJECTS["Service"]["spec"]["ports"]
    [ingress] = _OBJECTS["NetworkPolicy"]["spec"]["ingress"]
    probes = [
        _CONTAINER[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")
    ]
    names = [service["targetPort"], ingress["ports"][0]["port"], *(each["port"] for each in probes)]
    assert {*names} == {port["name"]}
    assert [each["path"] for each in probes] == ["/health", "/health", "/ready"]
    [volume], [mount] = _POD["spec"]["volumes"], _CONTAINER["volumeMounts"]
    assert volume["name"] == mount["name"]
    claim = volume["persistentVolumeClaim"]["claimName"]
    assert claim == _OBJECTS["PersistentVolumeClaim"]["metadata"]["name"]


def test_settings() -> None:
    """The variables are settings, files fit into the volume, and jobs are not redirected."""
    environment = {each["name"]: each["value"] for each in _CONTAINER["env"]}
    settings = Settings.read(environment, {})
    assert settings.warnings == ()
    assert settings.slow_download == "stream"
    storage = _OBJECTS["PersistentVolumeClaim"]["spec"]["resources"]["requests"]["storage"]
    assert settings.cache_size < Settings.read({"PROXPI_CACHE_SIZE": f"{storage}B"}, {}).cache_size
    assert settings.drain_timeout + 1 < _POD["spec"].get("terminationGracePeriodSeconds", 30)


def test_rights() -> None:
    """The pod satisfies the restricted Pod Security Standard, and cannot write to its image."""
    pod, container = _POD["spec"]["securityContext"], _CONTAINER["securityContext"]
    assert pod["runAsNonRoot"] is True and pod["runAsUser"] == pod["fsGroup"] == 1000
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert _POD["spec"]["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & _POD["spec"].keys()
