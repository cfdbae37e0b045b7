"""What is typed after options becomes values, or one line that names the option."""

from __future__ import annotations

import pytest

from mray.cli import arguments
from mray.cli.failure import WrongUsage


def test_resources_are_a_json_object_of_amounts():
    assert arguments.resources('{"license": 2, "disk": 0.5}') == {"license": 2, "disk": 0.5}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("license=2", "is not JSON"),
        ("[1]", "is no JSON object"),
        ('{"a": "2"}', "not a number"),
        ('{"a": true}', "not a number"),
        ('{"a": -1}', "negative"),
        ('{"a": 0.00001}', "finer than 0.0001"),
        ('{"a": Infinity}', "--resources"),
        ('{"CPU": 2}', "--num-cpus"),
        ('{"memory": 2}', "--memory"),
    ],
)
def test_bad_resources_are_explained(text, why):
    with pytest.raises(WrongUsage, match=why):
        arguments.resources(text)


def test_sizes_take_units_and_plain_bytes():
    assert arguments.size("2GiB", "--memory") == 2 * 2**30
    assert arguments.size("1000", "--memory") == 1000
    with pytest.raises(WrongUsage, match="--memory"):
        arguments.size("lots", "--memory")


def test_labels_come_as_pairs_or_as_json():
    assert arguments.labels("zone=a, disk=ssd") == {"zone": "a", "disk": "ssd"}
    assert arguments.labels('{"zone": "a"}') == {"zone": "a"}
    assert arguments.labels("empty=") == {"empty": ""}


@pytest.mark.parametrize(
    "text", ["zone", "zone=a,zone=b", '{"zone": 1}', "zone=a b", "-zone=a", "ray.io/zone=a"]
)
def test_bad_labels_are_refused(text):
    with pytest.raises(WrongUsage, match="--labels"):
        arguments.labels(text)


def test_filters_compare_without_case_and_ids_by_prefix():
    entry = {"state": "ALIVE", "actor_id": "abcdef0123", "pid": 12}
    for text, outcome in [
        ("state=alive", True),
        ("state!=alive", False),
        ("actor_id=abcdef", True),
        ("actor_id=abc", False),
        ("pid=12", True),
        ("pid=1", False),
    ]:
        assert arguments.matches(entry, arguments.filters([text])) is outcome


def test_all_filters_must_match():
    wanted = arguments.filters(["a=1", "b!=2"])
    assert arguments.matches({"a": 1, "b": 3}, wanted)
    assert not arguments.matches({"a": 1, "b": 2}, wanted)


@pytest.mark.parametrize("text", ["state", "=x", "a>1"])
def test_a_bad_filter_is_refused(text):
    with pytest.raises(WrongUsage, match="KEY=VALUE"):
        arguments.filters([text])


def test_a_filter_on_an_unknown_key_names_the_keys():
    with pytest.raises(WrongUsage, match="there are a, b"):
        arguments.matches({"a": 1, "b": 2}, arguments.filters(["c=1"]))


def test_runtime_env_files_are_toml_or_json(tmp_path):
    (tmp_path / "env.toml").write_text('[env_vars]\nA = "1"\n')
    (tmp_path / "env.json").write_text('{"env_vars": {"A": "1"}}')
    expected = {"env_vars": {"A": "1"}}
    assert arguments.runtime_env_file(str(tmp_path / "env.toml")) == expected
    assert arguments.runtime_env_file(str(tmp_path / "env.json")) == expected


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("env.yaml", b"a: 1"),
        ("env.toml", b"a = "),
        ("env.json", b"{"),
        ("env.json", b"[]"),
        ("env.json", b"\xff\xfe"),
    ],
)
def test_a_bad_runtime_env_file_is_refused(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(WrongUsage, match="--runtime-env"):
        arguments.runtime_env_file(str(tmp_path / name))


def test_a_missing_runtime_env_file_is_refused(tmp_path):
    with pytest.raises(WrongUsage, match="No such file"):
        arguments.runtime_env_file(str(tmp_path / "missing.json"))


@pytest.mark.parametrize(
    "env",
    [
        {"conda": "numpy"},
        {"wrong": 1},
        {"env_vars": {"A": 1}},
        {"env_vars": ["A"]},
        {"env_vars": {"A=B": "1"}},
        {"working_dir": 1},
    ],
)
def test_what_no_environment_can_have_is_refused(env):
    with pytest.raises(WrongUsage, match="--runtime-env-json"):
        arguments.checked_runtime_env(env, "--runtime-env-json")


@pytest.mark.parametrize("text", ["nightly", "a.b-c_1", "x" * 100])
def test_submission_ids_may_be_part_of_a_file_name(text):
    assert arguments.submission_id(text) == text


@pytest.mark.parametrize("text", ["", "-a", ".a", "a/b", "a b", "x" * 101, "ä"])
def test_other_submission_ids_are_refused(text):
    with pytest.raises(WrongUsage, match="--submission-id"):
        arguments.submission_id(text)
