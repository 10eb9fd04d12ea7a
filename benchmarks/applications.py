"""Well-known applications, whose dependencies are the real trees, and clients that install them."""

from __future__ import annotations

import json

import attrs
from captures import Captures
from environments import interpreter_environment
from installers import COMPILE, LOCK, PIP, UV, YEAR_AGO, Installer, pinned

#: Requirements by name of the application.
APPLICATIONS: dict[str, list[str]] = {
    # A stack of web frameworks.
    "web": [
        "django",
        "djangorestframework",
        "django-filter",
        "celery[redis]",
        "fastapi[standard]",
        "sqlalchemy",
        "alembic",
        "psycopg[binary]",
        "gunicorn",
        "sentry-sdk",
    ],
    # A notebook server.
    "notebook": ["jupyterlab", "notebook", "ipywidgets", "nbconvert"],
    # A workflow engine with several hundred packages.
    "workflow": [
        "apache-airflow",
        "apache-airflow-providers-amazon",
        "apache-airflow-providers-celery",
        "apache-airflow-providers-cncf-kubernetes",
        "apache-airflow-providers-databricks",
        "apache-airflow-providers-docker",
        "apache-airflow-providers-elasticsearch",
        "apache-airflow-providers-ftp",
        "apache-airflow-providers-google",
        "apache-airflow-providers-http",
        "apache-airflow-providers-microsoft-azure",
        "apache-airflow-providers-openlineage",
        "apache-airflow-providers-postgres",
        "apache-airflow-providers-sftp",
        "apache-airflow-providers-slack",
        "apache-airflow-providers-snowflake",
        "apache-airflow-providers-ssh",
        "apache-airflow-providers-standard",
    ],
    # A stack for scientific computing.
    "science": [
        "scipy",
        "pandas",
        "scikit-learn",
        "statsmodels",
        "matplotlib",
        "seaborn",
        "xarray",
        "dask[complete]",
        "numba",
        "sympy",
        "networkx",
    ],
    # SDKs of clouds.
    "cloud": [
        "boto3",
        "google-cloud-storage",
        "google-cloud-bigquery",
        "google-cloud-pubsub",
        "azure-identity",
        "azure-storage-blob",
        "azure-keyvault-secrets",
        "kubernetes",
    ],
    # A machine-learning library with wheels for platforms.
    "learning": ["transformers[torch]", "datasets", "evaluate", "sentencepiece"],
    # A toolchain for tests.
    "testing": [
        "pytest",
        "pytest-cov",
        "pytest-xdist",
        "pytest-asyncio",
        "hypothesis",
        "tox",
        "nox",
        "mypy",
        "ruff",
        "black",
        "pre-commit",
        "sphinx",
        "twine",
        "build",
    ],
    # Heavy backtracking: s3fs pins botocore through aiobotocore to releases older than boto3's.
    "backtracking": ["boto3", "s3fs", "awscli"],
}

#: The platform of uv's option, and what a client there states instead of Linux.
_MACOS = "aarch64-apple-darwin"
_STATEMENT = {
    "distro": {"name": "macOS", "version": "13.0", "id": None, "libc": None},
    "system": {"name": "Darwin", "release": "22.1.0"},
    "cpu": "arm64",
}


@attrs.frozen
class Case:
    """A client that installs or resolves an application.

    :ivar python: version of the client's Python
    :ivar pinned: whether the releases of a year before are required
    :ivar constrained: whether the releases that uv finds are required: pip would take very long
    :ivar macos: whether uv resolves for macOS on arm64, while it runs here
    :ivar old: whether uv resolves as of a year before
    :ivar pip: the version of pip; by default the newest
    """

    application: str
    kind: str
    python: str = "3.13"
    pinned: bool = False
    constrained: bool = False
    macos: bool = False
    old: bool = False
    pip: str = ""

    @property
    def name(self) -> str:
        more = [word for word in ("pinned", "constrained", "macos", "old") if getattr(self, word)]
        return "-".join([self.application, self.kind + self.pip, self.python, *more])

    @property
    def installs(self) -> bool:
        """Whether the client installs, rather than resolves alone."""
        return self.kind in (PIP, UV)

    def installer(self) -> Installer:
        options = ["--python-platform", _MACOS] if self.macos else []
        options += YEAR_AGO if self.old else ()
        folder = interpreter_environment(self.python, self.pip)
        return Installer(self.kind, folder, tuple(options))

    def requirements(self, captures: Captures) -> list[str]:
        """Return the requirements; those of a pinned list are captured first."""
        requirements = APPLICATIONS[self.application]
        if not (self.pinned or self.constrained):
            return requirements
        options = YEAR_AGO if self.pinned else ()
        return pinned(interpreter_environment(self.python), requirements, captures, options)

    def agent(self, stated: str) -> str:
        """Return the ``User-Agent`` of the client, given what it stated here."""
        if not self.macos:
            return stated
        program, _, statement = stated.partition(" ")
        changed = json.loads(statement) | _STATEMENT
        return f"{program} {json.dumps(changed, separators=(',', ':'))}"


CASES = [
    *(
        Case(application, kind, constrained=(application, kind) == ("workflow", PIP))
        for application in APPLICATIONS
        for kind in (UV, PIP)
    ),
    *(Case(each, kind, pinned=True) for each in ("web", "science") for kind in (UV, PIP)),
    *(Case(application, LOCK) for application in ("web", "notebook", "cloud")),
    *(Case(application, COMPILE, old=True) for application in ("web", "testing")),
    *(Case(each, kind, "3.9") for each in ("web", "testing") for kind in (UV, PIP)),
    *(Case(application, UV, macos=True) for application in ("science", "learning")),
    Case("testing", UV, "3.9", macos=True),
    # It asks for no metadata, but reads that of wheels. The newest pip has captured these.
    Case("testing", PIP, "3.9", pip="22.3.1"),
]
