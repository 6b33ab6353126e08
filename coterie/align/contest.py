"""Two models beside each other: texts on the same held-out prompts, judged by the same rewards.

Each prompt is a match: the better reward wins, equal ones halve it. The interval of the win rate is
Wilson's (1927) at 95 %. Beside it stand the figures of the texts (diversity, words of one syllable,
copied words), and how well each model predicts how the held-out text itself goes on.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from coterie.align.reinforce.experience import Collector, Course
from coterie.align.reinforce.method import PromptData, ReinforceMethod
from coterie.align.reinforce.rollout import Writer
from coterie.align.reinforce.watch import figures_of
from coterie.align.rewards import Judge, Sample
from coterie.align.rewards.fluency import Fluency
from coterie.checkpoint import LoadedModel, load_model
from coterie.evaluate.scoring import sequence_logprobs
from coterie.foundation.errors import SettingsError
from coterie.foundation.printable import printable
from coterie.model import Decoder

_SEED = 1 << 42  # of the texts: the same random streams for both
_AT_ONCE = 256
_LIKE = 1e-9
_NORMAL = 1.959963984540054


class Side(NamedTuple):
    """What one model wrote, what that got, and its figures."""

    samples: list[Sample]
    totals: list[float]
    figures: dict[str, float]


@dataclass(frozen=True)
class Contest:
    """Two models' texts on the same prompts, in the same order."""

    one: Side
    other: Side

    @property
    def wins(self) -> tuple[int, int, int]:
        """Prompts on which the first won, lost, and was even."""
        apart = [a - b for a, b in zip(self.one.totals, self.other.totals, strict=True)]
        won, lost = sum(d > _LIKE for d in apart), sum(d < -_LIKE for d in apart)
        return won, lost, len(apart) - won - lost

    @property
    def win_rate(self) -> tuple[float, float, float]:
        """Share of matches that the first won, even ones half, and its interval."""
        won, _, even = self.wins
        return wilson(won + even / 2, len(self.one.totals))


def wilson(won: float, of: int) -> tuple[float, float, float]:
    """Return a share and its interval at 95 % (Wilson 1927, equation 6)."""
    share, z2 = won / of, _NORMAL**2
    middle = (share + z2 / (2 * of)) / (1 + z2 / of)
    half = _NORMAL * math.sqrt(share * (1 - share) / of + z2 / (4 * of * of)) / (1 + z2 / of)
    return share, max(middle - half, 0.0), min(middle + half, 1.0)


def contest(
    one: LoadedModel, other: LoadedModel, method: ReinforceMethod, data: PromptData
) -> Contest:
    """Let two models write on the held-out prompts of a method's data.

    Args:
        method: says how texts are drawn and judged.

    Raises:
        RewardError: a text cannot be judged.
        SettingsError: prompt and text are longer than a model's context; or fluency is to judge
            and there is no frozen start.
    """
    asks = any(isinstance(each, Fluency) for each in method.alignment.rewards)
    start = _start(one, other) if asks else None
    return Contest(_side(one, method, data, start), _side(other, method, data, start))


def _start(*sides: LoadedModel) -> Decoder:
    """Return what one of the two was tuned from, by which the fluency of both is told."""
    bases = [Path(each.settings["align"]["base"]) for each in sides if each.settings.get("align")]
    found = next((load_model(each) for each in bases if each.is_dir()), None)
    if found is None:
        raise SettingsError(
            "fluency is what a frozen start says of texts, and neither run was tuned from one"
            + (f" that is still there ({bases[0]})." if bases else "."),
            hint="Hold a run of coterie align against another; or judge by another reward, such "
            "as --reward metre.",
        )
    if any(each.tokenizer.fingerprint != found.tokenizer.fingerprint for each in sides):
        raise SettingsError(
            f"{found.path} cannot tell the fluency of both: their tokenizers differ.",
            hint="Judge by another reward, such as --reward metre.",
        )
    return found.decoder


def _side(
    loaded: LoadedModel, method: ReinforceMethod, data: PromptData, start: Decoder | None
) -> Side:
    own = method.alignment
    writer = Writer(loaded.decoder, loaded.tokenizer, own.rollout, _AT_ONCE)
    judge = Judge(own.rewards, data.corpus)
    collector = Collector(own, loaded.decoder, start, writer, judge, contextlib.nullcontext)
    course = Course(own.rollout.max_tokens, own.lines[-1])
    _, _, samples, scores = collector.judged(data.valid, 1, _SEED, course)
    figures = figures_of(samples, data.corpus, scores)
    if data.human:
        figures["nats_per_character"] = _predicts(loaded, data.human)
    return Side(samples, scores.total, figures)


def _predicts(loaded: LoadedModel, human: Sequence[Sample]) -> float:
    """Return the nats per character of how the text goes on, given the prompts."""
    rows, starts = [], []
    for each in human:
        asked = loaded.tokenizer.encode(each.prompt)
        rows.append([*asked, *loaded.tokenizer.encode(each.text)])
        starts.append(max(len(asked) - 1, 0))
    read = sequence_logprobs(loaded.decoder, rows)
    tails = [-row[start:] for row, start in zip(read, starts, strict=True)]
    return float(torch.cat(tails).sum()) / sum(len(each.text) for each in human)


def blind_sheet(found: Contest, count: int, seed: int) -> tuple[str, str]:
    """Return a sheet to print, on which nobody sees who wrote what, and its key.

    Args:
        count: prompts on it, drawn by the seed, which decides the sides too.
    """
    drawn = random.Random(seed)
    places = drawn.sample(range(len(found.one.samples)), min(count, len(found.one.samples)))
    sheet = ["Which continuation is better? Mark A, B, or = for neither.\n"]
    key = ["number\tA\tB\n"]
    for number, place in enumerate(places, start=1):
        sides = [("first", found.one.samples[place]), ("second", found.other.samples[place])]
        drawn.shuffle(sides)
        prompt = printable(sides[0][1].prompt, "\n").rstrip("\n")
        sheet.append(f"\n{number}.  A [ ]   B [ ]   = [ ]\n\n" + _indented(prompt))
        for letter, (_, sample) in zip("AB", sides, strict=True):
            sheet.append(f"\n  {letter}:\n" + _indented(printable(sample.text, "\n").rstrip("\n")))
        key.append(f"{number}\t{sides[0][0]}\t{sides[1][0]}\n")
    return "".join(sheet), "".join(key)


def _indented(text: str) -> str:
    return "".join(f"      {line}\n" for line in text.split("\n"))
