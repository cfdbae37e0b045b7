"""mray.config: what is wrong with a setting ends as one clear line, what is odd as a warning."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mray.config import KEYS, Config, ConfigError, Resolved, load
from mray.exceptions import RayError

ROTATION = ("RAY_ROTATION_MAX_BYTES", "RAY_log_rotation_max_bytes")

Load = Callable[..., Resolved]


def toml(section: str, line: str) -> str:
    return f"# a comment\n[{section}]\n{line}\n"


def test_a_comment_after_a_value_is_pointed_at(load_here: Load) -> None:
    with pytest.raises(ConfigError) as caught:
        load_here({}, {"RAY_memory_monitor_refresh_ms": "250 # ms"})
    error = caught.value
    assert str(error) == (
        "environment variable RAY_memory_monitor_refresh_ms = '250 # ms' cannot be used: "
        'expected a duration in whole ms (a number, or text such as "10s"), from 0 s to 1 d; '
        "a comment cannot follow a value here: leave out '# ms'"
    )
    assert error.name == "RAY_memory_monitor_refresh_ms"
    assert error.value == "250 # ms"
    assert error.expected.startswith("a duration in whole ms")
    assert error.source == "environment variable RAY_memory_monitor_refresh_ms"


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("RAY_memory_usage_threshold", "95%", "expected a number, from 0 to 1"),
        ("RAY_memory_usage_threshold", "1.5", "expected a number, from 0 to 1"),
        ("RAY_memory_usage_threshold", "nan", "expected a number, from 0 to 1"),
        ("RAY_memory_usage_threshold", "1e999", "expected a number, from 0 to 1"),
        ("RAY_memory_usage_threshold", "'0.9'", "the quotes are part of the value"),
        ("MRAY_object_store_memory_proportion", "0", "expected a number, above 0, at most 1"),
        ("RAY_worker_niceness", "1.0", "expected a whole number, from 0 to 19"),
        ("RAY_worker_niceness", "20", "expected a whole number, from 0 to 19"),
        ("RAY_TASK_MAX_RETRIES", "9" * 5000, "(5002 characters) cannot be used"),
        ("RAY_health_check_period_ms", "0.5ms", "a duration in whole ms"),
        ("RAY_health_check_period_ms", "9" * 400, "from 1 ms to 1 d"),
        ("RAY_health_check_period_ms", "soon", "from 1 ms to 1 d"),
        ("MRAY_object_store_memory", "1MiB", 'text such as "2GiB") or "auto", at least 75MiB'),
        ("RAY_max_direct_call_object_size", "1GiB", "from 0 to 64MiB"),
        ("RAY_min_memory_free_bytes", "-2", "at least -1"),
        ("RAY_LOG_TO_DRIVER", "maybe", "expected true or false (also 1/0, on/off, yes/no)"),
        ("RAY_JOB_STOP_SIGNAL", "SIGFOO", "expected one of SIGTERM, SIGINT, "),
        ("RAY_TMPDIR", "relative", "expected an absolute path"),
        ("RAY_TMPDIR", "~/x", '"~" stands for nothing because HOME is not set'),
        ("TMPDIR", "relative", "environment variable TMPDIR = 'relative' cannot be used"),
        ("RAY_ADDRESS", "\udcff:1", "expected text"),
    ],
)
def test_a_bad_variable_is_named_with_what_was_expected(
    variable: str, text: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        load({}, {variable: text}, working_dir=tmp_path, system_file=tmp_path / "none")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.name == variable
    assert caught.value.value == text


@pytest.mark.parametrize(
    ("flags", "options", "message"),
    [
        ({"worker_niceness": True}, {}, "flag --worker-niceness = True cannot be used: expected a"),
        ({"worker-niceness": "x"}, {}, "flag --worker-niceness = 'x' cannot be used: expected a"),
        ({"worker_niceness": 2**70}, {}, "expected a whole number, from 0 to 19"),
        ({"tmpdir": object()}, {}, "expected an absolute path"),
        ({"niceness": 3}, {}, "--niceness: there is no such setting; did you mean worker_niceness"),
        ({"address": 3}, {"flags_from": "init"}, "init(): address = 3 cannot be used: expected te"),
        ({"auth_token": "hunter2"}, {}, "--auth-token: auth_token is a secret and may not be give"),
    ],
)
def test_a_bad_flag_is_named_with_what_was_expected(
    load_here: Load, flags: dict[str, object], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_here(flags, **options)
    assert message in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[node\n", "{file} is not valid TOML: "),
        ("[node]\ntmpdir = \n", "line 2"),
        ("[node]\ntmpdir = '\udcff'\n", "{file} is not valid TOML: 'utf-8' codec can't decode"),
        ("x = " + "9" * 5000, "{file} is not valid TOML: "),
        ("x = " + "[" * 5000, "{file} is not valid TOML: "),
        (toml("nodes", "a = 1"), "{file}:2: there is no section [nodes]; did you mean node?"),
        ("tmpdir = '/x'", "{file}:1: the key tmpdir stands outside its section [node]"),
        ("node = 3", "{file}:1: node = 3 cannot be used: expected a table, [node]"),
        ("[[node]]\n", "expected a table, [node]"),
        (toml("node", "tmpdr = '/'"), "{file}:3: there is no key tmpdr in [node]; did you mean tm"),
        (toml("node", "zzz = 1"), "{file}:3: there is no key zzz in [node]"),
        (
            toml("node", "auth_mode = 1"),
            "{file}:3: the key auth_mode belongs to [auth], not to [no",
        ),
        (
            toml("tasks", "task_retry_delay_ms = 1"),
            "task_retry_delay_ms is a setting of Ray that this ve",
        ),
        (
            toml("auth", "auth_token = 'hunter2'"),
            "{file}:3: auth_token is a secret and may not sta",
        ),
        (toml("node", "tmpdir = 3"), "{file}:3: tmpdir = 3 cannot be used: expected an absolute p"),
        (toml("node", "gcs_server_port = '1'"), "{file}:3: gcs_server_port = '1' cannot be used"),
        (toml("node", "gcs_server_port = 1.0"), "expected a whole number, from 0 to 65535"),
        (toml("node", "gcs_server_port = [1]"), "expected a whole number, from 0 to 65535"),
        (toml("logs", "log_to_driver = 1"), "{file}:3: log_to_driver = 1 cannot be used: expected"),
        (
            toml("logs", "log_to_driver = 'on'"),
            "log_to_driver = 'on' cannot be used: expected true",
        ),
        (toml("logs", "log_to_driver = 2026-01-01"), "expected true or false"),
        (toml("memory_monitor", "memory_usage_threshold = nan"), "expected a number, from 0 to 1"),
    ],
)
def test_a_bad_file_is_named_with_line_and_key(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "my.toml"
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ConfigError) as caught:
        load({}, {}, config_file=file, system_file=tmp_path / "none")
    assert message.format(file=file) in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_bad_value_is_an_error_even_where_a_stronger_source_hides_it(load_here: Load) -> None:
    with pytest.raises(ConfigError, match=r"system\.toml:3: worker_niceness = 99"):
        load_here({"worker_niceness": 1}, system=toml("workers", "worker_niceness = 99"))


def test_an_explicit_file_must_be_readable_and_others_need_not_exist(tmp_path: Path) -> None:
    load({}, {"HOME": str(tmp_path)}, working_dir=tmp_path, system_file=tmp_path / "none")
    with pytest.raises(ConfigError, match=r"gone\.toml cannot be read: No such file"):
        load({}, {}, config_file=tmp_path / "gone.toml")


def test_a_file_that_nobody_named_and_nobody_can_read_is_left_out_with_a_warning(
    tmp_path: Path,
) -> None:
    (tmp_path / "mray.toml").mkdir()
    resolved = load({}, {}, working_dir=tmp_path, system_file=tmp_path / "none")
    assert resolved.warnings == (
        f"{tmp_path}/mray.toml cannot be read and is left out: Is a directory",
    )
    assert resolved.files == ()


@given(
    st.sampled_from([name for key in KEYS.values() for name in (key.mray_name, *key.ray_names)]),
    st.text(alphabet=st.characters(exclude_characters="\0")),
)
def test_no_text_in_a_variable_raises_anything_but_a_config_error(name: str, text: str) -> None:
    try:
        config = load({}, {name: text}, working_dir="/nowhere", system_file="/nowhere").config
    except ConfigError:
        return
    assert Config.from_bytes(config.to_bytes()) == config


def test_errors_keep_their_facts_when_pickled() -> None:
    error = ConfigError("m", name="n", value="v", expected="e", source="s")
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, RayError)
    assert isinstance(copy, ValueError)
    assert (str(copy), copy.name, copy.value) == ("m", "n", "v")
    assert (copy.expected, copy.source) == ("e", "s")


@pytest.mark.parametrize(
    ("environ", "warnings"),
    [
        (
            {"RAY_memory_usage_treshold": "1"},
            ["RAY_memory_usage_treshold is no setting and has no effect; did you mean "
             "RAY_memory_usage_threshold?"],
        ),
        (
            {"RAY_MEMORY_USAGE_THRESHOLD": "1"},
            ["RAY_MEMORY_USAGE_THRESHOLD is no setting and has no effect; did you mean "
             "RAY_memory_usage_threshold?"],
        ),
        (
            {"MRAY_taks_max_retries": "1"},
            ["MRAY_taks_max_retries is no setting and has no effect; did you mean "
             "MRAY_TASK_MAX_RETRIES?"],
        ),
        ({"RAY_qqqq": "1"}, ["RAY_qqqq is no setting and has no effect"]),
        (
            {"RAY_task_retry_delay_ms": "1", "MRAY_DEDUP_LOGS": "0"},
            ["MRAY_DEDUP_LOGS: known Ray setting, not supported by this version of mray; it has "
             "no effect",
             "RAY_task_retry_delay_ms: known Ray setting, not supported by this version of mray; "
             "it has no effect"],
        ),
        (
            {"RAY_memory_monitor_interval_ms": "100"},
            ["RAY_memory_monitor_interval_ms is a former name, taken as "
             "memory_monitor_refresh_ms: use the new one"],
        ),
        (
            {"RAY_memory_usage_threshold": "0.8", "MRAY_memory_usage_threshold": "0.9"},
            ["MRAY_memory_usage_threshold and RAY_memory_usage_threshold differ: "
             "MRAY_memory_usage_threshold = 0.9 wins over 0.8"],
        ),
        ({"RAY_memory_usage_threshold": "0.9", "MRAY_memory_usage_threshold": "0.90"}, []),
        (
            {ROTATION[0]: "1MiB", ROTATION[1]: "2MiB"},
            [f"{ROTATION[0]} and {ROTATION[1]} differ: {ROTATION[0]} = 1MiB wins over 2MiB"],
        ),
        ({"MRAY_AS_RAY": "1", "MRAY_JOB_ID": "01", "MRAY_ENGINE": "ray", "RAY_JOB_ID": "1"}, []),
        ({"RAY_SERVE_QUEUE": "1", "RAY_DATA_X": "1", "RAYON_NUM_THREADS": "1"}, []),
        (
            {
                "MRAY_HEAD_SERVICE_HOST": "10.0.0.1",
                "MRAY_HEAD_SERVICE_PORT_GCS": "6379",
                "MRAY_HEAD_PORT": "tcp://10.0.0.1:6379",
                "RAY_HEAD_PORT_6379_TCP_ADDR": "10.0.0.1",
            },
            [],
        ),
    ],
)  # fmt: skip
def test_odd_variables_warn_and_foreign_ones_do_not(
    load_here: Load, environ: dict[str, str], warnings: list[str]
) -> None:
    assert list(load_here({}, environ).warnings) == warnings


def test_a_former_name_works_and_yields_to_the_present_one(load_here: Load) -> None:
    old, new = "memory_usage_threshold_fraction", "memory_usage_threshold"
    assert load_here({}, {f"RAY_{old}": "0.7"}).settings[new].value == 0.7
    assert load_here({}, {f"RAY_{old}": "0.7", f"RAY_{new}": "0.8"}).settings[new].value == 0.8
    assert load_here({old: 0.7, new: 0.8}).settings[new].value == 0.8
    both = load_here(local=toml("memory_monitor", f"{old} = 0.7\n{new} = 0.8"))
    assert both.settings[new].value == 0.8
    assert len(both.warnings) == 2


def test_a_flag_for_an_unsupported_setting_of_ray_warns(load_here: Load) -> None:
    resolved = load_here({"task_retry_delay_ms": 1}, flags_from="init")
    assert resolved.warnings == (
        "init(): task_retry_delay_ms: known Ray setting, not supported by this version of mray; "
        "it has no effect",
    )
