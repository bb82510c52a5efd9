"""Without torch, or without any package, every command answers in one sentence."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

from minivit.commands.terminal import run

ROOT = Path(__file__).parents[2]
ADVICE = (
    f" is not installed for {sys.executable}: run `source .venv/bin/activate` in the clone where "
    "make demo or make test has made .venv, or `pip install .` in an environment of your own\n"
)


@pytest.mark.parametrize(
    "words",
    [
        "train.py",
        "train.py caption",
        "train.py evaluate --weights scenes",
        "train.py preview --data tutorials/photos --weights scenes",
        "train.py sweep --vary lr=1,2",
        "visualize.py",
        "visualize.py tutorials/photos/cat.jpg",
        "visualize.py caption",
        "visualize.py explore tutorials/photos",
        "visualize.py score",
        "-m weights_convert README.md",
        "-m tutorials.checks",
    ],
)
def test_a_python_without_any_package_is_told_what_to_do(words: str, tmp_path: Path) -> None:
    """As `python` is before the environment is entered: -S leaves out what is installed."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-S", *words.split()],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: the package ") and done.stderr.endswith(ADVICE)
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("module", "package"), [("torch", "torch"), ("PIL", "pillow")])
def test_the_package_is_named_as_pip_knows_it(
    module: str, package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(_: argparse.Namespace) -> None:
        __import__(module)

    monkeypatch.setitem(sys.modules, module, None)
    assert run(command, argparse.Namespace(debug=False)) == 2
    assert capsys.readouterr().err == f"error: the package {package}{ADVICE}"
    with pytest.raises(ModuleNotFoundError):
        run(command, argparse.Namespace(debug=True))


def test_a_module_of_ours_that_is_missing_is_a_mistake_of_the_program() -> None:
    def command(_: argparse.Namespace) -> None:
        __import__("minivit.no_such_module")

    with pytest.raises(ModuleNotFoundError):
        run(command, argparse.Namespace(debug=False))
