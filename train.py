"""Train a Vision Transformer or a captioner, and see what it learned to look at.

    python train.py                                # the built-in scenes, some minutes on two cores
    python train.py --minutes 20                   # as long as you like; measured on this machine
    python train.py classify --data DIR --recipe NAME --weights W --out RUN
    python train.py caption --out RUN              # a captioner of scenes, or of --data DIR
    python train.py evaluate --data DIR --weights W [--predictions out.csv]
    python train.py preview --data DIR             # augmented photos, to look at
    python train.py sweep --vary KEY=V1,V2         # settings side by side
    python train.py report RUN [OTHER_RUN]         # how a training went, beside another one
    python train.py recipes                        # the package's recipes
    python train.py keys                           # the keys of a recipe, with their meaning
    torchrun --nproc_per_node 2 train.py …         # one training by several processes

A run folder holds recipe.toml, environment.toml, metrics.csv, curves.png, report.md with pictures,
and the checkpoints best.safetensors and last.safetensors; --resume goes on with an unfinished run.
minivit-run.json marks it: no other folder is taken unless it is empty, no file is removed but those
of the run, and one process at a time trains in it.
Ctrl-C while it trains stops it and leaves all of these of what was learned so far; once more ends
at once. Exit status: 0 done, 2 bad input, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from minivit.commands.inputs import need_files, need_weights, refuse_several
from minivit.commands.outputs import Outputs
from minivit.commands.terminal import first_interrupt, pick_device, run, say, warn_of_slow_bf16
from minivit.commands.train_flags import given_flags, make_parser
from minivit.plain_text import visible
from minivit.progress import progress_bars

if TYPE_CHECKING:
    import torch

    from minivit.captioner import Captioner
    from minivit.training.distributed import Processes
    from minivit.training.loop import Trainer
    from minivit.training.minutes import SomeRecipe
    from minivit.training.pace import Pace
    from minivit.training.recipes import CaptionRecipe, ClassifyRecipe
    from minivit.training.run_folder import RunFolder
    from minivit.training.task import Bar, Epoch, Plan
    from minivit.vit import VisionTransformer


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit status.

    Args:
        argv: Words of the command line without the program's name; None: those of this process.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    whole = ("-h", "--help", "--version")  # flags of the program, not of a command
    if not words or (words[0].startswith("-") and words[0] not in whole):
        words = ["classify", *words]  # the command that needs no name
    arguments = make_parser((__doc__ or "").split("\n\n")[0]).parse_args(words)
    commands: dict[str, Callable[[argparse.Namespace], int | None]] = {
        "classify": classify,
        "caption": caption,
        "evaluate": evaluate,
        "preview": preview,
        "sweep": sweep,
        "report": show_report,
        "recipes": recipes,
        "keys": keys,
    }
    return run(commands[arguments.command], arguments)


# ---- training ------------------------------------------------------------------------------------


def classify(arguments: argparse.Namespace) -> int:
    """Trains a classifier of scenes or photos.

    Raises:
        ValueError: No recipe was named, and none fits photos without weights.
    """
    recipe = classify_recipe(arguments)
    if arguments.recipe is None and recipe.recipe == "pets_sgd" and not recipe.weights:
        raise ValueError(
            "photos without weights take many photos and epochs: give --weights W to fine-tune a "
            "trained model, or --recipe deit_scratch to train one from scratch"
        )
    return fit(recipe, arguments.out or Path("runs", recipe.recipe), arguments)


def caption(arguments: argparse.Namespace) -> int:
    """Trains a captioner."""
    from minivit.training.recipes import CaptionRecipe, make_recipe

    given = given_values(arguments)
    name = "scenes_captioner" if given.get("data", "scenes") == "scenes" else "catr_coco"
    with old_names_on_stderr():
        recipe = make_recipe(CaptionRecipe, arguments.recipe or name, given)
    return fit(recipe, arguments.out or Path("runs", recipe.recipe), arguments)


def classify_recipe(arguments: argparse.Namespace) -> ClassifyRecipe:
    """The recipe of --recipe, or the one that fits the data, with the flags laid over it."""
    from minivit.data.photos.idx_files import has_idx
    from minivit.training.recipes import ClassifyRecipe, make_recipe

    given = given_values(arguments)
    data = str(given.get("data", "scenes"))
    fitting = "fashion_mnist" if has_idx(Path(data)) else "pets_sgd"
    name = arguments.recipe or ("scenes" if data == "scenes" else fitting)
    with old_names_on_stderr():
        return make_recipe(ClassifyRecipe, name, given)


def given_values(arguments: argparse.Namespace) -> dict[str, Any]:
    """The keys of a recipe that the command line gives; --set wins over the other flags.

    Raises:
        ValueError: A --set without "="; or --minutes beside a number of epochs or steps.
    """
    from minivit.training.recipe_toml import read_settings

    given = given_flags(arguments) | read_settings(arguments.settings)
    if arguments.minutes and (names := [name for name in ("epochs", "steps") if name in given]):
        raise ValueError(
            f"--minutes {arguments.minutes:g} chooses the epochs and steps, and {names[0]} "
            f"{given[names[0]]} is given too: leave out one of the two"
        )
    return given


def refuse_missing(recipe: ClassifyRecipe | CaptionRecipe) -> None:
    """Refuses a recipe whose files are not there, or that lacks a key, before torch is imported.

    Raises:
        OSError: A file or folder is not there.
        ValueError: Scenes with a recipe for photos; captions of photos without a vocabulary.
    """
    from minivit.training.recipes import CaptionRecipe

    if recipe.weights:
        need_weights(recipe.weights)
    need_files([recipe.data], known=["scenes"])
    if recipe.data == "scenes":
        recipe.num_training_scenes()
    elif isinstance(recipe, CaptionRecipe):
        need_files([recipe.vocab])
        if not recipe.weights:  # which may be a captioner, with words of its own
            recipe.vocabulary_file()


def may_be_finished(out: Path, arguments: argparse.Namespace) -> bool:
    """Whether --resume may meet a run that has ended, which needs no files any more."""
    return bool(arguments.resume) and (out / "report.md").exists()


def inputs_of(
    recipe: ClassifyRecipe | CaptionRecipe, arguments: argparse.Namespace
) -> list[str | Path]:
    """The files, and the folder of photos, that a command reads."""
    from minivit.weights import find_weights

    named = [recipe.data if recipe.data != "scenes" else "", getattr(recipe, "vocab", "")]
    recipes = (arguments.recipe or "").split(",")  # a name of the package is no file here
    inputs: list[str | Path] = [name for name in (*named, *recipes) if name]
    return [*inputs, find_weights(recipe.weights)] if recipe.weights else inputs


@contextlib.contextmanager
def old_names_on_stderr() -> Iterator[None]:
    """Prints one line for each key that a recipe or the command line has by its old name."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DeprecationWarning)
        yield
    if os.environ.get("RANK", "0") == "0":  # of several processes the first prints
        for message in dict.fromkeys(str(warning.message) for warning in caught):
            say(f"warning: {message}", file=sys.stderr)


