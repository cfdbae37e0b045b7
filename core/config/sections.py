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
from mray.units import GIB, KIB, MIB

#: The smallest object store that is of use, as in Ray.
OBJECT_STORE_MEMORY_MIN_BYTES: Final = 75 * MIB

_DAY_MS: Final = 86_400_000
_BYTES_MAX: Final = 2**63 - 1
_StoreBytes: TypeAlias = Annotated[int, Meta(ge=OBJECT_STORE_MEMORY_MIN_BYTES, le=_BYTES_MAX)]
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


class ObjectStore(_Section, frozen=True):
    """The shared memory that holds objects, one store a node."""

    object_store_memory: Annotated[_StoreBytes | None, Key(
        "Capacity of this node's store; auto takes object_store_memory_proportion.",
        "Turn up to hold more live objects; turn down to leave memory to tasks.",
        scope="node", unit="bytes",
    )] = None
    object_store_memory_proportion: Annotated[float, Meta(gt=0, le=1), Key(
        "The share of the node's memory that an auto-sized store takes.",
        "Turn up to hold more live objects; turn down to leave memory to tasks.",
        scope="node", ray=("RAY_DEFAULT_OBJECT_STORE_MEMORY_PROPORTION",),
    )] = 0.3
    object_store_max_memory_bytes: Annotated[_StoreBytes, Key(
        "The most that an auto-sized store takes, however big the machine.",
        "Turn up on a big machine to use more for objects; turn down to use less.",
        scope="node", unit="bytes", ray=("RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES",),
    )] = 200 * 10**9
    # New pages take 0.9-1.3 GB/s to fill, warm ones 5.2. 1 GiB keeps the 800 MB array that Ray's
    # benchmark puts over and over on warm pages.
    object_store_warm_bytes: Annotated[int, Meta(ge=0, le=_BYTES_MAX), Key(
        "How much freed store memory stays with the store, ready to be used again.",
        "Turn up for faster puts of big objects; turn down for a smaller idle node.",
        scope="node", unit="bytes",
    )] = GIB
    max_direct_call_object_size: Annotated[int, Meta(ge=0, le=64 * MIB), Key(
        "The largest value that lives in its owner and travels inside messages.",
        "Turn up to save store round trips; turn down where owners hold too much.",
        scope="cluster", unit="bytes", ray=("RAY_max_direct_call_object_size",),
    )] = 100 * KIB


class Transfer(_Section, frozen=True):
    """Copies of objects that come from other nodes."""

    # 380-410 MB/s over CURVE with 0.5 and 1 MiB on 2 cores; more costs memory, less costs messages.
    object_manager_default_chunk_size: Annotated[int, Meta(ge=4 * KIB, le=64 * MIB), Key(
        "The pieces that objects are sent in.",
        "Turn up for fewer messages; turn down where links are slow and shared.",
        scope="cluster", unit="bytes", ray=("RAY_object_manager_default_chunk_size",),
    )] = 512 * KIB
    pull_window_bytes: Annotated[int, Meta(ge=4 * KIB, le=_BYTES_MAX), Key(
        "What one node may be asked for at a time and has not sent yet.",
        "Turn up on fast links with long ways; turn down to save daemons' memory.",
        scope="cluster", unit="bytes",
    )] = 4 * MIB
    pull_memory_share: Annotated[float, Meta(gt=0, le=1), Key(
        "The share of a store that objects on their way take; one object may always come.",
        "Turn up for more objects at a time; turn down to keep more of what is here.",
        scope="node",
    )] = 0.5


class Spilling(_Section, frozen=True):
    """Where objects go when the store fills up, and when."""

    object_spilling_directory: Annotated[str, Key(
        "Where objects are spilled: a directory, several (a,b or a JSON list), or a URL for fsspec "
        "(extra mray[spill]); empty for the session's directory. The next start that names the "
        "same place removes what a killed node left, at a URL only on the same machine.",
        "Point it at a big, fast local disk; several directories share the load.",
        scope="node", ray=("RAY_object_spilling_directory",),
    )] = ""
    object_spilling_config: Annotated[str, Key(
        "The same in Ray's JSON form, {\"type\": \"filesystem\", \"params\": {\"directory_path\": "
        "...}} or smart_open with its uri; comes before object_spilling_directory.",
        "Leave it empty unless a cluster of Ray is configured that way.",
        scope="node", ray=("RAY_object_spilling_config",),
    )] = ""
    automatic_object_spilling_enabled: Annotated[bool, Key(
        "Whether objects go to disk when the store fills up.",
        "Turn off where disks must not be written: a full store is an error at once then.",
        scope="node", ray=("RAY_automatic_object_spilling_enabled",),
    )] = True
    object_spilling_threshold: Annotated[float, Meta(ge=0, le=1), Key(
        "The share of the store above which objects are spilled ahead of need.",
        "Turn up to keep more in memory; turn down so that room is there when it is needed.",
        scope="node", ray=("RAY_object_spilling_threshold",),
    )] = 0.8
    min_spilling_size: Annotated[int, Meta(ge=0, le=_BYTES_MAX), Key(
        "What is spilled in one go where there is as much; an eighth of the store at most.",
        "Turn up for bigger files of small objects; turn down to spill less than may be needed.",
        scope="node", unit="bytes", ray=("RAY_min_spilling_size",),
    )] = 100 * MIB
    max_spilling_file_size_bytes: Annotated[int, Meta(ge=-1, le=_BYTES_MAX), Key(
        "The largest file that small objects share; one bigger object has a file of its own; -1 "
        "for no bound.",
        "Turn up for fewer files; turn down where holes cannot be punched into files.",
        scope="node", unit="bytes", ray=("RAY_max_spilling_file_size_bytes",),
    )] = 256 * MIB
    max_fused_object_count: Annotated[int, Meta(ge=1, le=1_000_000), Key(
        "The most objects in one file.",
        "Turn up for fewer files; turn down where holes cannot be punched into files.",
        scope="node", unit="objects", ray=("RAY_max_fused_object_count",),
    )] = 2000
    max_io_workers: Annotated[int, Meta(ge=1, le=256), Key(
        "Threads that read and write spilled objects; one of them only reads.",
        "Turn up for disks that serve many requests at once; turn down to spare the processor.",
        scope="node", unit="threads", ray=("RAY_max_io_workers",),
    )] = 4
    local_fs_capacity_threshold: Annotated[float, Meta(ge=0, le=1), Key(
        "The share of a local disk above which nothing more is spilled to it.",
        "Turn up to use more of the disk; turn down to leave more of it to others.",
        scope="node", ray=("RAY_local_fs_capacity_threshold",),
    )] = 0.95
    spill_max_bytes: Annotated[int, Meta(ge=0, le=_BYTES_MAX), Key(
        "What spilled objects may take on disk together; 0 for no limit but the disk's.",
        "Turn up to hold more than memory can; turn down where disks are shared. Beyond it a put "
        "fails with OutOfDiskError.",
        scope="node", unit="bytes",
    )] = 0
    oom_grace_period_s: Annotated[float, Meta(ge=0, le=86_400), Key(
        "How long a full store may make no room until what waits for it is refused, or made on "
        "disk.",
        "Turn up to wait longer for references to go; turn down to fail sooner.",
        scope="node", unit="s", ray=("RAY_oom_grace_period_s",),
    )] = 2.0


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
