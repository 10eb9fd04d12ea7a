"""The start of the image as root: what it does before it changes the user, and after a crash."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from tests.support.certificates import make_certificate
from tests.support.containers import Container, image, run_container

CACHE = "/var/cache/proxpi"


def test_as_root(tmp_path: Path) -> None:
    """
    With the three capabilities that it needs, the image changes the owner of the cache folder,
    reads secrets, binds a socket in a folder of root's, and then has neither capabilities nor
    groups of root. It starts again after a crash that left its socket. All log
    lines are JSON, as set.
    """
    cache, secrets, sockets = (tmp_path / name for name in ("cache", "secrets", "sockets"))
    for each in (cache / "files-example/a", cache / "other", secrets, sockets):
        each.mkdir(parents=True)
    (cache / "files-example/a/b.whl").write_text("b")
    make_certificate(secrets, "tls")
    (secrets / "token").write_text("a token for tests".replace(" ", "-"))
    for path in secrets.iterdir():
        path.chmod(0o400)
    options = ["--network=none", "--read-only", "--read-only-tmpfs=false", "--cap-drop=ALL"]
    options += [f"--cap-add={name}" for name in ("CHOWN", "SETUID", "SETGID")]
    options += ["--security-opt=no-new-privileges", f"--tmpfs={CACHE}/other:mode=755"]
    options += [f"--volume={cache}:{CACHE}", f"--volume={secrets}:/run/secrets:ro"]
    options += [f"--volume={sockets}:/run/sockets", "--env=PROXPI_LOG_FORMAT=json"]
    options += ["--env=PROXPI_ADMIN_TOKEN_FILE=/run/secrets/token"]
    tls = "ssl:5443:privateKey=/run/secrets/tls.pem:certKey=/run/secrets/tls.pem"
    arguments = [f"--listen={tls}", "--listen=unix:/run/sockets/http", "--bind", "0.0.0.0:5000"]
    with run_container(image(), *arguments, options=options) as crashed:
        crashed.wait_healthy()
        status = crashed.exec("cat", "/proc/1/status")
        for line in ("Uid:\t1000\t1000\t1000\t1000", "Groups:\t1000", "CapEff:\t0000000000000000"):
            assert line in status
        assert {path.stat().st_uid for path in cache.rglob("*") if path != cache / "other"} == {
            1000
        }
        assert cache.stat().st_uid == 1000
        assert crashed.exec("stat", "--format=%u", f"{CACHE}/other") == "0", "another volume"
        assert "now belong to the user 1000" in " ".join(messages(crashed))
        crashed.stop(signal.SIGKILL)
    assert (sockets / "http").is_socket()
    with run_container(image(), *arguments, options=options) as restarted:
        restarted.wait_healthy()
        assert "now belong" not in " ".join(messages(restarted))
        assert restarted.stop() == 0


def messages(container: Container) -> list[str]:
    return [json.loads(line)["message"] for line in container.logs().splitlines()]
