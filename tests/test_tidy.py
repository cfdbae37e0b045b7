"""The rules of the source tree, checked by reading it.

Covers: who may import what, which modules must be pure, where the environment is read, the package
list, names and sizes of files, docstrings, what `import mray` loads. A table below names every
exception to a rule with its reason: add to a table, never loosen a rule.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

#: Folder -> the name it is installed under.
FOLDERS = {"core": "mray", "cli": "mray.cli", "node": "mray.node"}

# Folders of machines: all in them is pure but the shells.
PURE_FOLDERS = (
    "core/ownership", "core/tasks", "node/head", "node/objects", "node/sched", "node/transfer",
)  # fmt: skip
SHELLS = {
    "node/head/calling.py": "sends",
    "node/head/farewells.py": "hangs up",
    "node/head/inheritance.py": "takes the storage over",
    "node/head/journal.py": "tells the time, writes, sends",
    "node/head/packages.py": "files of packages",
    "node/head/port.py": "tries the port, reads /proc",
    "node/head/server.py": "routes messages, tells the time",
    "node/head/storage/redis.py": "asks a server",
    "node/head/storage/sqlite.py": "a file on disk",
    "node/head/storage/store.py": "opens either",
    "node/objects/arena.py": "files and memory",
    "node/objects/directory.py": "directories and locks",
    "node/objects/disks.py": "files of spilled objects",
    "node/objects/holes.py": "holes in files",
    "node/objects/mounts.py": "reads /proc",
    "node/objects/opening.py": "puts the store's parts together, logs",
    "node/objects/overflow.py": "a file on disk",
    "node/objects/places.py": "reads settings and paths",
    "node/objects/remains.py": "looks for what dead nodes have left, in a thread",
    "node/objects/remote.py": "files at URLs",
    "node/objects/spill_pool.py": "threads",
    "node/objects/report.py": "asks the processes of the node",
    "node/objects/server.py": "tells the time, logs",
    "node/sched/detect.py": "looks at the machine, once",
    "node/sched/head_link.py": "talks to the head",
    "node/sched/identity.py": "opens the store, reads the machine's name",
    "node/transfer/bulk.py": "a thread and its sockets",
    "node/transfer/leaving.py": "asks other nodes, logs",
    "node/transfer/opening.py": "opens the sockets",
    "node/transfer/service.py": "tells the time, logs",
    "node/transfer/serving.py": "carries out what is decided, reads spill files",
}
PURE_FILES = (
    "core/environments.py", "core/ids.py", "core/job_keys.py", "core/last_deaths.py",
    "core/machine.py",
    "core/memory/peaks.py", "core/memory/threshold.py", "core/placement.py", "core/resources.py",
    "core/task_counts.py", "core/task_filters.py", "core/units.py",
    "core/wire/codec.py", "core/wire/messages.py", "core/wire/oom.py",
    "node/memory/monitor.py", "node/memory/policy.py",
    "node/workers/pool.py",
)  # fmt: skip
IMPURE_MODULES = {
    "asyncio", "ctypes", "fcntl", "glob", "logging", "mmap", "multiprocessing", "os", "pathlib",
    "psutil", "random", "secrets", "select", "selectors", "shutil", "signal", "socket",
    "subprocess", "tempfile", "threading", "time", "uuid", "zmq",
}  # fmt: skip
PURE_EXCEPTIONS = {
    ("node/memory/monitor.py", "signal"): "says which one to send, sends none",
    ("core/ids.py", "os"): "makes unique ids; machines are given theirs",
}

ZMQ_FOLDER = "core/rpc"
ZMQ_ELSEWHERE = {"node/workers/zygote.py": "loads it ahead of forks, opens nothing"}
ENVIRONMENT = {
    "core/api.py": "hands the environment to the loader of settings and the resolver of addresses",
    "core/cluster_utils.py": "hands the environment to the loader of settings, as init() does",
    "core/daemon_spawn.py": "makes the environment of a child",
    "core/state_ask.py": "hands the environment to the one resolver of addresses",
    "core/runtime/accelerators.py": "sets CUDA_VISIBLE_DEVICES, by variables of Ray's",
    "core/launch.py": "decides and hands on whether `import ray` means mray",
    "core/serialization/dumper.py": "RAY_PICKLE_VERBOSE_DEBUG, wherever something is pickled",
    "core/util/multiprocessing/pool.py": "whether init() will join a cluster or start one",
    "cli/cluster.py": "hands the environment to the one resolver of addresses",
    "cli/config.py": "HOME, to print paths in short",
    "cli/run.py": "makes the environment of a child",
    "cli/settings.py": "hands the environment to the one loader of settings",
    "node/environments/making.py": "makes the environment of a child",
    "node/jobs/runner.py": "makes the environment of a child",
    "node/sched/identity.py": "what the machine offers, as its variables limit it",
    "node/workers/child.py": "becomes a worker: takes over the environment it is given",
    "node/workers/spawner.py": "makes the environment of a child",
    "node/workers/zygote.py": "its own mark, to find what it left behind",
}

LAZY_MODULES = {
    "cloudpickle": "loads with the runtime; 15 ms that `import mray` must not pay",
    "asyncio": "only for awaiting and for async actors",
    "ctypes": "3 ms, for the few processes that need it",
    "difflib": "only after a mistake in a name",
    "mray.microbenchmark": "only for its command",
    "mray.former": "what outlived a shutdown(), which few programs have",
    "mray.stray_refs": "references made of bytes, which few programs have",
    "mray.scheduling": "strategies and groups, which most programs do without",
    "mray.runtime.async_serving": "asyncio, which workers without async actors do without",
    "pathspec": "20 ms, only to pack a directory",
    "redis": "of an extra, only where it keeps the head's state",
    "numpy": "60 ms; `import mray` must not pay it",
    "platform": "only to print the version",
    "rich": "60 ms, only to draw on a terminal",
    "tomli": "only where there is a file to parse",
    "typer": "25 ms, only when a command is parsed",
    "zmq": "15 ms; only when a runtime starts",
}
LAZY_IMPORTERS = {
    "core/__init__.py": "public names load when they are used",
    "core/actor.py": "the runtime loads when it starts, not with `import mray`",
    "core/api.py": "the runtime loads when it starts, not with `import mray`",
    "core/remote_function.py": "the runtime loads when it starts, not with `import mray`",
    "core/serialization/dumper.py": "numpy and torch are touched only for arrays and tensors",
    "cli/commands.py": "each command loads when it is typed",
    "cli/job.py": "log following, for the sub-command that needs it",
    "cli/main.py": "`mray version` loads no parser",
    "cli/start.py": "--block only",
    "node/__main__.py": "a head loads no node, and a node no head",
    "node/head/storage/store.py": "a head in memory loads neither SQLite nor Redis",
}

LINE_COUNT_MAX = 500
LONG_FILES = {
    "core/exceptions.py": "the whole tree of errors, with what each says",
    "core/microbenchmark.py": "one file, to be copied to where only Ray is installed",
    "core/wire/messages.py": "the whole protocol",
    "tests/integration/test_node_daemon.py": "one daemon, behaviour by behaviour",
    "tests/unit/objects/test_object_store.py": "one machine, behaviour by behaviour",
    "tests/unit/store/test_store_client.py": "one client, behaviour by behaviour",
}
BANNED_STEMS = {"common", "helper", "helpers", "misc", "tools", "util", "utils"}
#: Folders that may be called so: users import Ray's names from them.
BANNED_STEM_EXCEPTIONS = {
    "core/util": "the name of ray.util",
    "core/_private/utils.py": "the name of ray._private.utils",
    "core/util/helpers.py": "the name of ray.util.helpers",
    "tests/unit/util": "mirrors core/util",
}

HEAVY = {"asyncio", "numpy", "pydantic", "rich", "typer", "zmq"}


def _sources(*folders: str) -> list[str]:
    """Every Python file under `folders`, as paths from the root."""
    return sorted(
        path.relative_to(ROOT).as_posix()
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        if "__pycache__" not in path.parts
    )


PRODUCT = _sources(*FOLDERS)


@cache
def _tree(source: str) -> ast.Module:
    return ast.parse((ROOT / source).read_text(), filename=source)


def _module_name(source: str) -> str:
    folder, _, rest = source.removesuffix(".py").partition("/")
    parts = [FOLDERS[folder], *rest.split("/")]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_module_name(source): source for source in PRODUCT}


def _imports(node: ast.AST) -> Iterator[tuple[str, int]]:
    """Names of modules imported anywhere below `node`, with their lines.

    `from package import name` counts as package.name where that is a module.
    """
    for child in ast.walk(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield alias.name, child.lineno
        elif isinstance(child, ast.ImportFrom):
            base = child.module or ""
            for alias in child.names:
                full = f"{base}.{alias.name}"
                yield (full if full in MODULES else base), child.lineno


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def _runtime_imports(source: str) -> Iterator[tuple[str, int]]:
    """Imports that happen when the program runs: not those for the type checker alone."""
    todo: list[ast.AST] = list(_tree(source).body)
    while todo:
        node = todo.pop()
        if _is_type_checking(node):
            assert isinstance(node, ast.If)
            todo += node.orelse
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from _imports(node)
        else:
            todo += ast.iter_child_nodes(node)


def _function_imports(source: str) -> Iterator[tuple[str, int]]:
    for node in ast.walk(_tree(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _imports(node)


def _is_pure(source: str) -> bool:
    if source in SHELLS:
        return False
    return source in PURE_FILES or any(source.startswith(f"{f}/") for f in PURE_FOLDERS)


def _package(module: str) -> str:
    """core, cli or node: whose module it is, by the longest prefix."""
    for folder in ("cli", "node"):
        if module == FOLDERS[folder] or module.startswith(FOLDERS[folder] + "."):
            return folder
    return "core"


@pytest.mark.parametrize("source", PRODUCT)
def test_imports_point_the_allowed_way(source: str) -> None:
    mine = source.partition("/")[0]
    wrong = [
        f"line {line}: {module}"
        for module, line in _imports(_tree(source))
        if module.partition(".")[0] == "mray" and _package(module) not in (mine, "core")
    ]
    assert not wrong, f"{source} may not import {wrong}: cli and node stand over core, alone"


@pytest.mark.parametrize("source", [source for source in PRODUCT if _is_pure(source)])
def test_machines_are_pure(source: str) -> None:
    wrong = []
    for module, line in _runtime_imports(source):
        top = module.partition(".")[0]
        if top in IMPURE_MODULES and (source, top) not in PURE_EXCEPTIONS:
            wrong.append(f"line {line}: {module}")
        if top == "mray" and module in MODULES and not _is_pure(MODULES[module]):
            wrong.append(f"line {line}: {module}, which is not pure")
    assert not wrong, f"{source} imports {wrong}: do IO in a shell, or list the file as one"


@pytest.mark.parametrize("source", [source for source in PRODUCT if _is_pure(source)])
def test_machines_make_no_ids_of_their_own(source: str) -> None:
    names = [
        alias.name
        for node in ast.walk(_tree(source))
        if isinstance(node, ast.ImportFrom) and node.module == "mray.ids"
        for alias in node.names
    ]
    assert not [name for name in names if name.startswith("new_")], source


@pytest.mark.parametrize("source", PRODUCT)
def test_no_daemon_uses_asyncio(source: str) -> None:
    if source.startswith("node/"):
        assert "asyncio" not in {module for module, _ in _imports(_tree(source))}


@pytest.mark.parametrize("source", PRODUCT)
def test_zmq_is_used_in_one_folder(source: str) -> None:
    if not source.startswith(f"{ZMQ_FOLDER}/") and source not in ZMQ_ELSEWHERE:
        wrong = [m for m, _ in _imports(_tree(source)) if m.partition(".")[0] == "zmq"]
        assert not wrong, f"{source}: sockets are the business of {ZMQ_FOLDER}"


@pytest.mark.parametrize("source", PRODUCT)
def test_the_environment_is_read_in_named_places(source: str) -> None:
    lines = [
        node.lineno
        for node in ast.walk(_tree(source))
        if isinstance(node, ast.Attribute)
        and node.attr in ("environ", "environb", "getenv", "putenv")
        and isinstance(node.value, ast.Name)
        and node.value.id == "os"
    ]
    if source not in ENVIRONMENT:
        assert not lines, f"{source} lines {lines}: settings come from mray.config"


@pytest.mark.parametrize("source", PRODUCT)
def test_imports_stand_at_the_top(source: str) -> None:
    if source in LAZY_IMPORTERS:
        return
    wrong = [
        f"line {line}: {module}"
        for module, line in _function_imports(source)
        if module not in LAZY_MODULES and module.partition(".")[0] not in LAZY_MODULES
    ]
    assert not wrong, f"{source}: {wrong}"


@pytest.mark.parametrize("source", PRODUCT)
def test_every_module_says_what_it_is(source: str) -> None:
    text = ast.get_docstring(_tree(source))
    assert text, f"{source} has no docstring"
    assert "PLACEHOLDER" not in text, f"{source} has not been written"


@pytest.mark.parametrize("source", _sources(*FOLDERS, "scripts", "tests"))
def test_no_file_is_too_long(source: str) -> None:
    count = len((ROOT / source).read_text().splitlines())
    if source not in LONG_FILES:
        assert count <= LINE_COUNT_MAX, f"{source} has {count} lines: look for the second noun"


def test_file_names_say_something() -> None:
    for source in _sources(*FOLDERS, "scripts", "tests"):
        path = Path(source)
        for part in (path, *path.parents):
            if part.stem in BANNED_STEMS:
                assert part.as_posix() in BANNED_STEM_EXCEPTIONS, source


def test_core_hides_neither_cli_nor_node() -> None:
    assert not [p.name for p in (ROOT / "core").iterdir() if p.stem in ("cli", "node")]


def test_the_package_list_is_the_folders() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {_module_name(s) for s in PRODUCT if s.endswith("__init__.py")}
    without_init = {Path(s).parent for s in PRODUCT} - {
        Path(s).parent for s in PRODUCT if s.endswith("__init__.py")
    }
    assert not without_init, "folders with modules and no __init__.py"
    assert set(settings["packages"]) == folders
    assert len(settings["packages"]) == len(folders)
    assert settings["package-dir"] == {name: folder for folder, name in FOLDERS.items()}


def test_the_top_level_is_as_laid_out() -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if tracked.returncode != 0:
        pytest.skip("not a git checkout")
    top = {line.partition("/")[0] for line in tracked.stdout.splitlines()}
    assert {name for name in top if not name.startswith(".")} <= {
        "ARCHITECTURE.md", "CHANGELOG.md", "COMPATIBILITY.md", "LICENSE", "README.md", "cli",
        "configs", "core", "node", "pyproject.toml", "scripts", "tests",
    }  # fmt: skip


def test_no_table_names_a_file_that_is_gone() -> None:
    tables = [
        SHELLS, PURE_FILES, ZMQ_ELSEWHERE, ENVIRONMENT, LAZY_IMPORTERS, LONG_FILES,
        BANNED_STEM_EXCEPTIONS,
    ]  # fmt: skip
    named = {name for table in tables for name in table} | {file for file, _ in PURE_EXCEPTIONS}
    assert not [name for name in sorted(named) if not (ROOT / name).exists()]


def test_import_mray_loads_nothing_heavy() -> None:
    code = "import sys, json, mray; print(json.dumps(sorted(sys.modules)))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert not HEAVY & set(json.loads(loaded))


@pytest.mark.parametrize("folder", sorted(FOLDERS))
def test_a_folder_cannot_be_imported_by_its_own_name(folder: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import {folder}"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert f"installed as '{FOLDERS[folder]}'" in done.stderr
