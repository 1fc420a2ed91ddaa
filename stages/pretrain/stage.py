"""The `pretrain` stage: from shards and tokens to a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from models import registry
from stages.base.artifact import Artifact
from stages.base.contract import Inputs, Partition, Stage, StageContext, UserError
from stages.pretrain.config import PretrainConfig


class Pretrain(Stage[PretrainConfig]):
    """Trains the model of the config through the recipe's phases. Inputs: `shards`, `tokens`, `tokenizer`."""

    name = "pretrain"
    version = 4
    executor = "driver"
    tracked = ("train.json",)
    registers = True
    holds_samples = False  # weights, and uids of damaged samples; `pairmill forget` names the models that saw one

    def check(self) -> None:
        """Raises UserError where the weights to start from are missing or do not fit, or settings are for another kind
        of model."""
        from stages.pretrain.embeddings import check_start
        from stages.train.job import check_checkpointing, check_lengths, with_pixel_statistics

        check_start(self.config.model)
        if self.config.model.initialise_from.folders:
            # Names and shapes are compared on the meta device: before the data are made, which may take days.
            registry.construct(self.config.model)
        settings = self.config.train
        with_pixel_statistics("train", settings, self.config.model)
        check_checkpointing("train", settings, self.config.model)
        check_lengths("train", settings.phases, self.config.model, settings.max_text_tokens)

    def earlier(self) -> Mapping[str, PretrainConfig]:
        """The run with fewer steps passed over."""
        from stages.train.resume import with_fewer_skipped

        return {
            key: self.config.model_copy(update={"train": settings})
            for key, settings in with_fewer_skipped(self.config.train).items()
        }

    def partitions(self, inputs: Inputs) -> Sequence[Partition]:
        """One: a training run is not split, it resumes from its own checkpoints."""
        return [Partition("train")]

    def run(self, partition: Partition, context: StageContext) -> None:
        """Train. Raises UserError for data and model that do not match, before any worker starts."""
        from stages.pretrain.embeddings import check_embeddings
        from stages.train.data.phases import check_texts
        from stages.train.job import PairSource, make_job
        from stages.train.launch import train

        shards = context.input("shards")
        check_embeddings(self.config.model, context.input("tokenizer"))
        dataset = shards.read_json("dataset.json")
        if not dataset["samples"]:
            # Sharding refuses to end without a sample.
            raise UserError(
                f"pretrain: none of the {len(dataset['shards']):,} shards holds a sample any more, since `pairmill "
                "forget` removed all that the selection kept; add a source, or relax `selection`"
            )
        source = PairSource(shards, context.input("tokens"))
        settings = self.config.train
        job = make_job(
            "train", settings, settings.phases, self.config.model, None, source, context, self.config.precision
        )
        check_texts(job.phases, job.needs_texts, dataset, settings.mixture)
        train(job, context)

    def summary(self, artifact: Artifact) -> dict[str, float]:
        """First and last loss, steps, samples, seconds."""
        from stages.train.launch import summary

        return summary(artifact)
