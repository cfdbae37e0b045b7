"""ray.util.metrics: names, arguments and errors. What becomes of figures is each engine's own."""

from __future__ import annotations

import importlib
import pickle
import warnings

import pytest

pytestmark = pytest.mark.conformance


@pytest.fixture
def metrics(ray):
    return importlib.import_module(f"{ray.__name__}.util.metrics")


def make(metrics, kind, name, **options):
    if kind == "Histogram":
        options.setdefault("boundaries", [1.0])
    return getattr(metrics, kind)(name, **options)


def record(metric, value=1, tags=None):
    for method in ("inc", "set", "observe"):
        if hasattr(metric, method):
            return getattr(metric, method)(value, tags)
    raise AssertionError(f"{metric} records nothing")


kinds = pytest.mark.parametrize("kind", ["Counter", "Gauge", "Histogram"])


@kinds
def test_info_is_what_it_was_made_of(metrics, kind):
    metric = make(metrics, kind, "conf_info", description="what", tag_keys=("a", "b"))
    wanted = {
        "name": "conf_info",
        "description": "what",
        "tag_keys": ("a", "b"),
        "default_tags": {},
    }
    if kind == "Histogram":
        wanted["boundaries"] = [1.0]
    assert metric.info == wanted
    assert make(metrics, kind, "conf_bare").info["tag_keys"] == ()


@kinds
def test_a_metric_needs_a_name(metrics, kind):
    with pytest.raises(ValueError):
        make(metrics, kind, "")
    with pytest.raises(TypeError):
        make(metrics, kind, 5)


@kinds
@pytest.mark.parametrize("name", ["a b", "a-b", "1a"])
def test_a_name_that_cannot_be_exported_warns_and_records_nothing(metrics, kind, name):
    with pytest.warns(UserWarning, match="name"):
        metric = make(metrics, kind, name, tag_keys=("a",))
    assert record(metric) is None  # Not even its tags are looked at.


@kinds
def test_a_colon_in_a_name_warns(metrics, kind):
    with pytest.warns(FutureWarning):
        make(metrics, kind, "conf:colon")


@kinds
@pytest.mark.parametrize("keys", ["abc", ["a"], (1,), (None,)])
def test_tag_keys_are_a_tuple_of_text(metrics, kind, keys):
    with pytest.raises(TypeError):
        make(metrics, kind, "conf_keys", tag_keys=keys)


@kinds
def test_every_tag_key_needs_a_value(metrics, kind):
    metric = make(metrics, kind, "conf_tags", tag_keys=("a", "b"))
    with pytest.raises(ValueError):
        record(metric)
    with pytest.raises(ValueError):
        record(metric, tags={"a": "1"})
    record(metric, tags={"a": "1", "b": "2"})
    record(metric, tags={"a": "1", "b": "2", "c": "more than declared"})


@kinds
@pytest.mark.parametrize("value", [1, None, 1.5])
def test_values_of_tags_are_text(metrics, kind, value):
    metric = make(metrics, kind, "conf_values", tag_keys=("a",))
    with pytest.raises(TypeError):
        record(metric, tags={"a": value})
    with pytest.raises(TypeError):
        metric.set_default_tags({"a": value})


@kinds
def test_default_tags_stand_in(metrics, kind):
    metric = make(metrics, kind, "conf_defaults", tag_keys=("a", "b"))
    assert metric.set_default_tags({"a": "1"}) is metric
    assert metric.info["default_tags"] == {"a": "1"}
    record(metric, tags={"b": "2"})
    record(metric, tags={"a": "other", "b": "2"})
    with pytest.raises(ValueError):
        record(metric)
    with pytest.raises(ValueError):
        metric.set_default_tags({"z": "1"})


@kinds
@pytest.mark.parametrize("value", ["1", [1], object()])
def test_values_are_numbers(metrics, kind, value):
    with pytest.raises(TypeError):
        record(make(metrics, kind, "conf_numbers"), value)


@kinds
def test_numbers_of_numpy_are_taken_where_they_are_floats(metrics, kind):
    numpy = pytest.importorskip("numpy")
    metric = make(metrics, kind, "conf_numpy")
    record(metric, numpy.float64(1.5))
    for value in (numpy.float32(1.5), numpy.int64(1)):
        with pytest.raises(TypeError):
            record(metric, value)


