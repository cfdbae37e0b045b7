"""Where a reference was made: one user frame, named only when asked."""

from __future__ import annotations

import _thread
import functools
import inspect
import threading

from mray.call_sites import capture, describe


def line() -> int:
    """The line of the caller."""
    return inspect.currentframe().f_back.f_lineno


def inner():
    return capture(1)


def test_the_caller_is_named_by_file_line_and_function():
    site, here = inner(), line()
    name = test_the_caller_is_named_by_file_line_and_function.__qualname__
    assert describe(site) == f"{__file__}:{here} in {name}"


def test_a_decorator_around_the_caller_is_not_the_caller():
    def plain(function):
        @functools.wraps(function)
        def around(*args):
            return function(*args)

        return around

    @plain
    @plain
    def make():
        return inner(), line()

    site, here = make()
    assert describe(site).startswith(f"{__file__}:{here} in ")
    assert describe(site).endswith("make")


def test_a_comprehension_over_several_lines_is_named_by_the_line_of_the_call():
    first = line() + 1
    sites = [
        inner()
        for _ in range(2)
    ]  # fmt: skip
    assert {describe(site).partition(" in ")[0] for site in sites} == {f"{__file__}:{first + 1}"}


def test_code_without_a_file_is_named_by_its_line():
    names = {"inner": inner}
    exec("\n\nsite = inner()", names)
    assert describe(names["site"]) == "<string>:3"


def test_frames_of_modules_that_call_for_users_are_passed_over():
    names = {"inner": inner, "CALLS_FOR_USERS": True}
    exec("def remote():\n    return inner()\ndef _remote():\n    return remote()", names)
    site, here = names["_remote"](), line()
    assert describe(site).startswith(f"{__file__}:{here}")


def test_a_thread_without_python_code_around_has_no_site():
    done = threading.Event()
    found = []

    def run():
        found.append(capture(1))
        done.set()

    _thread.start_new_thread(run, ())
    assert done.wait(10)
    assert found == [None]
    assert describe(None) == ""


def test_mray_only_frames_have_no_site():
    names = {"capture": capture, "CALLS_FOR_USERS": True, "found": [], "done": threading.Event()}
    exec("def remote():\n    found.append(capture(0))\n    done.set()", names)
    _thread.start_new_thread(names["remote"], ())
    assert names["done"].wait(10)
    assert names["found"] == [None]
