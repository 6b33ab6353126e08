"""What is kept of the keys and values of earlier tokens: a closed union, one file per idea.

`full` keeps every position, `window` the latest ones, `none` nothing: then every token is computed
again at each step, which is slow and serves as the yardstick of the others.
"""

from typing import Annotated

from coterie.foundation.settings import union
from coterie.generate.cache.full import FullCacheSettings, FullLayerCache
from coterie.generate.cache.none import NoCacheSettings
from coterie.generate.cache.stack import CacheStack, LayerCache
from coterie.generate.cache.window import WindowCacheSettings, WindowLayerCache

CacheSettings = Annotated[
    FullCacheSettings | WindowCacheSettings | NoCacheSettings,
    union(FullCacheSettings, WindowCacheSettings, NoCacheSettings),
]

__all__ = [
    "CacheSettings",
    "CacheStack",
    "FullCacheSettings",
    "FullLayerCache",
    "LayerCache",
    "NoCacheSettings",
    "WindowCacheSettings",
    "WindowLayerCache",
]
