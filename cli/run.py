"""`mray run`: a driver with a cluster of its own, which ends with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Annotated

import typer

from mray.cli import arguments
from mray.cli.failure import Failure, WrongUsage

app = typer.Typer(add_completion=False)


@app.command(context_settings={"allow_interspersed_args": False}, no_args_is_help=True)
def run(
    script: Annotated[
        str, typer.Argument(metavar="SCRIPT", show_default=False, help="A Python script.")
    ],
    args: Annotated[
        list[str] | None,
        typer.Argument(metavar="ARGS", show_default=False, help="Its arguments."),
    ] = None,
    module: Annotated[
        bool, typer.Option("-m", "--module", help="SCRIPT is a module, as in python -m.")
    ] = False,
    as_ray: Annotated[
        bool,
        typer.Option(
            "--as-ray",
            help="`import ray` in the script means mray. On by itself where no Ray is installed.",
        ),
    ] = False,
    num_cpus: Annotated[
        float | None, typer.Option("--num-cpus", min=0, metavar="N", help="CPUs of the cluster.")
    ] = None,
    num_gpus: Annotated[
        float | None, typer.Option("--num-gpus", min=0, metavar="N", help="GPUs of the cluster.")
    ] = None,
    resources: Annotated[
        str | None,
        typer.Option("--resources", metavar="JSON", help="More resources: '{\"license\": 2}'."),
    ] = None,
    object_store_memory: Annotated[
        str | None,
        typer.Option(
            "--object-store-memory", metavar="SIZE", help="Capacity of the store: 2GiB, or bytes."
        ),
    ] = None,
) -> None:
    """Run a script with a cluster of its own: no `mray start` before, no `mray stop` after.

    The cluster starts when the script first needs it and ends with the script,
    however that ends. What the script itself says to init() wins over the
    options. The exit code is the script's.

    \b
      mray run script.py --its-own-option
      mray run --num-cpus 4 script.py
      mray run --as-ray script_that_imports_ray.py
    """
    if not module and not os.path.isfile(script):
        raise WrongUsage(f"the script {script} does not exist in {os.getcwd()}")
    environment = {**os.environ, "MRAY_ADDRESS": "local"}
    defaults: dict[str, object] = {"num_cpus": num_cpus, "num_gpus": num_gpus}
    if resources:
        defaults["resources"] = arguments.resources(resources)
    if object_store_memory:
        option = "--object-store-memory"
        defaults["object_store_memory"] = arguments.size(object_store_memory, option)
    given = {name: value for name, value in defaults.items() if value is not None}
    # Private, but the one way to hand on -X, -W and -O; multiprocessing does the same.
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    launch = ["-m", "mray.launch", *(["--as-ray"] if as_ray else [])]
    launch += ["--init", json.dumps(given)] if given else []
    launch += ["-m"] if module else []
    sys.stdout.flush()
    sys.stderr.flush()
    # In place of this process: signals, exit code and terminal are the script's own.
    try:
        os.execve(
            sys.executable,
            [sys.executable, *flags, *launch, script, *(args or [])],
            environment,
        )
    except OSError as error:
        raise Failure(f"{sys.executable} cannot be run: {error.strerror}") from error
