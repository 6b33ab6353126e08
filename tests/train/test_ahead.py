"""Training what looks ahead: its own normalised loss; and tags that become tokens."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from coterie.batch import IGNORE, TokenBatch
from coterie.checkpoint import load_model
from coterie.foundation.errors import SettingsError
from coterie.foundation.runs import RunDirectory
from coterie.generate import Engine, SamplingSettings
from coterie.model import DecoderSettings
from coterie.tokenizer.characters import Characters
from coterie.train import RunSettings, train
from coterie.train.clip import NoClip
from coterie.train.events import StepDone
from coterie.train.precision import resolve_precision
from coterie.train.session import fill_structure_ids
from coterie.train.settings import TrainSettings
from coterie.train.step import Stepper

MOE = {
    "kind": "moe", "experts": [{"body": {"kind": "swiglu", "width": 8}, "count": 4}],
    "experts_per_token": 2, "router": {"z_loss": 0.1},
}  # fmt: skip


def make_decoder(**changes):
    torch.manual_seed(0)
    base = {
        "layers": 2, "width": 16, "context": 8, "vocab_size": 11,
        "attention": {"kind": "grouped", "heads": 2}, "feedforward": MOE,
        "ahead": {"depth": 2, "weight": 0.6}, "initial": {"std": 0.2},
    }  # fmt: skip
    return DecoderSettings.model_validate(base | changes).build().double().train()


def make_batch() -> TokenBatch:
    """Eight windows with 3, 0, 5, ... of 8 targets valid: never the same number in two pieces."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(11, (8, 9), generator=generator)
    targets = tokens[:, 1:].clone()
    for row, valid in enumerate((3, 0, 5, 8, 1, 7, 2, 8)):
        targets[row, valid:] = IGNORE
    return TokenBatch(tokens[:, :-1].contiguous(), targets)


class Keep:
    """An optimizer that only remembers the gradients it was given."""

    learning_rate = 1.0

    def __init__(self, decoder):
        self.decoder, self.gradients = decoder, {}

    def step(self, step, multiplier):
        self.gradients = {n: p.grad.clone() for n, p in self.decoder.named_parameters()}


def take_step(decoder, pieces: int):
    optimizer = Keep(decoder)
    stepper = Stepper(decoder, decoder, optimizer, NoClip().build(),
                      resolve_precision("float32", torch.device("cpu")),
                      TrainSettings(batch_size=8, gradient_accumulation=pieces))  # fmt: skip
    return optimizer, stepper(0, make_batch())


@pytest.mark.parametrize("pieces", [2, 4, 8])
def test_the_term_and_all_gradients_do_not_depend_on_the_cut(pieces):
    decoder = make_decoder()
    whole, result = take_step(decoder, 1)
    cut, cut_result = take_step(decoder, pieces)
    for name in ("ahead", "z"):
        torch.testing.assert_close(
            cut_result.account.auxiliary[name], result.account.auxiliary[name]
        )
    assert set(whole.gradients) == {name for name, _ in decoder.named_parameters()}
    for name, gradient in whole.gradients.items():
        torch.testing.assert_close(cut.gradients[name], gradient, rtol=1e-5, atol=1e-8)
    for layer, load in result.account.loads.items():
        assert torch.equal(cut_result.account.loads[layer], load)
    assert set(result.account.loads) == {0, 1, 2, 3}


def test_the_term_is_the_weighted_mean_over_depths_and_apart_from_the_loss():
    decoder, batch = make_decoder(), make_batch()
    _, result = take_step(decoder, 4)
    means = []
    for depth, logits in enumerate(decoder.predict_ahead(batch.tokens), start=1):
        goals = batch.targets[:, depth:].flatten()
        means.append(F.cross_entropy(logits.flatten(0, 1), goals, ignore_index=IGNORE))
    expected = 0.6 * (means[0] + means[1]) / 2
    torch.testing.assert_close(result.account.auxiliary["ahead"], expected.detach())
    logits = decoder(batch.tokens).logits.flatten(0, 1)
    loss = F.cross_entropy(logits, batch.targets.flatten(), ignore_index=IGNORE)
    torch.testing.assert_close(result.account.loss, loss.detach())


def test_a_depth_without_any_target_adds_nothing():
    decoder, batch = make_decoder(), make_batch()
    targets = batch.targets.clone()
    targets[:, 1:] = IGNORE
    stepper = Stepper(decoder, decoder, Keep(decoder), NoClip().build(),
                      resolve_precision("float32", torch.device("cpu")),
                      TrainSettings(batch_size=8))  # fmt: skip
    result = stepper(0, TokenBatch(batch.tokens, targets))
    assert float(result.account.auxiliary["ahead"]) == 0
    assert float(result.account.loss) > 0


TAGS = {"speaker": {"opening": "<S>", "closing": "</S>", "follow": "name", "bound": 4}}
TAGGED = "".join(
    f"<S>{'king' if n % 3 else 'fool'}</S>\n{n} and {n} is {n + n}.\n" for n in range(150)
)


@pytest.fixture
def tagged(tiny, tmp_path) -> RunSettings:
    source = tmp_path / "play.txt"
    source.write_text(TAGGED, encoding="utf-8")
    return tiny(
        data={"source": str(source)},
        tokenizer={"kind": "characters", "special_tokens": ["<S>", "</S>"]},
        model={
            "structure": {"kinds": TAGS}, "ahead": {"depth": 1}, "stochastic_depth": 0.2,
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
    assert all(step.auxiliary["ahead"] > 0 for step in expected)
    run = new_run("parts")
    found = steps_of(short, run) + steps_of(tagged, run, resume=True)
    assert [step.loss for step in found] == [step.loss for step in expected]

    loaded = load_model(run.path)
    decoder, tokenizer = loaded.decoder, loaded.tokenizer
    assert decoder.settings.structure.kinds["speaker"].opening_id == tokenizer.encode("<S>")[0]
    engine = Engine(decoder, tokenizer)
    texts = [
        engine.generate("<S>king</S>\n", SamplingSettings(max_tokens=30, seed=2, cache=kind)).text
        for kind in ("full", "none")
    ]
    assert texts[0] == texts[1]


def test_tags_are_found_in_the_tokenizer_and_unknown_ones_refused(tagged):
    tokenizer = Characters(special_tokens=("<S>", "</S>")).build(["king fool"])
    filled = fill_structure_ids(tagged, tokenizer).model.structure.kinds["speaker"]
    assert tokenizer.decode([filled.opening_id]) == "<S>"
    assert tokenizer.decode([filled.closing_id]) == "</S>"
    without = Characters(special_tokens=("<SP>", "</SP>")).build(["king fool<S>/"])
    with pytest.raises(SettingsError, match=r"speaker.opening=“<S>” .* did you mean “<SP>”"):
        fill_structure_ids(tagged, without)
    single = tagged.model_copy(
        update={
            "model": DecoderSettings.model_validate(
                tagged.model.model_dump()
                | {"structure": {"kinds": {"aside": {"opening": "[", "closing": "]"}}}}
            )
        }
    )
    known = Characters().build(["[aside] well"])
    kind = fill_structure_ids(single, known).model.structure.kinds["aside"]
    assert known.decode([kind.opening_id, kind.closing_id]) == "[]"
    with pytest.raises(SettingsError, match="is no single token"):
        fill_structure_ids(single, Characters().build(["no brackets"]))
