"""python -m benchmarks.explorer: the explorer's page in headless Chromium, in figures.

Needs the extra `explorer-tests` and a chromium. Prints a Markdown table: sizes, times of first
views, interactions and passes, the heap's growth, and the command's time beside `attention`'s.
Beside a torch without AVX-512: `--rows real`, after

    export ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import minivit
from minivit.config import ViTConfig
from minivit.data.scenes.dataset import TEST_SEED, make_scene, scene_layers
from minivit.explorer import write_page
from minivit.explorer.gather import PagePicture
from minivit.vit import VisionTransformer
from tests.explorer.pages import Opened, browser, opened
from weights_convert import real

PHOTO = "tutorials/photos/cat.jpg"


def small_384() -> VisionTransformer:
    """ViT-S/16 at 384 pixels, 577 tokens, random weights."""
    torch.manual_seed(0)
    return VisionTransformer(ViTConfig.from_name("small_patch16_384")).eval()


def first_view(started: Any, path: Path) -> float:
    """Seconds from the request to the first drawn map; the least of three."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        with opened(started, path):
            times.append(time.perf_counter() - start)
    return min(times)


def interactions(here: Opened, count: int = 60) -> tuple[float, float]:
    """Median and largest milliseconds of turns of everything that draws, until it is drawn."""
    times = here.page.evaluate(
        """(count) => {
          const view = viewOf(), out = [];
          for (let k = 0; k < count; k++) {
            const start = performance.now();
            choose({ token: (7 * k) % view.numTokens, block: k % page.config.depth,
              ask: k % 3 ? 'row' : 'column', head: k % 2 ? 'mean' : k % view.numHeads });
            out.push(performance.now() - start);
          }
          return out;
        }""",
        count,
    )
    return statistics.median(times), max(times)


def heap(here: Opened) -> float:
    """Megabytes on the JavaScript heap after a collection."""
    session = here.page.context.new_cdp_session(here.page)
    session.send("HeapProfiler.collectGarbage")
    return float(session.send("Runtime.getHeapUsage")["usedSize"]) / 1e6


def pass_time(here: Opened, number: int = 0, rounds: int = 5) -> float:
    """Least milliseconds of a pass with all maps."""
    times = []
    for _ in range(rounds):
        here.page.evaluate(f"passes.delete({number}); latest.ask({number})")
        here.wait_until(f"passes.has({number})", seconds=120)
        times.append(here.page.evaluate(f"passes.get({number}).milliseconds"))
    return float(min(times))


def torch_time(model: VisionTransformer, rounds: int = 5) -> float:
    """Least milliseconds of a forward pass with all maps by torch, one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    images = model.preprocess(minivit.open_image(PHOTO))[None]
    times = []
    with torch.inference_mode():
        for _ in range(rounds):
            start = time.perf_counter()
            model(images, return_attention=True)
            times.append(1000 * (time.perf_counter() - start))
    torch.set_num_threads(threads)
    return min(times)


def command(*words: str) -> float:
    """Seconds of a command of visualize.py; the least of three."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, "visualize.py", *words], check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return min(times)


def scenes_rows(started: Any, folder: Path) -> list[tuple[str, str, str]]:
    """The shipped model, which runs in the page."""
    path = folder / "scenes.html"
    size = 96
    pictures = [
        PagePicture(
            f"scene {n}",
            make_scene(TEST_SEED, n, image_size=size).image,
            scene_layers(TEST_SEED, n, image_size=size),
        )
        for n in range(4)
    ]
    write_page(minivit.load_model("scenes"), pictures, path)
    with opened(started, path) as here:
        here.wait_until("passes.has(3)")
        passing = pass_time(here)
        box = here.page.query_selector("#stage canvas").bounding_box()
        body = here.page.evaluate("page.pictures[0].scene.bodies[0]")
        x, y = box["x"] + body["column"] * box["width"], box["y"] + body["row"] * box["height"]
        here.page.evaluate(
            "window.drawn = 0; const before = latest.run; "
            "latest.run = async (n) => { await before(n); window.drawn++; }"
        )
        here.page.mouse.move(x, y)
        here.page.mouse.down()
        start = time.perf_counter()
        step = 0
        while time.perf_counter() - start < 3:
            step += 1
            here.page.mouse.move(x - step % 40, y - step % 25)
        here.page.mouse.up()
        rate = here.page.evaluate("window.drawn") / (time.perf_counter() - start)
        here.page.evaluate("resetChanges()")
        interactions(here)
        before = heap(here)
        interactions(here, 500)
        growth = heap(here) - before
    return [
        ("shipped ViT live: file, 4 scenes", f"{path.stat().st_size / 1e6:.1f} MB", "3"),
        ("shipped ViT live: a pass with all maps", f"{passing:.0f} ms", "150"),
        ("shipped ViT live: pictures a second while dragging", f"{rate:.0f}", "above 10"),
        ("heap after 500 interactions", f"{growth:+.1f} MB", "10"),
    ]


