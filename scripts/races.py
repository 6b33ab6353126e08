"""Commands that want the same place, started in the same moment: one wins, the others are told.

    python scripts/races.py --rounds 50 --seed 1

Each round starts two or more processes through a barrier. Exactly one must do the work, the others
must be refused in words or wait and find it done; what the winner wrote must be, bit for bit, what
it writes when it runs alone. Prints a table and exits with 1 if any round went otherwise.
"""

from __future__ import annotations

import inspect
import json
import random
import shutil
import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

from processes import (
    OTHER,
    TEXT,
    Child,
    Tally,
    alone,
    copy,
    digest,
    is_sound,
    leftovers,
    options_of,
    refused_in_words,
    result_of,
    room,
    together,
    workshop,
)

KINDS = ("bytes", "characters")
WEIGHTS = "checkpoints/step-00000000/model.safetensors"
Outcome = tuple[str, str]  # what happened; what was wrong, or nothing


def _train(name: str | None, seed: int) -> list[str]:
    named = [] if name is None else ["--name", name]
    return ["train", "tiny.yaml", *named, f"seed={seed}"]


class Races:
    """The kinds of races; each method runs one round in a fresh folder and says how it went."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._wanted: dict[str, list[str]] = {}

    @cached_property
    def base(self) -> Path:
        """A folder with a text and settings."""
        return workshop(self.root / "base")

    @cached_property
    def stored(self) -> Path:
        """The same with a table of rows and two stores."""
        folder = copy(self.base, self.root / "stored")
        rows = [json.dumps({"text": TEXT[at : at + 90]}) for at in range(0, len(TEXT), 90)]
        (folder / "other.txt").write_text(OTHER)
        (folder / "rows.jsonl").write_text("".join(f"{row}\n" for row in rows * 2))
        for name in ("store", "other"):
            self._alone(self._prepare("bytes", name), folder)
        return folder

    @cached_property
    def trained(self) -> Path:
        """The same with two trained runs, and each exported."""
        folder = copy(self.base, self.root / "trained")
        for seed in (11, 12):
            self._alone(_train(f"seed-{seed}", seed), folder)
            self._alone(["model", "export", f"seed-{seed}", "--out", f"hf-{seed}"], folder)
        return folder

    @cached_property
    def half(self) -> Path:
        """A folder with a run that is half trained."""
        folder = copy(self.base, self.root / "half")
        self._alone([*_train("mine", 11), "train.steps=4"], folder)
        return folder

    @cached_property
    def runs(self) -> list[str]:
        """What training with seed 11 and with seed 12 comes to alone."""
        return [result_of(self.trained / "runs" / f"seed-{seed}") for seed in (11, 12)]

    @cached_property
    def resumed(self) -> str:
        """What resuming comes to alone."""
        folder = copy(self.half, self.root / "resumed")
        self._alone(["train", "--resume", "mine", "train.steps=8"], folder)
        return result_of(folder / "runs" / "mine")

    def _made(self, base: Path, commands: list[list[str]], out: str) -> list[str]:
        """Return what each command writes alone, as hashes."""
        found = []
        for words in commands:
            folder = copy(base, self.root / "alone")
            self._alone(words, folder)
            found.append(digest(folder / out))
        return found

    @cached_property
    def stores(self) -> list[str]:
        """What preparing with bytes and with characters writes alone."""
        commands = [self._prepare(kind, "store") for kind in KINDS]
        return self._made(self.base, commands, "store")

    @cached_property
    def imports(self) -> list[str]:
        """The weights that importing writes alone."""
        commands = [["model", "import", f"hf-{seed}", "--name", "theirs"] for seed in (11, 12)]
        return self._made(self.trained, commands, f"runs/theirs/{WEIGHTS}")

    @cached_property
    def files(self) -> list[str]:
        """What exporting as GGUF writes alone."""
        return self._made(self.trained, [self._gguf(seed) for seed in (11, 12)], "out.gguf")

    @staticmethod
    def _alone(words: list[str], folder: Path) -> None:
        child = alone(words, folder)
        assert child.code == 0, child.said

    @staticmethod
    def _prepare(tokenizer: str, out: str) -> list[str]:
        return ["data", "prepare", "text.txt", "--out", out, "--tokenizer", tokenizer]

    @staticmethod
    def _gguf(seed: int) -> list[str]:
        return ["model", "export", f"seed-{seed}", "--format", "gguf", "--out", "out.gguf"]

    def _judge(self, folder: Path, children: list[Child], found: str, wanted: list[str]) -> Outcome:
        """Say how a round went in which one of two must have won."""
        winners = [number for number, child in enumerate(children) if child.code == 0]
        if len(winners) != 1:
            said = " | ".join(child.said[-200:] for child in children)
            return "", f"{len(winners)} winners: {said}"
        other = children[1 - winners[0]]
        if not refused_in_words(other):
            return "", f"exit {other.code}: {other.said[-300:]}"
        if found != wanted[winners[0]]:
            return "", "the winner's result differs from running alone"
        if left := leftovers(folder):
            return "", f"left behind: {left}"
        how = "while it ran" if "is being written" in other.said else "when it was done"
        return f"one won, the other was refused {how}", ""

    def two_trainings(self, folder: Path) -> Outcome:
        """The same name, other seeds."""
        copy(self.base, folder)
        children = together([_train("mine", 11), _train("mine", 12)], folder)
        return self._judge(folder, children, result_of(folder / "runs" / "mine"), self.runs)

    def two_trainings_without_names(self, folder: Path) -> Outcome:
        """Each gets a name of its own."""
        copy(self.base, folder)
        children = together([_train(None, 11), _train(None, 12)], folder)
        if any(child.code for child in children):
            return "", " | ".join(child.said[-200:] for child in children)
        found = {result_of(each) for each in (folder / "runs").iterdir()}
        same = found == set(self.runs)
        return "both trained, under two names", "" if same else "results differ"

    def two_resumes(self, folder: Path) -> Outcome:
        """Of one run; one that comes when the other has finished finds nothing left to do."""
        copy(self.half, folder)
        children = together([["train", "--resume", "mine", "train.steps=8"]] * 2, folder)
        if result_of(folder / "runs" / "mine") != self.resumed:
            return "", "the result differs: " + " | ".join(child.said[-300:] for child in children)
        if left := leftovers(folder):
            return "", f"left behind: {left}"
        if all(child.code == 0 for child in children):
            return "one after the other", ""
        refused = [child for child in children if child.code]
        if len(refused) == 1 and refused_in_words(refused[0]):
            return "one won, the other was refused while it ran", ""
        return "", " | ".join(child.said[-300:] for child in children)

    def two_prepares(self, folder: Path) -> Outcome:
        """Into one --out, with other tokenizers."""
        copy(self.base, folder)
        children = together([self._prepare(kind, "store") for kind in KINDS], folder)
        if not is_sound(folder / "store"):
            return "", "the store is not sound"
        return self._judge(folder, children, digest(folder / "store"), self.stores)

    def two_dedups(self, folder: Path) -> Outcome:
        """Into one table, with other thresholds."""
        return self._two(folder, [
            ["data", "dedup", "rows.jsonl", "--out", "out.jsonl", "--threshold", each]
            for each in ("0.5", "1")
        ], "out.jsonl")  # fmt: skip

    def two_cleanings(self, folder: Path) -> Outcome:
        """Into one folder, as a book and in another spelling."""
        words = ["data", "clean", "gutenberg", "text.txt", "--out", "out"]
        return self._two(folder, [words, [*words, "--spelling", "archaic"]], "out")

    def two_blends(self, folder: Path) -> Outcome:
        """Into one store, with other shares."""
        return self._two(folder, [
            ["data", "blend", "text.txt", "other.txt", "--out", "out", "--tokenizer", "bytes",
             "--ngram", "3", "--share", each]
            for each in ("0.02", "0.05")
        ], "out")  # fmt: skip

    def two_parts(self, folder: Path) -> Outcome:
        """Of one preparation, into one folder."""
        return self._two(folder, [
            [*self._prepare("bytes", "out"), "--part", f"{number}/2", "--resume"]
            for number in (1, 2)
        ], "out")  # fmt: skip

    def two_merges(self, folder: Path) -> Outcome:
        """Into one store, in other ratios."""
        words = ["data", "merge", "store", "other", "--out", "out", "--copy", "--strategy"]
        return self._two(folder, [[*words, each] for each in ("equal", "proportional")], "out")

    def _two(self, folder: Path, commands: list[list[str]], out: str) -> Outcome:
        """Let two commands write one thing."""
        key = " ".join(commands[0])
        if key not in self._wanted:
            self._wanted[key] = self._made(self.stored, commands, out)
        copy(self.stored, folder)
        children = together(commands, folder)
        return self._judge(folder, children, digest(folder / out), self._wanted[key])

    def two_imports(self, folder: Path) -> Outcome:
        """Of two models under one name."""
        copy(self.trained, folder)
        words = [["model", "import", f"hf-{seed}", "--name", "theirs"] for seed in (11, 12)]
        children = together(words, folder)
        found = digest(folder / "runs" / "theirs" / WEIGHTS)
        return self._judge(folder, children, found, self.imports)

    def an_import_and_a_training(self, folder: Path) -> Outcome:
        """Under one name."""
        copy(self.trained, folder)
        words = [["model", "import", "hf-11", "--name", "mine"], _train("mine", 12)]
        children = together(words, folder)
        run = folder / "runs" / "mine"
        if children[0].code == 0:
            return self._judge(folder, children, digest(run / WEIGHTS), [self.imports[0], ""])
        return self._judge(folder, children, result_of(run), ["", self.runs[1]])

    def two_exports(self, folder: Path) -> Outcome:
        """Into one folder."""
        copy(self.trained, folder)
        words = [["model", "export", f"seed-{seed}", "--out", "out"] for seed in (11, 12)]
        children = together(words, folder)
        wanted = [digest(self.trained / f"hf-{seed}") for seed in (11, 12)]
        return self._judge(folder, children, digest(folder / "out"), wanted)

    def two_exports_gguf(self, folder: Path) -> Outcome:
        """Into one file."""
        copy(self.trained, folder)
        children = together([self._gguf(seed) for seed in (11, 12)], folder)
        return self._judge(folder, children, digest(folder / "out.gguf"), self.files)

    def six_users_of_one_cache_entry(self, folder: Path, damage: str | None = None) -> Outcome:
        """They wait for whoever prepares it, and all train on the same."""
        copy(self.base if damage is None else self.trained, folder)
        for store in (folder / "cache" / "stores").glob("*"):
            if damage == "emptied":
                shutil.rmtree(store)
                store.mkdir()
            else:
                (store / "train-00000.bin").write_bytes(b"short")
        children = together([_train(f"user-{number}", 11) for number in range(6)], folder)
        for child in children:
            if child.code:
                return "", child.said[-400:]
        found = {result_of(folder / "runs" / f"user-{number}") for number in range(6)}
        if found != {self.runs[0]}:
            return "", "results differ"
        stores = list((folder / "cache" / "stores").iterdir())
        if len(stores) != 1 or not is_sound(stores[0]):
            return "", f"the cache holds {[each.name for each in stores]}"
        waited = sum("Waiting for process" in child.said for child in children)
        return f"all six trained ({'some' if waited else 'none'} was told to wait)", ""

    def six_users_of_an_emptied_entry(self, folder: Path) -> Outcome:
        """The entry's folder is there, but empty."""
        return self.six_users_of_one_cache_entry(folder, "emptied")

    def six_users_of_a_damaged_entry(self, folder: Path) -> Outcome:
        """A shard of the entry is cut short."""
        return self.six_users_of_one_cache_entry(folder, "cut")


RACES: dict[str, Callable[[Races, Path], Outcome]] = {
    name: race
    for name, race in vars(Races).items()
    if inspect.isfunction(race) and not name.startswith("_")
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the races that were asked for and print how they went."""
    options = options_of(arguments, __doc__, RACES, 50, "rounds")
    random.seed(options.seed)
    tally = Tally()
    with room("races-") as place:
        races = Races(Path(place))
        for name in options.names:
            for number in range(options.rounds):
                outcome, problem = RACES[name](races, Path(place) / "round")
                tally.add(f"{name}, round {number}", outcome, problem)
            tally.close(name)
    return tally.exit_code()


if __name__ == "__main__":
    sys.exit(main())
