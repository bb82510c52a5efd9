"""Several runs side by side, the flags of train.py, and the curves for TensorBoard."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import minivit
import train
from minivit.commands.train_flags import make_parser
from minivit.training.recipes import ClassifyRecipe, make_recipe
from minivit.training.run_folder import RunFolder
from minivit.training.sweep import Outcome, comparison_table, read_metrics, read_outcome
from minivit.training.task import Epoch
from minivit.training.tensorboard import Events
from tests.training.photo_runs import ROOT


def epoch(number: int, accuracy: float, val_loss: float = 1.0, **more: float) -> Epoch:
    values = {"lr": 0.1, "train_loss": 2.0, "seconds": 60.0 * number} | more
    return Epoch(epoch=number, val_loss=val_loss, val_accuracy=accuracy, **values)


# ---- figures of the runs -------------------------------------------------------------------------

FIGURES = st.floats(0, 1e6, allow_subnormal=False)


@given(st.lists(st.builds(Epoch, st.integers(1, 999), *[FIGURES] * 5), max_size=4))
def test_metrics_come_back_to_six_digits(
    tmp_path_factory: pytest.TempPathFactory, epochs: list[Epoch]
) -> None:
    folder = RunFolder(tmp_path_factory.getbasetemp() / "metrics")
    folder.write_metrics(epochs)
    found = read_metrics(folder.path / "metrics.csv")
    assert [each.epoch for each in found] == [each.epoch for each in epochs]
    for one, other in zip(found, epochs, strict=True):
        assert list(vars(one).values()) == pytest.approx(list(vars(other).values()), rel=1e-5)
        assert type(one.epoch) is int and type(one.val_accuracy) is float


def test_a_run_without_metrics_has_no_epochs(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "nowhere" / "metrics.csv") == []


# ---- the table -----------------------------------------------------------------------------------

RUNS = (
    Outcome("lr=0.1", [epoch(1, 0.25), epoch(2, 0.5, 0.75), epoch(3, 0.5, 0.7, seconds=119.6)]),
    Outcome("lr=9", [], "the loss is nan at step 1 of 9"),
    Outcome("optimizer=adam,lr=0.001", [epoch(1, 0.905, 0.2), epoch(2, 0.75, 0.3, seconds=7)]),
    Outcome("lr=3", [epoch(1, 0.1, seconds=3601)], "the loss is inf at step 4 of 9"),
)


def cells(table: str) -> list[list[str]]:
    """Of every line but the rule."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return [rows[0], *rows[2:]]


def test_the_best_run_comes_first_and_one_that_gave_nothing_last() -> None:
    head, *rows = cells(comparison_table(RUNS))
    assert head == [
        "run", "best val. accuracy", "its epoch", "its val. loss", "last training loss", "time",
    ]  # fmt: skip
    assert rows == [
        ["optimizer=adam,lr=0.001", "90.50 %", "1 of 2", "0.200", "2.000", "0 min 07 s"],
        ["lr=0.1", "50.00 %", "3 of 3", "0.700", "2.000", "2 min 00 s"],
        ["lr=3 (the loss is inf at step 4 of 9)", "10.00 %", "1 of 1", "1.000", "2.000",
         "60 min 01 s"],
        ["lr=9 (the loss is nan at step 1 of 9)", "–", "–", "–", "–", "–"],
    ]  # fmt: skip


@pytest.mark.parametrize("runs", [RUNS, RUNS[:1], RUNS[1:2]])
def test_the_columns_stand_below_one_another(runs: tuple[Outcome, ...]) -> None:
    table = comparison_table(runs)
    lines = table.splitlines()
    assert table.endswith("|\n") and len(lines) == 2 + len(runs)
    places = [[at for at, letter in enumerate(line) if letter == "|"] for line in lines]
    assert all(each == places[0] and len(each) == 7 for each in places)
    columns = lines[1].strip("|").split("|")
    assert set(columns[0]) == {" ", "-"}  # names to the left, figures to the right
    assert all(column.endswith("-: ") for column in columns[1:])


def test_runs_that_are_equally_good_keep_their_order() -> None:
    runs = [Outcome(name, [epoch(1, 0.5)]) for name in "cab"]
    assert [row[0] for row in cells(comparison_table(runs))[1:]] == ["c", "a", "b"]


def test_models_that_differ_are_told_apart() -> None:
    """By size and start; a run that left no checkpoint has no size and is no difference."""
    first = Outcome("lr=1", [epoch(1, 0.25)], "", 224_000, "W.safetensors")
    same, lost = first._replace(name="lr=2"), first._replace(name="lr=3", parameters=0, epochs=[])
    assert cells(comparison_table([first, same, lost]))[0][1] == "best val. accuracy"
    other = Outcome("weights=none", [epoch(1, 0.5)], "", 5_526_346)
    head, *rows = cells(comparison_table([first, other, lost]))
    assert head[:4] == ["run", "parameters", "start", "best val. accuracy"]
    assert [row[:3] for row in rows] == [
        ["weights=none", "5,526,346", "none given"],
        ["lr=1", "224,000", "W.safetensors"],
        ["lr=3", "–", "W.safetensors"],
    ]
    for changed in ({"start": ""}, {"parameters": 225_000}):
        head, *_ = cells(comparison_table([first, first._replace(**changed)]))
        assert head[1:3] == ["parameters", "start"]


