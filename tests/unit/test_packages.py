"""Packages of runtime environments: what goes in, how they are called, what is not unpacked."""

from __future__ import annotations

import os
import stat
import zipfile
from pathlib import Path

import pytest

from mray import packages
from mray.packages import digest_of, file_of, items_of, unpack_zip, uri_of, write_zip


@pytest.fixture
def project(tmp_path: Path) -> Path:
    top = tmp_path / "project"
    for name in ("a.py", "data/b.txt", "data/deep/c.log", "left/d.txt", ".git/e", "venv/f",
                 "data/__pycache__/g.pyc"):  # fmt: skip
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(name)
    (top / "empty").mkdir()
    return top


def names(top: Path, *excludes: str) -> list[str]:
    return [item.name for item in items_of(str(top), excludes)]


def test_a_package_has_all_but_what_nobody_sends(project: Path) -> None:
    assert names(project) == [
        "a.py", "data/", "data/b.txt", "data/deep/", "data/deep/c.log", "empty/", "left/",
        "left/d.txt",
    ]  # fmt: skip


def test_excludes_are_patterns_of_gitignore(project: Path) -> None:
    assert names(project, "left", "*.log", "/data/b.txt") == [
        "a.py", "data/", "data/deep/", "empty/",
    ]  # fmt: skip
    assert "data/b.txt" in names(project, "b.txt/", "*.txt", "!b.txt")
    assert "left/d.txt" not in names(project, "*.txt", "!b.txt")


@pytest.mark.parametrize("ignore_file", [".gitignore", ".rayignore"])
def test_ignore_files_hold_below_their_directory(project: Path, ignore_file: str) -> None:
    (project / "data" / ignore_file).write_text("*.log\n/b.txt\n")
    (project / "top.log").touch()
    found = names(project)
    assert "top.log" in found
    assert not {"data/b.txt", "data/deep/c.log"} & set(found)


def test_links_are_followed_but_not_in_circles(project: Path) -> None:
    (project / "linked").symlink_to(project / "left")
    (project / "left" / "up").symlink_to(project)
    (project / "nowhere").symlink_to(project / "gone")
    found = names(project)
    assert "linked/d.txt" in found
    assert not [name for name in found if "up" in name or "nowhere" in name]


def test_the_name_says_the_content_alone(project: Path, tmp_path: Path) -> None:
    first = digest_of(items_of(str(project)))
    os.utime(project / "a.py", (1, 1))
    assert digest_of(items_of(str(project))) == first
    moved = tmp_path / "elsewhere"
    project.rename(moved)
    assert digest_of(items_of(str(moved))) == first
    (moved / "a.py").chmod(0o755)
    second = digest_of(items_of(str(moved)))
    (moved / "a.py").write_text("else")
    assert len({first, second, digest_of(items_of(str(moved)))}) == 3


def test_a_package_comes_out_as_it_went_in(project: Path, tmp_path: Path) -> None:
    (project / "a.py").chmod(0o755)
    write_zip(items_of(str(project), ["left"], "inner/"), str(tmp_path / "p.zip"))
    assert stat.S_IMODE((tmp_path / "p.zip").stat().st_mode) == 0o600
    target = tmp_path / "out"
    assert unpack_zip(str(tmp_path / "p.zip"), str(target)) == 29
    assert (target / "inner/data/deep/c.log").read_text() == "data/deep/c.log"
    assert (target / "inner/empty").is_dir()
    assert not (target / "inner/left").exists()
    assert stat.S_IMODE(target.stat().st_mode) == 0o700
    assert stat.S_IMODE((target / "inner/a.py").stat().st_mode) == 0o700
    assert stat.S_IMODE((target / "inner/data/b.txt").stat().st_mode) == 0o600


def test_big_files_are_warned_of(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(packages, "FILE_BYTES_WARNING", 12)
    write_zip(items_of(str(project)), str(tmp_path / "p.zip"))
    assert "c.log" in caplog.text
    assert "a.py" not in caplog.text


def test_too_much_is_refused_before_and_after_packing(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "UNPACKED_BYTES_MAX", 20)
    with pytest.raises(ValueError, match="excludes"):
        items_of(str(project))
    few = items_of(str(project), ["data", "left"])
    monkeypatch.setattr(packages, "PACKAGE_BYTES_MAX", 20)
    with pytest.raises(ValueError, match="excludes"):
        write_zip(few, str(tmp_path / "p.zip"))


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil", "C:evil", "a\\evil"])
def test_what_leads_out_of_a_zip_is_refused(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr("fine", "x")
        archive.writestr(name, "x")
    with pytest.raises(ValueError, match="not unpacked"):
        unpack_zip(str(tmp_path / "evil.zip"), str(tmp_path / "inner" / "out"))
    assert not (tmp_path / "inner").exists()


def test_links_in_zips_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr(link, "/etc")
    with pytest.raises(ValueError, match="no file or directory"):
        unpack_zip(str(tmp_path / "evil.zip"), str(tmp_path / "out"))


def test_a_zip_that_grows_beyond_the_limit_or_is_none_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(100_000))
    with pytest.raises(ValueError, match="more than"):
        unpack_zip(str(tmp_path / "bomb.zip"), str(tmp_path / "one"), 50_000)
    (tmp_path / "none.zip").write_text("no zip")
    with pytest.raises(ValueError, match="no zip file"):
        unpack_zip(str(tmp_path / "none.zip"), str(tmp_path / "two"))


def test_only_names_of_packages_are_files() -> None:
    assert file_of(uri_of("ab12")) == "_ray_pkg_ab12.zip"
    assert file_of(uri_of("ab12", "x-1-py3-none-any.whl")) == "_ray_pkg_ab12.x-1-py3-none-any.whl"
    for uri in (
        "gcs://x.zip", "s3://_ray_pkg_a.zip", "gcs://_ray_pkg_../a.zip", "gcs://_ray_pkg_a.zip/..",
        "gcs://_ray_pkg_a.b/c.whl", "gcs://_ray_pkg_.zip",
    ):  # fmt: skip
        with pytest.raises(ValueError, match="names no package"):
            file_of(uri)