def stored_rows(started: Any, folder: Path) -> list[tuple[str, str, str]]:
    """ViT-S/16 at 384, whose queries and keys are stored."""
    path, weights = folder / "small.html", folder / "small.safetensors"
    model = small_384()
    minivit.save_model(model, weights)
    write_page(model, [PHOTO], path)
    view = first_view(started, path)
    with opened(started, path) as here:
        interactions(here, 5)
        median, largest = interactions(here)
    explore = command("explore", PHOTO, "--weights", str(weights), "--out", str(folder / "a.html"))
    attention = command("attention", PHOTO, "--weights", str(weights), "--out", str(folder))
    return [
        ("ViT-S/16, 577 tokens: file", f"{path.stat().st_size / 1e6:.1f} MB", "20"),
        ("ViT-S/16, 577 tokens: first view", f"{view:.2f} s", "1.5"),
        ("ViT-S/16, 577 tokens: an interaction", f"{median:.0f} ms, at most {largest:.0f}", "50"),
        (
            "visualize.py explore / attention, one photo",
            f"{explore / attention:.2f} ({explore:.1f} s)",
            "1.5",
        ),
    ]


def words_in_turn(here: Opened, count: int) -> tuple[float, float]:
    """Median and largest milliseconds of a caption's words, steps, layers and heads in turn."""
    times = here.page.evaluate(
        """(count) => {
          const { caption, numHeads } = viewOf(), out = [];
          for (let k = 0; k < count; k++) {
            const start = performance.now();
            choose({ word: k % caption.words.length, align: k % 3 ? 'predicts' : 'reads',
              block: k % page.config.depth, head: k % 2 ? 'mean' : k % numHeads,
              pin: k % 5 ? null : 0, relative: k % 4 === 0 });
            out.push(performance.now() - start);
          }
          return out;
        }""",
        count,
    )
    return statistics.median(times), max(times)


def captioner_rows(started: Any, folder: Path) -> list[tuple[str, str, str]]:
    """The shipped captioner, whose steps are stored."""
    path = folder / "captioner.html"
    pictures = [
        PagePicture(f"scene {n}", make_scene(TEST_SEED, n, image_size=96).image) for n in range(4)
    ]
    write_page(minivit.load_model("scenes_captioner"), pictures, path, beam_size=3)
    view = first_view(started, path)
    with opened(started, path) as here:
        words_in_turn(here, 20)
        median, largest = min(words_in_turn(here, 60) for _ in range(3))
        before = heap(here)
        words_in_turn(here, 500)
        growth = heap(here) - before
    return [
        ("captioner, 4 scenes, 3 beams: file", f"{path.stat().st_size / 1e6:.1f} MB", "20"),
        ("captioner: first view", f"{view:.2f} s", "1.5"),
        ("captioner: a word is drawn", f"{median:.0f} ms, at most {largest:.0f}", "50"),
        ("captioner: heap after 500 words", f"{growth:+.1f} MB", "10"),
    ]


def real_rows(started: Any, folder: Path) -> list[tuple[str, str, str]]:
    """The ViT-S/14 of `make real`, dropped onto a page; empty where it is not there."""
    weights = real.path()
    if weights is None:
        return []
    path = folder / "drop.html"
    write_page(minivit.load_model("scenes"), [PHOTO], path)
    torch_ms = torch_time(minivit.load_model(weights))
    with opened(started, path) as here:
        here.wait_until("passes.has(0)")
        start = time.perf_counter()
        here.page.set_input_files("#files", [str(weights)])
        here.wait_until("page.config.dim === 384", seconds=60)
        ready = time.perf_counter() - start
        here.wait_until("passes.has(0)", seconds=120)
        by_kernel = pass_time(here)
        here.page.evaluate("decoded.set(page.kernel.array, null); passes.clear()")
        here.page.set_input_files("#files", [str(weights)])
        here.wait_until("passes.has(0)", seconds=300)
        plain = here.page.evaluate("passes.get(0).milliseconds")
    return [
        ("ViT-S/14 live, 257 tokens: ready after the drop", f"{ready:.1f} s", "3"),
        ("ViT-S/14 live: a pass with all maps, kernel", f"{by_kernel / 1000:.2f} s", "1.0"),
        ("ViT-S/14 live: the same without the kernel", f"{plain / 1000:.1f} s", "5"),
        (
            "ViT-S/14 live: kernel / torch, one thread, all maps",
            f"{by_kernel / torch_ms:.1f} ({torch_ms:.0f} ms)",
            "4",
        ),
    ]


def main() -> None:
    """Prints the table."""
    kinds = {
        "stored": stored_rows,
        "scenes": scenes_rows,
        "captioner": captioner_rows,
        "real": real_rows,
    }
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", choices=kinds, nargs="+", default=[*kinds], help="default: all")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, browser() as started:
        folder = Path(name)
        rows = [row for kind in args.rows for row in kinds[kind](started, folder)]
        capability = torch.backends.cpu.get_cpu_capability()
        print(f"Chromium {started.version}, torch {torch.__version__} ({capability})\n")
    print("| what | measured | at most |\n| --- | --- | --- |")
    for row in rows:
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
