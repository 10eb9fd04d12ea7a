"""What the service reads before it starts: certificates and netrc."""

from __future__ import annotations

import os
from functools import partial

from tests.test_tap import TapCase


class ReadAtTheStart(TapCase):
    """Files that belong to the way out."""

    def test_certificates(self) -> None:
        """Certificates that cannot be used end the start before it is one."""
        missing = str(self.folder / "missing.pem")
        for option in ("ca-bundle", "client-cert"):
            text = self.refusal(partial(self.make, f"--{option}={missing}"))
            variable = f"PROXPI_{option.replace('-', '_').upper()}"
            given = f"proxpi: {variable}={missing!r}"
            assert text.startswith(f"{given} (--{option}): cannot be read")
            assert text.endswith("is accepted")
            os.environ[variable] = missing
            assert self.refusal(self.make).startswith(f"{given}: cannot be read")
            del os.environ[variable]

    def test_forward_proxy(self) -> None:
        """A proxy that cannot be used ends the start as a setting does, its password hidden."""
        os.environ["all_proxy"] = "socks5://user:secret@proxy.example:1080"
        assert self.refusal(self.make) == (
            "proxpi: all_proxy='socks5://***@proxy.example:1080': socks5 proxies are not "
            "supported; an http or https URL with a host is accepted"
        )

    def test_broken_netrc(self) -> None:
        """That a netrc is of no use is said, and nothing of what is in it."""
        path = self.folder / "logins"
        path.write_text("machine index.example login a hidden")
        os.environ["NETRC"] = str(path)
        log = self.announced()
        assert "warn" in log.levels
        assert str(path) in log.text
        assert "hidden" not in log.text
