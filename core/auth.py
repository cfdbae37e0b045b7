"""The cluster's token: where it comes from, and what makes it acceptable.

Precedence: RAY_AUTH_TOKEN (MRAY_AUTH_TOKEN), then the file of auth_token_path
(RAY_AUTH_TOKEN_PATH, else ~/.mray/auth_token). The keys of all tcp connections derive from it
(rpc/door.py). It is never printed, never on a command line, never in a log.
"""

from __future__ import annotations

from mray.config import Resolved


class TokenError(RuntimeError):
    """There is no token that can be used; the text says why and what to do."""


def load_token(resolved: Resolved) -> str:
    """The token of this user, stripped. TokenError where there is none or it cannot be used."""
    raise NotImplementedError


def ensure_token(resolved: Resolved) -> str:
    """The token, made and written (0600) to auth_token_path where there is none."""
    raise NotImplementedError
