"""Damages token stores in a thousand ways and holds `verify` and every reader to their promises.

No damage ends in a traceback or in waiting; a sound store is never called unsound; every damage is
found, also behind manifests that were signed anew, wherever what is left contradicts itself.

Run: python scripts/corrupt_stores.py --rounds 1000 --seed 1
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import shutil
import sys
import tempfile
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

sys.path.insert(0, str(Path(__file__).parent))

from damage import BYTES, at_most, edit_json, files
from merged_stores import merged_stores, move_parts, parts_of, pinned

from coterie.data import (
    BatchLoader,
    Document,
    Store,
    evaluation_batches,
    open_store,
    prepare,
    verify_store,
)
from coterie.data.manifest import digest, is_merged
from coterie.data.store import open_plain_store
from coterie.foundation.errors import CoterieError, UserError
from coterie.foundation.files import sha256_file
from coterie.foundation.records import read_json
from coterie.tokenizer.interface import Tokenizer
from coterie.tokenizer.saving import load_tokenizer, save_tokenizer
from coterie.tokenizer.settings import parse_tokenizer
from coterie.tokenizer.subword import SubwordTokenizer

LINES = (
    "Shall I compare thee to a summer’s day?\n", "Thou art more lovely and more temperate:\n",
    "Rough winds do shake the darling buds of May,\n", "  And summer's lease — ünd ß 日本\n",
)  # fmt: skip
DOCUMENTS = [
    Document(f"{i}", "".join(LINES[: 1 + i % 4]) * (1 + i % 3) + f"{i}") for i in range(24)
]
OF_TWO = [replace(each, origin="ab"[int(each.name) % 2]) for each in DOCUMENTS]


def lossy_tokenizer() -> Tokenizer:
    """Return a tokenizer.json whose decoding does not return the text."""
    words = sorted({word.lower() for line in LINES for word in line.split()})
    vocabulary = {word: number for number, word in enumerate(["[UNK]", *words])}
    rules = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    rules.normalizer = normalizers.Lowercase()
    rules.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    rules.decoder = decoders.WordPiece()
    return SubwordTokenizer(rules)


SMALL = ("characters", "bytes", "bpe:300")
ALL = (*SMALL, "gpt2", "o200k_base")


def sound_stores(folder: Path, names: Iterable[str] = ALL) -> list[Path]:
    """Make stores of every shape with every kind of tokenizer."""
    texts = [document.text for document in DOCUMENTS]
    built = {name: parse_tokenizer(name).build(texts) for name in names}
    built["lossy"] = lossy_tokenizer()
    built["short"] = parse_tokenizer("characters").build(texts[:1])  # knows few characters
    stores = []
    for number, (name, tokenizer) in enumerate(built.items()):
        for documents, options in (
            (DOCUMENTS, {"shard_tokens": 300, "seed": number}),
            (DOCUMENTS, {"split": "tail", "valid_fraction": 0.3}),
            (OF_TWO, {"shard_tokens": 500, "valid_fraction": 0.4}),
            (DOCUMENTS[:2], {"valid_fraction": 0}),
            (DOCUMENTS[3:4], {"shard_tokens": 40}),
        ):
            stores.append(folder / f"{name.replace(':', '')}-{len(stores)}")
            prepare(documents, stores[-1], tokenizer, workers=1, **options)
    return [*stores, *merged_stores(folder, stores)]


@dataclass
class Case:
    """One damaged store.

    Attributes:
        what: what was done to it.
        must: whether what is left contradicts itself, so that it must be found.
    """

    what: str
    must: bool


def damage(rng: random.Random, store: Path, other: Path, *, signed: bool) -> Case | None:
    """Damage a store; with `signed`, as someone who then makes the checksums anew."""
    if is_merged(store):
        return damage_merged(rng, store, other, signed=signed)
    if signed:
        how = rng.choice([edit_manifest, edit_manifest, edit_tokens, edit_offsets, edit_files])
        return how(rng, store, other)
    how = rng.choice([*BYTES, edit_text])
    what = how(rng, store, other)
    return None if what is None else Case(f"{how.__name__}: {what}", True)


def damage_merged(rng: random.Random, store: Path, other: Path, *, signed: bool) -> Case | None:
    """Damage a merged store, or one of the stores in it."""
    place = rng.choice([store, *parts_of(store)])
    if place != store:
        before = open_plain_store(place).fingerprint
        case = damage(rng, place, other, signed=signed)
        if case is not None and signed:
            try:  # what its own manifest cannot show, the fingerprint in the merged one does
                case.must = case.must or open_plain_store(place).fingerprint != before
            except CoterieError:
                case.must = True
        return case
    if signed:
        return edit_merged(rng, store)
    how = rng.choice([*BYTES, edit_text, move_parts])
    what = how(rng, store, other)
    return None if what is None else Case(f"{how.__name__}: {what}", True)


def edit_merged(rng: random.Random, store: Path) -> Case:
    """Change a value of a merged store's manifest and sign it."""
    content = manifest_of(store)
    del content["sha256"]
    before = json.dumps(pinned(content), sort_keys=True)
    what = edit_json(rng, content)
    sign(store, content)
    try:
        must = json.dumps(pinned(content), sort_keys=True) != before
    except (KeyError, TypeError, AttributeError, ValueError):
        must = True
    return Case(f"merged manifest: {what}", must)


