"""`coterie align sft`, `dpo` and `kto`, and what they make: a run that answers."""

import json

import pytest

from coterie.checkpoint import load_model
from coterie.cli.app import run
from coterie.tokenizer.chat import ChatTemplate

ROWS = {
    "sft": {"prompt": "It was", "completion": " bright"},
    "dpo": {"prompt": "It was", "chosen": " bright", "rejected": " cold"},
    "kto": {"prompt": "It was", "completion": " bright", "label": True},
}


@pytest.fixture
def rows(places):
    def written(kind, count=12):
        path = places / f"{kind}.jsonl"
        path.write_text("".join(json.dumps(ROWS[kind]) + "\n" for _ in range(count)))
        return str(path)

    return written


def test_a_tuned_run_answers_by_the_template_it_keeps(tiny_run, rows, capsys):
    words = ["align.template=plain", "train.steps=2", "train.batch_size=4", "--json"]
    assert run(["align", "sft", "tiny", rows("sft"), "--name", "tuned", *words]) == 0
    assert json.loads(capsys.readouterr().out)["run"] == "tuned"
    asked = ["generate", "tuned", "--chat", "It was", "max_tokens=4", "seed=1", "--json"]
    assert run(asked) == 0
    answer = json.loads(capsys.readouterr().out)["samples"][0]["text"]
    assert run(["generate", "tuned", "It was", "max_tokens=4", "seed=1", "--json"]) == 0
    plainly = json.loads(capsys.readouterr().out)["samples"][0]["text"]
    assert plainly == answer, "the template adds nothing"


def test_an_exported_run_brings_the_template_it_was_tuned_with(tiny_run, rows, places, capsys):
    transformers = pytest.importorskip("transformers")
    words = ["align.template=plain", "train.steps=1", "train.batch_size=4", "--lora", "2"]
    assert run(["align", "sft", "tiny", rows("sft"), "--name", "tuned", *words]) == 0
    assert run(["model", "export", "tuned", "--out", str(places / "hf")]) == 0
    said = [{"role": "user", "content": "It was"}, {"role": "assistant", "content": " cold"}]
    found = transformers.AutoTokenizer.from_pretrained(places / "hf")
    own = ChatTemplate("plain", load_model("tuned").tokenizer)
    assert found.apply_chat_template(said, tokenize=False) == own.render(said)
    asked = found.apply_chat_template(said[:1], tokenize=False, add_generation_prompt=True)
    assert asked == own.render(said[:1], ask=True)


@pytest.mark.parametrize("kind", ["dpo", "kto"])
def test_preferences_are_learnt_from_files(kind, tiny_run, rows, capsys):
    words = ["align.template=plain", "train.steps=2", "train.batch_size=4", "--lora", "2"]
    assert run(["align", kind, "tiny", rows(kind), *words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["run"] == f"tiny-{kind}"


def test_a_dry_run_makes_nothing_and_a_missing_file_is_named(tiny_run, rows, capsys):
    assert (
        run(["align", "sft", "tiny", rows("sft"), "align.template=plain", "--dry-run", "--json"])
        == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert found["settings"]["align"]["kind"] == "sft"
    assert run(["align", "sft", "tiny"]) == 2
    assert "A run and a file of conversations" in capsys.readouterr().err
    assert run(["align", "sft", "tiny", "nowhere.jsonl"]) == 2
    assert "nowhere.jsonl" in capsys.readouterr().err
