"""minivit's explanations beside other packages', on the same weights: time, peak memory, maps.

    python -m benchmarks.explain_peers [--rounds N] [--steps N] [--pixels N]

Needs Linux, timm (the `parity` extra) and the packages that minivit is held against::

    pip install fast-vit-rollout==0.1.1 torchxai-explain==0.3.0 captum==0.9.0 \\
        grad-cam==1.5.7 daam-timm-vit==0.2.1

One that is not installed, or does not run, gets a line that says so. ViT-S/16 at 384 pixels, one
picture, random weights, in timm's model and in minivit's, which the converter made of them. Every
package explains the same class and is told to compute minivit's map where it can: heads as their
mean and nothing discarded for rollout, zeros as the baseline and Gauss and Legendre's steps, one at
a time, for integrated gradients. torchxai-explain's gradient-weighted map divides each row by its
sum, which minivit's does not. Grad-CAM and DAAM are other maps, for orientation.

Times are taken in turns, in one process, and a ratio within a round; peak memory is that of a
process for each case, beyond what a plain forward pass of its own model takes in it. The weights of
timm's model need no gradients, which favours the packages, but for lines that say otherwise.
"""

from __future__ import annotations

import argparse
import copy
import importlib.metadata
import platform
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

import minivit
from benchmarks.peak_memory import growth, of_own_process
from benchmarks.turns import take_turns
from minivit.explain import METHODS
from weights_convert.conversion import convert

MODULE = "benchmarks.explain_peers"
TIME, MEMORY = 0.85, 0.35  # targets: parts of the best package that computes the same map
OURS = "minivit"


@dataclass(frozen=True)
class Bench:
    """What every case is given.

    Attributes:
        ours: minivit's model.
        theirs: timm's with the same weights, which need no gradients.
        images: One normalised picture (1, 3, pixels, pixels).
        target: Number of the class that is explained.
        steps: Number of steps of integrated gradients.
    """

    ours: minivit.VisionTransformer
    theirs: Any
    images: Tensor
    target: int
    steps: int

    @property
    def trainable(self) -> nn.Module:
        """A copy of timm's model as it is made, with weights that need gradients."""
        return copy.deepcopy(self.theirs).requires_grad_(True)


Run = Callable[[], Any]
"""Makes a map: (1, rows, cols) or (rows, cols), of patches or of pixels, a tensor or an array."""


@dataclass(frozen=True)
class Case:
    """A way to a map.

    Attributes:
        work: Name of the map; equal names are the same map.
        package: Name on PyPI, `OURS` for minivit.
        make: Function that gets the package ready, outside of what is measured.
        note: Words behind the package's name.
        steps: Whether it takes `Bench.steps` steps, and its time is that of one.
    """

    work: str
    package: str
    make: Callable[[Bench], Run]
    note: str = ""
    steps: bool = False

    @property
    def name(self) -> str:
        """Name of the line."""
        return ", ".join(filter(None, (f"{self.package}{version(self.package)}", self.note)))

    @property
    def key(self) -> str:
        """Name that no other case has."""
        return f"{self.work}: {self.name}"


def our_method(name: str, **options: Any) -> Callable[[Bench], Run]:
    """A method of minivit, made ready."""

    def make(bench: Bench) -> Run:
        return lambda: METHODS[name](bench.ours, bench.images, bench.target, **options)

    return make


def our_integration(bench: Bench) -> Run:
    """minivit's integrated gradients."""
    return our_method("integrated_gradients", steps=bench.steps)(bench)


def fast_vit_rollout(bench: Bench) -> Run:
    """Rollout from hooks, which stay: on a copy, whose attention must not be fused."""
    from fast_vit_rollout import ViTAttentionRollout

    model = copy.deepcopy(bench.theirs)
    for block in model.blocks:
        block.attn.fused_attn = False
    explain = ViTAttentionRollout(model, head_fusion="mean", discard_ratio=0.0)
    return lambda: over_grid(explain(bench.images)[0, 0, 1:])  # (1, N, N) -> (N - 1,)


def torchxai_rollout(bench: Bench) -> Run:
    """Rollout, min-max normalised and enlarged to pixels by the package."""
    from torchxai.methods import AttentionRollout

    explain = AttentionRollout(bench.theirs, head_fusion="mean", discard_ratio=0.0)
    return lambda: explain(bench.images)


def torchxai_gradients(bench: Bench) -> Run:
    """Gradient-weighted rollout."""
    from torchxai.methods import TransformerAttribution

    explain = TransformerAttribution(bench.theirs)
    return lambda: explain(bench.images, target_class=bench.target)


