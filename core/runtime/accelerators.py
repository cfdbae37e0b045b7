"""Which GPUs the running task or actor has, and that its libraries see no others.

Owns what this process knows of its GPUs and CUDA_VISIBLE_DEVICES while it runs. The numbers are the
node's, counted from 0 (node/sched/gpus.py); where the variable named devices when the process
started, they count among those. A task's GPUs end with it, and so does what it saw in the variable;
an actor has its own for life.

As in Ray, a task without GPUs finds the variable as it was, unless
RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=1 asks for none to be seen; and
RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES=1 leaves the variable alone.

Of CPUs it says the number: OMP_NUM_THREADS is how many the task or actor has, at least 1, unless
the user has set it. Libraries that were imported before (numpy) do not look again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mray.resources import UNIT
from mray.wire.messages import GetGpus, GpusHeld

if TYPE_CHECKING:
    from mray.runtime.runtime import Runtime

_THREADS_OURS = "MRAY_THREADS_ARE_OURS"
_VISIBLE = "CUDA_VISIBLE_DEVICES"
_ON_ZERO = "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"
_LEAVE_ALONE = "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"
#: Kinds of devices that Ray names and mray does not hand out.
OTHER_KINDS = ("TPU", "neuron_cores", "HPU", "NPU", "FURIOSA", "RBLN", "MBLT", "TTNPU")


def _is_set(name: str) -> bool:
    return os.environ.get(name, "").lower() in ("1", "true")


class Accelerators:
    """See the module. Made when the process has the environment of its tasks."""

    def __init__(self, runtime: Runtime) -> None:
        self.rt = runtime
        self._found = os.environ.get(_VISIBLE)
        self._sets = not _is_set(_LEAVE_ALONE)
        #: OMP_NUM_THREADS as it is now; None: it is the user's. node/workers/spawner.py says so.
        self._threads = 1 if os.environ.pop(_THREADS_OURS, "") else None
        self._hides = _is_set(_ON_ZERO) and self._sets
        #: Of what runs now.
        self._numbers: list[int] = []

    def concern(self, resources: Mapping[str, int]) -> bool:
        """Whether what has these resources has to ``enter``."""
        return self._hides or "GPU" in resources

    def count_threads(self, resources: Mapping[str, int]) -> None:
        """What runs from now on has these resources."""
        if self._threads is not None:
            count = max(1, resources.get("CPU", 0) // UNIT)
            if count != self._threads:
                self._threads = count
                os.environ["OMP_NUM_THREADS"] = str(count)

    def enter(self, resources: Mapping[str, int]) -> None:
        """A task or actor with these resources begins. RpcError if the node does not answer."""
        self._numbers = []
        if "GPU" in resources:
            self._numbers = self.rt.ask(self.rt.node.address, GetGpus, GpusHeld).numbers
        if self._sets and (self._numbers or self._hides):
            os.environ[_VISIBLE] = ",".join(str(device) for device in self.gpu_ids())

    def leave(self) -> None:
        """The task is over."""
        self._numbers = []
        if not self._sets:
            return
        if self._found is None:
            os.environ.pop(_VISIBLE, None)
        else:
            os.environ[_VISIBLE] = self._found

    def gpu_ids(self) -> list[int] | list[str]:
        """The GPUs of what runs now: numbers, or names from CUDA_VISIBLE_DEVICES if it was set."""
        if self._found is None or not self._numbers:
            return list(self._numbers)
        names = self._found.split(",") if self._found else []
        if any(number >= len(names) for number in self._numbers):
            return names  # Narrower than the node's: runtime_env says which may be seen.
        return [names[number] for number in self._numbers]