def make_plan(recipe: ClassifyRecipe | CaptionRecipe, bar: Bar) -> Plan:
    """Model, data and report of a recipe."""
    import torch

    from minivit.training.caption.plan import plan_captioner
    from minivit.training.classify.plan import plan_classifier
    from minivit.training.recipes import CaptionRecipe

    torch.manual_seed(recipe.seed)  # for new weights; all other chance has a seed of its own
    if isinstance(recipe, CaptionRecipe):
        return plan_captioner(recipe, bar)
    return plan_classifier(recipe, bar)


def fit(recipe: ClassifyRecipe | CaptionRecipe, out: Path, arguments: argparse.Namespace) -> int:
    """Trains by a recipe into a run folder: the same for classifiers and captioners.

    Returns:
        The exit status: 0, or 130 where Ctrl-C stopped the training.
    """
    start = time.perf_counter()
    if not may_be_finished(out, arguments):
        refuse_missing(recipe)

    from minivit.training.distributed import make_repeatable, processes
    from minivit.training.memory import keep_freed_memory
    from minivit.training.run_folder import RunFolder

    keep_freed_memory()
    folder, stopped = RunFolder(out), ""
    device, resume = pick_device(arguments.device, arguments.threads), arguments.resume
    with progress_bars() as bar, contextlib.ExitStack() as until_the_end:
        with processes(device) as team:
            state, goes_on = None, False
            finished = resume and folder.is_finished()
            if team.is_first:  # the others ask it: they may not see the folder
                if not finished:
                    until_the_end.enter_context(folder.locked())
                    state = folder.load_state() if resume else None
                goes_on = resume and (state is not None or folder.recipe.exists())
                if goes_on:
                    recipe = with_schedule_before(recipe, folder, state, arguments)
                folder.check(
                    recipe.to_dict(),
                    resume=resume,
                    overwrite=arguments.overwrite,
                    state=state,
                    inputs=inputs_of(recipe, arguments),
                )
            finished, state, recipe, goes_on = team.agree((finished, state, recipe, goes_on))
            if finished:
                if team.is_first:
                    say(f"{out}: this run is finished, see {folder.report}")
                return 0
            if state is not None:  # as if the run had begun so long ago and never stopped
                start -= state.get("run_seconds", state["seconds"])
            make_repeatable(team.device)
            plan = make_plan(recipe, bar)
            if team.is_first:
                say(*plan.lines)
            if state is not None:
                refuse_other_inputs(recipe, plan, folder, team, state)
            if arguments.minutes and not goes_on:
                recipe = fit_to_time(recipe, plan, team, arguments.minutes, start)
            if team.is_first:
                if any(phase.precision == "bf16" for phase in recipe.settings_of_phases()):
                    warn_of_slow_bf16(team.device)
                if state is None:
                    folder.begin(recipe.to_dict(), recipe.seed, team.device)
                elif before := folder.go_on(recipe.to_dict(), state):
                    say(f"{recipe.data}: names and labels are those of {before}, as the run began")
            stopped = train(recipe, plan, folder, team, state, start)
        if team.is_first:  # the folder is held until the report is there
            report(plan, folder, recipe, team.device, start, stopped)
    return 130 if stopped else 0


