"""The candidate of a project that a resolver will choose, as pip and uv choose it."""

from __future__ import annotations

from typing import Any

import attrs
from hypothesis import given
from hypothesis import strategies as st

from proxpi.prefetch.candidates import (
    Candidate,
    Constraints,
    describe,
    predict,
    remains,
    version_of,
)
from proxpi.prefetch.client import UNKNOWN, Client, platforms_of, wheel_tags
from proxpi.simple import model

CLIENT = Client(
    installer="pip",
    version=(26, 3),
    environment={"python_version": "3.11", "python_full_version": "3.11.7"},
    ranks=wheel_tags("3.11", "CPython", platforms_of("manylinux_2_28_x86_64")),
)
ANY = "py3-none-any"


def file(name: str, **keys: Any) -> dict[str, Any]:
    return {"filename": name, "url": f"https://files.example/{name}", "hashes": {}, **keys}


def wheel(version: str, tags: str = ANY, **keys: Any) -> dict[str, Any]:
    return file(f"demo-{version}-{tags}.whl", **keys)


def page(*files: dict[str, Any]) -> bytes:
    return model.encode(model.Project("demo", files, {}))


def chosen(
    *files: dict[str, Any],
    specifiers: str = "",
    client: Client = CLIENT,
    cutoff: str | None = None,
) -> str | None:
    constraints = Constraints(frozenset(filter(None, [specifiers])), cutoff)
    found = predict([page(*files)], constraints, client)
    return found.filename if found is not None else None


def test_the_newest_version_is_chosen_wherever_it_stands() -> None:
    """The order of the page does not matter, and versions are not compared as text."""
    assert chosen(wheel("1.9"), wheel("1.10"), wheel("1.2")) == f"demo-1.10-{ANY}.whl"


def test_specifiers_bound_the_version() -> None:
    """The newest version that all specifiers accept is chosen."""
    assert chosen(wheel("1.0"), wheel("2.0"), specifiers="<2") == f"demo-1.0-{ANY}.whl"


def test_the_python_of_the_client_counts() -> None:
    """A version whose ``requires-python`` excludes the client is passed over."""
    files = wheel("1.0"), wheel("2.0", **{"requires-python": ">=3.12"})
    assert chosen(*files) == f"demo-1.0-{ANY}.whl"


def test_an_unreadable_requires_python_excludes_nobody() -> None:
    """pip ignores a ``requires-python`` that it cannot read."""
    assert chosen(wheel("2.0", **{"requires-python": "three"})) == f"demo-2.0-{ANY}.whl"


def test_the_best_wheel_of_the_client_is_chosen() -> None:
    """Of one version the most specific wheel is chosen, and none of another platform."""
    files = [
        wheel("1.0", tags)
        for tags in (
            ANY,
            "cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64",
            "cp311-cp311-win_amd64",
            "cp312-cp312-manylinux_2_17_x86_64",
            "cp311-cp311-manylinux_2_39_x86_64",
        )
    ]
    assert chosen(*files) == files[1]["filename"]


def test_an_sdist_counts_where_no_wheel_fits() -> None:
    """A newer sdist beats an older wheel, as both resolvers prefer the version."""
    assert chosen(wheel("1.0"), file("demo-2.0.tar.gz")) == "demo-2.0.tar.gz"
    assert chosen(wheel("2.0"), file("demo-2.0.tar.gz")) == f"demo-2.0-{ANY}.whl"


def test_a_yanked_version_needs_a_pin() -> None:
    """PEP 592: a yanked file is chosen by an exact pin alone."""
    files = wheel("1.0"), wheel("2.0", yanked="broken")
    assert chosen(*files) == f"demo-1.0-{ANY}.whl"
    assert chosen(*files, specifiers="==2.0") == f"demo-2.0-{ANY}.whl"
    assert chosen(*files, specifiers="==2.*") is None


def test_pre_releases_count_as_pep_440_has_it() -> None:
    """A pre-release is chosen if a specifier names one, or if there is nothing else."""
    files = wheel("1.0"), wheel("2.0rc1")
    assert chosen(*files) == f"demo-1.0-{ANY}.whl"
    assert chosen(*files, specifiers=">=2.0rc1") == f"demo-2.0rc1-{ANY}.whl"
    assert chosen(wheel("2.0rc1")) == f"demo-2.0rc1-{ANY}.whl"
    assert chosen(*files, specifiers=">1") == f"demo-2.0rc1-{ANY}.whl"


def test_a_cutoff_date_hides_later_files() -> None:
    """Files uploaded from the cut-off date on do not count; of unknown time they do."""
    files = [
        wheel("1.0"),
        wheel("2.0", **{"upload-time": "2025-01-01T00:00:00Z"}),
        wheel("3.0", **{"upload-time": "2025-06-01T00:00:00Z"}),
    ]
    assert chosen(*files, cutoff="2025-06-01T00:00:00Z") == files[1]["filename"]
    assert chosen(*files, cutoff="2024-06-01T00:00:00Z") == files[0]["filename"]


def test_of_an_unknown_client_only_universal_wheels_are_known() -> None:
    """A client without a stated platform is taken to choose a wheel for any of them."""
    files = wheel("1.0"), wheel("1.0", "cp311-cp311-win_amd64")
    assert chosen(*files, client=UNKNOWN) == f"demo-1.0-{ANY}.whl"


