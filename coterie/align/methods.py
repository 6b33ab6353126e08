"""All alignment methods: a closed union of settings, each of which builds its method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from coterie.align.method import DEFAULT_TEMPLATE, weights_digest
from coterie.align.preferences import Dpo, Kto
from coterie.align.reinforce.settings import Grpo, Ppo, Reinforce, Rejection
from coterie.align.reward_model import RewardModel
from coterie.align.settings import Alignment
from coterie.align.sft import Sft
from coterie.checkpoint import LoadedModel
from coterie.checkpoint.layout import CONFIG
from coterie.foundation.errors import CheckpointError, SettingsError
from coterie.foundation.layers import Layer, load_settings
from coterie.foundation.records import validated
from coterie.foundation.runs import RunDirectory
from coterie.foundation.settings import union
from coterie.tokenizer.saving import FILE_NAME
from coterie.train.method import Method
from coterie.train.settings import RunSettings

AlignmentSettings = Annotated[
    Sft | Dpo | Kto | RewardModel | Grpo | Reinforce | Ppo | Rejection,
    union(Sft, Dpo, Kto, RewardModel, Grpo, Reinforce, Ppo, Rejection),
]


class AlignedRun(RunSettings):
    """The settings of an alignment run, those of the method checked."""

    align: AlignmentSettings = Field(description="the method")  # pyright: ignore


def method_of(settings: RunSettings, run: RunDirectory | None) -> Method | None:
    """Return the method of a run; None: it is pretrained.

    Args:
        run: where the method keeps what it computes once.

    Raises:
        SettingsError: its alignment settings are not those of this version.
    """
    if settings.align is None:
        return None
    where = "align in the run's config.yaml"
    values = {"align": settings.align, "model": settings.model}
    checked = validated(AlignedRun, values, where, SettingsError)
    return checked.align.build(run)


def aligned_settings(
    base: LoadedModel,
    align: Mapping[str, Any],
    train: Mapping[str, Any],
    layers: Sequence[Layer],
    model: Mapping[str, Any] | None = None,
) -> RunSettings:
    """Return the settings of a run that begins with a model.

    Args:
        base: the model; its seed, data's settings and sampling are kept.
        align: the method and what it is told.
        train: how it trains unless a layer says otherwise.
        layers: laid over it, by the user.
        model: what of the model's settings changes: a value head, say.

    Raises:
        SettingsError: anything is wrong; every problem is listed.
        CheckpointError: the model's settings are not those of a run of this version.
    """
    where = str(base.path / CONFIG)
    kept = validated(RunSettings, base.settings, where, CheckpointError)
    path = base.path.absolute()
    name = path.parents[1].name
    own = Layer(
        f"the run {name}",
        {
            "seed": kept.seed,
            "tokenizer": {"kind": "file", "path": FILE_NAME},
            "model": {**kept.model.model_dump(mode="json"), **(model or {})},
            "sample": kept.sample.model_dump(mode="json"),
        },
    )
    own_template = base.tokenizer.chat_template or DEFAULT_TEMPLATE  # stays with the run
    said = {"base": str(path), "base_sha256": weights_digest(path), "template": own_template}
    method = Layer(
        f"coterie align {align['kind']}",
        {
            "description": f"{align['kind']} of {name}",
            "train": dict(train),
            "align": {**said, **align},
        },
    )
    checked = load_settings(AlignedRun, [own, method, *layers]).settings
    if checked.align.data:
        data = str(Path(checked.align.data).absolute())
        checked = checked.model_copy(
            update={"align": checked.align.model_copy(update={"data": data})}
        )
    plain = {name: getattr(checked, name) for name in RunSettings.model_fields}
    return RunSettings.model_validate(plain | {"align": _plain(checked.align)})


def _plain(alignment: Alignment) -> dict[str, Any]:
    return alignment.model_dump(mode="json")
