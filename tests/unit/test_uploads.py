"""What is sent to the head for an environment, and what stands in its place."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import cloudpickle
import pytest

from mray import packages, uploads
from mray.exceptions import RuntimeEnvSetupError
from mray.uploads import Uploads
from mray.wire.messages import Message, PackageState, PutPackage, Refused


class Head:
    """Takes packages; counts questions."""

    def __init__(self) -> None:
        self.whole: dict[str, bytes] = {}
        self.part = b""
        self.asked: list[PutPackage] = []
        self.refuses = ""

    def ask(self, make: Callable[[int], Message]) -> Message:
        message = make(7)
        assert isinstance(message, PutPackage)
        self.asked.append(message)
        if self.refuses:
            return Refused(7, "OSError", self.refuses)
        if message.data:
            self.part = self.part[: message.offset] + message.data
            if len(self.part) == message.total_bytes:
                self.whole[message.name] = self.part
        return PackageState(7, len(self.part), complete=message.name in self.whole)

    def files(self, uri: str) -> list[str]:
        data = self.whole[packages.file_of(uri)]
        return zipfile.ZipFile(io.BytesIO(data)).namelist()


@pytest.fixture
def head() -> Head:
    return Head()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    top = tmp_path / "project"
    top.mkdir()
    (top / "a.py").write_text("a")
    (top / "b.txt").write_text("b")
    return top


def test_what_is_not_local_is_left_alone(head: Head) -> None:
    env = {"env_vars": {"A": "1"}, "pip": {"packages": ["x"]}, "worker_process_setup_hook": "a.b"}
    assert Uploads().resolve(env, head.ask) == env
    assert not head.asked


def test_a_directory_becomes_a_package_without_what_is_excluded(head: Head, project: Path) -> None:
    env = {"working_dir": str(project), "excludes": ["*.txt"]}
    found = Uploads().resolve(env, head.ask)
    assert head.files(found["working_dir"]) == ["a.py"]
    assert set(found) == {"working_dir"}
    assert Uploads().resolve({"working_dir": found["working_dir"]}, head.ask) == found


def test_modules_keep_their_names(head: Head, project: Path) -> None:
    modules = [str(project), str(project / "a.py")]
    package, single = Uploads().resolve({"py_modules": modules}, head.ask)["py_modules"]
    assert head.files(package) == ["project/", "project/a.py", "project/b.txt"]
    assert head.files(single) == ["a.py"]


def test_what_is_there_is_not_sent_again(head: Head, project: Path) -> None:
    mine = Uploads()
    first = mine.resolve({"working_dir": str(project)}, head.ask)
    count = len(head.asked)
    assert mine.resolve({"working_dir": str(project)}, head.ask) == first
    assert len(head.asked) == count
    assert Uploads().resolve({"working_dir": str(project)}, head.ask) == first
    assert [message.data for message in head.asked[count:]] == [b""]
    (project / "c").touch()
    assert mine.resolve({"working_dir": str(project)}, head.ask) != first


def test_big_ones_go_in_pieces(
    head: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "PIECE_BYTES", 100)
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        archive.writestr("x", bytes(250))
    found = Uploads().resolve({"working_dir": str(tmp_path / "p.zip")}, head.ask)
    assert len([message for message in head.asked if message.data]) == 4
    assert head.whole[packages.file_of(found["working_dir"])] == (tmp_path / "p.zip").read_bytes()


def test_a_wheel_keeps_its_name(head: Head, tmp_path: Path) -> None:
    path = tmp_path / "x-1.0-py3-none-any.whl"
    path.write_bytes(b"data")
    (uri,) = Uploads().resolve({"py_modules": [str(path)]}, head.ask)["py_modules"]
    assert uri.endswith(".x-1.0-py3-none-any.whl")


def test_a_hook_is_sent_as_it_is(head: Head) -> None:
    uri = Uploads().resolve({"worker_process_setup_hook": lambda: 41 + 1}, head.ask)
    data = head.whole[packages.file_of(uri["worker_process_setup_hook"])]
    assert cloudpickle.loads(data)() == 42


def test_what_cannot_be_sent_is_refused_by_name(head: Head, tmp_path: Path) -> None:
    (tmp_path / "x.tar").touch()
    (tmp_path / "empty.zip").touch()
    for env in (
        {"working_dir": str(tmp_path / "gone")}, {"working_dir": str(tmp_path / "x.tar")},
        {"working_dir": str(tmp_path / "empty.zip")}, {"py_modules": [str(tmp_path / "x.tar")]},
    ):  # fmt: skip
        with pytest.raises(ValueError, match=str(tmp_path)):
            Uploads().resolve(env, head.ask)


def test_a_head_that_refuses_is_quoted(head: Head, project: Path) -> None:
    head.refuses = "no space left"
    with pytest.raises(RuntimeEnvSetupError, match="no space left"):
        Uploads().resolve({"working_dir": str(project)}, head.ask)
