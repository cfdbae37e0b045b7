"""scripts/compatibility/ray_names.json has the names of the Ray that is the oracle."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.conformance

FOLDER = Path(__file__).resolve().parents[2] / "scripts" / "compatibility"


def test_the_names_are_those_of_ray(engine):
    if engine.__name__ != "ray":
        pytest.skip("the names are read from Ray")
    told = subprocess.run(
        [sys.executable, str(FOLDER / "read_ray.py")], capture_output=True, text=True, check=True
    )
    assert json.loads(told.stdout) == json.loads((FOLDER / "ray_names.json").read_text())
