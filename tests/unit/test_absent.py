"""Names of Ray that are not here: the error says so, and why."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import mray
import mray.experimental
import mray.util
from mray.absent import ABSENT, absent_part, reason_of


@pytest.mark.parametrize("name", sorted(ABSENT))
def test_an_absent_name_says_why(name):
    module, _, last = name.rpartition(".")
    place = importlib.import_module(f"mray.{module}" if module else "mray")
    with pytest.raises(AttributeError, match="mray provides Ray Core only") as raised:
        getattr(place, last)
    assert ABSENT[name] in str(raised.value)
    assert not hasattr(place, last)
    if hasattr(place, "__path__"):
        with pytest.raises(ModuleNotFoundError, match="mray provides Ray Core only"):
            importlib.import_module(f"mray.{name}")


def test_what_is_below_an_absent_module_is_absent():
    assert absent_part("train.torch.x")[0] == "train"
    assert absent_part("data.preprocessors")[0] == "data"
    assert absent_part("data") == ("", "")
    assert reason_of("training") == ""
    with pytest.raises(ModuleNotFoundError, match=r"there is no ray\.util\.collective;"):
        importlib.import_module("mray.util.collective.types")


@pytest.mark.parametrize("place", [mray, mray.util, mray.experimental])
def test_what_ray_does_not_have_either_is_plainly_missing(place):
    with pytest.raises(AttributeError, match="has no attribute 'no_such_name'"):
        _ = place.no_such_name
    with pytest.raises(ModuleNotFoundError, match="No module named"):
        importlib.import_module(f"{place.__name__}.no_such_name")


@pytest.mark.parametrize("place", [mray, mray.experimental])
def test_every_public_name_is_there(place):
    assert [name for name in place.__all__ if getattr(place, name) is None] == []


def test_a_from_import_says_why():
    code = "from mray import train"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "mray provides Ray Core only: there is no ray.train" in done.stderr
