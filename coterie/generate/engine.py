"""The engine: requests go in, texts come out, piece by piece as their characters become certain.

One loop serves a single stream, several samples of one prompt, and any number of requests that come
and go (`scheduler`). A text is the same alone or among others: bit for bit where the batch has the
same shape, else wherever the likeliest tokens lie further apart than rounding.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from coterie.foundation.errors import UserError
from coterie.generate.beams.texts import best_texts
from coterie.generate.best import Contest, candidates
from coterie.generate.cache import PrefixStats, PrefixStore
from coterie.generate.memory import CacheMemory
from coterie.generate.passes import Pass, passes_for
from coterie.generate.request import Generation, Piece, Request
from coterie.generate.sampling import SamplingSettings
from coterie.generate.scheduler import Scheduler
from coterie.generate.session import DecodeSession, latest, position_limit
from coterie.generate.text import Text
from coterie.model import Decoder
from coterie.tokenizer.interface import Tokenizer

MAX_BATCH = 64
"""Texts that run at the same time, if nobody says otherwise."""


class Engine:
    """Generates text with a decoder and its tokenizer; neither is changed by it.

    Args:
        decoder: the model; its training mode and the global random state stay as they are.
        notify: called with a sentence when something is done that was not asked for, such as
            cutting a prompt.
        max_batch: texts that run at the same time; further requests wait for a place.
        passes: ways to compute logits, the preferred ones first; the last serves every call. None:
            as each request's `compute` says.

    Raises:
        UserError: the tokenizer has more tokens than the model.
    """

    def __init__(
        self,
        decoder: Decoder,
        tokenizer: Tokenizer,
        notify: Callable[[str], None] | None = None,
        *,
        max_batch: int = MAX_BATCH,
        passes: Sequence[Pass] | None = None,
    ) -> None:
        size = decoder.settings.vocab_size
        if size is not None and tokenizer.vocab_size > size:
            raise UserError(
                f"The tokenizer has {tokenizer.vocab_size:,} tokens but the model only {size:,}.",
                hint="Use the tokenizer that the model was trained with.",
            )
        self.decoder = decoder
        self.tokenizer = tokenizer
        if max_batch < 1:
            raise UserError(f"At least one text must run at a time, not {max_batch}.")
        self._notify = notify or (lambda sentence: None)
        self._max_batch, self._passes = max_batch, passes
        self._prefixes = PrefixStore(decoder)
        self._submitted = self._scheduler()

    @property
    def cache_stats(self) -> PrefixStats:
        """How much of all prompts read with cache=paged was there already, and what is held."""
        return self._prefixes.stats

    def submit(self, request: Request) -> None:
        """Let a request wait for its place in the batch; `step` serves it.

        Raises:
            UserError: it cannot be served whatever happens: its prompt or its constraints do not
                fit the tokenizer.
        """
        self._submitted.add(self._text(request))

    def step(self) -> list[tuple[Request, Piece]]:
        """Read prompts and a token or more of each running text; return each new piece.

        Empty once nothing waits or runs; a step that only read part of a prompt is empty too, so
        ask `idle`.
        """
        return [(text.request, piece) for text, piece in self._submitted.step()]

    @property
    def idle(self) -> bool:
        """Whether nothing that was submitted waits or runs."""
        return not self._submitted.waiting and not self._submitted.running

    def cancel(self, request: Request) -> bool:
        """Forget a submitted request; return whether it was still waiting or running."""
        return self._submitted.cancel(request)

    def run(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Piece]]:
        """Yield the pieces of all requests as they come; a request that fails ends with its error.

        Requests are taken from the iterable as places become free, and served beside nothing but
        each other, whatever was submitted.

        Raises:
            UserError: there is no request at all.
        """
        for request, _, piece in self._serve(requests):
            yield request, piece

    def _serve(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Text | None, Piece]]:
        """Yield each piece with its request and its text; None where there could be no text."""
        scheduler, source, any_came = self._scheduler(), iter(requests), False
        contests: dict[int, Contest] = {}
        while True:
            while scheduler.waiting < self._max_batch:
                request = next(source, None)
                if request is None:
                    break
                any_came = True
                try:
                    texts = [self._text(each) for each in candidates(request)]
                except Exception as error:  # a constraint may be anybody's code
                    yield request, None, Piece.failed(error)
                    continue
                contest = Contest(request, texts)
                for text in texts:
                    scheduler.add(text)
                    if text.request is not request:
                        contests[id(text)] = contest
            if not any_came:
                raise UserError("There is no request, so there is nothing to write.")
            if not scheduler.waiting and not scheduler.running:
                return
            for text, piece in scheduler.step():
                contest = contests.get(id(text))
                if contest is None:
                    yield text.request, text, piece
                    continue
                for best, each in contest.note(text, piece):
                    yield contest.request, best, each

    def stream(self, prompt: str, sampling: SamplingSettings | None = None) -> Iterator[Piece]:
        """Yield the continuation of a prompt, one piece per token, as soon as it is known."""
        for _, piece in self.run([Request(prompt, sampling or SamplingSettings())]):
            if piece.error is not None:
                raise piece.error
            yield piece

    def generate(self, prompt: str, sampling: SamplingSettings | None = None) -> Generation:
        """Return one continuation of a prompt."""
        return self.generate_samples(prompt, 1, sampling)[0]

    def generate_samples(
        self, prompt: str, samples: int, sampling: SamplingSettings | None = None
    ) -> list[Generation]:
        """Return several continuations of one prompt, generated together as a batch.

        Sample i is the text that `generate` gives with the seed increased by i, or by i times
        `best_of`; with `beams`, the i-th best that the search finds.

        Raises:
            UserError: `samples` is less than 1, or more than a search follows.
        """
        if samples < 1:
            raise UserError(f"At least one sample must be asked for, not {samples}.")
        sampling = sampling or SamplingSettings()
        tokens = self.encode_prompt(prompt)
        if sampling.beams is not None:
            session, beams = self.new_session(sampling), sampling.beams
            best = best_texts(session, self.tokenizer, tokens, sampling, beams, samples)
            return [replace(each, prompt=prompt) for each in best]
        made = self.generate_many(
            [
                Request(tokens, sampling, sampling.seed + number * sampling.best_of)
                for number in range(samples)
            ]
        )
        for each in made:
            if each.error is not None:
                raise each.error
        return [replace(each, prompt=prompt) for each in made]

    def generate_many(self, requests: Sequence[Request]) -> list[Generation]:
        """Return what each request gives, in order; those that failed have their `error`.

        Raises:
            UserError: there is no request at all.
        """
        started = time.perf_counter()
        pieces: dict[int, list[Piece]] = {id(request): [] for request in requests}
        texts: dict[int, Text | None] = {}
        for request, text, piece in self._serve(requests):
            pieces[id(request)].append(piece)
            texts[id(request)] = text
        seconds = time.perf_counter() - started
        made = []
        for request in requests:
            text, prompt = texts[id(request)], request.prompt
            tokens = [] if text is None else text.prompt
            words = prompt if isinstance(prompt, str) else self.tokenizer.decode(tokens)
            of_text = pieces[id(request)]
            made.append(Generation.collected(words, len(tokens), of_text, seconds))
        return made

    def encode_prompt(self, prompt: str) -> list[int]:
        """Return a prompt's tokens as the model will see them.

        An empty prompt is the end-of-text token, after which a new document begins. Tokenizers that
        have a token to begin texts with put it first. A prompt longer than the model's context
        loses its beginning, with a notice; the token that begins texts stays first.
        """
        tokens, begin = self.tokenizer.encode(prompt), self.tokenizer.begin_of_text
        if not tokens or (begin is not None and tokens[0] != begin):
            tokens = [self.tokenizer.start_of_text, *tokens]
        unknown = self.tokenizer.unknown_token
        if unknown is not None and (count := tokens.count(unknown)):
            self._notify(f"{count} characters of the prompt are unknown to this model's tokenizer.")
        limit = position_limit(self.decoder)
        if limit is not None and len(tokens) > limit:
            self._notify(
                f"The prompt has {len(tokens):,} tokens; the model sees the last {limit:,} of them."
            )
            tokens = latest(tokens, limit, begin)
        return tokens

    def _text(self, request: Request) -> Text:
        if request.sampling.beams is not None:
            raise UserError(
                "A search with beams knows its texts only at its end; it cannot be streamed or "
                "join other requests.",
                hint="Call generate or generate_samples, or leave beams out.",
            )
        self._passes_of(request.sampling)  # it fails here, where it stops nobody else
        drafter = request.sampling.speculation.build(self.decoder)
        return Text(request, self._tokens(request.prompt), self.tokenizer, drafter)

    def _tokens(self, prompt: str | Sequence[int]) -> list[int]:
        """Return a request's prompt as tokens.

        Raises:
            UserError: there are none, or not such.
        """
        if isinstance(prompt, str):
            return self.encode_prompt(prompt)
        if not prompt:
            raise UserError("A prompt of tokens must have at least one.")
        known = self.decoder.settings.known_vocab_size()
        wrong = next((token for token in prompt if not 0 <= token < known), None)
        if wrong is not None:
            raise UserError(f"The prompt has the token {wrong}, but the model knows {known:,}.")
        return list(prompt)

    def _scheduler(self) -> Scheduler:
        return Scheduler(self.new_session, CacheMemory(self.decoder), self._max_batch)

    def new_session(self, sampling: SamplingSettings) -> DecodeSession:
        """Return a session that has read nothing, with the cache of these settings."""
        begin, passes = self.tokenizer.begin_of_text, self._passes_of(sampling)
        return DecodeSession(
            self.decoder, sampling.cache, begin, passes, sampling.speculation.most,
            prefixes=self._prefixes, watch=sampling.speculation.watches,
        )  # fmt: skip

    def _passes_of(self, sampling: SamplingSettings) -> Sequence[Pass]:
        if self._passes is not None:
            return self._passes
        return passes_for(self.decoder, sampling.compute, sampling.max_tokens, self._notify)
