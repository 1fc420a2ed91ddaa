"""The evaluate stage: a model generates texts for a benchmark's images, which are scored."""

from __future__ import annotations

import json
from collections.abc import Sequence

from stages.base.artifact import Artifact
from stages.base.contract import Inputs, Partition, Stage, StageContext
from stages.evaluate.config import EvaluateConfig


class Evaluate(Stage[EvaluateConfig]):
    """Inputs: `model` (a `pretrain` or `finetune` artifact), and what holds files that the benchmark addresses
    (`stages/base/external_files.py`)."""

    name = "evaluate"
    version = 4
    tracked = ("scores.json", "samples.json")
    holds_samples = False  # texts for images of benchmarks, which are no source

    def partitions(self, inputs: Inputs) -> Sequence[Partition]:
        """Equal runs of the benchmark's images, with all their questions. Raises UserError for missing files."""
        from stages.evaluate.benchmarks.files import examples_by_image, open_benchmark

        open_benchmark(self.config, inputs).check()
        images = len(examples_by_image(self.config, inputs))
        step = self.config.images_per_partition
        starts = range(0, images, step)
        return [Partition(f"{i:05d}", {"first": s, "last": min(s + step, images)}) for i, s in enumerate(starts)]

    def run(self, partition: Partition, context: StageContext) -> None:
        """Generate the texts of one run of images."""
        import torch

        from stages.evaluate.benchmarks.files import examples_by_image, locator
        from stages.evaluate.generate import generate_texts, load_generator

        benchmark = self.config.benchmark
        images = examples_by_image(self.config, context.inputs)[partition.spec["first"] : partition.spec["last"]]
        folder = locator(context.inputs)(benchmark.images)
        generator = load_generator(context.input("model"), benchmark, gpu=context.cluster.get("gpus_per_worker", 0) > 0)
        # The number of threads decides the order of sums, so it is the same on every machine.
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            texts = generate_texts(generator, images, folder, benchmark, self.config.texts_per_batch)
            generated = [[example.id, text] for example, text in texts]
        finally:
            torch.set_num_threads(threads)
        (context.intermediate / f"written-{partition.id}.json").write_text(json.dumps(generated), encoding="utf-8")
        context.count("images", len(images))
        context.count("predictions", len(generated))

    def finish(self, context: StageContext) -> None:
        """Merge the texts and score them."""
        from stages.evaluate.benchmarks.files import examples_by_image, locator, open_benchmark
        from stages.evaluate.results import write_results

        generated = {}
        for part in sorted(context.intermediate.glob("written-*.json")):
            generated.update(dict(json.loads(part.read_text(encoding="utf-8"))))
        images = examples_by_image(self.config, context.inputs)
        examples = [example for of_image in images for example in of_image]
        result = open_benchmark(self.config, context.inputs).score(examples, generated)
        locate = locator(context.inputs)
        write_results(self.config, context.input("model"), result, len(images), locate, context.out)

    def summary(self, artifact: Artifact) -> dict[str, float]:
        """Every single-figure score."""
        scores = artifact.read_json("scores.json")["scores"]
        return {name: float(value) for name, value in scores.items() if isinstance(value, int | float)}
