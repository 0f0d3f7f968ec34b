"""What workers get: items of one document stay together, and what a worker had that died is asked again."""

import pytest

from maskdpo.workers.backlog import LOOK_AHEAD, TRIES, Backlog, Item
from maskdpo.workers.cluster import cores_wanted

NAMES = ["worker 1", "worker 2", "worker 3"]


def backlog(documents: int, each: int) -> Backlog:
    """Items that say which document they are about, one document after the other."""
    return Backlog((f"d{d}" for d in range(documents) for _ in range(each)), str, NAMES)


def test_the_items_of_a_document_go_to_one_worker_and_all_workers_get_some() -> None:
    work, had = backlog(60, 5), dict[str, set[int]]()
    while not work.is_empty():
        for worker in range(3):
            for item in work.take(worker, 7, idle=False)[0]:
                had.setdefault(item.value, set()).add(worker)
    assert len(had) == 60
    assert set.union(*had.values()) == {0, 1, 2}
    assert sum(len(workers) > 1 for workers in had.values()) <= 3  # at the end, where a worker would be idle


def test_a_document_has_the_same_worker_in_a_later_run() -> None:
    def first_takers() -> dict[str, int]:
        work = backlog(30, 1)
        return {item.value: worker for worker in range(3) for item in work.take(worker, 5, idle=False)[0]}

    assert first_takers() == first_takers()


def test_one_long_document_leaves_nobody_idle_and_is_not_read_to_its_end() -> None:
    read: list[int] = []

    def items():  # type: ignore[no-untyped-def]
        for i in range(100_000):
            read.append(i)
            yield i

    work = Backlog(items(), lambda _: "the only one", NAMES)
    taken = [work.take(worker, 10, idle=True)[0] for worker in range(3)]
    assert all(taken)
    assert len({item.number for some in taken for item in some}) == sum(map(len, taken))
    assert len(read) <= 3 * LOOK_AHEAD + 30


def test_an_item_that_kills_is_found_by_three_deaths_and_no_other_is_given_up() -> None:
    """As a pool does it: a worker dies of item 77 wherever it is, and answers what came before in its group."""
    work, answered, deaths = backlog(100, 1), set[int](), 0
    lost: list[Item] = []
    has: dict[int, list[Item]] = {0: [], 1: [], 2: []}
    while not work.is_empty():
        for worker in range(3):
            has[worker], _ = work.take(worker, 30, idle=True)
            ends = next((i for i, item in enumerate(has[worker]) if item.number == 77), None)
            answered |= {item.number for item in has[worker][:ends]}
            if ends is not None:
                deaths += 1
                lost += work.put_back(has[worker][ends:])
    assert deaths == TRIES == 3
    assert [item.number for item in lost] == [77]
    assert answered == set(range(100)) - {77}


def test_what_was_asked_again_is_given_to_a_worker_alone() -> None:
    work = backlog(40, 1)
    first, alone = work.take(0, 16, idle=True)
    assert not alone
    assert work.put_back(first) == []
    again, alone = work.take(1, 16, idle=False)
    assert not alone
    assert not {item.number for item in again} & {item.number for item in first}
    group, alone = work.take(0, 16, idle=True)
    assert alone
    assert len(group) == 4  # the root of 16, so that two deaths narrow 16 items down to one


@pytest.mark.parametrize(
    ("workers", "cores", "each"), [(2, [2], 1), (2, [64], 32), (3, [8, 8], 4), (4, [2], 0), (1, [], 0), (5, [16, 4], 4)]
)
def test_cores_are_divided_so_that_every_worker_has_a_place(workers: int, cores: list[int], each: int) -> None:
    assert cores_wanted(workers, cores) == each
