"""`mray microbenchmark`: hands over to mray.microbenchmark."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


@app.command()
def microbenchmark(
    rows: Annotated[
        list[str] | None,
        typer.Option("--rows", metavar="GLOB", help="Only rows whose name matches; repeatable."),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            "--address", metavar="HOST:PORT", help="A running cluster. Default: one of its own."
        ),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="As long as Ray's own run.")] = False,
    list_rows: Annotated[bool, typer.Option("--list", help="Print the names of the rows.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON at the end.")] = False,
) -> int:
    """Measure this machine with the rows of Ray's own microbenchmark; about two minutes.

    \b
      mray microbenchmark
      mray microbenchmark --rows '*tasks sync*' --json
    """
    from mray.microbenchmark import main

    words = [word for pattern in rows or () for word in ("--rows", pattern)]
    words += ["--address", address] if address else []
    switches = {"--full": full, "--list": list_rows, "--json": as_json}
    return main([*words, *(name for name, on in switches.items() if on)])
