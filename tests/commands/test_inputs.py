"""What is refused before torch is imported; photos without a command; folders of photos."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import visualize
from minivit.commands.inputs import photos_of
from minivit.commands.visualize_flags import make_parser, with_command

ROOT = Path(__file__).parents[2]

# Runs each command line of a JSON list, "PROGRAM WORD…", in a process that cannot import torch.
WITHOUT_TORCH = """
import contextlib, io, json, sys
sys.modules["torch"] = None
import train, visualize
from weights_convert.__main__ import main as convert
programs = {"train": train.main, "visualize": visualize.main, "convert": convert}
answers = []
for program, *words in json.loads(sys.argv[1]):
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        try: status = programs[program](words)
        except SystemExit as end: status = end.code
    answers.append([status, out.getvalue(), errors.getvalue()])
print(json.dumps(answers))
"""

REFUSED = [
    ("train --recipe nonsense", "nonsense: no such recipe"),
    ("train --set weight_dacay=1", "did you mean weight_decay?"),
    ("train --set lr=fast", "lr is 'fast', expected a number"),
    ("train --weights nowhere.safetensors", "nowhere.safetensors: no such file"),
    ("train --weights photos", "photos: a folder; give the .safetensors of a model"),
    ("train --weights run", "run: a folder; give the .safetensors of a model, such as run/best."),
    ("train classify --data nowhere --weights scenes", "nowhere: no such file or folder"),
    ("train classify --data photos", "give --weights W to fine-tune"),
    ("train --recipe deit_scratch", "is for photos: give --data"),
    ("train --minutes 3 --epochs 2", "leave out one of the two"),
    ("train caption --data nowhere --vocab words.txt", "nowhere: no such file or folder"),
    ("train caption --data photos --vocab nowhere.txt", "nowhere.txt: no such file"),
    ("train caption --data photos", "need a vocabulary: give BERT's with --vocab"),
    ("train caption --weights nowhere", "nowhere: no such file"),
    ("train preview", "give photos, --data DIR"),
    ("train preview --data nowhere", "nowhere: no such file or folder"),
    ("train sweep", "give two recipes or more, or --vary"),
    ("train sweep --vary weights=,nowhere", "nowhere: no such file"),
    ("train sweep --vary lr=1,2 --data nowhere --recipe pets_sgd", "nowhere: no such file"),
    ("train evaluate", "required: --weights"),
    ("train evaluate --weights nowhere", "nowhere: no such file"),
    ("train evaluate --weights scenes --labels numbers", "--labels is for photos"),
    ("train evaluate --weights scenes --predictions a.csv", "--predictions is for photos"),
    ("train evaluate --weights scenes --data nowhere", "nowhere: no such file or folder"),
    ("train evaluate --weights scenes --data photos", "without labels; give --predictions OUT.csv"),
    ("train evaluate --weights scenes --data photos --labels nowhere", "nowhere: no such file"),
    ("visualize nowhere.jpg", "nowhere.jpg: no such file; check the path"),
    ("visualize caption a.jpg b.jpg c.jpg d.jpg e.jpg", "a.jpg, b.jpg, c.jpg and 2 more: no such"),
    ("visualize model photos/1.png nowhere.jpg", "nowhere.jpg: no such file; check the path"),
    ("visualize explore empty", "empty: a folder without photos"),
    ("visualize explain above", "those in it are not looked into: give above/inside"),
    ("visualize --weights nowhere", "nowhere: no such file"),
    ("visualize doctor --weights run", "such as run/best.safetensors"),
    ("visualize score --data nowhere", "nowhere: no such file or folder"),
    ("visualize score --data photos --masks nowhere", "nowhere: no such file or folder"),
    ("visualize score --masks photos", "the objects of scenes are known"),
    ("visualize score --data photos --out photos", "would lie among the pictures"),
    ("visualize explore --scores nowhere.csv", "nowhere.csv: no such file"),
    ("visualize caption --top-k 3", "--top-k: only where words are drawn by chance; add --sample"),
    ("convert nowhere.pth", "nowhere.pth: no such file; check the path"),
    ("convert no/where.pth", "no/where.pth: no such file; check the path"),
    ("convert words.txt --labels nowhere.txt", "nowhere.txt: no such file"),
    ("convert words.txt --head nowhere.pth", "nowhere.pth: no such file"),
    ("convert words.txt --to timm --name x", "--name does not apply to --to"),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: photos/ of six pictures, an empty run, empty/, and above/inside/."""
    monkeypatch.chdir(tmp_path)
    for name in ("photos", "run", "empty", "above/inside"):
        Path(name).mkdir(parents=True)
    for name in ("10.png", "9.JPG", "1.png", "b.webp", "a.tiff", "c.gif"):
        Image.new("RGB", (30, 20), "red").save(Path("photos", name))
    Path("run", "best.safetensors").touch()
    Path("words.txt").write_text("a\nred\n")
    return tmp_path