def edit_text(rng: random.Random, store: Path, other: Path) -> str:
    """Edit a JSON file without touching its checksum."""
    file = store / rng.choice(["manifest.json", "tokenizer.json"])
    if rng.random() < 0.2:
        text = file.read_text("utf-8")
        place = text.index('"', rng.randrange(len(text) // 2))
        twice = text.replace("{", '{"format": "coterie.store/1", "format": 1,', 1)
        file.write_text(rng.choice([twice, text[:place] + "[" * 5_000, "\ufeff" + text]), "utf-8")
        return f"{file.name} is no JSON"
    content = json.loads(file.read_text("utf-8"))
    what = edit_json(rng, content)
    file.write_text(json.dumps(content), "utf-8")
    return f"{file.name}: {what}"


def sign(store: Path, content: dict[str, Any]) -> None:
    """Write a manifest with a checksum of itself."""
    content.pop("sha256", None)
    (store / "manifest.json").write_text(
        json.dumps(content | {"sha256": digest(content)}, indent=2), "utf-8"
    )


def manifest_of(store: Path) -> dict[str, Any]:
    """Return a manifest's content."""
    return json.loads((store / "manifest.json").read_text("utf-8"))


def resign(store: Path) -> None:
    """Make everything anew that a checksum or a size says."""
    content = manifest_of(store)
    width = 2 if content["dtype"] == "uint16" else 4
    for record in content["splits"].values():
        others = [(record["offsets"], 8), (record.get("source_ids"), 2)]
        for part, size in [*((shard, width) for shard in record["shards"]), *others]:
            if part:
                file = store / part["file"]
                part["sha256"] = sha256_file(file)
                part["count"] = file.stat().st_size // size
        record["tokens"] = sum(shard["count"] for shard in record["shards"])
    tokenizer = load_tokenizer(store)
    content["tokenizer"] = {
        "kind": tokenizer.kind, "fingerprint": tokenizer.fingerprint,
        "vocab_size": tokenizer.vocab_size, "end_of_text": tokenizer.end_of_text,
    }  # fmt: skip
    sign(store, content)


def edit_manifest(rng: random.Random, store: Path, other: Path) -> Case:
    """Change a value of the manifest."""
    content, before = manifest_of(store), manifest_of(store)
    del content["sha256"]
    what = edit_json(rng, content)
    sign(store, content)
    return Case(f"manifest: {what}", _contradicts(before, content, load_tokenizer(store)))


def _contradicts(before: dict[str, Any], content: dict[str, Any], tokenizer: Tokenizer) -> bool:
    """Whether another manifest than the true one must be found out."""
    try:
        known = json.loads(json.dumps(before))
        known.pop("sha256")
        content = {"format": known["format"], "problems": [], "skipped": 0} | content
        content["split"] = {"note": ""} | content["split"]
        # Nothing else in a store says what was left out, why, or what was asked for; two seeds
        # and two shares may divide the same few documents in one way.
        known["problems"], known["skipped"] = content["problems"], content["skipped"]
        known["split"] |= {key: content["split"][key] for key in
                           ("note", "seed", "asked", "valid_fraction")}  # fmt: skip
        shards = [len(record["shards"]) for record in known["splits"].values()]
        if max(shards) < 2:  # nothing shows where a second one would have begun
            known["shard_tokens"] = content["shard_tokens"]
        for name, record in known["splits"].items():
            if not tokenizer.keeps_text or record["unknown"]:
                for key in ("characters", "bytes"):
                    record[key] = content["splits"][name][key]
    except (KeyError, TypeError, AttributeError):
        return True
    return json.dumps(known, sort_keys=True) != json.dumps(content, sort_keys=True)


def edit_tokens(rng: random.Random, store: Path, other: Path) -> Case:
    """Change tokens of a shard."""
    content = manifest_of(store)
    dtype = np.dtype(content["dtype"])
    file = rng.choice([file for file in files(store) if file.stem[-1].isdigit()])
    numbers = np.fromfile(file, dtype)
    place = rng.randrange(len(numbers))
    size = content["tokenizer"]["vocab_size"]
    beyond = rng.random() < 0.4 and size < np.iinfo(dtype).max
    value = rng.randrange(size, np.iinfo(dtype).max) if beyond else rng.randrange(size)
    old = int(numbers[place])
    numbers[place] = value
    numbers.tofile(file)
    resign(store)
    tokenizer = load_tokenizer(store)
    if beyond or old == value:
        return Case(f"token {value} in {file.name} at {place}", beyond)
    return Case(f"token {value} for {old} in {file.name} at {place}", _odd(store, tokenizer))


def _odd(store: Path, tokenizer: Tokenizer) -> bool:
    """Whether a split's tokens are not what the tokenizer gives for their text, counted apart."""
    content = manifest_of(store)
    for record in content["splits"].values():
        if not record["offsets"]:
            continue
        counts = [shard["count"] for shard in record["shards"]]
        if set(counts[:-1]) - {content["shard_tokens"]} or counts[-1] > content["shard_tokens"]:
            return True
        tokens = np.concatenate(
            [np.fromfile(store / shard["file"], content["dtype"]) for shard in record["shards"]]
        )
        starts = np.fromfile(store / record["offsets"]["file"], "<u8").astype(int).tolist()
        if starts[-1] >= len(tokens) or tokens.max() >= tokenizer.vocab_size:
            return True
        unknown, texts = 0, []
        for start, stop in zip(starts, [*starts[1:], len(tokens) + 1], strict=True):
            document = tokens[start : stop - 1]
            if stop <= len(tokens) and tokens[stop - 1] != tokenizer.end_of_text:
                return True
            unknown += int((document == tokenizer.unknown_token).sum())
            if not tokenizer.keeps_text:
                continue
            raw = b"".join(tokenizer.token_bytes(int(token)) for token in document)
            try:
                texts.append(raw.decode("utf-8"))
            except UnicodeDecodeError:
                return True
            if not record["unknown"] and tokenizer.encode(texts[-1]) != document.tolist():
                return True
        if unknown != record["unknown"]:
            return True
        if tokenizer.keeps_text and not unknown:
            text = "".join(texts)
            if (len(text), len(text.encode())) != (record["characters"], record["bytes"]):
                return True
    return False


def edit_offsets(rng: random.Random, store: Path, other: Path) -> Case | None:
    """Change where documents begin."""
    found = [file for file in files(store) if file.name.endswith("documents.bin")]
    file = rng.choice(found)
    numbers = np.fromfile(file, "<u8")
    before = numbers.copy()
    last = sum(shard["count"] for shard in manifest_of(store)["splits"][file.name[:5]]["shards"])
    how = rng.choice(["shuffle", "set", "end", "drop", "zero"])
    if how == "shuffle":
        numbers = np.array(rng.sample(numbers.tolist(), len(numbers)), "<u8")
    elif how == "drop":
        numbers = np.delete(numbers, rng.randrange(len(numbers)))
    elif how == "end":
        numbers[-1] = rng.choice([last, last + 1, 2**63, 2**64 - 1])
    else:
        numbers[rng.randrange(len(numbers))] = 0 if how == "zero" else rng.randrange(last + 2)
    if not len(numbers) or np.array_equal(numbers, before):
        return None
    numbers.astype("<u8").tofile(file)
    resign(store)
    if how == "drop":  # the count is made to fit as well: the separator is then text
        content = manifest_of(store)
        content["splits"][file.name[:5]]["documents"] = len(numbers)
        sign(store, content)
        return Case(f"offsets of {file.name}: {how}", False)
    return Case(f"offsets of {file.name}: {how}", True)


def edit_files(rng: random.Random, store: Path, other: Path) -> Case | None:
    """Change files as a whole and sign what is there then."""
    shards = [file for file in files(store) if file.stem[-1].isdigit()]
    how = rng.choice(["tokenizer", "shorter", "swap", "extended", "damage"])
    if how == "tokenizer":
        shutil.copyfile(other / "tokenizer.json", store / "tokenizer.json")
        resign(store)
        return Case(f"tokenizer of {other.name}, signed", _odd(store, load_tokenizer(store)))
    if how == "extended":
        save_tokenizer(load_tokenizer(store).extended(["<X>"]), store / "tokenizer.json")
        content = manifest_of(store)
        content["tokenizer"]["fingerprint"] = load_tokenizer(store).fingerprint
        sign(store, content)
        return Case("a tokenizer with one token more", True)
    if how == "shorter":
        file = rng.choice(shards)
        content = manifest_of(store)
        width = np.dtype(content["dtype"]).itemsize
        if file.stat().st_size <= 7 * width:
            return None
        with open(file, "r+b") as stream:
            stream.truncate(file.stat().st_size - width * rng.choice([1, 2, 7]))
        resign(store)
        return Case(f"{file.name} shorter", _odd(store, load_tokenizer(store)))
    if how == "swap" and len(shards) > 1:
        first, second = rng.sample(shards, 2)
        kept = first.read_bytes()
        first.write_bytes(second.read_bytes())
        second.write_bytes(kept)
        resign(store)
        return Case(f"{first.name} and {second.name} exchanged", _odd(store, load_tokenizer(store)))
    what = rng.choice(BYTES)(rng, store, other)
    try:
        resign(store)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Case(f"{what}, which cannot be signed", True)
    return None if what is None else Case(f"{what}, signed", False)


def same(first: Path, second: Path) -> bool:
    """Whether two stores hold the same, the layout of their JSON left aside."""
    names = sorted(path.name for path in first.iterdir())
    if names != sorted(path.name for path in second.iterdir()):
        return False
    for name in names:
        a, b = first / name, second / name
        if a.is_dir() and b.is_dir() and not b.is_symlink():
            if not same(a, b):
                return False
            continue
        if not all(path.is_file() and not path.is_symlink() for path in (a, b)):
            return False
        if max(a.stat().st_size, b.stat().st_size) > 1 << 30:
            return False
        if a.read_bytes() != b.read_bytes() and not (
            name.endswith(".json") and _json(a) == _json(b) is not None
        ):
            return False
    return True


def _json(file: Path) -> str | None:
    try:
        return json.dumps(read_json(file), sort_keys=True)
    except UserError:
        return None


def use(store: Path) -> None:
    """Read a store as training and evaluation do."""
    opened = open_store(store)
    for part in opened.sources.values():
        use_plain(part)
    if opened.mix is not None:
        splits = {name: part.tokens("train") for name, part in opened.sources.items()}
        with BatchLoader(splits, context=16, batch_size=1, seed=1, mix=opened.mix) as loader:
            loader.batch(0)


def use_plain(opened: Store) -> None:
    """Read a store of its own tokens."""
    for name in opened.manifest.splits:
        tokens = opened.tokens(name)
        opened.document_starts(name)[:].sum()
        if len(tokens):
            with BatchLoader(tokens, context=16, batch_size=4, seed=1) as loader:
                for index in range(3):
                    assert int(loader.batch(index).tokens.max()) < opened.tokenizer.vocab_size
        for _ in evaluation_batches(tokens, 64, 8):
            pass


def round_of(
    rng: random.Random, stores: list[Path], place: Path, *, signed: bool
) -> tuple[str, Case] | None:
    """Damage one store and look at it; return (verdict, case)."""
    source, other = rng.sample(stores, 2)
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    store = place / "store"
    shutil.copytree(source, store)
    case = damage(rng, store, other, signed=signed)
    if case is None:
        return None
    case.what = f"{source.name}: {case.what}"
    try:
        with at_most(60):
            problems = verify_store(store)
            assert all(isinstance(problem, str) for problem in problems)
            try:
                use(store)
            except UserError as error:
                if not problems:
                    return f"REFUSED BUT SOUND: {error}", case
    except CoterieError as error:
        return f"RAISED {error}", case
    except Exception:
        return f"TRACEBACK\n{traceback.format_exc()}", case
    if same(source, store):
        return ("unchanged" if not problems else f"FALSE ALARM: {problems}"), case
    if problems:
        return "found", case
    return ("MISSED" if case.must else "not found, by nature"), case


def main() -> int:
    """Damage stores for some rounds of each sort and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1000, help="of each sort")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        stores = sound_stores(Path(folder))
        for store in stores:
            if problems := verify_store(store):
                failures += 1
                print(f"FALSE ALARM: {store.name}: {problems}")
        for signed in (False, True):
            rng = random.Random(f"{given.seed} {signed}")
            verdicts: collections.Counter[str] = collections.Counter()
            while sum(verdicts.values()) < given.rounds:
                found = round_of(rng, stores, Path(folder) / "place", signed=signed)
                if found is None:
                    continue
                verdict, case = found
                verdicts[verdict.split("\n")[0].split(":")[0]] += 1
                if verdict.split()[0].isupper():
                    failures += 1
                    print(f"{verdict}\n  {case.what}")
            print(f"{'signed anew' if signed else 'as it is'}: {dict(verdicts)}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
