"""Floor 3: sources → clean → split → tokens → store → rows → mix → augment → batches.

In reading order: `documents`, `text` and `tables` (readers), `sources` (what the user names),
`clean`, `split` (what is held out), `encode` (text to tokens), `writer` and `prepare` (the store is
made), `manifest`, `tokens` and `store` (it is read), `verify`, `packing` (documents become rows;
`windows` is their order), `mix`, `augment`, `batches`, `settings` and `cache` (a run's data, found
or made). `corpus` is the text that is shipped.
"""

from coterie.data.batches import BatchLoader, evaluation_batches
from coterie.data.cache import store_for
from coterie.data.documents import Document
from coterie.data.examine import verify_store
from coterie.data.merged import open_store
from coterie.data.prepare import prepare
from coterie.data.settings import DataSettings
from coterie.data.sources import Sources, read_documents
from coterie.data.store import Store
from coterie.data.tokens import TokenArray
from coterie.data.windows import Windows
