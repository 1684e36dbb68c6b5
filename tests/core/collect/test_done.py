import tracemalloc

from hypothesis import example, given
from hypothesis import strategies as st

from gymrail.collect.done import Done, Places, TaskNumbers
from gymrail.collect.journal import Key

IDS = st.one_of(
    st.sampled_from(["00000000000000ff", "ff000000000000ff", "", "group", "0x000000000000ff", "+0000000000000ff"]),
    st.integers(0, 2**64 - 1).map(lambda number: f"{number:016x}"),
)
KEYS = st.builds(
    Key,
    st.sampled_from(["a", "b"]),
    st.one_of(st.integers(0, 20), st.sampled_from([-1, 65_536, 70_000, 10**12])),
    IDS,
    st.one_of(st.integers(0, 9), st.sampled_from([-1, 4095, 4096, 10**9])),
)
FAR_AND_THEN_NEAR = [Key("a", index, "00000000000000ff", 0) for index in (65_536, 0, 65_536)]
"""An index is far ahead at first, and no longer when it comes again."""


@given(st.lists(KEYS), st.lists(KEYS))
@example(FAR_AND_THEN_NEAR, [])
def test_a_done_set_is_the_set_of_its_keys(keys: list[Key], others: list[Key]) -> None:
    done = Done(keys)
    assert set(done) == set(keys)
    assert len(done) == len(set(keys)) == len(list(done))
    assert all(key in done for key in keys)
    assert [key in done for key in others] == [key in set(keys) for key in others]
    assert done.environments == {key.environment for key in keys}


@given(st.lists(KEYS), st.integers(0, 20), st.integers(1, 5))
def test_all_repeats_of_a_place_are_there_only_where_each_of_them_is(keys: list[Key], index: int, repeats: int) -> None:
    places = Places()
    for key in keys:
        places.add(key.task_index, key.task_id, key.repeat)
    if places.has_all(index, repeats):
        there = {(key.task_index, key.repeat) for key in keys}
        assert all((index, repeat) in there for repeat in range(repeats))


@given(st.lists(KEYS))
@example(FAR_AND_THEN_NEAR)
def test_tasks_are_numbered_in_the_order_in_which_they_come(keys: list[Key]) -> None:
    numbers, known = TaskNumbers(), dict[tuple[int, str], int]()
    for key in keys:
        known.setdefault((key.task_index, key.task_id), len(known))
        assert numbers.of(key.task_index, key.task_id) == known[key.task_index, key.task_id]
    assert numbers.count == len(known)


def test_a_hundred_thousand_keys_take_a_few_bytes_per_task() -> None:
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        done = Done(Key("a", index, f"{index * 7919:016x}", repeat) for index in range(25_000) for repeat in range(4))
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(done) == 100_000
    assert held < 25_000 * 24
