"""Every command of the README, of docs/, of the other pages and of --help runs.

Capital names are made as files and folders of that name: PHOTO.jpg, PETS, W. Trainings are cut
short by flags that are added (`SHORTER`). What cannot run here (it needs a network, gigabytes, or a
system's package) is held against what it names instead, each with its own check (`CHECKED`).
"""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image

import minivit
import train
import visualize
import weights_convert.__main__ as convert
from minivit.commands import train_flags, visualize_flags
from minivit.training.caption import plan as caption_plan
from minivit.training.classify import evaluate
from minivit.training.classify import plan as classify_plan
from tests.training.photo_runs import make_photos
from weights_convert import catalogue

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *(ROOT / room / "README.md" for room in ("tutorials", "weights_convert", "benchmarks")),
]
PROGRAMS: dict[str, Callable[[list[str]], int]] = {
    "python train.py": train.main,
    "python visualize.py": visualize.main,
    "python -m weights_convert": convert.main,
}
PARSERS = {"train": train_flags.make_parser(""), "visualize": visualize_flags.make_parser()}
SMALL = "--limit 16 --epochs 1 --workers 0 --batch-size 8"
SHORTER = {
    "python train.py": SMALL,
    "python train.py classify --data": f"{SMALL} --set image_size=64",
    "python train.py sweep": f"{SMALL} --data PETS --set image_size=64",
    "python train.py evaluate": "--workers 0",
    "python train.py preview": "",
    "python train.py recipes": "",
    "python train.py report": "",
    "python train.py keys": "",
    "python visualize.py score": "--limit 2 --methods attention,random",
    "python visualize.py explain": "--methods attention,relevance",
}


def commands_of(text: str) -> list[str]:
    """The commands in fenced blocks without a language, and those in backticks."""
    fence = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
    blocks = [block for language, block in fence.findall(text) if not language]
    inline = re.findall(r"`([^`\n]+ --[^`\n]+)`", fence.sub("", text))  # others are mere names
    lines = [line for block in blocks for line in block.splitlines()] + inline
    commands = [line.split("  #")[0].split("   ")[0].strip() for line in lines]
    commands = [re.sub(r"^(train|visualize)\.py ", r"python \1.py ", line) for line in commands]
    starts = ("python ", "make ", "pip ", "source ", "torchrun ", "jupyter ", "apt-get ")
    return [line for line in commands if line.startswith(starts) and "…" not in line]


def epilogs(parser: argparse.ArgumentParser) -> list[str]:
    """The examples at the end of a program's --help and of its commands'."""
    texts = [parser.epilog or ""]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            texts += [command.epilog or "" for command in action.choices.values()]
    examples = [text.partition("Example: ")[2] for text in texts]
    return [f"python {' '.join(example.split())}" for example in examples if example]


def all_commands() -> list[tuple[str, str]]:
    """(where it stands first, command), each command once, in the order of the pages."""
    texts = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}
    commands = {name: commands_of(text) for name, text in texts.items()}
    commands |= {f"{name}.py --help": epilogs(parser) for name, parser in PARSERS.items()}
    first: dict[str, str] = {}
    for place, examples in commands.items():
        for example in examples:
            first.setdefault(example, place)
    return [(place, example) for example, place in first.items()]


COMMANDS = all_commands()


# ---- what is held against what it names ----------------------------------------------------------


def is_a_target(command: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{command.split()[1]}:.* ## ", makefile, re.MULTILINE), command


def installs_what_is_there(command: str) -> None:
    for extra in re.findall(r"\[(\w[\w-]*)\]", command):
        assert f"\n{extra} = [" in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def is_in_the_catalogue(command: str) -> None:
    catalogue.find(command.split()[3])


def is_a_module(command: str) -> None:
    path = ROOT / command.split()[2].replace(".", "/")
    assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), command


def is_understood(command: str) -> None:
    name, words = re.findall(r"(train|visualize)\.py(.*)", command)[0]
    default = ["classify"] if name == "train" and words.startswith(" -") else []
    PARSERS[name].parse_args([*default, *shlex.split(words)])