def test_what_cannot_work_is_refused_in_one_line_before_torch_is_imported(folder: Path) -> None:
    words = json.dumps([line.split() for line, _ in REFUSED])
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, words],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    assert len(answers) == len(REFUSED)
    for (line, message), (status, out, errors) in zip(REFUSED, answers, strict=True):
        assert status == 2 and out == "" and errors.count("\n") == 1, (line, errors)
        assert message in errors, (line, errors)
    kept = {"photos", "run", "empty", "above", "words.txt"}
    assert {path.name for path in folder.iterdir()} == kept


# ---- photos --------------------------------------------------------------------------------------

COMMANDS = ("attention", "model", "score")


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("", "attention"),
        ("photo.jpg", "attention photo.jpg"),
        ("photos/1 2.png", "attention photos/1 2.png"),
        ("--block 0 photo.jpg", "attention --block 0 photo.jpg"),
        ("model", "model"),  # though there is a folder of this name
        ("./model", "attention ./model"),
        ("pictures", "attention pictures"),  # a folder that is there
        ("modle", "modle"),
        ("--help", "--help"),
        ("-h", "-h"),
        ("--version", "--version"),
    ],
)
def test_a_photo_or_a_folder_or_a_flag_stands_for_the_attention_of_it(
    line: str, meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("model", "pictures"):
        Path(name).mkdir()
    assert with_command(line.split(), COMMANDS) == meant.split()


def test_a_mistyped_command_is_no_photo(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        visualize.main(["atention", "photo.jpg"])
    assert end.value.code == 2
    assert "atention: no such command; did you mean attention?" in capsys.readouterr().err


def test_a_folder_stands_for_its_photos_in_order(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "photos" / "deeper").mkdir()
    Image.new("RGB", (3, 2)).save("photos/deeper/no.png")
    Path("photos", "notes.txt").write_text("no picture")
    Path("photos", ".hidden.png").touch()
    assert photos_of(["x.jpg", "photos", "y.jpg"]) == [
        "x.jpg",
        *(f"photos/{name}" for name in ("1.png", "9.JPG", "10.png", "a.tiff", "b.webp", "c.gif")),
        "y.jpg",
    ]
    assert capsys.readouterr() == ("", "photos: 6 photos\n")
    Image.new("RGB", (3, 2)).save("empty/one.png")
    assert photos_of(["empty"]) == ["empty/one.png"]
    assert capsys.readouterr().err == "empty: 1 photo\n"


def test_every_command_that_takes_photos_takes_folders(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = [
        name
        for name, parser in make_parser().commands.items()
        if "pictures" in vars(parser.parse_args([]))
    ]
    taking = {"attention", "caption", "explain", "explore", "model", "ablate", "doctor"}
    assert set(commands) == taking
    given: list[list[str]] = []
    for name in commands:
        with monkeypatch.context() as patch:
            function = "describe" if name == "model" else name
            patch.setattr(visualize, function, lambda arguments: given.append(arguments.pictures))
            assert visualize.main([name, "photos"]) == 0
    assert given == [photos_of(["photos"])] * len(commands)


def test_photos_of_a_folder_are_drawn(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert visualize.main(["photos", "--out", "out", "--heads", "0"]) == 0
    names = [Path(line.split(":")[0]).name for line in capsys.readouterr().out.splitlines()]
    assert names == ["1.png", "9.png", "10.png", "a.png", "b.png", "c.png"]
    assert sorted(os.listdir("out")) == sorted(names)
