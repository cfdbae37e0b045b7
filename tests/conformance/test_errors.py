"""What a driver sees when a task fails: by an exception, or with its worker."""

from __future__ import annotations

import threading

import pytest

pytestmark = pytest.mark.conformance


def test_an_exception_is_raised_by_get_as_its_own_type(ray):
    @ray.remote
    def fail():
        raise ValueError("the reason")

    with pytest.raises(ValueError, match="the reason") as caught:
        ray.get(fail.remote())
    assert isinstance(caught.value, ray.exceptions.RayTaskError)
    assert isinstance(caught.value, ray.exceptions.RayError)


def test_the_original_exception_is_the_cause(ray):
    @ray.remote
    def fail():
        raise KeyError("k", 2)

    with pytest.raises(ray.exceptions.RayTaskError) as caught:
        ray.get(fail.remote())
    assert type(caught.value.cause) is KeyError
    assert caught.value.cause.args == ("k", 2)


def test_the_text_holds_the_remote_traceback(ray):
    def deep():
        raise ValueError("the reason")

    @ray.remote
    def outer_task():
        deep()

    with pytest.raises(ValueError) as caught:
        ray.get(outer_task.remote())
    text = str(caught.value)
    assert "outer_task" in text
    assert "in deep" in text
    assert "test_errors.py" in text
    assert text.rstrip().endswith("ValueError: the reason")


def test_a_type_of_the_users_own_is_kept(ray):
    class OwnError(Exception):
        pass

    @ray.remote
    def fail():
        raise OwnError("mine")

    with pytest.raises(OwnError, match="mine") as caught:
        ray.get(fail.remote())
    assert isinstance(caught.value, ray.exceptions.RayTaskError)


def test_an_exception_that_pickles_with_its_attributes_keeps_them(ray):
    class CodedError(Exception):
        def __init__(self, code):
            super().__init__(code)
            self.code = code

    @ray.remote
    def fail():
        raise CodedError(42)

    with pytest.raises(CodedError) as caught:
        ray.get(fail.remote())
    assert caught.value.cause.code == 42


def test_an_exception_that_cannot_be_rebuilt_still_shows_its_text(ray):
    class PairError(Exception):
        def __init__(self, a, b):
            super().__init__(f"a={a} b={b}")

    @ray.remote
    def fail():
        raise PairError(1, 2)

    with pytest.raises(Exception, match="a=1 b=2"):
        ray.get(fail.remote())


def test_an_exception_that_cannot_be_pickled_still_shows_its_text(ray):
    class LockedError(Exception):
        def __init__(self):
            super().__init__("held by a lock")
            self.lock = threading.Lock()

    @ray.remote
    def fail():
        raise LockedError

    with pytest.raises(ray.exceptions.RayTaskError, match="held by a lock"):
        ray.get(fail.remote())


def test_a_base_exception_is_raised_as_its_own_type(ray):
    class Stop(BaseException):
        pass

    @ray.remote
    def fail():
        raise Stop("now")

    with pytest.raises(Stop, match="now") as caught:
        ray.get(fail.remote())
    assert isinstance(caught.value, ray.exceptions.RayTaskError)


def test_an_exception_group_can_be_taken_apart(ray):
    @ray.remote
    def fail():
        raise ExceptionGroup("both", [ValueError("a"), TypeError("b")])

    with pytest.raises(ExceptionGroup) as caught:
        ray.get(fail.remote())
    assert isinstance(caught.value, ray.exceptions.RayTaskError)
    assert [type(e) for e in caught.value.exceptions] == [ValueError, TypeError]
    assert caught.value.subgroup(TypeError) is not None


def test_stop_iteration_comes_through(ray):
    @ray.remote
    def fail():
        raise StopIteration

    with pytest.raises(StopIteration):
        ray.get(fail.remote())


def test_a_failed_argument_fails_the_task_with_the_first_error(ray):
    @ray.remote
    def fail():
        raise ValueError("at the source")

    @ray.remote
    def consume(value):
        return value

    with pytest.raises(ValueError, match="at the source"):
        ray.get(consume.remote(consume.remote(fail.remote())))


def test_a_failed_ref_inside_a_container_fails_nothing_by_itself(ray):
    @ray.remote
    def fail():
        raise ValueError("on purpose")

    @ray.remote
    def count(refs):
        return len(refs)

    assert ray.get(count.remote([fail.remote()])) == 1


def test_every_return_of_a_failed_task_raises(ray):
    @ray.remote(num_returns=2)
    def fail():
        raise ValueError("on purpose")

    for ref in fail.remote():
        with pytest.raises(ValueError, match="on purpose"):
            ray.get(ref)


def test_an_error_can_be_got_again_and_again(ray):
    @ray.remote
    def fail():
        raise ValueError("on purpose")

    ref = fail.remote()
    for _ in range(3):
        with pytest.raises(ValueError, match="on purpose"):
            ray.get(ref)


def test_get_of_several_raises_though_others_are_pending(ray, gate):
    wait_open = gate.waiter()

    @ray.remote
    def held():
        wait_open()

    @ray.remote
    def fail():
        raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        ray.get([held.remote(), fail.remote()], timeout=60)


def test_an_exception_returned_is_a_value(ray):
    @ray.remote
    def give():
        return ValueError("harmless")

    assert isinstance(ray.get(give.remote()), ValueError)
    assert isinstance(ray.get(ray.put(ValueError("harmless"))), ValueError)