def with_schedule_before(
    recipe: SomeRecipe,
    folder: RunFolder,
    state: dict[str, Any] | None,
    arguments: argparse.Namespace,
) -> SomeRecipe:
    """The recipe of a run that goes on: one that --minutes began is not measured again."""
    from minivit.training.minutes import with_schedule_of
    from minivit.training.recipes import with_new_names

    if {"epochs", "steps"} & given_values(arguments).keys():
        return recipe
    if arguments.minutes:
        print(f"--minutes {arguments.minutes:g}: the run goes on with the steps that it began with")
    return with_schedule_of(recipe, with_new_names(folder.recipe_before(state)))


def fit_to_time(
    recipe: SomeRecipe, plan: Plan, team: Processes, minutes: float, start: float
) -> SomeRecipe:
    """The recipe with the steps that fit into --minutes; the first process prints them.

    Raises:
        ValueError: No step fits.
    """
    from minivit.training.minutes import fit_to_minutes

    recipe = fit_to_minutes(recipe, plan, team, minutes=minutes, start=start)
    if team.is_first:
        phases = recipe.settings_of_phases()
        steps = " + ".join(f"{phase.steps:,}" for phase in phases)
        epochs = sum(phase.epochs for phase in phases)
        print(
            f"--minutes {minutes:g}: {steps} steps in {epochs} epochs, by the first steps on this "
            "machine; recipe.toml has them",
            flush=True,
        )
    return recipe


def refuse_other_inputs(
    recipe: ClassifyRecipe | CaptionRecipe,
    plan: Plan,
    folder: RunFolder,
    team: Processes,
    state: dict[str, Any],
) -> None:
    """Compares data and model with those of the run that is to go on; the first process decides.

    Raises:
        RunFolderError: They are others, in the first process.
        SystemExit: The same, in the others, which have nothing to add.
    """
    from minivit.training.data_digest import DataDigest
    from minivit.training.run_folder import RunFolderError

    changes = ""
    if team.is_first:
        if "data" in state:
            changes = plan.digest.changes_since(DataDigest.from_dict(state["data"]))
        else:
            print("an earlier minivit saved this state: it cannot tell whether the data changed")
        if state.get("model", description := model_description(plan)) != description:
            cause = f"the weights {recipe.weights} hold" if recipe.weights else "this minivit makes"
            changes = f"{cause} another model than the one that the run began with"
            changes += "; put the first back, or begin anew with --overwrite"
    if changes := team.agree(changes):
        if not team.is_first:
            raise SystemExit(2)
        raise RunFolderError(f"{folder.state}: {changes}")


