"""Names of projects: PEP 503 and the grammar of valid names."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxpi.simple.names import LONGEST, canonical, normalize
from tests.support.strategies import deterministic, project_names

VALID = re.compile(r"([A-Z0-9]|[A-Z0-9][A-Z0-9._-]*[A-Z0-9])\Z", re.IGNORECASE | re.ASCII)


@deterministic
@given(project_names)
def test_any_spelling_has_the_normal_form(name: str) -> None:
    """A valid name gets the normal form that PEP 503 defines by a regular expression."""
    expected = re.sub(r"[-_.]+", "-", name).lower()
    assert normalize(name) == canonical(name) == expected


@deterministic
@given(project_names)
def test_the_normal_form_is_stable(name: str) -> None:
    """Normalizing twice is normalizing once, so a redirect to the normal form cannot loop."""
    assert canonical(normalize(name)) == normalize(name)


@deterministic
@given(st.text(st.sampled_from("aB9._-/\\%\n\x00 é\u017f\u212a"), max_size=6))
def test_validity_is_that_of_the_grammar(name: str) -> None:
    """A name is refused exactly when the grammar of names does not match it."""
    assert (canonical(name) is not None) == (VALID.match(name) is not None)


@pytest.mark.parametrize(
    "name",
    ["", "-foo", "foo-", "foo\n", "föö", "../x", "a/b", "a%2Fb", "a b", "..", "a\x00b", "\u212a"],
)
def test_what_is_no_name_is_refused(name: str) -> None:
    """What could reach another path, or is no name, never becomes one."""
    assert canonical(name) is None


def test_length_is_limited() -> None:
    """A name of absurd length is refused before anything is done with it."""
    assert canonical("a" * LONGEST) == "a" * LONGEST
    assert canonical("a" * (LONGEST + 1)) is None
