"""`mray submit`: a driver on the cluster, its output here, its exit code ours."""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import string
import sys
from collections.abc import Callable
from typing import Annotated, Any, Final

import msgspec
import typer
from typer.core import TyperCommand

from mray.cli import arguments
from mray.cli.cluster import Cluster, connect
from mray.cli.failure import INTERRUPTED, WrongUsage
from mray.cli.follow import current, ending, exit_code, follow, standard_output
from mray.cli.options import Address
from mray.cli.render import note
from mray.cli.settings import print_warnings, settings
from mray.environments import pack_environment
from mray.packages import SCHEME
from mray.uploads import PACKAGE_TIMEOUT_S, Uploads
from mray.wire.messages import Ack, JobSubmitted, Message, PackageState, StopJob, SubmitJob

app = typer.Typer(add_completion=False)

_ID_CHARACTERS: Final = string.ascii_letters + string.digits
#: Key of the parsing context: the words came after "--", so they are a command and no script.
_AS_COMMAND: Final = "mray.as_command"


class SubmitCommand(TyperCommand):
    """Notices whether the words to run came after "--", which typer drops."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # Any: typer's private context.
        words = list(args)
        rest = super().parse_args(ctx, args)
        command = ctx.params.get("command") or ()
        before = len(words) - len(command) - 1
        ctx.meta[_AS_COMMAND] = bool(command) and before >= 0 and words[before] == "--"
        return rest


@app.command(
    cls=SubmitCommand,
    context_settings={"allow_interspersed_args": False},
    no_args_is_help=True,
)
def submit(
    ctx: typer.Context,
    command: Annotated[
        list[str],
        typer.Argument(
            metavar="SCRIPT", show_default=False,
            help="A Python script and its arguments, or, after --, any command.",
        ),
    ],
    address: Address = None,
    module: Annotated[
        bool, typer.Option("-m", "--module", help="SCRIPT is a module, as in python -m.")
    ] = False,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Print the submission id and do not wait.")
    ] = False,
    working_dir: Annotated[
        str | None,
        typer.Option(
            "--working-dir", metavar="DIR",
            help="A directory or .zip file that is copied to the cluster: the driver and its "
            "workers run in the copy. Default: they run in this directory.",
        ),
    ] = None,
    runtime_env_json: Annotated[
        str | None,
        typer.Option(
            "--runtime-env-json", metavar="JSON",
            help="The environment, as in '{\"env_vars\": {\"DEBUG\": \"1\"}}'.",
        ),
    ] = None,
    runtime_env: Annotated[
        str | None,
        typer.Option("--runtime-env", metavar="FILE", help="The same, in a .json or .toml file."),
    ] = None,
    submission_id: Annotated[
        str | None,
        typer.Option(
            "--submission-id", "--job-id", metavar="ID", help="A name of your own for the job."
        ),
    ] = None,
    metadata_json: Annotated[
        str | None,
        typer.Option(
            "--metadata-json", metavar="JSON", help="Texts to keep with the job."
        ),
    ] = None,
    as_ray: Annotated[
        bool,
        typer.Option(
            "--as-ray",
            help="`import ray` in the script means mray. On by itself where no Ray is installed.",
        ),
    ] = False,
    stop_on_interrupt: Annotated[
        bool, typer.Option("--stop-on-interrupt", help="Ctrl-C stops the job as well.")
    ] = False,
) -> int:  # fmt: skip
    """Run a driver on the cluster and print its output, to the very last line.

    The exit code is the job's own, or 128 + the signal that killed it. Ctrl-C
    leaves the job running. This is what Ray calls `ray job submit`.

    \b
      mray submit job.py --epochs 3
      mray submit --no-wait --submission-id nightly job.py
      mray submit --runtime-env-json '{"env_vars": {"DEBUG": "1"}}' job.py
      mray submit -- python -c 'print("any command")'
    """
    env = _environment(runtime_env, runtime_env_json, working_dir)
    metadata = arguments.string_map(metadata_json, "--metadata-json") if metadata_json else {}
    given_id = arguments.submission_id(submission_id) if submission_id else ""
    working_dir = env.get("working_dir", "")
    cwd = working_dir if os.path.isdir(working_dir) else os.getcwd()
    as_command = bool(ctx.meta.get(_AS_COMMAND))
    if as_command and (as_ray or module):
        option = "--as-ray" if as_ray else "--module"
        raise WrongUsage(f"{option} goes with a Python script, not with a command after --")
    is_script = not (as_command or module or (working_dir and cwd != working_dir))
    words = [_script(command[0], cwd), *command[1:]] if is_script else command
    resolved = settings()
    print_warnings(resolved)
    with connect(address, resolved) as cluster:
        message = SubmitJob(
            rid=0,
            submission_id=given_id or new_submission_id(),
            entrypoint=words if as_command else _launch(words, module=module, as_ray=as_ray),
            display=shlex.join(command),
            runtime_env=pack_environment(_uploaded(env, cluster)),
            metadata=metadata,
            cwd=cwd,
            environ={},  # The node's own, with env_vars over it: as in Ray, not the user's.
        )
        cluster.ask_head(
            lambda rid: msgspec.structs.replace(message, rid=rid), JobSubmitted, timeout_s=10.0
        )
        if no_wait:
            print(message.submission_id)
            return 0
        note(f"job {message.submission_id} submitted to {cluster.address}")
        return watch(cluster, message.submission_id, stop_on_interrupt=stop_on_interrupt)


def watch(cluster: Cluster, submission_id: str, *, stop_on_interrupt: bool = False) -> int:
    """Print the job's output until it ends; returns the exit code. Ctrl-C ends the watching."""
    try:
        job = follow(cluster, current(cluster, submission_id), standard_output())
    except KeyboardInterrupt:
        if not stop_on_interrupt:
            note(
                f"interrupted; job {submission_id} goes on: `mray job logs -f {submission_id}` "
                f"follows it, `mray job stop {submission_id}` stops it"
            )
            return INTERRUPTED
        note(f"interrupted; stopping job {submission_id}")
        cluster.ask_head(lambda rid: StopJob(rid, submission_id), Ack)
        return INTERRUPTED
    note(ending(job))
    return exit_code(job)


