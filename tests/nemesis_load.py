"""A steady load in one driver: the strands of nemesis_strands.py side by side, and what came of it.

Each strand is a thread, the first one the main thread. It begins rounds at its rate and never makes
up for those that it missed: so the load is the same all the time, and what is acknowledged in a
second shows how well the cluster serves, not how fast the machine is. ``run()`` lasts until a file
is there. Meanwhile a line of JSON is appended to a second file every ``slot_s``, for the test:
what was acknowledged by kind in which slot of time (of the system's monotonic clock).
"""

from __future__ import annotations

import json
import os
import threading
import time
import traceback
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import nemesis_strands


class Load:
    """See the module. Errors and wrong answers are kept; the strand goes on with its next round."""

    def __init__(self, name: str, log: str, writer: str, progress: str, slot_s: float) -> None:
        self._strands = nemesis_strands.strands(name, log, writer)
        self._progress = Path(progress)
        self._slot_s = slot_s
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._slots: dict[int, Counter[str]] = defaultdict(Counter)
        self._refused: Counter[str] = Counter()
        self._wrong: list[str] = []
        self._errors: list[str] = []
        #: When a round of a strand ended.
        self._ended_at: dict[str, float] = {}
        #: By kind, "any" among them: when something was acknowledged last, and the longest gap.
        self._last_at: dict[str, float] = {}
        self._gaps: Counter[str] = Counter()

    def warm_up(self) -> None:
        """One round of each strand."""
        for strand in self._strands:
            wrong = strand.next().wrong
            assert not wrong, wrong

    def run(self, until: str) -> dict[str, Any]:
        """Until the file ``until`` is there; what there is to tell."""
        self._over.clear()
        threads = [
            threading.Thread(target=self._run, args=(strand,), name=strand.kind)
            for strand in self._strands[1:]
        ]
        threads.append(threading.Thread(target=self._report, args=(until,), name="report"))
        for thread in threads:
            thread.start()
        self._run(self._strands[0])
        for thread in threads:
            thread.join()
        return {
            "wrong": self._wrong,
            "errors": self._errors,
            "refused": self._refused,
            "gaps": self._gaps,
            "calls": [call for strand in self._strands for call in strand.calls],
        }

    def _run(self, strand: nemesis_strands.Strand) -> None:
        due_at = time.monotonic()
        while not self._over.wait(max(0.0, due_at - time.monotonic())):
            try:
                self._count(strand.kind, strand.next())
            except BaseException:
                where = f"{strand.kind}, round {strand.number}"
                with self._lock:
                    self._errors.append(f"{where}: {traceback.format_exc()}")
            due_at = max(due_at + 1 / strand.rate, time.monotonic())

    def _count(self, kind: str, outcome: nemesis_strands.Outcome) -> None:
        now = time.monotonic()
        with self._lock:
            self._slots[int(now / self._slot_s)][kind] += outcome.acknowledged
            self._ended_at[kind] = now
            self._refused[kind] += outcome.refused
            self._wrong += outcome.wrong
            for each in (kind, "any") if outcome.acknowledged else ():
                self._gaps[each] = max(self._gaps[each], now - self._last_at.get(each, now))
                self._last_at[each] = now

    def _report(self, until: str) -> None:
        with self._progress.open("a", buffering=1) as file:
            while not self._over.wait(self._slot_s):
                if os.path.exists(until):
                    self._over.set()
                now = int(time.monotonic() / self._slot_s)
                with self._lock:
                    ended = [slot for slot in sorted(self._slots) if slot < now]
                    line = {
                        "at_s": time.monotonic(),
                        "slots": {slot: self._slots.pop(slot) for slot in ended},
                        "wrong": self._wrong[:3],
                        "errors": self._errors[:3],
                        "silent_s": self._silent(),
                    }
                file.write(json.dumps(line) + "\n")

    def _silent(self) -> dict[str, float]:
        now = time.monotonic()
        return {kind: round(now - at, 1) for kind, at in self._ended_at.items()}

