"""runtime_env: variables, directories, modules, interpreters, hooks; who shares a worker."""

from __future__ import annotations

import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.conformance


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The driver's directory: a module, data, and what is not to be sent."""
    top = tmp_path_factory.mktemp("project")
    (top / "shipped.py").write_text("VALUE = 'from the package'\n")
    (top / "data").mkdir()
    (top / "data" / "words.txt").write_text("a b c")
    (top / "empty").mkdir()
    (top / "left_out").mkdir()
    (top / "left_out" / "big.bin").write_text("x")
    (top / "secret.key").write_text("x")
    (top / "ignored.log").write_text("x")
    (top / ".gitignore").write_text("*.log\n")
    return top


@pytest.fixture(scope="module")
def ray(engine: ModuleType, project: Path) -> Iterator[ModuleType]:
    os.environ["CONFORMANCE_FORMER"] = "former"

    def hook() -> None:
        import builtins

        builtins.hooked = "by the job"  # type: ignore[attr-defined]

    engine.init(
        address="local",
        num_cpus=4,
        log_to_driver=False,
        runtime_env={
            "working_dir": str(project),
            "excludes": ["left_out", "*.key"],
            "env_vars": {
                "OF_JOB": "job", "BOTH": "job", "CONFORMANCE_FORMER": "${CONFORMANCE_FORMER}+job",
            },
            "worker_process_setup_hook": hook,
        },
    )  # fmt: skip
    yield engine
    engine.shutdown()
    del os.environ["CONFORMANCE_FORMER"]


def variables(ray: ModuleType, env: dict[str, Any] | None, *names: str) -> list[str | None]:
    @ray.remote
    def read(names: tuple[str, ...]) -> list[str | None]:
        import os

        return [os.environ.get(name) for name in names]

    task = read.options(runtime_env=env) if env is not None else read
    found: list[str | None] = ray.get(task.remote(names))
    return found


# -- env_vars


def test_variables_of_the_job_reach_its_tasks(ray: ModuleType) -> None:
    assert variables(ray, None, "OF_JOB", "MISSING") == ["job", None]


def test_variables_of_a_task_are_laid_over_the_jobs(ray: ModuleType) -> None:
    env = {"env_vars": {"BOTH": "task", "OWN": "1"}}
    assert variables(ray, env, "OF_JOB", "BOTH", "OWN") == ["job", "task", "1"]
    assert variables(ray, None, "BOTH", "OWN") == ["job", None]


def test_a_variable_may_hold_its_former_value(ray: ModuleType) -> None:
    assert variables(ray, None, "CONFORMANCE_FORMER") == ["former+job"]


def test_variables_of_an_actor_last_as_long_as_it(ray: ModuleType) -> None:
    @ray.remote
    class Reader:
        def read(self) -> list[str | None]:
            return [os.environ.get("OF_JOB"), os.environ.get("OWN")]

    reader = Reader.options(runtime_env={"env_vars": {"OWN": "actor"}}).remote()
    assert ray.get([reader.read.remote() for _ in range(2)]) == [["job", "actor"]] * 2


def test_children_inherit_and_override(ray: ModuleType) -> None:
    @ray.remote
    def read() -> tuple[str | None, str | None]:
        return os.environ.get("DEEP"), os.environ.get("BOTH")

    @ray.remote
    def outer() -> list[Any]:
        plain = read.remote()
        other = read.options(runtime_env={"env_vars": {"DEEP": "inner"}}).remote()
        return list(ray.get([plain, other]))

    env = {"env_vars": {"DEEP": "outer", "BOTH": "outer"}}
    assert ray.get(outer.options(runtime_env=env).remote()) == [
        ("outer", "outer"),
        ("inner", "outer"),
    ]


def test_equal_environments_share_a_worker_and_others_do_not(ray: ModuleType) -> None:
    @ray.remote
    def pid() -> int:
        return os.getpid()

    def run(value: str) -> int:
        env = {"env_vars": {"SHARED": value, "ALSO": "x"}}
        found: int = ray.get(pid.options(runtime_env=env).remote())
        return found

    first, plain = run("a"), ray.get(pid.remote())
    assert run("a") == first
    assert len({first, run("b"), plain}) == 3


# -- working_dir


