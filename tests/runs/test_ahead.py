"""Work one item ahead: order, bound, errors, end."""

from __future__ import annotations

import contextvars
import threading

import pytest

from bertft.runs.ahead import ahead


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("bertft-ahead")}


def test_results_come_in_order_from_another_thread():
    found = list(ahead(iter(range(5)), lambda i: (i * i, threading.current_thread() is threading.main_thread())))
    assert found == [(i * i, False) for i in range(5)]
    assert not threads()


def test_items_are_read_by_the_callers_thread_one_beyond_the_result():
    read, readers = [], set()

    def items():
        for i in range(6):
            read.append(i)
            readers.add(threading.current_thread())
            yield i

    for result in ahead(items(), lambda i: i):
        assert len(read) == min(result + 2, 6)
    assert readers == {threading.current_thread()}


def test_work_on_the_next_item_runs_while_the_caller_has_the_last():
    begun = threading.Event()

    def work(i):
        if i == 1:
            begun.set()
        return i

    results = ahead(iter(range(3)), work)
    assert next(results) == 0 and begun.wait(10)
    assert list(results) == [1, 2]


@pytest.mark.parametrize("where", ["items", "work"])
def test_an_error_comes_in_place_of_its_result(where):
    error = ValueError("the third")

    def items():
        for i in range(5):
            if where == "items" and i == 2:
                raise error
            yield i

    def work(i):
        if where == "work" and i == 2:
            raise error
        return i

    found = []
    with pytest.raises(ValueError, match="the third") as raised:
        for result in ahead(items(), work):
            found.append(result)
    assert found == [0, 1] and raised.value is error
    assert not threads()


def test_an_interruption_of_reading_is_raised_at_once():
    def items():
        yield 0
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(ahead(items(), lambda i: i))
    assert not threads()


def test_closing_reads_no_further_and_ends_the_thread():
    read = []
    results = ahead((read.append(i) or i for i in range(100)), lambda i: i)
    assert next(results) == 0
    results.close()
    assert read == [0, 1] and not threads()


def test_work_sees_the_callers_context():
    variable = contextvars.ContextVar("variable", default="none")
    variable.set("mine")
    assert list(ahead(iter([0]), lambda i: variable.get())) == ["mine"]
