r"""How text is split before merging: GGUF names it, a tokenizer.json spells it out.

The names are llama.cpp's; each pattern is the one in the tokenizer.json of the models that the name
stands for: GPT-2, StarCoder and SmolLM, Llama 3, Qwen2, GPT-4o, Mistral NeMo (tekken) and DeepSeek.
Some, such as deepseek-llm, list every letter they mean; those are not held here.
"""

import json
from dataclasses import dataclass
from typing import Any

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from coterie.exchange.tokenizers.writing import PATTERNS
from coterie.tokenizer.merges import only_splits

_SUFFIXES = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_BLANKS = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = (
    rf"{_SUFFIXES}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}"
    rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_BLANKS}"
)
_QWEN2 = (
    rf"{_SUFFIXES}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}"
    rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_BLANKS}"
)
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    rf"|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_BLANKS}"
)
_KANA = "[一-龥぀-ゟ゠-ヿ]+"
_DEEPSEEK3 = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_BLANKS}"
)
_HAN = "[一-龥ࠀ-一가-퟿]+"


@dataclass(frozen=True)
class Pretokenizer:
    """A way to split text.

    Attributes:
        patterns: to split by in turn; none: GPT-2's.
        digits: whether every digit is split off, before GPT-2's pattern.
        whole: whether a word that is a token is taken without merging (`ignore_merges`).
        begins: whether texts begin with a BOS token, where a file does not say.
        composed: whether text is normalised to NFC first.
    """

    patterns: tuple[str, ...] = ()
    digits: bool = False
    whole: bool = False
    begins: bool = False
    composed: bool = False

    def pre_tokenizer(self) -> pre_tokenizers.PreTokenizer:
        steps: list[Any] = [
            pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in self.patterns
        ]
        if self.digits:
            steps.append(pre_tokenizers.Digits(individual_digits=True))
        steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not self.patterns))
        return steps[0] if len(steps) == 1 else pre_tokenizers.Sequence(steps)

    def normalizer(self) -> normalizers.Normalizer | None:
        return normalizers.NFC() if self.composed else None


_GPT2_LIKE = Pretokenizer()
_DIGITS = Pretokenizer(digits=True)
_O200K = Pretokenizer((PATTERNS["o200k_base"],))
PRETOKENIZERS = {
    "gpt-2": _GPT2_LIKE,
    "phi-2": _GPT2_LIKE,
    "olmo": _GPT2_LIKE,
    "smollm": _DIGITS,
    "starcoder": _DIGITS,
    "refact": _DIGITS,
    "llama-bpe": Pretokenizer((_LLAMA3,), whole=True, begins=True),
    "llama3": Pretokenizer((_LLAMA3,), whole=True, begins=True),
    "dbrx": Pretokenizer((_LLAMA3,)),
    "smaug-bpe": Pretokenizer((_LLAMA3,)),
    "qwen2": Pretokenizer((_QWEN2,), composed=True),
    "deepseek-r1-qwen": Pretokenizer((_QWEN2,), composed=True),
    "stablelm2": Pretokenizer((_QWEN2,)),
    "gpt-4o": _O200K,
    "llama4": _O200K,
    "tekken": Pretokenizer((_TEKKEN,), whole=True, begins=True),
    "deepseek-coder": Pretokenizer((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _HAN, r"\p{N}")),
    "deepseek-v3": Pretokenizer((r"\p{N}{1,3}", _KANA, _DEEPSEEK3)),
}


def name_of(description: dict[str, Any]) -> str | None:
    """Return the name of a tokenizer.json's pretokenizer; None if it has none.

    cl100k_base goes by the name of Llama 3's, which differs from it only at the end of a text:
    there, blanks after a line break are split off.
    """
    wanted = _steps(description["pre_tokenizer"])
    normalizer, model = description["normalizer"], description["model"]
    if not model.get("merges") and normalizer is None and all(map(only_splits, wanted)):
        return "gpt-2"  # without merges, splitting makes no difference
    cl100k = Pretokenizer((PATTERNS["cl100k_base"],), whole=True, begins=True)
    candidates = [*PRETOKENIZERS.items(), ("llama-bpe", cl100k)]
    # `ignore_merges` matters only for words that merges do not lead to, so it is a preference.
    whole = bool(model.get("ignore_merges"))
    for name, one in sorted(candidates, key=lambda each: each[1].whole != whole):
        probe = Tokenizer(models.BPE())
        probe.pre_tokenizer = one.pre_tokenizer()
        probe.normalizer = one.normalizer()  # type: ignore[assignment]
        said = json.loads(probe.to_str())
        if _steps(said["pre_tokenizer"]) == wanted and said["normalizer"] == normalizer:
            return name
    return None


def _steps(pre_tokenizer: dict[str, Any] | None) -> Any:
    """Return the steps of a pretokenizer, without what does not change the split."""
    steps = (pre_tokenizer or {}).get("pretokenizers", [pre_tokenizer or {}])
    return [{key: step[key] for key in step if key != "trim_offsets"} for step in steps]
