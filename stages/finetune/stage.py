"""The `finetune` stage: from a pretrained model and a task's data to a model for that task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stages.base.artifact import Artifact
from stages.base.contract import Inputs, Partition, Stage, StageContext
from stages.base.external_files import local_path
from stages.finetune.config import FinetuneConfig


class Finetune(Stage[FinetuneConfig]):
    """Trains a pretrained model on one task. Inputs: `model`, `tokenizer`, and what holds files that the task
    addresses (`stages/base/external_files.py`)."""

    name = "finetune"
    version = 4
    executor = "driver"
    tracked = ("train.json",)
    registers = True
    holds_samples = False  # weights, learnt from files outside the workspace

    def earlier(self) -> Mapping[str, FinetuneConfig]:
        """The run with fewer steps passed over."""
        from stages.train.resume import with_fewer_skipped

        return {
            key: self.config.model_copy(update={"task": settings})
            for key, settings in with_fewer_skipped(self.config.task).items()
        }

    def partitions(self, inputs: Inputs) -> Sequence[Partition]:
        """One: a training run is not split, it resumes from its own checkpoints."""
        return [Partition("train")]

    def run(self, partition: Partition, context: StageContext) -> None:
        """Train. Raises UserError for data and model that do not match."""
        from models.registry import saved_config
        from stages.tokenizer.load import load
        from stages.train.data.annotated_files import AnnotatedFiles
        from stages.train.data.crop import location_ids
        from stages.train.job import AnnotatedSource, check_vocabulary, make_job, tokenizer_vocabulary
        from stages.train.launch import train

        config = self.config.task
        folder = context.input("model").path() / "model"
        model = saved_config(folder)
        if model.vision.image_mean is None:  # saved before models stated how their pixels are normalised
            trained = context.input("model").read_json("train.json")["preprocessing"]
            pixels = {"image_mean": tuple(trained["mean"]), "image_std": tuple(trained["std"])}
            model = model.model_copy(update={"vision": model.vision.model_copy(update=pixels)})
        check_vocabulary(model.vocabulary, tokenizer_vocabulary(context.input("tokenizer")))

        def local(file: str) -> str:
            return str(local_path(file, context.inputs).absolute())

        files = AnnotatedFiles(
            annotations=local(config.annotations),
            questions=local(config.questions) if config.questions else None,
            images=local(config.images),
            image_pattern=config.image_pattern,
            regions=config.kind == "grounding",
        )
        if files.regions:
            # Here and not in every rank, before any has started.
            location_ids(load(context.input("tokenizer").path()))
        source = AnnotatedSource(files, config.prompt, config.texts_per_image)
        key = f"tasks.{self.config.name}"
        phases = [config.phase(model.architecture)]
        train(make_job(key, config, phases, model, folder, source, context, self.config.precision), context)

    def summary(self, artifact: Artifact) -> dict[str, float]:
        """First and last loss, steps, samples, seconds."""
        from stages.train.launch import summary

        return summary(artifact)