def test_workers_run_in_a_copy_of_the_working_dir(ray: ModuleType, project: Path) -> None:
    @ray.remote
    def look() -> tuple[str, list[str], str]:
        with open("data/words.txt") as file:
            words = file.read()
        return os.getcwd(), sorted(os.listdir(".")), words

    cwd, names, words = ray.get(look.remote())
    assert Path(cwd) != project
    assert words == "a b c"
    assert set(names) - {".gitignore"} == {"data", "empty", "shipped.py"}


def test_modules_of_the_working_dir_can_be_imported(ray: ModuleType) -> None:
    @ray.remote
    def use() -> str:
        import shipped

        return str(shipped.VALUE)

    @ray.remote
    def outer() -> str:
        return str(ray.get(use.remote()))

    @ray.remote
    class User:
        def use(self) -> str:
            import shipped

            return str(shipped.VALUE)

    user = User.remote()
    assert ray.get([use.remote(), outer.remote(), user.use.remote()]) == ["from the package"] * 3


def test_the_context_names_the_package_in_place_of_the_directory(ray: ModuleType) -> None:
    @ray.remote
    def environment() -> dict[str, Any]:
        return dict(ray.get_runtime_context().runtime_env)

    found = ray.get(environment.options(runtime_env={"env_vars": {"OWN": "1"}}).remote())
    assert found["working_dir"].startswith("gcs://_ray_pkg_")
    assert found["working_dir"].endswith(".zip")
    assert found["env_vars"]["OWN"] == "1"
    assert found["env_vars"]["OF_JOB"] == "job"
    assert ray.get_runtime_context().runtime_env["working_dir"] == found["working_dir"]


def test_a_package_uploaded_before_serves_by_its_uri(ray: ModuleType) -> None:
    @ray.remote
    def names() -> list[str]:
        return os.listdir(".")

    uri = ray.get_runtime_context().runtime_env["working_dir"]
    assert "shipped.py" in ray.get(names.options(runtime_env={"working_dir": uri}).remote())


@pytest.mark.mray_only("Ray uploads directories for whole jobs only")
def test_a_task_may_have_a_directory_of_its_own(ray: ModuleType, tmp_path: Path) -> None:
    @ray.remote
    def names() -> list[str]:
        return sorted(os.listdir("."))

    (tmp_path / "mine").touch()
    mine = names.options(runtime_env={"working_dir": str(tmp_path)})
    assert ray.get(mine.remote()) == ["mine"]
    (tmp_path / "more").touch()
    assert ray.get(mine.options(name="again").remote()) == ["mine", "more"]
    empty = tmp_path / "nothing"
    empty.mkdir()
    assert ray.get(names.options(runtime_env={"working_dir": str(empty)}).remote()) == []


@pytest.mark.mray_only("Ray uploads zips for whole jobs only")
def test_a_zip_is_unpacked(ray: ModuleType, tmp_path: Path) -> None:
    @ray.remote
    def read() -> str:
        with open("inner/file.txt") as file:
            return file.read()

    with zipfile.ZipFile(tmp_path / "package.zip", "w") as archive:
        archive.writestr("inner/file.txt", "zipped")
    env = {"working_dir": str(tmp_path / "package.zip")}
    assert ray.get(read.options(runtime_env=env).remote()) == "zipped"


@pytest.mark.mray_only("Ray uploads zips for whole jobs only")
def test_a_zip_that_leads_out_is_refused(ray: ModuleType, tmp_path: Path) -> None:
    @ray.remote
    def run() -> None: ...

    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr("../evil.txt", "x")
    env = {"working_dir": str(tmp_path / "evil.zip")}
    with pytest.raises(ray.exceptions.RuntimeEnvSetupError, match="leads out"):
        ray.get(run.options(runtime_env=env).remote())


# -- py_modules


@pytest.mark.mray_only("Ray uploads modules for whole jobs only")
def test_modules_are_importable_by_their_names(ray: ModuleType, tmp_path: Path) -> None:
    @ray.remote
    def use() -> list[str]:
        import extra_package.inner
        import extra_single

        return [extra_package.inner.NAME, extra_single.NAME]

    package = tmp_path / "extra_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "inner.py").write_text("NAME = 'inner'\n")
    (tmp_path / "extra_single.py").write_text("NAME = 'single'\n")
    env = {"py_modules": [str(package), str(tmp_path / "extra_single.py")]}
    assert ray.get(use.options(runtime_env=env).remote()) == ["inner", "single"]


