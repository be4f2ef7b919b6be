"""How far along is the work? The core reports here; only the command line and notebooks turn it into bars."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

Item = TypeVar("Item")
# (description, total or None) -> (advance, finish)
Reporter = Callable[[str, int | None], tuple[Callable[[int], None], Callable[[], None]]]
_reporter: ContextVar[Reporter | None] = ContextVar("modscope_progress", default=None)


def track(items: Iterable[Item], description: str, *, total: int | None = None) -> Iterator[Item]:
    """The same items, one by one; whoever listens (see `progress`) hears of each step.

    Args:
        items: What is worked through.
        description: What the work is, in a few words ("null samples, shuffle_weights").
        total: Number of items; taken from `len(items)` where there is one.
    """
    reporter = _reporter.get()
    if reporter is None:
        yield from items
        return
    if total is None and isinstance(items, Sized):
        total = len(items)
    advance, finish = reporter(description, total)
    try:
        for item in items:
            yield item
            advance(1)
    finally:
        finish()


@contextmanager
def progress() -> Iterator[None]:
    """Show a bar with the time left for everything that runs inside, on standard error.

    Bars appear only for work that goes on for more than half a second, and only on a terminal or in a notebook.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    shown = console.is_terminal or console.is_jupyter
    with Progress(*columns, console=console, transient=True, disable=not shown) as bars:

        def report(description: str, total: int | None) -> tuple[Callable[[int], None], Callable[[], None]]:
            task = bars.add_task(description, total=total)
            return lambda steps: bars.advance(task, steps), lambda: bars.remove_task(task)

        token = _reporter.set(report)
        try:
            yield
        finally:
            _reporter.reset(token)
