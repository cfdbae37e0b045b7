"""Options of Ray's command line that this version of mray does not have: refused, with the reason.

Only for the text of the refusal; that an option is unknown, typer finds.
"""

from __future__ import annotations

from typing import Final

#: Command -> option -> what to do instead; "" where there is nothing to do but leave it out.
_MISSING: Final[dict[str, dict[str, str]]] = {
    "mray start": {
        "--include-dashboard": "there is no dashboard: `mray status`, `mray list` and `mray logs`",
        "--dashboard-host": "there is no dashboard: `mray status`, `mray list` and `mray logs`",
        "--dashboard-port": "there is no dashboard: `mray status`, `mray list` and `mray logs`",
        "--dashboard-agent-listen-port": "there is no dashboard",
        "--dashboard-agent-grpc-port": "there is no dashboard",
        "--dashboard-grpc-port": "there is no dashboard",
        "--disable-usage-stats": "mray never reports usage: leave it out",
        "--plasma-directory": "the store is always in /dev/shm",
        "--system-config": "use --config FILE, MRAY_x or RAY_x; see `mray config list`",
        "--node-name": "nodes go by id and IP address; --labels can tell them apart",
        "--worker-port-list": "use --min-worker-port and --max-worker-port",
        "--ray-client-server-port": "there is no Ray Client: run the driver on a node",
        "--redis-password": "there is no Redis",
        "--redis-username": "there is no Redis",
        "--redis-shard-ports": "there is no Redis",
        "--gcs-server-port": "use --port",
        "--labels-file": "use --labels",
        "--enable-resource-isolation": "cgroups are left alone",
        "--system-reserved-cpu": "cgroups are left alone",
        "--system-reserved-memory": "cgroups are left alone",
        "--cgroup-path": "cgroups are left alone",
        "--log-style": "",
        "--log-color": "",
        "--no-redirect-output": "output goes to the session's logs; `mray logs` shows it",
        "--include-log-monitor": "log_to_driver (`mray config explain log_to_driver`)",
        "--autoscaling-config": "there is no autoscaler",
        "--no-monitor": "there is no autoscaler",
        "--node-manager-port": "",
        "--object-manager-port": "",
        "--runtime-env-agent-port": "",
        "--plasma-store-socket-name": "",
        "--raylet-socket-name": "",
        "--ray-debugger-external": "",
        "--tracing-startup-hook": "",
        "--enable-object-reconstruction": "",
    },
    "mray submit": {
        "--start": "this is Ray's `ray job submit`, not its cluster launcher",
        "--stop": "this is Ray's `ray job submit`, not its cluster launcher",
        "--screen": "this is Ray's `ray job submit`, not its cluster launcher",
        "--tmux": "this is Ray's `ray job submit`, not its cluster launcher",
        "--entrypoint-num-cpus": "drivers need no resources",
        "--entrypoint-num-gpus": "drivers need no resources",
        "--entrypoint-memory": "drivers need no resources",
        "--entrypoint-resources": "drivers need no resources",
        "--headers": "jobs are not submitted over HTTP",
        "--verify": "jobs are not submitted over HTTP",
    },
    "mray memory": {
        "--no-format": "lines fit 80 columns or COLUMNS; --json cuts nothing",
        "--redis_password": "there is no Redis",
        "--redis-password": "there is no Redis",
    },
    "mray logs": {
        "--encoding": "logs are printed byte for byte",
        "--encoding-errors": "logs are printed byte for byte",
        "--attempt-number": "task logs cannot be told apart yet",
    },
}
_MISSING["mray job submit"] = _MISSING["mray submit"]


def refusal(command_path: str, option: str) -> str:
    """Why a known option of Ray is refused, without its end mark; "" where it is not one."""
    instead = _MISSING.get(command_path, {}).get(option)
    if instead is None:
        return ""
    reason = f": {instead}" if instead else ""
    return f"{option} is an option of Ray that this version of mray does not have{reason}"