def wheel(directory: Path, name: str, value: str) -> Path:
    """A wheel with one module, made by hand."""
    path = directory / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", f"VALUE = {value!r}\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.mark.mray_only("Ray uploads wheels for whole jobs only")
def test_a_wheel_among_the_modules_is_installed(ray: ModuleType, tmp_path: Path) -> None:
    @ray.remote
    def use() -> str:
        import wheel_module

        return str(wheel_module.VALUE)

    env = {"py_modules": [str(wheel(tmp_path, "wheel_module", "wheel"))]}
    assert ray.get(use.options(runtime_env=env).remote()) == "wheel"


# -- pip and interpreters


@pytest.mark.mray_only("Ray needs the package virtualenv for it")
def test_pip_packages_are_installed_once_for_all_who_want_them(
    ray: ModuleType, tmp_path: Path
) -> None:
    @ray.remote
    def use() -> tuple[str, str, str]:
        import pip_module
        import shipped

        return pip_module.VALUE, shipped.VALUE, sys.prefix

    @ray.remote
    class User:
        def use(self) -> Any:
            return ray.get(use.remote())

    wheel(tmp_path, "pip_module", "pip")
    (tmp_path / "requirements.txt").write_text("# with its place\npip_module\n")
    env = {
        "pip": {
            "packages": str(tmp_path / "requirements.txt"),
            "pip_install_options": ["--no-index", "--find-links", str(tmp_path), "--no-cache-dir"],
            "pip_check": False,
        }
    }
    first = ray.get(use.options(runtime_env=env).remote())
    user = User.options(runtime_env=env).remote()
    assert first[:2] == ("pip", "from the package")
    assert ray.get(user.use.remote()) == first


def test_what_pip_cannot_install_is_told_with_its_log(ray: ModuleType) -> None:
    @ray.remote
    def run() -> None: ...

    @ray.remote
    class Actor:
        def run(self) -> None: ...

    env = {"pip": ["/nowhere/missing-1.0-py3-none-any.whl"]}
    with pytest.raises(ray.exceptions.RuntimeEnvSetupError):
        ray.get(run.options(runtime_env=env).remote())
    with pytest.raises(ray.exceptions.RuntimeEnvSetupError):
        ray.get(Actor.options(runtime_env=env, max_restarts=-1).remote().run.remote())


@pytest.mark.mray_only("Ray's error has no log of pip without virtualenv")
def test_the_error_names_the_package_and_quotes_pip(ray: ModuleType) -> None:
    @ray.remote
    def run() -> None: ...

    env = {"pip": ["/nowhere/other-1.0-py3-none-any.whl"]}
    with pytest.raises(ray.exceptions.RuntimeEnvSetupError, match=r"ERROR.*other-1\.0"):
        ray.get(run.options(runtime_env=env).remote())


def test_py_executable_is_the_interpreter_of_the_worker(ray: ModuleType) -> None:
    @ray.remote
    def flags() -> bool:
        return sys.flags.dont_write_bytecode == 1

    env = {"py_executable": f"{sys.executable} -B"}
    assert ray.get(flags.options(runtime_env=env).remote())


@pytest.mark.mray_only("Ray tries for ever")
def test_an_interpreter_that_is_none_is_an_error(ray: ModuleType) -> None:
    @ray.remote
    def run() -> None: ...

    with pytest.raises(ray.exceptions.RuntimeEnvSetupError, match="/nowhere/python"):
        ray.get(run.options(runtime_env={"py_executable": "/nowhere/python"}).remote())


# -- the hook


def test_the_setup_hook_runs_in_each_worker(ray: ModuleType) -> None:
    @ray.remote
    def look() -> str:
        import builtins

        return str(builtins.hooked)  # type: ignore[attr-defined]

    assert ray.get(look.remote()) == "by the job"
    other = {"env_vars": {"ANOTHER": "worker"}}
    assert ray.get(look.options(runtime_env=other).remote()) == "by the job"


@pytest.mark.mray_only("Ray: hooks are for jobs only, and one that raises is WorkerCrashedError")
def test_a_hook_that_raises_is_told_with_its_traceback(ray: ModuleType) -> None:
    def broken() -> None:
        raise ValueError("the hook is broken")

    @ray.remote
    def run() -> None: ...

    @ray.remote
    class Actor:
        def run(self) -> None: ...

    env = {"worker_process_setup_hook": broken}
    with pytest.raises(ray.exceptions.RuntimeEnvSetupError, match="the hook is broken"):
        ray.get(run.options(runtime_env=env).remote())
    actor = Actor.options(runtime_env=env, max_restarts=-1).remote()
    with pytest.raises(ray.exceptions.RuntimeEnvSetupError, match="the hook is broken"):
        ray.get(actor.run.remote())


