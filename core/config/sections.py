"""Every setting of mray: name, type, default, bounds, and what turning it does.

One frozen struct a section; the annotation of a field is the whole truth about it: `Meta` holds
the bounds (msgspec checks them in a file, a variable and a message alike), `Key` (key.py) the rest.
Only settings that are in effect stand here; a Ray setting that mray lacks is in ray_names.py.

A key is called as in Ray where Ray has it, so names are unique over all sections and `MRAY_<key>`
is unambiguous. Never name a key so that `MRAY_<key>` ends in _PORT after a word a Kubernetes
service could be called: a service "mray-head" makes Kubernetes set MRAY_HEAD_PORT=tcp://...

No `from __future__ import annotations` here: registry.py reads the annotations as objects.
"""

from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct

from mray.config.errors import ConfigError
from mray.config.key import Key
from mray.config.key import Section as _Section
from mray.config.metrics_section import Metrics
from mray.config.store_sections import (
    ObjectStore,
    Spilling,
    Transfer,
)
from mray.config.testing_section import Testing
from mray.units import GIB, MIB

_DAY_MS: Final = 86_400_000
_BYTES_MAX: Final = 2**63 - 1
_StopSignal: TypeAlias = Literal[
    "SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGKILL"
]


# One key is four lines here: name, type, bounds; what it is; what turning it does; the rest.
# fmt: off


class Node(_Section, frozen=True):
    """The machine's head and node daemon, and where they keep their files."""

    gcs_server_port: Annotated[int, Meta(ge=0, le=65535), Key(
        "The TCP port of the head; 0 lets the system choose a free one.",
        "Change it where the port is taken; nodes and drivers join at this port.",
        scope="node", ray=("RAY_GCS_SERVER_PORT",),
    )] = 6379
    gcs_storage: Annotated[str, Key(
        "Where the head keeps its state: a file's path, redis://HOST:PORT/DB, or memory; empty: a "
        "file of the session, or memory for a cluster that ends with its program.",
        "Name a place that outlives the machine's session to start the head elsewhere.",
        scope="node", ray=("RAY_gcs_storage_path", "RAY_REDIS_ADDRESS", "RAY_gcs_storage"),
    )] = ""
    external_storage_namespace: Annotated[str, Key(
        "What the keys of this cluster in Redis begin with.",
        "Set one for each cluster where several keep their state in one Redis.",
        scope="node", ray=("RAY_external_storage_namespace",),
    )] = "default"
    tmpdir: Annotated[str, Key(
        "The directory that sessions (sockets, logs, state) are made under.",
        "Point it at a local disk; keep it short, for a socket's path has 107 bytes.",
        scope="node", unit="path", ray=("RAY_TMPDIR",), fallback=("TMPDIR",),
    )] = "/tmp"
    min_worker_port: Annotated[int, Meta(ge=0, le=65535), Key(
        "The first TCP port that workers and drivers of a node with a port may listen on.",
        "Set both where a firewall lets only some ports through; each process needs one.",
        scope="node",
    )] = 0
    max_worker_port: Annotated[int, Meta(ge=0, le=65535), Key(
        "The last TCP port that workers and drivers may listen on; 0 lets the system choose ports.",
        "Set both where a firewall lets only some ports through; each process needs one.",
        scope="node",
    )] = 0
    same_machine_ipc: Annotated[bool, Key(
        "Whether processes of two nodes on one machine talk over unix sockets.",
        "Turn off to have them use TCP, as nodes on two machines do.",
        scope="cluster",
    )] = True
    session_retention_s: Annotated[float, Meta(ge=0, le=3650 * 86400), Key(
        "How long the files of an ended session are kept.",
        "Turn up to read older logs; turn down to free disk sooner.",
        scope="node", unit="s",
    )] = 7 * 86400.0
    session_retention_count: Annotated[int, Meta(ge=0, le=10_000), Key(
        "How many ended sessions are kept; older ones go at the next start.",
        "Turn up to read older logs; turn down to free disk sooner.",
        scope="node", unit="sessions",
    )] = 10