@pytest.mark.parametrize("value", [0, -1, -0.5])
def test_a_counter_only_grows(metrics, value):
    counter = metrics.Counter("conf_grows")
    counter.inc()
    counter.inc(True)
    counter.inc(0.5)
    with pytest.raises(ValueError):
        counter.inc(value)


def test_a_counter_takes_no_none_and_a_gauge_ignores_it(metrics):
    with pytest.raises(TypeError):
        metrics.Counter("conf_none").inc(None)
    with pytest.raises(TypeError):
        metrics.Histogram("conf_none_h", boundaries=[1]).observe(None)
    gauge = metrics.Gauge("conf_none_g", tag_keys=("a",))
    assert gauge.set(None) is None
    assert gauge.set(None, {"a": 1}) is None


def test_a_gauge_takes_any_number(metrics):
    gauge = metrics.Gauge("conf_any")
    for value in (0, -5, 2.5, True, float("nan"), float("inf")):
        gauge.set(value)


@pytest.mark.parametrize("boundaries", [None, [], [0, 1], [1, -1]])
def test_a_histogram_needs_boundaries_above_zero(metrics, boundaries):
    with pytest.raises(ValueError):
        metrics.Histogram("conf_boundaries", boundaries=boundaries)


@pytest.mark.parametrize("boundaries", [[5, 2], (1, 2), [1, 1]])
def test_boundaries_are_kept_as_they_were_given(metrics, boundaries):
    histogram = metrics.Histogram("conf_kept", boundaries=boundaries)
    assert histogram.info["boundaries"] == boundaries
    assert histogram.boundaries is boundaries
    histogram.observe(-3)


def test_arguments_have_their_order(metrics):
    assert metrics.Counter("conf_order", "what", ("a",)).info["tag_keys"] == ("a",)
    info = metrics.Histogram("conf_order_h", "what", [1], ("a",)).info
    assert (info["boundaries"], info["tag_keys"]) == ([1], ("a",))


def test_one_name_may_be_used_again(metrics):
    for _ in range(2):
        metrics.Counter("conf_again").inc()
    metrics.Gauge("conf_again").set(1)


@kinds
def test_a_metric_has_the_methods_of_its_kind_only(metrics, kind):
    metric = make(metrics, kind, "conf_methods")
    own = {"Counter": "inc", "Gauge": "set", "Histogram": "observe"}
    assert [hasattr(metric, name) for name in own.values()] == [name == kind for name in own]
    assert not hasattr(metric, "record")


@kinds
def test_a_pickled_metric_leaves_its_default_tags_behind(metrics, kind):
    metric = make(metrics, kind, "conf_pickle", description="what", tag_keys=("a",))
    metric.set_default_tags({"a": "1"})
    copy = pickle.loads(pickle.dumps(metric))
    assert type(copy) is type(metric)
    assert copy.info == {**metric.info, "default_tags": {}}


def test_the_public_names(metrics):
    assert sorted(metrics.__all__) == ["Counter", "Gauge", "Histogram"]


def test_metrics_work_in_tasks_and_actors(ray, metrics):
    counter = metrics.Counter("conf_remote", tag_keys=("where",))

    @ray.remote
    def task():
        counter.inc(1, {"where": "task"})
        return counter.info["name"]

    @ray.remote
    class Actor:
        def __init__(self, name):
            import importlib

            self.gauge = importlib.import_module(name).Gauge("conf_actor")

        def set(self, metric):
            self.gauge.set(3)
            metric.inc(1, {"where": "actor"})
            return metric.info["tag_keys"]

    assert ray.get(task.remote()) == "conf_remote"
    actor = Actor.remote(metrics.__name__)
    assert ray.get(actor.set.remote(counter)) == ("where",)


def test_metrics_are_made_and_used_without_a_cluster(engine):
    # In a process of its own: this one is connected.
    import subprocess
    import sys

    code = f"""
import warnings
warnings.simplefilter("error")
from {engine.__name__}.util.metrics import Counter, Gauge, Histogram
Counter("early").inc()
Gauge("early_g").set(1)
Histogram("early_h", boundaries=[1]).observe(1)
print("done")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "done", done.stderr


@kinds
def test_no_warning_without_a_cause(metrics, kind):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        record(make(metrics, kind, "conf_quiet"))
