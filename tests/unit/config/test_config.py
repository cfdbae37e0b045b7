"""mray.config: the settings, who sets them, and what travels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mray.config import (
    KEYS,
    Config,
    ConfigError,
    Resolved,
    adopt,
    conflicts,
    describe,
    keep_environment,
    keep_own,
    load,
    load_secrets,
)
from mray.config.ray_names import UNSUPPORTED
from mray.config.registry import SECTIONS

Load = Callable[..., Resolved]


def toml(section: str, line: str) -> str:
    return f"# a comment\n[{section}]\n{line}\n"


def test_every_key_says_what_it_is_what_turning_it_does_and_where_it_holds() -> None:
    for key in KEYS.values():
        assert key.about.endswith("."), key.name
        assert key.effect.endswith("."), key.name
        assert key.scope in ("cluster", "node", "process"), key.name
        assert all(name.startswith("RAY_") for name in key.ray_names), key.name
        if key.kind in ("bytes", "duration", "integer", "number"):
            assert key.bounds_text, key.name
        if key.kind in ("bytes", "duration", "number"):
            assert "urn up" in key.effect, key.name
            assert "urn down" in key.effect, key.name
        suffix = key.name.rpartition("_")[2]
        if suffix in ("ms", "s", "bytes", "milliseconds", "seconds"):
            assert key.unit == {"milliseconds": "ms", "seconds": "s"}.get(suffix, suffix)


def test_every_default_is_within_its_own_bounds() -> None:
    for key in KEYS.values():
        assert msgspec.convert(key.default, key.accepts) == key.default


def test_a_ray_setting_is_either_supported_or_listed_as_unsupported() -> None:
    supported = {
        name.lower().removeprefix("ray_") for key in KEYS.values() for name in key.ray_names
    }
    assert not supported & {name.lower() for name in UNSUPPORTED}
    assert not set(KEYS) & {name.lower() for name in UNSUPPORTED}


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("tmpdir", "tmpdir"),
        ("node.tmpdir", "tmpdir"),
        ("RAY_TMPDIR", "tmpdir"),
        ("MRAY_tmpdir", "tmpdir"),
        ("RAY_log_rotation_max_bytes", "log_rotation_max_bytes"),
        ("MRAY_ROTATION_MAX_BYTES", "log_rotation_max_bytes"),
        ("memory_monitor_interval_ms", "memory_monitor_refresh_ms"),
    ],
)
def test_a_key_is_described_by_any_of_its_names(name: str, key: str) -> None:
    assert describe(name).name == key


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tmpdr", "there is no key 'tmpdr'; did you mean tmpdir?"),
        ("logs.tmpdir", "there is no key 'logs.tmpdir'; did you mean tmpdir?"),
        ("RAY_tmpdir", "there is no key 'RAY_tmpdir'; did you mean RAY_TMPDIR?"),
        ("zzz", "there is no key 'zzz'"),
        (
            "RAY_task_retry_delay_ms",
            "RAY_task_retry_delay_ms is a setting of Ray that this version of mray does not "
            "support",
        ),
    ],
)
def test_describing_an_unknown_key_names_the_nearest(name: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        describe(name)
    assert str(caught.value) == message


#: From strong to weak: how the niceness comes to be 1, 2, 3 ... and the source that is reported.
LAYERS: list[tuple[dict[str, Any], str]] = [
    ({"flags": {"worker_niceness": 1}}, "flag --worker-niceness"),
    ({"environ": {"MRAY_worker_niceness": "2"}}, "environment variable MRAY_worker_niceness"),
    ({"environ": {"MRAY_WORKER_NICENESS": "3"}}, "environment variable MRAY_WORKER_NICENESS"),
    ({"environ": {"RAY_worker_niceness": "4"}}, "environment variable RAY_worker_niceness"),
    ({"local": toml("workers", "worker_niceness = 5")}, "{dir}/mray.toml:3"),
    ({"user": toml("workers", "worker_niceness = 6")}, "{dir}/.mray/config.toml:3"),
    ({"system": toml("workers", "worker_niceness = 7")}, "{dir}/system.toml:3"),
    ({}, "default"),
]


@pytest.mark.parametrize("strongest", range(len(LAYERS)))
def test_the_strongest_source_wins_and_is_reported(
    load_here: Load, tmp_path: Path, strongest: int
) -> None:
    arguments: dict[str, Any] = {"environ": {}}
    for layer, _ in LAYERS[strongest:]:
        arguments["environ"] |= layer.get("environ", {})
        arguments |= {name: value for name, value in layer.items() if name != "environ"}
    setting = load_here(**arguments).settings["worker_niceness"]
    assert setting.value == (strongest + 1 if strongest < 7 else 15)
    assert str(setting.source) == LAYERS[strongest][1].format(dir=tmp_path)


def test_the_typed_config_and_the_settings_agree(load_here: Load) -> None:
    resolved = load_here({"object_store_memory": "1GiB"}, {"RAY_LOG_TO_DRIVER": "off"})
    assert resolved.config.object_store.object_store_memory == 1 << 30
    assert resolved.config.logs.log_to_driver is False
    for section in SECTIONS:
        for name, value in msgspec.structs.asdict(getattr(resolved.config, section)).items():
            assert resolved.settings[name].value == value


def test_an_explicit_file_takes_the_place_of_the_local_one(load_here: Load, tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text("[workers]\nworker_niceness = 9\n")
    resolved = load_here(
        local=toml("tasks", "task_max_retries = 8"),
        user=toml("workers", "worker_niceness = 6\nnum_workers_soft_limit = 2"),
        config_file=mine,
    )
    assert resolved.config.workers.worker_niceness == 9
    assert resolved.config.workers.num_workers_soft_limit == 2
    assert resolved.config.tasks.task_max_retries == 3
    assert resolved.files == (str(mine), str(tmp_path / ".mray/config.toml"))


def test_tmpdir_of_the_system_is_weaker_than_any_setting_of_mray(load_here: Load) -> None:
    def tmpdir(environ: dict[str, str], system: str = "") -> str:
        return str(load_here({}, environ, system=system).config.node.tmpdir)

    assert tmpdir({}) == "/tmp"
    assert tmpdir({"TMPDIR": "/a"}) == "/a"
    assert tmpdir({"TMPDIR": "/a", "RAY_TMPDIR": "/b"}) == "/b"
    assert tmpdir({"TMPDIR": "/a", "RAY_TMPDIR": "/b", "MRAY_TMPDIR": "/c"}) == "/c"
    assert tmpdir({"TMPDIR": "not/absolute", "RAY_TMPDIR": "/b"}) == "/b"
    assert tmpdir({"TMPDIR": "/a"}, toml("node", 'tmpdir = "/d"')) == "/d"


def test_an_empty_variable_and_a_flag_of_none_count_as_not_set(load_here: Load) -> None:
    resolved = load_here(
        {"worker_niceness": None}, {"RAY_ADDRESS": "", "MRAY_worker_niceness": " ", "RAY_zzz": ""}
    )
    assert {setting.source.kind for setting in resolved.settings.values()} == {"default"}
    assert resolved.warnings == ()


def test_the_environment_of_the_process_is_not_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for variable in ("RAY_worker_niceness", "MRAY_worker_niceness"):
        monkeypatch.setenv(variable, "junk")
    home = tmp_path / ".mray"
    home.mkdir()
    (home / "config.toml").write_text("junk")
    monkeypatch.setenv("HOME", str(tmp_path))
    resolved = load({}, {}, working_dir=tmp_path, system_file=tmp_path / "none")
    assert resolved.config == Config()


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("MRAY_object_store_memory", "2GiB", 2 << 30),
        ("MRAY_object_store_memory", "auto", None),
        ("RAY_max_direct_call_object_size", "1024", 1024),
        ("RAY_min_memory_free_bytes", "-1", -1),
        ("RAY_memory_monitor_refresh_ms", "0", 0),
        ("RAY_memory_monitor_refresh_ms", " 10s ", 10_000),
        ("RAY_memory_usage_threshold", ".5", 0.5),
        ("RAY_memory_usage_threshold", "1", 1.0),
        ("RAY_worker_register_timeout_seconds", "2min", 120.0),
        ("RAY_TASK_MAX_RETRIES", "-1", -1),
        ("RAY_LOG_TO_DRIVER", "1", True),
        ("RAY_LOG_TO_DRIVER", "YES", True),
        ("RAY_LOG_TO_DRIVER", "On", True),
        ("RAY_LOG_TO_DRIVER", "0", False),
        ("RAY_LOG_TO_DRIVER", "False", False),
        ("RAY_LOG_TO_DRIVER", "no", False),
        ("RAY_JOB_STOP_SIGNAL", "sigint", "SIGINT"),
        ("RAY_allow_out_of_band_object_ref_serialization", "1", "allow"),
        ("RAY_allow_out_of_band_object_ref_serialization", "0", "error"),
        ("RAY_allow_out_of_band_object_ref_serialization", "warn", "warn"),
        ("RAY_ADDRESS", "10.0.0.1:6379", "10.0.0.1:6379"),
        ("RAY_NAMESPACE", "a # b", "a # b"),
        ("RAY_TMPDIR", "~/x", "/home/me/x"),
        ("RAY_TMPDIR", "~", "/home/me"),
    ],
)
def test_texts_are_read_as_the_type_of_their_key(
    variable: str, text: str, value: object, tmp_path: Path
) -> None:
    environ = {"HOME": "/home/me", variable: text}
    resolved = load({}, environ, working_dir=tmp_path, system_file=tmp_path / "none")
    found = resolved.settings[describe(variable).name].value
    assert found == value
    assert type(found) is type(value)


def test_a_file_may_hold_sizes_durations_switches_and_paths(load_here: Load) -> None:
    text = """
        memory_monitor.memory_monitor_refresh_ms = "1.5s"
        [object_store]
        object_store_memory = "auto"
        object_store_warm_bytes = 5
        [serialization]
        allow_out_of_band_object_ref_serialization = false
        [auth]
        auth_token_path = "~/token"
    """
    resolved = load_here({"object_store_memory": None}, {"HOME": "/home/me"}, local=text)
    assert resolved.config.memory_monitor.memory_monitor_refresh_ms == 1500
    assert resolved.config.object_store.object_store_memory is None
    assert resolved.config.object_store.object_store_warm_bytes == 5
    assert resolved.config.serialization.allow_out_of_band_object_ref_serialization == "error"
    assert resolved.config.auth.auth_token_path == "/home/me/token"
    assert str(resolved.settings["memory_monitor_refresh_ms"].source).endswith("mray.toml:2")


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("object_store_memory", None, "auto"),
        ("object_store_memory", 1 << 30, "1GiB"),
        ("memory_monitor_refresh_ms", 250, "250ms"),
        ("job_stop_wait_time_s", 1.5, "1.5s"),
        ("log_to_driver", True, "true"),
        ("task_max_retries", 3, "3"),
        ("memory_usage_threshold", 0.95, "0.95"),
        ("address", "", ""),
        ("auth_token", "hunter2", "(set)"),
        ("auth_token", "", "(not set)"),
    ],
)
def test_values_are_shown_as_people_write_them(name: str, value: object, text: str) -> None:
    assert KEYS[name].show(value) == text


def test_a_secret_is_in_no_message_no_listing_and_no_repr(load_here: Load) -> None:
    resolved = load_here({}, {"RAY_AUTH_TOKEN": "hunter2"})
    assert resolved.secrets.auth_token == "hunter2"
    assert b"hunter2" not in resolved.config.to_bytes()
    assert "hunter2" not in repr(resolved)
    assert resolved.settings["auth_token"].value == "(set)"


def test_a_process_that_was_sent_its_config_reads_the_secrets_alone() -> None:
    environ = {"RAY_AUTH_TOKEN": "weak", "MRAY_AUTH_TOKEN": " hunter2\n", "RAY_TMPDIR": "junk"}
    assert load_secrets(environ).auth_token == "hunter2"
    assert load_secrets({}).auth_token == ""


def test_a_config_survives_the_wire(load_here: Load) -> None:
    config = load_here({"object_store_memory": "1GiB", "worker_niceness": 3}).config
    assert Config.from_bytes(config.to_bytes()) == config
    assert Config.from_bytes(Config().to_bytes()) == Config()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode([]),
        msgspec.msgpack.encode({"nodes": {}}),
        msgspec.msgpack.encode({"node": {"tmpdr": "/"}}),
        msgspec.msgpack.encode({"node": {"gcs_server_port": 70_000}}),
        b"\x81\xa1\xff\x01",
    ],
)
def test_junk_from_the_wire_is_a_config_error(data: bytes) -> None:
    with pytest.raises(ConfigError, match="configuration in a message cannot be used"):
        Config.from_bytes(data)


def test_local_values_of_cluster_wide_keys_conflict_only_where_set_and_different(
    load_here: Load,
) -> None:
    head = load_here({"max_direct_call_object_size": "200KiB", "health_check_period_ms": 5}).config
    local = load_here(
        {"worker_niceness": 1},
        {
            "RAY_max_direct_call_object_size": "300KiB",
            "RAY_health_check_period_ms": "5ms",
        },
    )
    assert conflicts(local, head) == [
        "max_direct_call_object_size = 300KiB (environment variable "
        "RAY_max_direct_call_object_size) is not used here: the head says 200KiB and "
        "max_direct_call_object_size is cluster-wide"
    ]
    assert conflicts(load_here(), head) == []


def test_a_joining_process_takes_cluster_wide_keys_only(load_here: Load) -> None:
    head = load_here({"max_direct_call_object_size": "200KiB", "worker_niceness": 1}).config
    mine = load_here({"max_direct_call_object_size": "300KiB", "worker_niceness": 2}).config
    joined = adopt(mine, head)
    assert joined.object_store.max_direct_call_object_size == 200 << 10
    assert joined.workers.worker_niceness == 2


def test_a_driver_keeps_what_was_set_for_single_processes() -> None:
    cluster = load({"task_max_retries": 9, "lease_idle_ms": 77, "health_check_period_ms": 500}, {})
    local = load({"task_max_retries": 4}, {"MRAY_HEALTH_CHECK_PERIOD_MS": "600"})
    kept = keep_own(cluster.config, local)
    assert kept.tasks.task_max_retries == 4
    assert kept.tasks.lease_idle_ms == 77
    assert kept == keep_own(kept, load({}, {}))
    assert keep_own(cluster.config, load({}, {})) == cluster.config


def test_a_worker_takes_single_processes_settings_from_its_environment() -> None:
    sent = load({}, {}).config
    environ = {"RAY_TASK_MAX_RETRIES": "8", "MRAY_WORKER_NICENESS": "3", "OTHER": "x"}
    kept, warnings = keep_environment(sent, environ)
    assert (kept.tasks.task_max_retries, kept.workers.worker_niceness) == (
        8, sent.workers.worker_niceness,
    )  # fmt: skip
    assert warnings == []
    assert keep_environment(sent, {"OTHER": "x"}) == (sent, [])
    with pytest.raises(ConfigError, match="RAY_TASK_MAX_RETRIES = 'many'"):
        keep_environment(sent, {"RAY_TASK_MAX_RETRIES": "many"})