def test_a_worker_goes_on_after_an_exception(ray):
    @ray.remote
    def fail():
        raise ValueError("on purpose")

    @ray.remote
    def one():
        return 1

    failed = [fail.remote() for _ in range(20)]
    assert ray.get([one.remote() for _ in range(20)]) == [1] * 20
    for ref in failed:
        with pytest.raises(ValueError):
            ray.get(ref)


def test_what_cannot_be_pickled_is_refused_as_argument_and_by_put(ray):
    @ray.remote
    def echo(value):
        return value

    with pytest.raises(TypeError, match="lock"):
        echo.remote(threading.Lock())
    with pytest.raises(TypeError, match="lock"):
        ray.put(threading.Lock())


def test_a_result_that_cannot_be_pickled_is_an_error_of_the_task(ray):
    @ray.remote
    def give_lock():
        return threading.Lock()

    with pytest.raises(TypeError, match="lock") as caught:
        ray.get(give_lock.remote())
    assert isinstance(caught.value, ray.exceptions.RayTaskError)


def test_a_crashed_worker_is_reported(ray):
    @ray.remote(max_retries=0)
    def crash():
        import os

        os._exit(3)

    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(crash.remote(), timeout=60)


def test_a_worker_killed_by_a_signal_is_reported(ray):
    @ray.remote(max_retries=0)
    def crash():
        import os
        import signal

        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(crash.remote(), timeout=60)


def test_sys_exit_in_a_task_ends_its_worker(ray):
    @ray.remote(max_retries=0)
    def leave():
        import sys

        sys.exit(0)

    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(leave.remote(), timeout=60)


def test_keyboard_interrupt_in_a_task_counts_as_cancelled(ray):
    @ray.remote(max_retries=0)
    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(ray.exceptions.TaskCancelledError):
        ray.get(interrupt.remote(), timeout=60)


def test_a_task_is_retried_after_a_crash(ray, tally):
    add = tally.adder()

    @ray.remote(max_retries=2)
    def crash_twice():
        import os

        if add() < 3:
            os._exit(1)
        return "done"

    assert ray.get(crash_twice.remote(), timeout=60) == "done"
    assert tally.count == 3


def test_retries_after_crashes_end(ray, tally):
    add = tally.adder()

    @ray.remote(max_retries=1)
    def crash():
        import os

        add()
        os._exit(1)

    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(crash.remote(), timeout=60)
    assert tally.count == 2


def test_exceptions_are_not_retried_unless_asked(ray, tally):
    add = tally.adder()

    @ray.remote(max_retries=3)
    def fail():
        add()
        raise ValueError("on purpose")

    with pytest.raises(ValueError):
        ray.get(fail.remote())
    assert tally.count == 1


def test_exceptions_are_retried_when_asked(ray, tally):
    add = tally.adder()

    @ray.remote(max_retries=2, retry_exceptions=True)
    def fail():
        add()
        raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        ray.get(fail.remote(), timeout=60)
    assert tally.count == 3


def test_a_retry_that_succeeds_gives_its_result(ray, tally):
    add = tally.adder()

    @ray.remote(max_retries=5, retry_exceptions=True)
    def fail_once():
        if add() == 1:
            raise ValueError("on purpose")
        return "done"

    assert ray.get(fail_once.remote(), timeout=60) == "done"
    assert tally.count == 2


@pytest.mark.parametrize(("listed", "attempts"), [(LookupError, 3), (TypeError, 1)])
def test_only_listed_exceptions_are_retried(ray, tally, listed, attempts):
    add = tally.adder()

    @ray.remote(max_retries=2, retry_exceptions=[listed])
    def fail():
        add()
        raise KeyError("on purpose")

    with pytest.raises(KeyError):
        ray.get(fail.remote(), timeout=60)
    assert tally.count == attempts


def test_the_exceptions_form_rays_tree(ray):
    errors = ray.exceptions
    for child, *parents in (
        (errors.RayError, Exception),
        (errors.RayTaskError, errors.RayError),
        (errors.TaskCancelledError, errors.RayError),
        (errors.WorkerCrashedError, errors.RayError),
        (errors.GetTimeoutError, errors.RayError, TimeoutError),
        (errors.RayActorError, errors.RayError),
        (errors.ActorDiedError, errors.RayActorError),
        (errors.ActorUnavailableError, errors.RayActorError),
        (errors.ActorUnschedulableError, errors.RayError),
        (errors.ActorAlreadyExistsError, ValueError, errors.RayError),
        (errors.TaskUnschedulableError, errors.RayError),
        (errors.ObjectStoreFullError, errors.RayError),
        (errors.OutOfDiskError, errors.RayError),
        (errors.OutOfMemoryError, errors.RayError),
        (errors.ObjectLostError, errors.RayError),
        (errors.ObjectFetchTimedOutError, errors.ObjectLostError),
        (errors.ReferenceCountingAssertionError, errors.ObjectLostError, AssertionError),
        (errors.ObjectFreedError, errors.ObjectLostError),
        (errors.OwnerDiedError, errors.ObjectLostError),
        (errors.ObjectReconstructionFailedError, errors.ObjectLostError),
        (errors.RuntimeEnvSetupError, errors.RayError),
        (errors.NodeDiedError, errors.RayError),
        (errors.PendingCallsLimitExceeded, errors.RayError),
        (errors.RaySystemError, errors.RayError),
        (errors.CrossLanguageError, errors.RayError),
    ):
        for parent in parents:
            assert issubclass(child, parent), (child, parent)
