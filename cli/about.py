"""`mray version` with options or --help; the plain form is main.py's."""

from __future__ import annotations

import typer

from mray.cli.options import AsJson
from mray.cli.render import print_json
from mray.cli.version import facts, line

app = typer.Typer(add_completion=False)


@app.command()
def version(as_json: AsJson = False) -> None:
    """Print the version of mray, and of the Ray it behaves like.

    \b
      mray version
      mray version --json
    """
    if as_json:
        print_json(facts())
    else:
        print(line())
