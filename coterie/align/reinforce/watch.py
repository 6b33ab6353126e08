"""Held-out prompts, judged by everything whatever is rewarded, so that a won reward and a lost text
show: words of one syllable, repeated pairs of words, copied lines, what the reference makes of it.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from coterie.align.reinforce.events import Alarm
from coterie.align.rewards import Corpus, Sample, Scores
from coterie.align.rewards.copying import Copying
from coterie.align.rewards.metre import Metre, lines_of
from coterie.language.verse.score import score


@dataclass(frozen=True)
class Bound:
    """How far a figure may leave that of the start or of people, whichever is further, and why."""

    figure: str
    room: float
    above: bool
    message: str


BOUNDS = (
    Bound("monosyllables", 0.05, True, "words of one syllable take over; reward long_words"),
    Bound("distinct_2", 0.05, False, "pairs of words are repeated; reward repetition (a cost)"),
    Bound("archaic", 0.08, True, "archaic words take over; reward archaic, which is a spread"),
    Bound("copied", 0.10, True, "the training text is copied; reward copying (a cost)"),
    Bound("reference_nats", 0.25, True, "the start finds the texts unlikely; raise align.kl"),
    Bound("ended", 0.10, False, "texts do not come to an end; reward length"),
)


def figures_of(
    samples: Sequence[Sample], corpus: Corpus, scores: Scores | None
) -> dict[str, float]:
    """Return the figures of texts, each a mean over texts, or of all words together."""
    lines = [line for each in samples for line in lines_of(each.lines)]
    metre = Metre(graded=False)
    found = {
        "metrical": statistics.fmean(map(metre.of, samples)),
        "ended": statistics.fmean(each.ended for each in samples),
    }
    words = score("\n\n".join(lines))["words"]
    for name in ("monosyllables", "distinct_2", "archaic"):
        value = words[name]
        if isinstance(value, float):
            found[name] = value
    if corpus.text:
        found["copied"] = abs(statistics.fmean(Copying().build(corpus)(samples)))
    known = [(each.reference, each.tokens) for each in samples if each.reference is not None]
    if known:
        tokens = sum(count for _, count in known)
        found["reference_nats"] = -sum(mean * count for mean, count in known) / tokens
    if scores is not None:
        found["reward"] = statistics.fmean(scores.total)
        found |= {f"rewards/{name}": statistics.fmean(v) for name, v in scores.parts.items()}
    return found


def alarms(
    step: int, now: dict[str, float], start: dict[str, float], human: dict[str, float]
) -> list[Alarm]:
    """Return an alarm for each figure that has left its bound."""
    found = []
    for each in BOUNDS:
        known = [figures[each.figure] for figures in (start, human) if each.figure in figures]
        if each.figure not in now or not known:
            continue
        value = now[each.figure]
        bound = max(known) + each.room if each.above else min(known) - each.room
        if (value > bound) if each.above else (value < bound):
            found.append(
                Alarm(step=step, figure=each.figure, value=value, bound=bound, message=each.message)
            )
    return found
