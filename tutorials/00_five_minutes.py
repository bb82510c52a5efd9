# %% [markdown]
# # 0. Five minutes
#
# From `pip install` to a map over your own photo and a sentence about it. Then the course task in
# about twenty lines: labels in a CSV file, the position grid, class-token maps, word grids.
#
# Time: five minutes to read, fifteen seconds to run. You should know a little Python. The other
# lessons explain what is used here; this one has no exercises.
#
# ```
# pip install ".[tutorials]"   # in a clone of minivit
# make real                    # optional, once, 90 MB: a model that was trained on photos
# ```
#
# Then open this file in Jupyter or VS Code, with the clone's environment as its kernel.

# %% tags=["imports"]
import inspect
import io
import math
import tempfile
from pathlib import Path

import torch
from IPython.display import Image as Shown
from matplotlib.figure import Figure
from PIL import Image

import minivit
from minivit.data.scenes.dataset import CLASS_NAMES, TEST_SEED, make_scene
from minivit.explain import position_scores, position_similarity, query_attention
from minivit.preprocess import is_picture
from minivit.training.classify.predictions import write_predictions
from minivit.viz import attention_figure, caption_figure, positions_figure
from tutorials.weights import real_or_shipped

PHOTO = "photos/coffee.jpg"  # the path of your own photo
CAPTIONER = "scenes_captioner"  # or the path of another one, see below

# %% [markdown]
# ## A map over your photo
#
# Load a model, turn the photo into its input, run it and ask for one row of attention weights,
# draw. The row is that of the class token in the last block: how much it takes from each patch.
# The photo is shown at the left; what the model does not see of it is veiled. The other panels
# are the mean over all heads, and each head.
#
# With `make real` the model has seen photos. Without it the cell takes the shipped one, which has
# seen drawn shapes only, and whose maps over photos mean little.
#
# **Before you run it:** do all heads of the last block look at the same thing?


