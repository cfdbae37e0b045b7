"""Results on a node that dies: which come back, how often tasks run, which errors the rest is.

All that the tests look at is made first; then the node dies and another comes.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

pytestmark = pytest.mark.conformance
PATIENCE_S = 90
SETTINGS = {"health_check_period_ms": 500, "health_check_timeout_ms": 1500}
MB = 1_000_000


@pytest.fixture(scope="module")
def made(engine: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """What was made before the loss."""
    log = str(tmp_path_factory.mktemp("log") / "runs")
    kind = importlib.import_module(f"{engine.__name__}.cluster_utils").Cluster
    head: dict[str, Any] = {"num_cpus": 0}
    if engine.__name__ == "mray":  # Ray's nodes need more time than that to start.
        head["_system_config"] = dict(SETTINGS)
    cluster = kind(initialize_head=True, head_node_args=head)
    node = cluster.add_node(num_cpus=2)
    cluster.wait_for_nodes()
    engine.init(address=cluster.address, log_to_driver=False)
    made = _prepare(engine, log)
    everything = [ref for name, group in vars(made).items() if name != "keep" for ref in group]
    engine.wait(everything, num_returns=len(everything), timeout=PATIENCE_S, fetch_local=False)
    made.first = made.second = None  # Only the last of the chain is held.
    cluster.remove_node(node, allow_graceful=False)
    cluster.add_node(num_cpus=2)
    made.log = log
    yield made
    vars(made).clear()
    engine.shutdown()
    cluster.shutdown()


def _prepare(ray: ModuleType, log: str) -> Any:
    def note(name: str) -> int:
        with open(log, "a") as file:
            file.write(name + "\n")
        with open(log) as file:
            return file.read().split("\n").count(name)

    @ray.remote
    def make(name: str, *needs: Any) -> bytes:
        note(name)
        return b"x" * MB

    @ray.remote
    def raises(name: str) -> bytes:
        if note(name) > 1:
            raise ValueError("the second time")
        return b"x" * MB

    @ray.remote
    def shrinks(name: str) -> bytes:
        return b"x" * (MB if note(name) == 1 else 10)

    @ray.remote(num_returns=3)
    def three(name: str) -> Any:
        note(name)
        return 1, b"y" * MB, b"z" * MB

    @ray.remote(num_returns="streaming")
    def items(name: str) -> Any:
        note(name)
        for number in range(3):
            yield bytes([number]) * MB

    class Maker:
        def make(self, name: str) -> bytes:
            note(name)
            return b"x" * MB

    def of_actor(name: str, restarts: int, retries: int) -> list[Any]:
        options = {"max_restarts": restarts, "max_task_retries": retries}
        maker = ray.remote(**options)(Maker).remote()
        keep.append(maker)
        return [maker.make.remote(name)]

    keep: list[Any] = []
    first = make.remote("first")
    second = make.remote("second", first)
    made = SimpleNamespace(
        first=[first],
        second=[second],
        third=[make.remote("third", second)],
        with_put=[make.remote("with put", ray.put(b"p" * MB))],
        never=[make.options(max_retries=0).remote("never")],
        raising=[raises.remote("raising")],
        shrinking=[shrinks.remote("shrinking")],
        several=three.remote("several"),
        items=list(items.remote("items")),
        actor=of_actor("actor", -1, -1),
        dead_actor=of_actor("dead actor", 0, -1),
        once_actor=of_actor("once actor", -1, 0),
    )
    made.keep = keep
    return made


@pytest.fixture
def runs(made: Any) -> Callable[[str], int]:
    return lambda name: Path(made.log).read_text().split("\n").count(name)


def get(ray: ModuleType, ref: Any) -> Any:
    return ray.get(ref, timeout=PATIENCE_S)


def test_a_chain_is_run_again_when_only_its_last_result_is_held(
    engine: ModuleType, made: Any, runs: Callable[[str], int]
) -> None:
    assert len(get(engine, made.third[0])) == MB
    assert [runs(name) for name in ("first", "second", "third")] == [2, 2, 2]


def test_a_put_argument_that_was_dropped_is_there_for_the_second_run(
    engine: ModuleType, made: Any, runs: Callable[[str], int]
) -> None:
    assert len(get(engine, made.with_put[0])) == MB
    assert runs("with put") == 2


def test_without_retries_the_result_is_an_error(
    engine: ModuleType, made: Any, runs: Callable[[str], int]
) -> None:
    errors = engine.exceptions
    with pytest.raises(errors.ObjectReconstructionFailedError) as caught:
        get(engine, made.never[0])
    assert isinstance(caught.value, errors.ObjectLostError)
    assert "max_retries" in str(caught.value)
    assert runs("never") == 1


def test_an_error_of_the_second_run_is_the_result(engine: ModuleType, made: Any) -> None:
    with pytest.raises(ValueError, match="the second time"):
        get(engine, made.raising[0])


def test_a_smaller_result_of_the_second_run_is_the_result(engine: ModuleType, made: Any) -> None:
    assert len(get(engine, made.shrinking[0])) == 10


def test_all_returns_of_one_task_take_one_run(
    engine: ModuleType, made: Any, runs: Callable[[str], int]
) -> None:
    one, y, z = made.several
    assert (get(engine, z)[:1], get(engine, y)[:1], get(engine, one)) == (b"z", b"y", 1)
    assert runs("several") == 2


def test_items_of_a_generator_come_back(engine: ModuleType, made: Any) -> None:
    assert [get(engine, ref)[0] for ref in made.items] == [0, 1, 2]


def test_a_result_of_an_actor_comes_back_where_actor_and_call_may_go_on(
    engine: ModuleType, made: Any, runs: Callable[[str], int]
) -> None:
    assert len(get(engine, made.actor[0])) == MB
    assert runs("actor") == 2


def test_a_result_of_an_actor_that_may_not_restart_is_its_death(
    engine: ModuleType, made: Any, runs: Callable[[str], int]
) -> None:
    with pytest.raises(engine.exceptions.ActorDiedError):
        get(engine, made.dead_actor[0])
    assert runs("dead actor") == 1


def test_a_result_of_a_call_without_retries_is_an_error(engine: ModuleType, made: Any) -> None:
    with pytest.raises(engine.exceptions.ObjectReconstructionFailedError):
        get(engine, made.once_actor[0])