def model_description(plan: Plan) -> str:
    """Architecture and preprocessing of the model to train, which a state is compared by."""
    model = cast("VisionTransformer | Captioner", plan.task.model)
    return json.dumps([model.config.to_dict(), model.preprocess.to_dict()])


def train(
    recipe: ClassifyRecipe | CaptionRecipe,
    plan: Plan,
    folder: RunFolder,
    team: Processes,
    state: dict[str, Any] | None,
    start: float,
) -> str:
    """All epochs, or those after a saved state; what is known so far is written after each.

    Each state has the seconds of the run up to then, all its processes together.

    Returns:
        Where Ctrl-C stopped it, in words; "" where it came to its end.

    Raises:
        KeyboardInterrupt: Ctrl-C before the first step.
    """
    from tqdm import tqdm

    from minivit.training.loop import NotFiniteError, Trainer
    from minivit.training.pace import FIRST_STEPS, Pace
    from minivit.training.recipe_toml import to_toml
    from minivit.training.record import Record
    from minivit.training.run_folder import RunFolderError
    from minivit.training.state_file import StateError

    about = {
        "data": plan.digest.to_dict(),
        "recipe": to_toml(recipe.to_dict()),
        "model": model_description(plan),
    }
    trainer = Trainer(
        plan.task.to(team.device),
        plan.train,
        plan.validation,
        recipe.settings_of_phases(),
        processes=team,
        evaluation_batch=plan.evaluation_batch,
        save=lambda state: folder.save_state(
            {**state, **about, "run_seconds": time.perf_counter() - start}
        ),
    )
    if state is not None:
        try:
            trainer.load_state(state)
        except StateError as error:
            if not team.is_first:
                raise SystemExit(2) from None
            raise RunFolderError(f"{folder.state}: {error}: begin anew with --overwrite") from error
        if team.is_first:
            print(f"resumed after step {trainer.step:,} of {trainer.num_steps:,}", flush=True)
    record = Record(folder, plan, trainer) if team.is_first else None
    total, done = trainer.num_steps, trainer.step
    with tqdm(
        total=total, initial=done, unit="step", desc="training", disable=record is None
    ) as bar:
        pace = Pace()

        def on_step(loss: float) -> None:
            bar.set_postfix_str(f"loss {loss:.2f}", refresh=False)
            bar.update()
            if record is not None and (slower := pace.step()):
                bar.write(slow_line(slower), file=sys.stderr)
            if record is not None and pace.steps == FIRST_STEPS:
                bar.write(time_line(pace, plan, trainer), file=sys.stdout)
                sys.stdout.flush()

        trainer.on_step = on_step
        try:
            with stopped_by_interrupt(trainer):
                for epoch in trainer.run():
                    if record is not None:  # the first process prints and writes
                        bar.write(epoch_line(epoch), file=sys.stdout)
                        record.write()
        except NotFiniteError as error:
            good = f"; the last good checkpoint is {folder.last}" if trainer.epochs else ""
            raise NotFiniteError(f"{error}{good}") from None
    if not trainer.stopped or record is None:
        return ""
    if trainer.step == 0:
        raise KeyboardInterrupt
    record.write_stopped()
    return f"stopped early at step {trainer.step:,} of {total:,}"


def stopped_by_interrupt(trainer: Trainer) -> contextlib.AbstractContextManager[None]:
    """The block in which the first Ctrl-C stops the training.

    With several processes it ends them: torchrun sends it to each once more.
    """
    if trainer.processes.count > 1:
        return contextlib.nullcontext()
    return first_interrupt(
        trainer.stop,
        "stopping after this step; a report of what was learned follows; Ctrl-C again ends at once",
    )


def time_line(pace: Pace, plan: Plan, trainer: Trainer) -> str:
    """How long the rest will take; a held-out sample has no backward pass, two thirds of a step."""
    from minivit.training.pace import duration

    assert pace.first is not None
    left = trainer.num_steps - trainer.step
    validation = len(plan.validation) / (3 * len(plan.train))
    line = (
        f"training takes about {duration(left * pace.first * (1 + validation))} on this machine: "
        f"{left:,} steps to go, {1 / pace.first:.1f} a second"
    )
    if trainer.processes.count > 1:
        return line
    return f"{line}; Ctrl-C stops it early and keeps what was learned"


