"""`mray why`: what a task, actor or object waits for, or how it ended, and what to do about it."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from mray import memory_collect
from mray.cli.cluster import Cluster, connect
from mray.cli.failure import Failure
from mray.cli.getting import entries
from mray.cli.memory import ask
from mray.cli.options import Address, AsJson
from mray.cli.render import print_json
from mray.state_facts import Facts
from mray.units import format_duration

app = typer.Typer(add_completion=False)

#: Digits of a task's id, and of an object's: an object's begins with the id of its task.
_TASK_DIGITS: Final = 48
#: Part of a reason -> what to do.
_ADVICE: Final = {
    "infeasible": "ask for less, or start a node that has it: `mray start --address=...`",
    "can never": "ask for less, or start a node that has it: `mray start --address=...`",
    "argument(s)": "see what makes them: `mray list tasks -f state!=FINISHED`",
    "queued: waits": "what runs now holds it: `mray list tasks -f state=RUNNING`, `mray status`",
    "waiting for room": "what runs now holds it: `mray list workers`, `mray status`",
    "worker does not answer": "`kill -CONT PID` if it is stopped (`mray stack` shows what it "
    "does); ending it has what it had not begun run elsewhere, at no retry",
    "behind": "it runs when those before it are done; more actors or max_concurrency help",
    "memory": "`mray oom explain` shows the node's memory and what the monitor does",
}
_ENDS: Final = {
    "TASK_EXECUTION_EXCEPTION": "the whole traceback is in the error that get() raises",
    "OUT_OF_MEMORY": "`mray oom explain`; give the task a memory= that fits, or more retries",
    "WORKER_DIED": "its last lines: `mray logs worker {pid} --err`",
    "ACTOR_DIED": "`mray get actor {actor}` has the cause of its death",
}


@app.command()
def why(
    id: Annotated[
        str,
        typer.Argument(
            metavar="ID", show_default=False,
            help="Id of a task, actor or object, or its beginning; an actor's name.",
        ),
    ],
    address: Address = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Say why something is not there yet, or how it ended, and what to do about it.

    Exit code 0 where there is an answer, 1 where nothing has this id.

    \b
      mray why 0300000000000000
      mray why counter
    """
    with connect(address) as cluster:
        what, advice = answer(cluster, id)
    if as_json:
        print_json({"id": id, "why": what, "advice": advice or None})
        return
    print(what)
    if advice:
        print(f"  {advice}")


def answer(cluster: Cluster, id: str) -> tuple[str, str]:
    """The reason and what to do. Failure where nothing, or too much, has this id."""
    actors = entries(cluster, "actors", id)
    if actors:
        return _of_actor(actors[0])
    attempts = entries(cluster, "tasks", id[:_TASK_DIGITS])
    if attempts:
        return _of_task(max(attempts, key=lambda facts: int(facts["attempt_number"])))
    report = memory_collect.collect(cluster.nodes.nodes, lambda view: ask(cluster, view))
    for held in report.objects:
        if held.object_id.startswith(id.lower()):
            said = held.reason or held.why
            text = f"object {held.object_id} is {held.state}" + (f": {said}" if said else "")
            return text, _advice(said) or f"`mray memory -f object_id={held.object_id}`"
    raise Failure(f"no task, actor or object has the id {id}: it may be over and forgotten")


def _of_task(facts: Facts) -> tuple[str, str]:
    name, state = facts["name"], facts["state"]
    took = facts["duration_s"]
    lasted = format_duration(took) if took is not None else ""
    if state == "RUNNING":
        pid = facts["worker_pid"]
        return f"{name} has been running for {lasted} in pid {pid}", f"`mray stack {pid}`"
    if state == "FINISHED":
        return f"{name} finished" + (f" after {lasted}" if lasted else ""), ""
    if state == "FAILED":
        text = f"{name} failed (attempt {facts['attempt_number']}): {facts['error_type']}"
        if facts["error_message"]:
            text += f": {facts['error_message']}"
        advice = _ENDS.get(facts["error_type"] or "", "")
        return text, advice.format(pid=facts["worker_pid"], actor=facts["actor_id"])
    reason = facts["waits_for"] or "its owner does not say why"
    return f"{name} is {state}: {reason}", _advice(reason)


def _of_actor(facts: Facts) -> tuple[str, str]:
    name, state = facts["class_name"], facts["state"]
    cause = facts["death_cause"]
    if state == "ALIVE":
        return f"the actor {name} is alive in pid {facts['pid']}", f"`mray stack {facts['pid']}`"
    if state == "DEAD":
        text = cause["text"] or cause["kind"] if cause else "nobody said why"
        return f"the actor {name} is dead: {text}", f"`mray logs actor {facts['actor_id']} --err`"
    reason = facts["waits_for"] or (cause["text"] if cause else "") or "it is being started"
    return f"the actor {name} is {state}: {reason}", _advice(reason)


def _advice(reason: str) -> str:
    return next((advice for part, advice in _ADVICE.items() if part in reason), "")
