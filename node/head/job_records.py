"""The records of jobs, what is said of them, and how they are stored. Decides nothing: jobs.py
does.

Moments are stored as people's time: a head that begins anew may do so on another machine, whose
clock began elsewhere.
"""

from __future__ import annotations

from typing import Final

import msgspec

from mray.wire.messages import JobDetails, JobInfo, SubmitJob

#: Tables of the head's storage; keys are job ids, and submission ids.
DRIVERS: Final = "jobs"
SUBMISSIONS: Final = "submissions"


class DriverRow(msgspec.Struct, frozen=True):
    """A driver as it is stored. ``process_id``: who has registered it, while it runs."""

    info: JobInfo
    pid: int
    entrypoint: str
    submission_id: str
    started_unix_s: float
    status: str
    message: str
    exit_code: int | None
    ended_unix_s: float | None
    process_id: bytes


class SubmissionRow(msgspec.Struct, frozen=True):
    """A submission as it is stored."""

    request: SubmitJob
    sender: bytes
    submitted_unix_s: float
    status: str
    message: str
    node_id: bytes
    pid: int
    exit_code: int | None
    ended_unix_s: float | None
    stopping: bool
    job_ids: list[bytes]


_encode: Final = msgspec.msgpack.Encoder().encode
_driver: Final = msgspec.msgpack.Decoder(DriverRow)
_submission: Final = msgspec.msgpack.Decoder(SubmissionRow)


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

    def row(self, unix_offset_s: float, process_id: bytes) -> bytes:
        """As it is stored."""
        row = DriverRow(
            self.info, self.pid, self.entrypoint, self.submission_id,
            _whole(self.started_at + unix_offset_s), self.status, self.message, self.exit_code,
            _moment(self.ended_at, unix_offset_s), process_id,
        )  # fmt: skip
        return _encode(row)

    @classmethod
    def of_row(cls, data: bytes, unix_offset_s: float) -> tuple[Driver, bytes]:
        """What row() made, and the process that has registered it."""
        row = _driver.decode(data)
        driver = cls(
            row.info, row.pid, row.entrypoint, row.submission_id,
            row.started_unix_s - unix_offset_s, row.status, row.message, row.exit_code,
            _moment(row.ended_unix_s, -unix_offset_s),
        )  # fmt: skip
        return driver, row.process_id


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

    def row(self, unix_offset_s: float) -> bytes:
        """As it is stored."""
        row = SubmissionRow(
            self.request, self.sender, _whole(self.submitted_at + unix_offset_s), self.status,
            self.message, self.node_id, self.pid, self.exit_code,
            _moment(self.ended_at, unix_offset_s), self.stopping, self.job_ids,
        )  # fmt: skip
        return _encode(row)

    @classmethod
    def of_row(cls, data: bytes, unix_offset_s: float) -> Submission:
        """What row() made."""
        row = _submission.decode(data)
        return cls(
            row.request, row.sender, row.submitted_unix_s - unix_offset_s, row.status, row.message,
            row.node_id, row.pid, row.exit_code, _moment(row.ended_unix_s, -unix_offset_s),
            row.stopping, row.job_ids,
        )  # fmt: skip


def _unix(moment: float | None, offset_s: float) -> float:
    return 0.0 if moment is None else moment + offset_s


def _whole(moment: float) -> float:
    """To the microsecond, so that adding and subtracting an offset comes back to it."""
    return round(moment, 6)


def _moment(moment: float | None, offset_s: float) -> float | None:
    return None if moment is None else _whole(moment + offset_s)
