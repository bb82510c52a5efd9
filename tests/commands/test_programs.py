"""What an installation has: three commands, which are those of the clone, and a version."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import minivit
from minivit.commands import programs

ROOT = Path(__file__).parents[2]
PARTS = ("minivit", "weights_convert", "tutorials", "train.py", "visualize.py")
PARTS += ("pyproject.toml", "README.md", "LICENSE")
SCRIPTS = ("minivit-train", "minivit-visualize", "minivit-convert")


def pip(*words: str | Path, python: Path | None = None) -> None:
    chosen = ["--python", str(python)] if python else []
    command = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        *chosen,
        *map(str, words),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this clone, built by the setuptools that is here: nothing is fetched."""
    if int(version("setuptools").partition(".")[0]) < 77:
        pytest.skip("needs setuptools 77, which pyproject.toml asks for")
    folder = tmp_path_factory.mktemp("build")
    skip = shutil.ignore_patterns("__pycache__", "*.ipynb")
    for name in PARTS:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / "source" / name, ignore=skip)
        else:
            (folder / "source").mkdir(exist_ok=True)
            shutil.copy(source, folder / "source" / name)
    pip("wheel", "--no-deps", "--no-build-isolation", "-w", folder, folder / "source")
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the wheel is installed into, as into an environment."""
    folder = tmp_path_factory.mktemp("environment")
    pip("install", "--prefix", folder, "--no-deps", "--no-index", "--ignore-installed", wheel)
    return folder


def packages_of(installed: Path) -> Path:
    """Its site-packages."""
    (site,) = installed.glob("lib/python3*/site-packages")
    return site


def call(installed: Path, name: str, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs a script where the user has a train.py and a visualize.py too, which come first."""
    for other in ("train.py", "visualize.py"):
        (cwd / other).write_text("raise SystemExit('the file of somebody else')\n")
    return subprocess.run(
        [installed / "bin" / name, *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(cwd), str(packages_of(installed))])},
    )


@pytest.mark.slow
def test_an_installation_has_three_commands(installed: Path, tmp_path: Path) -> None:
    for name in SCRIPTS:
        done = call(installed, name, "--version", cwd=tmp_path)
        assert (done.stdout, done.stderr) == (f"minivit {minivit.__version__}\n", "")
        done = call(installed, name, "--hlep", cwd=tmp_path)
        assert done.returncode == 2 and done.stderr.startswith(f"{name}")
        assert "--hlep: no such flag; did you mean --help?" in done.stderr
    done = call(installed, "minivit-train", "recipes", cwd=tmp_path)
    assert done.returncode == 0 and "fashion_mnist" in done.stdout
    done = call(installed, "minivit-visualize", "--heads", "0", "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "scene.png").is_file()


@pytest.mark.slow
def test_an_installation_brings_no_module_but_its_packages(installed: Path) -> None:
    names = {path.name for path in packages_of(installed).iterdir()}
    packages = {name for name in names if not name.endswith(".dist-info")}
    assert packages == {"minivit", "weights_convert", "tutorials"}
    share = installed / "share" / "minivit"
    for name in ("train.py", "visualize.py"):
        assert (share / name).read_bytes() == (ROOT / name).read_bytes()


def test_a_clone_runs_its_own_files(tmp_path: Path) -> None:
    assert programs.find_script("train.py") == ROOT / "train.py"
    module = programs.load(ROOT / "visualize.py")
    assert module.__file__ == str(ROOT / "visualize.py") and callable(module.main)
    (tmp_path / "share" / "minivit").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"other\.py is missing in this installation"):
        programs.find_script("other.py", tmp_path)
    (tmp_path / "share" / "minivit" / "other.py").touch()  # as by pip install --target
    assert programs.find_script("other.py", tmp_path).is_file()


def test_the_version_stands_in_one_place() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'version = { attr = "minivit.__version__" }' in text
    assert not re.search(r'^version = "', text, re.MULTILINE)
    assert re.fullmatch(r"\d+\.\d+\.\d+", minivit.__version__)


@pytest.mark.parametrize(
    "words",
    [
        ["train.py", "--version"],
        ["train.py", "evaluate", "--version"],
        ["visualize.py", "--version"],
        ["visualize.py", "score", "--version"],
        ["-m", "weights_convert", "--version"],
        ["-m", "tutorials.checks", "--version"],
    ],
)
def test_every_command_says_its_version_without_any_package(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-S", *words], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"minivit {minivit.__version__}\n"
