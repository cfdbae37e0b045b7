"""GPUs that are only counted: whose they are, and what their users see."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.conformance

TIMEOUT_S = 60


@pytest.fixture(scope="module")
def ray(engine):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "4,5,7,9")
        engine.init(address="local", num_cpus=8, num_gpus=4, log_to_driver=False)
        yield engine
        engine.shutdown()


@pytest.fixture(scope="module")
def look(ray):
    """A task that tells what it sees of GPUs."""

    def seen():
        import os

        ids = ray.get_runtime_context().get_accelerator_ids()["GPU"]
        assert ids == [str(gpu) for gpu in ray.get_gpu_ids()]
        return os.environ.get("CUDA_VISIBLE_DEVICES"), ids

    return ray.remote(seen)


@pytest.fixture(scope="module")
def watcher(ray):
    @ray.remote
    class Watcher:
        def __init__(self):
            self.first = ray.get_gpu_ids()

        def gpus(self):
            import os

            return self.first, ray.get_gpu_ids(), os.environ.get("CUDA_VISIBLE_DEVICES")

    return Watcher


def test_a_driver_has_none(ray):
    assert ray.get_gpu_ids() == []
    assert ray.get_runtime_context().get_accelerator_ids()["GPU"] == []


@pytest.mark.parametrize("count", [1, 2, 0.5, 2.0])
def test_a_task_sees_those_it_has(ray, look, count):
    visible, ids = ray.get(look.options(num_gpus=count).remote(), timeout=TIMEOUT_S)
    assert visible == ",".join(ids)
    assert len(ids) == max(1, int(count))
    assert set(ids) <= {"4", "5", "7", "9"}


def test_a_task_without_gpus_has_none_and_finds_the_variable_as_it_was(ray, look):
    assert ray.get(look.remote(), timeout=TIMEOUT_S) == ("4,5,7,9", [])
    assert ray.get(look.options(num_gpus=0).remote(), timeout=TIMEOUT_S) == ("4,5,7,9", [])


def test_the_variable_is_as_it_was_after_a_task_with_gpus(ray, look):
    for _ in range(3):
        assert ray.get(look.options(num_gpus=4).remote(), timeout=TIMEOUT_S)[0] != ""
        assert ray.get(look.remote(), timeout=TIMEOUT_S) == ("4,5,7,9", [])


def test_none_are_seen_where_the_environment_asks_for_that(ray, look):
    env = {"env_vars": {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1"}}
    seen = look.options(num_gpus=0, runtime_env=env).remote()
    assert ray.get(seen, timeout=TIMEOUT_S) == ("", [])


def test_the_environment_of_a_task_may_narrow_what_is_seen(ray, look):
    env = {"env_vars": {"CUDA_VISIBLE_DEVICES": "11"}}
    seen = look.options(num_gpus=2, runtime_env=env).remote()
    assert ray.get(seen, timeout=TIMEOUT_S) == ("11", ["11"])


def test_the_variable_can_be_left_alone(ray, look):
    env = {"env_vars": {"RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1"}}
    visible, ids = ray.get(look.options(num_gpus=1, runtime_env=env).remote(), timeout=TIMEOUT_S)
    assert visible == "4,5,7,9"
    assert len(ids) == 1


def test_who_runs_at_the_same_time_has_different_ones(ray, watcher, wait_exit):
    actors = [watcher.options(num_gpus=1).remote() for _ in range(4)]
    told = ray.get([actor.gpus.remote() for actor in actors], timeout=TIMEOUT_S)
    assert sorted(now[0] for _, now, _ in told) == ["4", "5", "7", "9"]
    for first, now, visible in told:
        assert first == now == [visible]
    again = ray.get([actor.gpus.remote() for actor in actors], timeout=TIMEOUT_S)
    assert again == told


def test_halves_share_and_whole_ones_do_not(ray, watcher):
    halves = [watcher.options(num_gpus=0.5).remote() for _ in range(4)]
    shared = [now[0] for _, now, _ in ray.get([a.gpus.remote() for a in halves], timeout=TIMEOUT_S)]
    whole = watcher.options(num_gpus=2).remote()
    _, now, _ = ray.get(whole.gpus.remote(), timeout=TIMEOUT_S)
    assert sorted(shared.count(gpu) for gpu in set(shared)) == [2, 2]
    assert not set(now) & set(shared)


def test_they_are_given_back(ray, look):
    for _ in range(3):
        seen = [look.options(num_gpus=1, num_cpus=0).remote() for _ in range(8)]
        assert all(len(ids) == 1 for _, ids in ray.get(seen, timeout=TIMEOUT_S))


def test_above_one_they_are_whole(ray, look):
    with pytest.raises(ValueError):
        look.options(num_gpus=1.5).remote()


def test_tasks_in_bundles_have_their_own(ray, look, engine):
    import importlib

    groups = importlib.import_module(f"{engine.__name__}.util.placement_group")
    strategies = importlib.import_module(f"{engine.__name__}.util.scheduling_strategies")
    group = groups.placement_group([{"GPU": 1, "CPU": 1}] * 2)
    ray.get(group.ready(), timeout=TIMEOUT_S)
    for index in (0, 1, -1):
        strategy = strategies.PlacementGroupSchedulingStrategy(group, index)
        seen = look.options(num_gpus=1, scheduling_strategy=strategy).remote()
        visible, ids = ray.get(seen, timeout=TIMEOUT_S)
        assert [visible] == ids
    groups.remove_placement_group(group)


@pytest.fixture
def in_bundle(ray, engine, watcher):
    """Makes groups, and actors in their bundles that tell which GPUs they have."""
    import importlib

    groups = importlib.import_module(f"{engine.__name__}.util.placement_group")
    strategies = importlib.import_module(f"{engine.__name__}.util.scheduling_strategies")
    made = []

    def group(bundles):
        made.append(groups.placement_group(bundles))
        ray.get(made[-1].ready(), timeout=TIMEOUT_S)
        return made[-1]

    def actor(group, index, count):
        strategy = strategies.PlacementGroupSchedulingStrategy(group, index)
        return watcher.options(num_cpus=0, num_gpus=count, scheduling_strategy=strategy).remote()

    yield group, actor
    for each in made:
        groups.remove_placement_group(each)


def told(ray, actors):
    """Each has the GPUs that it sees."""
    found = []
    for _, now, visible in ray.get([a.gpus.remote() for a in actors], timeout=TIMEOUT_S):
        assert ",".join(now) == visible
        found.append(now)
    return found


def test_bundles_share_no_gpu(ray, in_bundle):
    make, actor = in_bundle
    group = make([{"GPU": 1}, {"GPU": 2}, {"GPU": 1}])
    first, second, third = told(ray, [actor(group, i, n) for i, n in enumerate((1, 2, 1))])
    assert sorted(first + second + third) == ["4", "5", "7", "9"]


def test_parts_of_a_bundle_are_on_its_gpu_and_nobody_else_is(ray, in_bundle, watcher):
    make, actor = in_bundle
    outside = [watcher.options(num_gpus=0.5).remote()]
    shared = told(ray, outside)[0]
    group = make([{"GPU": 1}, {"GPU": 1}])
    halves = told(ray, [actor(group, 0, 0.5), actor(group, 0, 0.5)])
    assert halves[0] == halves[1] != shared
    other = told(ray, [actor(group, 1, 0.5)])[0]
    outside += [watcher.options(num_gpus=0.5).remote() for _ in range(3)]
    assert not {gpu for ids in told(ray, outside) for gpu in ids} & {*halves[0], *other}


def test_bundles_with_parts_share_a_gpu(ray, in_bundle):
    make, actor = in_bundle
    group = make([{"GPU": 0.5}, {"GPU": 0.5}])
    first, second = told(ray, [actor(group, 0, 0.5), actor(group, 1, 0.25)])
    assert len(first) == len(second) == 1


def test_what_a_removed_group_had_can_be_used_again(ray, engine, in_bundle, look):
    import importlib

    groups = importlib.import_module(f"{engine.__name__}.util.placement_group")
    make, actor = in_bundle
    for _ in range(2):
        group = make([{"GPU": 2}, {"GPU": 2}])
        first, second = told(ray, [actor(group, 0, 2), actor(group, 1, 2)])
        assert len({*first, *second}) == 4
        groups.remove_placement_group(group)
    visible, ids = ray.get(look.options(num_gpus=4).remote(), timeout=TIMEOUT_S)
    assert visible == ",".join(ids)
