"""What a worker does for its runtime_env before it takes work: its path, and the user's hook.

Variables are set earlier (node/workers/child.py), and the parts were made by the node. A hook that
raises ends the worker with SETUP_FAILED, so that whoever waits for it gets RuntimeEnvSetupError
with the traceback in place of further tries.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback

import msgspec

from mray.runtime.params import SETUP_FAILED, WorkerParams


def set_path(params: WorkerParams) -> None:
    """Put the places of the environment before the driver's own, and those before ours."""
    job = params.job
    theirs = list(job.sys_path)
    if params.places.working_dir:
        # The driver's directory is what the package was made of: what was excluded is not there.
        hidden = {job.cwd, *theirs[:1]}
        theirs = [path for path in theirs if path not in hidden]
    own = [path for path in (params.places.working_dir, *params.places.module_paths) if path]
    if params.places.python:
        # Packages of that interpreter come before those of the driver's.
        first, last = theirs[:1] + ([job.cwd] if job.cwd in theirs[1:] else []), theirs[1:]
        if params.places.working_dir:
            first, last = [], theirs
    else:
        first, last = theirs, []
    for path in reversed([*own, *first]):
        if path and (path not in sys.path or path in own):
            sys.path.insert(0, path)
    sys.path += [path for path in last if path and path not in sys.path]


def run_hook(params: WorkerParams) -> None:
    """Call the environment's ``worker_process_setup_hook``; ends the process where it raises."""
    env = msgspec.msgpack.decode(params.runtime_env) if params.runtime_env else {}
    name = env.get("worker_process_setup_hook")
    if not name:
        return
    try:
        if params.places.hook_path:
            import cloudpickle

            with open(params.places.hook_path, "rb") as file:
                hook = cloudpickle.loads(file.read())
        else:
            module, _, function = name.replace(":", ".").rpartition(".")
            hook = getattr(importlib.import_module(module), function)
        hook()
    except Exception:
        traceback.print_exc()
        print("mray: the worker_process_setup_hook of the runtime_env failed", file=sys.stderr)
        sys.stderr.flush()
        sys.stdout.flush()
        os._exit(SETUP_FAILED)
