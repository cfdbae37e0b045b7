"""``ray.job_submission``: submitting drivers from Python, as ``mray submit`` does from a shell.

Owns Ray's names and arguments. There is no HTTP: a client asks the head as every other command
does, so ``http://`` addresses mean the cluster of this machine.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shlex
import string
import sys
from codecs import getincrementaldecoder
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NoReturn
from urllib.parse import urlsplit

from mray.absent import refuse_attribute
from mray.environments import pack_environment
from mray.exceptions import RayError
from mray.runtime_env import checked
from mray.state_ask import asker
from mray.state_collect import Asker
from mray.uploads import PACKAGE_TIMEOUT_S, Uploads
from mray.version import RAY_VERSION
from mray.wire import messages as m

_ANSWER_S: Final = 15.0
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1", "0.0.0.0")
_ID_CHARACTERS: Final = string.ascii_letters + string.digits
#: What a shell would make something of: such a command is run by one.
_FOR_SHELL: Final = frozenset("|&;<>()$`*?[#~=%!{}\n\\\"'")
#: How often a log that is followed is looked at.
_FOLLOW_S: Final = 0.1


class JobStatus(StrEnum):
    """Where a job is. ``is_terminal()``: it has ended."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    STOPPED = "STOPPED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"

    def is_terminal(self) -> bool:
        """Whether it stays so."""
        return self in (JobStatus.STOPPED, JobStatus.SUCCEEDED, JobStatus.FAILED)


class JobType(StrEnum):
    """Whether a job was submitted, or is a driver that connected by itself."""

    SUBMISSION = "SUBMISSION"
    DRIVER = "DRIVER"


@dataclass(frozen=True)
class DriverInfo:
    """The driver of a job: its job id (hex), its node's address, its pid."""

    id: str
    node_ip_address: str
    pid: str


@dataclass(frozen=True)
class JobInfo:
    """A job. Times are milliseconds since 1970, None while they are to come."""

    status: JobStatus
    entrypoint: str
    message: str | None = None
    error_type: str | None = None
    start_time: int | None = None
    end_time: int | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    runtime_env: dict[str, Any] | None = None
    driver_node_id: str | None = None
    driver_exit_code: int | None = None


@dataclass(frozen=True)
class JobDetails(JobInfo):
    """A job with its ids."""

    type: JobType = JobType.SUBMISSION
    submission_id: str | None = None
    job_id: str | None = None
    driver_info: DriverInfo | None = None


