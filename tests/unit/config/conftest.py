"""One way to load a configuration whose files all lie in the test's own directory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from mray.config import Resolved, load


@pytest.fixture
def load_here(tmp_path: Path) -> Callable[..., Resolved]:
    """Loads with every place for files under ``tmp_path``; pass their texts by place."""

    def run(
        flags: Mapping[str, object] | None = None,
        environ: Mapping[str, str] | None = None,
        *,
        local: str = "",
        user: str = "",
        system: str = "",
        **options: Any,
    ) -> Resolved:
        (tmp_path / ".mray").mkdir(exist_ok=True)
        for name, text in (
            ("mray.toml", local),
            (".mray/config.toml", user),
            ("system.toml", system),
        ):
            if text:
                (tmp_path / name).write_text(text, encoding="utf-8")
        return load(
            flags or {},
            {"HOME": str(tmp_path), **(environ or {})},
            working_dir=tmp_path,
            system_file=tmp_path / "system.toml",
            **options,
        )

    return run
