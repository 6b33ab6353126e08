"""The picture of what a run reads: lengths of documents, and sources over its steps."""

from coterie.train.events import DataDescribed
from coterie.visualise.sections.record import data_section
from coterie.visualise.series import Series

TWO = DataDescribed(
    lengths={"verse": [0, 0, 0, 1, 3], "<b>": [0, 0, 0, 0, 0, 2]},
    steps=[0, 50, 99],
    shares={"verse": [0.25, 0.25, 0.0], "<b>": [0.75, 0.75, 1.0]},
)


def shown(*events):
    series = Series()
    for event in events:
        series.update(event)
    return data_section(series)


def test_lengths_and_the_mixture_of_several_sources_are_drawn():
    html = shown(TWO)
    assert "verse goes from 25.0 at 3 to 0 at 6" in html
    assert "verse goes from 25.0 at 0 to 0 at 99" in html
    assert "&lt;b&gt; goes from 75.0 at 0" in html  # a name is no markup
    assert "<b> goes" not in html


def test_of_one_source_there_is_no_mixture_and_of_one_document_no_length():
    one = TWO.model_copy(update={"shares": {"verse": [1.0, 1.0, 1.0]}})
    assert "Lengths of documents" in shown(one)
    assert "Mixture" not in shown(one)
    assert shown(one.model_copy(update={"lengths": {"verse": [0, 0, 1]}})) == ""
    assert shown() == ""
