"""The loss of a preset's model before it has learnt anything: what its initial values say.

    python benchmarks/untrained.py [s15era [key=value …]] [--tokens 1024]

A model that spreads its predictions evenly over V tokens has a loss of ln V; wider initial values
make it certain of wrong tokens. The text is a stretch of the shipped Shakespeare. Needs the memory
of the weights and no more.
"""

from __future__ import annotations

import argparse
import math

import torch
from torch.nn import functional as F

from coterie.data.corpus import shakespeare
from coterie.foundation.layers import load_settings, overrides_layer
from coterie.presets import preset_layers
from coterie.train.randomness import seed_all
from coterie.train.settings import RunSettings


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("preset", nargs="?", default="s15era")
    parser.add_argument("words", nargs="*", help="key=value changes of the settings")
    parser.add_argument("--tokens", type=int, default=1024)
    arguments = parser.parse_intermixed_args()
    layers = [*preset_layers(arguments.preset), overrides_layer(arguments.words)]
    settings = load_settings(RunSettings, layers).settings
    text = shakespeare()[0].text
    tokenizer = settings.tokenizer.build([text])
    ids = torch.tensor(tokenizer.encode(text[20_000 : 20_000 + 12 * arguments.tokens]))
    context = settings.model.context
    windows = arguments.tokens // context
    size = settings.model.vocab_size or tokenizer.vocab_size
    seed_all(settings.seed)
    decoder = settings.model.model_copy(update={"vocab_size": size}).build().eval()
    losses = []
    with torch.no_grad():
        for start in range(0, windows * context, context):
            row, targets = ids[start : start + context], ids[start + 1 : start + context + 1]
            losses.append(float(F.cross_entropy(decoder(row[None]).logits[0], targets)))
    print(
        f"{arguments.preset}: {sum(losses) / len(losses):.3f} nats per token over "
        f"{windows * context:,} tokens; an even guess: {math.log(size):.3f}"
    )


if __name__ == "__main__":
    main()
