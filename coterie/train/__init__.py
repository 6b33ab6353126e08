"""Training: one loop, told as the story of one step.

In reading order: `settings` (what can be asked for), `session` (what a run needs, built from them),
`loop` (the story), `step` and `objective` (one step), `optimizer`, `schedule`, `clip`, `precision`,
`evaluation`, `samples`, `resume` (to a checkpoint and back), `events` (what is recorded), `monitor`
(where it goes), `plan`. Names are imported when first used, so that `events` needs no torch.
"""

from typing import TYPE_CHECKING

from coterie.foundation.lazy import lazy_names

if TYPE_CHECKING:
    from coterie.train.given import require_roles, run_settings
    from coterie.train.loop import TrainResult, train
    from coterie.train.settings import RunSettings, TrainSettings

__all__ = ["RunSettings", "TrainResult", "TrainSettings", "require_roles", "run_settings", "train"]

__getattr__ = lazy_names(
    __name__,
    {
        "RunSettings": "settings",
        "TrainResult": "loop",
        "TrainSettings": "settings",
        "require_roles": "given",
        "run_settings": "given",
        "train": "loop",
    },
)
