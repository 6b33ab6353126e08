"""Tables of words that stand for each other."""

from __future__ import annotations

from coterie.language.pairs import pairs_of, reversed_pairs


def test_tables_are_of_single_words_in_small_letters_each_once():
    for table in ("archaic", "orthography"):
        pairs = pairs_of(table)
        assert len(pairs) > 100
        assert all(word == word.lower() and word != other for word, other in pairs.items())
        back = reversed_pairs(pairs)
        assert set(back) == set(pairs.values())
        assert all(pairs[word] == usual for usual, word in back.items())
    assert reversed_pairs(pairs_of("archaic"))["you"] == "thou"
    assert pairs_of("orthography")["vpon"] == "upon"
