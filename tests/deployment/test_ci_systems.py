"""The files for CI systems are valid by the schemas of those systems."""

from __future__ import annotations

import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from check_jsonschema.cli import main
from click.testing import CliRunner
from groovy_parser.parser import parse_groovy_content

FOLDER = Path(__file__).parents[2] / "docs/ci"
#: By file, the schema with which its CI system describes it.
SCHEMAS = {
    "github-actions.yml": "github-workflows",
    "gitlab-ci.yml": "gitlab-ci",
    "azure-pipelines.yml": "azure-pipelines",
    "travis.yml": "travis",
}
DOCKERFILES = ["build/Dockerfile", "build/secret.Dockerfile"]


def check_schema(schema: str, path: Path) -> None:
    arguments = ["--verbose", "--builtin-schema", f"vendor.{schema}", str(path)]
    # In this process: to import it takes longer than what it does.
    result = CliRunner().invoke(main, arguments)
    assert not result.exit_code, result.output


@pytest.mark.parametrize("name", SCHEMAS)
def test_schema(name: str) -> None:
    """The schema of its CI system accepts each file."""
    check_schema(SCHEMAS[name], FOLDER / name)


def test_groovy() -> None:
    """The file for Jenkins is Groovy."""
    parse_groovy_content((FOLDER / "Jenkinsfile").read_text())


def test_configuration_of_a_runner() -> None:
    """The runner uses the network and the name that the commands of the page give proxpi."""
    [runner] = tomllib.loads((FOLDER / "gitlab-runner.toml").read_text())["runners"]
    page = (FOLDER.parent / "ci.rst").read_text()
    assert f"docker network create {runner['docker']['network_mode']}\n" in page
    assert f"--network {runner['docker']['network_mode']} \\\n" in page
    variables = dict(each.split("=", 1) for each in runner["environment"])
    assert f"--name {variables['PIP_TRUSTED_HOST']} proxpi\n" in page
    hosts = {urlsplit(variables[name]).netloc for name in ("PIP_INDEX_URL", "UV_DEFAULT_INDEX")}
    assert hosts == {f"{variables['PIP_TRUSTED_HOST']}:5000"}


def test_service_of_a_job() -> None:
    """A job with proxpi as its service has the variables of a runner, and that host name."""
    [runner] = tomllib.loads((FOLDER / "gitlab-runner.toml").read_text())["runners"]
    [job] = yaml.safe_load((FOLDER / "gitlab-ci.yml").read_text()).values()
    assert [f"{name}={value}" for name, value in job["variables"].items()] == runner["environment"]
    [service] = job["services"]
    assert service["alias"] == job["variables"]["PIP_TRUSTED_HOST"]


@pytest.mark.parametrize(
    "path", sorted((FOLDER.parents[1] / "docker").rglob("compose*.yaml")), ids=str
)
def test_compose_schema(path: Path) -> None:
    """Each compose file is what the specification of compose accepts."""
    check_schema("compose-spec", path)


@pytest.mark.parametrize("name", [*SCHEMAS, "Jenkinsfile", "gitlab-runner.toml", *DOCKERFILES])
def test_introduction(name: str) -> None:
    """Each file says first where it goes and what to replace."""
    text = (FOLDER / name).read_text()
    sign = "//" if name == "Jenkinsfile" else "#"
    lines = text.splitlines()
    introduction = lines[: next(i for i, line in enumerate(lines) if not line.startswith(sign))]
    assert any(line.startswith(f"{sign} Where it goes: ") for line in introduction)
    assert any(line.startswith(f"{sign} Replace: ") for line in introduction)