class JobSubmissionClient:
    """A cluster to submit drivers to.

    ``address``: "HOST:PORT" of the head, a session directory, "auto"; None and ``http://`` of this
    machine mean the cluster found here. ``headers``, ``cookies`` and ``verify`` are for HTTP and
    refused. Raises ConnectionError where there is no cluster, ValueError for a bad address.
    """

    def __init__(
        self,
        address: str | None = None,
        create_cluster_if_needed: bool = False,
        cookies: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
        headers: dict[str, Any] | None = None,
        verify: str | bool | None = True,
        **other: Any,
    ) -> None:
        refused = {"cookies": cookies, "headers": headers, **other}
        for name, value in refused.items():
            if value:
                raise ValueError(f"{name}={value!r}: jobs are not submitted over HTTP")
        if verify is not True:
            raise ValueError(f"verify={verify!r}: jobs are not submitted over HTTP")
        if create_cluster_if_needed:
            raise ValueError("create_cluster_if_needed: start the cluster by `mray start --head`")
        self._address = _cluster_of(address)
        self._metadata = dict(metadata or {})
        with asker(self._address):
            pass  # There is one: said now and not at the first job.

    def get_address(self) -> str:
        """What the cluster was found by; "auto" where it was looked for."""
        return self._address or "auto"

    def get_version(self) -> str:
        """The version of Ray that mray behaves like."""
        return RAY_VERSION

    def submit_job(
        self,
        *,
        entrypoint: str,
        job_id: str | None = None,
        runtime_env: dict[str, Any] | None = None,
        metadata: dict[str, str] | None = None,
        submission_id: str | None = None,
        entrypoint_num_cpus: float | None = None,
        entrypoint_num_gpus: float | None = None,
        entrypoint_memory: int | None = None,
        entrypoint_resources: dict[str, float] | None = None,
        entrypoint_label_selector: dict[str, str] | None = None,
    ) -> str:
        """Have the cluster run a command as a driver, and return its submission id.

        ``entrypoint``: a command line; ``python script.py`` runs it with this Python, in which
        ``import ray`` means mray where no Ray is installed; one with shell's characters is run by a
        shell. ``job_id`` is Ray's old name of ``submission_id``. Drivers take no resources:
        ``entrypoint_*`` are refused. Raises ValueError for bad arguments, RuntimeError for an id
        that is taken or a cluster that does not answer.
        """
        sought = {
            "entrypoint_num_cpus": entrypoint_num_cpus,
            "entrypoint_num_gpus": entrypoint_num_gpus,
            "entrypoint_memory": entrypoint_memory,
            "entrypoint_resources": entrypoint_resources,
            "entrypoint_label_selector": entrypoint_label_selector,
        }
        for name, value in sought.items():
            if value:
                raise ValueError(f"{name}={value!r}: drivers of mray take no resources")
        if job_id and submission_id and job_id != submission_id:
            raise ValueError("job_id is the old name of submission_id: say only one")
        told = {**self._metadata, **(metadata or {})}
        for key, text in told.items():
            if not isinstance(key, str) or not isinstance(text, str):
                raise TypeError(f"metadata is of texts, which {key!r}: {text!r} is not")
        if not entrypoint or not entrypoint.strip():
            raise ValueError("entrypoint is the command to run, and there is none")
        env = dict(checked(runtime_env or {}))
        place = env.get("working_dir", "")
        cwd = os.path.abspath(place) if place and os.path.isdir(place) else os.getcwd()

        def submit(ask: Asker) -> str:
            resolved = Uploads().resolve(
                env, lambda make: ask.ask_head(make, m.PackageState, PACKAGE_TIMEOUT_S)
            )
            return ask.ask_head(
                lambda rid: m.SubmitJob(
                    rid,
                    submission_id or job_id or _new_id(),
                    _argv(entrypoint),
                    entrypoint,
                    pack_environment(resolved),
                    told,
                    cwd,
                    {},
                ),
                m.JobSubmitted,
                _ANSWER_S,
            ).submission_id

        return str(self._ask(submit))

    def stop_job(self, job_id: str) -> bool:
        """Have a job end. False where it has ended already. RuntimeError: there is none."""
        job = self._job(job_id)
        if JobStatus(job.status).is_terminal():
            return False
        if not job.submission_id:
            raise RuntimeError(f"job {job_id} connected by itself: end its driver, pid {job.pid}")
        self._ask(
            lambda ask: ask.ask_head(
                lambda rid: m.StopJob(rid, job.submission_id), m.Ack, _ANSWER_S
            )
        )
        return True

    def delete_job(self, job_id: str) -> NoReturn:
        """Raise NotImplementedError: what is known of a job goes with its cluster."""
        raise NotImplementedError(
            f"delete_job({job_id!r}): mray keeps what it knows of jobs as long as the cluster runs"
        )

    def get_job_info(self, job_id: str) -> JobDetails:
        """A job by submission id or job id. RuntimeError: there is none."""
        return _details(self._job(job_id))

    def get_job_status(self, job_id: str) -> JobStatus:
        """Where a job is. RuntimeError: there is none."""
        return JobStatus(self._job(job_id).status)

    def list_jobs(self) -> list[JobDetails]:
        """All jobs, also drivers that connected by themselves, the newest first."""
        jobs = self._ask(lambda ask: ask.ask_head(m.GetJobs, m.Jobs, _ANSWER_S).jobs)
        return [_details(job) for job in sorted(jobs, key=lambda job: -job.start_unix_s)]

    def get_job_logs(self, job_id: str) -> str:
        """What the driver of a job printed so far. RuntimeError: there is no such job."""
        return self._printed(job_id, 0)[0].decode(errors="replace")

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        """What the driver prints, as it comes, until it ends."""
        decoder = getincrementaldecoder("utf-8")("replace")
        offset = 0
        while True:
            # In this order: what it printed last is there once it has ended.
            status = await asyncio.to_thread(self.get_job_status, job_id)
            data, offset = await asyncio.to_thread(self._printed, job_id, offset)
            text = decoder.decode(data, final=status.is_terminal())
            if text:
                yield text
            if status.is_terminal():
                return
            await asyncio.sleep(_FOLLOW_S)

    def _ask(self, question: Any) -> Any:
        """Any: a function of an Asker, and what it returns."""
        try:
            with asker(self._address) as ask:
                return question(ask)
        except RayError as error:
            raise RuntimeError(str(error)) from error

    def _job(self, job_id: str) -> m.JobDetails:
        jobs = self._ask(lambda ask: ask.ask_head(m.GetJobs, m.Jobs, _ANSWER_S).jobs)
        for job in jobs:
            if job_id and job_id in (job.submission_id, job.job_id.hex()):
                found: m.JobDetails = job
                return found
        raise RuntimeError(f"there is no job {job_id!r} in this cluster")

    def _printed(self, job_id: str, offset: int) -> tuple[bytes, int]:
        """What the driver printed from ``offset`` on, and how far that reaches."""
        job = self._job(job_id)
        if not job.log_name or not job.node_id:
            return b"", offset

        def read(ask: Asker) -> tuple[bytes, int]:
            data, at = b"", offset
            for node in ask.nodes():
                if node.node.node_id != job.node_id or node.state != "ALIVE":
                    continue
                found = ask.ask_node(
                    node, lambda rid: m.ListLogs(rid, job.log_name), m.LogFiles, _ANSWER_S
                )
                if not found.files:
                    continue  # It has yet to begin.
                while True:
                    chunk = ask.ask_node(
                        node,
                        lambda rid, at=at: m.ReadLog(rid, job.log_name, at),  # type: ignore[misc]
                        m.LogChunk,
                        _ANSWER_S,
                    )
                    data, at = data + chunk.data, chunk.next_offset
                    if not chunk.data:
                        break
            return data, at

        data, at = self._ask(read)
        return data, at


