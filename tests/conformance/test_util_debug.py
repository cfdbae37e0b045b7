"""ray.util.debug, annotations, accelerators and the places where names are found."""

from __future__ import annotations

import importlib
import warnings

import pytest

pytestmark = pytest.mark.conformance


@pytest.fixture
def debug(engine):
    module = importlib.import_module(f"{engine.__name__}.util.debug")
    module.reset_log_once()
    return module


def test_log_once_is_true_once(debug):
    assert debug.log_once("key") is True
    assert debug.log_once("key") is False
    assert debug.log_once("other") is True


def test_a_key_that_was_reset_is_new(debug):
    debug.log_once("a")
    debug.log_once("b")
    debug.reset_log_once("a")
    debug.reset_log_once("never said")
    assert debug.log_once("a") is True
    assert debug.log_once("b") is False
    debug.reset_log_once()
    assert debug.log_once("b") is True


def test_switched_off_it_is_never_true(engine, tmp_path):
    # In a process of its own: there is no way back.
    import subprocess
    import sys

    code = f"""
from {engine.__name__}.util import disable_log_once_globally, enable_periodic_logging, log_once
assert log_once("a")
enable_periodic_logging()
assert not log_once("a")
disable_log_once_globally()
assert not log_once("b")
print("done")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "done", done.stderr


def test_the_same_names_in_ray_util(engine, debug):
    for name in ("log_once", "disable_log_once_globally", "enable_periodic_logging"):
        assert getattr(engine.util, name) is getattr(debug, name)


def test_helpers_have_as_completed_and_map_unordered(engine):
    helpers = importlib.import_module(f"{engine.__name__}.util.helpers")
    assert helpers.as_completed is engine.util.as_completed
    assert helpers.map_unordered is engine.util.map_unordered


def test_names_of_accelerators(engine):
    names = importlib.import_module(f"{engine.__name__}.util.accelerators")
    assert names.NVIDIA_TESLA_V100 == "V100"
    assert names.NVIDIA_A100 == names.NVIDIA_TESLA_A100 == "A100"
    assert names.INTEL_GAUDI == "Intel-GAUDI"
    assert names.AWS_NEURON_CORE == "aws-neuron-core"
    with pytest.raises(AttributeError):
        _ = names.NO_SUCH_DEVICE


@pytest.fixture
def marks(engine):
    return importlib.import_module(f"{engine.__name__}.util.annotations")


def test_marks_change_nothing(marks):
    for mark in (
        marks.PublicAPI,
        marks.PublicAPI(stability="beta"),
        marks.PublicAPI(stability="alpha", api_group="x"),
        marks.DeveloperAPI,
        marks.DeveloperAPI(),
        marks.Deprecated,
        marks.Deprecated(message="use another"),
    ):

        @mark
        def function(x):
            """What it does."""
            return x + 1

        @mark
        class Class:
            """What it is."""

            def method(self):
                return 5

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert function(1) == 2
            assert Class().method() == 5
        assert function.__name__ == "function"


def test_a_deprecated_thing_may_warn(marks):
    @marks.Deprecated(message="use another", warning=True)
    def function(x):
        """What it does."""
        return x + 1

    @marks.Deprecated(warning=True)
    class Class:
        """What it is."""

        def __init__(self, x):
            self.x = x

    with pytest.warns(marks.RayDeprecationWarning, match="use another"):
        assert function(1) == 2
    with pytest.warns(marks.RayDeprecationWarning):
        assert Class(3).x == 3
    assert issubclass(marks.RayDeprecationWarning, DeprecationWarning)
