"""A session of a model with all its parts: it trains, resumes and writes; tags become tokens."""

from __future__ import annotations

import pytest

from coterie.checkpoint import load_model
from coterie.foundation.errors import SettingsError
from coterie.foundation.runs import RunDirectory
from coterie.generate import Engine, SamplingSettings
from coterie.model import DecoderSettings
from coterie.tokenizer.characters import Characters
from coterie.train import RunSettings, train
from coterie.train.events import StepDone
from coterie.train.pretraining import fill_tag_ids

TAGS = {"speaker": {"opening": "<S>", "closing": "</S>", "follow": "name", "bound": 4}}
TAGGED = "".join(
    f"<S>{'king' if n % 3 else 'fool'}</S>\n{n} and {n} is {n + n}.\n" for n in range(150)
)

BRACKETS = {"opening": "[", "closing": "]"}


@pytest.fixture
def tagged(tiny, tmp_path) -> RunSettings:
    source = tmp_path / "play.txt"
    source.write_text(TAGGED, encoding="utf-8")
    return tiny(
        data={"source": str(source)},
        tokenizer={"kind": "characters", "special_tokens": ["<S>", "</S>"]},
        model={
            "additive": [{"kind": "structure", "kinds": TAGS}], "mtp": {"depth": 1},
            "stochastic_depth": 0.2,
            "block_layout": {"kind": "parallel", "gate": "channel"},
            "dropout": {"kind": "structured", "rate": 0.1, "size": 4},
        },
        train={
            "steps": 4, "evaluate_every": 0, "sample_every": 0,
            "schedule": {"kind": "constant", "warmup": 0},
        },
    )  # fmt: skip


def steps_of(settings: RunSettings, run: RunDirectory, resume: bool = False) -> list[StepDone]:
    events = []
    train(settings, run, preset="none", observers=[events.append], resume=resume)
    return [event for event in events if isinstance(event, StepDone)]


def test_a_run_trains_resumes_and_writes_with_all_of_it(tagged, new_run):
    short = tagged.model_copy(update={"train": tagged.train.model_copy(update={"steps": 2})})
    expected = steps_of(tagged, new_run("whole"))
    assert all(step.auxiliary["mtp"] > 0 for step in expected)
    run = new_run("parts")
    found = steps_of(short, run) + steps_of(tagged, run, resume=True)
    assert [step.loss for step in found] == [step.loss for step in expected]

    loaded = load_model(run.path)
    decoder, tokenizer = loaded.decoder, loaded.tokenizer
    assert decoder.settings.additive[0].kinds["speaker"].opening_id == tokenizer.encode("<S>")[0]
    engine = Engine(decoder, tokenizer)
    texts = [
        engine.generate("<S>king</S>\n", SamplingSettings(max_tokens=30, seed=2, cache=kind)).text
        for kind in ("full", "none")
    ]
    assert texts[0] == texts[1]


def test_tags_are_found_in_the_tokenizer_and_unknown_ones_refused(tagged):
    tokenizer = Characters(special_tokens=("<S>", "</S>")).build(["king fool"])
    filled = fill_tag_ids(tagged, tokenizer).model.additive[0].kinds["speaker"]
    assert tokenizer.decode([filled.opening_id]) == "<S>"
    assert tokenizer.decode([filled.closing_id]) == "</S>"
    without = Characters(special_tokens=("<SP>", "</SP>")).build(["king fool<S>/"])
    with pytest.raises(SettingsError, match=r"speaker.opening=“<S>” .* did you mean “<SP>”"):
        fill_tag_ids(tagged, without)
    single = tagged.model_copy(
        update={
            "model": DecoderSettings.model_validate(
                tagged.model.model_dump()
                | {"additive": [{"kind": "structure", "kinds": {"aside": BRACKETS}}]}
            )
        }
    )
    known = Characters().build(["[aside] well"])
    kind = fill_tag_ids(single, known).model.additive[0].kinds["aside"]
    assert known.decode([kind.opening_id, kind.closing_id]) == "[]"
    with pytest.raises(SettingsError, match="is no single token"):
        fill_tag_ids(single, Characters().build(["no brackets"]))
