"""Trains byte-level BPE on texts of any length, in bounded memory, and hears Ctrl-C meanwhile.

The library needs a hundred times the memory of each text it is given, so it gets small ones,
cut where words end. Its time grows with the square of a word's length, so a run of more than
`LONGEST_RUN` characters of one class (letters, digits, signs, blanks) is trained on in parts of
that length, and no more than `MOST_IN_RUNS` characters of such runs are used. A text of shorter
words gives what it gives in the library.
"""

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from coterie.foundation.errors import TokenizerError
from coterie.tokenizer.cuts import last_cut
from coterie.tokenizer.interface import refuse_surrogates
from coterie.tokenizer.special import SpecialSplitter

LONGEST_RUN = 1000
MOST_IN_RUNS = 1 << 21
_STRETCH = 1 << 16  # characters passed to the library at once
_LISTENING = 0.1  # seconds between two looks for an interruption

_CLASSES = (r"[^\W\d_]", r"\d", r"(?:[^\w\s]|_)", r"\s")
_RUN = re.compile("|".join(f"{kind}{{{LONGEST_RUN}}}" for kind in _CLASSES))


def train_bpe(
    texts: Iterable[str], specials: Sequence[str], vocab_size: int, min_frequency: int
) -> tokenizers.Tokenizer:
    """Return the rules of byte-level BPE with `vocab_size` tokens, the special ones not counted.

    Raises:
        TokenizerError: the texts are empty.
        KeyboardInterrupt: the user does not want to wait.
    """
    rules = tokenizers.Tokenizer(models.BPE())
    rules.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rules.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    stretches = Stretches(texts, specials)
    run_interruptibly(lambda items: rules.train_from_iterator(items, trainer), stretches)
    if not stretches.characters:
        raise TokenizerError("There is no text to train the tokenizer on.")
    return rules


class Stretches:
    """The texts without their special tokens, which must not shape the merges, in small pieces.

    Attributes:
        characters: how many there were.
    """

    def __init__(self, texts: Iterable[str], specials: Sequence[str]) -> None:
        self._texts = texts
        self._splitter = SpecialSplitter(dict.fromkeys(specials, 0))
        self.characters = 0

    def __iter__(self) -> Iterator[str]:
        in_runs = 0
        for text in self._texts:
            refuse_surrogates(text)
            for stretch in self._splitter.split(text):
                if isinstance(stretch, int):
                    continue
                self.characters += len(stretch)
                for part, is_run in _without_runs(stretch):
                    in_runs += len(part) * is_run
                    if not is_run or in_runs <= MOST_IN_RUNS:
                        yield from _small(part)


def _without_runs(text: str) -> Iterator[tuple[str, bool]]:
    """Yield a text in parts, and whether a part is a run that has reached `LONGEST_RUN`."""
    begun = 0
    for match in _RUN.finditer(text):
        if match.start() > begun:
            yield text[begun : match.start()], False
        yield match.group(), True
        begun = match.end()
    if begun < len(text):
        yield text[begun:], False


def _small(text: str) -> Iterator[str]:
    begun = 0
    while len(text) - begun > _STRETCH:
        place = last_cut(text, begun + _STRETCH)
        end = place if place is not None and place > begun else begun + _STRETCH
        yield text[begun:end]
        begun = end
    yield text[begun:]


def run_interruptibly(work: Callable[[Iterator[str]], None], items: Iterable[str]) -> None:
    """Do work that listens to no signal while this thread, if it is the main one, does.

    On an interruption the work is told to end with its next item. If it takes none any more, it is
    left to itself; its thread does not outlive the process.

    Args:
        work: takes the items; what it raises is raised here.
        items: read in the thread of the work.
    """
    if threading.current_thread() is not threading.main_thread():
        work(iter(items))
        return
    stopped = threading.Event()
    failures: list[BaseException] = []

    def guarded() -> Iterator[str]:
        for item in items:
            if stopped.is_set():
                return
            yield item

    def run() -> None:
        try:
            work(guarded())
        except BaseException as failure:
            failures.append(failure)

    thread = threading.Thread(target=run, name="coterie-tokenizer", daemon=True)
    try:
        thread.start()
        while thread.is_alive():
            thread.join(_LISTENING)
    except BaseException:
        stopped.set()
        raise
    if failures:
        raise failures[0]
