"""The worker processes that live, and their ends: killing, reaping, naming the cause.

Covers: from the request for a worker to its DeathCause, SIGTERM and then SIGKILL, leftovers of the
dead. Which workers there should be is the pool's decision (pool.py), what an end means for leases,
objects and actors is told by whoever gets ``on_ended``.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

import msgspec

from mray.memory.kernel import OomKills
from mray.node.workers.child import log_paths
from mray.node.workers.children import Children
from mray.node.workers.death import cause_of, describe, read_tail
from mray.node.workers.spawner import Spawner
from mray.node.workers.strays import Maker, Strays
from mray.process import read_stat
from mray.progress import ProgressFile
from mray.rpc.pump import Pump, Timer
from mray.runtime.params import WorkerParams
from mray.wire.messages import DeathCause, EndTask, Ping

if TYPE_CHECKING:
    from mray.node.sched.holds import Hold

log = logging.getLogger("mray.node")

#: What a process sent last may still be on its way through our socket when its end is seen: a
#: result sealed just before it must not be lost, and it may have said why it ends. A unix socket is
#: read within a millisecond, but not where the machine is busy: it is asked so often whether it has
#: been read to its end, and for so long at most, for a fork of the process may keep it open.
_LAST_MESSAGES_S: Final = 0.01
_LAST_MESSAGES_MAX_S: Final = 0.1
#: A SIGKILL so soon after the kernel has counted a kill for memory is taken to be that one.
_KERNEL_KILL_S: Final = 3.0

OnEnded = Callable[[bytes, DeathCause], None]


class Process:
    """A worker from request to end. ``pid`` is 0 until it is known."""

    __slots__ = ("ended", "err_path", "intent", "job_id", "kill_timer", "params", "pid", "progress",
                 "start_time")  # fmt: skip

    def __init__(self, params: WorkerParams) -> None:
        self.params = params
        self.job_id = params.job.job_id
        self.progress = ProgressFile(params.progress_path)
        self.pid = 0
        self.start_time = 0
        self.err_path = ""
        #: It has, and what it said last is being read.
        self.ended = False
        #: Why it is ending, once it is meant to.
        self.intent: DeathCause | None = None
        self.kill_timer: Timer | None = None

    def make_progress(self) -> None:
        """Make its progress file: in memory, where the session's disk is full."""
        try:
            self.progress.create()
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            self.progress.take()
            place = os.path.dirname(self.params.node.store_path)
            path = f"{place}/{os.path.basename(self.params.progress_path)}"
            self.params = msgspec.structs.replace(self.params, progress_path=path)
            self.progress = ProgressFile(path)
            self.progress.create()


