"""Well-known applications whose dependencies are the real trees of the benchmark."""

from __future__ import annotations

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