class MemoryMonitor(_Section, frozen=True):
    """When a node is short of memory, which worker it ends then, and how often that is retried."""

    memory_usage_threshold: Annotated[float, Meta(ge=0, le=1), Key(
        "The share of a node's memory above which it is short of memory.",
        "Turn up to use more of the machine; turn down to keep more of it free.",
        scope="node", ray=("RAY_memory_usage_threshold",),
        historic=("memory_usage_threshold_fraction",),
    )] = 0.95
    memory_monitor_refresh_ms: Annotated[int, Meta(ge=0, le=_DAY_MS), Key(
        "Time between two looks at the node's memory; 0 turns the monitor off.",
        "Turn up for less work; turn down to see a burst sooner.",
        scope="node", unit="ms", ray=("RAY_memory_monitor_refresh_ms",),
        historic=("memory_monitor_interval_ms",),
    )] = 250
    min_memory_free_bytes: Annotated[int, Meta(ge=-1, le=_BYTES_MAX), Key(
        "What is free enough on a big machine: it is short of memory only when less than this is "
        "free and memory_usage_threshold is passed; -1 leaves this out.",
        "Turn down to use more of a big machine; turn up to keep more of it free.",
        scope="node", unit="bytes", ray=("RAY_min_memory_free_bytes",),
    )] = -1
    memory_soft_mark: Annotated[float, Meta(gt=0, le=1), Key(
        "The share of the threshold from which on a node lends no worker to new tasks.",
        "Turn up to start tasks for longer; turn down to have fewer ended.",
        scope="node",
    )] = 0.9
    worker_killing_policy: Annotated[Literal["group_by_owner", "time"], Key(
        "Which retriable worker is ended first; 1 means group_by_owner, 0 time.",
        "group_by_owner spares owners with few tasks; time takes the newest of all.",
        scope="node", ray=("RAY_worker_killing_policy_by_group",),
        switch=("group_by_owner", "time"),
    )] = "group_by_owner"
    idle_worker_killing_memory_threshold_bytes: Annotated[int, Meta(ge=1, le=_BYTES_MAX), Key(
        "An idle worker that keeps this much is ended before any that works.",
        "Turn up to keep big idle workers; turn down to spare those at work.",
        scope="node", unit="bytes", ray=("RAY_idle_worker_killing_memory_threshold_bytes",),
    )] = GIB
    worker_max_memory_per_child: Annotated[int, Meta(ge=-1, le=_BYTES_MAX), Key(
        "An idle worker that keeps more memory of its own is replaced; -1: only while memory is "
        "short.",
        "Turn up to start workers less often; turn down where tasks leave much behind.",
        scope="node", unit="bytes",
    )] = -1
    min_kill_bytes: Annotated[int, Meta(ge=-1, le=_BYTES_MAX), Key(
        "A worker that holds less is spared while another of its kind holds more; -1: 1 % of what "
        "the node may use.",
        "Turn up to end bigger workers first; turn down to 0 to keep to the order of the policy.",
        scope="node", unit="bytes",
    )] = -1
    enforce_memory: Annotated[Literal["off", "warn", "kill"], Key(
        "What happens to a worker that uses more than the memory its task or actor declared.",
        "kill ends it even while the node has memory left; warn only names it.",
        scope="node",
    )] = "off"
    task_oom_retries: Annotated[int, Meta(ge=-1, le=2**31 - 1), Key(
        "Retries of a task that ended for want of memory, beside max_retries; -1: no end. A task "
        "with max_retries=0 has none.",
        "Turn up to wait longer for memory; turn down to see the error sooner.",
        scope="cluster", unit="retries", ray=("RAY_task_oom_retries",),
    )] = -1
    task_oom_retry_delay_base_ms: Annotated[int, Meta(ge=0, le=60_000), Key(
        "The pause before the first such retry; it doubles with each, up to a minute.",
        "Turn up to give others time to finish; turn down to retry sooner.",
        scope="cluster", unit="ms", ray=("RAY_task_oom_retry_delay_base_ms",),
    )] = 1000
    oom_retry_memory_factor: Annotated[float, Meta(ge=1, le=100), Key(
        "Such a retry asks for this many times the most memory that was seen of the task.",
        "Turn up for tasks whose need varies; turn down to run more of them at once.",
        scope="cluster",
    )] = 1.5
    event_stats_print_interval_ms: Annotated[int, Meta(ge=0, le=_DAY_MS), Key(
        "How often drivers are told how many workers memory ended; 0: never.",
        "Turn up for a quieter driver; turn down to hear of it sooner.",
        scope="node", unit="ms", ray=("RAY_event_stats_print_interval_ms",),
    )] = 60_000


