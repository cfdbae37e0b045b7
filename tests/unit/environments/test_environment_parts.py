"""What an environment is made of, and where its parts are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mray.environments import merge_environments, pack_environment
from mray.node.environments.parts import plan_of
from mray.runtime.params import Places

URI = "gcs://_ray_pkg_0123abcd.zip"


def places(**env: Any) -> Places:
    return plan_of(pack_environment(env)).places("/root")


def test_no_environment_has_no_parts() -> None:
    assert plan_of(b"").parts == ()
    assert plan_of(pack_environment({"env_vars": {"A": "1"}})).parts == ()
    assert plan_of(b"").places("/root") == Places()


def test_each_field_has_its_place() -> None:
    found = places(
        working_dir=URI,
        py_modules=["gcs://_ray_pkg_0a.zip", "gcs://_ray_pkg_0b.name-1.0-py3-none-any.whl"],
        worker_process_setup_hook="gcs://_ray_pkg_0c.hook",
    )
    assert found == Places(
        "/root/_ray_pkg_0123abcd",
        ("/root/_ray_pkg_0a", "/root/whl__ray_pkg_0b"),
        (),
        "/root/_ray_pkg_0c.hook",
    )


def test_pip_gives_the_interpreter_and_py_executable_comes_first() -> None:
    (python,) = places(pip={"packages": ["x"], "pip_check": False}).python
    assert python.startswith("/root/pip_")
    assert python.endswith("/bin/python")
    assert places(pip={"packages": ["y"], "pip_check": False}).python != (python,)
    assert places(py_executable="python3 -u", pip={"packages": ["x"]}).python == ("python3", "-u")


def test_a_hook_by_name_has_no_part() -> None:
    assert plan_of(pack_environment({"worker_process_setup_hook": "a.b"})).parts == ()


def test_a_directory_of_this_machine_is_used_in_place(tmp_path: Path) -> None:
    assert places(working_dir=str(tmp_path)) == Places(str(tmp_path))
    with pytest.raises(ValueError, match="is no directory"):
        places(working_dir=str(tmp_path / "gone"))


@pytest.mark.parametrize(
    "data",
    [
        b"\xc1",
        pack_environment({"working_dir": 5}),
        pack_environment({"pip": "x"}),
        pack_environment({"py_modules": 1}),
        pack_environment({"working_dir": "gcs://../../etc/passwd"}),
        pack_environment({"py_modules": ["gcs://_ray_pkg_00.x/../../y.whl"]}),
        pack_environment({"config": [1]}),
        pack_environment({"py_executable": " "}),
    ],
)
def test_junk_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"runtime_env|package|program"):
        plan_of(data)


def test_the_time_limit_is_the_environments() -> None:
    assert plan_of(pack_environment({"working_dir": URI})).timeout_s == 600
    for setting, wanted in ((7, 7.0), (-1, None)):
        config = {"setup_timeout_seconds": setting}
        assert plan_of(pack_environment({"config": config})).timeout_s == wanted


def test_environments_merge_field_by_field() -> None:
    outer = pack_environment({"env_vars": {"A": "1", "B": "1"}, "working_dir": URI})
    inner = pack_environment({"env_vars": {"B": "2"}, "pip": {"packages": ["x"]}})
    assert merge_environments(outer, inner) == pack_environment(
        {"env_vars": {"A": "1", "B": "2"}, "working_dir": URI, "pip": {"packages": ["x"]}}
    )
    assert merge_environments(outer, b"") == outer
    assert merge_environments(b"", inner) == inner
