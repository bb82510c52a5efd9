"""Runs that an earlier train.py left half finished go on with today's code.

tests/references/make_old_runs.py made them.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

import minivit
import train
from minivit.training.caption import plan as caption_plan
from minivit.training.classify import plan as classify_plan
from minivit.training.recipe_toml import read_recipe
from tests.training.photo_runs import ROOT

REFERENCES = ROOT / "tests" / "references"
EPOCHS = {"classify": 4, "caption": 3}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the runs, in the folder to which the paths of their recipes are relative."""
    for task in EPOCHS:
        shutil.copytree(REFERENCES / f"old_run_{task}", tmp_path / f"old_run_{task}")
    for module in (classify_plan, caption_plan):  # they only measure: the weights stay the same
        monkeypatch.setattr(module, "NUM_HELD_OUT", 40)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("task", EPOCHS)
def test_an_old_run_is_resumed_to_the_weights_that_the_old_code_reached(
    task: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the recipe that it was begun with, whose keys have names of before."""
    run = place / f"old_run_{task}"
    recipe = place / f"{task}.toml"
    shutil.copyfile(run / "recipe.toml", recipe)
    assert {"warmup", "clip", "ema", "train"} <= set(read_recipe(str(recipe)))
    words = [task, "--recipe", str(recipe), "--out", str(run)]
    assert train.main([*words, "--resume", "--set", "warmup=0.5"]) == 2
    assert "warmup_share was " in capsys.readouterr().err
    assert train.main([*words, "--resume"]) == 0
    printed, errors = capsys.readouterr()
    assert "resumed after step " in printed
    assert printed.count("it cannot tell whether the data changed") == 1
    assert f"warning: {recipe}: warmup is called warmup_share now\n" in errors
    assert len((run / "metrics.csv").read_text().splitlines()) == 1 + EPOCHS[task]
    expected = minivit.load_model(run / "finished.safetensors").state_dict()
    before = torch.load(REFERENCES / run.name / "state.pt", weights_only=True)["average"]
    found = minivit.load_model(run / "last.safetensors").state_dict()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-6)
    assert any((before[name] - value).abs().max() > 1e-4 for name, value in expected.items())
