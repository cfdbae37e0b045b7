"""Loaded by Python at the start of all that a test starts, if it asks for that: tests/damage.py."""

import os

_folder = os.environ.get("PYTEST_DAMAGE")
if _folder:
    from tests.damage import put_in_front

    put_in_front(_folder)
