"""How long the documents of each source are, and the mixture of sources over training."""

import numpy as np

from coterie.visualise.charts import Chart
from coterie.visualise.reducers.course import Course, Data
from coterie.visualise.sections.loss import by_name, resume_marks
from coterie.visualise.sections.section import Section
from coterie.visualise.series import Series


def data_section(series: Series) -> str:
    told = series[Data].told
    if told is None:
        return ""
    found = {name: np.array(counts) for name, counts in told.lengths.items() if sum(counts) > 1}
    longest = max(map(len, found.values()), default=0)
    shortest = min((int(np.flatnonzero(counts)[0]) for counts in found.values()), default=0)
    places = np.arange(shortest, longest + 1).repeat(2)[1:-1]  # the two sides of each column
    outlines = {
        name: np.pad(100 * counts / counts.sum(), (0, longest - len(counts)))[shortest:].repeat(2)
        for name, counts in found.items()
    }
    lengths = Chart(
        "Lengths of documents", "per cent of a source's training documents",
        by_name(places, outlines), x_name="tokens, as a power of two", base=0.0, wide=True,
        note="From 10 to 11: documents of 1,024 to 2,047 tokens.",
    )  # fmt: skip
    if len(told.shares) < 2:
        return lengths.html()
    steps = np.array(told.steps)
    shares = {name: 100 * np.array(values) for name, values in told.shares.items()}
    mixture = Chart(
        "Mixture of sources", "per cent of the rows of a step", by_name(steps, shares), base=0.0,
        wide=True, marks=resume_marks(series),
        note="As planned when the run began; it is a function of the step alone.",
    )  # fmt: skip
    return lengths.html() + mixture.html()


DATA = Section("data", "Data", (Data, Course), data_section)
