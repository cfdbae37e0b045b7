"""A driver that does what its test says: the program that netcluster.py starts on a node.

Each line on standard input is JSON {"do": program}; the program is executed in one namespace that
lasts, and what it leaves in ``result`` is answered as a line of JSON, or its traceback. It imports
quiescent_view from beside it.
"""

import json
import os
import sys
import traceback

import quiescent_view


def main() -> None:
    #: Programs may print: what they say goes to standard error, answers have a pipe of their own.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    names: dict[str, object] = {"__name__": "__main__", "look": quiescent_view.look}
    for line in sys.stdin:
        names["result"] = None
        try:
            exec(compile(json.loads(line)["do"], "<driver>", "exec"), names)
            answer = {"result": names["result"]}
        except BaseException as error:
            answer = {"error": traceback.format_exc(), "kind": type(error).__name__}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
