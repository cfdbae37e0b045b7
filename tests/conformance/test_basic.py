"""Declaring remote functions and calling them."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.conformance


def test_a_plain_decorator_makes_a_function_remote(ray):
    @ray.remote
    def add(a, b):
        return a + b

    assert ray.get(add.remote(1, 2)) == 3


def test_a_decorator_with_options_makes_a_function_remote(ray):
    @ray.remote(num_cpus=1, max_retries=1)
    def add(a, b):
        return a + b

    assert ray.get(add.remote(1, 2)) == 3


def test_remote_may_be_called_on_a_function_and_on_a_lambda(ray):
    double = ray.remote(lambda x: 2 * x)
    triple = ray.remote(num_cpus=0)(lambda x: 3 * x)
    assert ray.get([double.remote(2), triple.remote(2)]) == [4, 6]


def test_remote_returns_a_ref_and_get_its_value(ray):
    @ray.remote
    def nothing():
        return None

    ref = nothing.remote()
    assert isinstance(ref, ray.ObjectRef)
    assert ray.get(ref) is None


def test_every_kind_of_argument_arrives(ray):
    @ray.remote
    def echo(a, b=2, *rest, c, d=4, **more):
        return a, b, rest, c, d, more

    starred = {"c": 4}
    refs = [
        echo.remote(1, c=3),
        echo.remote(1, 20, 30, 40, c=3, d=5, e=6),
        echo.remote(a=1, b=0, c=3, f=None),
        echo.remote(*[1, 2, 3], **starred),
    ]
    assert ray.get(refs) == [
        (1, 2, (), 3, 4, {}),
        (1, 20, (30, 40), 3, 5, {"e": 6}),
        (1, 0, (), 3, 4, {"f": None}),
        (1, 2, (3,), 4, 4, {}),
    ]


def test_wrong_arguments_raise_at_the_call(ray):
    @ray.remote
    def add(a, b=1):
        return a + b

    with pytest.raises(TypeError, match="missing a required argument"):
        add.remote()
    with pytest.raises(TypeError, match="too many positional arguments"):
        add.remote(1, 2, 3)
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        add.remote(1, c=2)


def test_a_remote_function_cannot_be_called_directly(ray):
    @ray.remote
    def add(a, b):
        return a + b

    with pytest.raises(TypeError, match="remote"):
        add(1, 2)


def test_only_functions_and_classes_can_be_remote(ray):
    for value in (5, None, "text"):
        with pytest.raises((TypeError, AssertionError)):
            ray.remote(value)
        with pytest.raises((TypeError, AttributeError)):
            ray.remote(num_cpus=1)(value)


def test_unknown_options_are_refused(ray):
    def one():
        return 1

    with pytest.raises(ValueError, match="num_cpu"):
        ray.remote(num_cpu=1)(one)
    with pytest.raises(ValueError, match="nonsense"):
        ray.remote(one).options(nonsense=1)


def test_bad_values_of_options_are_refused(ray):
    def one():
        return 1

    with pytest.raises(ValueError, match="num_cpus"):
        ray.remote(num_cpus=-1)(one)
    with pytest.raises(ValueError, match="max_retries"):
        ray.remote(max_retries=-2)(one)
    with pytest.raises(TypeError, match="num_cpus"):
        ray.remote(num_cpus="1")(one)


def test_options_hold_for_one_call_only(ray):
    @ray.remote
    def pair():
        return 1, 2

    first, second = pair.options(num_returns=2).remote()
    assert ray.get([first, second]) == [1, 2]
    assert ray.get(pair.remote()) == (1, 2)


def test_underscore_remote_takes_arguments_and_options(ray):
    @ray.remote
    def pair(a, b):
        return a, b

    refs = pair._remote(args=[1], kwargs={"b": 2}, num_returns=2)
    assert ray.get(refs) == [1, 2]


def test_several_returns_are_several_refs(ray):
    @ray.remote(num_returns=3)
    def three():
        return 1, "two", [3]

    refs = three.remote()
    assert len(refs) == 3
    assert ray.get(refs) == [1, "two", [3]]


def test_no_returns_give_no_ref(ray):
    @ray.remote(num_returns=0)
    def silent():
        return None

    assert silent.remote() is None


@pytest.mark.parametrize("returned", [(1,), (1, 2, 3)])
def test_a_wrong_number_of_returns_is_an_error(ray, returned):
    @ray.remote(num_returns=2)
    def wrong():
        return returned

    for ref in wrong.remote():
        with pytest.raises(ValueError):
            ray.get(ref)


def test_closures_are_carried_along(ray):
    base = {"x": 10}

    def shift(value):
        return base["x"] + value

    @ray.remote
    def shifted(value):
        return shift(value)

    assert ray.get(shifted.remote(1)) == 11


def test_a_remote_function_may_call_another(ray):
    @ray.remote
    def one():
        return 1

    @ray.remote
    def two():
        return ray.get(one.remote()) + 1

    assert ray.get(two.remote()) == 2


def test_functions_of_one_name_stay_apart(ray):
    def make(value):
        @ray.remote
        def same():
            return value

        return same

    functions = [make(value) for value in range(20)]
    assert ray.get([f.remote() for f in functions]) == list(range(20))


def test_a_function_defined_again_is_the_new_one(ray):
    @ray.remote
    def f():
        return 1

    assert ray.get(f.remote()) == 1

    @ray.remote
    def f():
        return 2

    assert ray.get(f.remote()) == 2


def test_many_tasks_give_their_results_in_the_order_of_the_refs(ray):
    @ray.remote
    def square(x):
        return x * x

    assert ray.get([square.remote(i) for i in range(500)]) == [i * i for i in range(500)]


def test_tasks_run_at_the_same_time(ray, tmp_path):
    import os

    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)

    @ray.remote
    def speak():
        with open(fifo, "w") as file:
            file.write("hello")

    @ray.remote
    def listen():
        with open(fifo) as file:
            return file.read()

    heard, spoken = listen.remote(), speak.remote()
    assert ray.get([heard, spoken], timeout=60) == ["hello", None]


def test_tasks_run_in_other_processes_than_the_driver(ray):
    import os

    @ray.remote
    def pid():
        return os.getpid()

    assert ray.get(pid.remote()) != os.getpid()


def test_a_worker_is_used_again(ray):
    import os

    @ray.remote
    def pid():
        return os.getpid()

    pids = {ray.get(pid.remote()) for _ in range(20)}
    assert len(pids) <= 4


def test_a_worker_exits_after_max_calls(ray, wait_exit):
    import os

    @ray.remote(max_calls=1)
    def pid():
        return os.getpid()

    first = ray.get(pid.remote())
    second = ray.get(pid.remote())
    assert first != second
    assert wait_exit(first)


def test_imports_inside_and_outside_of_the_function_work(ray):
    import math

    @ray.remote
    def hypotenuse(a, b):
        import json

        return json.loads(json.dumps(math.hypot(a, b)))

    assert ray.get(hypotenuse.remote(3, 4)) == 5


def test_the_cluster_shows_its_resources(ray):
    assert ray.is_initialized()
    assert ray.cluster_resources()["CPU"] == 4
    (node,) = ray.nodes()
    assert node["Alive"]
    assert node["Resources"]["CPU"] == 4


def test_fractions_of_a_cpu_and_none_are_accepted(ray):
    @ray.remote
    def one():
        return 1

    refs = [one.options(num_cpus=cpus).remote() for cpus in (0, 0.5, 1, 2, 4)]
    assert ray.get(refs) == [1] * 5


def test_the_runtime_context_names_the_task_and_its_job(ray):
    @ray.remote
    def identify():
        context = ray.get_runtime_context()
        return (
            context.get_job_id(),
            context.get_node_id(),
            context.get_worker_id(),
            context.get_task_id(),
            context.get_actor_id(),
        )

    here = ray.get_runtime_context()
    first, second = ray.get([identify.remote(), identify.remote()])
    assert first[0] == here.get_job_id()
    assert first[1] == here.get_node_id() == ray.nodes()[0]["NodeID"]
    assert first[2] != here.get_worker_id()
    assert first[3] != second[3]
    assert first[4] is None


def test_a_task_goes_by_the_last_part_of_its_functions_name(ray):
    class Owner:
        @staticmethod
        def named(fail=False):
            if fail:
                raise ValueError("no")
            return ray.get_runtime_context().get_task_name()

    named = ray.remote(Owner.named)
    told = ray.get([named.remote(), named.options(name="other").remote()], timeout=60)
    assert told == ["named", "other"]
    with pytest.raises(ValueError) as caught:
        ray.get(named.remote(True), timeout=60)
    assert "ray::named()" in str(caught.value)


def test_a_ref_shows_its_id(ray):
    ref = ray.put(1)
    assert ref.hex() in repr(ref)
    assert bytes.fromhex(ref.hex()) == ref.binary()
    assert ref == ref
    assert hash(ref) == hash(ref)
    assert ref != ray.put(1)
    assert len({ref, ref}) == 1


def test_a_coroutine_function_is_no_remote_function(ray):
    async def answer():
        return 1

    with pytest.raises(ValueError):
        ray.remote(answer)


@pytest.mark.parametrize("arguments", [(5,), ("a", 5)])
def test_names_of_actors_are_text(ray, arguments):
    with pytest.raises(TypeError):
        ray.get_actor(*arguments)


def test_a_node_is_told_with_its_keys(ray):
    (node,) = ray.nodes()
    texts = "NodeID NodeManagerAddress NodeManagerHostname NodeName ObjectStoreSocketName"
    numbers = "NodeManagerPort ObjectManagerPort MetricsExportPort MetricsAgentPort DeathReason"
    assert {type(node[key]) for key in texts.split()} == {str}
    assert {type(node[key]) for key in numbers.split()} == {int}
    assert (node["Alive"], node["alive"]) == (True, True)
    assert (node["DeathReason"], node["DeathReasonMessage"]) == (0, "")
    assert node["Resources"]["CPU"] == 4
    assert node["Labels"]["ray.io/node-id"] == node["NodeID"]
