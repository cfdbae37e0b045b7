"""Jobs submitted from Python: to the cluster of this process, and to one found by address."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import mray
from mray.job_submission import JobStatus, JobSubmissionClient, JobType
from mray.util.state import get_log

from ..waiting import eventually

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def client() -> Iterator[JobSubmissionClient]:
    mray.init(num_cpus=2, log_to_driver=False)
    yield JobSubmissionClient("http://127.0.0.1:8265")
    mray.shutdown()


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Write a script into the working directory; returns its name."""
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> str:
        (tmp_path / "job.py").write_text(text)
        return "job.py"

    return write


def ended(client: JobSubmissionClient, job_id: str) -> JobStatus:
    eventually(lambda: client.get_job_status(job_id).is_terminal(), timeout_s=30)
    return client.get_job_status(job_id)


def test_a_driver_runs_and_its_output_and_facts_are_told(
    client: JobSubmissionClient, script: Callable[[str], str]
) -> None:
    script("import ray, sys; ray.init(); print(ray.get(ray.put(41)) + 1, sys.argv[1:])")
    job_id = client.submit_job(
        entrypoint="python job.py --x 1",
        submission_id="first",
        metadata={"who": "me"},
        runtime_env={"env_vars": {"MRAY_AS_RAY": "1"}},
    )
    assert job_id == "first"
    assert ended(client, job_id) == JobStatus.SUCCEEDED
    assert "42 ['--x', '1']\n" in client.get_job_logs(job_id)
    info = client.get_job_info(job_id)
    assert (info.submission_id, info.type, info.metadata) == (
        "first",
        JobType.SUBMISSION,
        {"who": "me"},
    )
    assert info.entrypoint == "python job.py --x 1"
    assert info.start_time is not None
    assert info.end_time is not None
    assert info.start_time <= info.end_time
    assert info.driver_exit_code == 0
    assert info.job_id is not None
    assert client.get_job_info(info.job_id).submission_id == "first"
    kinds = {job.type for job in client.list_jobs()}
    assert kinds == {JobType.SUBMISSION, JobType.DRIVER}
    with pytest.raises(RuntimeError, match="first"):
        client.submit_job(entrypoint="python job.py", submission_id="first")


def test_a_shell_runs_what_is_for_a_shell(client: JobSubmissionClient, tmp_path: Path) -> None:
    job_id = client.submit_job(entrypoint="echo $((40 + 2)) && exit 3")
    assert job_id.startswith("raysubmit_")
    assert ended(client, job_id) == JobStatus.FAILED
    assert "42\n" in client.get_job_logs(job_id)
    assert client.get_job_info(job_id).driver_exit_code == 3


def test_output_is_followed_to_the_end_and_a_job_is_stopped(client: JobSubmissionClient) -> None:
    job_id = client.submit_job(entrypoint="echo begun; sleep 1000")

    async def follow() -> str:
        text = ""
        async for piece in client.tail_job_logs(job_id):
            if "begun" in piece:
                # The log of a job that runs has no end, but for who does not follow it.
                assert "begun\n" in await asyncio.to_thread(
                    lambda: "".join(get_log(submission_id=job_id))
                )
                assert await asyncio.to_thread(client.stop_job, job_id)
            text += piece
        return text

    assert "begun\n" in asyncio.run(follow())
    assert client.get_job_status(job_id) == JobStatus.STOPPED
    assert client.stop_job(job_id) is False


def test_what_is_not_there_is_told(client: JobSubmissionClient) -> None:
    for ask in (client.get_job_info, client.get_job_status, client.get_job_logs, client.stop_job):
        with pytest.raises(RuntimeError, match="no job 'nobody'"):
            ask("nobody")
    with pytest.raises(NotImplementedError):
        client.delete_job("first")


def test_what_mray_does_not_do_is_refused(client: JobSubmissionClient) -> None:
    with pytest.raises(ValueError, match="take no resources"):
        client.submit_job(entrypoint="true", entrypoint_num_cpus=1)
    with pytest.raises(ValueError, match="there is none"):
        client.submit_job(entrypoint=" ")
    with pytest.raises(ValueError, match="over HTTP"):
        JobSubmissionClient(headers={"a": "b"})
    with pytest.raises(ValueError, match="HOST:PORT of the head"):
        JobSubmissionClient("http://10.0.0.1:8265")
    with pytest.raises(TypeError, match="texts"):
        client.submit_job(entrypoint="true", metadata={"a": 1})  # type: ignore[dict-item]
