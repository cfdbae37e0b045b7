"""What the node daemon reads of a runtime_env."""

from __future__ import annotations

import msgspec
import pytest

from mray.node.workers.environment import (
    MAKER_VARIABLE,
    RuntimeEnv,
    maker_named,
)


def env(**env_vars: str) -> RuntimeEnv:
    return RuntimeEnv.read(msgspec.msgpack.encode({"env_vars": env_vars, "pip": ["x"]}))


def test_no_environment_changes_nothing() -> None:
    assert RuntimeEnv.read(b"").over({"A": "1"}) == {"A": "1"}
    assert not RuntimeEnv.read(b"").acts_early


def test_variables_are_laid_over_and_may_hold_their_former_values() -> None:
    merged = env(
        PATH="${PATH}:/extra", NEW="${MISSING}x$MISSING", PLAIN="$KEPT costs 5$ or $$KEPT, $KEPTS"
    ).over({"PATH": "/bin", "KEPT": "1"})
    assert merged == {
        "PATH": "/bin:/extra",
        "KEPT": "1",
        "NEW": "x$MISSING",
        "PLAIN": "1 costs 5$ or $1, $KEPTS",
    }


def test_variables_may_name_others_that_come_before_them_in_the_alphabet() -> None:
    assert env(B="${A}2", A="1").over({}) == {"A": "1", "B": "12"}


@pytest.mark.parametrize(
    ("name", "early"),
    [
        ("LD_PRELOAD", True), ("OMP_NUM_THREADS", True), ("MKL_NUM_THREADS", True),
        ("OPENBLAS_NUM_THREADS", True), ("PYTHONPATH", True), ("MALLOC_ARENA_MAX", True),
        ("GREETING", False), ("PATH", False),
    ],
)  # fmt: skip
def test_variables_that_are_read_at_load_time_need_a_fresh_interpreter(
    name: str, early: bool
) -> None:
    assert env(**{name: "1"}).acts_early == early


def test_junk_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="no runtime_env"):
        RuntimeEnv.read(b"\xc1")
    with pytest.raises(ValueError, match="no runtime_env"):
        RuntimeEnv.read(msgspec.msgpack.encode({"env_vars": 5}))


def test_the_maker_of_an_orphan_stands_in_its_environment() -> None:
    assert maker_named(f"A=1\0{MAKER_VARIABLE}=0a0b\0B=2\0".encode()) == "0a0b"
    assert maker_named(f"X{MAKER_VARIABLE}=0a0b\0A={MAKER_VARIABLE}=1\0".encode()) == ""
    assert maker_named(b"") == ""
