"""Commands that want the same place, started in the same moment: one wins, the others are told.

    python scripts/races.py --rounds 50 --seed 1

Each round starts two or more processes through a barrier. Exactly one must do the work, the others
must be refused in words or wait and find it done; what the winner wrote must be, bit for bit, what
it writes when it runs alone. Prints a table and exits with 1 if any round went otherwise.
"""

from __future__ import annotations

import argparse
import collections
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from processes import (
    Child,
    alone,
    copy,
    digest,
    is_sound,
    leftovers,
    refused_in_words,
    result_of,
    room,
    together,
    workshop,
)

Outcome = tuple[str, str]  # what happened; what was wrong, or nothing


def _train(name: str | None, seed: int) -> list[str]:
    named = [] if name is None else ["--name", name]
    return ["train", "tiny.yaml", *named, f"seed={seed}"]


class Races:
    """The kinds of races; each method runs one round in a fresh folder and says how it went."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.base = workshop(root / "base")
        self.trained = copy(self.base, root / "trained")
        for seed in (11, 12):
            assert alone(_train(f"seed-{seed}", seed), self.trained).code == 0
            out = ["model", "export", f"seed-{seed}", "--out", f"hf-{seed}"]
            child = alone(out, self.trained)
            assert child.code == 0, child.said
        self.half = copy(self.base, root / "half")
        assert alone([*_train("mine", 11), "train.steps=4"], self.half).code == 0
        self.expected = {
            seed: result_of(self.trained / "runs" / f"seed-{seed}") for seed in (11, 12)
        }
        resumed = copy(self.half, root / "resumed")
        assert alone(["train", "--resume", "mine", "train.steps=8"], resumed).code == 0
        self.expected["resumed"] = result_of(resumed / "runs" / "mine")
        fresh = copy(self.trained, root / "fresh")
        for name, tokenizer in (("bytes", "bytes"), ("letters", "characters")):
            alone(self._prepare(tokenizer, name), fresh)
            self.expected[tokenizer] = digest(fresh / name)
        for seed in (11, 12):
            assert alone(["model", "import", f"hf-{seed}", "--name", f"in-{seed}"], fresh).code == 0
            self.expected[f"in-{seed}"] = self._weights(fresh / "runs" / f"in-{seed}")
            self.expected[f"hf-{seed}"] = digest(fresh / f"hf-{seed}")
            out = self._gguf(seed)
            child = alone(out, fresh)
            assert child.code == 0, child.said
            self.expected[f"gguf-{seed}"] = digest(fresh / "out.gguf")
            (fresh / "out.gguf").unlink()

    @staticmethod
    def _prepare(tokenizer: str, out: str) -> list[str]:
        return ["data", "prepare", "text.txt", "--out", out, "--tokenizer", tokenizer]

    @staticmethod
    def _gguf(seed: int) -> list[str]:
        return ["model", "export", f"seed-{seed}", "--format", "gguf", "--out", "out.gguf"]

    @staticmethod
    def _weights(run_folder: Path) -> str:
        return digest(run_folder / "checkpoints" / "step-00000000" / "model.safetensors")

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
        wanted = [self.expected[11], self.expected[12]]
        return self._judge(folder, children, result_of(folder / "runs" / "mine"), wanted)

    def two_trainings_without_names(self, folder: Path) -> Outcome:
        """Each gets a name of its own."""
        copy(self.base, folder)
        children = together([_train(None, 11), _train(None, 12)], folder)
        if any(child.code for child in children):
            return "", " | ".join(child.said[-200:] for child in children)
        found = {result_of(each) for each in (folder / "runs").iterdir()}
        same = found == {self.expected[11], self.expected[12]}
        return "both trained, under two names", "" if same else "results differ"

    def two_resumes(self, folder: Path) -> Outcome:
        """Of one run; one that comes when the other has finished finds nothing left to do."""
        copy(self.half, folder)
        children = together([["train", "--resume", "mine", "train.steps=8"]] * 2, folder)
        if result_of(folder / "runs" / "mine") != self.expected["resumed"]:
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
        kinds = ["bytes", "characters"]
        children = together([self._prepare(kind, "store") for kind in kinds], folder)
        if not is_sound(folder / "store"):
            return "", "the store is not sound"
        wanted = [self.expected[kind] for kind in kinds]
        return self._judge(folder, children, digest(folder / "store"), wanted)

    def two_imports(self, folder: Path) -> Outcome:
        """Of two models under one name."""
        copy(self.trained, folder)
        words = [["model", "import", f"hf-{seed}", "--name", "theirs"] for seed in (11, 12)]
        children = together(words, folder)
        found = self._weights(folder / "runs" / "theirs")
        return self._judge(folder, children, found, [self.expected[f"in-{s}"] for s in (11, 12)])

    def an_import_and_a_training(self, folder: Path) -> Outcome:
        """Under one name."""
        copy(self.trained, folder)
        words = [["model", "import", "hf-11", "--name", "mine"], _train("mine", 12)]
        children = together(words, folder)
        run = folder / "runs" / "mine"
        if children[0].code == 0:
            return self._judge(folder, children, self._weights(run), [self.expected["in-11"], ""])
        return self._judge(folder, children, result_of(run), ["", self.expected[12]])

    def two_exports(self, folder: Path) -> Outcome:
        """Into one folder."""
        copy(self.trained, folder)
        words = [["model", "export", f"seed-{seed}", "--out", "out"] for seed in (11, 12)]
        children = together(words, folder)
        wanted = [self.expected[f"hf-{seed}"] for seed in (11, 12)]
        return self._judge(folder, children, digest(folder / "out"), wanted)

    def two_exports_gguf(self, folder: Path) -> Outcome:
        """Into one file."""
        copy(self.trained, folder)
        children = together([self._gguf(seed) for seed in (11, 12)], folder)
        wanted = [self.expected[f"gguf-{seed}"] for seed in (11, 12)]
        return self._judge(folder, children, digest(folder / "out.gguf"), wanted)

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
        if found != {self.expected[11]}:
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
    name: race for name, race in vars(Races).items() if callable(race) and not name.startswith("_")
}


def main() -> int:
    """Run the races that were asked for and print how they went."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("races", nargs="*", choices=[*RACES, []], help="all, if none is named")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    options = parser.parse_args()
    random.seed(options.seed)
    print(f"seed {options.seed}, {options.rounds} rounds each")
    bad = 0
    with room("races-") as place:
        races = Races(Path(place))
        for name in options.races or RACES:
            outcomes: collections.Counter[str] = collections.Counter()
            for number in range(options.rounds):
                outcome, problem = RACES[name](races, Path(place) / "round")
                outcomes[outcome or "WRONG"] += 1
                if problem:
                    bad += 1
                    print(f"  {name}, round {number}: {problem}", flush=True)
            told = "; ".join(f"{count} × {outcome}" for outcome, count in outcomes.most_common())
            print(f"{name}: {told}", flush=True)
    print("all as they should be" if not bad else f"{bad} rounds went wrong")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
