"""nginx as a response cache and as a server of static files, for comparison.

It has one process and an access log, as proxpi has. It verifies no hash, merges no pages and
compresses nothing: it stores and sends what the index has compressed.
"""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
from pathlib import Path
from string import Template

from programs import Program
from results import NGINX

_COMMON = """
daemon off;
worker_processes 1;
pid $folder/nginx.pid;
error_log stderr;
$user
events {}
http {
    access_log $folder/access.log;
    client_body_temp_path $folder/temporary;
    proxy_temp_path $folder/temporary;
    fastcgi_temp_path $folder/temporary;
    uwsgi_temp_path $folder/temporary;
    scgi_temp_path $folder/temporary;
    sendfile on;
    $server
}
"""

# A cache as nginx's documentation describes it: one upstream request at a time for each page,
# persistent connections to the index.
_CACHE = """
    proxy_cache_path $folder/pages levels=1:2 keys_zone=pages:16m max_size=5g inactive=1d
                     use_temp_path=off;
    upstream index { server $index_host; keepalive 32; }
    server {
        listen 127.0.0.1:$port;
        location = /health { return 200 well; }
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header Host $index_host;
        proxy_cache pages;
        proxy_cache_key "$$uri $$http_accept $$http_accept_encoding";
        proxy_cache_valid 200 30m;
        proxy_cache_lock on;
        proxy_cache_lock_age 600s;
        proxy_cache_lock_timeout 600s;
        proxy_cache_revalidate on;
        proxy_cache_use_stale error timeout invalid_header updating http_502 http_503;
        location /index/ {
            proxy_pass http://index$index_path;
        }
        location /files/ {
            proxy_pass http://index;
            proxy_cache_key "$$uri";
        }
    }
"""

_STATIC = """
    default_type application/octet-stream;
    types { application/vnd.pypi.simple.v1+json json; }
    server {
        listen 127.0.0.1:$port;
        root $root;
        index page.json;
        location = /health { return 200 well; }
    }
"""


def nginx() -> Program | None:
    """Return nginx as a response cache, if it is installed."""
    return _program(_CACHE)


def static(root: Path) -> Program | None:
    """Return nginx as a server of the files in a folder, if it is installed.

    The page of a project is the ``page.json`` in the project's folder.
    """
    return _program(_STATIC.replace("$root", str(root)))


def _program(server: str) -> Program | None:
    # Debian installs it to /usr/sbin, which is on the PATH of root only.
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if found is None:
        return None
    # By default, workers of a root process switch to a user who may not read the folder.
    user = f"user {getpass.getuser()};" if os.getuid() == 0 else ""
    text = _COMMON.replace("$user", user).replace("$server", server)
    command = (found, "-p", "{folder}", "-c", "{folder}/nginx.conf")
    return Program(NGINX, Path(found), command, Template(text))


def version(program: Program) -> str:
    done = subprocess.run([program.command[0], "-v"], capture_output=True, text=True, check=True)
    return done.stderr.strip().rpartition("/")[2]
