"""Settings: layers, provenance, unions, and errors that help."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest

from coterie.foundation.errors import SettingsError
from coterie.foundation.layers import (
    Layer,
    dump_yaml,
    file_layer,
    load_settings,
    overrides_layer,
)
from coterie.foundation.records import parse_yaml
from coterie.foundation.settings import Settings, members, union


class Apple(Settings):
    kind: Literal["apple"] = "apple"
    heads: int = 4
    seeds: int = 3


class Pear(Settings):
    kind: Literal["pear"] = "pear"
    heads: int = 8
    window: int | None = None


Fruit = Annotated[Apple | Pear, union(Apple, Pear)]


class Basket(Settings):
    width: int
    fruit: Fruit = Apple()
    named: dict[str, Fruit] = {}
    rows: tuple[Fruit, ...] = ()


class Whole(Settings):
    basket: Basket
    seed: int = 0
    rate: float = 0.1
    extra: Apple | None = None


class Noisy(Settings):
    """A member from outside: its kind holds the import path."""

    kind: str
    level: float = 1.0


PRESET = Layer("preset q", {"basket": {"width": 8, "fruit": {"kind": "apple", "heads": 5}}})


def load(*words: str):
    return load_settings(Whole, [PRESET, overrides_layer(words)])


def refuse(*words: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load(*words)
    return caught.value.message


def test_later_layers_win_and_the_rest_is_kept():
    resolved = load("basket.fruit.seeds=9", "seed=1", "seed=2")
    assert resolved.settings.basket.fruit == Apple(heads=5, seeds=9)
    assert resolved.settings.seed == 2
    assert resolved.settings.basket.width == 8


def test_provenance_names_the_source_of_every_value():
    resolved = load("basket.fruit.seeds=9")
    assert resolved.origin(("basket", "width")) == "preset q"
    assert resolved.origin(("basket", "fruit", "seeds")) == "command line: basket.fruit.seeds=9"
    assert resolved.origin(("seed",)) == "default"


@pytest.mark.parametrize("word", ["basket.fruit.kind=pear", "basket.fruit=pear"])
def test_another_kind_keeps_what_was_named_and_drops_what_it_does_not_know(word):
    fruit = load(word, "basket.fruit.window=3").settings.basket.fruit
    assert fruit == Pear(heads=5, window=3)


def test_another_kind_takes_its_own_defaults_not_the_old_ones():
    preset = Layer("preset", {"basket": {"width": 8, "fruit": {"kind": "apple"}}})
    resolved = load_settings(Whole, [preset, overrides_layer(["basket.fruit.kind=pear"])])
    assert resolved.settings.basket.fruit.heads == 8


def test_a_part_of_a_default_can_be_named():
    preset = Layer("preset", {"basket": {"width": 8}})
    resolved = load_settings(Whole, [preset, overrides_layer(["basket.fruit.heads=2"])])
    assert resolved.settings.basket.fruit == Apple(heads=2)


def test_all_errors_are_told_at_once_with_names_and_origins():
    message = refuse(
        "sed=1", "basket.fruit.head=2", "basket.width=wide", "basket.rows=[{kind: fig}]"
    )
    assert "4 problems" in message
    assert "did you mean “seed”" in message
    assert "did you mean “heads”" in message
    assert "[command line: basket.width=wide]" in message
    assert "no kind “fig”" in message


def test_unknown_keys_inside_named_and_listed_parts_get_the_nearest_name():
    message = refuse(
        "basket.named.a={kind: pear, windw: 3}", "basket.rows=[{kind: apple, seds: 1}]"
    )
    assert "did you mean “window”" in message
    assert "did you mean “seeds”" in message


def test_an_unknown_key_of_the_preset_itself_is_not_dropped():
    preset = Layer("preset", {"basket": {"width": 8, "fruit": {"kind": "pear", "seeds": 1}}})
    with pytest.raises(SettingsError, match="seeds: unknown key"):
        load_settings(Whole, [preset])


@pytest.mark.parametrize("word", ["seed", "=3", "a..b=1"])
def test_malformed_words_are_refused(word):
    with pytest.raises(SettingsError):
        overrides_layer([word])


def test_scientific_numbers_are_numbers_and_words_stay_words():
    assert parse_yaml("1e-3", "x") == 0.001
    assert parse_yaml("[no, on, 1_000.5, -2e+4, .5]", "x") == ["no", "on", 1000.5, -20000.0, 0.5]
    assert load("rate=3e-4").settings.rate == 3e-4


def test_an_item_of_a_list_is_reached_by_its_position():
    words = ["basket.rows=[apple, {kind: pear, heads: 3}]", "basket.rows.1.window=7"]
    assert load(*words).settings.basket.rows == (Apple(), Pear(heads=3, window=7))
    message = refuse("basket.rows=[apple]", "basket.rows.0.hads=1")
    assert "did you mean “heads”" in message


def test_missing_and_misshapen_files_are_refused(tmp_path):
    with pytest.raises(SettingsError, match="no settings file"):
        file_layer(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(SettingsError, match="list"):
        file_layer(tmp_path / "list.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1\n")
    with pytest.raises(SettingsError, match="not valid YAML"):
        file_layer(tmp_path / "bad.yaml")


def test_dumped_settings_read_back_equal():
    settings = load("basket.named.x=pear", "basket.rows=[apple, pear]").settings
    again = load_settings(Whole, [Layer("file", parse_yaml(dump_yaml(settings), "x"))]).settings
    assert again == settings


def test_a_union_is_open_by_import_path():
    path = f"{__name__}:Noisy"
    resolved = load_settings(
        Whole, [PRESET, overrides_layer([f"basket.fruit={{kind: '{path}', level: 2}}"])]
    )
    assert resolved.settings.basket.fruit.level == 2.0
    again = Whole.model_validate(parse_yaml(dump_yaml(resolved.settings), "x"))
    assert again.basket.fruit.kind == path
    assert "could not import" in refuse("basket.fruit={kind: 'nowhere.at:All'}")


def test_union_lists_its_members_and_refuses_strangers():
    assert members(Fruit) == (Apple, Pear)
    with pytest.raises(ValueError, match="does not belong here"):
        Basket(width=1, fruit=Whole(basket=Basket(width=2)))  # type: ignore[arg-type]


def test_settings_are_frozen():
    settings = load().settings
    with pytest.raises(ValueError, match="frozen"):
        settings.seed = 3


@pytest.mark.parametrize(
    "words",
    [
        ["basket.fruit={kind: pear, heads: 8}"],
        ["basket.fruit={heads: 8, kind: pear}"],
        ["basket.fruit.kind=pear", "basket.fruit.heads=8"],
        ["basket.fruit.heads=8", "basket.fruit.kind=pear"],
        ["basket.fruit.heads=8", "basket.fruit=pear"],
        ["basket.fruit=pear", "basket.fruit={heads: 8}"],
        ["basket={fruit: {kind: pear, heads: 8}}"],
    ],
)
def test_a_value_beside_a_kind_holds_in_every_order_even_where_it_equals_a_default(words):
    for preset in (PRESET, Layer("bare", {"basket": {"width": 8}})):
        resolved = load_settings(Whole, [preset, overrides_layer(words)])
        assert resolved.settings.basket.fruit == Pear(heads=8)
        assert resolved.origin(("basket", "fruit", "heads")).startswith("command line: ")
        assert resolved.origin(("basket", "fruit", "window")) == "default"


def test_values_beside_a_kind_hold_in_files_and_lists(tmp_path):
    (tmp_path / "over.yaml").write_text(
        "basket: {fruit: {kind: apple, seeds: 4}, rows: [{kind: pear, heads: 1}, apple]}\n"
    )
    layers = [PRESET, file_layer(tmp_path / "over.yaml")]
    basket = load_settings(Whole, layers).settings.basket
    assert basket.fruit == Apple(heads=5, seeds=4)
    assert basket.rows == (Pear(heads=1), Apple())
    words = ["basket.rows.1.heads=2", "basket.rows.1.kind=pear", "basket.rows.0.kind=apple"]
    resolved = load_settings(Whole, [*layers, overrides_layer(words)])
    assert resolved.settings.basket.rows == (Apple(heads=1), Pear(heads=2))
    assert resolved.origin(("basket", "rows")) == "command line: basket.rows.0.kind=apple"


def test_a_whole_part_from_python_replaces_what_was_there():
    layer = Layer("Python", {"basket": {"fruit": Apple(seeds=7)}})
    assert load_settings(Whole, [PRESET, layer]).settings.basket.fruit == Apple(heads=4, seeds=7)


def test_null_forgets_a_part_and_where_it_came_from():
    preset = Layer("preset", {"basket": {"width": 8}, "extra": {"heads": 2, "seeds": 5}})
    resolved = load_settings(Whole, [preset, overrides_layer(["extra=null"])])
    assert resolved.settings.extra is None
    assert resolved.origin(("extra", "heads")) == "default"
    assert resolved.origin(("extra",)) == "command line: extra=null"
    resolved = load_settings(Whole, [preset, overrides_layer(["extra=null", "extra.seeds=1"])])
    assert resolved.settings.extra == Apple(seeds=1)
    assert resolved.origin(("extra", "heads")) == "default"


def test_named_entries_are_added_and_an_empty_mapping_clears_them():
    preset = Layer("preset", {"basket": {"width": 8, "named": {"a": "pear"}}})
    for words, names in ((["basket.named.b=apple"], {"a", "b"}), (["basket.named={}"], set())):
        resolved = load_settings(Whole, [preset, overrides_layer(words)])
        assert set(resolved.settings.basket.named) == names


def test_items_that_are_not_there_are_refused():
    assert "rows.2: there is no item 2 in this list; choices: 0 to 0" in refuse(
        "basket.rows=[apple]", "basket.rows.2.heads=1"
    )


@pytest.mark.parametrize(
    ("value", "words"),
    [("{kind: {}}", "there is no kind “{}”"),
     ("{kind: [a]}", "no kind"), ("{kind: 3}", "no kind"), ("{kind: os:path}", "not a coterie"),
     ("{kind: ':'}", "could not import"), ("{kind: '.a:B'}", "could not import"),
     ("3", "expected a mapping with “kind”, got 3"), ("&a {b: *a}", "an anchor"),
     ("!!set {a}", "a tag"), ("[" * 500, "YAML"), ("{? [a] : b}", "a key must be"),
     ("2020-99-99", "no kind"), ("{kind: apple, kind: pear}", "given twice")],
)  # fmt: skip
def test_what_is_no_part_is_refused_with_the_key(value, words):
    message = refuse(f"basket.fruit={value}")
    assert "basket.fruit" in message
    assert words in message


def test_a_part_without_its_kind_stays_what_it_is():
    assert load("basket.fruit={}").settings.basket.fruit == Apple(heads=5)
    assert "“kind” is missing" in refuse("basket.fruit={kind: }")


def test_numbers_are_numbers_and_nothing_else():
    assert load("seed=1_000").settings.seed == 1000
    for word in ("seed=true", "seed=5 # five", "seed=[1]", "rate=1e999", f"seed={'9' * 9000}"):
        assert word.partition("=")[0] + ": " in refuse(word)
