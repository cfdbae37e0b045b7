"""What a program kept over shutdown() and a new init(): it is refused at once, with the cause."""

from __future__ import annotations

import importlib

import pytest

pytestmark = pytest.mark.conformance

#: Nothing here takes long: who waits for the other cluster would wait as long as he may.
TIMEOUT_S = 60


@pytest.fixture(scope="module")
def kept(engine):
    """Things of a cluster that has ended; the engine is connected to another one."""
    ray = engine

    @ray.remote
    class Actor:
        def call(self):
            return 1

    @ray.remote
    def hold():
        import time

        time.sleep(600)

    groups = importlib.import_module(f"{ray.__name__}.util.placement_group")
    ray.init(address="local", num_cpus=2, log_to_driver=False)
    mine, named = Actor.remote(), Actor.options(name="named").remote()
    assert ray.get([mine.call.remote(), named.call.remote()], timeout=TIMEOUT_S) == [1, 1]
    things = {
        "actor": mine,
        "named": named,
        "found": ray.get_actor("named"),
        "big": ray.put(b"x" * 1_000_000),
        "group": groups.placement_group([{"CPU": 1}]),
    }
    assert things["group"].wait(TIMEOUT_S)
    things["pending"] = hold.remote()
    ray.shutdown()
    ray.init(address="local", num_cpus=2, log_to_driver=False)
    yield things
    ray.shutdown()


@pytest.mark.parametrize("which", ["actor", "named", "found"])
def test_an_actor_cannot_be_called(engine, kept, which):
    with pytest.raises(Exception, match=r"cluster|other|shutdown"):
        kept[which].call.remote()


def test_its_name_is_not_known(engine, kept):
    with pytest.raises(ValueError):
        engine.get_actor("named")


@pytest.mark.parametrize("which", ["big", "pending"])
def test_a_reference_cannot_be_read_or_waited_for(engine, kept, which):
    refused = (ValueError, engine.exceptions.ObjectLostError)
    with pytest.raises(refused):
        engine.get(kept[which], timeout=TIMEOUT_S)
    if which == "pending":
        with pytest.raises(refused):
            engine.wait([kept[which]], timeout=TIMEOUT_S)


@pytest.mark.parametrize("which", ["big", "pending"])
@pytest.mark.parametrize("nested", [False, True])
def test_a_reference_cannot_be_an_argument(engine, kept, which, nested):
    @engine.remote
    def take(value):
        return value

    with pytest.raises((ValueError, engine.exceptions.ObjectLostError)):
        take.remote([kept[which]] if nested else kept[which])


@pytest.mark.mray_only("Ray ends the process or waits")
def test_a_group_and_a_handle_in_an_argument_are_refused(engine, kept):
    strategies = importlib.import_module(f"{engine.__name__}.util.scheduling_strategies")

    @engine.remote
    def take(value=None):
        return value

    with pytest.raises(engine.exceptions.ObjectLostError):
        take.remote(kept["actor"])
    group = kept["group"]
    strategy = strategies.PlacementGroupSchedulingStrategy(group)
    for use in (group.ready, group.wait, take.options(scheduling_strategy=strategy).remote):
        with pytest.raises(ValueError, match="of another cluster"):
            use()


@pytest.mark.mray_only("Ray refuses it too")
def test_what_the_process_has_itself_can_be_read(engine):
    engine.shutdown()
    engine.init(address="local", num_cpus=1, log_to_driver=False)
    ref = engine.put(1)
    engine.shutdown()
    engine.init(address="local", num_cpus=1, log_to_driver=False)
    assert engine.get(ref) == 1
