"""`import ray` gives mray's own module objects, and nothing that is not Ray Core."""

from __future__ import annotations

import importlib
import importlib.util
import sys

import pytest
from packaging.version import Version

from mray import compat
from mray.version import VERSION


@pytest.fixture
def aliased(monkeypatch):
    """The alias on, and everything as before afterwards."""
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    before = set(sys.modules)
    compat.install(force=True)
    yield
    for name in set(sys.modules) - before:
        if name.partition(".")[0] == "ray":
            del sys.modules[name]


@pytest.mark.usefixtures("aliased")
def test_modules_are_the_same_objects_under_both_names():
    import ray
    import ray.units

    import mray
    import mray.units

    assert ray is mray
    assert ray.units is mray.units
    assert importlib.import_module("ray.config.load") is importlib.import_module("mray.config.load")


@pytest.mark.usefixtures("aliased")
def test_a_module_first_imported_as_ray_keeps_its_own_name_and_spec():
    sys.modules.pop("mray.wire.codec", None)
    codec = importlib.import_module("ray.wire.codec")
    assert codec is sys.modules["mray.wire.codec"]
    assert codec.__name__ == "mray.wire.codec"
    assert codec.__spec__.name == "mray.wire.codec"
    assert codec.__spec__.loader is codec.__loader__


@pytest.mark.usefixtures("aliased")
def test_a_missing_module_is_missing_under_both_names():
    with pytest.raises(ModuleNotFoundError, match=r"ray\.no_such_module"):
        importlib.import_module("ray.no_such_module")
    assert importlib.util.find_spec("ray.no_such_module") is None


@pytest.mark.usefixtures("aliased")
def test_find_spec_sees_ray_without_importing():
    assert importlib.util.find_spec("ray") is not None
    assert importlib.util.find_spec("ray.config") is not None


@pytest.mark.usefixtures("aliased")
def test_what_libraries_import_of_ray_data_refuses_when_it_is_called():
    from ray.data import from_pandas_refs

    with pytest.raises(NotImplementedError, match=r"ray\.data\.from_pandas_refs\(\)"):
        from_pandas_refs([])
    with pytest.raises(ModuleNotFoundError, match=r"there is no ray\.data\.Dataset"):
        from ray.data import Dataset  # noqa: F401


@pytest.mark.usefixtures("aliased")
def test_parts_that_libraries_name_are_attributes():
    import ray

    assert ray._raylet.ObjectRef is ray.ObjectRef
    assert ray._private.__name__ == "mray._private"


@pytest.mark.parametrize("part", ["data", "train", "tune", "serve", "rllib", "air", "workflow"])
@pytest.mark.usefixtures("aliased")
def test_what_is_beyond_ray_core_says_so(part):
    with pytest.raises(ModuleNotFoundError, match="mray provides Ray Core only") as raised:
        importlib.import_module(f"ray.{part}.something")
    assert raised.value.name == f"ray.{part}"


@pytest.mark.usefixtures("aliased")
def test_the_version_is_comparable_with_rays_and_names_mray():
    import ray

    assert ray.__version__ == f"2.60.0.post0+mray{VERSION}"
    assert tuple(int(part) for part in ray.__version__.split(".")[:3]) == (2, 60, 0)
    assert Version("2.60.0") <= Version(ray.__version__) < Version("2.60.1")


@pytest.mark.usefixtures("aliased")
def test_installing_twice_changes_nothing():
    before = list(sys.meta_path)
    compat.install()
    assert sys.meta_path == before
    assert compat.installed()


def test_an_installed_ray_is_not_shadowed_unless_forced(tmp_path, monkeypatch):
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    assert compat.real_ray() == str(tmp_path / "ray" / "__init__.py")
    with pytest.raises(ImportError, match="not shadowed unasked") as raised:
        compat.install()
    assert raised.value.path == str(tmp_path / "ray" / "__init__.py")
    assert not compat.installed()


def test_a_folder_that_is_called_ray_is_no_ray(tmp_path, monkeypatch):
    (tmp_path / "ray").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert compat.real_ray() is None


def test_a_ray_that_is_imported_already_cannot_be_aliased(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", sys)
    with pytest.raises(ImportError, match="imported already"):
        compat.install(force=True)


@pytest.mark.parametrize(
    ("text", "answer"), [("1", True), ("on", True), ("0", False), ("No", False), ("", None)]
)
def test_the_switch_reads_usual_words(text, answer):
    assert compat.forced({"MRAY_AS_RAY": text}) is answer


def test_the_switch_refuses_junk():
    with pytest.raises(ValueError, match="expected 1 or 0"):
        compat.forced({"MRAY_AS_RAY": "perhaps"})
