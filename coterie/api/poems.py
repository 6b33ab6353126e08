"""The verse of a run measured: what it writes now, or wrote while it was trained."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from coterie.api.model import Model
from coterie.api.verse import score
from coterie.data import store_for
from coterie.foundation.errors import UserError
from coterie.foundation.layers import Layer
from coterie.foundation.runs import cache_root, find_run


def score_run(
    model: Model,
    prompt: str = "",
    samples: int = 4,
    *layers: Layer,
    metre: str | None = None,
    form: str | None = None,
    training: str | None = None,
) -> dict[str, dict[str, Any]]:
    """Return what can be measured about texts that a model writes; see `coterie.api.verse.score`.

    Args:
        model: the model.
        prompt: belongs to each text.
        samples: how many to write; their seeds count up from the settings'.
        layers: laid over the run's own sampling settings.
        metre: that lines are held against; None: that of `verse`, else iambic pentameter.
        form: that stanzas are held against; None: that of `verse`, else rhymes are looked for.
        training: a text that may have been copied from; None: the run's own training split.

    Raises:
        SettingsError: a layer does not fit.
        UserError: there is no such metre or form, or the run's data are gone.
    """
    sampling = model.sampling(*layers)
    made = model.generate_with(prompt, sampling, samples)
    verse = sampling.verse
    if verse is not None:
        metre, form = metre or verse.measure, form or verse.form or verse.rhyme
    texts = [prompt + each.text for each in made]
    tokens = sum(len(each.tokens) for each in made)
    facts = {"texts": len(texts), "tokens": tokens, "seed": sampling.seed, "step": model.step}
    return {"written": facts, **_scored(model, texts, metre, form, training)}


def score_saved(
    model: Model, metre: str | None = None, form: str | None = None, training: str | None = None
) -> dict[str, dict[str, Any]]:
    """Return the same of the texts that the run wrote when it was last sampled in training.

    Raises:
        UserError: there are none, or see `score_run`.
    """
    files = sorted(find_run(model.name).samples.glob("step-*.txt"))
    if not files:
        raise UserError(
            f"The run {model.name} kept no text while it was trained.",
            hint="Leave --saved out: texts are written now.",
        )
    facts = {"texts": files[-1].name}
    text = files[-1].read_text(encoding="utf-8")
    return {"written": facts, **_scored(model, [text], metre, form, training)}


def training_texts(model: Model) -> Iterator[str]:
    """Yield the documents of the run's own training split, decoded.

    Raises:
        UserError: the run's data are gone.
    """
    settings = model.settings
    store = store_for(settings.data, settings.tokenizer, cache_root())
    for part in store.sources.values():
        tokens, starts = part.tokens("train"), part.document_starts("train").tolist()
        for start, end in zip(starts, [*starts[1:], len(tokens)], strict=True):
            yield part.tokenizer.decode(tokens[start:end].tolist())


def _scored(
    model: Model, texts: list[str], metre: str | None, form: str | None, training: str | None
) -> dict[str, dict[str, Any]]:
    known = training_texts(model) if training is None else [training]
    return score("\n\n".join(texts), metre or "iambic-pentameter", form, known)
