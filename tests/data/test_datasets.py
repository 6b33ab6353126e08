"""The block `datasets`, in the forms that other systems write it in."""

import pytest

from coterie.data.datasets import with_datasets

WANTED = {
    "sources": {"verse": {"source": "a/verse"}, "prose": {"source": "b/prose"}},
    "mix": {"kind": "weighted", "weights": [0.7, 0.3]},
}


@pytest.mark.parametrize(
    "block",
    [
        {"paths": ["a/verse", "b/prose"], "weights": [0.7, 0.3], "merge_strategy": "weighted"},
        {"paths": ["a/verse", "b/prose"], "weights": [0.7, 0.3]},
        {"paths": {"verse": "a/verse", "prose": "b/prose"}, "weights": [0.7, 0.3]},
        [{"path": "a/verse", "weight": 0.7}, {"path": "b/prose", "weight": 0.3}],
    ],
)
def test_every_form_says_the_same(block):
    found = with_datasets({"seed": 1, "datasets": block})
    assert found == {"seed": 1, "data": WANTED}


def test_what_stands_under_data_goes_first():
    block = {"paths": ["x/same", "y/same"], "merge_strategy": "temperature", "temperature": 3}
    found = with_datasets({"datasets": block, "data": {"mix": {"temperature": 5}, "split": "tail"}})
    assert found["data"]["mix"] == {"kind": "temperature", "temperature": 5}
    assert found["data"]["split"] == "tail"
    assert list(found["data"]["sources"]) == ["same", "same-2"]


@pytest.mark.parametrize(
    ("block", "told"),
    [
        ({"paths": ["a"], "wieghts": [1]}, "weights"),
        ({"weights": [1]}, "datasets needs paths"),
        ({"paths": ["a", "b"], "merge_strategy": "wieghted"}, "weighted"),
        ({"paths": ["a", "b"], "merge_strategy": "weighted"}, "needs datasets.weights"),
        ([{"path": "a", "share": 1}], "an entry of datasets"),
        ([{"path": 7}], "an entry of datasets"),
    ],
)
def test_what_is_not_understood_is_refused(block, told):
    with pytest.raises(ValueError, match=told):
        with_datasets({"datasets": block})