# -- config


@pytest.mark.mray_only("Ray's own set-up of pip fails before the time is over")
def test_setting_up_has_a_time_limit(ray: ModuleType, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "never.txt")

    @ray.remote
    def run() -> None: ...

    # pip waits for a writer of the pipe that never comes.
    env = {
        "pip": {"packages": [f"-r {tmp_path}/never.txt"]},
        "config": {"setup_timeout_seconds": 1},
    }
    with pytest.raises(ray.exceptions.RuntimeEnvSetupError, match="within 1 s"):
        ray.get(run.options(runtime_env=env).remote())


@pytest.mark.mray_only("Ray says nothing of it")
def test_a_task_that_waits_for_its_environment_says_so(ray: ModuleType, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "never.txt")

    @ray.remote
    def run() -> None: ...

    env = {
        "pip": {"packages": [f"-r {tmp_path}/never.txt"]},
        "config": {"setup_timeout_seconds": 2},
    }
    ref = run.options(runtime_env=env).remote()
    with pytest.raises(ray.exceptions.GetTimeoutError, match="runtime_env is being made: pip"):
        ray.get(ref, timeout=0.5)
    with pytest.raises(ray.exceptions.RuntimeEnvSetupError, match="within 2 s"):
        ray.get(ref)


# -- what may be said


def test_the_class_equals_its_dict(engine: ModuleType, ray: ModuleType) -> None:
    from importlib import import_module

    module = import_module(f"{engine.__name__}.runtime_env")
    env = module.RuntimeEnv(env_vars={"A": "1"})
    assert env == {"env_vars": {"A": "1"}}
    assert env["env_vars"] == {"A": "1"}
    assert module.RuntimeEnv(pip=["x"])["pip"] == {"packages": ["x"], "pip_check": False}
    assert module.RuntimeEnv(py_modules=None) == {}
    assert variables(ray, env, "A") == ["1"]
    config = module.RuntimeEnvConfig(setup_timeout_seconds=5)
    assert module.RuntimeEnv(config=config)["config"]["setup_timeout_seconds"] == 5


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"env_vars": {"A": 1}}, TypeError),
        ({"env_vars": ["A"]}, TypeError),
        ({"working_dir": 1}, TypeError),
        ({"py_modules": "x"}, TypeError),
        ({"excludes": "x"}, TypeError),
        ({"pip": 1}, TypeError),
        ({"pip": {"packages": ["a"], "wrong": 1}}, ValueError),
        ({"config": {"setup_timeout_seconds": 0}}, ValueError),
        ({"config": {"setup_timeout_seconds": "1"}}, TypeError),
    ],
)
def test_what_cannot_be_is_refused_at_once(
    engine: ModuleType, fields: dict[str, Any], error: type[Exception]
) -> None:
    from importlib import import_module

    with pytest.raises(error):
        import_module(f"{engine.__name__}.runtime_env").RuntimeEnv(**fields)


@pytest.mark.mray_only("Ray passes unknown fields on, and has those")
@pytest.mark.parametrize("field", ["conda", "container", "image_uri", "uv", "wrong"])
def test_fields_that_mray_cannot_make_are_refused_by_name(ray: ModuleType, field: str) -> None:
    with pytest.raises(ValueError, match=rf"{field}.*env_vars"):
        ray.remote(runtime_env={field: {}})(lambda: None)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("$CONF_A/x", "1/x"),
        ("${CONF_A}/x", "1/x"),
        ("$CONF_NONE/x", "$CONF_NONE/x"),
        ("${CONF_NONE}/x", "/x"),
        ("5$", "5$"),
        ("$$CONF_A", "$1"),
        ("$CONF_AX", "$CONF_AX"),
        ("~/x", "~/x"),
    ],
)
def test_values_of_variables_may_name_others(ray, value, found):
    @ray.remote(runtime_env={"env_vars": {"CONF_B": value, "CONF_A": "1"}})
    def read():
        import os

        return os.environ["CONF_B"]

    assert ray.get(read.remote()) == found