class Tasks(_Section, frozen=True):
    """How a process that submits tasks retries and dispatches them."""

    task_max_retries: Annotated[int, Meta(ge=-1, le=2**31 - 1), Key(
        "Retries of a task whose worker or node died, without max_retries; -1: no end.",
        "Turn up to survive more deaths; turn down to see a crash sooner.",
        scope="process", unit="retries", ray=("RAY_TASK_MAX_RETRIES",),
    )] = 3
    max_lineage_bytes: Annotated[int, Meta(ge=0, le=_BYTES_MAX), Key(
        "How much memory of a process the descriptions of finished tasks may take, by which lost "
        "results are made again; beyond it the older half is dropped.",
        "Turn up where lost results of old tasks are needed; turn down to save memory.",
        scope="process", unit="bytes", ray=("RAY_max_lineage_bytes",),
    )] = GIB
    max_parallel_rebuilds: Annotated[int, Meta(ge=1, le=1_000_000), Key(
        "How many tasks of a process at most run again at the same time to make lost results.",
        "Turn up to recover faster on a big cluster; turn down to leave room for new tasks.",
        scope="process", unit="tasks",
    )] = 256
    infeasible_timeout_s: Annotated[float, Meta(ge=0, le=_DAY_MS / 1000), Key(
        "How long tasks and actors wait for a node that could ever run them before they fail as "
        "unschedulable; 0: for ever. That they wait is told at once.",
        "Turn up, or leave it at 0, where a bigger node may still come; turn down to fail sooner.",
        scope="process", unit="s",
    )] = 0.0
    lease_idle_ms: Annotated[int, Meta(ge=0, le=_DAY_MS), Key(
        "How long a submitter keeps a leased worker that it has no task for.",
        "Turn up to save leases between bursts; turn down to free its CPU sooner.",
        scope="process", unit="ms",
    )] = 250
    pipeline_target_ms: Annotated[float, Meta(ge=0, le=10_000), Key(
        "How much work, in run time, is queued on a leased worker; 0: one task at once.",
        "Turn up to hide more latency for tiny tasks; turn down to balance finer.",
        scope="process", unit="ms",
    )] = 5.0
    cancellation_retry_ms: Annotated[int, Meta(ge=1, le=_DAY_MS), Key(
        "How long a worker may take to end a task cancelled by force before its node ends it.",
        "Turn up where workers are slow to answer; turn down to be rid of stuck ones sooner.",
        scope="process", unit="ms",
    )] = 2000
    task_events_report_interval_ms: Annotated[int, Meta(ge=0, le=_DAY_MS), Key(
        "How often a process tells the head which of its tasks ended; 0: nothing is recorded.",
        "Turn up for fewer messages; turn down to lose less with a process that is killed.",
        scope="process", unit="ms", ray=("RAY_task_events_report_interval_ms",),
    )] = 1000
    task_events_max_num_task_in_gcs: Annotated[int, Meta(ge=0, le=10_000_000), Key(
        "How many ended attempts of tasks the head keeps, the newest.",
        "Turn up to look further back; turn down to save about 100 bytes of the head for each.",
        scope="cluster", unit="attempts", ray=("RAY_task_events_max_num_task_in_gcs",),
    )] = 100_000


