"""The figures of jobs in CI are computed right, and their document takes them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from xml.etree import ElementTree

import captures
import pytest
from captures import Captures
from command import replace_figures
from docutils.core import publish_doctree
from plot import svg
from results import DIRECT, WARM_SIDECAR, Values
from savings import CLIENTS, DOCUMENT, FIGURE, LINKS, STATES, figures, key, parser, rows, tables

WHEEL, FILENAME = b"the wheel", "small-1.0-py3-none-any.whl"


def measured() -> Values:
    """Two rounds: the job takes 20 and 40 s without a proxy, with a warm sidecar a tenth."""
    values = Values()
    for number, slow in enumerate((1, 2)):
        values.round = number
        for client in CLIENTS:
            for link in LINKS:
                for state in STATES:
                    seconds = 2 if state == WARM_SIDECAR else 20
                    values.note(key("seconds", client, link), state, slow * seconds)
                    values.note(key("requests", client, link), state, 300)
                    values.note(key("upstream", client, link), state, 60)
    return values


def test_ratios_compare_jobs_of_one_round() -> None:
    """A round in which the machine is twice as slow changes no ratio; what is missing is a dash."""
    jobs, requests, archives, costs = (table for _, table in tables(measured()))
    assert jobs[0] == ["", "pip, 50 ms", "pip, 10 ms", "uv, 50 ms", "uv, 10 ms"]
    [warm] = [row for row in jobs if row[0] == WARM_SIDECAR]
    assert warm[1:] == ["3 s: 0.1"] * 4
    assert requests[1] == [DIRECT, "300, 60 MB", "300, 60 MB"]
    assert {cell for row in archives[1:] + costs[1:] for cell in row[1:]} == {"–"}


def test_the_plot_shows_how_much_faster_a_job_is() -> None:
    """A job in a tenth of the time has the factor 10; each state has its own colour."""
    found = rows(measured())
    assert [row.times[WARM_SIDECAR] for row in found] == [pytest.approx(10)] * 4
    image = svg(found, FIGURE)
    assert ElementTree.fromstring(image) is not None
    assert all(f".{state.replace(' ', '-')} {{" in image for state in STATES[1:])


def test_the_document_is_valid_with_new_figures() -> None:
    """The document has the marks, and docutils accepts it with other figures."""
    document = replace_figures(DOCUMENT.read_text(), figures("cores 2", measured()))
    publish_doctree(document, settings_overrides={"halt_level": 2})
    assert "3 s: 0.1" in document


def test_the_document_names_the_command() -> None:
    """The command of the document is executable, and has its options."""
    command = Path(__file__).parents[2] / "benchmarks/savings"
    assert command.stat().st_mode & 0o111
    assert "benchmarks/savings --docs" in DOCUMENT.read_text()
    assert parser().parse_args(["--docs", "--rounds", "5"]).rounds == 5


def test_captured_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Captured files have the digest and the bytes of the index, and are fetched once."""
    digests = {"sha256": hashlib.sha256(WHEEL).hexdigest()}
    listed = {"filename": FILENAME, "url": "https://index.example/small", "hashes": digests}
    upstream = {
        "small/": json.dumps({"files": [{**listed, "size": len(WHEEL)}]}).encode(),
        "small": WHEEL,
        "small.metadata": b"Name: small\n",
    }
    fetched = []

    def get(url: str, _headers: object) -> bytes:
        fetched.append(url)
        return upstream[url.rpartition("/small")[1][1:] + url.rpartition("/small")[2]]

    monkeypatch.setattr(captures, "_get", get)
    for _ in range(2):
        found = Captures(tmp_path, files=True)
        assert found.metadata("small", FILENAME) == b"Name: small\n"
        [entry] = found.page("small")
        assert (entry["hashes"], entry["size"]) == (digests, len(WHEEL))
        made = found.file("small", FILENAME)
        assert made is not None
        assert b"".join(made.read(0, made.size)) == WHEEL
    assert len(fetched) == 3
