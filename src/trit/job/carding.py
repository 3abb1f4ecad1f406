"""A job whose file gets a quality card: room before it is written, figures once it is whole."""

from __future__ import annotations

from trit.job import ConvertResult, Job, Progress


def reserve(job: Job) -> None:
    """Leave room for the card; what cannot be measured shows before anything is written."""
    from trit.evaluate import card  # it brings an engine

    card.check(job.source.path)
    job.reserve(card.blank([choice.name for choice in job.choices]))


def run(job: Job, threads: int | None, on_progress: Progress | None) -> ConvertResult:
    """Write the file, measure it against its source, and put the figures into it."""
    from trit.evaluate import card

    reserve(job)
    result = job.run(on_progress)
    assert result.path is not None
    measured = card.measure(result.path, job.source.path, threads, on_progress=on_progress)
    card.write(result.path, measured)
    return result
