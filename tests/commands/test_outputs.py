"""What a command writes over: its own drawing, nothing else, and never an input."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import minivit
import train
import visualize
from minivit.commands.outputs import KEPT
from minivit.data.photos.dataset import PhotoDataset
from weights_convert.__main__ import main as convert


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = minivit.ViTConfig.from_name("debug_patch8_32", num_classes=2)
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    minivit.save_model(minivit.VisionTransformer(config, labels=["cat", "dog"]), path)
    return path


@pytest.fixture
def place(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Photos of two classes, their labels as CSV, and weights, in the present folder."""
    for number, label in enumerate(("cat", "dog")):
        (tmp_path / "data" / label).mkdir(parents=True)
        for index in range(3):
            colour = (80 * index, 120 * number, 90)
            Image.new("RGB", (48, 32), colour).save(tmp_path / f"data/{label}/{index}.png")
    rows = [f"data/{label}/{n}.png,{label}\n" for label in ("cat", "dog") for n in range(3)]
    (tmp_path / "labels.csv").write_text("file,label\n" + "".join(rows))
    shutil.copyfile(weights, tmp_path / "w.safetensors")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def call(words: str) -> int:
    program, *rest = words.split()
    commands = {"train": train.main, "visualize": visualize.main, "convert": convert}
    return commands[program](rest)


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line with an error; a bar may have stood before it."""
    lines = capsys.readouterr().err.splitlines()
    errors = [line for line in lines if "error: " in line]
    assert errors == lines[-1:], lines
    return errors[0]


# ---- inputs --------------------------------------------------------------------------------------

EVALUATE = "train evaluate --workers 0 --weights w.safetensors"
PREVIEW = "train preview --overwrite --weights w.safetensors --set image_size=32 --workers 0"
ONTO_INPUTS = [
    (f"{EVALUATE} --data labels.csv --predictions labels.csv", "labels.csv"),
    (f"{EVALUATE} --data labels.csv --predictions data/cat/0.png", "data/cat/0.png"),
    (f"{EVALUATE} --data data --predictions data/cat/0.png", "data/cat/0.png"),
    (f"{EVALUATE} --data data --predictions w.safetensors", "w.safetensors"),
    (f"{EVALUATE} --data data --labels data --predictions data/dog/2.png", "data/dog/2.png"),
    (f"{PREVIEW} --data data --out data/dog/1.png", "data/dog/1.png"),
    (f"{PREVIEW} --data labels.csv --out data/dog/1.png", "data/dog/1.png"),
    (f"{PREVIEW} --data data --out w.safetensors", "w.safetensors"),
    ("convert w.safetensors --to timm -o w.safetensors", "w.safetensors"),
    ("convert w.safetensors --labels labels.csv -o labels.csv", "labels.csv"),
    (
        "visualize attention data/cat/0.png --weights w.safetensors --out data/cat --overwrite",
        "data/cat/0.png",
    ),
    (
        "visualize explore data/cat/0.png --overwrite --weights w.safetensors --out w.safetensors",
        "w.safetensors",
    ),
]


@pytest.mark.parametrize("link", [None, os.symlink, os.link])
@pytest.mark.parametrize(("words", "precious"), ONTO_INPUTS)
def test_an_output_that_is_an_input_is_refused_by_name(
    words: str, precious: str, link: object, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the name of the input and by links to it."""
    output = precious
    if link is not None and "visualize attention" in words:
        output = "out/0.png"
        words = words.replace("--out data/cat", "--out out")
    elif link is not None:
        head, _, flag_and_name = words.rpartition(" -")
        output = f"link{Path(precious).suffix}"
        words = f"{head} -{flag_and_name.replace(precious, output)}"
    if callable(link):
        Path(output).parent.mkdir(exist_ok=True)
        link(os.path.abspath(precious), output)
    before = files(place)
    assert call(words) == 2
    assert f"{output}: is an input" in complaint(capsys)
    assert files(place) == before


