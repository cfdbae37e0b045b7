"""Options that several commands share, each written once: one name, one meaning, one help text."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

AsJson: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print JSON and nothing else on standard output.")
]
Address: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="HOST:PORT",
        help="The cluster: HOST:PORT or a session directory. Default: MRAY_ADDRESS, RAY_ADDRESS, "
        "else the cluster of yours on this machine.",
    ),
]
ConfigFile: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--config", metavar="FILE", help="A TOML file of settings, in place of ./mray.toml."
    ),
]
NodeIp: TypeAlias = Annotated[
    str | None,
    typer.Option("--node-ip", "-ip", metavar="IP", help="The node with this IP address."),
]
NodeId: TypeAlias = Annotated[
    str | None,
    typer.Option("--node-id", "-id", metavar="ID", help="The node whose id begins with this."),
]
