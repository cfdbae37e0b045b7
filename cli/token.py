"""`mray get-auth-token`: the cluster's token, for the other machines."""

from __future__ import annotations

from typing import Annotated

import typer

from mray.auth import TokenError, ensure_token, load_token
from mray.cli.failure import Failure
from mray.cli.settings import settings

app = typer.Typer(add_completion=False)


@app.command()
def get_auth_token(
    generate: Annotated[
        bool, typer.Option("--generate", help="Make a token where there is none yet.")
    ] = False,
) -> None:
    """Print the token that processes need to talk to the cluster over TCP. Keep it secret.

    \b
      mray get-auth-token | ssh other 'mkdir -p ~/.mray; umask 077; cat > ~/.mray/auth_token'
    """
    resolved = settings()
    if resolved.config.auth.auth_mode == "disabled":
        raise Failure("auth_mode is disabled: there is no token")
    try:
        print(ensure_token(resolved) if generate else load_token(resolved))
    except TokenError as error:
        raise Failure(str(error)) from error
    except OSError as error:
        raise Failure(f"the token cannot be written: {error}") from error
