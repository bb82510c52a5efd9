"""What all commands share; and what a user of the package finds in it."""

from __future__ import annotations

import argparse
import ast
import errno
import importlib
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

import minivit
from minivit.commands.terminal import (
    Parser,
    add_common_flags,
    first_interrupt,
    one_line,
    pick_device,
    run,
    say,
    warn_of_slow_bf16,
)

ROOT = Path(__file__).parents[2]


def arguments(*flags: str) -> argparse.Namespace:
    parser = Parser(prog="thing.py")
    add_common_flags(parser)
    return parser.parse_args(flags)


# ---- exit statuses -----------------------------------------------------------------------------


@pytest.mark.parametrize(("returned", "status"), [(None, 0), (0, 0), (3, 3)])
def test_a_command_that_returns(returned: int | None, status: int) -> None:
    parsed = arguments("--seed", "7")
    given = []

    def command(arguments: argparse.Namespace) -> int | None:
        given.append(arguments)
        return returned

    assert run(command, parsed) == status
    assert given == [parsed]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("photo.jpg: not a picture"), "error: photo.jpg: not a picture\n"),
        (ValueError("two\n  lines"), "error: two lines\n"),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "a.safetensors"),
            "error: a.safetensors: No such file or directory\n",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), "error: No space left on device\n"),
        (OSError("out/a.png: cannot be written"), "error: out/a.png: cannot be written\n"),
        (minivit.CheckpointError("a.safetensors: cut short"), "error: a.safetensors: cut short\n"),
        (minivit.BadImageError("a.png: the file is empty"), "error: a.png: the file is empty\n"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    capsys: pytest.CaptureFixture[str], error: Exception, line: str
) -> None:
    def command(_: argparse.Namespace) -> None:
        raise error

    assert run(command, arguments()) == 2
    assert capsys.readouterr() == ("", line)
    assert one_line(error) + "\n" == line


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    error = ValueError("bad")

    def command(_: argparse.Namespace) -> None:
        raise error

    with pytest.raises(ValueError) as raised:
        run(command, arguments("--debug"))
    assert raised.value is error
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("flags", [(), ("--debug",)])
def test_ctrl_c_is_status_130(capsys: pytest.CaptureFixture[str], flags: tuple[str]) -> None:
    def command(_: argparse.Namespace) -> None:
        raise KeyboardInterrupt

    assert run(command, arguments(*flags)) == 130
    assert capsys.readouterr() == ("", "interrupted\n")


def test_a_mistake_of_the_program_is_not_called_bad_input() -> None:
    def command(_: argparse.Namespace) -> None:
        raise AssertionError("a bug")

    with pytest.raises(AssertionError):
        run(command, arguments())


