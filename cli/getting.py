"""`mray get`: all that is known of one task, actor, node, worker, job or object."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from mray.cli import listing, tasks
from mray.cli.cluster import Cluster, connect
from mray.cli.failure import Failure, WrongUsage
from mray.cli.options import Address, AsJson
from mray.cli.render import print_json, print_yaml
from mray.state_facts import Facts

app = typer.Typer(add_completion=False)

#: Kind, also in the plural -> the facts that can name an entry.
_IDS: Final = {
    "tasks": ("task_id",),
    "actors": ("actor_id", "name"),
    "nodes": ("node_id", "ip"),
    "workers": ("worker_id", "pid"),
    "jobs": ("submission_id", "job_id"),
    "objects": ("object_id",),
    "placement-groups": ("placement_group_id", "name"),
}
_ATTEMPTS_MAX: Final = 1000
#: So many are named where a beginning fits several.
_NAMED_MAX: Final = 5


@app.command()
def get_entry(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND", show_default=False,
            help="task, actor, node, worker, job or object; the plural will do.",
        ),
    ],
    id: Annotated[
        str,
        typer.Argument(
            metavar="ID", show_default=False,
            help="Its id, or the beginning; of an actor also its name, of a worker its pid.",
        ),
    ],
    address: Address = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Show all that is known of one thing. A task that ran several times has an entry for each.

    \b
      mray get task 0300000000000000
      mray get actor counter --json
      mray get worker 4711
    """
    kind = kind if kind in _IDS else f"{kind}s"
    if kind not in _IDS:
        raise WrongUsage(f"there is no {kind[:-1]!r} to get: one of {', '.join(_IDS)}")
    with connect(address) as cluster:
        found = entries(cluster, kind, id)
    if not found:
        raise Failure(f"there is no {kind[:-1]} {id}; `mray list {kind}` shows what there is")
    if as_json:
        print_json(found)
    else:
        print_yaml(found)


def entries(cluster: Cluster, kind: str, id: str) -> list[Facts]:
    """What ``id`` names, or begins the id of: one thing. Failure where it could be several."""
    if kind == "tasks":
        told = tasks.find(cluster, [("task_id", "=", id.lower())], _ATTEMPTS_MAX)
        found = [facts for facts in tasks.facts_of(told) if facts["task_id"].startswith(id.lower())]
    else:
        keys = _IDS[kind]
        all_ = listing.FETCH[kind](cluster)
        found = [facts for facts in all_ if any(str(facts[key]) == id for key in keys)]
        found = found or [facts for facts in all_ if _begins(facts, keys, id.lower())]
    names = list(
        dict.fromkeys(str(facts[_IDS[kind][0]] or facts[_IDS[kind][-1]]) for facts in found)
    )
    if len(names) > 1 and kind != "objects":
        some = ", ".join(names[:_NAMED_MAX]) + (", ..." if len(names) > _NAMED_MAX else "")
        raise Failure(f"{id} could be any of {len(names):,} {kind}: {some}; type more of it")
    return found


def _begins(facts: Facts, keys: tuple[str, ...], id: str) -> bool:
    return any(
        str(facts[key]).lower().startswith(id) for key in keys if key.endswith("_id") and facts[key]
    )
