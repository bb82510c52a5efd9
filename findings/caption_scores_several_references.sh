#!/usr/bin/env bash
# Two caption scores that go wrong through having several references: COCO's ROUGE-L and torchmetrics' BLEU
#
# Packages: pycocoevalcap 1.2, torchmetrics 1.9.0 (torch 2.13.0 on the CPU), sacrebleu 2.6.0, nltk 3.10.4, numpy 2.4.6.
# Date: 2026-11-28
#
# Expected: a score against several references is 1 only for a caption equal to one of them, and does not depend on the order
#   in which the references are listed.
# Happens:
#   1. pycocoevalcap's ROUGE-L takes the best precision over the references and the best recall over the references, each from
#      whichever reference it likes, and only then forms F (beta 1.2). A caption cut off after a few words is contained in a long
#      reference (precision 1), and itself contains a short one (recall 1): 1.0, though it equals neither.
#      "a group of people" against "a group of people standing around a kitchen" (0.629) and "people" (0.449): 1.000.
#      "a a a a a" against "a man on a bench with a dog and a cat near a tree" (0.485) and "a" (0.379): 1.000.
#      The best single reference would give 0.629 and 0.485. In the five-reference example below 0.647 becomes 0.936.
#   2. torchmetrics' BLEU takes, where two references are equally near in length, the one that is *listed first*, where
#      sacrebleu, nltk and pycocoevalcap take the shorter. The same caption and the same two references: 0.4835 in one order, 0.6435 in the other;
#      SacreBLEUScore, which is documented to follow sacrebleu, gives 0.4835 where sacrebleu gives 0.6435.
#      Over 1,000 made-up pictures with five references each: 0.872 as listed, 0.888 with the short ones first, 0.859 with
#      the long ones first; sacrebleu 0.888 in every order.
# Why it matters: captioners are compared by these numbers. Part 1 rewards captions that stop early in data sets whose references
#   differ much in length; part 2 makes BLEU depend on the order of the annotation file, so that two correct readers of the same
#   file report different scores.
set -euo pipefail
export OMP_NUM_THREADS=1
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
python3 -m venv "$tmp/env"
"$tmp/env/bin/pip" install -qq torch==2.13.0 torchmetrics==1.9.0 sacrebleu==2.6.0 nltk==3.10.4 numpy==2.4.6
"$tmp/env/bin/pip" install -qq --no-deps pycocoevalcap==1.2
cat > "$tmp/check.py" <<'E'
import random, warnings
warnings.simplefilter("ignore")
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.bleu.bleu import Bleu
from torchmetrics.text import BLEUScore, SacreBLEUScore
import sacrebleu
from nltk.translate.bleu_score import corpus_bleu

print("1. ROUGE-L of pycocoevalcap: all references together, and each alone")
rouge = Rouge()
cases = [("a group of people", ["a group of people standing around a kitchen", "people"], 1.0, 0.629),
         ("a a a a a", ["a man on a bench with a dog and a cat near a tree", "a"], 1.0, 0.485),
         ("a brown dog is running on grass",
          ["a brown dog is running across the green grass in a park", "dog on grass", "a dog plays outside",
           "the puppy runs through a field", "a brown dog runs"], 0.936, 0.647)]
for caption, refs, together, best in cases:
    t = rouge.calc_score([caption], refs)
    alone = [rouge.calc_score([caption], [r]) for r in refs]
    print(f"   {caption!r}: together {t:.3f}, alone", [round(s, 3) for s in alone])
    assert caption not in refs and abs(t - together) < 6e-4 and abs(max(alone) - best) < 6e-4, (t, max(alone))

print("2. BLEU-4, two references of 9 and 5 words, caption of 7")
caption = "a dog runs on the wet beach"
refs = ["a dog runs on the beach today in sun", "a dog runs on the"]
for order, want in ((refs, 0.4835), (refs[::-1], 0.6435)):
    coco = Bleu(4).compute_score({0: order}, {0: [caption]}, verbose=0)[0][3]
    nltk_ = corpus_bleu([[r.split() for r in order]], [caption.split()])
    sacre = sacrebleu.corpus_bleu([caption], [[r] for r in order], smooth_method="none").score / 100
    tm = float(BLEUScore(4)([caption], [order]))
    tms = float(SacreBLEUScore(4)([caption], [order]))
    print(f"   lengths {[len(r.split()) for r in order]}: torchmetrics BLEUScore {tm:.4f}, SacreBLEUScore {tms:.4f}; sacrebleu {sacre:.4f}, nltk {nltk_:.4f}, pycocoevalcap {coco:.4f}")
    assert abs(tm - want) < 1e-4 and abs(tms - want) < 1e-4
    assert max(abs(s - 0.6435) for s in (sacre, nltk_, coco)) < 1e-4

rng = random.Random(0)
words = "a the dog man red on runs in park with ball small".split()
sets = [[" ".join(rng.choices(words, k=rng.randint(6, 13))) for _ in range(5)] for _ in range(1000)]
captions = [" ".join((rng.choice(s).split() + rng.choices(words, k=4))[:rng.randint(6, 12)]) for s in sets]
values, others = [], []
for how in (lambda s: s, lambda s: sorted(s, key=lambda r: len(r.split())), lambda s: sorted(s, key=lambda r: -len(r.split()))):
    order = [how(s) for s in sets]
    values.append(float(BLEUScore(4)(captions, order)))
    others.append(sacrebleu.corpus_bleu(captions, [list(r) for r in zip(*order)], smooth_method="none").score / 100)
print("   1,000 pictures of five references: as listed, short first, long first:", [round(v, 4) for v in values], "sacrebleu:", [round(v, 4) for v in others])
assert max(values) - min(values) > 0.005 and max(others) - min(others) < 1e-9 and abs(values[1] - others[0]) < 1e-4
E
"$tmp/env/bin/python" "$tmp/check.py"
echo "as described"
