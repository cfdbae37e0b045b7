"""Measures an engine with the rows of Ray's own microbenchmark, and a few more.

Covers: the rows, their sizes and the timing. Does not cover start-up, idle cost or comparing two
engines: scripts/bench does. The engine is an argument (`api` is the module `mray` or `ray`), so
that both are measured by the same lines. Python's standard library is all that this module needs
when imported: scripts/bench runs a copy of this file where only Ray is installed.

A row is a function that prepares something and returns the call to time. Names, sizes and meaning
of the rows that Ray has are Ray's; QUICK cuts rounds and the biggest batches to fit all rows into
about two minutes, FULL is as long as Ray's.
"""

from __future__ import annotations

import argparse
import fnmatch
import importlib
import json
import mmap
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a row is measured. Two engines are comparable only under the same timing."""

    #: Rest before a row, in which what the last row left behind ends.
    settle_s: float
    #: Calls not counted. They also tell how many calls go between two looks at the clock.
    warmup_s: float
    round_s: float
    round_count: int
    #: Divides the batches of 5,000 calls and more. What is reported is per call all the same.
    batch_divisor: int


QUICK: Final = Timing(settle_s=0.2, warmup_s=0.5, round_s=0.6, round_count=3, batch_divisor=10)
FULL: Final = Timing(settle_s=10.0, warmup_s=1.0, round_s=2.0, round_count=4, batch_divisor=1)


@dataclass(frozen=True, slots=True)
class Result:
    """One measured row: mean and standard deviation over the rounds, in `unit`."""

    name: str
    unit: str
    mean: float = 0.0
    sd: float = 0.0
    #: Why there is no figure; empty when there is one.
    error: str = ""

    def line(self) -> str:
        """This row as a line of text."""
        if self.error:
            return f"{self.name:<44} failed: {self.error}"
        return f"{self.name:<44} {self.mean:>12,.2f} +- {self.sd:,.2f} {self.unit}"


@dataclass(frozen=True, slots=True)
class Work:
    """What a prepared row does: `call` once, which counts as `per_call` units."""

    call: Callable[[], object]
    per_call: float = 1.0
    #: At least so many calls before counting, however long they take.
    warmup_count: int = 0


@dataclass(slots=True)
class Bench:
    """What a row is given: the engine, the sizes, and a place to leave the actors to end."""

    #: The module `ray` or `mray`. Any: the point is that it may be either.
    api: Any
    timing: Timing
    actors: list[Any] = field(default_factory=list)

    def actor(self, cls: type, *args: object, **options: object) -> Any:
        """Start an actor that is killed when the row is over."""
        actor_class = self.api.remote(cls)
        if options:
            actor_class = actor_class.options(**options)
        handle = actor_class.remote(*args)
        self.actors.append(handle)
        return handle

    def batch(self, size: int) -> int:
        """The size of a big batch under this timing."""
        return max(1, size // self.timing.batch_divisor)

    def close(self) -> None:
        """End the row's actors."""
        for handle in self.actors:
            self.api.kill(handle)
        self.actors.clear()


Row = Callable[[Bench], Work]

#: Every row by name, in the order they run: name -> (unit, row).
ROWS: Final[dict[str, tuple[str, Row]]] = {}

#: Ray's benchmark makes this many callers where it measures several clients.
_CLIENT_COUNT: Final = 4


def _row(name: str, unit: str = "/s") -> Callable[[Row], Row]:
    def register(row: Row) -> Row:
        ROWS[name] = (unit, row)
        return row

    return register


