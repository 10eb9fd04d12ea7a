"""The logging level, in the real program."""

from __future__ import annotations

from pathlib import Path

from tests.support.proxy import Proxy


def test_what_is_below_the_level_is_left_out(tmp_path: Path) -> None:
    """With ``warning`` the log warns of the checks that are off, and says nothing else."""
    settings = {"PROXPI_DISABLE_INDEX_SSL_VERIFICATION": "on"}
    with Proxy(settings, ["--logging-level=warning"], folder=tmp_path, listens=False) as proxy:
        proxy.wait_for_line(r"#(warn|error|critical)\]")
        proxy.stop()
        assert "#info]" not in proxy.output
        assert "Traceback" not in proxy.output
