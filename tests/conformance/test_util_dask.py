"""dask's collections over the cluster."""

from __future__ import annotations

import importlib
import os

import pytest

dask = pytest.importorskip("dask")

pytestmark = pytest.mark.conformance


@pytest.fixture
def module(ray):
    # Ray's own module needs pandas.
    pytest.importorskip("pandas")
    return importlib.import_module(f"{ray.__name__}.util.dask")


@pytest.fixture
def get(module):
    return module.ray_dask_get


def add_one(value):
    return value + 1


GRAPH = {
    "a": 1,
    "b": (lambda value: value + 1, "a"),
    "c": (lambda value: value + 1, "b"),
    "d": (sum, ["b", "c"]),
}


def test_keys_of_a_graph_in_any_nesting(get):
    assert get(GRAPH, "d") == 5
    assert list(get(GRAPH, ["d", "a"])) == [5, 1]
    first, second, third = get(GRAPH, [["d", "a"], ["c"], "d"])
    assert (list(first), list(second), third) == ([5, 1], [3], 5)
    assert list(get(GRAPH, [])) == []


def test_only_what_is_wanted_runs(get, tally):
    count = tally.adder()
    graph = {"a": (count,), "b": (abs, "a"), "c": (count,), "d": (max, "a", "b")}
    assert list(get(graph, ["d", "b"])) == [1, 1]
    assert tally.count == 1, "once, and not for c"


def test_wrong_graphs_are_refused(get):
    with pytest.raises(KeyError):
        get(GRAPH, "nothing")
    with pytest.raises(RuntimeError):
        get({"a": (abs, "b"), "b": (abs, "a")}, "a")


def test_tasks_run_in_other_processes(get):
    assert dask.delayed(os.getpid)().compute(scheduler=get) != os.getpid()


def test_what_a_task_raises_is_raised(get):
    def fail(value):
        raise KeyError(value)

    with pytest.raises(KeyError):
        dask.delayed(abs)(dask.delayed(fail)(1)).compute(scheduler=get)


def test_delayed_calls_with_nested_arguments_and_results(get):
    def spread(values, *, extra):
        return {"all": [*values["list"], extra], "pair": (extra, None)}

    one = dask.delayed(abs)(-1)
    nested = dask.delayed(spread)({"list": [one, 2]}, extra=dask.delayed(abs)(-3))
    assert nested.compute(scheduler=get) == {"all": [1, 2, 3], "pair": (3, None)}
    both, alone = dask.compute([nested["pair"], {"key": one}], one, scheduler=get)
    assert both == [(3, None), {"key": 1}]
    assert alone == 1


def test_a_long_chain_and_a_wide_sum(get):
    increment = dask.delayed(lambda value: value + 1)
    total = dask.delayed(0)
    for _ in range(200):
        total = increment(total)
    assert total.compute(scheduler=get, optimize_graph=False) == 200
    assert dask.delayed(sum)([increment(n) for n in range(200)]).compute(scheduler=get) == 20100


def test_arrays(get):
    numpy = pytest.importorskip("numpy")
    array = pytest.importorskip("dask.array")
    values = numpy.arange(10_000.0).reshape(100, 100)
    chunked = array.from_array(values, chunks=(30, 40))
    result = (chunked @ chunked.T + 1).mean(axis=0).compute(scheduler=get)
    assert numpy.allclose(result, (values @ values.T + 1).mean(axis=0))
    assert (chunked[10:50, 5] * 2).compute(scheduler=get).tolist() == (
        values[10:50, 5] * 2
    ).tolist()


def test_bags(get):
    bag = pytest.importorskip("dask.bag")
    numbers = bag.from_sequence(range(100), npartitions=7)
    even = numbers.filter(lambda value: value % 2 == 0)
    assert even.map(lambda value: value * 10).sum().compute(scheduler=get) == 24500


def test_frames(get):
    pandas = pytest.importorskip("pandas")
    frames = pytest.importorskip("dask.dataframe")
    frame = pandas.DataFrame({"key": [n % 5 for n in range(100)], "value": range(100)})
    parts = frames.from_pandas(frame, npartitions=4)
    grouped = parts.groupby("key")["value"].sum().compute(scheduler=get)
    assert grouped.sort_index().tolist() == frame.groupby("key")["value"].sum().tolist()
    shuffled = parts.shuffle("key").compute(scheduler=get)
    assert sorted(shuffled["value"]) == list(range(100))


