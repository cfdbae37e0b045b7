"""The joblib backend: Parallel calls and scikit-learn's cross-validation over the cluster."""

from __future__ import annotations

import importlib
import os
import threading

import pytest

joblib = pytest.importorskip("joblib")

pytestmark = pytest.mark.conformance


@pytest.fixture(autouse=True)
def registered(ray):
    importlib.import_module(f"{ray.__name__}.util.joblib").register_ray()


def make_square():
    return lambda value: value * value


def test_calls_run_in_other_processes(ray):
    with joblib.parallel_config(backend="ray", n_jobs=2):
        pids = joblib.Parallel()(joblib.delayed(os.getpid)() for _ in range(8))
    assert os.getpid() not in pids


@pytest.mark.parametrize("n_jobs", [2, -1])
def test_results_come_in_order(ray, n_jobs):
    with joblib.parallel_config(backend="ray", n_jobs=n_jobs):
        results = joblib.Parallel()(joblib.delayed(make_square())(n) for n in range(50))
    assert results == [n * n for n in range(50)]


def test_all_cpus_of_the_cluster_are_jobs(ray):
    with joblib.parallel_config(backend="ray", n_jobs=-1):
        assert joblib.effective_n_jobs() == 4
        assert joblib.effective_n_jobs(3) == 3


def test_what_a_call_raises_is_raised(ray):
    def fail(value):
        if value == 5:
            raise ValueError("it was 5")
        return value

    with joblib.parallel_config(backend="ray", n_jobs=2):
        with pytest.raises(ValueError, match="it was 5") as caught:
            joblib.Parallel()(joblib.delayed(fail)(n) for n in range(20))
        assert type(caught.value) is ValueError
        assert joblib.Parallel()(joblib.delayed(fail)(n) for n in range(5)) == list(range(5))


def test_what_runs_beside_a_call_that_fails_is_cancelled(ray, make_gate):
    begun, go, never = make_gate(), make_gate(), make_gate()
    arrive, follow, hold = begun.waiter(), go.waiter(), never.waiter()

    def work(number):
        if number == 0:
            arrive()
            hold()
        follow()
        raise ValueError("the other one")

    def let_go():
        begun.wait_arrival()
        go.open()

    opener = threading.Thread(target=let_go)
    opener.start()
    with (
        joblib.parallel_config(backend="ray", n_jobs=2),
        pytest.raises(ValueError, match="the other one"),
    ):
        joblib.Parallel(batch_size=1)(joblib.delayed(work)(number) for number in range(2))
    opener.join()
    # Nobody lets the first through, and its CPU is free again all the same.
    four = ray.remote(num_cpus=4)(make_square())
    assert ray.get(four.remote(5), timeout=60) == 25


def test_parallel_objects_can_be_used_again(ray):
    with (
        joblib.parallel_config(backend="ray", n_jobs=2),
        joblib.Parallel(pre_dispatch="n_jobs") as parallel,
    ):
        for _ in range(3):
            calls = (joblib.delayed(make_square())(n) for n in range(5))
            assert parallel(calls) == [0, 1, 4, 9, 16]


def test_nested_calls_end(ray):
    def outer(value):
        return sum(joblib.Parallel(n_jobs=2)(joblib.delayed(abs)(-value) for _ in range(3)))

    with joblib.parallel_config(backend="ray", n_jobs=4):
        assert joblib.Parallel()(joblib.delayed(outer)(n) for n in range(8)) == [
            3 * n for n in range(8)
        ]


def test_options_reach_the_processes(ray):
    name = ray.__name__

    def held():
        import importlib

        context = importlib.import_module(name).get_runtime_context()
        return context.get_assigned_resources()

    with joblib.parallel_config(backend="ray", n_jobs=2, ray_remote_args={"num_cpus": 2}):
        assert joblib.Parallel()(joblib.delayed(held)() for _ in range(3)) == [{"CPU": 2}] * 3


def test_big_arguments_are_read_in_place(ray):
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(200_000.0)

    def look(values, *, again):
        return float(values[3]), float(again.sum())

    with joblib.parallel_config(backend="ray", n_jobs=2):
        results = joblib.Parallel()(joblib.delayed(look)(array, again=array) for _ in range(6))
    assert results == [(3.0, float(array.sum()))] * 6


@pytest.mark.parametrize("form", ["generator", "generator_unordered"])
@pytest.mark.mray_only("Ray's backend cannot return generators")
def test_results_as_a_generator(ray, form):
    with joblib.parallel_config(backend="ray", n_jobs=2):
        results = joblib.Parallel(return_as=form)(
            joblib.delayed(make_square())(n) for n in range(10)
        )
        assert sorted(results) == [n * n for n in range(10)]


@pytest.mark.mray_only("Ray knows no other name")
def test_the_backend_has_the_name_of_mray_too(ray):
    with joblib.parallel_config(backend="mray", n_jobs=2):
        assert joblib.Parallel()(joblib.delayed(abs)(-n) for n in range(3)) == [0, 1, 2]


def test_cross_validation(ray):
    datasets = pytest.importorskip("sklearn.datasets")
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import GridSearchCV, cross_val_score
    from sklearn.svm import SVC

    features, labels = datasets.load_digits(return_X_y=True)
    features, labels = features[:400], labels[:400]
    alone = cross_val_score(SVC(), features, labels, cv=4)
    forest = RandomForestClassifier(n_estimators=8, random_state=0)
    forest_alone = forest.fit(features, labels).predict(features)
    with joblib.parallel_config(backend="ray", n_jobs=3):
        together = cross_val_score(SVC(), features, labels, cv=4, n_jobs=-1)
        search = GridSearchCV(SVC(), {"C": [0.1, 1.0], "gamma": ["scale", 0.01]}, cv=2)
        search.fit(features, labels)
        forest_together = forest.fit(features, labels).predict(features)
    assert together.tolist() == alone.tolist()
    assert search.best_params_["C"] == 1.0
    assert (forest_alone == forest_together).all()
