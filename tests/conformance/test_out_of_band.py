"""References that user code pickles by itself: what the engine can no longer count."""

from __future__ import annotations

import pickle

import pytest

pytestmark = [pytest.mark.conformance, pytest.mark.filterwarnings("ignore:.*out of band")]


@pytest.fixture(params=[10, 500_000], ids=["small", "big"])
def value(request):
    return b"v" * request.param


def test_plain_pickle_does_not_keep_the_object(ray, glass, value):
    ref = ray.put(value)
    seen = glass(ref)
    pickled = pickle.dumps(ref)
    assert ray.get(pickle.loads(pickled), timeout=60) == value
    del ref
    assert seen.wait_gone()
    with pytest.raises(ray.exceptions.GetTimeoutError):
        ray.get(pickle.loads(pickled), timeout=1)


def test_a_ref_that_a_task_pickled_plainly_has_vanished(ray, value):
    @ray.remote
    def pickled():
        import pickle

        return pickle.dumps(ray.put(value))

    again = pickle.loads(ray.get(pickled.remote(), timeout=60))
    with pytest.raises(ray.exceptions.GetTimeoutError):
        ray.get(again, timeout=5)


@pytest.mark.mray_only("Ray waits for the whole timeout, or for ever without one")
def test_a_vanished_object_is_known_to_be_one_at_once(ray, glass):
    ref = ray.put(1)
    seen = glass(ref)
    pickled = pickle.dumps(ref)
    del ref
    assert seen.wait_gone()
    with pytest.raises(ray.exceptions.ObjectLostError) as caught:
        ray.get(pickle.loads(pickled))
    assert isinstance(caught.value, TimeoutError)
    assert isinstance(caught.value, ray.exceptions.GetTimeoutError)


def test_the_engines_cloudpickle_pins_the_object(ray, glass, value):
    ref = ray.put(value)
    seen = glass(ref)
    pickled = ray.cloudpickle.dumps({"ref": ref})
    del ref
    assert not seen.gone()
    again = pickle.loads(pickled)["ref"]
    assert ray.get(again, timeout=60) == value
    del again
    assert not seen.gone()


def test_what_a_task_pickled_with_cloudpickle_can_be_read_while_its_worker_lives(ray, value):
    @ray.remote
    class Pickler:
        def pickled(self):
            return ray.cloudpickle.dumps(ray.put(value))

    pickler = Pickler.remote()
    again = pickle.loads(ray.get(pickler.pickled.remote(), timeout=60))
    assert ray.get(again, timeout=60) == value


def test_a_task_may_be_told_to_refuse(ray, value):
    @ray.remote
    def pickled():
        return ray.cloudpickle.dumps(ray.put(value))

    refusing = pickled.options(
        runtime_env={"env_vars": {"RAY_allow_out_of_band_object_ref_serialization": "0"}}
    )
    with pytest.raises(ray.exceptions.OufOfBandObjectRefSerializationException) as caught:
        ray.get(refusing.remote(), timeout=60)
    assert "RAY_allow_out_of_band_object_ref_serialization" in str(caught.value)
    assert isinstance(ray.get(pickled.remote(), timeout=60), bytes)


def test_a_task_that_refuses_still_passes_refs_the_right_way(ray, value):
    @ray.remote
    def inner(box):
        return len(ray.get(box[0]))

    @ray.remote
    def outer(box):
        made = ray.put(value)
        return ray.get(inner.remote([made])) + len(ray.get(box[0])), [made]

    refusing = outer.options(
        runtime_env={"env_vars": {"RAY_allow_out_of_band_object_ref_serialization": "0"}}
    )
    total, (made,) = ray.get(refusing.remote([ray.put(value)]), timeout=60)
    assert total == 2 * len(value)
    assert ray.get(made, timeout=60) == value


@pytest.mark.mray_only("Ray says nothing unless the variable is 0")
@pytest.mark.filterwarnings("error")
def test_pickling_a_ref_warns_with_the_place(ray):
    ref = ray.put(1)
    with pytest.warns(UserWarning, match=r"out of band at .*test_out_of_band\.py"):
        pickle.dumps(ref)
    with pytest.warns(UserWarning, match="stays until this process ends"):
        ray.cloudpickle.dumps(ref)


def test_values_pickled_by_the_user_without_refs_are_his_own_affair(ray):
    @ray.remote
    def echo(data):
        return data

    data = ray.cloudpickle.dumps(lambda x: x + 1)
    assert pickle.loads(ray.get(echo.remote(data), timeout=60))(1) == 2