def torchxai_gradients_as_made(bench: Bench) -> Run:
    """The same, which fills the gradients of all weights too, where they want some."""
    from torchxai.methods import TransformerAttribution

    explain = TransformerAttribution(bench.trainable)
    return lambda: explain(bench.images, target_class=bench.target)


def captum_integration(bench: Bench) -> Run:
    """Integrated gradients with the memory of one step, and their mean size over a patch."""
    from captum.attr import IntegratedGradients

    explain = IntegratedGradients(bench.theirs)
    patch = bench.theirs.patch_embed.patch_size

    def run() -> Tensor:
        attributions = explain.attribute(
            bench.images,
            baselines=0,
            target=bench.target,
            n_steps=bench.steps,
            method="gausslegendre",
            internal_batch_size=1,
        )
        return F.avg_pool2d(attributions.abs().mean(dim=1), patch)  # (1, 3, H, W) -> (1, r, c)

    return run


def grad_cam(bench: Bench) -> Run:
    """Grad-CAM at the last block's first norm, as the package advises for timm's models."""
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model = bench.trainable

    def to_grid(tokens: Tensor) -> Tensor:
        return over_grid(tokens[:, 1:].mT)  # (1, N, D) -> (1, D, rows, cols)

    def run() -> Any:
        layers = [model.blocks[-1].norm1]  # type: ignore[index, union-attr]
        with GradCAM(model=model, target_layers=layers, reshape_transform=to_grid) as explain:
            return explain(bench.images, targets=[ClassifierOutputTarget(bench.target)])

    return run


def daam(bench: Bench) -> Run:
    """Maps of all blocks, added up."""
    from daam import DAAM

    def run() -> Tensor:
        with DAAM(bench.theirs) as explain:  # leaves the model as it was
            return explain(bench.images, target=bench.target).maps[:, -1]

    return run


def over_grid(patches: Tensor) -> Tensor:
    """(…, rows · cols) to (…, rows, cols), for a square picture."""
    side = round(patches.shape[-1] ** 0.5)
    return patches.unflatten(-1, (side, side))


ROLLOUT, RELEVANCE, INTEGRATION = "rollout", "gradient-weighted", "integrated gradients, a step"
CASES = (
    Case(ROLLOUT, OURS, our_method("rollout")),
    Case(ROLLOUT, "fast-vit-rollout", fast_vit_rollout),
    Case(ROLLOUT, "torchxai-explain", torchxai_rollout),
    Case(RELEVANCE, OURS, our_method("relevance", keep="maps"), "maps kept"),
    Case(RELEVANCE, OURS, our_method("relevance", keep="inputs"), "inputs kept"),
    Case(RELEVANCE, "torchxai-explain", torchxai_gradients, "rows of sum 1"),
    Case(
        RELEVANCE,
        "torchxai-explain",
        torchxai_gradients_as_made,
        "rows of sum 1, weights with gradients",
    ),
    Case(INTEGRATION, OURS, our_integration, steps=True),
    Case(INTEGRATION, "captum", captum_integration, steps=True),
    Case("attention of the last block", OURS, our_method("attention")),
    Case("Grad-CAM", "grad-cam", grad_cam, "weights with gradients"),
    Case("DAAM", "daam-timm-vit", daam),
)