class Processes:
    """All workers of the node. ``on_ended(process_id, cause)`` comes once for each."""

    def __init__(
        self,
        pump: Pump,
        children: Children,
        spawner: Spawner,
        node_id: bytes,
        on_started: Callable[[Process], None],
        on_ended: OnEnded,
    ) -> None:
        self._pump = pump
        self._children = children
        self._spawner = spawner
        self._node_id = node_id
        self._on_started = on_started
        self._on_ended = on_ended
        self._workers: dict[bytes, Process] = {}
        #: What ``DeathCause.oom`` says of a worker that the kernel ended for want of memory.
        self.kernel_facts: Callable[[bytes], bytes] = lambda process_id: b""
        #: Other processes that we started and that leave strays: job drivers.
        self.other_makers: dict[int, Maker] = {}
        self._strays = Strays(self._is_ours, spawner.hear)
        self._oom_kills = OomKills()
        #: The last kill of the kernel that was counted, and when.
        self._oom_kill: tuple[str, float] = ("", 0.0)

    def __len__(self) -> int:
        return len(self._workers)

    def __iter__(self) -> Iterator[Process]:
        return iter(self._workers.values())

    def get(self, process_id: bytes) -> Process | None:
        """The worker, if it lives or is being started."""
        return self._workers.get(process_id)

    # -- births

    def spawn(self, params: WorkerParams) -> None:
        """Start a worker."""
        process = Process(params)
        self._workers[params.process_id] = process

        def started(pid: int, why_not: str) -> None:
            self._started(process, pid, why_not)

        try:
            process.make_progress()
            self._spawner.spawn(process.params, started)
        except (OSError, ValueError) as error:
            text = f"it cannot be started: {error}"
            self._pump.call_soon(lambda: started(0, text))

    def _started(self, process: Process, pid: int, why_not: str) -> None:
        process_id = process.params.process_id
        if pid == 0:
            process.progress.take()
            del self._workers[process_id]
            cause = DeathCause("creation_failed", why_not, node_id=self._node_id)
            self._on_ended(process_id, process.intent or cause)
            return
        process.pid = pid
        stat = read_stat(pid)
        process.start_time = stat.start_time if stat is not None else 0
        process.err_path = log_paths(process.params, pid)[1]
        self._children.watch(pid, lambda status: self._exited(process, status))
        self._on_started(process)
        if process.intent is not None:
            self._signal(process, signal.SIGKILL)

    # -- ends

    def kill(self, process_id: bytes, cause: DeathCause, grace_s: float) -> None:
        """End a worker: SIGTERM, and SIGKILL after ``grace_s``; SIGKILL at once when that is 0."""
        process = self._workers.get(process_id)
        if process is None or process.ended:
            return
        if process.intent is None:
            process.intent = cause
        if process.pid == 0:
            return  # Killed as soon as its pid is known.
        if process.kill_timer is not None:
            process.kill_timer.cancel()
            process.kill_timer = None
        if grace_s > 0:
            self._signal(process, signal.SIGTERM)
            process.kill_timer = self._pump.after(grace_s, lambda: self._overdue(process, grace_s))
        else:
            self._signal(process, signal.SIGKILL)

    def end_task(self, sender: bytes, message: EndTask, hold: Hold | None) -> None:
        """A task was cancelled by force: kill its worker, but not if that is at another by now."""
        process = self._workers.get(message.worker_id)
        if process is None or sender not in (message.worker_id, hold.owner if hold else b""):
            return
        if process.progress.read() == message.seq:
            cause = DeathCause("killed", message.text, pid=process.pid, node_id=self._node_id)
            self.kill(message.worker_id, cause, 0.0)

    def announce(self, process_id: bytes, cause: DeathCause) -> None:
        """A worker says that it will end on purpose, and why."""
        process = self._workers.get(process_id)
        if process is not None and process.intent is None:
            process.intent = cause

    def sweep(self) -> None:
        """End every stray; for when all workers are gone."""
        self._strays.end_all()

    def refresh_evidence(self) -> None:
        """Look at the kernel's kill counters, so that an old kill is not taken for a new one."""
        found = self._oom_kills.look()
        if found:
            self._oom_kill = (found, self._pump.clock())

    def _kernel_kill(self) -> str:
        """Evidence that the kernel has killed for memory just now; "" for none.

        It counts when it kills; a big process takes its time to be gone.
        """
        self.refresh_evidence()
        text, counted_at = self._oom_kill
        return text if self._pump.clock() - counted_at <= _KERNEL_KILL_S else ""

    def makers_ended(self, dead: list[Maker]) -> None:
        """End what processes that have ended left behind."""
        living = [self._maker(process) for process in self._workers.values() if process.start_time]
        ended = self._strays.end_those_of(dead, [*living, *self.other_makers.values()])
        if ended:
            names = ", ".join(str(maker.pid) for maker in dead)
            log.info("killed %d process(es) left behind by %s: %s", len(ended), names, ended)

    def _overdue(self, process: Process, grace_s: float) -> None:
        log.warning(
            "worker %s (pid %d) has not ended %.1f s after SIGTERM: killing it",
            process.params.process_id.hex()[:8],
            process.pid,
            grace_s,
        )
        self._signal(process, signal.SIGKILL)

    def _signal(self, process: Process, number: signal.Signals) -> None:
        # Not reaped yet, or it would not be in the table: the pid is still its own.
        try:
            if number is signal.SIGKILL:
                # It leads the group from its first moments; before that there is none yet.
                os.kill(process.pid, number)
                os.killpg(process.pid, number)
            else:
                os.kill(process.pid, number)
        except ProcessLookupError:
            return

    def _exited(self, process: Process, status: int) -> None:
        if process.kill_timer is not None:
            process.kill_timer.cancel()
        process.ended = True
        by_kernel = ""
        if os.WIFSIGNALED(status) and process.intent is None:
            by_kernel = self._kernel_kill()
        facts = self.kernel_facts(process.params.process_id) if by_kernel else b""
        pid, last_seq = process.pid, process.progress.read()
        stderr_tail = self._last_words(process)
        maker = self._maker(process)
        # The table keeps it until its end is told, but its pid may be another's from now on.
        process.pid = 0
        process.start_time = 0
        self.makers_ended([maker])
        give_up_at = self._pump.clock() + _LAST_MESSAGES_MAX_S

        def judge() -> None:
            cause = cause_of(
                status,
                pid=pid,
                node_id=self._node_id,
                intent=process.intent,
                by_kernel_oom=by_kernel,
                by_kernel_facts=facts,
                stderr_tail=stderr_tail,
                last_seq=last_seq,
            )
            self._tell(process, cause)

        def hear_out() -> None:
            # Refused where the connection's end was seen: all that came before it can be read.
            if self._pump.send(process.params.process_id, Ping(0)) and (
                self._pump.clock() < give_up_at
            ):
                self._pump.after(_LAST_MESSAGES_S, hear_out)
            else:
                self._pump.after(0.0, judge)  # The loop reads what there is before that.

        self._pump.after(_LAST_MESSAGES_S, hear_out)

    def _last_words(self, process: Process) -> list[str]:
        """The end of its standard error; of ours, where it ended before it had one of its own."""
        if os.path.exists(process.err_path):
            return read_tail(process.err_path)
        return read_tail(os.readlink("/proc/self/fd/2"))

    def _tell(self, process: Process, cause: DeathCause) -> None:
        process_id = process.params.process_id
        del self._workers[process_id]
        log.info("worker %s (pid %d) ended: %s", process_id.hex()[:8], cause.pid, describe(cause))
        try:
            os.unlink(process.params.ipc)
        except FileNotFoundError:
            pass
        self._on_ended(process_id, cause)
        process.progress.take()  # Its last lines were read, and whose they are.

    def _maker(self, process: Process) -> Maker:
        return Maker(process.pid, process.start_time, process.params.process_id.hex())

    def _is_ours(self, pid: int) -> bool:
        return self._children.knows(pid) or self._spawner.started(pid)