def slow_line(factor: float) -> str:
    """What to do about steps that have become slower by this factor."""
    import torch

    line = f"steps take {factor:.1f} times as long as at first: is the machine busy otherwise?"
    if torch.get_num_threads() == 1:
        return line
    return f"{line} Then --resume with --threads 1 may be faster ({torch.get_num_threads()} now)"


def epoch_line(epoch: Epoch) -> str:
    """The figures of an epoch in one line."""
    return (
        f"epoch {epoch.epoch:3d}  training loss {epoch.train_loss:.3f}  validation "
        f"loss {epoch.val_loss:.3f}, {100 * epoch.val_accuracy:.1f} % right"
    )


def report(
    plan: Plan,
    folder: RunFolder,
    recipe: ClassifyRecipe | CaptionRecipe,
    device: torch.device,
    start: float,
    stopped: str,
) -> None:
    """Measures the best checkpoint; prints the results and writes report.md.

    The time is the run's, from `start` on: those of the processes before this one are counted up to
    their last state. The state of a run that was stopped stays: it can go on.
    """
    lines, more = plan.report(folder.path, device)
    minutes, seconds = divmod(round(time.perf_counter() - start), 60)
    lines.append(f"{minutes} min {seconds} s in all, {len(plan.train):,} training samples")
    if stopped:
        lines.insert(0, f"{stopped}; --resume goes on from there")
    text = "".join(f"- {visible(line)}\n" for line in lines)
    write = folder.write_report if stopped else folder.finish
    write(
        f"# {recipe.recipe}\n\n{text}- recipe {recipe.recipe}, seed {recipe.seed}; settings in "
        f"recipe.toml, versions in environment.toml\n\n![curves](curves.png)\n\n{more}"
    )
    say(*lines, f"run folder: {folder.path}")


# ---- before and after training -------------------------------------------------------------------


def evaluate(arguments: argparse.Namespace) -> int:
    """Prints the accuracy of a checkpoint, and writes its answer for each photo."""
    refuse_several("evaluate")
    check_evaluation(arguments)

    from minivit.training.classify.evaluate import evaluate_photos, evaluate_scenes

    device = pick_device(arguments.device, arguments.threads)
    if arguments.precision == "bf16":
        warn_of_slow_bf16(device)
    complaints: list[str] = []
    with progress_bars() as bar:
        if arguments.data == "scenes":
            lines = evaluate_scenes(
                arguments.weights,
                limit=arguments.limit,
                bf16=arguments.precision == "bf16",
                workers=arguments.workers,
                device=device,
                bar=bar,
            )
        else:
            lines, complaints = evaluate_photos(
                arguments.weights,
                Path(arguments.data),
                labels=arguments.labels,
                split=arguments.split,
                limit=arguments.limit,
                strict=arguments.strict,
                predictions=arguments.predictions,
                batch_size=arguments.batch_size,
                bf16=arguments.precision == "bf16",
                workers=arguments.workers,
                device=device,
                bar=bar,
            )
    say(*lines)
    say(*(f"error: {complaint}" for complaint in complaints), file=sys.stderr)
    return 2 if complaints else 0


def check_evaluation(arguments: argparse.Namespace) -> None:
    """Refuses flags that do not go together, and files that are not there, before torch.

    Raises:
        ValueError: Flags of photos beside scenes; photos without labels, and no --predictions.
        OSError: A file or folder is not there.
    """
    from minivit.data.errors import BadDataError
    from minivit.data.photos.class_names import NUMBERS, ORDER_OF_FOLDERS
    from minivit.data.photos.layouts import recognise

    need_weights(arguments.weights)
    if arguments.data == "scenes":
        if arguments.predictions:
            raise ValueError("--predictions is for photos, which have names; scenes have none")
        if arguments.labels:
            raise ValueError("--labels is for photos; the classes of scenes are known")
        return
    need_files([arguments.data])
    need_files([arguments.labels], known=[NUMBERS, ORDER_OF_FOLDERS])
    data = Path(arguments.data)
    if not arguments.predictions and recognise(data) == "flat":
        problem, advice = "photos without labels", "give --predictions OUT.csv for the answers"
        raise BadDataError.about(data, problem, advice)


