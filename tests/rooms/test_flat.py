"""What is kept of many jobs and photos in memory that does not grow with them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from hypothesis import given
from hypothesis.strategies import integers, lists, tuples

from batcher.hosting.file_facts import FactsByPath
from batcher.hosting.inline import ImageFactsCache
from batcher.job import Spec
from batcher.runs.forecast import PlannedJobs
from tests.rooms.conftest import Folder


@given(puts=lists(tuples(integers(0, 12), integers(0, 99)), max_size=60))
def test_what_was_found_at_many_paths_is_what_was_found_last(puts: list[tuple[int, int]]) -> None:
    looked, exact = FactsByPath(held=4), dict[str, tuple[int, int, str]]()
    for path, size in puts:
        facts = (size, path, "{}")
        looked.put(str(path), facts)
        exact[str(path)] = facts
        assert looked.get(str(path)) == facts
    assert all(looked.get(path) == facts for path, facts in exact.items())
    assert looked.get("nowhere") is None
    assert dict(looked) == exact
    looked.close()


def test_a_photo_that_was_looked_at_long_ago_is_not_read_again(folder: Folder) -> None:
    looks = ImageFactsCache()
    looks.fresh = FactsByPath(held=2)
    names = [f"{n}.jpg" for n in range(7)]
    first = [looks.at(folder.photo(name).path / name) for name in names]
    for name in names:  # unreadable now, and unchanged by size and time
        stat = (folder.path / name).stat()
        (folder.path / name).write_bytes(b"x" * stat.st_size)
        import os

        os.utime(folder.path / name, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert [looks.at(folder.path / name) for name in names] == first
    looks.fresh.close()


def planned(count: int, chosen: set[int] | None = None, *, sampled: bool = False) -> PlannedJobs:
    jobs = PlannedJobs(sampled=sampled)
    for n in range(count):
        spec = Spec(
            id=f"{n * 0x0F1E_2D3C_4B5A_6978 % 2**64:016x}", name=str(n), model="m",
            inputs={"prompt": str(n), "resolution": "1K" if n % 2 else "2K"}, estimated_usd=0.15, row=n // 2,
            request_class="1K" if n % 2 else "2K",
        )  # fmt: skip
        jobs.take(spec, 1 + n % 2, chosen=chosen is None or n in chosen)
    return jobs


def ids(count: int) -> list[str]:
    return [f"{n * 0x0F1E_2D3C_4B5A_6978 % 2**64:016x}" for n in range(count)]


def test_ids_of_jobs_come_back_in_pages_as_they_were() -> None:
    jobs, all_ids = planned(7_001), ids(7_001)
    assert [one for page in jobs.id_pages(range(7_001)) for one in page] == all_ids
    assert [one for page in jobs.id_pages([3, 4, 5, 6_999]) for one in page] == [all_ids[n] for n in (3, 4, 5, 6_999)]
    assert [*jobs.kept(5, None)] == [0, 1, 2, 3, 4]
    jobs.close()


def test_a_sample_and_a_selection_name_the_right_jobs() -> None:
    jobs = planned(40, sampled=True)
    assert len(jobs.kept(None, 4)) == 4
    jobs.close()
    narrow = planned(40, chosen=set(range(10, 20)))
    assert [one for page in narrow.id_pages(range(len(narrow))) for one in page] == ids(40)[10:20]

    def states_of(pages: Iterable[Sequence[str]]) -> Iterator[Mapping[str, tuple[str, bool]]]:
        for page in pages:
            yield {one: ("done" if int(one, 16) % 3 == 0 else "pending", True) for one in page}

    begun, done = narrow.compared(states_of)
    named = ids(40)
    assert [bool(one) for one in begun[:10]] == [int(one, 16) % 3 == 0 for one in named[10:20]]
    assert done == sum(int(one, 16) % 3 == 0 for one in named), "what --where leaves out is named all the same"
    left = narrow.left_of(range(10), begun)
    assert narrow.without(left, lambda page: {page[0]}).tolist() == left.tolist()[1:]
    prices = narrow.by_class(range(10))
    assert {(price.request_class, price.outputs): count for price, count in prices.items()} == {
        ("2K", 1): 5,
        ("1K", 2): 5,
    }
    assert narrow.images(range(10)) == (0, 0)
    narrow.close()


def test_nothing_of_it_stays_in_the_folder_of_temporary_files(tmp_path: Path) -> None:
    import tempfile

    before = tempfile.tempdir
    tempfile.tempdir = str(tmp_path)
    try:
        looked, jobs = FactsByPath(held=1), planned(3)
        looked.put("a", (1, 1, ""))
        looked.close()
        jobs.close()
    finally:
        tempfile.tempdir = before
    assert list(tmp_path.iterdir()) == []
