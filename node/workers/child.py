"""What a new worker process does first, before any of its own code: forked or started anew.

Covers: its process session, whom to die with, signals, priority, log files, inherited descriptors,
environment variables, random seeds. What a worker is afterwards is mray.runtime.worker's.

It dies with the node daemon by PR_SET_PDEATHSIG. That is set only once the daemon is the parent
(the kernel gives a forked worker to it when the process in between ends), and the parent is looked
at again afterwards: where it died before, no signal would ever come.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from typing import Final, NoReturn

import msgspec

from mray.config import Config
from mray.node.workers.environment import MAKER_VARIABLE, NODE_VARIABLE, RuntimeEnv
from mray.runtime.params import WorkerParams

RunWorker = Callable[[WorkerParams], NoReturn]
_PR_SET_PDEATHSIG: Final = 1
#: How long the kernel may take to make the daemon our parent; it takes microseconds.
_ADOPTION_S: Final = 10.0
#: A worker whose node is gone: nobody reads this code.
_ORPHANED: Final = 1
_RESET_SIGNALS: Final = (
    signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1, signal.SIGUSR2,
    signal.SIGXFSZ,
)  # fmt: skip

_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """Have the kernel signal this process when its parent ends; 0 undoes it. OSError."""
    if _libc.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl(PR_SET_PDEATHSIG): {os.strerror(code)}")


def find_main(name: str) -> RunWorker:
    """The function that ``module:function`` names."""
    module, _, function = name.partition(":")
    found: RunWorker = getattr(importlib.import_module(module), function)
    return found


def log_paths(params: WorkerParams, pid: int) -> tuple[str, str]:
    """Where a worker writes its output and its errors; Ray's names."""
    stem = f"{params.node.log_dir}/worker-{params.process_id.hex()}-{params.job.job_id.hex()}-{pid}"
    return f"{stem}.out", f"{stem}.err"


def begin(params: WorkerParams, run_worker: RunWorker) -> NoReturn:
    """Become the worker. Never returns."""
    if os.getsid(0) != os.getpid():
        os.setsid()
    _bind_to_node(params.node_pid)
    _reset_signals()
    out, err = log_paths(params, os.getpid())
    _open_logs(out, err)
    _close_inherited()
    _set_priority(params)
    environ = RuntimeEnv.read(params.runtime_env).over(os.environ)
    environ[NODE_VARIABLE] = params.node.node_id.hex()
    environ[MAKER_VARIABLE] = params.process_id.hex()
    bin_dir = os.path.dirname(params.places.python[0]) if params.places.python else ""
    if bin_dir:
        environ["PATH"] = f"{bin_dir}:{environ.get('PATH', os.defpath)}"
    parts = [path for path in (params.places.working_dir, *params.places.module_paths) if path]
    if parts:
        # For interpreters that its tasks start; its own path is set by the worker.
        former = [environ["PYTHONPATH"]] if environ.get("PYTHONPATH") else []
        environ["PYTHONPATH"] = os.pathsep.join([*parts, *former])
    os.environ.update(environ)
    _reseed()
    run_worker(msgspec.structs.replace(params, out_path=out, err_path=err))


def _bind_to_node(node_pid: int) -> None:
    give_up_at = time.monotonic() + _ADOPTION_S
    while os.getppid() != node_pid:
        if time.monotonic() > give_up_at or not os.path.exists(f"/proc/{node_pid}"):
            os._exit(_ORPHANED)
        time.sleep(0.0002)
    die_with_parent()
    if os.getppid() != node_pid:
        os._exit(_ORPHANED)


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in _RESET_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _open_logs(out: str, err: str) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    for number, path in ((1, out), (2, err)):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    # A line at a time: the driver shows whole lines, and a crash must not take them along.
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = open(number, "w", 1, "utf-8", "backslashreplace", closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _close_inherited() -> None:
    for name in os.listdir("/proc/self/fd"):
        number = int(name)
        if number > 2:
            try:
                os.close(number)
            except OSError:
                continue  # The descriptor of the listing itself.


def _set_priority(params: WorkerParams) -> None:
    workers = Config.from_bytes(params.config).workers
    try:
        with open("/proc/self/oom_score_adj", "r+", encoding="ascii") as file:
            wanted = max(int(file.read()), workers.worker_oom_score_adjustment)
            file.seek(0)
            file.write(str(wanted))
    except OSError as error:
        print(f"mray: oom_score_adj cannot be set: {error}", file=sys.stderr)
    missing = workers.worker_niceness - os.getpriority(os.PRIO_PROCESS, 0)
    if missing > 0:
        os.nice(missing)


def _reseed() -> None:
    """Forked workers must not all draw the same numbers."""
    random.seed()
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
