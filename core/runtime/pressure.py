"""This process's side of memory pressure: tells its node of callbacks, and has them run.

Callbacks run in a thread made for them, never in the loop: they may take long and use the API.
Under pressure a worker also collects garbage and gives free heap pages back to the system.
"""

from __future__ import annotations

import gc
import threading
from typing import TYPE_CHECKING, Final

from mray import memory_pressure
from mray.memory_pressure import run_callbacks
from mray.wire.messages import HandlesPressure, MemoryPressure, PressureHandled

if TYPE_CHECKING:
    from mray.runtime.runtime import Runtime

#: A driver registers at its node within this.
_TELL_AFTER_S: Final = 0.2


class PressurePart:
    """See the module."""

    def __init__(self, runtime: Runtime) -> None:
        self.rt = runtime
        #: What the node was told last.
        self._told = False
        self._running = False
        runtime.pump.on(MemoryPressure, self._pressed)
        if memory_pressure.has_callbacks():  # Registered before init(): told once we are known.
            runtime.pump.after(_TELL_AFTER_S, self._tell)

    def changed(self) -> None:
        """Callbacks came or went. From any thread."""
        self.rt.post(self._tell)

    def _tell(self) -> None:
        has_callbacks = memory_pressure.has_callbacks()
        if has_callbacks != self._told:
            self._told = has_callbacks
            self.rt.tell(self.rt.node.address, HandlesPressure(has_callbacks))

    def _pressed(self, sender: bytes, message: MemoryPressure) -> None:
        if self._running or not (self._told or self.rt.mode == "worker"):
            return  # Callbacks of the last time still run: they know.
        self._running = True
        pressure = memory_pressure.MemoryPressure(
            used_bytes=message.used_bytes,
            limit_bytes=message.limit_bytes,
            threshold_bytes=message.threshold_bytes,
            soft_mark_bytes=message.soft_mark_bytes,
        )

        def run() -> None:
            run_callbacks(pressure)
            self.rt.post(self._handled)
            if self.rt.mode == "worker":
                _shrink()

        threading.Thread(target=run, name="mray-pressure", daemon=True).start()

    def _handled(self) -> None:
        self._running = False
        if self._told:
            self.rt.tell(self.rt.node.address, PressureHandled())


def _shrink() -> None:
    """Give back what nobody uses: garbage in cycles, and free pages that malloc keeps."""
    import ctypes

    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # Not in every C library.
    if trim is not None:
        trim(0)
