"""A launched script cannot tell that python did not start it: same output, same exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest

SCRIPTS = {
    "prints and ends": 'print("out"); import sys; print("err", file=sys.stderr)',
    "exit with a number": "raise SystemExit(7)",
    "exit with text": 'import sys; sys.exit("too bad")',
    "exit with None": "raise SystemExit",
    "exit with True": "raise SystemExit(True)",
    "exit with an object": "raise SystemExit([1, 2])",
    "exception": """
        def inner():
            raise ValueError("no")
        inner()
        """,
    "chained exceptions": """
        try:
            1 / 0
        except ZeroDivisionError as error:
            raise RuntimeError("outer") from error
        """,
    "exception group and note": """
        error = ExceptionGroup("many", [ValueError(1), TypeError(2)])
        error.add_note("a note")
        raise error
        """,
    "syntax error": "def broken(:\n    pass",
    "bad encoding": "# coding: nonsense\n",
    "null byte": "x = '\0'",
    "os._exit": "import os; os._exit(3)",
    "names": """
        import sys
        print(__name__, __file__, __spec__, __package__, sys.argv, sys.path[0], __doc__)
        print(sys.modules["__main__"].__dict__ is globals(), sorted(globals()))
        """,
    "globals live until atexit": """
        import atexit
        class Thing:
            def __del__(self):
                print("gone")
        thing = Thing()
        atexit.register(lambda: print("bye", thing is not None))
        """,
    "excepthook of the script": """
        import sys
        sys.excepthook = lambda kind, error, traceback: print("hook", kind, error)
        raise KeyError("k")
        """,
    "broken excepthook": """
        import sys
        sys.excepthook = None
        raise KeyError("k")
        """,
    "threads are waited for": """
        import threading
        gate = threading.Event()
        threading.Thread(target=lambda: (gate.wait(), print("late"))).start()
        print("early"); gate.set()
        """,
    "main guard and pickle": """
        import pickle
        class Point: pass
        if __name__ == "__main__":
            print(type(pickle.loads(pickle.dumps(Point()))) is Point)
        """,
    "imports its neighbour": "import neighbour; print(neighbour.VALUE)",
}

#: What the interpreter's own reader of files says in words of its own.
WORDED_OTHERWISE = ("bad encoding", "null byte", "broken excepthook")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "neighbour.py").write_text("VALUE = 41\n")
    return tmp_path


def _run(folder, *words, **options):
    return subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, **options
    )


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_runs_as_under_python(folder, name):
    (folder / "sub").mkdir()
    (folder / "neighbour.py").rename(folder / "sub" / "neighbour.py")
    script = os.path.join("sub", "script.py")
    (folder / script).write_text(textwrap.dedent(SCRIPTS[name]))
    plain = _run(folder, script, "a", "--b")
    launched = _run(folder, "-m", "mray.launch", script, "a", "--b")
    assert launched.returncode == plain.returncode
    assert launched.stdout == plain.stdout
    if name not in WORDED_OTHERWISE:
        assert launched.stderr == plain.stderr


def test_a_broken_excepthook_is_told_and_the_error_too(folder):
    (folder / "script.py").write_text(textwrap.dedent(SCRIPTS["broken excepthook"]))
    launched = _run(folder, "-m", "mray.launch", "script.py")
    assert launched.returncode == 1
    assert "Error in sys.excepthook:" in launched.stderr
    assert launched.stderr.endswith("KeyError: 'k'\n")


def test_keyboard_interrupt_ends_with_130_and_a_traceback(folder):
    text = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nwhile True: pass\n"
    (folder / "script.py").write_text(text)
    launched = _run(folder, "-m", "mray.launch", "script.py")
    assert launched.returncode == 130
    assert "KeyboardInterrupt" in launched.stderr
    assert "launch.py" not in launched.stderr


def test_a_signal_kills_the_script_itself(folder):
    (folder / "script.py").write_text("import os; os.kill(os.getpid(), 9)\n")
    assert _run(folder, "-m", "mray.launch", "script.py").returncode == -signal.SIGKILL


def test_a_module_runs_as_under_python(folder):
    package = folder / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(
        "import sys\nfrom . import other\n"
        "print(__name__, __package__, __spec__.name, sys.argv, other.VALUE)\nraise SystemExit(4)\n"
    )
    (package / "other.py").write_text("VALUE = 1\nif __name__ == '__main__': 1 / 0\n")
    for name in ("package", "package.other"):
        plain = _run(folder, "-m", name, "x")
        launched = _run(folder, "-m", "mray.launch", "-m", name, "x")
        assert (launched.returncode, launched.stdout) == (plain.returncode, plain.stdout)
        assert "launch.py" not in launched.stderr


def test_a_script_that_is_not_there_is_exit_code_2(folder):
    launched = _run(folder, "-m", "mray.launch", "missing.py")
    assert launched.returncode == 2
    assert launched.stderr == "mray: cannot open the script missing.py: No such file or directory\n"


def test_a_module_that_is_not_there_is_exit_code_1(folder):
    launched = _run(folder, "-m", "mray.launch", "-m", "no_such_module")
    assert launched.returncode == 1
    assert launched.stderr == (
        "mray: cannot run the module no_such_module: no module named no_such_module\n"
    )


@pytest.mark.parametrize("words", [[], ["--as-ray"], ["-m"], ["--nope", "script.py"]])
def test_wrong_usage_is_exit_code_2(folder, words):
    launched = _run(folder, "-m", "mray.launch", *words)
    assert launched.returncode == 2
    assert launched.stderr.startswith("mray: usage: ")


def test_import_ray_means_mray_where_no_ray_is_installed(folder):
    (folder / "script.py").write_text("import ray, mray; print(ray is mray)\n")
    assert _run(folder, "-m", "mray.launch", "script.py").stdout == "True\n"


def test_the_alias_can_be_turned_off(folder):
    (folder / "script.py").write_text("import ray\n")
    launched = _run(
        folder, "-m", "mray.launch", "script.py", env={**os.environ, "MRAY_AS_RAY": "0"}
    )
    assert launched.returncode == 1
    assert "No module named 'ray'" in launched.stderr


def test_arguments_of_init_are_kept_for_it(folder):
    (folder / "script.py").write_text("import mray.init_defaults as d; print(d.values)\n")
    launched = _run(folder, "-m", "mray.launch", "--init", '{"num_cpus": 2}', "script.py")
    assert launched.stdout == "{'num_cpus': 2}\n"


@pytest.fixture
def real_ray(folder):
    """Something that looks like an installed Ray; returns the environment that has it."""
    place = folder / "site" / "ray"
    place.mkdir(parents=True)
    (place / "__init__.py").write_text("NAME = 'real'\n")
    return {**os.environ, "PYTHONPATH": str(folder / "site")}


def test_a_real_ray_is_left_in_place_and_the_script_told(folder, real_ray):
    (folder / "script.py").write_text("import ray; print(ray.NAME)\n")
    launched = _run(folder, "-m", "mray.launch", "script.py", env=real_ray)
    assert launched.stdout == "real\n"
    assert "--as-ray" in launched.stderr


def test_as_ray_shadows_a_real_ray_also_for_launched_children(folder, real_ray):
    (folder / "script.py").write_text(
        "import os, ray, mray; print(ray is mray, os.environ['MRAY_AS_RAY'])\n"
    )
    launched = _run(folder, "-m", "mray.launch", "--as-ray", "script.py", env=real_ray)
    assert launched.stdout == "True 1\n"


def test_junk_in_the_switch_is_exit_code_2(folder):
    (folder / "script.py").write_text("")
    launched = _run(
        folder, "-m", "mray.launch", "script.py", env={**os.environ, "MRAY_AS_RAY": "maybe"}
    )
    assert launched.returncode == 2
    assert "MRAY_AS_RAY='maybe'" in launched.stderr