def test_what_others_named_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\x1b[2Jb", "two\nlines", "cat\u202egpj")
    say("bell\a", file=sys.stderr)
    captured = capsys.readouterr()
    assert captured.out == "a\\x1b[2Jb\ntwo\\nlines\ncat\\u202egpj\n"
    assert captured.err == "bell\\x07\n"
    assert one_line(ValueError("no \x1b[31m here\a")) == "error: no \\x1b[31m here\\x07"
    assert "\x1b" not in one_line(FileNotFoundError(2, "No such file", "\x1b]0;title\a"))


# ---- Ctrl-C ------------------------------------------------------------------------------------


def test_the_first_interrupt_calls_and_the_second_ends(capfd: pytest.CaptureFixture[str]) -> None:
    calls = []
    with pytest.raises(KeyboardInterrupt), first_interrupt(lambda: calls.append(1), "stopping"):
        signal.raise_signal(signal.SIGINT)
        assert calls == [1] and capfd.readouterr().err == "\nstopping\n"
        signal.raise_signal(signal.SIGINT)
    assert calls == [1]
    with first_interrupt(lambda: calls.append(2), ""):
        pass
    with pytest.raises(KeyboardInterrupt):  # as before the block
        signal.raise_signal(signal.SIGINT)
    assert calls == [1]


def test_an_interrupt_that_a_library_takes_for_an_error_of_its_own_is_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def command(_arguments: argparse.Namespace) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ValueError("could not determine the shape of object type 'Storage'") from None

    before = signal.getsignal(signal.SIGINT)
    assert run(command, arguments()) == 130
    assert capsys.readouterr().err == "interrupted\n"
    assert signal.getsignal(signal.SIGINT) is before

    def wrong(_arguments: argparse.Namespace) -> None:
        raise ValueError("a bad value")

    assert run(wrong, arguments()) == 2 and "a bad value" in capsys.readouterr().err


def test_an_interrupt_that_is_ignored_stays_so() -> None:
    """As for what a shell script starts in the background; another thread cannot change it."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    calls: list[int] = []
    try:
        with first_interrupt(lambda: calls.append(1), ""):
            signal.raise_signal(signal.SIGINT)
        assert calls == [] and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    handlers = []

    def in_thread() -> None:
        with first_interrupt(lambda: calls.append(1), ""):
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    assert handlers == [before]


# ---- flags -------------------------------------------------------------------------------------


def test_common_flags_and_their_defaults() -> None:
    assert vars(arguments()) == {"seed": 0, "device": "auto", "threads": None, "debug": False}
    given = arguments("--seed", "3", "--device", "cpu", "--threads", "2", "--debug")
    assert vars(given) == {"seed": 3, "device": "cpu", "threads": 2, "debug": True}


@pytest.mark.parametrize(
    "flags", [["--seed", "x"], ["--device", "tpu"], ["--unknown"], ["surplus"], ["--seed"]]
)
def test_a_wrong_flag_is_one_line_and_status_2(
    capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        arguments(*flags)
    assert stopped.value.code == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("thing.py: ") and err.count("\n") == 1
    assert flags[0] in err and "--help" in err


def parser_of_commands() -> Parser:
    parser = Parser(prog="thing.py")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    begin = commands.add_parser("begin")
    begin.add_argument("pictures", nargs="*")
    begin.add_argument("--epochs", type=int, required=True)
    begin.add_argument("--batch-size", type=int)
    begin.add_argument("--backbone-lr", type=float)
    begin.add_argument("-o", "--out")
    commands.add_parser("evaluate")
    return parser


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("begin --epoch 3", "begin: --epoch: no such flag; did you mean --epochs?"),
        ("begin --epoch=3", "begin: --epoch: no such flag; did you mean --epochs?"),
        (
            "begin a.jpg --batch_size 3",
            "begin: --batch_size: no such flag; did you mean --batch-size?",
        ),
        ("begin --b 3", "begin: --b: no such flag; did you mean --batch-size or --backbone-lr?"),
        ("begin -epochs 3", "begin: -epochs: no such flag; did you mean --epochs?"),
        ("begin --vers", "begin: --vers: no such flag; did you mean --version?"),
        ("begin --qqq", "begin: --qqq: no such flag"),
        ("begin -x", "begin: -x: no such flag"),
        ("--epochs 3 begin", " --epochs: no such flag"),
        ("evalate", " evalate: no such command; did you mean evaluate?"),
        ("eval", " eval: no such command; did you mean evaluate?"),
        ("other", " other: no such command"),
    ],
)
def test_what_is_mistyped_is_named_with_the_nearest_word_before_what_is_missing(
    line: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """--epochs is required, and would be asked for."""
    with pytest.raises(SystemExit) as stopped:
        parser_of_commands().parse_args(line.split())
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and error.count("\n") == 1
    command = " begin" if complaint.startswith("begin") else ""
    begin = f"thing.py{command}:{complaint.removeprefix('begin:')}"
    assert error == f"{begin} (see thing.py{command} --help)\n"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("begin --epochs -3", {"epochs": -3}),
        ("begin --epochs=-3 -ofile", {"epochs": -3, "out": "file"}),
        ("begin --backbone-lr -.5 --epochs 1", {"backbone_lr": -0.5}),
        ("begin --epochs 1 -- --epoch", {"pictures": ["--epoch"]}),
        ("begin - --epochs 1", {"pictures": ["-"]}),
    ],
)
def test_numbers_below_0_and_names_behind_two_dashes_are_no_flags(
    line: str, expected: dict[str, Any]
) -> None:
    assert expected.items() <= vars(parser_of_commands().parse_args(line.split())).items()


@pytest.mark.parametrize("module", ["train", "visualize"])
def test_no_command_takes_the_beginning_of_a_flag(
    module: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make_parser = importlib.import_module(f"minivit.commands.{module}_flags").make_parser
    parser = make_parser("") if module == "train" else make_parser()
    assert len(parser.commands) > 5
    for name, command in parser.commands.items():
        flags = [flag for action in command._actions for flag in action.option_strings]
        long = [flag for flag in flags if flag.startswith("--")]
        assert {"--version", "--debug"} <= set(long)
        for flag in long:
            if flag[:-1] not in long:
                with pytest.raises(SystemExit):
                    parser.parse_args([name, flag[:-1]])
                assert f"{flag[:-1]}: no such flag; did you mean " in capsys.readouterr().err


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pick_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert pick_device("auto") == torch.device("cpu")
    for name in ("cuda", "mps"):
        with pytest.raises(ValueError, match=f"--device {name}: .* no {name} device"):
            pick_device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device("auto") == torch.device("cuda") == pick_device("cuda")
    assert pick_device("cpu") == torch.device("cpu")


# ---- the public surface ------------------------------------------------------------------------


def names_for_type_checkers() -> set[str]:
    """The names that minivit/__init__.py imports for those who only read it."""
    tree = ast.parse((ROOT / "minivit" / "__init__.py").read_text())
    blocks = [node for node in tree.body if isinstance(node, ast.If)]
    imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name for node in imports for alias in node.names}


def names_in_the_pages(package: str) -> set[str]:
    """X of all `package.X` in README.md and docs/."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    return set(re.findall(rf"\b{re.escape(package)}\.([A-Za-z_]+)(?=[(.])", text))


def test_every_public_name_is_there() -> None:
    for name in minivit.__all__:
        assert getattr(minivit, name) is not None
        assert name in dir(minivit)
    assert set(minivit.__all__) == names_for_type_checkers()
    used = names_in_the_pages("minivit")
    assert {"load_model", "AttentionRows", "explain"} <= used <= set(minivit.__all__)
    scope: dict[str, Any] = {}
    exec("from minivit import *", scope)
    assert set(minivit.__all__) <= set(scope)


def test_every_public_name_of_explain_is_there() -> None:
    explain = minivit.explain
    functions = {
        name
        for name, thing in vars(explain).items()
        if callable(thing) and thing.__module__.startswith("minivit.explain.")
    }
    assert set(explain.__all__) == functions | {"METHODS"}
    assert all(callable(method) for method in explain.METHODS.values())
    used = names_in_the_pages("minivit.explain")
    assert {"class_attention", "rollout"} <= used <= functions


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'minivit' has no attribute 'no_such_name'"):
        minivit.no_such_name  # noqa: B018
    assert not hasattr(minivit, "torch")


@pytest.mark.parametrize("module", ["minivit", "minivit.commands.terminal", "minivit.files"])
def test_torch_is_not_imported_before_it_is_needed(module: str) -> None:
    """Or --help would take seconds."""
    script = (
        f"import sys, {module}\n"
        "heavy = {'torch', 'numpy', 'matplotlib', 'PIL', 'einops', 'safetensors'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert done.stdout == "[]\n"


# ---- threads and bfloat16 --------------------------------------------------------------------


def test_threads_are_those_that_were_asked_for() -> None:
    import torch

    before = torch.get_num_threads()
    try:
        pick_device("cpu", before + 1)
        assert torch.get_num_threads() == before + 1
        pick_device("cpu")
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("text", ["0", "-1", "two"])
def test_a_number_of_threads_that_is_none_is_one_line(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = Parser(prog="train.py")
    add_common_flags(parser)
    with pytest.raises(SystemExit) as stopped:
        parser.parse_args([f"--threads={text}"])
    assert stopped.value.code == 2
    assert "--threads: expected a whole number from 1 on" in capsys.readouterr().err


@pytest.mark.parametrize(("slowdown", "lines"), [(0.4, 0), (2.5, 1)])
def test_bfloat16_that_is_emulated_is_told_of(
    slowdown: float,
    lines: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("minivit.cpu.bf16_slowdown", lambda: slowdown)
    warn_of_slow_bf16(pick_device("cpu"))
    written = capsys.readouterr().err
    assert written.count("\n") == lines == written.count("takes 2.5 times as long")
