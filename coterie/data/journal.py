"""How far a preparation has come, written down at every whole shard so that it can go on there.

The journal lies in the half-written store and holds the state of both writers: the checksums of all
whole shards, and how much of the open files counts. What was left is taken up only if documents,
split and tokenizer are the same and every byte that counts has its checksum.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coterie.data.split import Split, SplitRule, Survey
from coterie.data.writer import SplitWriter
from coterie.foundation.disk import sync_file
from coterie.foundation.errors import StoreError
from coterie.foundation.files import sha256_file, write_json_atomic
from coterie.foundation.records import read_json
from coterie.tokenizer.interface import Tokenizer

FILE_NAME = "progress.json"
_FORMAT = "coterie.progress/1"


class Journal:
    """The journal of one preparation.

    Attributes:
        left: the state of each split's writer that was left; empty at the beginning.
        pieces, characters: how many are written.
        failures: documents that the tokenizer refused, and why.
    """

    def __init__(
        self, folder: Path, found: Survey, rule: SplitRule, tokenizer: Tokenizer, shard_tokens: int
    ) -> None:
        """Take up what was left in the folder, if it belongs to the same preparation."""
        self._folder = folder
        identity = [
            _FORMAT,
            tokenizer.fingerprint,
            shard_tokens,
            [rule.kind, rule.cut, rule.threshold],
            found.origins,
            sha256_file(found.keys),
        ]
        self._identity = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
        self._take(self._read())
        if not self.left:
            self.forget()

    def _take(self, content: dict[str, Any]) -> None:
        self.left: dict[str, Any] = content.get("writers", {})
        self.pieces = int(content.get("pieces", 0))
        self.characters = int(content.get("characters", 0))
        self.failures: dict[str, str] = dict(content.get("failures", {}))
        self._whole = sum(len(state["shards"]) for state in self.left.values())

    def forget(self) -> None:
        """Begin anew."""
        clear_journal(self._folder, files=True)
        self._take({})

    def _read(self) -> dict[str, Any]:
        try:
            content = read_json(self._folder / FILE_NAME, StoreError)
        except (OSError, StoreError):
            return {}
        same = isinstance(content, dict) and content.get("identity") == self._identity
        return content if same else {}

    def note(self, writers: Mapping[Split, SplitWriter], pieces: int, characters: int) -> None:
        """Write down how far everything is, if another shard is whole."""
        whole = sum(writer.whole_shards for writer in writers.values())
        if whole == self._whole:
            return
        self._whole = whole
        states = {name: writer.state() for name, writer in writers.items()}
        for file in self._folder.glob("*.bin"):
            sync_file(file)
        content = {
            "identity": self._identity,
            "pieces": pieces,
            "characters": characters,
            "failures": self.failures,
            "writers": states,
        }
        write_json_atomic(self._folder / FILE_NAME, content)


def clear_journal(folder: Path, *, files: bool) -> None:
    """Remove the journal of a folder, and the files that it tells of if asked."""
    for file in [*folder.glob("*.bin")] if files else []:
        file.unlink()
    (folder / FILE_NAME).unlink(missing_ok=True)