def test_the_other_layout_is_not_written_onto_the_checkpoint_that_it_comes_from(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without -o the name is weights/NAME.safetensors, which may be the input's."""
    (place / "weights").mkdir()
    shutil.copyfile("w.safetensors", "weights/tuned.safetensors")
    before = files(place)
    assert call("convert weights/tuned.safetensors --to timm") == 2
    assert "weights/tuned.safetensors: is an input" in complaint(capsys)
    assert files(place) == before


def test_answers_may_lie_beside_the_photos_and_be_written_again(place: Path) -> None:
    words = f"{EVALUATE} --data data --predictions data/answers.csv"
    assert call(words) == 0
    first = Path("data/answers.csv").read_text()
    assert call(words) == 0
    assert Path("data/answers.csv").read_text() == first and first.count("\n") == 7


# ---- drawings that are there ---------------------------------------------------------------------

PHOTO = "data/cat/0.png --weights w.safetensors --out out"
SCORE = "visualize score --weights w.safetensors --limit 2 --methods attention,random"
DRAWINGS = [
    (f"visualize attention {PHOTO}", "--block 0", "out/0.png"),
    ("visualize attention --weights w.safetensors --out out", "--seed 3", "out/scene.png"),
    ("visualize positions --weights w.safetensors --out out", "--all", "out/positions.png"),
    (f"visualize explain {PHOTO} --methods attention", "--target dog", "out/0.png"),
    (f"visualize model {PHOTO}", "--seed 1", "out/model.png"),
    (f"visualize ablate {PHOTO}", "--replace mean", "out/0.png"),
    (f"visualize doctor {PHOTO}", "--dtype bf16", "out/0.png"),
    (f"{SCORE} --format svg --out out", "--seed 1", "out/curves.svg"),
    ("visualize explore data/cat/0.png --out out/page.html", "--whole", "out/page.html"),
    (f"{PREVIEW} --data data --out out/p.png".replace("--overwrite", ""), "--seed 4", "out/p.png"),
]


@pytest.mark.parametrize(("words", "other", "drawn"), DRAWINGS)
def test_the_same_drawing_is_drawn_anew_and_another_one_only_if_told_to(
    words: str, other: str, drawn: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(words) == 0 and Path(drawn).exists()
    written = files(place)
    assert call(f"{words} --threads 1") == 0
    assert set(files(place)) == set(written)
    capsys.readouterr()

    before = files(place)
    assert call(f"{words} {other}") == 2
    line = complaint(capsys)
    assert f"{drawn}: is there" in line and "--overwrite" in line
    assert files(place) == before

    assert call(f"{words} {other} --overwrite") == 0
    assert Path(drawn).read_bytes() != before[drawn]


def test_a_photo_of_the_same_name_and_another_command_are_other_drawings(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(f"visualize attention {PHOTO}") == 0
    before = files(place)
    for words in (
        f"visualize attention {PHOTO}".replace("cat", "dog"),
        f"visualize explain {PHOTO} --methods attention",
        # The first is new, the second is there: neither is drawn.
        f"visualize attention data/cat/1.png {PHOTO}".replace("cat/0", "dog/0"),
    ):
        capsys.readouterr()
        assert call(words) == 2
        assert "out/0.png: is there" in complaint(capsys)
        assert files(place) == before


@pytest.mark.parametrize("name", ["0.png", "0.csv"])
def test_a_file_of_the_users_own_is_kept(
    name: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("out").mkdir()
    Path("out", name).write_text("mine")
    before = files(place)
    assert call(f"visualize ablate {PHOTO}") == 2
    assert f"out/{name}: is there" in complaint(capsys)
    assert files(place) == before


def test_tables_go_with_the_figure_of_the_scores(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "visualize score --limit 2 --probes 1 --draws 1 --methods attention --out out"
    assert call(words) == 0 and call(words) == 0
    before = files(place)
    capsys.readouterr()
    assert call(words.replace("--limit 2", "--limit 3")) == 2
    assert "out/curves.png: is there" in complaint(capsys)
    os.remove("out/curves.png")
    assert call(words) == 2
    assert "out/scores.md: is there" in complaint(capsys)
    assert files(place) == {name: each for name, each in before.items() if "curves.png" not in name}


def test_the_rule_stands_in_the_help_of_every_command_that_draws(
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = ("attention", "positions", "caption", "score", "explain", "explore", "model", "ablate")
    for program, command in [*((visualize, name) for name in names), (train, "preview")]:
        with pytest.raises(SystemExit):
            program.main([command, "--help"])
        assert KEPT in " ".join(capsys.readouterr().out.split()), command


# ---- answers of evaluate -------------------------------------------------------------------------


def test_answers_so_far_are_kept_when_a_photo_goes_away(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two photos a batch; the fifth goes away between the check and its turn."""
    real = PhotoDataset.__getitem__

    def get(self: PhotoDataset, index: int) -> object:
        if index == 4:
            raise OSError("gone")
        return real(self, index)

    monkeypatch.setattr(PhotoDataset, "__getitem__", get)
    Path("o.csv").write_text("of before")
    assert call(f"{EVALUATE} --data data --batch-size 2 --predictions o.csv") == 2
    assert complaint(capsys).endswith("gone; the first 4 answers are in o.partial.csv")
    assert Path("o.csv").read_text() == "of before"
    rows = Path("o.partial.csv").read_text().splitlines()
    assert rows[0] == "filename,label" and [row.split(",")[0] for row in rows[1:]] == [
        *("cat/0.png", "cat/1.png", "cat/2.png", "dog/0.png"),
    ]


def test_a_killed_evaluation_leaves_its_answers(place: Path) -> None:
    """kill -9 before the third batch."""
    code = (
        "import os, sys, train\n"
        "from minivit.training.classify import evaluate\n"
        "real, batches = evaluate._write_answers, []\n"
        "def write(*words):\n"
        "    real(*words); batches.append(1)\n"
        "    if len(batches) == 2: os.kill(os.getpid(), 9)\n"
        "evaluate._write_answers = write\n"
        "train.main(sys.argv[1:])\n"
    )
    words = f"{EVALUATE} --data data --batch-size 2 --predictions o.csv".split()[1:]
    root = Path(train.__file__).parent
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code, *words], env=environment, check=False)
    assert done.returncode == -9 and not Path("o.csv").exists()
    assert len(Path("o.partial.csv").read_text().splitlines()) == 1 + 4


@pytest.mark.skipif(os.name != "posix", reason="named pipes are POSIX's")
def test_answers_go_through_a_named_pipe(place: Path) -> None:
    os.mkfifo("pipe")
    reader = subprocess.Popen(["cat", "pipe"], stdout=subprocess.PIPE, text=True)
    assert call(f"{EVALUATE} --data data --predictions pipe") == 0
    printed, _ = reader.communicate(timeout=60)
    assert call(f"{EVALUATE} --data data --predictions o.csv") == 0
    assert printed == Path("o.csv").read_text() and Path("pipe").is_fifo()


def test_a_comparison_of_other_runs_is_kept(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the first of the runs begins."""
    words = "train sweep --data data --weights w.safetensors --recipe pets_sgd --vary lr=1e-3,1e-2"
    for name in ("comparison.png", "comparison.md"):
        Path("out").mkdir()
        Path("out", name).write_text("mine")
        assert call(f"{words} --out out") == 2
        assert f"out/{name}: is there" in complaint(capsys)
        assert os.listdir("out") == [name]
        shutil.rmtree("out")
