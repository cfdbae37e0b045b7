"""The entry point of `mray`: runs one command and turns how it ended into an exit code.

Exit codes: 0 it worked, 1 it did not, 2 it was typed wrongly, 130 Ctrl-C; `mray submit` and
`mray run` end with their program's own code. Errors are one line on standard error. The commands
are in commands.py, which is imported only when there is one to run: typer costs 25 ms.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from mray.cli.failure import FAILED, INTERRUPTED, USAGE, Failure


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if sys.stdout is None:  # Closed by the caller: `mray status >&-`.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (until the process ends)
    if words in (["version"], ["--version"]):
        from mray.cli.version import line

        print(line())
        return 0
    try:
        return _flush(_run(words))
    except Failure as failure:
        return _complain(failure.text, failure.code)
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)
    except BrokenPipeError:
        return _hush()
    except OSError as error:
        # Of the machine, not of the command: a full disk, a directory that may not be read.
        where = f"{error.filename}: " if error.filename else ""
        return _complain(f"{where}{error.strerror or error}", FAILED)


def _run(words: list[str]) -> int:
    from typer.exceptions import TyperException

    from mray.cli.commands import make_command
    from mray.config.errors import ConfigError

    try:
        outcome = make_command().main(words, prog_name="mray", standalone_mode=False)
    except ConfigError as error:
        # A bad flag is a usage error; a bad variable or file is not what was typed.
        raise Failure(str(error), USAGE if error.source.startswith("flag ") else FAILED) from None
    except TyperException as error:
        return _explain_usage(error)
    return outcome if isinstance(outcome, int) else 0


def _explain_usage(error: Exception) -> int:
    """One line for what typer found wrong, and where to read more."""
    from mray.cli.ray_options import refusal

    # Context, command and option_name are there on the errors of parsing; Any: typer's are private.
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "mray"
    text = refusal(path, str(getattr(error, "option_name", "")))
    if type(error).__name__ == "NoArgsIsHelpError":
        # Making its message has printed the help.
        return _flush(USAGE)
    if not text:
        format_message = getattr(error, "format_message", error.__str__)
        text = " ".join(format_message().split()).rstrip(".")
        text = text[:1].lower() + text[1:]
    joint = "" if text.endswith("?") else ";"
    return _complain(f"{text}{joint} `{path} --help` explains", USAGE)


def _complain(text: str, code: int) -> int:
    print(f"mray: {text}", file=sys.stderr)
    return _flush(code)


def _flush(code: int) -> int:
    """Write out what is buffered while a broken pipe can still be handled quietly."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return _hush()
    except OSError as error:
        _hush()
        return _complain(f"the output cannot be written: {error.strerror}", FAILED)
    return code


def _hush() -> int:
    """Let go of standard output, which nobody reads any more (`mray logs | head`), so that the
    interpreter does not complain at its exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    return FAILED


if __name__ == "__main__":
    sys.exit(main())