def _server_count() -> int:
    """As many actors as Ray's benchmark starts where it measures n of them."""
    return max(1, (os.cpu_count() or 1) // 2)


# ---- what the tasks and actors under measure do -----------------------------------------------


def _small_value() -> bytes:
    return b"ok"


def _length(values: Any) -> int:
    return len(values)


class _Server:
    def small_value(self) -> bytes:
        return b"ok"

    def small_value_arg(self, _value: object) -> bytes:
        return b"ok"


class _AsyncServer:
    async def small_value(self) -> bytes:
        return b"ok"

    async def small_value_arg(self, _value: object) -> bytes:
        return b"ok"


def _client_class(api: Any) -> type:
    """An actor that calls the actors it is given; it carries the engine to its worker."""

    class Client:
        def __init__(self, servers: list[Any]) -> None:
            self.servers = servers

        def call_each(self, count: int) -> None:
            api.get([s.small_value.remote() for s in self.servers for _ in range(count)])

        def call_each_with_arg(self, count: int) -> None:
            value = api.put(0)
            api.get([s.small_value_arg.remote(value) for s in self.servers for _ in range(count)])

    return Client


# ---- objects ----------------------------------------------------------------------------------


@_row("single client get calls (Plasma Store)")
def _get_calls(bench: Bench) -> Work:
    api, ref = bench.api, bench.api.put(0)
    return Work(lambda: api.get(ref))


@_row("single client put calls (Plasma Store)")
def _put_calls(bench: Bench) -> Work:
    api = bench.api
    return Work(lambda: api.put(0))


@_row("multi client put calls (Plasma Store)")
def _multi_put_calls(bench: Bench) -> Work:
    api = bench.api

    def put_many() -> None:
        for _ in range(100):
            api.put(0)

    task = api.remote(put_many)
    return Work(lambda: api.get([task.remote() for _ in range(10)]), 10 * 100)


@_row("single client put gigabytes", "GB/s")
def _put_gigabytes(bench: Bench) -> Work:
    import numpy as np

    api, array = bench.api, np.zeros(100 * 1024 * 1024, dtype=np.int64)
    # Ray counts these 839 MB as 0.8 GB; so does this row, to keep the figures comparable. It says
    # as much about first touches of pages as about copying: see the warm row below.
    return Work(lambda: api.put(array), 0.8)


@_row("multi client put gigabytes", "GB/s")
def _multi_put_gigabytes(bench: Bench) -> Work:
    api = bench.api

    def put_arrays() -> None:
        import numpy as np

        for _ in range(10):
            api.put(np.zeros(10 * 1024 * 1024, dtype=np.int64))

    task = api.remote(put_arrays)
    return Work(lambda: api.get([task.remote() for _ in range(10)]), 10 * 0.8)


@_row("single client put gigabytes, warm store", "GB/s")
def _put_gigabytes_warm(bench: Bench) -> Work:
    import numpy as np

    # A put into pages never touched runs at 0.3-2 GB/s, one into warm pages at 20-30, and Ray's
    # store of 7 GB has touched all of its own only after some 30 puts of this size. Ones, since
    # zeros are copied from a single page.
    api, array = bench.api, np.ones(100 * 1024 * 1024, dtype=np.int64)
    return Work(lambda: api.put(array), array.nbytes / 1e9, warmup_count=40)


@_row("memory copy gigabytes, 2 threads, warm", "GB/s")
def _memory_copy(bench: Bench) -> Work:
    """What a put of the row above could reach: the same bytes, no store."""
    import numpy as np

    source = np.ones(100 * 1024 * 1024, dtype=np.int64)
    target = np.frombuffer(mmap.mmap(-1, source.nbytes), dtype=np.int64)
    target[:] = 0
    middle = len(source) // 2

    def copy() -> None:
        other = threading.Thread(target=np.copyto, args=(target[:middle], source[:middle]))
        other.start()
        np.copyto(target[middle:], source[middle:])
        other.join()

    return Work(copy, source.nbytes / 1e9)


@_row("single client get object containing 10k refs")
def _get_nested_refs(bench: Bench) -> Work:
    api = bench.api

    def make_refs() -> list[Any]:
        return [api.put(1) for _ in range(10_000)]

    ref = api.remote(make_refs).remote()
    return Work(lambda: api.get(ref))


@_row("single client get of 10k small refs", "refs/s")
def _get_many_refs(bench: Bench) -> Work:
    api, count = bench.api, 10_000
    refs = [api.put(1) for _ in range(count)]
    return Work(lambda: api.get(refs), count)


@_row("single client wait 1k refs")
def _wait_refs(bench: Bench) -> Work:
    api, task = bench.api, bench.api.remote(_small_value)

    def wait_for_each() -> None:
        pending = [task.remote() for _ in range(1000)]
        # Asking once makes the node fetch them all.
        fetch = True
        while pending:
            _, pending = api.wait(pending, fetch_local=fetch)
            fetch = False

    return Work(wait_for_each)


# ---- tasks ------------------------------------------------------------------------------------


@_row("single client tasks sync")
def _tasks_sync(bench: Bench) -> Work:
    api, task = bench.api, bench.api.remote(_small_value)
    return Work(lambda: api.get(task.remote()))


@_row("single client tasks async")
def _tasks_async(bench: Bench) -> Work:
    api, task, count = bench.api, bench.api.remote(_small_value), 1000
    return Work(lambda: api.get([task.remote() for _ in range(count)]), count)


@_row("single client tasks and get batch")
def _tasks_batch(bench: Bench) -> Work:
    # The row above, counted by batches of 1,000.
    api, task = bench.api, bench.api.remote(_small_value)
    return Work(lambda: api.get([task.remote() for _ in range(1000)]))


@_row("multi client tasks async")
def _multi_tasks(bench: Bench) -> Work:
    api, count = bench.api, bench.batch(10_000)
    task = api.remote(_small_value)

    class Submitter:
        def submit(self, count: int) -> None:
            api.get([task.remote() for _ in range(count)])

    submitters = [bench.actor(Submitter, num_cpus=0) for _ in range(_CLIENT_COUNT)]
    return Work(
        lambda: api.get([s.submit.remote(count) for s in submitters]), _CLIENT_COUNT * count
    )


@_row("streaming generator items", "items/s")
def _generator_items(bench: Bench) -> Work:
    api, count = bench.api, bench.batch(10_000)

    def count_up(count: int) -> Any:
        for number in range(count):  # noqa: UP028 (Ray does not bear `yield from range`)
            yield number

    task = api.remote(count_up)

    def read() -> None:
        for ref in task.remote(count):
            api.get(ref)

    return Work(read, count)


@_row("single client tasks with 8 MB ref arg sync")
def _tasks_ref_arg(bench: Bench) -> Work:
    import numpy as np

    api, task = bench.api, bench.api.remote(_length)
    ref = api.put(np.ones(1_000_000))
    return Work(lambda: api.get(task.remote(ref)))


@_row("single client tasks with 8 MB value arg sync")
def _tasks_value_arg(bench: Bench) -> Work:
    import numpy as np

    api, task, array = bench.api, bench.api.remote(_length), np.ones(1_000_000)
    return Work(lambda: api.get(task.remote(array)))


@_row("single client tasks returning 8 MB sync")
def _tasks_big_return(bench: Bench) -> Work:
    api = bench.api

    def make_array() -> Any:
        import numpy as np

        return np.ones(1_000_000)

    task = api.remote(make_array)
    return Work(lambda: api.get(task.remote()))


# ---- actors -----------------------------------------------------------------------------------


@_row("1:1 actor calls sync")
def _actor_sync(bench: Bench) -> Work:
    api, actor = bench.api, bench.actor(_Server, num_cpus=0)
    return Work(lambda: api.get(actor.small_value.remote()))


@_row("1:1 actor calls async")
def _actor_async(bench: Bench) -> Work:
    api, actor, count = bench.api, bench.actor(_Server, num_cpus=0), 1000
    return Work(lambda: api.get([actor.small_value.remote() for _ in range(count)]), count)


@_row("1:1 actor calls concurrent")
def _actor_concurrent(bench: Bench) -> Work:
    api, count = bench.api, 1000
    actor = bench.actor(_Server, num_cpus=0, max_concurrency=16)
    return Work(lambda: api.get([actor.small_value.remote() for _ in range(count)]), count)


def _one_to_n(bench: Bench, server: type, **options: object) -> Work:
    api, count = bench.api, bench.batch(5000)
    servers = [bench.actor(server, **options) for _ in range(_server_count())]
    client = bench.actor(_client_class(api), servers, num_cpus=0)
    return Work(lambda: api.get(client.call_each.remote(count)), count * len(servers))


def _n_to_n(bench: Bench, server: type, **options: object) -> Work:
    api, count = bench.api, bench.batch(5000)
    servers = [bench.actor(server, **options) for _ in range(_server_count())]

    def call_in_turn(servers: list[Any]) -> None:
        api.get([servers[i % len(servers)].small_value.remote() for i in range(count)])

    task = api.remote(call_in_turn)
    return Work(
        lambda: api.get([task.remote(servers) for _ in range(_CLIENT_COUNT)]),
        _CLIENT_COUNT * count,
    )


@_row("1:n actor calls async")
def _actor_one_to_n(bench: Bench) -> Work:
    return _one_to_n(bench, _Server, num_cpus=0)


@_row("n:n actor calls async")
def _actor_n_to_n(bench: Bench) -> Work:
    return _n_to_n(bench, _Server, num_cpus=0)


@_row("n:n actor calls with arg async")
def _actor_n_to_n_arg(bench: Bench) -> Work:
    api, count = bench.api, 1000
    servers = [bench.actor(_Server, num_cpus=0) for _ in range(_server_count())]
    client_class = _client_class(api)
    clients = [bench.actor(client_class, [server], num_cpus=0) for server in servers]
    return Work(
        lambda: api.get([c.call_each_with_arg.remote(count) for c in clients]),
        count * len(clients),
    )


@_row("actor create + call + kill")
def _actor_life(bench: Bench) -> Work:
    api = bench.api
    actor_class = api.remote(_Server).options(num_cpus=0)

    def live_once() -> None:
        actor = actor_class.remote()
        api.get(actor.small_value.remote())
        api.kill(actor)

    return Work(live_once)


@_row("placement group create+remove")
def _placement_groups(bench: Bench) -> Work:
    """As Ray's benchmark has it: 100 groups of one bundle, made, waited for, and removed. Its
    bundles ask for a custom resource; the cluster of these rows has none, so for little CPU."""
    api, count = bench.api, 100
    groups = importlib.import_module(f"{api.__name__}.util.placement_group")

    def make_and_remove() -> None:
        made = [groups.placement_group(bundles=[{"CPU": 0.001}]) for _ in range(count)]
        for group in made:
            group.wait(timeout_seconds=30)
        for group in made:
            groups.remove_placement_group(group)

    return Work(make_and_remove, count)


@_row("1:1 async-actor calls sync")
def _async_actor_sync(bench: Bench) -> Work:
    api, actor = bench.api, bench.actor(_AsyncServer)
    return Work(lambda: api.get(actor.small_value.remote()))


@_row("1:1 async-actor calls async")
def _async_actor_async(bench: Bench) -> Work:
    api, actor, count = bench.api, bench.actor(_AsyncServer), 1000
    return Work(lambda: api.get([actor.small_value.remote() for _ in range(count)]), count)


@_row("1:1 async-actor calls with args async")
def _async_actor_args(bench: Bench) -> Work:
    api, actor, count = bench.api, bench.actor(_AsyncServer), 1000
    return Work(lambda: api.get([actor.small_value_arg.remote(i) for i in range(count)]), count)


@_row("1:n async-actor calls async")
def _async_actor_one_to_n(bench: Bench) -> Work:
    return _one_to_n(bench, _AsyncServer)


@_row("n:n async-actor calls async")
def _async_actor_n_to_n(bench: Bench) -> Work:
    return _n_to_n(bench, _AsyncServer)


# ---- running them -----------------------------------------------------------------------------


def select(patterns: Sequence[str]) -> list[str]:
    """Names of the rows that match any of `patterns` (all rows when there is none), in order.

    A pattern is a whole name, or a shell pattern over the whole name, or a plain part of it.
    """
    if not patterns:
        return list(ROWS)
    return [name for name in ROWS if any(_matches(name, pattern) for pattern in patterns)]


def _matches(name: str, pattern: str) -> bool:
    if pattern in ROWS:
        return name == pattern
    return pattern.lower() in name.lower() or fnmatch.fnmatch(name, pattern)


def run(
    api: Any,
    patterns: Sequence[str] = (),
    timing: Timing = QUICK,
    report: Callable[[Result], None] | None = None,
) -> list[Result]:
    """Measure the selected rows on `api`, which is connected, and return them in order.

    `report` is called with each row as it is measured. A row that raises is a result with `error`
    set, and the rows after it still run.
    """
    results = []
    for name in select(patterns):
        results.append(_run_row(api, name, timing))
        if report is not None:
            report(results[-1])
    return results


def _run_row(api: Any, name: str, timing: Timing) -> Result:
    unit, row = ROWS[name]
    time.sleep(timing.settle_s)
    bench = Bench(api, timing)
    try:
        try:
            rates = _rates(row(bench), timing)
        finally:
            bench.close()
    # The outermost loop of a row: the report names the error and main() turns it into the status.
    except Exception as error:
        return Result(name, unit, error=f"{type(error).__name__}: {error}".splitlines()[0])
    return Result(name, unit, statistics.fmean(rates), statistics.pstdev(rates))


def _rates(work: Work, timing: Timing) -> list[float]:
    """Units per second of each round."""
    call, calls_in_warmup = work.call, 0
    end_at = time.perf_counter() + timing.warmup_s
    while time.perf_counter() < end_at or calls_in_warmup < work.warmup_count:
        call()
        calls_in_warmup += 1
    burst = range(calls_in_warmup // 10 + 1)
    rates = []
    for _ in range(timing.round_count):
        call_count, started_at, now = 0, time.perf_counter(), 0.0
        while now < started_at + timing.round_s:
            for _ in burst:
                call()
            call_count += len(burst)
            now = time.perf_counter()
        rates.append(work.per_call * call_count / (now - started_at))
    return rates


def to_json(results: Iterable[Result]) -> str:
    """The results as a JSON list, one object a row."""
    return json.dumps([asdict(result) for result in results], indent=2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run rows from the command line; 1 when a row failed, 2 when no row matches."""
    parser = argparse.ArgumentParser(prog="microbenchmark", description="Measure ray or mray.")
    parser.add_argument("--engine", choices=("mray", "ray"), default="mray")
    parser.add_argument("--address", help="a running cluster; else a local one is started")
    parser.add_argument("--rows", action="append", default=[], metavar="GLOB")
    parser.add_argument("--full", action="store_true", help="as long and as big as Ray's own run")
    parser.add_argument("--json", action="store_true", help="print JSON when all rows are done")
    parser.add_argument("--list", action="store_true", help="print the names of the rows")
    given = parser.parse_args(arguments)
    names = select(given.rows)
    if not names:
        print(f"no row matches {', '.join(given.rows)}; see --list", file=sys.stderr)
        return 2
    if given.list:
        print("\n".join(names))
        return 0

    def report(result: Result) -> None:
        print(result.line(), file=sys.stderr if given.json else sys.stdout, flush=True)

    api = importlib.import_module(given.engine)
    api.init(address=given.address or "local")
    try:
        results = run(api, given.rows, FULL if given.full else QUICK, report)
    finally:
        api.shutdown()
    if given.json:
        print(to_json(results), flush=True)
    return 1 if any(result.error for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
