"""The admin token of a real process: from a file, for programs and logins, seen nowhere."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from tests.support.distributions import make_wheel
from tests.support.fake_index import FakeIndex
from tests.support.processes import StartProxy

TOKEN = "s3cr3t/t&ken+%"
FORM = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "text/html"}


def test_token(fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path) -> None:
    """The token lets in, its login ends with the process, and no line, page or metric has it."""
    fake_index.add(make_wheel("demo"))
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    settings = {"admin_token_file": file, "cache_dir": tmp_path / "cache"}
    proxy = start_proxy(fake_index, **settings, logging_level="DEBUG")
    assert proxy.get("/index/demo/").status == 200
    replies = [proxy.request("DELETE", "/cache/demo")]
    wrong = {"Authorization": f"Bearer {TOKEN}x"}
    replies.append(proxy.request("DELETE", "/cache/demo", wrong))
    assert [reply.status for reply in replies] == [401, 401]
    assert proxy.get("/index/demo/").headers["x-cache"] == "HIT"
    right = {"Authorization": f"Bearer {TOKEN}"}
    assert proxy.request("DELETE", "/cache/demo", right).status == 200
    assert proxy.get("/index/demo/").headers["x-cache"] != "HIT"
    body = f"token={quote(TOKEN, safe='')}".encode()
    replies.append(proxy.request("POST", "/admin/login", FORM, body))
    cookie = replies[-1].headers["set-cookie"].partition(";")[0]
    replies += [proxy.get(path) for path in ("/", "/stats", "/metrics", "/admin/login")]
    form = "POST", "/admin/forget-project", FORM | {"Cookie": cookie}, b"project=demo"
    forget = proxy.request(*form)
    assert forget.status == 303
    replies.append(proxy.get(forget.headers["location"].removeprefix("..")))
    assert "demo is forgotten." in replies[-1].text
    proxy.stop()
    again = start_proxy(fake_index, **settings)
    replies.append(again.request(*form))
    assert replies[-1].status == 401
    again.stop()
    assert "wrong admin token from 127.0.0.1; tries of this address are slowed" in proxy.output
    shown = [reply.text + str(reply.headers) for reply in replies] + [proxy.output, again.output]
    assert not any(TOKEN in text or quote(TOKEN, safe="") in text for text in shown)
