"""How is a list of independent pieces of work spread over workers, with the same answers for any number of them?"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain
from pickle import PicklingError
from typing import TypeVar

from modscope.errors import JobError
from modscope.progress import track

Item = TypeVar("Item")
Result = TypeVar("Result")

N_CHUNKS = 32


def map_in_order(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    executor: Executor | None = None,
    description: str = "work",
    runs_a_model: bool = False,
) -> list[Result]:
    """`[work(item) for item in items]`, on the executor's workers, in the order of the items.

    Numerical libraries run with one thread wherever the work is done, also without an executor: the order in which
    a product is summed depends on the number of threads, and results must not depend on who computed them.

    Args:
        work: Function of one item. For workers in other processes it must be picklable.
        items: What to work through.
        executor: Any `concurrent.futures.Executor`; None = this process.
        description: What the work is, for progress bars and messages.
        runs_a_model: The work changes a model, or settings of torch, while it runs. Threads share both, so that a
            ThreadPoolExecutor is passed by, and the items are worked through one after the other.

    Raises:
        JobError: If a worker died, the work cannot be sent to another process, or `executor` cannot take work.
    """
    if executor is not None and not hasattr(executor, "submit"):
        raise JobError(
            "a concurrent.futures.Executor is wanted, as ProcessPoolExecutor(2), or None for this process; "
            f"got {type(executor).__name__}"
        )
    if executor is None or (runs_a_model and isinstance(executor, ThreadPoolExecutor)):
        with one_thread():
            return [work(item) for item in track(items, description)]
    if isinstance(executor, ThreadPoolExecutor):
        # Threads share this process, and its setting: it is made once around them all.
        with one_thread():
            return _collect(executor, _run_chunk, work, items, description)
    return _collect(executor, _run_chunk_with_one_thread, work, items, description)


@contextmanager
def one_thread() -> Iterator[None]:
    """BLAS, OpenMP and torch use one thread inside, and as many as before afterwards."""
    from threadpoolctl import threadpool_limits

    torch = sys.modules.get("torch")
    n_torch_threads = torch.get_num_threads() if torch is not None else None
    try:
        with threadpool_limits(1):
            if torch is not None:
                torch.set_num_threads(1)
            yield
    finally:
        if torch is not None:
            torch.set_num_threads(n_torch_threads)


def _collect(
    executor: Executor,
    run: Callable[[Callable[[Item], Result], Sequence[Item]], list[Result]],
    work: Callable[[Item], Result],
    items: Sequence[Item],
    description: str,
) -> list[Result]:
    """Results of all chunks, in order; on the first failure the chunks that have not begun are cancelled."""
    size = max(1, -(-len(items) // N_CHUNKS))
    chunks = [items[start : start + size] for start in range(0, len(items), size)]
    futures: list[Future[list[Result]]] = []
    try:
        futures.extend(executor.submit(run, work, chunk) for chunk in chunks)
        results = chain.from_iterable(future.result() for future in futures)
        return list(track(results, description, total=len(items)))
    except BrokenExecutor as error:
        raise JobError(
            f"a worker died during {description} (killed, or out of memory?): {error}; "
            f"use fewer workers, or executor=None to work in this process"
        ) from error
    except (PicklingError, AttributeError, TypeError) as error:
        if "pickle" not in str(error).lower():
            raise
        raise JobError(
            f"{description} cannot be sent to another process: {error}; "
            f"define its functions at the top level of a module, or use a ThreadPoolExecutor"
        ) from error
    finally:
        for future in futures:
            future.cancel()


def _run_chunk(work: Callable[[Item], Result], chunk: Sequence[Item]) -> list[Result]:
    return [work(item) for item in chunk]


def _run_chunk_with_one_thread(work: Callable[[Item], Result], chunk: Sequence[Item]) -> list[Result]:
    with one_thread():
        return _run_chunk(work, chunk)