def new_submission_id() -> str:
    """A fresh id, in the manner of Ray's."""
    return "mraysubmit_" + "".join(secrets.choice(_ID_CHARACTERS) for _ in range(16))


def _environment(
    file: str | None, text: str | None, working_dir: str | None
) -> dict[str, Any]:  # Any: JSON
    """The runtime environment of the options, its directory or zip absolute and there."""
    if file and text:
        raise WrongUsage("say either --runtime-env or --runtime-env-json, not both")
    env: dict[str, Any] = {}
    if file:
        env = arguments.checked_runtime_env(arguments.runtime_env_file(file), "--runtime-env")
    if text:
        option = "--runtime-env-json"
        env = arguments.checked_runtime_env(arguments.json_object(text, option), option)
    if working_dir is not None:
        env["working_dir"] = working_dir
    if env.get("working_dir") and not env["working_dir"].startswith(SCHEME):
        place = os.path.abspath(os.path.expanduser(env["working_dir"]))
        if not os.path.isdir(place) and not (place.endswith(".zip") and os.path.isfile(place)):
            raise WrongUsage(f"--working-dir: {env['working_dir']} is no directory or .zip file")
        env["working_dir"] = place
    return env


def _uploaded(env: dict[str, Any], cluster: Cluster) -> dict[str, Any]:
    """The environment with its directories and files brought to the cluster."""

    def ask(make: Callable[[int], Message]) -> Message:
        return cluster.ask_head(make, PackageState, timeout_s=PACKAGE_TIMEOUT_S)

    try:
        return Uploads().resolve(env, ask)
    except (OSError, ValueError) as error:
        raise WrongUsage(f"the runtime environment: {error}") from error


def _script(path: str, cwd: str) -> str:
    """The script as the driver, whose directory is ``cwd``, finds it. WrongUsage: not there."""
    if os.path.isfile(os.path.join(cwd, path)):
        return path
    if os.path.isfile(path):
        return os.path.abspath(path)
    if os.path.isdir(path):
        raise WrongUsage(f"{path} is a directory, not a script")
    hint = ""
    if os.sep not in path and shutil.which(path):
        hint = f"; to run the command {path}: mray submit -- {path} ..."
    raise WrongUsage(f"the script {path} does not exist in {cwd}{hint}")


def _launch(words: list[str], *, module: bool, as_ray: bool) -> list[str]:
    flags = [*(["--as-ray"] if as_ray else []), *(["-m"] if module else [])]
    return [sys.executable, "-m", "mray.launch", *flags, *words]