def test_the_first_index_has_the_file() -> None:
    """A file that two pages list is that of the first page."""
    first, second = page(wheel("1.0", yanked=True)), page(wheel("1.0"), wheel("0.9"))
    found = predict([first, second], Constraints(frozenset()), CLIENT)
    assert found is not None and found.filename == f"demo-0.9-{ANY}.whl"


def test_what_the_page_says_of_the_file_is_passed_on() -> None:
    """A candidate has size, upload time and whether its metadata is advertised."""
    stated: dict[str, Any] = {"core-metadata": {"sha256": "0" * 64}, "upload-time": "2025"}
    listed = wheel("1.0", size=7, **stated)
    expected = Candidate(listed["filename"], 7, has_metadata=True, uploaded="2025")
    assert predict([page(listed)], Constraints(frozenset()), CLIENT) == expected


def test_malformed_specifiers_choose_nothing() -> None:
    """Specifiers that no resolver reads either give no candidate."""
    assert chosen(wheel("1.0"), specifiers="=>1") is None


def test_thousands_of_clauses_choose_nothing() -> None:
    """Specifiers longer than those of any tree are not compared with the versions of a page."""
    clauses = [f"!={number}.9" for number in range(2, 1000)]
    assert chosen(wheel("1.0"), specifiers=",".join(clauses[:100])) == f"demo-1.0-{ANY}.whl"
    assert chosen(wheel("1.0"), specifiers=",".join(clauses)) is None


def test_the_newer_versions_of_a_choice_are_compared() -> None:
    """An older choice has the earliest upload time of the newer versions that fit."""
    files = [
        wheel("1.0", **{"upload-time": "2024-01-01T00:00:00Z"}),
        wheel("1.1", **{"upload-time": "2024-03-01T00:00:00Z"}),
        wheel("1.2", **{"upload-time": "2024-02-01T00:00:00Z"}),
        wheel("2.0", **{"upload-time": "2024-01-15T00:00:00Z"}),
    ]
    constraints = Constraints(frozenset({"<2"}))
    oldest, newest = [
        describe([page(*files)], constraints, CLIENT, files[number]["filename"])
        for number in (0, 2)
    ]
    assert oldest is not None and oldest.uploaded == "2024-01-01T00:00:00Z"
    assert oldest.newer == "2024-02-01T00:00:00Z"
    assert newest is not None and newest.newer is None
    assert describe([page(*files)], constraints, CLIENT, wheel("3.0")["filename"]) is None


def test_a_candidate_tells_what_the_cutoff_date_hides() -> None:
    """The earliest upload time of the newer versions that would fit is part of it."""
    times = {f"{n}.0": {"upload-time": f"2024-0{n}-01T00:00:00Z"} for n in (1, 2, 3)}
    files = [wheel(version, **stated) for version, stated in times.items()]
    found = predict([page(*files)], Constraints(frozenset(), "2024-02-01T00:00:00Z"), CLIENT)
    assert found is not None and found.filename == files[0]["filename"]
    assert found.newer == "2024-02-01T00:00:00Z"


def test_a_candidate_of_fewer_constraints_remains_if_it_fits_more() -> None:
    """No search is needed where one would find the same; else the answer is no."""
    files = [wheel(version) for version in ("1.0", "2.0", "3.0rc1")]
    texts = [frozenset[str](), frozenset({"<2"}), frozenset({">1"}), frozenset({">1", "!=2.0"})]
    texts += [frozenset({">=3.0rc1"}), frozenset({"==2.0"}), frozenset({"=>"})]
    for before in texts:
        found = predict([page(*files)], Constraints(before), CLIENT)
        for after in texts:
            if found is not None and remains(found, Constraints(before), Constraints(after)):
                assert predict([page(*files)], Constraints(after), CLIENT) == found
    newest = predict([page(*files)], Constraints(frozenset()), CLIENT)
    assert newest is not None
    assert remains(newest, Constraints(frozenset()), Constraints(frozenset({">1"})))
    assert not remains(newest, Constraints(frozenset()), Constraints(frozenset(), "2025"))


def test_versions_are_read_out_of_names() -> None:
    """Wheels with and without a build number, sdists, and names that are neither."""
    assert str(version_of("a_b-1.0-py3-none-any.whl")) == "1.0"
    assert str(version_of("a-1.0-1build-py3-none-any.whl")) == "1.0"
    assert str(version_of("python-dateutil-2.9.0.post0.tar.gz")) == "2.9.0.post0"
    assert version_of("a-b.exe") is None
    assert version_of("a-1.0-" + "x" * 400 + ".whl") is None


@given(st.lists(st.text(max_size=40)), st.text(max_size=20))
def test_no_page_raises(names: list[str], specifiers: str) -> None:
    """Any file names and specifiers give a candidate or none."""
    files = [file(name) for name in dict.fromkeys(names)]
    constraints = Constraints(frozenset({specifiers}))
    predict([page(*files)], constraints, CLIENT)
    predict([page(*files)], attrs.evolve(constraints, cutoff="x"), UNKNOWN)