def test_the_default_scheduler_can_be_switched(module, get):
    before = dask.config.get("scheduler", None)
    with module.enable_dask_on_ray():
        assert dask.config.get("scheduler") is get
        assert dask.delayed(os.getpid)().compute() != os.getpid()
    assert dask.config.get("scheduler", None) is before
    try:
        module.enable_dask_on_ray(shuffle="tasks")
        assert dask.config.get("scheduler") is get
    finally:
        module.disable_dask_on_ray()
    assert dask.config.get("scheduler", None) is None


def make_held(ray):
    name = ray.__name__

    def held():
        import importlib

        context = importlib.import_module(name).get_runtime_context()
        return context.get_assigned_resources()["CPU"]

    return held


def test_options_of_the_tasks(ray, get):
    held = dask.delayed(make_held(ray))
    assert held().compute(scheduler=get, ray_remote_args={"num_cpus": 2}) == 2
    with dask.annotate(ray_remote_args={"num_cpus": 3}):
        annotated = held()
    result = dask.compute(annotated, held(), scheduler=get, optimize_graph=False)
    assert result == (3, 1)
    with pytest.raises(ValueError):
        held().compute(scheduler=get, resources={"special": 1})


def test_persisted_results_are_not_computed_again(module, get, tally):
    numpy = pytest.importorskip("numpy")
    array = pytest.importorskip("dask.array")
    count = tally.adder()

    def counted(block):
        count()
        return block + 1

    values = numpy.ones((20, 20))
    blocks = array.from_array(values, chunks=10).map_blocks(counted, dtype=float, meta=values)
    (kept,) = module.ray_dask_persist(blocks, scheduler=get)
    assert float(kept.sum().compute(scheduler=get)) == 800
    assert float((kept * 2).sum().compute(scheduler=get, optimize_graph=False)) == 1600
    assert kept.compute(scheduler=get).shape == (20, 20)
    assert tally.count == 4


@pytest.mark.mray_only("Ray leaves references, which only its own scheduler can read")
def test_persisted_results_can_be_computed_by_dask_itself(module):
    (kept,) = module.ray_dask_persist(dask.delayed(abs)(-3))
    assert dask.delayed(max)(kept, 2).compute(scheduler="synchronous") == 3


@pytest.mark.mray_only("Ray ignores what it does not know")
def test_arguments_without_meaning_are_refused(get):
    with pytest.raises(TypeError):
        get(GRAPH, "d", no_such_argument=1)
    with pytest.raises(TypeError):
        get(GRAPH, "d", ray_callbacks=[object()])
    assert get(GRAPH, "d", num_workers=2) == 5


def test_callbacks_are_called_around_tasks(ray, module, get, tmp_path):
    before, after, all_of_it, done = [], [], [], []
    log = tmp_path / "log"

    class Watch(module.RayDaskCallback):
        def _ray_presubmit(self, task, key, deps):
            before.append(key)
            return 100 if key == "b" else None

        def _ray_postsubmit(self, task, key, deps, object_ref):
            after.append((key, isinstance(object_ref, ray.ObjectRef)))

        def _ray_postsubmit_all(self, object_refs, dsk):
            all_of_it.append(object_refs)

        def _ray_finish(self, result):
            done.append(result)

    def pretask(key, object_refs):
        return f"{key} of {len(object_refs)}"

    def posttask(key, result, pre_state):
        with open(log, "a") as file:
            file.write(f"{pre_state} is {result}\n")

    graph = {"a": 1, "b": (lambda x: x + 1, "a"), "c": (lambda x, y: x * y, "a", "b")}
    with Watch(), module.RayDaskCallback(ray_pretask=pretask, ray_posttask=posttask):
        assert get(graph, "c") == 100
    assert [key for key in before if key != "a"] == ["b", "c"]
    assert [entry for entry in after if entry[0] != "a"] == [("c", True)]
    assert len(all_of_it) == len(done) == 1
    assert log.read_text().splitlines()[-1] == "c of 2 is 100"
    assert get(graph, "c") == 2
    assert len(before) <= 3, "it is active no more"
