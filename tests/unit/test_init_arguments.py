"""What init() does with arguments of Ray's that mray has no use for."""

from __future__ import annotations

import logging

import pytest

from mray.init_arguments import check_rest


def test_a_redis_password_changes_nothing_and_is_not_shown(caplog) -> None:
    with caplog.at_level(logging.INFO, "mray"):
        check_rest({"_redis_password": "hunter2", "_redis_username": None})
    assert caplog.messages == [
        "init(_redis_password=...) changes nothing: there is no Redis to be reached"
    ]


def test_what_means_nothing_here_is_taken_and_other_values_are_refused() -> None:
    rest = {"include_dashboard": False, "_temp_dir": "/tmp"}
    check_rest(rest)
    assert rest == {"_temp_dir": "/tmp"}
    with pytest.raises(ValueError, match=r"init\(local_mode=True\) is not supported"):
        check_rest({"local_mode": True})
    with pytest.raises(RuntimeError, match="unknown keyword argument: 'num_gpu'"):
        check_rest({"num_gpu": 1})
