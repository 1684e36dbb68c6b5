from gymrail.collect.drain import Drain
from gymrail.collect.executors.queue import Queue, Ticket
from gymrail.collect.runner import Job

from .conftest import jobs_of


def make_queue(load, count: int = 100) -> Queue:
    return Queue(iter(jobs_of(load("Adder"), count)), Drain())


def held(tickets: list[Ticket]) -> dict[int, Ticket]:
    return {ticket.number: ticket for ticket in tickets}


def test_a_worker_gets_what_it_has_room_for(load) -> None:
    queue = make_queue(load, 10)
    first = queue.take(0, {}, slots=4, ahead=2)
    assert [ticket.job.task_index for ticket in first] == [0, 1, 2, 3, 4, 5]
    assert queue.take(0, held(first), slots=4, ahead=2) == []
    assert len(queue.take(1, {}, slots=8, ahead=0)) == 4
    assert not queue.is_empty or queue.take(2, {}, 1, 0) == []


def test_suspects_are_spread_thin_and_then_played_alone(load) -> None:
    queue = make_queue(load)
    lost = queue.take(0, {}, slots=8, ahead=0)
    assert queue.put_back(0, lost) == []
    second = queue.take(0, {}, slots=8, ahead=0)
    assert len(second) == 8
    assert sum(ticket.losses == 1 for ticket in second) == 2  # a quarter; the others are fresh
    assert queue.put_back(0, second) == []
    alone = queue.take(0, {}, slots=8, ahead=0)
    assert [ticket.losses for ticket in alone] == [2]
    assert queue.take(0, held(alone), slots=8, ahead=0) == []
    others = queue.take(1, {}, slots=8, ahead=0)
    assert len(others) == 8
    assert all(ticket.losses < 2 for ticket in others)
    assert queue.put_back(0, alone) == alone  # three workers were lost with it


def test_the_place_for_suspects_moves_on_when_its_worker_is_lost(load) -> None:
    queue = make_queue(load)
    for _ in range(2):
        queue.put_back(0, queue.take(0, {}, slots=1, ahead=0))
    alone = queue.take(0, {}, slots=4, ahead=0)
    assert [ticket.losses for ticket in alone] == [2]
    queue.put_back(0, alone)
    assert all(ticket.losses == 0 for ticket in queue.take(1, {}, slots=4, ahead=0))


def test_nothing_is_taken_once_a_drain_is_requested(load) -> None:
    drain = Drain()
    jobs = iter(jobs_of(load("Adder"), 10))
    queue = Queue(jobs, drain)
    taken = queue.take(0, {}, slots=2, ahead=0)
    drain.request("enough")
    assert queue.take(0, {}, slots=5, ahead=0) == []
    queue.put_back(0, taken)
    assert queue.clear() == 2
    assert queue.is_empty
    rest = next(jobs)
    assert isinstance(rest, Job)
    assert rest.task_index == 2
