"""Opening the data set a job names, in the process that will read it."""

from __future__ import annotations

from stages.train.data.dataset import Dataset
from stages.train.job import PairSource, TrainingJob


def open_dataset(job: TrainingJob) -> Dataset:
    """The job's samples. Raises UserError when a task's files are missing or malformed."""
    settings = job.settings
    if isinstance(job.source, PairSource):
        from stages.train.data.pairs import PairDataset

        source = job.source
        mirrors = settings.augmentation.horizontal_flip > 0
        return PairDataset(source.shards, source.tokens, settings.max_text_tokens, job.special, mirrors)
    from stages.tokenizer.load import load
    from stages.train.data.annotated import AnnotatedDataset

    return AnnotatedDataset(
        job.source.files,
        load(job.tokenizer),
        prompt=job.source.prompt,
        texts_per_image=job.source.texts_per_image,
        max_tokens=settings.max_text_tokens,
        seed=settings.seed,
    )