def _cluster_of(address: str | None) -> str | None:
    """``address`` without HTTP; None: to be looked for."""
    if address is None or address == "auto":
        return None
    if "://" not in address:
        return address
    parts = urlsplit(address)
    if parts.scheme in ("http", "https") and parts.hostname in _LOOPBACK:
        return None
    raise ValueError(
        f"{address}: mray takes jobs over no {parts.scheme}; give HOST:PORT of the head, as "
        "`mray start --head` prints it"
    )


def _argv(entrypoint: str) -> list[str]:
    """What is run, without a shell where none is needed."""
    if _FOR_SHELL.isdisjoint(entrypoint):
        words = shlex.split(entrypoint)
        if words[0] in ("python", "python3") and len(words) > 1:
            if not words[1].startswith("-") or words[1] == "-m":
                return [sys.executable, "-m", "mray.launch", *words[1:]]
            return [sys.executable, *words[1:]]
        return words
    return ["/bin/sh", "-c", entrypoint]


def _new_id() -> str:
    return "raysubmit_" + "".join(secrets.choice(_ID_CHARACTERS) for _ in range(16))


def _details(job: m.JobDetails) -> JobDetails:
    driver = DriverInfo(job.job_id.hex(), "", str(job.pid)) if job.job_id else None
    return JobDetails(
        status=JobStatus(job.status),
        entrypoint=job.entrypoint,
        message=job.message or None,
        start_time=round(job.start_unix_s * 1000) or None,
        end_time=round(job.end_unix_s * 1000) or None,
        metadata=job.metadata,
        driver_node_id=job.node_id.hex() or None,
        driver_exit_code=job.exit_code,
        type=JobType(job.kind),
        submission_id=job.submission_id or None,
        job_id=job.job_id.hex() or None,
        driver_info=driver,
    )


def __getattr__(name: str) -> object:
    refuse_attribute("job_submission", name)


__all__ = [
    "DriverInfo",
    "JobDetails",
    "JobInfo",
    "JobStatus",
    "JobSubmissionClient",
    "JobType",
]
