"""The cluster's token: where it comes from, and what makes it acceptable.

Precedence: RAY_AUTH_TOKEN (MRAY_AUTH_TOKEN), then the file of auth_token_path
(RAY_AUTH_TOKEN_PATH, else ~/.mray/auth_token). The keys of all tcp connections derive from it
(rpc/door.py). It is never printed, never on a command line, never in a log.
"""

from __future__ import annotations

import os
import secrets
import stat
from typing import Final

from mray.config import Resolved

#: A token of 32 hex digits holds 128 bits.
TOKEN_CHARACTERS_MIN: Final = 32
_TOKEN_FILE_BYTES_MAX: Final = 65_536
#: With auth_mode = disabled the connections are encrypted all the same, by keys that all know.
_NO_TOKEN: Final = "mray-without-authentication-0000"
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


class TokenError(RuntimeError):
    """There is no token that can be used; the text says why and what to do."""


def load_token(resolved: Resolved) -> str:
    """The token of this user, stripped. TokenError where there is none or it cannot be used."""
    if resolved.config.auth.auth_mode == "disabled":
        return _NO_TOKEN
    if resolved.secrets.auth_token:
        return _checked(resolved.secrets.auth_token, "RAY_AUTH_TOKEN")
    path = resolved.config.auth.auth_token_path
    token = _read(path)
    if token is None:
        raise TokenError(
            f"there is no cluster token: RAY_AUTH_TOKEN is not set and {path} does not exist; "
            "copy that file from the head's machine, or set RAY_AUTH_TOKEN"
        )
    return token


def ensure_token(resolved: Resolved) -> str:
    """The token, made and written (0600) to auth_token_path where there is none.

    TokenError where there is one that cannot be used; OSError where the file cannot be written.
    """
    path = resolved.config.auth.auth_token_path
    if resolved.config.auth.auth_mode == "disabled" or resolved.secrets.auth_token:
        return load_token(resolved)
    if _read(path) is None:
        directory = os.path.dirname(path)
        os.makedirs(directory, 0o700, exist_ok=True)
        temporary = f"{path}.{os.getpid()}.{secrets.token_hex(4)}"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(descriptor, f"{secrets.token_hex(32)}\n".encode())
            # A link and not a rename: of two that start at once, one wins and both read it.
            os.link(temporary, path)
        except FileExistsError:
            return load_token(resolved)
        finally:
            os.close(descriptor)
            os.unlink(temporary)
    return load_token(resolved)


def check_bind(host: str, resolved: Resolved) -> None:
    """Refuse a port that others reach and that asks for no token: ValueError."""
    if resolved.config.auth.auth_mode == "disabled" and host not in _LOOPBACK:
        raise ValueError(
            f"auth_mode is disabled and {host} can be reached by others, who could then run any "
            "code here: listen on 127.0.0.1, or set auth_mode to token"
        )


def _read(path: str) -> str | None:
    """The token in the file, or None where there is no file."""
    try:
        # Not blocking, in case it is a pipe that nobody writes to.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise TokenError(f"the cluster token cannot be read: {error}") from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise TokenError(f"{path} is no regular file; a token belongs in one")
        if found.st_mode & 0o077:
            raise TokenError(
                f"{path} can be read by other users (mode {found.st_mode & 0o777:04o}), so its "
                f"token is no secret: make a new one, or run chmod 600 {path}"
            )
        data = os.read(descriptor, _TOKEN_FILE_BYTES_MAX)
    finally:
        os.close(descriptor)
    try:
        return _checked(data.decode().strip(), path)
    except UnicodeDecodeError as error:
        raise TokenError(f"{path} holds no text, so no token") from error


def _checked(token: str, where: str) -> str:
    token = token.strip()
    if len(token) < TOKEN_CHARACTERS_MIN:
        raise TokenError(
            f"the token in {where} has {len(token)} characters and needs {TOKEN_CHARACTERS_MIN} "
            "at least, or it could be guessed"
        )
    return token
