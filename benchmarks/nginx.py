"""nginx as a cache of answers, and as a server of plain files: what it is measured with.

It writes an access log, as proxpi does, and uses one process, as proxpi does unless it is told
otherwise. It checks no hash, merges nothing and compresses nothing: it passes on what the index
compressed.
"""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
from pathlib import Path
from string import Template

from programs import Program
from values import NGINX

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

# As its own documentation has it for a cache: what the index compressed is kept and sent so, one
# fetch at a time for each page, connections to the index that are kept.
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
    """Give nginx as a cache of answers, if it is here; what it caches lies in its folder."""
    return _program(_CACHE)


def static(root: Path) -> Program | None:
    """Give nginx that serves a folder as it is, if it is here; a page is its ``page.json``."""
    return _program(_STATIC.replace("$root", str(root)))


def _program(server: str) -> Program | None:
    # Where Debian has it, which is on nobody's path but the superuser's.
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if found is None:
        return None
    # Started by the superuser its worker would become another user, who may not enter here.
    user = f"user {getpass.getuser()};" if os.getuid() == 0 else ""
    text = _COMMON.replace("$user", user).replace("$server", server)
    command = (found, "-p", "{folder}", "-c", "{folder}/nginx.conf")
    return Program(NGINX, Path(found), command, Template(text))


def version(program: Program) -> str:
    """Say which nginx it is."""
    done = subprocess.run([program.command[0], "-v"], capture_output=True, text=True, check=True)
    return done.stderr.strip().rpartition("/")[2]
