"""configs/ and scripts/render_config.py agree with mray.config, which is cheap to import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mray.config import Config, conflicts, load
from mray.config.render import render_default_toml

ROOT = Path(__file__).resolve().parents[3]


def test_the_generated_file_is_up_to_date_and_says_the_defaults(tmp_path: Path) -> None:
    file = ROOT / "configs/default.toml"
    assert file.read_text(encoding="utf-8") == render_default_toml()
    resolved = load({}, {}, config_file=file, system_file=tmp_path / "none")
    assert resolved.config == Config()
    unset = [name for name, s in resolved.settings.items() if s.source.kind == "default"]
    assert unset == ["auth_token"]


def test_rendering_checks_and_writes(tmp_path: Path) -> None:
    script = tmp_path / "scripts" / "render_config.py"
    script.parent.mkdir()
    (tmp_path / "configs").mkdir()
    script.write_text((ROOT / "scripts/render_config.py").read_text())

    def run(*arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, str(script), *arguments], capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout

    code, difference = run("--check")
    assert code == 1
    assert "+[node]\n" in difference
    assert run() == (0, "")
    assert run("--check") == (0, "")
    assert (tmp_path / "configs/default.toml").read_text() == render_default_toml()


@pytest.mark.parametrize("name", ["head", "worker", "laptop"])
def test_the_examples_load_without_a_warning(name: str, tmp_path: Path) -> None:
    file = ROOT / f"configs/{name}.toml"
    resolved = load({}, {}, config_file=file, system_file=tmp_path / "none")
    assert resolved.warnings == ()
    assert resolved.config != Config()
    if name == "worker":
        assert conflicts(resolved, Config()) == []


def test_importing_and_loading_without_files_imports_nothing_heavy() -> None:
    program = (
        "import sys, mray.config\n"
        "mray.config.load({}, {}, working_dir='/nowhere', system_file='/nowhere')\n"
        "heavy = {'numpy', 'zmq', 'typer', 'rich', 'pydantic', 'asyncio', 'tomli', 'difflib'}\n"
        "print(*sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "\n"
