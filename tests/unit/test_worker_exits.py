"""Ray's words for the ends of workers."""

from __future__ import annotations

import pytest

from mray.wire.messages import DeathCause
from mray.worker_exits import exit_detail, exit_type


@pytest.mark.parametrize(
    ("cause", "type"),
    [
        (DeathCause("exit", exit_code=0), "INTENDED_USER_EXIT"),
        (DeathCause("intended", "max_calls was reached", exit_code=0), "INTENDED_USER_EXIT"),
        (DeathCause("intended", "idle", exit_code=143), "INTENDED_SYSTEM_EXIT"),
        (DeathCause("intended", "its job is over", signal=9), "INTENDED_SYSTEM_EXIT"),
        (DeathCause("ray_kill", signal=9), "INTENDED_SYSTEM_EXIT"),
        (DeathCause("out_of_scope", exit_code=0), "INTENDED_SYSTEM_EXIT"),
        (DeathCause("owner_died", exit_code=143), "INTENDED_SYSTEM_EXIT"),
        (DeathCause("exit", exit_code=1), "SYSTEM_ERROR"),
        (DeathCause("signal", signal=11), "SYSTEM_ERROR"),
        (DeathCause("killed", "memory", signal=15, oom=b"facts"), "NODE_OUT_OF_MEMORY"),
        (DeathCause("kernel_oom", signal=9), "NODE_OUT_OF_MEMORY"),
        (DeathCause("creation_failed", exit_code=0), "USER_ERROR"),
        (DeathCause("env_failed", exit_code=79), "USER_ERROR"),
        (DeathCause("anything else"), "SYSTEM_ERROR"),
    ],
)
def test_each_cause_has_its_type(cause, type):
    assert exit_type(cause) == type


def test_the_detail_has_all_that_is_known():
    cause = DeathCause("exit", "it left", exit_code=3, stderr_tail=["one", "two"])
    assert exit_detail(cause) == "it left; exit code 3; its last lines:\none\ntwo"
    assert exit_detail(DeathCause("signal", signal=9)) == "signal; signal 9"
