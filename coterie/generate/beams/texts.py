"""From a search's hypotheses to texts."""

import time
from collections.abc import Sequence

from coterie.foundation.errors import UserError
from coterie.generate.beams.search import Reader, search
from coterie.generate.beams.settings import BeamSettings
from coterie.generate.request import Generation
from coterie.generate.sampling import Sampler, SamplingSettings
from coterie.tokenizer.interface import Tokenizer
from coterie.tokenizer.stream import StreamDecoder


def best_texts(
    session: Reader,
    tokenizer: Tokenizer,
    prompt: Sequence[int],
    sampling: SamplingSettings,
    beams: BeamSettings,
    number: int,
) -> list[Generation]:
    """Return the best continuations of a prompt that a search finds, the best first.

    Args:
        session: that has read nothing.
        sampling: its bias, constraints, penalties and lengths hold for every beam.
        number: how many to return; fewer where constraints leave fewer.

    Raises:
        UserError: more are asked for than are followed, or constraints leave no text.
    """
    if number > beams.width:
        raise UserError(
            f"{number} texts are asked for, but the search follows {beams.width}.",
            hint=f"Set beams.width={number} or more.",
        )
    started = time.perf_counter()
    sampler = Sampler.for_text(sampling, tokenizer, prompt)
    found = search(session, prompt, beams, sampler, tokenizer.ends, tokenizer.vocab_size)
    seconds = time.perf_counter() - started
    # The token that begins a text is none of it: the first word is decoded as such.
    shown = prompt[1:] if prompt[0] == tokenizer.start_of_text else prompt
    made = []
    for each in found[:number]:
        characters = StreamDecoder(tokenizer, after=shown)
        body = each.tokens[:-1] if each.ended else each.tokens
        text = "".join(map(characters.push, body)) + characters.finish()
        reason = "end" if each.ended else "length"
        made.append(
            Generation(
                "", text, each.tokens, each.logprobs, reason, len(prompt), seconds,
                score=each.score,
            )
        )  # fmt: skip
    return made
