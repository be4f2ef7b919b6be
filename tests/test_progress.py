"""Work reports how far it is to whoever listens, and is silent otherwise."""

import contextlib
import io

import pytest

from modscope.progress import _reporter, progress, track


class _Listener:
    def __init__(self) -> None:
        self.heard: list[tuple[str, object]] = []

    def __call__(self, description, total):
        self.heard.append((description, total))
        return lambda steps: self.heard.append(("step", steps)), lambda: self.heard.append(("end", None))


@pytest.fixture
def listener():
    listening = _Listener()
    token = _reporter.set(listening)
    yield listening
    _reporter.reset(token)


def test_items_pass_through_unchanged_without_a_listener():
    assert list(track(iter("abc"), "letters")) == ["a", "b", "c"]


def test_a_listener_hears_the_total_every_step_and_the_end(listener):
    assert list(track([5, 6], "numbers")) == [5, 6]
    assert listener.heard == [("numbers", 2), ("step", 1), ("step", 1), ("end", None)]


def test_an_unknown_total_is_none_and_a_given_one_is_kept(listener):
    list(track(iter([1]), "unknown"))
    list(track(iter([1]), "known", total=7))
    assert [heard for heard in listener.heard if heard[0] in ("unknown", "known")] == [("unknown", None), ("known", 7)]


def test_the_end_is_heard_after_an_exception_and_after_a_break(listener):
    for _ in track(range(3), "left early"):
        break
    with contextlib.suppress(ZeroDivisionError):
        for item in track([0], "fails"):
            1 / item
    assert [what for what, _ in listener.heard].count("end") == 2


def test_bars_write_nothing_where_there_is_no_terminal(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    with progress():
        assert list(track(range(3), "numbers")) == [0, 1, 2]
    assert stream.getvalue().strip() == ""
    assert _reporter.get() is None
