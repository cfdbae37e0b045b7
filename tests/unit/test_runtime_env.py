"""RuntimeEnv: what may be said, in which form it is kept."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from mray.runtime_env import RuntimeEnv, RuntimeEnvConfig, checked


def test_it_is_a_dict_of_what_was_set() -> None:
    env = RuntimeEnv(env_vars={"A": "1"}, pip=None, working_dir="")
    assert env == {"env_vars": {"A": "1"}}
    assert env.to_dict() == {"env_vars": {"A": "1"}}
    assert (env.has_pip(), env.has_working_dir(), env.working_dir()) == (False, False, "")
    assert env.env_vars() == {"A": "1"}
    assert pickle.loads(pickle.dumps(env)) == env
    assert isinstance(pickle.loads(pickle.dumps(env)), RuntimeEnv)


def test_fields_set_later_are_checked_too() -> None:
    env = RuntimeEnv()
    env["env_vars"] = {"A": "1"}
    env.set("pip", ["x"])
    assert env["pip"] == {"packages": ["x"], "pip_check": False}
    with pytest.raises(TypeError, match="env_vars"):
        env["env_vars"] = {"A": 1}
    with pytest.raises(ValueError, match="conda"):
        env.set("conda", "x")


def test_pip_has_one_form(tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_text("a==1\n\n# no\n  b\n-r more.txt\n")
    for said in (str(tmp_path / "r.txt"), {"packages": str(tmp_path / "r.txt")}):
        assert RuntimeEnv(pip=said)["pip"] == {
            "packages": ["a==1", "b", "-r more.txt"], "pip_check": False,
        }  # fmt: skip
    whole = {"packages": ["a", "a"], "pip_check": True, "pip_version": "==24.0",
             "pip_install_options": ["--no-index"]}  # fmt: skip
    assert RuntimeEnv(pip=whole)["pip"] == {**whole, "packages": ["a"]}
    assert RuntimeEnv(pip=[]) == {}


def test_paths_and_modules_become_text(tmp_path: Path) -> None:
    import json

    env = RuntimeEnv(working_dir=tmp_path, py_modules=[tmp_path / "m.py", json])
    assert env["working_dir"] == str(tmp_path)
    assert env["py_modules"] == [str(tmp_path / "m.py"), str(Path(json.__file__).parent)]
    assert RuntimeEnv(working_dir=f"file://{tmp_path}")["working_dir"] == str(tmp_path)


def test_hooks_are_functions_or_their_names() -> None:
    assert RuntimeEnv(worker_process_setup_hook=print)["worker_process_setup_hook"] is print
    for name in ("module.function", "package.module:function"):
        assert RuntimeEnv(worker_process_setup_hook=name) == {"worker_process_setup_hook": name}


def test_config_is_a_dict_too() -> None:
    config = RuntimeEnvConfig(setup_timeout_seconds=3)
    assert config == {"setup_timeout_seconds": 3, "eager_install": True}
    assert RuntimeEnv(config=config)["config"] == config
    with pytest.raises(ValueError, match="setup_timeout_seconds"):
        RuntimeEnvConfig(setup_timeout_seconds=0)


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"env_vars": 1}, TypeError, "env_vars.*int"),
        ({"env_vars": {1: "a"}}, TypeError, "name 1"),
        ({"env_vars": {"A=B": "a"}}, ValueError, "A=B"),
        ({"working_dir": 1}, TypeError, "working_dir.*directory or .zip"),
        ({"working_dir": "s3://bucket/x.zip"}, ValueError, "s3://.*local directory"),
        ({"py_modules": "x"}, TypeError, "py_modules.*list"),
        ({"py_modules": [1]}, TypeError, r"py_modules'\]\[0\]"),
        ({"excludes": "x"}, TypeError, "excludes.*list"),
        ({"excludes": [1]}, TypeError, "excludes"),
        ({"pip": 1}, TypeError, "pip.*list"),
        ({"pip": [1]}, TypeError, "packages"),
        ({"pip": {"pip_check": True}}, ValueError, "packages"),
        ({"pip": {"packages": ["a"], "wrong": 1}}, ValueError, "wrong"),
        ({"pip": {"packages": ["a"], "pip_check": 1}}, TypeError, "pip_check"),
        ({"pip": {"packages": ["a"], "pip_version": 1}}, TypeError, "pip_version"),
        ({"pip": "/nowhere/requirements.txt"}, ValueError, "cannot be read"),
        ({"py_executable": 1}, TypeError, "py_executable"),
        ({"py_executable": " "}, ValueError, "empty"),
        ({"worker_process_setup_hook": 1}, TypeError, "hook"),
        ({"worker_process_setup_hook": "function"}, ValueError, "module.function"),
        ({"config": 1}, TypeError, "config"),
        ({"config": {"wrong": 1}}, ValueError, "wrong"),
        ({"config": {"setup_timeout_seconds": True}}, TypeError, "an int"),
        ({"config": {"eager_install": 1}}, TypeError, "eager_install"),
        ({"conda": "x"}, ValueError, "field of Ray.*env_vars, working_dir"),
        ({"workdir": "x"}, ValueError, "no field.*env_vars, working_dir"),
    ],
)
def test_what_is_wrong_is_named(
    fields: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        RuntimeEnv(**fields)


def test_the_name_of_the_argument_is_in_the_error() -> None:
    with pytest.raises(TypeError, match="--runtime-env must be a dict"):
        checked([], "--runtime-env")
