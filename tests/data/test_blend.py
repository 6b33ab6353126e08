"""A blend has its share, nothing of the main text, and holds out what the main text alone would."""

import json
import random

import pytest

from coterie.data.blend import blend
from coterie.data.examine import verify_store
from coterie.data.overlap import NGramIndex
from coterie.data.prepare import prepare
from coterie.data.sources import Sources
from coterie.foundation.errors import DataError, UserError
from coterie.tokenizer.settings import parse_tokenizer


def _text(seed, words):
    draw = random.Random(seed)
    row = [f"w{draw.randrange(3000)}" for _ in range(words)]
    return "".join(word + (" " if at % 9 else "\n") for at, word in enumerate(row))


@pytest.fixture
def texts(tmp_path):
    main = [_text(f"main {at}", 900) for at in range(30)]
    other = [_text(f"other {at}", 3000) for at in range(6)]
    quotation = " ".join(main[3].split()[100:140])
    words = other[2].split(" ")
    other[2] = " ".join([*words[:1500], quotation, *words[1500:]])
    for name, rows in (("main", main), ("other", other)):
        lines = (json.dumps({"text": text}) + "\n" for text in rows)
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
    return tmp_path


@pytest.mark.parametrize("split", ["documents", "tail"])
@pytest.mark.parametrize("kind", ["bytes", "gpt2"])
def test_a_blend_has_its_share_and_nothing_of_the_main_text(texts, split, kind):
    tokenizer = parse_tokenizer(kind).build()
    main, other = Sources(str(texts / "main.jsonl")), Sources(str(texts / "other.jsonl"))
    found = blend(main, other, texts / "store", tokenizer, split=split, report=texts / "report",
                  valid_fraction=0.2)  # fmt: skip
    assert found.share == pytest.approx(0.1, abs=0.001)
    assert verify_store(texts / "store") == []
    alone = prepare(main, texts / "alone", tokenizer, split=split, valid_fraction=0.2)
    assert found.store.tokens("valid")[:].tolist() == alone.tokens("valid")[:].tolist()
    trained = alone.manifest.splits["train"].tokens
    assert found.store.manifest.splits["train"].tokens == found.tokens + trained
    rows = [json.loads(line) for line in (texts / "report").read_text().splitlines()]
    assert {row["name"] for row in rows} == {str(texts / "other.jsonl") + ":3"}
    quoted = next(iter(Sources(str(texts / "main.jsonl")).__iter__())).text
    assert len(rows) in (1, 2)
    assert rows[0]["words"] not in quoted
    index = NGramIndex(main, 13)
    text = tokenizer.decode(found.store.tokens("train")[: found.tokens])
    index.mark([text])
    assert not index.seen.any()
    again = blend(main, other, texts / "again", tokenizer, split=split, valid_fraction=0.2)
    assert again.store.fingerprint == found.store.fingerprint


def test_too_little_text_and_senseless_shares_are_refused(texts):
    tokenizer = parse_tokenizer("bytes").build()
    main, other = Sources(str(texts / "main.jsonl")), Sources(str(texts / "other.jsonl"))
    with pytest.raises(DataError, match="cannot be had") as caught:
        blend(main, other, texts / "store", tokenizer, share=0.6)
    reached = float(str(caught.value.hint).split()[-1])
    assert 0.3 < reached < 0.5
    assert not (texts / "store").exists()
    found = blend(main, other, texts / "store", tokenizer, share=reached)
    assert found.share == pytest.approx(reached, abs=0.001)
    with pytest.raises(UserError, match="share"):
        blend(main, other, texts / "new", tokenizer, share=1)
