"""``mray.util.as_completed`` and ``map_unordered``: results in the order in which they come.

Both wait for references in chunks and start no thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from mray import api
from mray.object_ref import ObjectRef

__all__ = ["as_completed", "map_unordered"]

#: See call_sites.py.
CALLS_FOR_USERS = True


def as_completed(
    refs: Sequence[ObjectRef[Any]],
    *,
    chunk_size: int = 10,
    yield_obj_refs: bool = False,
    **kwargs: Any,
) -> Iterator[Any]:
    """Yield the values of references as they come, ``chunk_size`` at a time.

    ``yield_obj_refs``: yield references in place of values. ``kwargs`` go to each ``wait()``; when
    its ``timeout`` passes with fewer than a chunk ready, these come and the wait begins again.

    Raises ValueError for a chunk size below 1 or ``num_returns`` in ``kwargs``, and what the tasks
    raised.
    """
    _check(chunk_size, kwargs)
    left = list(refs)
    while left:
        ready, left = _next_chunk(left, chunk_size, kwargs)
        yield from ready if yield_obj_refs else api.get(ready)


def map_unordered(
    fn: Any,
    items: Iterable[Any],
    *,
    backpressure_size: int | None = 100,
    chunk_size: int = 10,
    yield_obj_refs: bool = False,
    **kwargs: Any,
) -> Iterator[Any]:
    """Call the remote function ``fn`` for every item and yield the results as they come.

    ``backpressure_size``: as many calls are under way at once, None without limit; ``items`` is
    read no faster. The rest is as in as_completed().

    Raises ValueError for sizes below 1 or ``num_returns`` in ``kwargs``, and what the tasks raised.
    """
    if backpressure_size is not None and backpressure_size < 1:
        raise ValueError(f"backpressure_size must be 1 or more, or None, not {backpressure_size}")
    _check(chunk_size, kwargs)
    left: list[ObjectRef[Any]] = []
    for item in items:
        left.append(fn.remote(item))
        if backpressure_size is not None and len(left) >= backpressure_size:
            ready, left = _next_chunk(left, chunk_size, kwargs)
            yield from ready if yield_obj_refs else api.get(ready)
    yield from as_completed(left, chunk_size=chunk_size, yield_obj_refs=yield_obj_refs, **kwargs)


def _check(chunk_size: int, kwargs: dict[str, Any]) -> None:
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be 1 or more, not {chunk_size}")
    if "num_returns" in kwargs:
        raise ValueError("num_returns is set by chunk_size: give that instead")


def _next_chunk(
    refs: list[ObjectRef[Any]], chunk_size: int, kwargs: dict[str, Any]
) -> tuple[list[ObjectRef[Any]], list[ObjectRef[Any]]]:
    return api.wait(refs, num_returns=min(chunk_size, len(refs)), **kwargs)
