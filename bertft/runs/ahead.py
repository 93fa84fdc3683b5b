"""Work on the next item in a thread while the caller uses the last one."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(items: Iterator[Item], work: Callable[[Item], Result]) -> Iterator[Result]:
    """Yield ``work(item)`` of all ``items``, in order, one result ahead of the caller.

    ``items`` is read by the caller's own thread, one item further than the result that is yielded; ``work`` runs in
    one other thread, item after item, and sees the caller's context variables. An error of either is raised where its
    result would have come, after all earlier results. Closing the iterator waits for the item that is being worked on.
    """
    with ThreadPoolExecutor(1, "bertft-ahead") as thread:
        coming = _submitted(thread, items, work)
        while coming is not None:
            result = coming.result()
            coming = _submitted(thread, items, work)
            yield result


def _submitted(
    thread: ThreadPoolExecutor, items: Iterator[Item], work: Callable[[Item], Result]
) -> Future[Result] | None:
    try:
        return thread.submit(contextvars.copy_context().run, work, next(items))
    except StopIteration:
        return None
    except Exception as error:  # of the items: the results before it come first
        failed: Future[Result] = Future()
        failed.set_exception(error)
        return failed
