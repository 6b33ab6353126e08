"""Any Python function as a reward: `function: my_lab.rewards:politeness`.

It is called with keywords `prompts` and `completions`, two lists of texts, and returns one number
for each. What goes wrong in it is told with the sample it went wrong on.
"""

import importlib
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

from pydantic import Field, field_validator

from coterie.align.rewards.interface import Corpus, Reward, RewardError, RewardSettings, Sample
from coterie.align.rewards.limits import limited
from coterie.foundation.errors import UserError
from coterie.foundation.settings import shown

_RESUMABLE = "Mend the function, then go on: coterie train --resume latest"


class Function(RewardSettings):
    """What a function of yours returns."""

    kind: Literal["function"] = "function"
    function: str = Field(description="`module:name`, called with prompts=[…], completions=[…]")
    seconds: float = Field(default=60.0, gt=0, description="the longest that one call may take")

    unit = "its own"
    low, high = -math.inf, math.inf

    @field_validator("function")
    @classmethod
    def _names_one(cls, value: str) -> str:
        module, _, name = value.partition(":")
        if not module or not name:
            raise ValueError("expected `module:name`, such as my_lab.rewards:politeness")
        return value

    def build(self, corpus: Corpus) -> Reward:
        return FunctionReward(self)


class FunctionReward:
    """Calls the function and makes sure of what it returns.

    Raises:
        UserError: there is no such function.
    """

    def __init__(self, settings: Function) -> None:
        self._settings = settings
        module, _, name = settings.function.partition(":")
        try:
            self._call: Callable[..., Any] = getattr(importlib.import_module(module), name)
        except (Exception, SystemExit) as error:  # a foreign module may do anything while it loads
            raise UserError(
                f"The reward function {settings.function} cannot be imported: {error}",
                hint="Run from the directory that its module is in, or put that in PYTHONPATH.",
            ) from error

    def __call__(self, samples: Sequence[Sample]) -> list[float]:
        """Return its numbers."""
        try:
            values = self._ask(samples)
        except RewardError:
            raise
        except (Exception, SystemExit) as error:  # one that exits would end the run wordlessly
            raise self._raised(samples, error) from error
        name = self._settings.function
        if not isinstance(values, Sequence) or len(values) != len(samples):
            got = f"{len(values)} numbers" if isinstance(values, Sequence) else shown(values)
            raise RewardError(
                f"{name} returned {got} for {len(samples)} texts, the first of them "
                f"“{samples[0].shown()}”.",
                hint=_RESUMABLE,
            )
        for sample, value in zip(samples, values, strict=True):
            number = isinstance(value, int | float) or hasattr(value, "__float__")
            if not number or not math.isfinite(float(value)):
                raise RewardError(
                    f"{name} returned {shown(value)} for “{sample.shown()}”; a finite number is "
                    "wanted.",
                    hint=_RESUMABLE,
                )
        return [float(value) for value in values]

    def _ask(self, samples: Sequence[Sample]) -> Any:
        prompts = [each.prompt for each in samples]
        texts = [each.text for each in samples]
        what = f"The reward function {self._settings.function}"
        return limited(
            self._settings.seconds,
            lambda: self._call(prompts=prompts, completions=texts),
            what,
            samples[0],
        )

    def _raised(self, samples: Sequence[Sample], error: BaseException) -> RewardError:
        """Return the error with the first sample that raises by itself, if one does."""
        guilty = samples[0]
        for sample in samples:
            try:
                self._ask([sample])
            except RewardError:
                break
            except (Exception, SystemExit) as alone:
                guilty, error = sample, alone
                break
        return RewardError(
            f"The reward function {self._settings.function} raised {type(error).__name__}: "
            f"{shown(str(error), 200)} on “{guilty.shown()}”.",
            hint=_RESUMABLE,
        )
