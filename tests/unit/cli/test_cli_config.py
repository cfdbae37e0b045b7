"""`mray config`: values, sources, explanations, and a check that fails on errors."""

from __future__ import annotations

import json

import pytest

from mray.config import KEYS


def test_list_shows_every_key_with_its_source(mray, monkeypatch):
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.8")
    outcome = mray("config", "list", "--json")
    entries = {entry["name"]: entry for entry in json.loads(outcome.out)}
    assert set(entries) == set(KEYS)
    threshold = entries["memory_usage_threshold"]
    assert threshold["value"] == 0.8
    assert threshold["source"] == "environment variable RAY_memory_usage_threshold"
    assert entries["log_to_driver"]["source_kind"] == "default"


def test_list_can_be_narrowed_to_what_is_set(mray, home):
    (home / "mray.toml").write_text("[logs]\nlog_to_driver = false\n")
    outcome = mray("config", "list", "--changed", "--section", "logs")
    assert outcome.out.splitlines()[1].split() == [
        "logs.log_to_driver", "false", f"{home}/mray.toml:2"
    ]  # fmt: skip
    assert mray("config", "list", "--changed", "--section", "jobs").out == (
        "every setting is at its default\n"
    )


def test_list_refuses_an_unknown_section(mray):
    outcome = mray("config", "list", "--section", "nope")
    assert outcome.code == 2
    assert "there is no section 'nope'" in outcome.err


@pytest.mark.parametrize(
    "name",
    [
        "memory_usage_threshold",
        "memory_monitor.memory_usage_threshold",
        "MRAY_memory_usage_threshold",
        "RAY_memory_usage_threshold",
    ],
)
def test_get_finds_a_key_by_any_of_its_names(mray, name):
    assert mray("config", "get", name) == (0, "0.95\n", "")


def test_get_of_an_unknown_key_names_the_nearest(mray):
    outcome = mray("config", "get", "memory_usage_treshold")
    assert outcome.code == 1
    assert "did you mean memory_usage_threshold?" in outcome.err


def test_explain_says_meaning_bounds_names_and_source(mray, monkeypatch):
    monkeypatch.setenv("MRAY_LOG_ROTATION_MAX_BYTES", "1MiB")
    text = mray("config", "explain", "log_rotation_max_bytes").out
    for part in (
        "logs.log_rotation_max_bytes",
        "environment variable MRAY_LOG_ROTATION_MAX_BYTES",
        "64MiB",
        "RAY_ROTATION_MAX_BYTES",
        "each node has its own",
    ):
        assert part in text
    facts = json.loads(mray("config", "explain", "log_rotation_max_bytes", "--json").out)
    assert facts["value"] == 2**20
    assert facts["default"] == 64 * 2**20


def test_a_secret_is_never_shown(mray, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "s" * 40)
    for words in (["list"], ["list", "--json"], ["get", "auth_token"], ["explain", "auth_token"]):
        outcome = mray("config", *words)
        assert "s" * 40 not in outcome.out + outcome.err
    assert mray("config", "get", "auth_token").out == "(set)\n"


def test_check_passes_with_warnings_and_fails_on_errors(mray, home, monkeypatch):
    monkeypatch.setenv("MRAY_LOG_TO_DRIVR", "1")
    outcome = mray("config", "check")
    assert outcome.code == 0
    assert "did you mean MRAY_LOG_TO_DRIVER?" in outcome.err
    (home / "mray.toml").write_text("[logs]\nlog_to_drivr = false\n")
    outcome = mray("config", "check")
    assert (outcome.code, len(outcome.err_lines)) == (1, 1)
    assert f"{home}/mray.toml:2" in outcome.err
    report = json.loads(mray("config", "check", "--json").out)
    assert report["ok"] is False
    assert report["error"]["name"] == "log_to_drivr"


def test_a_comment_inside_a_value_is_one_clear_line(mray, monkeypatch):
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "250 # ms")
    for words in (["config", "check"], ["start", "--head"], ["status"]):
        outcome = mray(*words)
        assert (outcome.code, len(outcome.err_lines)) == (1, 1)
        assert "RAY_memory_monitor_refresh_ms" in outcome.err
        assert "leave out '# ms'" in outcome.err


def test_path_shows_which_files_count(mray, home):
    (home / "mray.toml").write_text("")
    entries = json.loads(mray("config", "path", "--json").out)
    assert entries[0]["read"]
    assert entries[0]["path"] == f"{home}/mray.toml"
    assert not entries[1]["read"]
    assert mray("config", "path").out.startswith("read       ")


def test_a_config_file_that_is_missing_is_an_error(mray):
    outcome = mray("config", "list", "--config", "missing.toml")
    assert (outcome.code, len(outcome.err_lines)) == (1, 1)
    assert "missing.toml" in outcome.err
