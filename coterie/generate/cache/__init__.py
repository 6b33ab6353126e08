"""What is kept of the keys and values of earlier tokens: a closed union, one file per idea.

`full` keeps every position, `quantised` the older ones in few bits, `pruned` a fixed number of
them, `paged` all in blocks that texts share, `spilled` all in files, `window` the latest ones and
the sinks, `none` nothing: each token then costs a reading of the whole text, which is the yardstick
of the others.
Layers that replace finished positions by summaries get a cache of summaries from each of them.
"""

from typing import Annotated

from coterie.foundation.settings import union
from coterie.generate.cache.full import FullCacheSettings, NoCacheSettings
from coterie.generate.cache.paged import PagedCacheSettings, PagedStack, PrefixStore
from coterie.generate.cache.prefix import PrefixStats
from coterie.generate.cache.pruned import PrunedCacheSettings
from coterie.generate.cache.quantised import QuantisedCacheSettings
from coterie.generate.cache.spilled import SpilledCacheSettings
from coterie.generate.cache.stack import CacheStack
from coterie.generate.cache.window import WindowCacheSettings, WindowLayerCache

CacheSettings = Annotated[
    FullCacheSettings | QuantisedCacheSettings | PrunedCacheSettings | PagedCacheSettings
    | SpilledCacheSettings | WindowCacheSettings | NoCacheSettings,
    union(FullCacheSettings, QuantisedCacheSettings, PrunedCacheSettings, PagedCacheSettings,
          SpilledCacheSettings, WindowCacheSettings, NoCacheSettings),
]  # fmt: skip