def test_an_outcome_is_read_from_the_run_folder(tmp_path: Path) -> None:
    model = minivit.VisionTransformer(minivit.ViTConfig.from_name("debug_patch8_32"))
    minivit.save_model(model, tmp_path / "last.safetensors")
    (tmp_path / "recipe.toml").write_text('weights = "scenes"\n', encoding="utf-8")
    RunFolder(tmp_path).write_metrics([epoch(1, 0.5)])
    outcome = read_outcome("a", RunFolder(tmp_path), problem="the loss is nan")
    size = sum(each.numel() for each in model.parameters())
    assert outcome == Outcome("a", [epoch(1, 0.5)], "the loss is nan", size, "scenes")
    (tmp_path / "last.safetensors").unlink()
    assert read_outcome("a", RunFolder(tmp_path)).parameters == 0


# ---- TensorBoard ---------------------------------------------------------------------------------


def test_without_the_package_no_files_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minivit.training.tensorboard.find_spec", lambda _name: None)
    Events(tmp_path / "tensorboard", 0).add(epoch(1, 0.5))
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_reads_the_curves_and_not_what_was_lost_in_a_crash(tmp_path: Path) -> None:
    name = "tensorboard.backend.event_processing.event_accumulator"
    accumulator: Any = pytest.importorskip(name, reason="tensorboard is not installed")
    before = Events(tmp_path, 0)
    for number in (1, 2, 3):
        before.add(epoch(number, 0.1 * number))
    time.sleep(1.1)  # the names of the files, and with them their order, have whole seconds
    Events(tmp_path, 2).add(epoch(3, 0.75))
    read = accumulator.EventAccumulator(str(tmp_path))
    read.Reload()
    assert set(read.Tags()["scalars"]) == {
        "loss/training", "loss/validation", "accuracy/validation", "learning rate",
    }  # fmt: skip
    points = [(point.step, point.value) for point in read.Scalars("accuracy/validation")]
    assert points == [(1, pytest.approx(0.1)), (2, pytest.approx(0.2)), (3, 0.75)]


# ---- the flags -----------------------------------------------------------------------------------


def values(*words: str) -> dict[str, Any]:
    return train.given_values(make_parser("").parse_args(words))


def test_what_was_not_given_is_left_to_the_recipe() -> None:
    for name in ("classify", "caption", "preview", "sweep"):
        assert values(name) == {}


def test_what_was_given_are_keys_of_a_recipe_with_values_of_their_types() -> None:
    common = ["--data", "5", "--weights", "w", "--epochs", "2", "--batch-size", "3", "--lr", "1",
              "--precision", "bf16", "--limit", "4", "--workers", "0", "--seed", "6"]  # fmt: skip
    expected = {
        "data": "5", "weights": "w", "epochs": 2, "batch_size": 3, "lr": 1.0, "precision": "bf16",
        "limit": 4, "workers": 0, "seed": 6,
    }  # fmt: skip
    assert values("classify", *common, "--strict") == expected | {"strict": True}
    captions = ["--vocab", "v", "--skip-missing", "--backbone-lr", "0", "--label-smoothing", "0.1"]
    more = {"vocab": "v", "skip_missing": True, "backbone_lr": 0.0, "label_smoothing": 0.1}
    assert values("caption", *common, *captions) == expected | more
    recipe = make_recipe(ClassifyRecipe, "scenes", values("classify", *common))
    assert expected.items() <= recipe.to_dict().items()


def test_settings_are_keys_too_and_win_over_flags() -> None:
    settings = ["--set", "lr=2", "--set", "flip=0.5", "--set", "data=some photos"]
    for name in ("classify", "caption", "preview", "sweep"):
        found = values(name, *settings, "--lr", "1", "--epochs", "3")
        assert found == {"lr": 2, "flip": 0.5, "data": "some photos", "epochs": 3}
    with pytest.raises(ValueError, match="'lr 2': expected KEY=VALUE"):
        values("classify", "--set", "lr 2")


def test_nothing_is_lost_by_being_zero_or_empty() -> None:
    found = values("sweep", "--workers", "0", "--seed", "0", "--weights", "", "--lr", "0")
    assert found == {"workers": 0, "seed": 0, "weights": "", "lr": 0.0}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["classify", "--resume", "--overwrite"], "not allowed with argument --resume"),
        (["classify", "--limit", "0"], "argument --limit: 0 is less than 1"),
        (["classify", "--workers", "-1"], "argument --workers: -1 is less than 0"),
        (["classify", "--epochs", "many"], "argument --epochs: invalid int value: 'many'"),
        (["classify", "--vocab", "v"], "--vocab: no such flag"),
        (["evaluate"], "required: --weights"),
        (["other"], "other: no such command"),
        ([], "required: COMMAND"),
    ],
)
def test_a_flag_that_cannot_be_used_is_named_in_one_line(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        values(*words)
    error = capsys.readouterr().err
    assert end.value.code == 2 and said in error and error.count("\n") == 1


HELP = """
import sys
sys.argv = ["train.py", *sys.argv[1:]]
import train
try:
    train.main()
finally:
    heavy = {"torch", "numpy", "matplotlib", "PIL", "tqdm"} & set(sys.modules)
    print("imported:", sorted(heavy), file=sys.stderr)
"""


@pytest.mark.parametrize(
    "words", [[], ["classify"], ["caption"], ["evaluate"], ["preview"], ["sweep"]]
)
def test_help_answers_at_once(words: list[str]) -> None:
    """Nothing heavy is imported; the best of some attempts counts, others work here too."""
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", HELP, *words, "--help"],
            cwd=ROOT, capture_output=True, text=True,
        )  # fmt: skip
        seconds.append(time.perf_counter() - start)
        assert done.returncode == 0 and "usage: train.py" in done.stdout
        assert done.stderr == "imported: []\n"
        if seconds[-1] < 0.5:
            break
    assert min(seconds) < 0.5
