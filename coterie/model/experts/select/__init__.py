"""Selection: which experts a token goes to, a closed union."""

from typing import Annotated

from coterie.foundation.settings import union
from coterie.model.experts.select.dynamic import Dynamic
from coterie.model.experts.select.group_limited import GroupLimited
from coterie.model.experts.select.interface import Selector
from coterie.model.experts.select.top_k import TopK

Select = Annotated[TopK | Dynamic | GroupLimited, union(TopK, Dynamic, GroupLimited)]
