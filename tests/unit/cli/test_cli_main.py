"""Exit codes, one-line errors, help that teaches, and what is imported for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mray.cli.commands import MODULES
from mray.cli.failure import Failure
from mray.cli.main import main
from mray.version import RAY_VERSION, VERSION


def test_version_is_printed_by_command_and_by_option(mray):
    line = f"mray {VERSION}, behaves like Ray {RAY_VERSION}\n"
    assert mray("version") == (0, line, "")
    assert mray("--version") == (0, line, "")


def test_an_unknown_command_is_one_line_with_the_nearest_name(mray):
    outcome = mray("strat")
    assert (outcome.code, outcome.out, len(outcome.err_lines)) == (2, "", 1)
    assert outcome.err.startswith("mray: no such command 'strat'. Did you mean 'start'")


def test_an_unknown_option_is_one_line_with_exit_code_2(mray):
    outcome = mray("status", "--nope")
    assert (outcome.code, outcome.out, len(outcome.err_lines)) == (2, "", 1)
    assert "no such option: --nope" in outcome.err
    assert "`mray status --help` explains" in outcome.err


def test_a_value_of_the_wrong_type_is_one_line_with_exit_code_2(mray):
    outcome = mray("start", "--head", "--port", "many")
    assert (outcome.code, len(outcome.err_lines)) == (2, 1)
    assert "--port" in outcome.err


def test_a_missing_argument_is_one_line_with_exit_code_2(mray):
    outcome = mray("config", "get")
    assert (outcome.code, len(outcome.err_lines)) == (2, 1)
    assert "NAME" in outcome.err


def test_without_a_command_the_help_is_shown(mray):
    outcome = mray()
    assert outcome.code == 2
    assert "mray start --head" in outcome.out


def test_a_failure_is_one_line_with_its_code(mray, monkeypatch):
    def fail(*_: object) -> None:
        raise Failure("it did not work", 1)

    monkeypatch.setattr("mray.cli.cluster.find", fail)
    assert mray("status") == (1, "", "mray: it did not work\n")


def test_ctrl_c_is_130_without_a_traceback(mray, monkeypatch):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mray.cli.cluster.find", interrupt)
    assert mray("status").code == 130


@pytest.mark.parametrize("command", MODULES)
def test_the_help_of_every_command_has_an_example(mray, command):
    outcome = mray(command, "--help")
    assert (outcome.code, outcome.err) == (0, "")
    assert f"mray {command}" in outcome.out.partition("Options")[0].split("\n", 4)[4]


@pytest.mark.parametrize("words", [(), *((command,) for command in MODULES)])
def test_help_fits_80_columns(mray, words):
    assert max(len(line) for line in mray(*words, "--help").out.splitlines()) <= 80


@pytest.mark.parametrize("group", ["job", "config"])
def test_the_help_of_every_inner_command_has_an_example(mray, group):
    listed = mray(group, "--help").out.partition("Commands")[2]
    names = [line.split()[1] for line in listed.splitlines() if line.startswith("│ ")]
    names = [name for name in names if mray(group, name, "--help").code == 0]
    assert len(names) == 5
    for name in names:
        text = mray(group, name, "--help").out
        assert f"mray {group} {name}" in text.partition("Usage")[2].split("\n", 1)[1] or (
            name == "submit"
        )


def _imported(*words: str) -> set[str]:
    program = (
        "import sys; from mray.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print(' '.join(sys.modules), file=sys.stderr)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=True
    )
    return set(ended.stderr.split())


def test_version_imports_no_typer():
    assert not {"typer", "rich", "pydantic", "zmq"} & _imported("version")


def test_a_plain_command_imports_neither_rich_nor_pydantic_nor_asyncio():
    loaded = _imported("config", "get", "tmpdir")
    assert "typer" in loaded
    assert not {"rich", "pydantic", "asyncio", "numpy"} & loaded


def test_no_command_is_imported_but_the_one_that_runs():
    loaded = _imported("config", "get", "tmpdir")
    assert "mray.cli.config" in loaded
    assert not {"mray.cli.start", "mray.cli.logs", "mray.cli.status"} & loaded


def test_a_reader_that_leaves_is_no_error():
    program = "import sys; from mray.cli.main import main; sys.exit(main(['config', 'list']))"
    ended = subprocess.run(
        ["bash", "-c", f'{sys.executable} -c "{program}" | true'], capture_output=True, text=True
    )
    assert ended.stderr == ""


@pytest.mark.parametrize(
    ("redirection", "code", "ends"),
    [
        (">/dev/full", 1, ["No space left on device"]),
        (">&-", 0, []),
    ],
)
def test_output_that_cannot_be_written_is_no_traceback(redirection, code, ends):
    ended = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m mray.cli config list {redirection}"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode == code
    assert [line.rpartition(": ")[2] for line in ended.stderr.splitlines()] == ends


def test_completion_offers_commands_and_writes_a_script(monkeypatch):
    shown = subprocess.run(
        [sys.executable, "-m", "mray.cli", "--show-completion", "bash"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert shown.returncode == 0
    assert "_MRAY_COMPLETE" in shown.stdout


def test_main_takes_arguments_of_the_process_by_default(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["mray", "version"])
    assert main() == 0
    assert VERSION in capsys.readouterr().out
