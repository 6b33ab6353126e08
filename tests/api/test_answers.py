"""Files of prompts: answers in order, jobs that go on, and lines that are refused."""

import json

import pytest

import coterie
from coterie.api import answers as module
from coterie.api.answers import answer_file, answers, read_prompts
from coterie.cli import app
from coterie.foundation.errors import DataError, UserError
from tests.cli.conftest import make_run

LINES = [
    {"prompt": "It was", "id": "a", "max_tokens": 5},
    {"prompt": "and", "seed": 4, "max_tokens": 2},
    {"prompt": "", "temperature": 0, "stop": ["e"]},
    {"prompt": "It was", "id": 7},
]


@pytest.fixture
def asked(places):
    make_run(places)
    path = places / "asked.jsonl"
    path.write_text("\n".join(map(json.dumps, LINES)) + "\n\n")
    return path


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_answers_are_those_of_each_prompt_alone_in_order(asked, capsys):
    assert app.run(["generate", "tiny", "--prompts", str(asked), "max_tokens=6"]) == 0
    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    model = coterie.load("tiny")
    for line, answer in zip(LINES, shown, strict=True):
        keys = {name: each for name, each in line.items() if name not in ("prompt", "id")}
        alone = model.generate(line["prompt"], **({"max_tokens": 6} | keys))
        assert answer["text"] == alone.text
        assert answer["finish_reason"] == alone.finish_reason
        assert answer["tokens"] == len(alone.tokens)
        assert answer.get("id") == line.get("id")
    many = model.generate_many(["It was", "and"], max_tokens=3)
    assert [str(each) for each in many] == [
        str(model.generate(prompt, max_tokens=3)) for prompt in ("It was", "and")
    ]
    with pytest.raises(UserError, match="no request"):
        model.generate_many([])


def test_an_interrupted_job_goes_on_and_never_looks_complete(asked, places, monkeypatch):
    model, out, said = coterie.load("tiny"), places / "out.jsonl", []
    answer_file(model, asked, out, told=said.append)
    whole = out.read_bytes()
    out.unlink()

    def dying(prompts, run):
        for number, answer in enumerate(answers(prompts, run)):
            if number == 2:
                raise KeyboardInterrupt
            yield answer

    with monkeypatch.context() as patch:
        patch.setattr(module, "answers", dying)
        with pytest.raises(KeyboardInterrupt):
            answer_file(model, asked, out, told=said.append)
    part = places / "out.jsonl.part"
    assert not out.exists()
    assert len(read(part)) == 3
    with part.open("ab") as file:  # half a line, as a kill leaves it
        file.write(b'{"prompt": "It w')
    words = ["generate", "tiny", "--prompts", str(asked), "--out", str(out), "max_tokens=3"]
    assert app.run(words) != 0
    assert not out.exists()
    asked.write_text(asked.read_text() + json.dumps({"prompt": "more"}) + "\n")
    with pytest.raises(UserError, match="its prompts differ"):
        answer_file(model, asked, out, told=said.append)
    asked.write_text("\n".join(map(json.dumps, LINES)) + "\n\n")
    assert said == []
    made = answer_file(model, asked, out, told=said.append)
    assert said == ["2 of 4 prompts were answered before; going on."]
    assert len(made) == 2
    assert out.read_bytes() == whole
    assert not part.exists()
    with pytest.raises(UserError, match="exists already"):
        answer_file(model, asked, out, told=said.append)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 2 of .* is not usable JSON"),
        ("[1]", "line 2 of .* has no “prompt”"),
        ('{"prompt": 3}', "line 2 of .* has no “prompt”"),
        ('{"prompt": "a", "temperatur": 1}', "line 2 of .* does not fit"),
        ('{"prompt": "a", "top_p": 7}', "line 2 of .* does not fit"),
    ],
)
def test_a_line_that_does_not_fit_is_named_before_anything_starts(asked, line, words):
    asked.write_text(json.dumps(LINES[0]) + "\n" + line + "\n")
    with pytest.raises(DataError, match=words):
        read_prompts(coterie.load("tiny"), asked)


def test_an_empty_file_and_options_that_do_not_go_together_are_refused(asked, capsys):
    for words in (["--out", "x"], ["a prompt", "--prompts", str(asked)]):
        assert app.run(["generate", "tiny", *words]) != 0
    asked.write_text("\n")
    assert app.run(["generate", "tiny", "--prompts", str(asked)]) != 0
    assert "has no prompt" in capsys.readouterr().err
    assert app.run(["generate", "tiny", "--prompts", "nowhere.jsonl"]) != 0
    assert "nowhere.jsonl" in capsys.readouterr().err


def test_a_prompt_that_fails_is_told_by_the_exit_code(places, capsys):
    make_run(places)
    asked = places / "asked.jsonl"
    asked.write_text(
        '{"prompt": "It", "constraints": [{"kind": "forbid", "texts": [""]}]}\n{"prompt": "was"}\n'
    )
    assert app.run(["generate", "tiny", "--prompts", str(asked), "max_tokens=3"]) == 1
    shown = capsys.readouterr()
    failed, made = map(json.loads, shown.out.splitlines())
    assert "cannot be forbidden" in failed["error"]
    assert made["tokens"] == 3
    assert "1 prompts failed" in shown.err
