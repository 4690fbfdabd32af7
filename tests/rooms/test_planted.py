"""Each planted bug still finds what it breaks: a rename must not turn a proof of the proofs into nothing."""

from pathlib import Path

import pytest

from tests.planted import BUGS, PROOFS, Bug

PACKAGE = Path(__file__).parents[2] / "batcher"


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_what_a_planted_bug_breaks_is_there_once(bug: Bug) -> None:
    assert bug.proof in PROOFS
    for name, right, wrong in bug.changes:
        assert (PACKAGE / name).read_text().count(right) == 1, name
        assert right != wrong
