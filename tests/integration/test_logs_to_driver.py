"""What workers print is shown by the driver: all of it, in order, with where it came from."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

pytestmark = pytest.mark.integration

#: How the driver shows a line of its own node: (name pid=…) text.
SHOWN = re.compile(r"^\((?P<name>[^()]*) pid=(?P<pid>\d+)\) (?P<text>.*)$")


def run(program: str) -> tuple[list[str], list[str]]:
    """Run a driver; its lines on standard output and on standard error."""
    done = subprocess.run(
        [sys.executable, "-c", "import mray, os, sys\n" + program],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout.splitlines(), done.stderr.splitlines()


def texts(lines: list[str], name: str) -> list[str]:
    """The lines of one task or actor, without the prefix."""
    found = [SHOWN.match(line) for line in lines]
    return [match["text"] for match in found if match is not None and match["name"] == name]


def test_all_of_ten_thousand_lines_are_shown_before_shutdown_is_over() -> None:
    out, _ = run(
        """
@mray.remote
def prints():
    for number in range(10_000):
        print("line", number)

mray.init(num_cpus=1)
mray.get(prints.remote())
mray.shutdown()
print("the end")
"""
    )
    assert texts(out, "prints") == [f"line {number}" for number in range(10_000)]
    assert out[-1] == "the end"


def test_the_last_lines_are_shown_when_the_driver_just_ends() -> None:
    out, err = run(
        """
@mray.remote
def prints():
    print("to output")
    print("to errors", file=sys.stderr)

mray.init(num_cpus=1)
mray.get(prints.remote())
"""
    )
    assert texts(out, "prints") == ["to output"]
    assert texts(err, "prints") == ["to errors"]


def test_lines_say_who_printed_them() -> None:
    out, _ = run(
        """
@mray.remote
def first():
    print("from first", os.getpid())

@mray.remote
def second():
    print("from second", os.getpid())

@mray.remote
class Actor:
    def speak(self):
        print("from the actor", os.getpid())

mray.init(num_cpus=1)
for _ in range(3):
    mray.get(first.remote())
    mray.get(second.remote())
actor = Actor.remote()
mray.get(actor.speak.remote())
mray.shutdown()
"""
    )
    shown = [match for line in out if (match := SHOWN.match(line))]
    assert sorted(match["text"].rpartition(" ")[0] for match in shown) == sorted(
        ["from first"] * 3 + ["from second"] * 3 + ["from the actor"]
    )
    for match in shown:
        text, _, pid = match["text"].rpartition(" ")
        assert match["pid"] == pid
        assert match["name"].lower().startswith(text.split()[-1])


def test_the_last_words_of_a_killed_worker_are_shown() -> None:
    out, _ = run(
        """
import signal

@mray.remote(max_retries=0)
def dies():
    print("last words")
    sys.stdout.write("and no newline")
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)

mray.init(num_cpus=1)
try:
    mray.get(dies.remote())
except mray.exceptions.WorkerCrashedError:
    pass  # print() here could come between the text and the end of a shown line
mray.shutdown()
"""
    )
    assert texts(out, "dies") == ["last words", "and no newline"]


def test_output_of_programs_that_a_task_starts_is_shown() -> None:
    out, _ = run(
        """
import subprocess

@mray.remote
def starts():
    subprocess.run(["echo", "from a program"], check=True)

mray.init(num_cpus=1)
mray.get(starts.remote())
mray.shutdown()
"""
    )
    assert texts(out, "starts") == ["from a program"]


def test_bytes_that_are_no_text_and_long_lines_do_no_harm() -> None:
    out, _ = run(
        """
@mray.remote
def prints():
    sys.stdout.flush()
    os.write(1, b"bad \\xff byte\\n")
    os.write(1, b"x" * 300_000 + b"\\n")
    print("after")

mray.init(num_cpus=1)
mray.get(prints.remote())
mray.shutdown()
"""
    )
    shown = texts(out, "prints")
    assert shown[0].startswith("bad ")
    cut = shown[1].rstrip("abcdefghijklmnopqrstuvwyz ,0123456789[]")
    left_out = 300_000 - len(cut)
    assert shown[1].endswith(f"[{left_out:,} more bytes of this line left out]")
    assert shown[2:] == ["after"]


def test_nothing_is_shown_without_log_to_driver() -> None:
    out, err = run(
        """
@mray.remote
def prints():
    print("unseen")

mray.init(num_cpus=1, log_to_driver=False)
mray.get(prints.remote())
mray.shutdown()
"""
    )
    assert out == []
    assert not any("unseen" in line for line in err)


def test_a_driver_whose_output_nobody_reads_any_more_goes_on() -> None:
    program = """
import mray, os, sys

@mray.remote
def prints():
    for number in range(5000):
        print("line", number)
    return 42

mray.init(num_cpus=1)
for _ in range(3):
    answer = mray.get(prints.remote())
mray.shutdown()
print(answer, file=sys.stderr)
os._exit(0)
"""
    driver = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert driver.stdout is not None
    assert driver.stderr is not None
    driver.stdout.readline()
    driver.stdout.close()
    errors = driver.stderr.read()
    driver.stderr.close()
    assert driver.wait(30) == 0, errors
    assert errors.strip().endswith("42"), errors


def test_tasks_that_take_turns_on_one_worker_are_told_apart() -> None:
    """Short ones, some of which print, while their lines are read."""
    out, err = run(
        """
@mray.remote
def odd(number):
    print("odd", number)
    if number % 10 == 5:
        print("odd", number, file=sys.stderr)

@mray.remote
def even(number):
    if number % 3:
        print("even", number)

@mray.remote
def silent():
    return None

mray.init(num_cpus=1)
for number in range(1500):
    mray.get([odd.remote(number)] if number % 2 else [even.remote(number), silent.remote()])
"""
    )
    numbers = range(1500)
    assert texts(out, "odd") == [f"odd {n}" for n in numbers if n % 2]
    assert texts(out, "even") == [f"even {n}" for n in numbers if n % 2 == 0 and n % 3]
    assert texts(err, "odd") == [f"odd {n}" for n in numbers if n % 10 == 5]
    assert texts(out, "silent") == []
