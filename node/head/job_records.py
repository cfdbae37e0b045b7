"""The records of jobs, and what is said of them. Decides nothing: jobs.py does."""

from __future__ import annotations

import msgspec

from mray.wire.messages import JobDetails, JobInfo, SubmitJob


class Driver(msgspec.Struct):
    """A registered driver's job. ``submission_id`` is "" for one that came by itself."""

    info: JobInfo
    pid: int
    entrypoint: str
    submission_id: str
    started_at: float
    status: str = "RUNNING"
    message: str = ""
    exit_code: int | None = None
    #: Set exactly for those that have ended.
    ended_at: float | None = None

    def details(self, unix_offset_s: float) -> JobDetails:
        """As lists show it."""
        return JobDetails(
            submission_id="",
            job_id=self.info.job_id,
            status=self.status,
            entrypoint=self.entrypoint,
            message=self.message,
            exit_code=self.exit_code,
            start_unix_s=self.started_at + unix_offset_s,
            end_unix_s=_unix(self.ended_at, unix_offset_s),
            metadata={},
            node_id=self.info.driver.node_id,
            pid=self.pid,
            log_name="",
            kind="DRIVER",
        )


class Submission(msgspec.Struct):
    """A driver that the cluster starts."""

    request: SubmitJob
    sender: bytes
    submitted_at: float
    status: str = "PENDING"
    message: str = ""
    #: The node that was told to start it; b"" while there was none.
    node_id: bytes = b""
    pid: int = 0
    exit_code: int | None = None
    #: Set exactly for those that have ended.
    ended_at: float | None = None
    stopping: bool = False
    #: Of its drivers, in the order they registered.
    job_ids: list[bytes] = []

    @property
    def ended(self) -> bool:
        """Whether it is over, in whatever way."""
        return self.ended_at is not None

    def details(self, unix_offset_s: float) -> JobDetails:
        """As lists show it."""
        name = self.request.submission_id
        return JobDetails(
            submission_id=name,
            job_id=self.job_ids[-1] if self.job_ids else b"",
            status=self.status,
            entrypoint=self.request.display,
            message=self.message,
            exit_code=self.exit_code,
            start_unix_s=self.submitted_at + unix_offset_s,
            end_unix_s=_unix(self.ended_at, unix_offset_s),
            metadata=self.request.metadata,
            node_id=self.node_id,
            pid=self.pid,
            log_name=f"job-driver-{name}.log",
        )


def _unix(moment: float | None, offset_s: float) -> float:
    return 0.0 if moment is None else moment + offset_s
