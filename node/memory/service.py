"""The memory monitor's place in the node daemon: what its thread and the loop tell each other.

Covers: rules from the configuration, facts of a death for want of memory, warnings and summaries
for drivers, the answer to GetOomState. Decides nothing: monitor.py and policy.py do.

What the thread calls here runs in the thread and touches nothing of the loop but single values; it
hands the rest on by ``call_soon``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import msgspec

from mray.config import Config
from mray.memory.trees import TreeReader
from mray.memory.usage import MemoryReader
from mray.node.memory.census import Census, Count
from mray.node.memory.monitor import Kill, Monitor, MonitorRules, Reading, Say
from mray.node.memory.policy import Candidate, Choice, Rules, rank
from mray.node.memory.pressure import PressureNews
from mray.node.memory.thread import MonitorThread
from mray.node.objects.server import StoreServer
from mray.node.sched.leases import Effect, Leases
from mray.node.workers.environment import maker_named
from mray.node.workers.peers import Peers
from mray.node.workers.processes import Processes
from mray.oom_report import one_line
from mray.rpc.pump import Pump
from mray.units import MIB, format_bytes
from mray.wire.messages import (
    DeathCause,
    FunctionPeak,
    GetOomState,
    GetPeaks,
    MemoryNews,
    Message,
    NodeInfo,
    OomState,
    PeakMemory,
    Peaks,
)
from mray.wire.oom import OomFacts, OomVictim

log = logging.getLogger("mray.node")

_MIN_KILL_SHARE: Final = 0.01
#: An idle worker that keeps so much is ended while memory is short; a fresh one has 6 MiB.
_IDLE_KEEPS_BYTES: Final = 64 * MIB
#: How often it is seen to how the store gives back, and how often in a row it may give nothing: a
#: slow disk takes its time for a file.
_STORE_ROUND_S: Final = 0.05
_STORE_IDLE_ROUNDS: Final = 40
#: Ends that are nobody's fault.
_EXPECTED: Final = ("intended", "out_of_scope", "ray_kill", "owner_died")


def monitor_rules(config: Config, threshold_bytes: int) -> MonitorRules:
    """The rules that the configuration gives on a node whose threshold is this at present."""
    settings = config.memory_monitor
    least = settings.min_kill_bytes
    return MonitorRules(
        refresh_s=settings.memory_monitor_refresh_ms / 1000,
        soft_share=settings.memory_soft_mark,
        enforce=settings.enforce_memory,
        policy=Rules(
            policy=settings.worker_killing_policy,
            enforce_own_limit=settings.enforce_memory == "kill",
            idle_bytes=settings.idle_worker_killing_memory_threshold_bytes,
            min_kill_bytes=int(threshold_bytes * _MIN_KILL_SHARE) if least < 0 else least,
            budget_bytes=threshold_bytes,
        ),
    )


class OomService:
    """See the module. ``act`` carries out effects of the leases."""

    def __init__(
        self,
        pump: Pump,
        config: Config,
        info: NodeInfo,
        leases: Leases,
        processes: Processes,
        peers: Peers,
        store: StoreServer,
        act: Callable[[list[Effect]], None],
    ) -> None:
        self._pump = pump
        self._info = info
        self._processes = processes
        self._peers = peers
        self._store = store
        self._act = act
        self._leases = leases
        self._settings = config.memory_monitor
        self._census = self._make_census(peers)  # For the thread.
        # The loop asks with readers of its own: they are not to be shared.
        self._asked_census = self._make_census(peers)
        self._asked_reader = MemoryReader()
        self._news = PressureNews(
            pump, peers, self._census.busy, self._settings.event_stats_print_interval_ms / 1000
        )
        self.thread: MonitorThread | None = None
        self._monitor: Monitor | None = None
        self._rules = monitor_rules(config, 0)
        self._killed_count = 0
        self._crashed_count = 0
        processes.kernel_facts = self._kernel_facts
        self.handlers: dict[type[Message], Callable[[bytes, Any], None]] = {
            GetOomState: self._explain,
            GetPeaks: self._tell_peaks,
            **self._news.handlers,
        }
        if self._settings.memory_monitor_refresh_ms:
            self._start(config)
        else:
            log.warning("the memory monitor is off (memory_monitor_refresh_ms=0)")

    def _make_census(self, peers: Peers) -> Census:
        trees = TreeReader(maker_pid=self._maker_pid)
        return Census(
            self._leases.pool, self._leases.holds, self._processes, peers,
            lambda roots, complete: trees.read(roots, complete=complete),
        )  # fmt: skip

    def _maker_pid(self, environ: bytes) -> int | None:
        """The worker that an orphan's environment names. Called by either thread."""
        try:
            process = self._processes.get(bytes.fromhex(maker_named(environ)))
        except ValueError:
            return None  # A job's, whose driver is no worker.
        return process.pid if process is not None else None

    def _start(self, config: Config) -> None:
        settings = self._settings
        self.thread = MonitorThread(
            lambda reading: self._make_monitor(config, reading),
            self._census, MemoryReader(),
            settings.memory_usage_threshold, settings.min_memory_free_bytes,
            on_kill=self._kill,
            on_admit=lambda is_open: self._pump.call_soon(lambda: self._admit(is_open)),
            on_press=lambda excess: self._pump.call_soon(lambda: self._press(excess)),
            on_say=self._say,
            on_idle=self._idle,
        )  # fmt: skip
        self.thread.start()
        if settings.event_stats_print_interval_ms:
            self._pump.every(settings.event_stats_print_interval_ms / 1000, self._summary)

    def _make_monitor(self, config: Config, reading: Reading) -> Monitor:
        self._rules = monitor_rules(config, reading.threshold_bytes)
        self._monitor = Monitor(self._rules)
        return self._monitor

    def stop(self) -> None:
        """The node ends: nobody is killed for memory any more."""
        if self.thread is not None:
            self.thread.stop()
            self.thread = None

    # -- in the loop

    def title_of(self, process_id: bytes) -> str:
        """What a worker runs, or ran last; "" if it has said nothing yet."""
        return self._census.title_of(process_id).name

    def worker_ended(self, process_id: bytes, cause: DeathCause) -> None:
        """A worker is gone: counted for the summary."""
        self._news.forget(process_id)
        if cause.oom or cause.kind == "kernel_oom":
            self._killed_count += 1
        elif cause.kind not in _EXPECTED and not (cause.kind == "exit" and not cause.exit_code):
            self._crashed_count += 1

    def _admit(self, is_open: bool) -> None:
        log.info("memory is %s: new tasks are %sadmitted",
                 *(("fine", "") if is_open else ("short", "not ")))  # fmt: skip
        self._act(self._leases.memory_short(not is_open))
        if is_open:
            self._store.relax()
            self._news.ended()
        elif self._monitor is not None and self._monitor.last is not None:
            self._news.began(self._monitor.last, self._settings.memory_soft_mark)

    def _recycle(self, idle: Sequence[Candidate], is_short: bool) -> None:
        why = "memory is short" if is_short else "worker_max_memory_per_child"
        for worker in idle:
            size = format_bytes(worker.private_bytes)
            cause = DeathCause("intended", f"{why}: it was idle and kept {size}")
            self._act(self._leases.recycle(worker.worker_id, cause))

    def _press(self, excess_bytes: int) -> None:
        """Have the store give back what it can. Waited for only where that can be enough."""
        log.info("memory is short: the object store (%s used) gives back what it can",
                 format_bytes(self._store.used_bytes))  # fmt: skip
        self._store.press(excess_bytes)
        if self._store.held_bytes >= excess_bytes // 2:
            self._await_store(self._store.held_bytes, 0)
        elif self.thread is not None:
            self.thread.pressed()

    def _await_store(self, before_bytes: int, idle_rounds: int) -> None:
        """Tell the thread that the store gets on, until it does not."""
        if self.thread is None:
            return
        now_bytes = self._store.held_bytes
        idle_rounds = 0 if now_bytes < before_bytes else idle_rounds + 1
        if not self._store.is_giving_back or idle_rounds > _STORE_IDLE_ROUNDS:
            self.thread.pressed()
            return
        self.thread.press_goes_on()
        self._pump.after(_STORE_ROUND_S, lambda: self._await_store(now_bytes, idle_rounds))

    def _summary(self) -> None:
        killed, crashed = self._killed_count, self._crashed_count
        self._killed_count = self._crashed_count = 0
        if not killed:
            return
        ip = self._info.ip
        self._tell_drivers(
            f"{killed} Workers (tasks / actors) killed due to memory pressure (OOM), {crashed} "
            f"Workers crashed due to other reasons at node (ID: {self._info.node_id.hex()}, IP: "
            f"{ip}) over the last time period. To see more information about the Workers killed "
            f"on this node, use `mray logs raylet.out -ip {ip}`\n\n"
            "Each OutOfMemoryError names its task's measured peak and what to ask for; `mray oom "
            "explain` shows who would be next. To adjust the threshold, set "
            "RAY_memory_usage_threshold when starting mray; to turn the monitor off, set "
            "RAY_memory_monitor_refresh_ms to zero."
        )

    def _tell_drivers(self, text: str) -> None:
        for peer in self._peers:
            if peer.kind == "driver":
                self._pump.send(peer.process_id, MemoryNews(text))

    # -- in the thread

    def _say(self, say: Say) -> None:
        log.warning("%s", say.text)
        if say.to_drivers:
            self._pump.call_soon(lambda: self._tell_drivers(say.text))

    def _idle(self, count: Count, is_short: bool) -> None:
        """Idle workers that keep more than they may are not kept."""
        keeps = self._settings.worker_max_memory_per_child
        if is_short:
            keeps = _IDLE_KEEPS_BYTES if keeps < 0 else min(keeps, _IDLE_KEEPS_BYTES)
        if keeps < 0:
            return
        big = [
            c for c in count.snapshot.candidates if c.kind == "idle" and c.private_bytes > keeps
        ]
        if big:
            self._pump.call_soon(lambda: self._recycle(big, is_short))

    def _kill(self, kill: Kill, count: Count) -> None:
        """Write down why, before the first signal: the loop reads it when the process has ended."""
        facts = self._facts(kill.choice, kill.reading, count)
        process = self._processes.get(kill.choice.candidate.worker_id)
        text = one_line(facts)
        log.warning("%s; %s", text, facts.retry_reason)
        if process is not None and process.intent is None:
            process.intent = DeathCause(
                "killed", text, pid=process.pid, node_id=self._info.node_id, oom=facts.to_bytes()
            )
        # The loop may be asleep or blocked: it learns of the end by SIGCHLD.

    def _facts(self, choice: Choice, reading: Reading, count: Count) -> OomFacts:
        victim = choice.candidate
        return OomFacts(
            kind="task_limit" if choice.rule == "own_limit" else "node_memory",
            node_id=self._info.node_id.hex(),
            used_bytes=reading.used_bytes,
            limit_bytes=reading.limit_bytes,
            threshold_bytes=reading.threshold_bytes,
            victim=OomVictim(
                kind=victim.kind, name=victim.name, pid=victim.pid,
                used_bytes=victim.private_bytes,
                peak_bytes=max(victim.private_bytes, self._census.peak_of(victim.worker_id)),
                requested_bytes=victim.requested_bytes,
                runtime_s=max(0.0, time.monotonic() - victim.started_at),
                retriable=victim.retriable,
            ),
            rule=choice.rule,
            why=choice.why,
            should_retry=choice.should_retry,
            retry_reason=choice.retry_reason,
            top=count.top,
            store_used_bytes=self._store.used_bytes,
            store_capacity_bytes=self._info.store_capacity_bytes,
            memory_resource_bytes=self._census.lendable_memory(),
        )  # fmt: skip

    # -- the kernel's kills, and questions

    def _reading(self) -> Reading:
        now, settings = self._asked_reader.read(), self._settings
        return Reading.of(
            now.used_bytes, now.limit_bytes, settings.memory_usage_threshold,
            settings.min_memory_free_bytes,
        )  # fmt: skip

    def _kernel_facts(self, process_id: bytes) -> bytes:
        """What is known of a worker that the kernel ended: its memory is gone already."""
        reading = self._reading()
        title = self._census.title_of(process_id)
        process = self._processes.get(process_id)
        facts = OomFacts(
            kind="kernel",
            node_id=self._info.node_id.hex(),
            used_bytes=reading.used_bytes,
            limit_bytes=reading.limit_bytes,
            threshold_bytes=reading.threshold_bytes,
            victim=OomVictim(
                kind="task", name=title.name, pid=process.pid if process is not None else 0,
                used_bytes=0, peak_bytes=self._census.peak_of(process_id),
                retriable=title.retriable,
            ),
            store_used_bytes=self._store.used_bytes,
            store_capacity_bytes=self._info.store_capacity_bytes,
            memory_resource_bytes=self._census.lendable_memory(),
        )  # fmt: skip
        return facts.to_bytes()

    def peaks_of(self, task_ids: Iterable[bytes]) -> tuple[list[PeakMemory], list[FunctionPeak]]:
        """The most memory that attempts of these tasks have had, and what is usual by function.
        Empty while the monitor is off."""
        return self._census.peaks_of(task_ids)

    def _tell_peaks(self, sender: bytes, message: GetPeaks) -> None:
        self._pump.send(sender, Peaks(message.rid, *self.peaks_of(message.task_ids)))

    def _explain(self, sender: bytes, message: GetOomState) -> None:
        now, reading = time.monotonic(), self._reading()
        count = self._asked_census.take(complete=True)
        rules = self._rules.policy
        choices = rank(count.snapshot.candidates, rules, now)
        ranked = {choice.candidate.worker_id for choice in choices}
        facts = {
            "node_id": self._info.node_id.hex(),
            "monitor": "on" if self.thread is not None else "off",
            "phase": self._monitor.phase if self._monitor is not None else "off",
            "admits_tasks": self._monitor.is_open if self._monitor is not None else True,
            "refresh_ms": self._settings.memory_monitor_refresh_ms,
            "policy": rules.policy,
            "enforce_memory": self._settings.enforce_memory,
            "used_bytes": reading.used_bytes,
            "limit_bytes": reading.limit_bytes,
            "threshold_bytes": reading.threshold_bytes,
            "soft_mark_bytes": int(reading.threshold_bytes * self._settings.memory_soft_mark),
            "source": self._info.memory_source,
            "would_kill_now": reading.above and self.thread is not None,
            "ranks": [_choice_facts(choice, now) for choice in choices],
            "never": [
                {"pid": c.pid, "kind": c.kind, "private_bytes": c.private_bytes}
                for c in count.snapshot.candidates
                if c.worker_id not in ranked
            ],
            "drivers": [
                {"pid": d.pid, "private_bytes": d.private_bytes} for d in count.snapshot.drivers
            ],
            "store_used_bytes": self._store.used_bytes,
        }
        self._pump.send(sender, OomState(message.rid, msgspec.json.encode(facts)))


def _choice_facts(choice: Choice, now: float) -> dict[str, Any]:  # Any: JSON
    c = choice.candidate
    return {
        "worker_id": c.worker_id.hex(),
        "pid": c.pid,
        "kind": c.kind,
        "name": c.name,
        "owner_id": c.owner_id.hex(),
        "retriable": c.retriable,
        "private_bytes": c.private_bytes,
        "requested_bytes": c.requested_bytes,
        "age_s": round(max(0.0, now - c.started_at), 3),
        "rule": choice.rule,
        "why": choice.why,
        "should_retry": choice.should_retry,
        "retry_reason": choice.retry_reason,
    }
