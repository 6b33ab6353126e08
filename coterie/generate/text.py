"""One text in the making: from the model's logits to the next token and what that adds."""

from jaxtyping import Float
from torch import Tensor

from coterie.foundation.errors import UserError
from coterie.generate.request import NO_TOKEN, FinishReason, Piece, Request
from coterie.generate.sampling import Choice, Chosen, Rule, Sampler, not_finite
from coterie.generate.sampling.sampler import LookAtChoice
from coterie.generate.speculation import Controller, Drafter, Read
from coterie.generate.stopping import StopScanner
from coterie.tokenizer.interface import Tokenizer
from coterie.tokenizer.stream import StreamDecoder


class Text:
    """Chooses the tokens of one text, and says what each adds to it.

    Args:
        drafter: guesses its tokens; None: nothing does.

    Raises:
        UserError: a constraint cannot be met with this tokenizer, or it is not one text alone.
    """

    def __init__(
        self,
        request: Request,
        prompt: list[int],
        tokenizer: Tokenizer,
        drafter: Drafter | None = None,
    ) -> None:
        sampling = request.sampling
        if sampling.best_of > 1:
            raise UserError(
                "The best of several texts is known only when all have ended: it is no text to "
                "drive step by step or to go on with.",
                hint="Call generate, generate_many, stream or run, or leave best_of out.",
            )
        self.request = request
        self.prompt = prompt
        self.past = list(prompt)
        self.finished = False
        self.cache_size = 0  # bytes that its cache may take; the scheduler fills it in
        self.pacing = Controller()
        self._drafter = drafter
        self._remaining = sampling.max_tokens
        self._unstoppable = sampling.min_tokens
        self._tokenizer = tokenizer
        self._sampler = Sampler.for_text(
            sampling, tokenizer, prompt, request.seed, request.constraints
        )
        # The token that begins a text is none of it: the first word is decoded as such.
        shown = prompt[1:] if prompt[0] == tokenizer.start_of_text else prompt
        self._characters = StreamDecoder(tokenizer, after=shown)
        self._scanner = StopScanner(sampling.stop)

    def look_at_choices(self, look: LookAtChoice) -> None:
        """Let someone see what each token is chosen from."""
        self._sampler.look = look

    def replay(self, written: list[int]) -> None:
        """Go on from tokens that were chosen before, by these settings."""
        self.past += written
        self._sampler.replay(written, self._tokenizer.vocab_size)
        begins = self.past[0] == self._tokenizer.start_of_text
        self._characters = StreamDecoder(
            self._tokenizer, after=self.past[1:] if begins else self.past
        )

    def advance(self, logits: Float[Tensor, " V"]) -> Piece:
        """Choose the next token from the model's logits; what goes wrong ends this text alone."""
        try:
            return self._advance(logits)
        except Exception as error:  # a constraint may be anybody's code
            return self.fail(error)

    def draft(self, most: int | None, read: Read) -> list[int]:
        """Return guesses of the next tokens, at most so many; none while they do not pay."""
        if self._drafter is None or not self.pacing.wants:
            return []
        fitting = self._remaining - 1 if most is None else min(most, self._remaining - 1)
        return self._drafter.draft(self.past, fitting, read) if fitting > 0 else []

    def advance_past(self, draft: list[int], rows: Float[Tensor, "n V"]) -> list[Piece]:
        """Choose tokens as long as they are those guessed, and the one after them.

        Args:
            draft: guesses, of which the decoder has read all.
            rows: the logits of the first guess's place and of each that follows.
        """
        pieces = []
        for place, row in enumerate(rows):
            piece = self.advance(row)
            right = place < len(draft) and piece.token == draft[place]
            pieces.append(piece._replace(drafted=right))
            if self.finished or not right:
                break
        return pieces

    @property
    def rule(self) -> Rule | None:
        """How the next tokens are chosen; None: that takes more than a rule can say."""
        return self._sampler.rule(self._tokenizer.vocab_size, self._remaining)

    def take(self, chosen: Chosen) -> list[Piece]:
        """Go on with tokens that were chosen by the `rule`, as far as the text goes."""
        pieces = []
        for token, logprob in zip(chosen.tokens, chosen.logprobs, strict=True):
            try:
                if token == NO_TOKEN:
                    raise not_finite()
                self._sampler.note(token)
                pieces.append(self._take(Choice(token, logprob)))
            except Exception as error:
                pieces.append(self.fail(error))
            if self.finished:
                break
        return pieces

    def fail(self, error: Exception) -> Piece:
        self.finished = True
        return Piece.failed(error)

    def _advance(self, logits: Float[Tensor, " V"]) -> Piece:
        # A model may have more rows than the tokenizer has tokens; those are never chosen.
        size = self._tokenizer.vocab_size
        return self._take(
            self._sampler.choose(logits if len(logits) == size else logits[:size], self.past)
        )

    def _take(self, choice: Choice) -> Piece:
        """Return what a chosen token adds to the text."""
        self.past.append(choice.token)
        self._remaining -= 1
        ended = choice.token in self._tokenizer.ends
        text = "" if ended else self._characters.push(choice.token)
        if self._unstoppable:  # what is written this early may hold a stop text
            self._unstoppable -= 1
        else:
            text = self._scanner.push(text)
        reason: FinishReason | None = None
        if self._scanner.stopped:
            reason = "stop"
        elif ended or self._remaining == 0:
            text += self._scanner.push(self._characters.finish()) + self._scanner.finish()
            # The last characters may have completed a stop text.
            reason = "stop" if self._scanner.stopped else "end" if ended else "length"
        self.finished = reason is not None
        piece = Piece(text, choice.token, choice.logprob, reason, choice.top_logprobs)
        if reason is None or not self.request.sampling.report:
            return piece
        written = self.past[len(self.prompt) :]
        return piece._replace(report=self._sampler.report(self.prompt, written, self._tokenizer))
