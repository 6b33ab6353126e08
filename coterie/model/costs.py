"""Counting by formula: a tree of parts, each with its parameters, operations and cache.

Every settings class returns such a tree from `counts(...)`; tests hold it against the built model.

*Active parameters* are those multiplied for one token: look-ups (token, position and n-gram tables)
are left out, the output head is in even where its matrix is the embedding's, and of the routed
experts the mean of those a token selects. *FLOPs* are those of matrix products, two per
multiplication, of one forward pass and one token, averaged over the positions of a text as long as
the context; attention counts exactly the pairs that the mask lets through.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Count:
    """One part of the decoder, and the parts inside it.

    Attributes:
        name: what it is called in the decoder.
        detail: its kind and sizes in a few words.
        parameters: values that training moves.
        active: parameters multiplied for one token.
        flops: of one token's forward pass.
        cache: values kept for one earlier token when generating.
        parts: what it is made of; the figures above include them.
    """

    name: str
    detail: str = ""
    parameters: int = 0
    active: int = 0
    flops: float = 0.0
    cache: int | float = 0  # a fraction where several tokens share what is kept
    parts: "tuple[Count, ...]" = field(default=())

    @classmethod
    def of(cls, name: str, detail: str, parts: "Iterable[Count]") -> "Count":
        """Return the whole that parts make up."""
        parts = tuple(parts)
        return cls(
            name=name,
            detail=detail,
            parameters=sum(part.parameters for part in parts),
            active=sum(part.active for part in parts),
            flops=sum(part.flops for part in parts),
            cache=sum(part.cache for part in parts),
            parts=parts,
        )

    def times(self, number: int) -> "Count":
        """Return the same part `number` times over."""
        return replace(
            self,
            parameters=self.parameters * number,
            active=self.active * number,
            flops=self.flops * number,
            cache=self.cache * number,
            parts=tuple(part.times(number) for part in self.parts),
        )

    def walk(self, depth: int = 0) -> "Iterator[tuple[int, Count]]":
        """Yield this part and all parts inside it with their depth, in reading order."""
        yield depth, self
        for part in self.parts:
            yield from part.walk(depth + 1)


def linear(name: str, inputs: int, outputs: int, *, bias: bool = False) -> Count:
    """Return the count of a matrix that multiplies every token, with its bias."""
    parameters = inputs * outputs + (outputs if bias else 0)
    detail = f"{inputs} → {outputs}{' + bias' if bias else ''}"
    return Count(name, detail, parameters, parameters, 2.0 * inputs * outputs)


def lookup(name: str, rows: int, width: int) -> Count:
    """Return the count of a table of which a token reads one row."""
    return Count(name, f"{rows:,} × {width}", rows * width)