class Workers(_Section, frozen=True):
    """The worker processes of a node."""

    worker_register_timeout_seconds: Annotated[float, Meta(gt=0, le=86400), Key(
        "How long a started worker may take until it reports to its node.",
        "Turn up for slow imports or disks; turn down to notice a stuck start sooner.",
        scope="node", unit="s", ray=("RAY_worker_register_timeout_seconds",),
    )] = 60.0
    num_workers_soft_limit: Annotated[int, Meta(ge=-1, le=100_000), Key(
        "Idle workers beyond this number are ended; -1 stands for the node's CPUs.",
        "Turn up to keep more workers warm; turn down to save memory.",
        scope="node", unit="workers", ray=("RAY_num_workers_soft_limit",),
    )] = -1
    idle_worker_killing_time_threshold_ms: Annotated[int, Meta(ge=0, le=_DAY_MS), Key(
        "How long a worker beyond num_workers_soft_limit may be idle.",
        "Turn up to start workers less often; turn down to free their memory sooner.",
        scope="node", unit="ms", ray=("RAY_idle_worker_killing_time_threshold_ms",),
    )] = 1000
    kill_worker_timeout_milliseconds: Annotated[int, Meta(ge=0, le=_DAY_MS), Key(
        "Time between asking a worker to end (SIGTERM) and killing it (SIGKILL).",
        "Turn up to let exit handlers finish; turn down to get resources back sooner.",
        scope="node", unit="ms", ray=("RAY_kill_worker_timeout_milliseconds",),
    )] = 5000
    actor_graceful_shutdown_timeout_ms: Annotated[int, Meta(ge=1, le=_DAY_MS), Key(
        "How long a worker's exit handlers and its actor's __ray_shutdown__ may take together.",
        "Turn up where actors have much to save; turn down to be rid of those that hang sooner.",
        scope="node", unit="ms", ray=("RAY_actor_graceful_shutdown_timeout_ms",),
    )] = 30_000
    worker_niceness: Annotated[int, Meta(ge=0, le=19), Key(
        "The nice value of workers; 0 is the priority of other programs.",
        "Turn up so that daemons and others stay quick; turn down to give tasks more.",
        scope="node", ray=("RAY_worker_niceness",),
    )] = 15
    worker_oom_score_adjustment: Annotated[int, Meta(ge=0, le=1000), Key(
        "Added to a worker's oom_score_adj, which ranks victims of the kernel.",
        "Turn up so that the kernel kills workers first; turn down to shield them.",
        scope="node", ray=("RAY_worker_oom_score_adjustment",),
    )] = 1000


class Liveness(_Section, frozen=True):
    """When a silent node counts as dead."""

    health_check_period_ms: Annotated[int, Meta(ge=1, le=_DAY_MS), Key(
        "Time between two health checks of a node.",
        "Turn up for less traffic; turn down to notice a dead node sooner.",
        scope="cluster", unit="ms", ray=("RAY_health_check_period_ms",),
    )] = 3000
    health_check_timeout_ms: Annotated[int, Meta(ge=1, le=_DAY_MS), Key(
        "How long a health check waits for its answer.",
        "Turn up for overloaded machines; turn down to notice a dead node sooner.",
        scope="cluster", unit="ms", ray=("RAY_health_check_timeout_ms",),
    )] = 10_000
    health_check_failure_threshold: Annotated[int, Meta(ge=1, le=1_000_000), Key(
        "How many checks in a row must fail before a node counts as dead.",
        "Turn up to forgive longer silences; turn down to notice a dead node sooner.",
        scope="cluster", unit="checks", ray=("RAY_health_check_failure_threshold",),
    )] = 5
    gcs_rpc_server_reconnect_timeout_s: Annotated[float, Meta(ge=0, le=86400), Key(
        "How long nodes go on without their head, and a head begun anew expects its nodes.",
        "Turn up for slow restarts of the head; turn down to have what is orphaned end sooner.",
        scope="cluster", unit="s", ray=("RAY_gcs_rpc_server_reconnect_timeout_s",),
    )] = 60.0


class Serialization(_Section, frozen=True):
    """What happens when user code pickles."""

    allow_out_of_band_object_ref_serialization: Annotated[Literal["warn", "allow", "error"], Key(
        "What pickling an ObjectRef outside mray does; 1 means allow, 0 error.",
        "warn reports each call site once, allow is silent as in Ray, error raises.",
        scope="process", ray=("RAY_allow_out_of_band_object_ref_serialization",),
        switch=("allow", "error"),
    )] = "warn"


class References(_Section, frozen=True):
    """What is recorded of references, for `mray memory`."""

    record_ref_creation_sites: Annotated[bool, Key(
        "Whether put() and .remote() note the line of user code that they are called from.",
        "On by default, unlike in Ray: it costs 0.1 us a call. Off leaves call sites empty.",
        scope="cluster", ray=("RAY_record_ref_creation_sites",),
    )] = True


