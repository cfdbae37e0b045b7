"""`mray stop`: ends the processes of sessions, exactly those, and names what would not end."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

import typer

from mray.cli.failure import FAILED, Failure
from mray.cli.progress import waiting
from mray.cli.render import note
from mray.cli.settings import settings
from mray.session import ProcessRecord, Session, all_running, all_sessions
from mray.session_end import EndReport, end_session
from mray.units import format_count

app = typer.Typer(add_completion=False)


def _complete_session(incomplete: str) -> list[str]:
    names = (session.name for session in all_running(settings().config.node.tmpdir))
    return [name for name in names if name.startswith(incomplete)]


@app.command()
def stop(
    session: Annotated[
        str | None,
        typer.Option(
            "--session", metavar="NAME", autocompletion=_complete_session,
            help="Only the session of this name or directory; a prefix will do.",
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Also clusters that programs started by init().")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Kill at once instead of asking first.")
    ] = False,
    grace_period: Annotated[
        float,
        typer.Option(
            "--grace-period", "-g", min=0, metavar="SECONDS",
            help="How long processes may take to end before they are killed.",
        ),
    ] = 16.0,
) -> int:  # fmt: skip
    """Stop your clusters on this machine: those that `mray start` started.

    Only processes of the session are stopped, known by pid and start time, never
    by name. Logs stay. Exit code 1 if a process survives, which is then named; 0
    if nothing runs.

    \b
      mray stop
      mray stop --session session_2026-01-31_12-00-00_123456_4121
      mray stop --all --force
    """
    tmpdir = settings().config.node.tmpdir
    chosen, left = _choose(tmpdir, session, everything=everything)
    if not chosen:
        hint = f"; {_programs(left)} left alone (--all)" if left else ""
        print(f"nothing to stop: no cluster of yours runs on this machine{hint}")
        return 0
    with waiting(f"stopping {format_count(len(chosen), 'session')}"):
        reports = _end_all(chosen, force=force, grace_s=grace_period)
    stopped = [record for report in reports for record in report.stopped]
    survivors = [record for report in reports for record in report.survivors]
    names = ", ".join(one.name for one in chosen)
    hint = f"; {_programs(left)} left alone (--all)" if left else ""
    print(f"stopped {_counts(stopped)} of {names}{hint}")
    for record in survivors:
        note(f"still alive: {record.kind} pid {record.pid} {record.name}".rstrip())
    return FAILED if survivors else 0


def _choose(
    tmpdir: str, name: str | None, *, everything: bool
) -> tuple[list[Session], list[Session]]:
    """The sessions to stop, and the running ones that are left alone because of who made them."""
    try:
        sessions = [one for one in all_sessions(tmpdir) if not one.ended]
    except OSError as error:
        raise Failure(f"sessions cannot be looked up: {error}") from error
    if name is not None:
        found = [
            one
            for one in sessions
            if name.rstrip("/") in (one.name, one.path) or one.name.startswith(name)
        ]
        if not found:
            running = ", ".join(one.name for one in sessions) or "none runs"
            raise Failure(f"no session {name!r} is there to stop; running: {running}")
        if len(found) > 1:
            raise Failure(f"{name!r} means several: {', '.join(one.name for one in found)}")
        return found, []
    chosen = [one for one in sessions if everything or _started_by(one) == "cli"]
    return chosen, [one for one in sessions if one not in chosen and one.running()]


def _started_by(session: Session) -> str:
    try:
        return session.info().started_by
    except (FileNotFoundError, ValueError):
        # Its start was cut short, or it is being made this moment by a start or an init().
        return "cli" if session.processes() else ""


def _end_all(sessions: list[Session], *, force: bool, grace_s: float) -> list[EndReport]:
    """End them side by side: nodes that are told of their head's end would only wait for it."""

    def end(session: Session) -> EndReport:
        return end_session(session, force=force, grace_s=grace_s)

    if len(sessions) == 1:
        return [end(sessions[0])]
    with ThreadPoolExecutor(max_workers=min(16, len(sessions))) as pool:
        return list(pool.map(end, sessions))


def _counts(records: list[ProcessRecord]) -> str:
    """ "1 head, 1 node, 4 workers"."""
    kinds = Counter(record.kind for record in records)
    return ", ".join(format_count(count, kind) for kind, count in kinds.items()) or "nothing left"


def _programs(left: list[Session]) -> str:
    return format_count(len(left), "cluster that a program started is",
                        "clusters that programs started are")  # fmt: skip
