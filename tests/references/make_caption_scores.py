"""Scores of captions by the whole of pycocoevalcap, its Java tokenizer included.

    python -m tests.references.make_caption_scores   (from the top of the repository; needs Java)

Writes `caption_scores.json`: the captions below, their words after `PTBTokenizer` and the removal
of punctuation, the scores of `Bleu(4)`, `Rouge()` and `Cider()` on these words, and versions. The
captions are made up, and hold what is hard to tokenize in captions.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

TARGET = Path(__file__).with_name("caption_scores.json")

# (what people wrote, the candidate)
CAPTIONS = (
    (
        (
            "A man's T-shirt hangs on a chair, isn't it red?",
            "A red t-shirt is hanging over the back of a wooden chair.",
            "There's a red shirt on a chair.",
        ),
        "A red shirt is hanging on a chair.",
    ),
    (
        (
            "Two dogs (one big, one small) run... fast!",
            "Two dogs are running across a field --- really fast!!",
            "A big dog and a small dog run through the grass.",
            "Dogs run ; the grass is green",
        ),
        "Two dogs running through the grass",
    ),
    (
        (
            "A clock that says 5:30 p.m. on St. John's tower.",
            "The tower's clock shows half past five.",
            "An old clock tower at 5:30",
        ),
        "A tower with a clock on it.",
    ),
    (
        (
            'A sign reads "No parking" in black/white letters.',
            "A street sign in the U.S. that says ‘no parking’",
            "Someone’s put a no-parking sign on the street - again.",
        ),
        "A sign on a street that says stop.",
    ),
    (
        (
            "1,000 birds & 3.5 pizzas; 50% off for $5.",
            "Birds steal a slice of pizza from a plate.",
            "Some birds that cannot stop eating pizza",
        ),
        "birds are eating a slice of pizza",
    ),
    (
        (
            "A child is gonna eat [something] with mom and/or dad",
            "A little girl sits at a table with her parents.",
            "They're having dinner, and she'll eat it all: rice, fish...",
        ),
        "a little girl is sitting at a table with food",
    ),
    (
        (
            "An 8-year-old boy on a skateboard, mid-air.",
            "A boy does a trick on his skateboard . ",
            "  Skateboarder   in the air",
        ),
        "A boy doing a trick in the air on a skateboard.",
    ),
    (
        (
            "Dr. Smith's office, with a desk & two computers",
            "An office desk with two computers on it?!",
            "A desk.",
        ),
        "A desk with a computer and a desk with a computer.",
    ),
)


def main() -> None:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    def words(texts: dict[int, list[str]]) -> dict[int, list[str]]:
        entries = {i: [{"caption": text} for text in group] for i, group in texts.items()}
        return PTBTokenizer().tokenize(entries)

    references = words({i: list(pair[0]) for i, pair in enumerate(CAPTIONS)})
    candidates = words({i: [pair[1]] for i, pair in enumerate(CAPTIONS)})
    bleu = Bleu(4).compute_score(references, candidates, verbose=0)[0]
    scores = {f"BLEU-{n}": score for n, score in enumerate(bleu, start=1)}
    scores["ROUGE-L"] = float(Rouge().compute_score(references, candidates)[0])
    scores["CIDEr-D"] = float(Cider().compute_score(references, candidates)[0])
    pictures = [
        {
            "references": list(pair[0]),
            "candidate": pair[1],
            "reference_words": references[i],
            "candidate_words": candidates[i][0],
        }
        for i, pair in enumerate(CAPTIONS)
    ]
    versions = {"pycocoevalcap": version("pycocoevalcap")}
    content = {"made_with": versions, "scores": scores, "pictures": pictures}
    TARGET.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