class Logs(_Section, frozen=True):
    """Log files, and what a driver prints of them."""

    log_rotation_max_bytes: Annotated[int, Meta(ge=1024, le=_BYTES_MAX), Key(
        "The size at which a log file of a daemon or a worker is rotated.",
        "Turn up to keep longer histories; turn down to save disk.",
        scope="node", unit="bytes", ray=("RAY_ROTATION_MAX_BYTES", "RAY_log_rotation_max_bytes"),
    )] = 64 * MIB
    log_rotation_backup_count: Annotated[int, Meta(ge=0, le=1000), Key(
        "How many rotated files are kept beside the current one.",
        "Turn up to keep longer histories; turn down to save disk.",
        scope="node", unit="files",
        ray=("RAY_ROTATION_BACKUP_COUNT", "RAY_log_rotation_backup_count"),
    )] = 3
    log_to_driver: Annotated[bool, Key(
        "Whether a driver prints what its workers print.",
        "Turn off for a quiet driver; the log files keep everything either way.",
        scope="process", ray=("RAY_LOG_TO_DRIVER",),
    )] = True


class Jobs(_Section, frozen=True):
    """Drivers started with `mray submit`."""

    job_stop_signal: Annotated[_StopSignal, Key(
        "The signal that stopping a job sends to its driver first.",
        "Choose the one that the driver handles; SIGKILL leaves it no clean-up.",
        scope="cluster", ray=("RAY_JOB_STOP_SIGNAL",),
    )] = "SIGTERM"
    job_stop_wait_time_s: Annotated[float, Meta(ge=0, le=86400), Key(
        "How long a stopped driver may take until it is killed.",
        "Turn up to let it clean up; turn down to have it gone sooner.",
        scope="cluster", unit="s", ray=("RAY_JOB_STOP_WAIT_TIME_S",),
    )] = 3.0


class Auth(_Section, frozen=True):
    """Who may talk to the cluster over TCP."""

    auth_mode: Annotated[Literal["token", "disabled"], Key(
        "Whether TCP peers must hold the cluster's token.",
        "disabled lets anyone who reaches the port run code, so it is for loopback.",
        scope="cluster", ray=("RAY_AUTH_MODE",),
    )] = "token"
    auth_token_path: Annotated[str, Key(
        "The file that holds the token, readable by its owner only.",
        "Point it at a mounted secret; RAY_AUTH_TOKEN comes before the file.",
        scope="node", unit="path", ray=("RAY_AUTH_TOKEN_PATH",),
    )] = "~/.mray/auth_token"


class Driver(_Section, frozen=True):
    """What `init()` uses where the program does not say."""

    address: Annotated[str, Key(
        "The cluster to join, as HOST:PORT, auto or local; empty: any found, else local.",
        "Set it to run the same program on another cluster.",
        scope="process", ray=("RAY_ADDRESS",),
    )] = ""
    namespace: Annotated[str, Key(
        "The namespace of the job's named actors; empty makes one of its own.",
        "Set it so that jobs can find each other's named actors.",
        scope="process", ray=("RAY_NAMESPACE",),
    )] = ""


# fmt: on


class Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings but the secrets. A plain value: safe to print, to send and to keep."""

    node: Node = Node()
    object_store: ObjectStore = ObjectStore()
    transfer: Transfer = Transfer()
    spilling: Spilling = Spilling()
    memory_monitor: MemoryMonitor = MemoryMonitor()
    tasks: Tasks = Tasks()
    workers: Workers = Workers()
    liveness: Liveness = Liveness()
    serialization: Serialization = Serialization()
    references: References = References()
    logs: Logs = Logs()
    metrics: Metrics = Metrics()
    jobs: Jobs = Jobs()
    auth: Auth = Auth()
    driver: Driver = Driver()
    testing: Testing = Testing()

    def to_bytes(self) -> bytes:
        """As msgpack, for the head's answers to nodes, drivers and workers."""
        return msgspec.msgpack.encode(self)

    @staticmethod
    def from_bytes(data: bytes) -> "Config":
        """The reverse of to_bytes. Raises ConfigError on junk, unknown keys and bad values."""
        try:
            return msgspec.msgpack.decode(data, type=Config)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"the configuration in a message cannot be used: {error}; "
                "do all processes run the same version of mray?",
                expected="msgpack of mray.config.Config",
                source="a message",
            ) from error


class Secrets(Struct, frozen=True, kw_only=True):
    """What must not leave this process: from the environment only, and masked when printed."""

    auth_token: Annotated[str, Key(
        "The cluster's token itself; empty: read auth_token_path.",
        "Set it where no file can be mounted.",
        scope="process", ray=("RAY_AUTH_TOKEN",), secret=True,
    )] = ""  # fmt: skip

    def __repr__(self) -> str:
        return f"Secrets(auth_token={'(set)' if self.auth_token else '(not set)'})"
