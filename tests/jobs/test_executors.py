"""Are results the same, in order and complete, whoever does the work, and is a failure told?"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import pytest
import torch
from threadpoolctl import threadpool_info

from modscope.errors import JobError, StatisticsError
from modscope.jobs.executors import map_in_order, one_thread


def square(number: int) -> int:
    return number * number


def thread_of(index: int) -> int:
    return threading.get_ident()


def threads_in_use(index: int) -> list[int]:
    return [torch.get_num_threads(), *(library["num_threads"] for library in threadpool_info())]


def die(index: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return index


def fail_at_seven(index: int) -> int:
    if index == 7:
        raise StatisticsError("seven cannot be done")
    return index


def refuse(index: int) -> int:
    raise TypeError("not a number")


# Forked, since a spawned worker cannot import the functions of a test file.
FORK = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def processes() -> Iterator[Executor]:
    with ProcessPoolExecutor(2, mp_context=FORK) as pool:
        yield pool


def test_results_come_in_the_order_of_the_items(processes: Executor) -> None:
    wanted = [number * number for number in range(101)]
    with ThreadPoolExecutor(3) as threads:
        for executor in (None, threads, processes):
            assert map_in_order(square, range(101), executor=executor) == wanted
    assert map_in_order(square, [], executor=processes) == []


def test_threads_never_run_a_model_at_the_same_time() -> None:
    with ThreadPoolExecutor(3) as threads:
        shared = set(map_in_order(thread_of, range(40), executor=threads, runs_a_model=True))
        apart = set(map_in_order(thread_of, range(40), executor=threads))
    assert shared == {threading.get_ident()}
    assert threading.get_ident() not in apart


def test_what_cannot_take_work_is_no_executor() -> None:
    wrong: Any = 2
    with pytest.raises(JobError, match=r"Executor is wanted, .* got int"):
        map_in_order(square, [1], executor=wrong)


def test_numerical_libraries_use_one_thread_wherever_work_is_done(processes: Executor) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with ThreadPoolExecutor(2) as threads:
            for executor in (None, threads, processes):
                counts = map_in_order(threads_in_use, range(4), executor=executor)
                assert {count for worker in counts for count in worker} == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_number_of_threads_is_put_back_after_an_error() -> None:
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), one_thread():
        _ = 1 / 0
    assert torch.get_num_threads() == before


def test_an_error_of_the_work_comes_through_as_it_is(processes: Executor) -> None:
    for executor in (None, processes):
        with pytest.raises(StatisticsError, match="seven cannot be done"):
            map_in_order(fail_at_seven, range(20), executor=executor)
        with pytest.raises(TypeError, match="not a number"):
            map_in_order(refuse, range(3), executor=executor)


def test_a_dead_worker_is_an_error_that_says_what_to_do() -> None:
    with (
        ProcessPoolExecutor(1, mp_context=FORK) as pool,
        pytest.raises(JobError, match=r"a worker died during null samples.*fewer workers"),
    ):
        map_in_order(die, range(3), executor=pool, description="null samples")


def test_work_that_cannot_be_sent_is_an_error_that_says_what_to_do(processes: Executor) -> None:
    with pytest.raises(JobError, match="cannot be sent to another process"):
        map_in_order(lambda number: number, range(3), executor=processes)