# %%
def on_page(page: Figure | Image.Image) -> Shown:
    """A figure, or a picture of one, as a small JPEG for this notebook."""
    file = io.BytesIO()
    if isinstance(page, Figure):
        page.savefig(file, format="jpeg", dpi=80, pil_kwargs={"quality": 85})
    else:
        page.resize((900, 900 * page.height // page.width)).save(file, "JPEG", quality=85)
    return Shown(file.getvalue(), format="jpeg")


def look(model: minivit.VisionTransformer, photo: Image.Image) -> tuple[torch.Tensor, Figure]:
    """The logits (classes,) of a photo, and a figure of what the class token looks at."""
    images = model.preprocess(photo)[None]  # (3, H, W) -> (1, 3, H, W)
    rows = minivit.AttentionRows(blocks=[-1], queries=[0])  # last block, class token
    with torch.inference_mode():
        logits, attentions = model(images, return_attention=rows)
    maps = query_attention(attentions)[0]  # (1, heads, rows, cols) -> (heads, rows, cols)
    box, num_tokens = model.preprocess.crop_box(*photo.size), attentions[0].shape[-1]
    heading = "The class token's attention in the last block"
    return logits[0], attention_figure(photo, box, maps, num_tokens=num_tokens, heading=heading)


model, is_real = real_or_shipped()
photo = minivit.open_image(PHOTO)
on_page(look(model, photo)[1])

# %% [markdown]
# In a terminal: `python visualize.py attention PHOTO.jpg --weights W`, where W is the file that
# `make real` names in its last line. Above each panel stands how much of the attention goes to
# patches at all. Where heads disagree, their mean hides it: lesson 6 reads maps head by head, and
# lesson 7 asks how far they may be believed.
#
# ## A sentence about it
#
# The shipped captioner was trained on drawn scenes. It knows 48 kinds of objects, two sizes and
# where they lie; each word has a map of where the captioner looked when it said the word. First a
# scene, whose truth is known, then your photo.
#
# **Before you run it:** what does a captioner that has never seen a photo say about one?

# %%
assert len(CLASS_NAMES) == 48
captioner = minivit.load_model(CAPTIONER)
scene = make_scene(TEST_SEED, 9, image_size=96)
of_scene, of_photo = captioner.caption([scene.image, photo])
mean = {}
for name, caption in (("scene", of_scene), ("photo", of_photo)):
    mean[name] = math.exp(sum(word.log_prob for word in caption.words) / len(caption.words))
    print(f"{name}: {caption.text} ({mean[name]:.0%} a word)")
print(f"the scene's own caption: {scene.caption}")
if (PHOTO, CAPTIONER) == ("photos/coffee.jpg", "scenes_captioner"):
    assert abs(mean["scene"] - mean["photo"]) < 0.1
on_page(caption_figure(scene.image, of_scene, heading="A word, its probability, and its map"))

# %% [markdown]
# The per cent are the geometric mean of the words' probabilities. About the cup of coffee the
# captioner is as sure as about the scene, and all of it is false: a captioner always says
# something, and how sure it is does not tell that it has never seen the like.
#
# For photos there is CATR, trained on COCO. `python -m weights_convert catr_v3` fetches and
# converts it where the network allows; `CAPTIONER = "../weights/catr_v3.safetensors"` at the top
# then uses it. In a terminal: `python visualize.py caption PHOTO.jpg --weights
# weights/catr_v3.safetensors`.
#
# ## The position grid
#
# A transformer gets its patches as a list, and each with a learned vector that says which place
# it came from. The small map at each place shows how similar its vector is to all others.
#
# **Before you run it:** what would the maps look like if similarity fell with distance alone?

# %%
similarity = position_similarity(model)  # (rows, cols, rows, cols)
print(position_scores(similarity))
on_page(positions_figure(similarity, heading="Position embeddings: similarity of each to all"))

# %% [markdown]
# A disc around each place would be distance alone. Lesson 2 measures how far it is from that.
#
# ## The course task, in about twenty lines
#
# Given: a folder of pictures, a classifier and a captioner. Wanted: `predictions.csv` with the
# columns `filename,label`, the position grid, and for each picture the class token's map and a
# grid of words. `write_predictions` quotes names that need it and leaves no half-written file.


# %%
def course_task(
    folder: Path, classifier: minivit.VisionTransformer, captioner: minivit.Captioner, out: Path
) -> None:
    """Write predictions.csv, positions.png, and NAME_map.png and NAME_words.png a picture."""
    out.mkdir(parents=True, exist_ok=True)
    paths, answers = [path for path in sorted(folder.iterdir()) if is_picture(path)], []
    for path in paths:
        photo = minivit.open_image(path)
        logits, figure = look(classifier, photo)
        answers.append(classifier.labels[int(logits.argmax())])
        figure.savefig(out / f"{path.stem}_map.png")
        (caption,) = captioner.caption([photo])
        words = caption_figure(photo, caption, layout=(4, 4), heading=path.name)
        words.savefig(out / f"{path.stem}_words.png")
    write_predictions(out / "predictions.csv", [path.name for path in paths], answers)
    positions_figure(position_similarity(classifier)).savefig(out / "positions.png")


lines = [inspect.getsource(function).splitlines() for function in (look, course_task)]
counts = [len([line for line in part if line.strip()]) for part in lines]
print(f"look: {counts[0]} lines, course_task: {counts[1]}, signatures and docstrings included")
assert sum(counts) < 30

# %% [markdown]
# Here it runs on four scenes that were held out from training, with the shipped classifier, whose
# labels are known: the colour and shape of the largest object.

# %%
NUM_SCENES = 4
truth = {}
with tempfile.TemporaryDirectory() as name:
    folder, out = Path(name) / "pictures", Path(name) / "out"
    folder.mkdir()
    for index in range(NUM_SCENES):
        drawn = make_scene(TEST_SEED, index, image_size=96)
        drawn.image.save(folder / f"scene_{index}.png")
        truth[f"scene_{index}.png"] = CLASS_NAMES[drawn.label]
    course_task(folder, minivit.load_model("scenes"), captioner, out)
    table = (out / "predictions.csv").read_text(encoding="utf-8")
    written = sorted(path.name for path in out.iterdir())
    map_page, words_page = (
        minivit.open_image(out / f"scene_3_{kind}.png") for kind in ("map", "words")
    )
print(table)
print(f"{len(written)} files:", ", ".join(written[:4]), "…")
answers = dict(line.split(",") for line in table.splitlines()[1:])
right = sum(answers[name] == label for name, label in truth.items())
print(f"right: {right} of {NUM_SCENES}")
assert list(answers) == sorted(truth) and right >= 3

# %%
on_page(map_page)

# %%
on_page(words_page)

# %% [markdown]
# On your own photos: train a classifier first, `python train.py classify --data PHOTOS`, with a
# folder a class; then `minivit.load_model("runs/…/best.safetensors")` in place of the shipped
# one. The same from a terminal, without a line of Python:
#
# ```
# python train.py evaluate --data FOLDER --weights W --predictions predictions.csv
# python visualize.py positions --weights W
# python visualize.py attention FOLDER/*.jpg --weights W
# python visualize.py caption FOLDER/*.jpg --layout 4x4 --weights W2
# ```
#
# ## What next
#
# Lessons 1 to 4 build the model: [tokens](01_pixels_to_tokens.ipynb), positions, attention,
# blocks. Lesson 5 trains it. Lessons 6 and 7 read its maps and doubt them. Lessons 8 and 9 do the
# same for sentences, and lesson 10 takes a model apart.
