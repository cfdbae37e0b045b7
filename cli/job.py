"""`mray job`: submitted jobs, their state, their logs and their end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Any, Final

import typer

from mray.cli.cluster import Cluster, connect
from mray.cli.failure import FAILED, INTERRUPTED, Failure
from mray.cli.follow import ENDED, current, ending, exit_code, follow, standard_output
from mray.cli.options import Address, AsJson
from mray.cli.progress import waiting
from mray.cli.render import moment, note, print_json, print_table, span
from mray.cli.submit import SubmitCommand, submit
from mray.wire.messages import Ack, JobDetails, StopJob

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Submit, list, watch and stop jobs.\n\n"
    "\b\n  mray job submit --no-wait job.py\n  mray job list\n  mray job logs -f ID\n",
)

#: A stopped driver gets its grace (job_stop_wait_time_s, 3 s) and is killed then.
_STOP_TIMEOUT_S: Final = 60.0
_COMPLETION_TIMEOUT_S: Final = 0.2


def _complete_id(incomplete: str) -> list[str]:
    """Submission ids for the shell; nothing where that would take longer than 200 ms."""
    from mray.cli.completion import within

    def ids() -> list[str]:
        with connect(None) as cluster:
            return [job.submission_id or job.job_id.hex() for job in cluster.jobs()]

    return [id for id in within(_COMPLETION_TIMEOUT_S, ids) if id.startswith(incomplete)]


JobId = Annotated[
    str,
    typer.Argument(
        metavar="ID", show_default=False, autocompletion=_complete_id,
        help="Submission id or job id; the first characters will do.",
    ),
]  # fmt: skip

app.command(
    "submit",
    cls=SubmitCommand,
    context_settings={"allow_interspersed_args": False},
    no_args_is_help=True,
)(submit)


@app.command("list")
def list_jobs(address: Address = None, as_json: AsJson = False) -> None:
    """List all jobs, newest first.

    \b
      mray job list
      mray job list --json | jq '.[] | select(.status == "RUNNING")'
    """
    with connect(address) as cluster:
        jobs = newest_first(cluster.jobs())
    if as_json:
        print_json([facts(job) for job in jobs])
    elif not jobs:
        print("no jobs so far")
    else:
        print_table(
            ["id", "status", "started", "took", "entrypoint"],
            [
                [
                    job.submission_id or job.job_id.hex(),
                    job.status,
                    moment(job.start_unix_s)[5:-3],
                    span(job.start_unix_s, job.end_unix_s),
                    job.entrypoint,
                ]
                for job in jobs
            ],
            right=["took"],
        )


@app.command("status")
def job_status(id: JobId, address: Address = None, as_json: AsJson = False) -> None:
    """Show one job: its state, exit code, times and log.

    \b
      mray job status nightly
      mray job status nightly --json | jq -r .status
    """
    with connect(address) as cluster:
        job = one_job(cluster, id)
    if as_json:
        print_json(facts(job))
        return
    if job.status in ENDED:
        print(ending(job))
    else:
        took = span(job.start_unix_s, 0)
        print(f"job {job.submission_id or job.job_id.hex()} is {job.status}, since {took}")
    lines = {
        "entrypoint": job.entrypoint,
        "message": job.message,
        "exit code": "" if job.exit_code is None else str(job.exit_code),
        "started": moment(job.start_unix_s),
        "ended": moment(job.end_unix_s) if job.end_unix_s else "",
        "job id": job.job_id.hex(),
        "driver": f"pid {job.pid}" if job.pid else "",
        "node": job.node_id.hex()[:12],
        "log": f"mray job logs {job.submission_id}" if job.log_name else "",
        "metadata": ", ".join(f"{key}={value}" for key, value in sorted(job.metadata.items())),
    }
    for label, text in lines.items():
        if text:
            print(f"  {label:<12}{text}")


@app.command("logs")
def job_logs(
    id: JobId,
    follow_it: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job ends.")
    ] = False,
    tail: Annotated[
        int, typer.Option("--tail", metavar="N", help="The last N lines; -1: all.")
    ] = -1,
    address: Address = None,
) -> int:
    """Print what a job's driver printed.

    \b
      mray job logs nightly --tail 100
      mray job logs -f nightly
    """
    from mray.cli.log_sources import ClusterLogs
    from mray.cli.logs import print_log

    with connect(address) as cluster:
        job = one_job(cluster, id)
        if not job.log_name:
            raise Failure(
                f"job {job.job_id.hex()} was not submitted, it connected by itself: its output "
                "went to its own terminal"
            )
        if follow_it:
            try:
                job = follow(cluster, job, standard_output(), offset=-tail if tail > 0 else 0)
            except KeyboardInterrupt:
                note(f"interrupted; job {job.submission_id} goes on")
                return INTERRUPTED
            note(ending(job))
            return 0
        if not job.node_id:
            note(f"job {job.submission_id} is {job.status}: it has no log yet")
            return 0
        print_log(ClusterLogs(cluster, cluster.node_of(job.node_id)), job.log_name, tail=tail)
        return 0


@app.command("stop")
def stop_job(
    id: JobId,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Ask only; do not wait for the end.")
    ] = False,
    address: Address = None,
) -> int:
    """Stop a job: its job_stop_signal, and SIGKILL after job_stop_wait_time_s.

    Exit code 0 once the job has ended, also where it had ended before.

    \b
      mray job stop nightly
    """
    with connect(address) as cluster:
        job = one_job(cluster, id)
        if job.status in ENDED:
            print(f"nothing to stop: {ending(job)}")
            return 0
        name = job.submission_id
        if not name:
            raise Failure(
                f"job {job.job_id.hex()} was not submitted, it connected by itself: "
                f"end its driver, pid {job.pid}"
            )
        cluster.ask_head(lambda rid: StopJob(rid, name), Ack, timeout_s=10.0)
        if no_wait:
            print(f"job {name} was told to stop")
            return 0
        with waiting(f"waiting for job {name} to end"):
            job = wait_ended(cluster, name)
    if job.status not in ENDED:
        note(f"job {name} has not ended after {_STOP_TIMEOUT_S:g} s: it is {job.status}")
        return FAILED
    print(ending(job))
    return 0


def wait_ended(
    cluster: Cluster,
    submission_id: str,
    timeout_s: float = _STOP_TIMEOUT_S,
    sleep: Callable[[float], None] = time.sleep,
) -> JobDetails:
    """The job when it has ended, or as it is after ``timeout_s``."""
    give_up_at = time.monotonic() + timeout_s
    pause_s = 0.02
    while True:
        job = current(cluster, submission_id)
        if job.status in ENDED or time.monotonic() > give_up_at:
            return job
        sleep(pause_s)
        pause_s = min(2 * pause_s, 0.25)


def one_job(cluster: Cluster, id: str) -> JobDetails:
    """The one job that ``id`` means. Failure where it means none, or several, which it lists."""
    found = matching_jobs(cluster, id)
    if not found:
        raise Failure(f"there is no job {id!r}; `mray job list` lists all")
    if len(found) > 1:
        names = [job.submission_id or job.job_id.hex() for job in found[:10]]
        names += ["..."] if len(found) > 10 else []
        raise Failure(f"{id!r} means {len(found)} jobs: {', '.join(names)}")
    return found[0]


def matching_jobs(cluster: Cluster, id: str) -> list[JobDetails]:
    """The job with this submission id or job id, else those whose ids begin so."""
    jobs = cluster.jobs()
    exact = [job for job in jobs if id in (job.submission_id, job.job_id.hex())]
    return exact or [
        job
        for job in jobs
        if job.submission_id.startswith(id)
        or job.submission_id.removeprefix("mraysubmit_").startswith(id)
        or (job.job_id and job.job_id.hex().startswith(id.lower()))
    ]


def newest_first(jobs: list[JobDetails]) -> list[JobDetails]:
    """Jobs by their start; those that have not begun come first."""
    return sorted(jobs, key=lambda job: -(job.start_unix_s or float("inf")))


def facts(job: JobDetails) -> dict[str, Any]:  # Any: JSON
    """A job for JSON."""
    return {
        "submission_id": job.submission_id or None,
        "job_id": job.job_id.hex() or None,
        "type": job.kind,
        "status": job.status,
        "entrypoint": job.entrypoint,
        "message": job.message,
        "exit_code": exit_code(job) if job.status in ENDED else None,
        "start_unix_s": job.start_unix_s or None,
        "end_unix_s": job.end_unix_s or None,
        "metadata": job.metadata,
        "driver_node_id": job.node_id.hex() or None,
        "driver_pid": job.pid or None,
        "log": job.log_name or None,
    }
