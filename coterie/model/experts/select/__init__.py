"""Selection: which experts a token goes to, a closed union."""

from typing import Annotated

from coterie.foundation.settings import union
from coterie.model.experts.select.top_k import TopK

Select = Annotated[TopK, union(TopK)]

__all__ = ["Select", "TopK"]