def preview(arguments: argparse.Namespace) -> None:
    """Writes a contact sheet of augmented photos."""
    refuse_several("preview")
    recipe = classify_recipe(arguments)
    if recipe.data == "scenes":
        raise ValueError(
            "scenes are turned and mirrored a batch at a time: give photos, --data DIR"
        )
    refuse_missing(recipe)
    outputs = Outputs(
        {**recipe.to_dict(), "photos": arguments.photos, "command": "preview"},
        inputs=inputs_of(recipe, arguments),
        overwrite=arguments.overwrite,
    )
    outputs.claim({arguments.out: outputs.mark()})

    from minivit.files import save_figure
    from minivit.training.classify.preview import preview_figure

    with progress_bars() as bar:
        figure, lines = preview_figure(recipe, bar, num_photos=arguments.photos, out=arguments.out)
    save_figure(figure, arguments.out, mark=outputs.mark())
    say(*lines, arguments.out)


def sweep(arguments: argparse.Namespace) -> int:
    """Trains with every combination of settings, and compares."""
    from minivit.training.sweep import Outcome, combinations, comparison_table, read_outcome

    refuse_several("sweep")
    out = arguments.out or Path("runs", "sweep")
    names = arguments.recipe.split(",") if arguments.recipe else ["scenes"]
    given = given_values(arguments)
    outcomes: list[Outcome] = []
    with old_names_on_stderr():
        runs = combinations(names, arguments.vary, given)
    for name, recipe in runs:
        if not may_be_finished(out / name, arguments):
            refuse_missing(recipe)
    outputs = Outputs(
        {"command": "sweep", "runs": [recipe.to_dict() for _, recipe in runs]},
        inputs=[place for _, recipe in runs for place in inputs_of(recipe, arguments)],
        overwrite=arguments.overwrite or arguments.resume,
    )
    figure_path, table_path = out / "comparison.png", out / "comparison.md"
    outputs.claim({figure_path: outputs.mark()}, beside=[table_path])

    from minivit.files import save_figure
    from minivit.training.loop import NotFiniteError
    from minivit.training.run_folder import RunFolder, write_text
    from minivit.viz import comparison_figure

    for number, (name, recipe) in enumerate(runs, start=1):
        print(f"\nrun {number} of {len(runs)}: {name}", flush=True)
        problem = ""
        try:
            if status := fit(recipe, out / name, arguments):
                return status
        except NotFiniteError as error:
            problem = str(error).split(":")[0]
            print(problem, flush=True)
        outcomes.append(read_outcome(name, RunFolder(out / name), problem=problem))
    table = comparison_table(outcomes)
    figure = comparison_figure([(each.name, each.epochs) for each in outcomes if each.epochs])
    save_figure(figure, figure_path, mark=outputs.mark())
    write_text(table_path, f"{table}\n![curves](comparison.png)\n")
    print(f"\n{table}\n{table_path}")
    return 0


# ---- what there is -------------------------------------------------------------------------------


def show_report(arguments: argparse.Namespace) -> None:
    """Prints the report of a run, and its comparison with another one.

    Raises:
        ValueError: A folder that holds no run.
    """
    for path in filter(None, (arguments.run, arguments.other)):
        if not (path / "recipe.toml").is_file():
            raise ValueError(
                f"{path}: no run folder (there is no recipe.toml in it): expected what train.py "
                "wrote, such as runs/scenes"
            )
    from minivit.training.report import run_text

    print(run_text(arguments.run, arguments.other), end="")


def recipes(arguments: argparse.Namespace) -> None:
    """Prints the recipes of the package, or the keys that a recipe can have."""
    from minivit.training.recipe_keys import keys_text, recipes_text

    print(keys_text() if arguments.keys else recipes_text())


def keys(arguments: argparse.Namespace) -> None:
    """Prints the keys that a recipe can have, to read or as the page beside the recipes."""
    from minivit.training.recipe_keys import keys_page, keys_text

    print(
        keys_page() if arguments.markdown else keys_text(), end="" if arguments.markdown else "\n"
    )


if __name__ == "__main__":
    sys.exit(main())
