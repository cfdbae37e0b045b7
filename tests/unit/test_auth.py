"""Where the token comes from and which ones are refused."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from mray.auth import TokenError, check_bind, ensure_token, load_token
from mray.config import Resolved, load

TOKEN = "0123456789abcdef" * 2


def resolved(tmp_path: Path, **environ: str) -> Resolved:
    return load({}, {"HOME": str(tmp_path), **environ}, working_dir=tmp_path)


def write(tmp_path: Path, text: str, mode: int = 0o600) -> Path:
    path = tmp_path / ".mray" / "auth_token"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def test_the_environment_comes_before_the_file(tmp_path: Path) -> None:
    write(tmp_path, "f" * 40)
    assert load_token(resolved(tmp_path, RAY_AUTH_TOKEN=TOKEN)) == TOKEN
    assert load_token(resolved(tmp_path)) == "f" * 40


def test_a_file_elsewhere_may_be_named(tmp_path: Path) -> None:
    path = write(tmp_path, f"{TOKEN}\n").rename(tmp_path / "secret")
    assert load_token(resolved(tmp_path, RAY_AUTH_TOKEN_PATH=str(path))) == TOKEN


def test_without_a_token_the_error_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(TokenError, match=r"RAY_AUTH_TOKEN is not set and .*auth_token does not"):
        load_token(resolved(tmp_path))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644])
def test_a_file_that_others_can_open_is_refused(tmp_path: Path, mode: int) -> None:
    write(tmp_path, TOKEN, mode)
    with pytest.raises(TokenError, match=f"mode 0{mode:o}.*chmod 600"):
        load_token(resolved(tmp_path))
    with pytest.raises(TokenError, match="chmod 600"):
        ensure_token(resolved(tmp_path))


@pytest.mark.parametrize("token", ["", "short", "x" * 31])
def test_a_token_that_could_be_guessed_is_refused(tmp_path: Path, token: str) -> None:
    write(tmp_path, token)
    with pytest.raises(TokenError, match=f"has {len(token)} characters and needs 32"):
        load_token(resolved(tmp_path))


def test_a_short_token_in_the_environment_is_refused_without_showing_it(tmp_path: Path) -> None:
    with pytest.raises(TokenError) as caught:
        load_token(resolved(tmp_path, RAY_AUTH_TOKEN="tooshort"))
    assert "tooshort" not in str(caught.value)


def test_what_is_no_token_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, TOKEN)
    path.write_bytes(b"\xff" * 40)
    with pytest.raises(TokenError, match="holds no text"):
        load_token(resolved(tmp_path))
    path.unlink()
    path.mkdir(0o700)
    with pytest.raises(TokenError, match="no regular file"):
        load_token(resolved(tmp_path))


def test_a_missing_token_is_made_once_and_private(tmp_path: Path) -> None:
    made = ensure_token(resolved(tmp_path))
    path = tmp_path / ".mray" / "auth_token"
    assert len(bytes.fromhex(made)) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert ensure_token(resolved(tmp_path)) == made == load_token(resolved(tmp_path))
    assert os.listdir(path.parent) == ["auth_token"]


def test_two_that_make_a_token_at_once_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def link_too_late(source: str, target: str) -> None:
        write(tmp_path, TOKEN)
        link(source, target)

    monkeypatch.setattr(os, "link", link_too_late)
    assert ensure_token(resolved(tmp_path)) == TOKEN


def test_a_token_in_the_environment_needs_no_file(tmp_path: Path) -> None:
    assert ensure_token(resolved(tmp_path, RAY_AUTH_TOKEN=TOKEN)) == TOKEN
    assert not (tmp_path / ".mray").exists()


def test_without_authentication_only_this_machine_is_let_in(tmp_path: Path) -> None:
    open_door = resolved(tmp_path, RAY_AUTH_MODE="disabled")
    assert len(load_token(open_door)) >= 32
    assert ensure_token(open_door) == load_token(open_door)
    check_bind("127.0.0.1", open_door)
    with pytest.raises(ValueError, match=r"auth_mode is disabled and 0\.0\.0\.0"):
        check_bind("0.0.0.0", open_door)
    check_bind("0.0.0.0", resolved(tmp_path))
