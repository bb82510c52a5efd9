"""From logits to sentences: the likeliest by beam search, or one drawn by chance.

A search knows no network and no picture. It asks `NextWords` for two things: `logits`, how likely
each word is to come next, and `reorder`, which sentences go on from which. The captioner answers
with the decoder and its caches; a table of four words would do as well.

`generate` has seven stations; the numbers stand beside its lines::

    1 start      K equal beams for each picture, of which one counts
    2 ask        log-probabilities of the next word of every beam
    3 rank       the 2·K best continuations of each picture
    4 harvest    those that end are sentences; the K best of them are kept
    5 settle     a picture is done when no unfinished sentence promises to be better
    6 extend     the K best of the others go on; back to 2
    7 cut        at the greatest length, what has not ended is cut

Next: `minivit/word_maps.py`, which map belongs to which word.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class NextWords(Protocol):
    """What a search needs to know of a captioner: R sentences that grow word by word.

    An object serves one search, since it remembers the words that it was given.

    Attributes:
        num_pictures: B. R is B times the number of sentences followed for each picture, those of
            one picture next to each other.
        start_id: Number of the token that every sentence begins with.
        end_id: Number of the token that ends a sentence.
        vocabulary_size: V, number of words.
        max_length: Greatest number of tokens of a sentence, the start token counted.
        device: Device of the logits.
    """

    num_pictures: int
    start_id: int
    end_id: int
    vocabulary_size: int
    max_length: int
    device: torch.device

    def logits(self, last_words: Tensor) -> Tensor:
        """Adds a word to each sentence, (R,), and gives the logits of the next one, (R, V)."""
        ...

    def reorder(self, index: Tensor) -> None:
        """Lets sentence i go on from sentence `index[i]`, (R,)."""
        ...


class Hypothesis(NamedTuple):
    """A sentence in numbers.

    Attributes:
        token_ids: Numbers of its tokens, without start and end token.
        log_probs: Log-probability of each token; where the sentence ended, also of the end token.
        ended: Whether it ended, or was cut at the greatest length.
        score: Sum of log_probs / their number ** length_penalty.
    """

    token_ids: list[int]
    log_probs: list[float]
    ended: bool
    score: float


# ---- beam search ---------------------------------------------------------------------------------


class Continuations(NamedTuple):
    """Beams with one more word: n of each picture, the best first; every tensor is (B, n).

    Attributes:
        totals: Sums of the log-probabilities of all words.
        rows: Number of the beam that goes on, 0 to B·K - 1.
        words: Number of the new word.
        log_probs: Log-probability of the new word.
    """

    totals: Tensor
    rows: Tensor
    words: Tensor
    log_probs: Tensor

    def without(self, word: int, number: int) -> Continuations:
        """The first `number` of each picture whose new word is another one."""
        order = (self.words == word).int().argsort(dim=1, stable=True)[:, :number]
        return Continuations(*(part.gather(1, order) for part in self))


@dataclass(frozen=True)
class Beams:
    """K unfinished sentences of each of B pictures; row b·K + k is beam k of picture b.

    Attributes:
        tokens: (B·K, t) words so far, the start token first.
        log_probs: (B·K, t - 1) log-probabilities of the words after the start token.
        scores: (B, K) sums of log_probs, the best first; -inf: the beam does not count.
    """

    tokens: Tensor
    log_probs: Tensor
    scores: Tensor

    @classmethod
    def start(cls, next_words: NextWords, beam_size: int) -> Beams:
        """Nothing but start tokens. All beams of a picture are equal, so that only one counts."""
        pictures, device = next_words.num_pictures, next_words.device
        scores = torch.full((pictures, beam_size), -torch.inf, device=device)
        scores[:, 0] = 0.0
        return cls(
            tokens=torch.full((pictures * beam_size, 1), next_words.start_id, device=device),
            log_probs=torch.zeros(pictures * beam_size, 0, device=device),
            scores=scores,
        )

    def rank(self, log_probs: Tensor, number: int) -> Continuations:
        """The best continuations of each picture.

        Args:
            log_probs: (B·K, V) of the next word.
            number: n, how many.
        """
        pictures, beam_size = self.scores.shape
        vocabulary = log_probs.shape[1]
        totals = self.scores.view(-1, 1) + log_probs  # (B, K) -> (B·K, V)
        best, place = totals.view(pictures, -1).topk(number)  # (B·K, V) -> (B, K·V) -> (B, n)
        first_rows = torch.arange(0, len(totals), beam_size, device=totals.device)
        rows, words = first_rows[:, None] + place // vocabulary, place % vocabulary
        return Continuations(best, rows, words, log_probs[rows, words])

    def extend(self, chosen: Continuations) -> Beams:
        """The beams after their new word."""
        rows, words, log_probs = (part.flatten() for part in chosen[1:])  # (B, K) -> (B·K,)
        return Beams(
            tokens=torch.cat([self.tokens[rows], words[:, None]], dim=1),
            log_probs=torch.cat([self.log_probs[rows], log_probs[:, None]], dim=1),
            scores=chosen.totals,
        )

    def sentence(self, row: int, *, ended: bool, score: float) -> Hypothesis:
        """The words of one beam so far."""
        return Hypothesis(self.tokens[row, 1:].tolist(), self.log_probs[row].tolist(), ended, score)


@dataclass
class Harvest:
    """The best sentences of one picture.

    Attributes:
        size: K, how many are kept.
        sentences: Up to K, the best first.
        done: Whether the search for this picture is over.
    """

    size: int
    sentences: list[Hypothesis] = field(default_factory=list)
    done: bool = False

    def add(self, sentence: Hypothesis) -> None:
        """Keeps a sentence if it is one of the K best."""
        ranked = sorted([*self.sentences, sentence], key=lambda each: -each.score)
        self.sentences = ranked[: self.size]

    def settle(self, unfinished: float) -> None:
        """Ends the search when there are K sentences and no better one is in sight.

        One beam is done with its first sentence: what ends it is likelier than all else.

        Args:
            unfinished: Score of the best unfinished sentence by its present length.
        """
        if len(self.sentences) == self.size:
            self.done |= unfinished <= self.sentences[-1].score


@torch.inference_mode()
def generate(
    next_words: NextWords,
    *,
    beam_size: int = 1,
    max_length: int | None = None,
    length_penalty: float = 1.0,
) -> list[list[Hypothesis]]:
    """The likeliest sentences by beam search; with one beam, greedily.

    A picture is done when `beam_size` sentences have ended and no unended one has a better score by
    its present length (the usual heuristic: a longer one might still overtake).

    Args:
        next_words: A new one, such as `Captioner.next_words` makes.
        beam_size: K, sentences followed at a time for each picture.
        max_length: Greatest number of tokens, the start token counted; None: the captioner's own.
        length_penalty: Exponent of the length that divides the sum of log-probabilities; 0 prefers
            short sentences, 1 compares means. It does nothing with one beam.

    Returns:
        For each picture up to K sentences, the best first.

    Raises:
        ValueError: A beam size below 1 or above half the vocabulary, a length that is not possible.
    """
    most = next_words.vocabulary_size // 2
    if not 1 <= beam_size <= most:
        raise ValueError(f"beam_size is {beam_size}, expected 1 to {most}")
    length = _check_length(next_words, max_length)
    end = next_words.end_id
    beams = Beams.start(next_words, beam_size)  # 1 start
    harvests = [Harvest(beam_size) for _ in range(next_words.num_pictures)]
    for step in range(1, length):
        log_probs = _log_probs(next_words.logits(beams.tokens[:, -1]))  # 2 ask
        # Twice as many as there are beams: each beam can end once, so that K at least go on.
        ranked = beams.rank(log_probs, 2 * beam_size)  # 3 rank
        for picture, place in (ranked.words[:, :beam_size] == end).nonzero().tolist():  # 4 harvest
            if not harvests[picture].done:
                total, row, _, log_prob = (part[picture, place].item() for part in ranked)
                score = total / step**length_penalty
                ended = beams.sentence(int(row), ended=True, score=score)
                ended.log_probs.append(log_prob)
                harvests[picture].add(ended)
        going_on = ranked.without(end, beam_size)
        for harvest, total in zip(harvests, going_on.totals[:, 0].tolist(), strict=True):
            harvest.settle(total / step**length_penalty)  # 5 settle
        if all(harvest.done for harvest in harvests):
            break
        if beam_size > 1:
            next_words.reorder(going_on.rows.flatten())  # (B, K) -> (B·K,)
        beams = beams.extend(going_on)  # 6 extend
    for row, total in enumerate(beams.scores.flatten().tolist()):  # 7 cut
        harvest = harvests[row // beam_size]
        if not harvest.done:
            score = total / (length - 1) ** length_penalty
            harvest.add(beams.sentence(row, ended=False, score=score))
    return [harvest.sentences for harvest in harvests]


def _log_probs(logits: Tensor) -> Tensor:
    return logits.float().log_softmax(dim=-1)


def _check_length(next_words: NextWords, max_length: int | None) -> int:
    most = next_words.max_length
    length = most if max_length is None else max_length
    if not 2 <= length <= most:
        raise ValueError(f"max_length is {length}: this captioner writes 2 to {most} tokens")
    return length


# ---- sentences by chance -------------------------------------------------------------------------


@torch.inference_mode()
def sample(
    next_words: NextWords,
    *,
    seed: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    max_length: int | None = None,
) -> list[Hypothesis]:
    """One sentence for each picture, each word drawn by chance.

    Args:
        next_words: A new one, such as `Captioner.next_words` makes.
        seed: Seed for all draws: the same one gives the same sentences.
        temperature: Divisor of the logits; below 1 likely words become likelier.
        top_k: Number of the likeliest words from which one is drawn; None: all.
        top_p: Probability that the words from which one is drawn must reach together, and the
            fewest that do are taken ("nucleus", arXiv:1904.09751).
        max_length: As in `generate`.

    Returns:
        For each picture a sentence; its log_probs are the captioner's own, before temperature and
        restrictions, and its score is their mean.

    Raises:
        ValueError: A temperature or top_p not above 0, top_p above 1, top_k below 1, a length that
            is not possible.
    """
    if temperature <= 0 or not 0 < top_p <= 1 or (top_k is not None and top_k < 1):
        raise ValueError(
            f"temperature {temperature}, top_p {top_p}, top_k {top_k}: expected above 0, in (0, 1] "
            "and at least 1"
        )
    length = _check_length(next_words, max_length)
    generator = torch.Generator(device="cpu").manual_seed(seed)
    drawn = torch.full((next_words.num_pictures, 1), next_words.start_id)
    words: list[Tensor] = []  # (B, 1) each
    log_probs: list[Tensor] = []
    ended = torch.zeros(drawn.shape, dtype=torch.bool)
    for _ in range(1, length):
        logits = next_words.logits(drawn[:, 0].to(next_words.device)).float().cpu()  # (B, V)
        allowed = _restrict(logits / temperature, top_k, top_p).softmax(dim=-1)
        drawn = torch.multinomial(allowed, 1, generator=generator)  # (B, V) -> (B, 1)
        words.append(drawn)
        log_probs.append(_log_probs(logits).gather(1, drawn))  # (B, V) -> (B, 1)
        ended |= drawn == next_words.end_id
        if ended.all():
            break
    rows = zip(torch.cat(words, dim=1).tolist(), torch.cat(log_probs, dim=1).tolist(), strict=True)
    return [_until_end(*row, next_words.end_id) for row in rows]


def _restrict(logits: Tensor, top_k: int | None, top_p: float) -> Tensor:
    """Logits with -inf at the words that may not be drawn."""
    ordered, order = logits.sort(dim=-1, descending=True)
    before = ordered.softmax(dim=-1).cumsum(dim=-1) - ordered.softmax(dim=-1)
    keep = before < top_p  # a word stays while those before it do not make up top_p
    if top_k is not None:
        keep[:, top_k:] = False
    return logits.masked_fill(~keep.gather(-1, order.argsort(dim=-1)), -torch.inf)


def _until_end(words: list[int], log_probs: list[float], end: int) -> Hypothesis:
    """The sentence before the first end token; all words where there is none."""
    ended = end in words
    count = words.index(end) if ended else len(words)
    own = log_probs[: count + ended]
    return Hypothesis(words[:count], own, ended, sum(own) / len(own))
