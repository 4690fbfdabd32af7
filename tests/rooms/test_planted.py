"""The planted bugs fit the code: one whose text a change has moved would be planted nowhere, and prove nothing."""

import re

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


@pytest.mark.parametrize("name", [name for name, command in PROOFS.items() if "-k" in command])
def test_what_a_proof_selects_is_there(name: str) -> None:
    """A proof that selects no test fails without a bug, and one that selects another notices none."""
    command = PROOFS[name]
    (file,) = [(ROOT / part).read_text() for part in command if part.endswith(".py")]
    wanted = [alternative.split(" and ") for alternative in command[command.index("-k") + 1].split(" or ")]
    tests = re.findall(r"def (test_\w+)", file)
    for name_of_test, *of_parameters in wanted:
        assert any(name_of_test in test for test in tests), name_of_test
        assert all(word in file for word in of_parameters)
