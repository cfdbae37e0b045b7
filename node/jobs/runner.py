"""The jobs that run on this node: starts their drivers, signals them, tells how they ended.

A driver is told to be ended only when all that it printed is in its log: its pipe is at its end,
or two seconds have passed in which a process it left behind kept the pipe open. What it left
behind is killed when it ends.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Final

from mray.config.sections import Logs
from mray.node.environments.service import Environments
from mray.node.jobs import launcher
from mray.node.jobs.output import OutputCopier
from mray.node.workers.children import Children
from mray.node.workers.death import cause_of, describe
from mray.node.workers.environment import MAKER_VARIABLE, NODE_VARIABLE, RuntimeEnv
from mray.node.workers.processes import Processes
from mray.node.workers.strays import Maker
from mray.process import read_stat
from mray.rpc.pump import Pump, Timer
from mray.runtime.params import Places
from mray.wire.messages import DeathCause, JobExited, JobStarted, Message, SignalJob, StartJob

log = logging.getLogger("mray.node")

#: How long a driver's pipe may stay open after its end.
PIPE_S: Final = 2.0
_STATUS_FD: Final = 3
_ENDED_MAX: Final = 100
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,200}")
_DEFAULT_SIGNALS: Final = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGCHLD)


class _Job:
    __slots__ = ("cause", "copier", "kill_timer", "log_name", "pid", "pipe_timer", "status_fd",
                 "stop_text", "submission_id", "told", "written")  # fmt: skip

    def __init__(self, submission_id: str, log_name: str) -> None:
        self.submission_id = submission_id
        self.log_name = log_name
        self.pid = 0
        self.copier: OutputCopier | None = None
        #: Says why the driver's program could not be run; -1 once that is known.
        self.status_fd = -1
        #: Whether JobStarted has been sent.
        self.told = False
        self.cause: DeathCause | None = None
        #: All that was printed is in the log.
        self.written = False
        self.stop_text = ""
        self.kill_timer: Timer | None = None
        self.pipe_timer: Timer | None = None


class JobRunner:
    """``tell_head(message)``; ``on_log_done(log_name)`` when a job's log has become complete."""

    def __init__(
        self,
        pump: Pump,
        children: Children,
        processes: Processes,
        *,
        node_id: bytes,
        log_dir: str,
        logs: Logs,
        cluster_address: str,
        tell_head: Callable[[Message], None],
        environments: Environments,
        on_log_done: Callable[[str], None],
    ) -> None:
        self._pump = pump
        self._children = children
        self._processes = processes
        self._node_id = node_id
        self._log_dir = log_dir
        self._logs = logs
        self._cluster_address = cluster_address
        self._tell_head = tell_head
        self._environments = environments
        self._on_log_done = on_log_done
        self._jobs: dict[str, _Job] = {}
        #: How the last drivers ended, by pid.
        self._ended: dict[int, DeathCause] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def running(self) -> list[tuple[str, int]]:
        """Submission ids with the pids of their drivers, 0 for one that is being started."""
        return [(name, job.pid if job.told else 0) for name, job in self._jobs.items()]

    def log_is_open(self, log_name: str) -> bool:
        """Whether a job still writes this log."""
        return any(job.log_name == log_name for job in self._jobs.values())

    def cause_of_pid(self, pid: int) -> DeathCause | None:
        """How the driver with this pid has ended, while that is remembered."""
        return self._ended.get(pid)

    # -- starting

    def start_job(self, message: StartJob, places: Places, error: str) -> None:
        """Start a driver in its environment, which is there, or not: ``error``. JobStarted
        answers, later JobExited. Idempotent."""
        submission_id = message.submission_id
        if submission_id in self._jobs:
            return
        if error:
            self._refuse(submission_id, f"its runtime_env cannot be made: {error}")
            return
        log_name = f"job-driver-{submission_id}.log"
        if not _NAME.fullmatch(submission_id):
            text = (
                f"{submission_id!r} cannot be a submission id: use letters, digits, '.', '_', '-'"
            )
            self._tell_head(JobStarted(submission_id, 0, text))
            return
        job = _Job(submission_id, log_name)
        try:
            env = RuntimeEnv.read(message.runtime_env)
            cwd = places.working_dir or message.cwd
            missing = _missing_script(message.entrypoint, cwd)
            if missing:
                raise ValueError(missing)
            argv = message.entrypoint
            if places.python and argv[0] == sys.executable:
                argv = [*places.python, *argv[1:]]
            self._spawn(job, argv, cwd, self._environ(message, env, places))
        except (OSError, ValueError) as error:
            self._refuse(submission_id, str(error))
            return
        self._jobs[submission_id] = job

    def _refuse(self, submission_id: str, why: str) -> None:
        """A driver cannot be started: its log and the head say why."""
        log.info("job %s cannot be started: %s", submission_id, why)
        if _NAME.fullmatch(submission_id):
            log_name = f"job-driver-{submission_id}.log"
            self._leave_note(log_name, f"mray: the job could not be started: {why}\n")
            self._on_log_done(log_name)
        self._tell_head(JobStarted(submission_id, 0, why))
        self._environments.job_gone(submission_id.encode())

    def _environ(self, message: StartJob, env: RuntimeEnv, places: Places) -> dict[str, str]:
        environ = env.over(message.environ or os.environ)
        if places.python and os.path.dirname(places.python[0]):
            bin_dir = os.path.dirname(places.python[0])
            environ["PATH"] = f"{bin_dir}:{environ.get('PATH', os.defpath)}"
        parts = [path for path in (places.working_dir, *places.module_paths) if path]
        if parts:
            former = [environ["PYTHONPATH"]] if environ.get("PYTHONPATH") else []
            environ["PYTHONPATH"] = os.pathsep.join([*parts, *former])
        environ["MRAY_ADDRESS"] = environ["RAY_ADDRESS"] = self._cluster_address
        environ["MRAY_JOB_SUBMISSION_ID"] = message.submission_id
        environ[NODE_VARIABLE] = self._node_id.hex()
        environ[MAKER_VARIABLE] = message.submission_id
        # What it prints shall be in its log when it was printed, not when it ends.
        environ.setdefault("PYTHONUNBUFFERED", "1")
        session = os.environ.get("MRAY_SESSION_DIR")
        if session:
            environ["MRAY_SESSION_DIR"] = session
        return environ

    def _spawn(self, job: _Job, argv: list[str], cwd: str, environ: Mapping[str, str]) -> None:
        out_read, out_write = os.pipe2(os.O_CLOEXEC)
        status_read, status_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            job.copier = OutputCopier(
                out_read,
                f"{self._log_dir}/{job.log_name}",
                self._logs.log_rotation_max_bytes,
                self._logs.log_rotation_backup_count,
                lambda: self._pump.call_soon(lambda: self._written(job)),
            )
            job.pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-I", "-S", launcher.__file__, str(os.getpid()),
                 str(_STATUS_FD), cwd, *argv],
                environ,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, status_write, _STATUS_FD),
                    (os.POSIX_SPAWN_DUP2, out_write, 1),
                    (os.POSIX_SPAWN_DUP2, out_write, 2),
                ],
                setsid=True,
                setsigdef=_DEFAULT_SIGNALS,
            )  # fmt: skip
        except BaseException:
            os.close(out_read)
            os.close(status_read)
            raise
        finally:
            os.close(out_write)
            os.close(status_write)
        job.status_fd = status_read
        job.copier.start()
        stat = read_stat(job.pid)
        start_time = stat.start_time if stat is not None else 0
        self._processes.other_makers[job.pid] = Maker(job.pid, start_time, job.submission_id)
        self._children.watch(job.pid, lambda status: self._exited(job, status))
        self._pump.door.watch(status_read, lambda: self._hear_status(job))

    def _leave_note(self, log_name: str, text: str) -> None:
        """Whoever follows the log of the job shall see why nothing comes."""
        try:
            with open(f"{self._log_dir}/{log_name}", "a", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            log.warning("%s cannot be written: %s", log_name, error)

    def _hear_status(self, job: _Job) -> None:
        """The launcher has become the driver (the pipe is closed), or says why it could not."""
        if job.told:
            return
        try:
            text = os.read(job.status_fd, 4096).decode("utf-8", "replace")
        except BlockingIOError:
            return
        self._pump.door.unwatch(job.status_fd)
        os.close(job.status_fd)
        job.status_fd = -1
        job.told = True
        if text:
            job.stop_text = text
            self._tell_head(JobStarted(job.submission_id, 0, text))
        else:
            log.info("job %s runs as pid %d", job.submission_id, job.pid)
            self._tell_head(JobStarted(job.submission_id, job.pid))

    # -- ending

    def signal_job(self, sender: bytes, message: SignalJob) -> None:
        """Signal a driver's process group; SIGKILL it after the wait. Idempotent."""
        job = self._jobs.get(message.submission_id)
        if job is None and self._environments.stop_job(message.submission_id):
            text = "it was stopped before its runtime_env was there"
            cause = DeathCause("intended", text, node_id=self._node_id)
            self._tell_head(JobExited(message.submission_id, cause))
            self._environments.job_gone(message.submission_id.encode())
        if job is None or job.cause is not None:
            return
        name = signal.Signals(message.signal).name
        job.stop_text = job.stop_text or f"stopped on request with {name}"
        self._signal(job, message.signal)
        if job.kill_timer is None:
            job.kill_timer = self._pump.after(message.wait_s, lambda: self._overdue(job, message))

    def _overdue(self, job: _Job, message: SignalJob) -> None:
        name = signal.Signals(message.signal).name
        if message.signal != signal.SIGKILL:
            job.stop_text += f", killed {message.wait_s:g} s after it"
        log.warning("job %s (pid %d) did not end within %g s after %s: killing it",
                    job.submission_id, job.pid, message.wait_s, name)  # fmt: skip
        self._signal(job, signal.SIGKILL)

    def stop_all(self, wait_s: float) -> None:
        """The node ends: SIGTERM to all drivers, SIGKILL after ``wait_s``."""
        for submission_id in list(self._jobs):
            self.signal_job(b"", SignalJob(submission_id, signal.SIGTERM, wait_s))

    def _signal(self, job: _Job, number: int) -> None:
        try:
            os.killpg(job.pid, number)
        except ProcessLookupError:
            return  # Ended, and soon reaped.

    def _exited(self, job: _Job, status: int) -> None:
        if job.status_fd >= 0:
            self._hear_status(job)
        if job.kill_timer is not None:
            job.kill_timer.cancel()
        intent = DeathCause("killed", job.stop_text) if job.stop_text else None
        job.cause = cause_of(status, pid=job.pid, node_id=self._node_id, intent=intent)
        self._ended[job.pid] = job.cause
        while len(self._ended) > _ENDED_MAX:
            del self._ended[next(iter(self._ended))]
        maker = self._processes.other_makers.pop(job.pid)
        self._processes.makers_ended([maker])
        if job.written:
            self._finish(job)
        else:
            assert job.copier is not None
            job.pipe_timer = self._pump.after(PIPE_S, job.copier.stop)

    def _written(self, job: _Job) -> None:
        job.written = True
        if job.copier is not None:
            job.copier.join()
        if job.cause is not None:
            self._finish(job)

    def _finish(self, job: _Job) -> None:
        if job.pipe_timer is not None:
            job.pipe_timer.cancel()
        assert job.cause is not None
        del self._jobs[job.submission_id]
        log.info("job %s (pid %d) ended: %s", job.submission_id, job.pid, describe(job.cause))
        self._on_log_done(job.log_name)
        self._tell_head(JobExited(job.submission_id, job.cause))
        self._environments.job_gone(job.submission_id.encode())


def _missing_script(argv: list[str], cwd: str) -> str:
    """Why a Python driver cannot start, where that is plain: the script is not there."""
    if len(argv) < 2 or not re.fullmatch(r"python[0-9.]*", os.path.basename(argv[0])):
        return ""
    script = argv[1]
    if script[:3] == "-m" or script.startswith("-"):
        return ""
    path = os.path.join(cwd or os.getcwd(), script)
    return "" if os.path.exists(path) else f"there is no script {path}"
