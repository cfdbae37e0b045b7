"""Names of variables that are no settings of this version of mray, and what to say of each.

Covers: Ray's settings that mray lacks, variables that mray's own processes set or read elsewhere,
and variables that belong to others. Does not hold supported names: sections.py does. When a
feature arrives, its key goes there and its name leaves this table; a test holds the two apart.
"""

from __future__ import annotations

import re
from typing import Final


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Settings of Ray 2.60, without "RAY_", that this version of mray does not support.
UNSUPPORTED: Final = _names(
    # Memory monitor, OOM kills and retries.
    """
    max_kill_memory_buffer_bytes task_retry_delay_ms task_failure_entry_ttl_ms event_stats
    raylet_check_gc_period_milliseconds MEMORY_MONITOR_ERROR_THRESHOLD DISABLE_MEMORY_MONITOR
    DEBUG_DISABLE_MEMORY_MONITOR
    """
    # Resource isolation by cgroups.
    """
    system_memory_bytes_min user_memory_proportion_high user_memory_proportion_max
    DEFAULT_SYSTEM_RESERVED_CPU_PROPORTION DEFAULT_MIN_SYSTEM_RESERVED_CPU_CORES
    DEFAULT_MAX_SYSTEM_RESERVED_CPU_CORES DEFAULT_SYSTEM_RESERVED_MEMORY_PROPORTION
    DEFAULT_MIN_SYSTEM_RESERVED_MEMORY_BYTES DEFAULT_MAX_SYSTEM_RESERVED_MEMORY_BYTES
    """
    # Object store and transfers.
    """
    OBJECT_STORE_ALLOW_SLOW_STORAGE ENABLE_MAC_LARGE_OBJECT_STORE preallocate_plasma_memory
    raylet_start_wait_time_s task_rpc_inlined_bytes_limit object_store_full_delay_ms
    plasma_store_usage_trigger_gc_threshold global_gc_min_interval_s
    local_gc_interval_s local_gc_min_interval_s max_task_args_memory_fraction
    free_objects_period_milliseconds free_objects_batch_size
    object_manager_max_bytes_in_flight object_manager_pull_timeout_ms
    object_manager_push_timeout_ms worker_core_dump_exclude_plasma_store
    raylet_core_dump_exclude_plasma_store start_python_gc_manager_thread
    ENABLE_ZERO_COPY_TORCH_TENSORS
    """
    # Spilling and disk.
    """
    verbose_spill_logs local_fs_monitor_interval_ms is_external_storage_type_fs
    """
    # References, lineage, serialization.
    """
    record_task_actor_creation_sites lineage_pinning_enabled
    MAX_APPLICATION_ERROR_LENGTH
    max_error_msg_size_bytes WARN_BLOCKING_GET_INSIDE_ASYNC
    """
    # Waiting, hangs, liveness.
    """
    fetch_warn_timeout_milliseconds fetch_fail_timeout_milliseconds object_timeout_milliseconds
    get_check_signal_interval_milliseconds object_store_get_max_ids_to_print_in_warning
    raylet_death_check_interval_milliseconds
    raylet_check_for_unexpected_worker_disconnect_interval_ms
    timeout_ms_task_wait_for_death_info health_check_initial_delay_ms
    gcs_server_request_timeout_seconds
    enable_infeasible_task_early_exit actor_scheduling_queue_max_reorder_wait_seconds
    actor_excess_queueing_warn_threshold
    """
    # Workers and their children.
    """
    worker_maximum_startup_concurrency pop_worker_max_retries prestart_worker_first_driver
    enable_worker_prestart preload_python_modules kill_idle_workers_interval_ms
    worker_cap_enabled support_fork kill_child_processes_on_worker_exit
    kill_child_processes_on_worker_exit_with_raylet_subreaper process_group_cleanup_enabled
    JEMALLOC_LIB_PATH JEMALLOC_CONF JEMALLOC_PROFILE LD_PRELOAD_ON_WORKERS
    DISABLE_FAILURE_SIGNAL_HANDLER
    """
    # Logs, events, state, metrics.
    """
    DEDUP_LOGS DEDUP_LOGS_AGG_WINDOW_S DEDUP_LOGS_ALLOW_REGEX DEDUP_LOGS_SKIP_REGEX
    COLOR_PREFIX LOG_TO_DRIVER_EVENT_LEVEL LOG_TO_STDERR LOGGER_LEVEL BACKEND_LOG_LEVEL
    BACKEND_LOG_JSON LOGGING_CONFIG_ENCODING LOG_MONITOR_MAX_OPEN_FILES
    LOG_MONITOR_NUM_LINES_TO_READ ENABLE_RECORD_ACTOR_TASK_LOGGING
    debug_dump_period_milliseconds MAX_LIMIT_FROM_API_SERVER MAX_LIMIT_FROM_DATA_SOURCE
    enable_timeline metric_cardinality_level
    enable_metrics_collection emit_event_to_log_file event_level
    testing_rpc_failure_avoid_intra_node_failures
    enable_output_error_log_if_still_retry DASHBOARD_MAX_EVENTS_TO_CACHE
    """
    # Addresses, resources, jobs, transport security.
    """
    API_SERVER_ADDRESS RUNTIME_ENV OVERRIDE_RESOURCES OVERRIDE_LABELS
    USE_MULTIPROCESSING_CPU_COUNT DISABLE_DOCKER_CPU_WARNING ENABLE_AUTO_CONNECT
    ENABLE_WINDOWS_OR_OSX_CLUSTER JOB_START_TIMEOUT_SECONDS JOB_ALLOW_DRIVER_ON_WORKER_NODES
    JOB_HEADERS USE_TLS TLS_SERVER_CERT TLS_SERVER_KEY TLS_CA_CERT
    """
)

#: Variables that are no settings: mray's processes set them, or another module reads them.
INTERNAL: Final = _names(
    """
    MRAY_AS_RAY MRAY_CONFORMANCE_ENGINE MRAY_ENGINE MRAY_JOB_ID
    MRAY_JOB_SUBMISSION_ID MRAY_NODE_ID MRAY_PROCESS_ID MRAY_SESSION_DIR
    MRAY_SUBMISSION_ID MRAY_TEST_SEED MRAY_WORKER_ID
    RAY_COMMIT RAY_JOB_ID RAY_PICKLE_VERBOSE_DEBUG RAY_USAGE_STATS_ENABLED RAY_VERSION
    """
)

#: Ray's libraries, which mray leaves alone and does not comment on.
_LIBRARIES: Final = ("DATA_", "TRAIN_", "TUNE_", "SERVE_", "RLLIB_", "AIR_", "LLM_")

#: What Kubernetes sets for a service called "ray..." or "mray...".
_SERVICE_LINK: Final = re.compile(
    r"_SERVICE_(?:HOST|PORT(?:_[A-Z0-9_]+)?)$|_PORT_[0-9]+_(?:TCP|UDP)(?:_(?:PROTO|PORT|ADDR))?$"
)


def belongs_elsewhere(name: str, value: str) -> bool:
    """Whether variable ``name`` (RAY_x or MRAY_x) is nobody's mistyped setting."""
    return (
        name in INTERNAL
        or name.partition("_")[2].startswith(_LIBRARIES)
        or _SERVICE_LINK.search(name) is not None
        or (name.endswith("_PORT") and value.startswith(("tcp://", "udp://")))
    )