CHECKED: dict[str, Callable[[str], None]] = {
    r"^make ": is_a_target,
    r"^pip install": installs_what_is_there,
    r"^source \.venv/bin/activate$": lambda command: None,  # a virtual environment's own file
    r"^jupyter lab tutorials/$": lambda command: None,  # no server here; the folder is a test's
    r"^apt-get install": lambda command: None,  # Debian's; only root can
    r"^python -m weights_convert [a-z]\w+( -o |$)": is_in_the_catalogue,  # a download
    r"^python -m weights_convert B_16_imagenet1k\.pth": lambda command: None,  # 330 MB
    r"^python -m (benchmarks|tutorials|tests|weights_convert\.)": is_a_module,  # long, or tested
    r"train\.py --minutes": is_understood,  # ten minutes
    r"sweep .* image_size=224,384": is_understood,  # a minute; another sweep runs
    r"--recipe fashion_mnist": is_understood,  # Debian's data set
    r"--data COCO": is_understood,  # 20 GB of photos, a ResNet-101's weights
    r"^torchrun": is_understood,
}


# ---- what runs ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the pages name in capitals."""
    folder = tmp_path_factory.mktemp("clone")
    torch.manual_seed(0)
    config = minivit.ViTConfig.from_name("debug_patch8_64", num_classes=3)
    model = minivit.VisionTransformer(config, labels=["blue", "green", "tabby, tabby cat"])
    save = partial(minivit.save_model, model)
    captioner = minivit.weights.SHIPPED["scenes_captioner"]
    (folder / "weights").mkdir()
    for command in (text for _, text in COMMANDS if "weights_convert" in text):
        for name in re.findall(r"-o (\S+)", command):  # what the downloads would leave
            shutil.copy(captioner, folder / name) if "catr" in name else save(folder / name)
    for name in ("W", "MODEL.safetensors"):
        save(folder / name)
    make_photos(folder / "PETS", per_class=6)
    shutil.copytree(folder / "PETS" / "val" / "green", folder / "PHOTOS")
    (folder / "MASKS").mkdir()
    for photo in (folder / "PHOTOS").iterdir():
        Image.effect_noise((60, 40), 90).save(folder / "MASKS" / photo.name)  # of the photos' size
    shutil.copytree(folder / "PETS" / "val" / "blue", folder / "TEST")
    shutil.copytree(ROOT / "tutorials" / "photos", folder / "tutorials" / "photos")
    shutil.copy(ROOT / "tutorials" / "photos" / "cat.jpg", folder / "PHOTO.jpg")
    return folder


@pytest.fixture(autouse=True)
def few_scenes_are_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (classify_plan, caption_plan, evaluate):
        monkeypatch.setattr(module, "NUM_HELD_OUT", 32)


def program_of(command: str) -> str | None:
    """The program that can be called in this process."""
    if any(re.search(pattern, command) for pattern in CHECKED):
        return None
    return next((name for name in PROGRAMS if f"{command} ".startswith(f"{name} ")), None)


@pytest.mark.parametrize(("page", "command"), [pair for pair in COMMANDS if program_of(pair[1])])
def test_a_command_runs(
    page: str, command: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    program = program_of(command)
    assert program
    more = max((start for start in SHORTER if command.startswith(start)), key=len, default="")
    words = shlex.split(command.removeprefix(program) + " " + SHORTER.get(more, ""))
    assert PROGRAMS[program](words) == 0, f"{page}: {command}"


@pytest.mark.parametrize(
    ("page", "command"), [pair for pair in COMMANDS if not program_of(pair[1])]
)
def test_a_command_that_cannot_run_here_names_what_is_there(page: str, command: str) -> None:
    checks = [check for pattern, check in CHECKED.items() if re.search(pattern, command)]
    assert checks, f"{page}: {command} is neither run nor checked"
    for check in checks:
        check(command)


def test_the_pages_were_read() -> None:
    assert len(COMMANDS) >= 60
    assert {page for page, _ in COMMANDS} >= {"README.md", "docs/training.md", "train.py --help"}
