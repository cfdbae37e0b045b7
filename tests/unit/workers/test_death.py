"""Naming the cause of a process's end."""

from __future__ import annotations

import signal
from pathlib import Path

from mray.node.workers.death import cause_of, describe, read_tail
from mray.wire.messages import DeathCause


def exited(code: int) -> int:
    return code << 8


def test_an_exit_code_says_it_all() -> None:
    cause = cause_of(exited(7), pid=12, node_id=b"n", stderr_tail=["boo"], last_seq=4)
    assert cause == DeathCause(
        "exit", "", exit_code=7, pid=12, node_id=b"n", stderr_tail=["boo"], last_seq=4
    )
    assert describe(cause) == "exit: exit code 7"


def test_a_signal_is_named() -> None:
    cause = cause_of(signal.SIGSEGV, pid=12, node_id=b"n")
    assert (cause.kind, cause.signal, cause.exit_code) == ("signal", 11, None)
    assert describe(cause) == "signal: SIGSEGV"


def test_a_sigkill_is_ours_the_kernels_or_somebody_elses() -> None:
    ours = cause_of(
        signal.SIGKILL, pid=1, node_id=b"", intent=DeathCause("killed", "too slow"),
        by_kernel_oom="counted",
    )  # fmt: skip
    assert (ours.kind, ours.text, ours.signal) == ("killed", "too slow", 9)
    kernels = cause_of(signal.SIGKILL, pid=1, node_id=b"", by_kernel_oom="oom_kill went up by 1")
    assert kernels.kind == "kernel_oom"
    assert "oom_kill went up by 1" in kernels.text
    others = cause_of(signal.SIGKILL, pid=1, node_id=b"")
    assert others.kind == "signal"
    assert "from outside" in others.text


def test_the_tail_of_a_log_is_its_last_lines_also_across_a_rotation(tmp_path: Path) -> None:
    log = tmp_path / "x.err"
    assert read_tail(str(log)) == []
    log.write_text("".join(f"line {i}\n" for i in range(100)))
    assert read_tail(str(log)) == [f"line {i}" for i in range(80, 100)]
    log.rename(tmp_path / "x.err.1")
    log.write_bytes(b"new \xff\nend")
    assert read_tail(str(log))[-3:] == ["line 99", "new \ufffd", "end"]
    assert len(read_tail(str(log))) == 20


def test_one_endless_line_is_cut(tmp_path: Path) -> None:
    log = tmp_path / "x.err"
    log.write_bytes(b"a" * 1_000_000)
    assert [len(line) for line in read_tail(str(log))] == [1000]
