"""Does the number of workers change what is drawn?"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np


def assert_same_for_any_number_of_workers(samples: Callable[[Executor | None], np.ndarray]) -> None:
    """The samples drawn in this process, by 1, 2 and 4 threads and by two processes are the same to the last bit."""
    alone = samples(None)
    for n_workers in (1, 2, 4):
        with ThreadPoolExecutor(n_workers) as threads:
            assert np.array_equal(samples(threads), alone)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as processes:
        assert np.array_equal(samples(processes), alone)
