"""``python -m mray.node.workers.fresh FD MAIN``: a worker in an interpreter of its own.

For environments that the interpreter or a library reads only when it is loaded. Slower than a fork
by an import of everything, the same in all else. FD is a memory file of WorkerParams.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import msgspec

from mray.node.workers import child
from mray.runtime.params import WorkerParams


def run_from(params_fd: int, run_worker: child.RunWorker) -> NoReturn:
    """Become the worker that the memory file describes."""
    size = os.fstat(params_fd).st_size
    data = os.pread(params_fd, size, 0)
    child.begin(msgspec.msgpack.decode(data, type=WorkerParams), run_worker)


def main(arguments: list[str]) -> NoReturn:
    """Run one worker."""
    run_from(int(arguments[0]), child.find_main(arguments[1]))


if __name__ == "__main__":
    main(sys.argv[1:])