def main() -> None:
    """Measures and prints a Markdown table, then how alike maps of one name are."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=9, help="default: %(default)s")
    parser.add_argument(
        "--steps", type=int, default=16, help="of integrated gradients (default: %(default)s)"
    )
    parser.add_argument("--pixels", type=int, default=384, help="default: %(default)s")
    parser.add_argument("--memory-of", choices=[case.key for case in CASES], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    bench = make_bench(arguments.pixels, arguments.steps)
    if arguments.memory_of:
        case = next(case for case in CASES if case.key == arguments.memory_of)
        model = bench.ours if case.package == OURS else bench.theirs
        print(growth(lambda: plain(model, bench.images), case.make(bench)))
        return

    runs, maps, faults = {}, {}, {}
    for case in CASES:
        try:
            runs[case.key] = case.make(bench)
            maps[case.key] = torch.as_tensor(runs[case.key]()).detach()
        except Exception as fault:  # whatever another package does, the others are measured
            if case.package == OURS:
                raise
            runs.pop(case.key, None)
            faults[case.key] = why(case.package, fault)
    baselines = {
        "plain timm": lambda: plain(bench.theirs, bench.images),
        "plain minivit": lambda: plain(bench.ours, bench.images),
    }
    times = take_turns(baselines | runs, arguments.rounds)
    for case in CASES:
        if case.steps and case.key in times:
            times[case.key] = [seconds / bench.steps for seconds in times[case.key]]
    options = ["--pixels", str(arguments.pixels), "--steps", str(arguments.steps)]
    memory = {key: of_own_process([MODULE, *options, "--memory-of", key]) for key in runs}

    print(
        f"torch {torch.__version__}, timm {timm.__version__}, Python {platform.python_version()}, "
        f"{torch.get_num_threads()} threads, {arguments.rounds} rounds, {bench.steps} steps of "
        f"integrated gradients; targets: time {TIME}, memory {MEMORY} of the best package\n"
    )
    print(f"| ViT-S/16, {arguments.pixels} px | package | ms | / timm | MiB above plain", end="")
    print(" | time / best package | memory / best package |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for key in baselines:
        show("forward", key, times[key], times["plain timm"])
    for case in CASES:
        if case.key in faults:
            print(f"| {case.work} | {case.name}: {faults[case.key]} | – | – | – | | |")
            continue
        peers = [peer.key for peer in CASES if is_peer(peer, case) and peer.key in runs]
        show(
            case.work,
            case.name,
            times[case.key],
            times["plain timm"],
            memory[case.key],
            min((times[peer] for peer in peers), key=statistics.median, default=None),
            min((memory[peer] for peer in peers), default=None),
        )
    print("\nPearson correlation with minivit's map of the same name:\n")
    for case in CASES:
        if case.package == OURS and case.key in maps:
            for peer in CASES:
                if is_peer(peer, case) and peer.key in maps:
                    alike = correlation(maps[case.key], maps[peer.key])
                    print(f"* {case.work}, {case.name} and {peer.name}: {alike:.5f}")


def make_bench(pixels: int, steps: int) -> Bench:
    """Both models, and a picture."""
    torch.manual_seed(0)
    theirs = timm.create_model(f"vit_small_patch16_{pixels}", pretrained=False).eval()
    for name, weights in theirs.named_parameters():
        if name.endswith("attn.qkv.weight"):
            nn.init.normal_(weights, std=0.1)  # as drawn by timm, all tokens are looked at alike
    theirs.requires_grad_(False)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"vit_small_patch16_{pixels}.safetensors"
        save_file(theirs.state_dict(), file)
        ours = convert(file).model.eval()
    images = torch.randn(1, 3, pixels, pixels)
    logits = plain(theirs, images)
    torch.testing.assert_close(plain(ours, images), logits, atol=1e-4, rtol=0)
    return Bench(ours, theirs, images, int(logits.argmax()), steps)


def plain(model: nn.Module, images: Tensor) -> Tensor:
    """What all cases are compared with."""
    with torch.no_grad():
        return model(images)


def is_peer(peer: Case, case: Case) -> bool:
    """Whether `case` is minivit's and `peer` another package's way to the same map."""
    return case.package == OURS != peer.package and case.work == peer.work


def version(package: str) -> str:
    """A space and the installed version; empty for minivit and for what is not installed."""
    try:
        return "" if package == OURS else f" {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return ""


def why(package: str, fault: Exception) -> str:
    """Why there are no figures, in a line."""
    if not version(package):
        return "not installed"
    return f"{type(fault).__name__}: {' '.join(str(fault).split())}".replace("|", "/")


def show(
    work: str,
    name: str,
    seconds: list[float],
    base: list[float],
    memory: float | None = None,
    best_seconds: list[float] | None = None,
    best_memory: float | None = None,
) -> None:
    """A row of the table; ratios are medians over rounds."""
    cells = [work, name, f"{1e3 * statistics.median(seconds):.0f}", f"{ratio(seconds, base):.2f}"]
    cells.append("" if memory is None else f"{memory:.1f}")
    cells.append("" if best_seconds is None else f"**{ratio(seconds, best_seconds):.2f}**")
    cells.append("" if memory is None or not best_memory else f"**{memory / best_memory:.2f}**")
    print("|", " | ".join(cells), "|", flush=True)


def ratio(seconds: list[float], base: list[float]) -> float:
    """Median over rounds."""
    return statistics.median(a / b for a, b in zip(seconds, base, strict=True))


def correlation(ours: Tensor, theirs: Tensor) -> float:
    """Pearson's, of two maps; ours is enlarged to theirs where theirs has a value a pixel."""
    theirs = theirs.view(1, 1, *theirs.shape[-2:])
    ours = F.interpolate(ours[None], theirs.shape[-2:], mode="bilinear", align_corners=False)
    return float(torch.corrcoef(torch.stack((ours.flatten(), theirs.flatten())).double())[0, 1])


if __name__ == "__main__":
    main()
