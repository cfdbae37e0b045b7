"""``mray.experimental.tqdm_ray``: progress bars of tasks and actors, drawn by the driver.

A worker prints a bar's state as a line with a mark; its way to the driver is that of all output, so
bars need ``log_to_driver``. The driver's printer asks take() about each line and hidden() before it
writes. tqdm draws, one row a bar; where it is not installed, one warning says so.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Final

import msgspec

from mray import current

__all__ = ["safe_print", "tqdm"]

log = logging.getLogger("mray")

#: How a line begins that is a bar's state. What follows is JSON.
_MARK: Final = "__mray_progress__ "
_FIELDS: Final = {"id", "n", "total", "desc", "unit", "position", "closed"}
_FLUSH_INTERVAL_S: Final = 1.0


class tqdm:
    """A progress bar with the main methods of tqdm's, for any process of a job.

    ``total``: steps, by default the length of ``iterable``. ``position``: the row from which on to
    look for a free one. ``flush_interval_s``: seconds between two reports to the driver.
    """

    def __init__(
        self,
        iterable: Iterable[Any] | None = None,
        desc: str | None = None,
        total: int | None = None,
        unit: str | None = None,
        position: int | None = None,
        flush_interval_s: float | None = None,
    ) -> None:
        count = getattr(iterable, "__len__", None)
        if total is None and count is not None:
            total = int(count())
        self._iterable = iterable
        self._id = os.urandom(8).hex()
        self.n = 0
        self.total = total
        self._desc = desc or ""
        self._unit = unit or "it"
        self._position = position or 0
        self._closed = False
        self._interval_s = _FLUSH_INTERVAL_S if flush_interval_s is None else flush_interval_s
        #: When the driver was last told, monotonic.
        self._told_at: float | None = None

    def __iter__(self) -> Iterator[Any]:
        if self._iterable is None:
            raise ValueError("this progress bar was made without an iterable")
        for item in self._iterable:
            yield item
            self.update(1)
        self.close()

    def update(self, n: int = 1) -> None:
        """Go ``n`` steps on."""
        self.n += n
        self._tell()

    def set_description(self, desc: str) -> None:
        """Change what stands before the bar."""
        self._desc = desc
        self._tell()

    def refresh(self) -> None:
        """Draw the present state, unless that was done a moment ago."""
        self._tell()

    def close(self) -> None:
        """Draw the last state; the bar's row becomes free. Does nothing the second time."""
        if not self._closed:
            self._closed = True
            self._tell(now=True)

    def _tell(self, now: bool = False) -> None:
        time_s = time.monotonic()
        if not now and self._told_at is not None and time_s - self._told_at < self._interval_s:
            return
        self._told_at = time_s
        state = {
            "id": self._id, "n": self.n, "total": self.total, "desc": self._desc,
            "unit": self._unit, "position": self._position, "closed": self._closed,
        }  # fmt: skip
        if current.runtime is not None and current.runtime.mode == "worker":
            print(_MARK + msgspec.json.encode(state).decode())
        else:
            _bars.show(state, "")


class _Bars:
    """The bars that this process draws."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        #: Bar's id -> tqdm's bar, and its row.
        self._drawn: dict[str, tuple[Any, int]] = {}
        self._warned = False

    def _new(self, state: dict[str, Any], description: str, row: int) -> Any:
        try:
            drawing = import_module("tqdm")
        except ImportError:
            if not self._warned:
                self._warned = True
                log.warning(
                    "progress bars are not drawn: tqdm is not installed (pip install 'mray[tqdm]')"
                )
            return None
        # Without tqdm's own thread, which is for bars that redraw themselves.
        kind = type("_Bar", (drawing.tqdm,), {"monitor_interval": 0})
        return kind(
            desc=description, total=state["total"], unit=state["unit"], position=row,
            dynamic_ncols=True, unit_scale=True,
        )  # fmt: skip

    def show(self, state: dict[str, Any], origin: str) -> None:
        """Draw a bar as its state says; ``origin`` stands before its description."""
        with self._lock:
            if state["id"] in self._drawn:
                bar, row = self._drawn[state["id"]]
            else:
                taken = {row for _, row in self._drawn.values()}
                row = next(row for row in range(state["position"], 1 << 30) if row not in taken)
                bar = self._new(state, origin + state["desc"], row)
                if bar is None:
                    return
                self._drawn[state["id"]] = bar, row
            bar.set_description(origin + state["desc"], refresh=False)
            bar.total, bar.n = state["total"], state["n"]
            bar.refresh()
            if state["closed"]:
                bar.close()
                del self._drawn[state["id"]]

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Take the bars off the screen while something else is written."""
        with self._lock:
            for bar, _ in self._drawn.values():
                bar.clear()
            try:
                yield
            finally:
                for bar, _ in self._drawn.values():
                    bar.refresh()

    def close(self) -> None:
        """Leave the bars as they are: those who moved them are gone."""
        with self._lock:
            for bar, _ in self._drawn.values():
                bar.close()
            self._drawn.clear()


_bars = _Bars()
hidden = _bars.hidden
close_all = _bars.close


def take(line: str, pid: int, ip: str) -> bool:
    """Draw what a worker's line says of a bar; False if it is some other line."""
    if not line.startswith(_MARK):
        return False
    try:
        state = msgspec.json.decode(line.removeprefix(_MARK))
    except msgspec.DecodeError:
        return False
    if not isinstance(state, dict) or state.keys() != _FIELDS:
        return False
    runtime = current.runtime
    elsewhere = runtime is not None and runtime.node.ip != ip
    _bars.show(state, f"(pid={pid}, ip={ip}) " if elsewhere else f"(pid={pid}) ")
    return True


def safe_print(*args: Any, **kwargs: Any) -> None:
    """``print`` that does not write across bars."""
    if kwargs.get("file") in (None, sys.stdout, sys.stderr):
        with _bars.hidden():
            print(*args, **kwargs)
    else:
        print(*args, **kwargs)
