# docker build: packages come from proxpi behind a password, which neither layers nor history contain.
#   docker build --network=host --secret id=pip.conf,src=pip.conf --secret id=uv.toml,src=uv.toml \
#     --file docs/ci/build/secret.Dockerfile docs/ci/build
# Where it goes: your Dockerfile, the --mount options
# Replace: the packages
FROM python:3.13-slim

RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf pip install uv
RUN --mount=type=secret,id=uv.toml,target=/etc/uv/uv.toml uv pip install --system requests
