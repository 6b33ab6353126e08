"""Chat templates: how a conversation is written out for a model, in Jinja as Hugging Face's are.

A template sees `messages` (each with `role` and `content`), `add_generation_prompt`, `bos_token`
and `eos_token`. It is foreign code, so it runs in Jinja's sandbox and can change nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, TemplateSyntaxError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from coterie.foundation.errors import TokenizerError
from coterie.tokenizer.interface import Tokenizer

NAMED = {
    # For any vocabulary: like a play, who speaks and then what.
    "play": "{% for message in messages %}{{ message.role | upper }}:\n{{ message.content }}"
    "{% if message.role == 'assistant' %}{{ eos_token }}{% else %}{{ '\n\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}ASSISTANT:\n{% endif %}",
    "plain": "{% for message in messages %}{{ message.content }}"
    "{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}",
    "continuation": "{% for message in messages %}{{ message.content }}{% endfor %}",
}
"""Templates by name; `plain` puts a completion right behind its prompt, `continuation` one that is
cut out of a text which goes on, so that nothing ends it."""

_LAST = 4  # messages of a conversation that are shown in an error
Message = Mapping[str, str]


class ChatTemplate:
    """A template, compiled.

    Args:
        source: in Jinja, or a name of `NAMED`.
        tokenizer: whose special tokens it may write.

    Attributes:
        ends: whether what the assistant says last comes to an end.

    Raises:
        TokenizerError: it is no Jinja; the message says in which line.
    """

    def __init__(self, source: str, tokenizer: Tokenizer) -> None:
        self.source = NAMED.get(source, source)
        self._tokenizer = tokenizer
        begin = tokenizer.begin_of_text
        self.ends = self.source != NAMED["continuation"]
        self._names = {
            "eos_token": tokenizer.name_of(tokenizer.named_end),
            "bos_token": "" if begin is None else tokenizer.name_of(begin),
        }
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = _raise
        try:
            self._template: Template = environment.from_string(self.source)
        except TemplateSyntaxError as error:
            what = str(error.message).rstrip(".")
            line = self.source.splitlines()[error.lineno - 1].strip()[:80]
            raise TokenizerError(
                f"The chat template is no Jinja: {what}, in line {error.lineno}: {line!r}."
            ) from error

    def render(self, messages: Sequence[Message], *, ask: bool = False) -> str:
        """Return a conversation as text.

        Args:
            messages: `role` and `content` of each.
            ask: whether the assistant's next turn is begun at the end.

        Raises:
            TokenizerError: the template refuses the conversation, or a message writes out a special
                token, which would be taken for the real one.
        """
        for number, message in enumerate(messages, start=1):
            for special in self._tokenizer.special_tokens:
                if special in message["content"]:
                    raise TokenizerError(
                        f"message {number} writes out the special token “{special}”"
                    )
        plain = [dict(message) for message in messages]
        try:
            return self._template.render(messages=plain, add_generation_prompt=ask, **self._names)
        except (TemplateError, TypeError, ValueError, ArithmeticError) as error:
            roles = ", ".join(message["role"] for message in plain[-_LAST:])
            raise TokenizerError(
                f"The chat template cannot write a conversation of {len(plain)} messages (the "
                f"last ones: {roles}): {error}."
            ) from error


def template_of(settings: Mapping[str, Any], tokenizer: Tokenizer) -> ChatTemplate:
    """Return the template of a run: the one it was tuned with, else its tokenizer's own.

    Args:
        settings: of the run, as plain values.
        tokenizer: of its checkpoint.

    Raises:
        TokenizerError: there is none.
    """
    align = settings.get("align") or {}
    source = align.get("template") or tokenizer.chat_template
    if not source:
        raise TokenizerError(
            "The model was not tuned on conversations, and its tokenizer came without a chat "
            "template.",
            hint="Tune it: coterie align sft RUN rows.jsonl   or generate without --chat.",
        )
    return ChatTemplate(source, tokenizer)


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)
