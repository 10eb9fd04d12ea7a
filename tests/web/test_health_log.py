"""Health checks in the access log."""

from __future__ import annotations

from tests.support.cases import ProxpiCase
from tests.support.logs import logged


class HealthLog(ProxpiCase):
    """What is logged of requests for ``/health``."""

    def test_checks(self) -> None:
        """Successful checks, however written, are logged at DEBUG alone."""
        with logged("proxpi.access") as log:
            for path in ("/health", "/health/", "//health", "/health?x", "http://h.example/health"):
                for method in ("GET", "HEAD"):
                    for _ in range(2):
                        assert self.ask(method, path).status == 200
        assert self.access_log == []
        assert log.levels == ["debug"] * 20
        assert "GET /health 200" in log.lines[0]

    def test_others(self) -> None:
        """Whatever else is asked, or refused, is a line as ever."""
        for method, path in [
            ("POST", "/health"),
            ("OPTIONS", "/health"),
            ("GET", "/healthy"),
            ("GET", "/index/health/"),
            ("GET", "/metrics"),
        ]:
            self.ask(method, path)
            assert f"{method} {path} " in self.access_log[-1]
