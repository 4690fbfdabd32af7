"""The planted bugs fit the code: one whose text a change has moved would be planted nowhere, and prove nothing."""

import pytest

from tests.planted import BUGS, PROOFS, ROOT, Bug


@pytest.mark.parametrize("bug", BUGS, ids=[bug.name for bug in BUGS])
def test_what_a_planted_bug_breaks_stands_in_the_code_once(bug: Bug) -> None:
    assert bug.proof in PROOFS
    for name, right, wrong in bug.changes:
        text = (ROOT / "batcher" / name).read_text()
        assert text.count(right) == 1, f"{right!r} in {name}"
        assert right != wrong


def test_each_planted_bug_has_a_name_of_its_own() -> None:
    assert len({bug.name for bug in BUGS}) == len(BUGS)
