"""The model card of a trained model: Markdown with the metadata block of Hugging Face's model cards.

Written from `train.json` and the model's config.json, which hold no path and no name of a source.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: Of the settings in `train.json`, those of a phase that a card's table of phases shows.
_PHASE = ("objective", "steps", "first_loss", "last_loss", "seconds")


@dataclass(frozen=True)
class CardScores:
    """What a finished `evaluate` artifact says of the model."""

    benchmark: str
    kind: str
    scores: Mapping[str, float]
    """Its single figures."""
    protocol: Mapping[str, Any]
    """As in `scores.json`."""
    fingerprint: str


def card(
    record: Mapping[str, Any],
    described: Mapping[str, Any],
    *,
    fingerprint: str = "",
    scored: Sequence[CardScores] = (),
    licences: Sequence[Mapping[str, Any]] = (),
    stock: str = "",
) -> str:
    """The text of the card.

    ``record`` is the content of `train.json`, ``described`` that of the model's config.json as trained, ``fingerprint``
    the artifact's, ``licences`` the rows `{licence, pairs, kept}` of `report.json`, and ``stock`` the class of
    `transformers` that the folder is for; empty for our own format.
    """
    model = described["architecture"]
    total = sum(record.get("parameters", {}).values())
    task = f", fine-tuned for `{record['task']}`" if record.get("task") else ""
    parts = [
        _metadata(model, described, record, scored, stock),
        f"# {model['name']}\n",
        f"A vision-language model of architecture `{model['architecture']}`"
        + (f" with {total:,} parameters" if total else "")
        + f"{task}, trained by Pairmill. It takes images of {record['preprocessing']['image_size']} x "
        f"{record['preprocessing']['image_size']} pixels and writes text.\n",
        "## How to use it\n",
        _usage(record, stock),
        "## Parameters\n",
        _table(("part", "parameters"), [(f"`{part}`", n) for part, n in record.get("parameters", {}).items()]),
        "## Architecture\n",
        _table(("setting", "value"), _leaves({k: v for k, v in model.items() if k != "name"})),
        "## Training\n",
        *_training(record),
        "## Data\n",
        _data(record, fingerprint),
        _licences(licences),
        "## Scores\n",
        *_scores(scored),
        "## Limits\n",
        "- It repeats what its training data say, right or wrong; nothing was done to keep it from doing harm.\n"
        "- Scores hold for the protocol stated beside them, and for no other use.\n",
    ]
    return "\n".join(part for part in parts if part)


def _metadata(
    model: Mapping[str, Any],
    described: Mapping[str, Any],
    record: Mapping[str, Any],
    scored: Sequence[CardScores],
    stock: str,
) -> str:
    """The YAML block of https://huggingface.co/docs/hub/model-cards; JSON's scalars are YAML, too."""
    lines = ["---", "pipeline_tag: image-text-to-text", "tags:", "- pairmill", f"- {json.dumps(model['architecture'])}"]
    lines.insert(1, "library_name: transformers")
    if scored:
        lines += ["model-index:", f"- name: {json.dumps(model['name'])}", "  results:"]
    for one in scored:
        lines += [
            "  - task:",
            f"      type: {'visual-question-answering' if one.kind == 'vqa' else 'image-to-text'}",
            "    dataset:",
            f"      name: {json.dumps(one.benchmark)}",
            f"      type: {json.dumps(one.benchmark)}",
            "    metrics:",
        ]
        for name, value in one.scores.items():
            lines += [f"    - type: {json.dumps(name)}", f"      value: {value}"]
    return "\n".join([*lines, "---", ""])


_OURS = """\
```python
import models.auto  # Pairmill's architectures for `transformers`' Auto classes: pip install pairmill
import torch
from PIL import Image, ImageOps
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

folder = "."  # where this README.md lies
model = AutoModel.from_pretrained(folder).eval()
tokenizer = AutoTokenizer.from_pretrained(folder)
processor = AutoImageProcessor.from_pretrained(folder)

image = ImageOps.exif_transpose(Image.open("image.png")).convert("RGBA")
image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")  # as trained
pixels = processor(image, return_tensors="pt")["pixel_values"].to(model.dtype)
prompt = {prompt}
ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
ids = torch.tensor([ids], dtype=torch.long)
written = model.generate(pixels, torch.tensor([0]), ids, torch.ones_like(ids), num_beams=3, max_new_tokens=20)
print(tokenizer.decode(written[0], skip_special_tokens=True))
```

`transformers` has no class of this architecture, so Pairmill must be installed: nothing else of it is imported.
`models.registry.load(folder)` opens the model, too. A prompt may be empty; several prompts of different lengths are
padded on the left, with zeros in the mask, and the second argument says which image each is about.
"""

_STOCK = """\
```python
from PIL import Image, ImageOps
from transformers import AutoProcessor, {stock}

folder = "."  # where this README.md lies
model = {stock}.from_pretrained(folder).eval()
processor = AutoProcessor.from_pretrained(folder)

image = ImageOps.exif_transpose(Image.open("image.png")).convert("RGBA")
image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")  # as trained
prompt = {prompt}
inputs = processor(images=image, text=prompt, return_tensors="pt").to(dtype=model.dtype)
written = model.generate(**inputs, num_beams=3, max_new_tokens=20)
print(processor.tokenizer.decode(written[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
```

The weights that only the first stage of pretraining uses are left out. Names of control tokens in a prompt become these
tokens, so take them out of texts that you did not write.
"""


def _usage(record: Mapping[str, Any], stock: str) -> str:
    trained = str(record.get("prompt") or "")
    prompt = json.dumps(trained.replace("{}", "what is this?"), ensure_ascii=False)
    template = _STOCK.replace("{stock}", stock) if stock else _OURS
    note = f"It was trained with the prompt `{_cell(trained)}`" if trained else "It was trained without prompts"
    question = ", where `{}` stands for the question" if "{}" in trained else ""
    return template.replace("{prompt}", prompt) + (
        f"\n{note}{question}. Pixels are those of Pairmill's evaluation where `transformers` resizes with Pillow; with "
        "torchvision installed they differ by rounding. 16-bit grey images must be cut to 8 bits first.\n"
    )


def _training(record: Mapping[str, Any]) -> list[str]:
    parts = []
    if earlier := record.get("pretrained"):
        parts += [
            "It started from a pretrained model, whose training was:\n",
            *_run(earlier),
            "Then it was fine-tuned:\n",
        ]
    return [*parts, *_run(record)]


def _run(record: Mapping[str, Any]) -> list[str]:
    recipe = dict(record.get("recipe", {}))
    settings = recipe.pop("phases", [{}] * len(record["phases"]))
    rows = []
    for done, planned in zip(record["phases"], settings, strict=True):
        own = {k: v for k, v in planned.items() if k not in _PHASE and k != "epochs" and v not in (None, {}, [])}
        shown = ", ".join(f"{name} {value}" for name, value in _leaves(own)) or "as below"
        rows.append(
            (f"`{done['objective']}`", done["steps"], _loss(done["first_loss"]), _loss(done["last_loss"]), shown)
        )
    started = ", ".join(f"`{part}`" for part in record.get("started_from_weights", []))
    replaced = record.get("replaced", {}).get("samples", 0)
    facts = [
        f"{record['steps']:,} steps, {record['samples_seen']:,} samples seen (each counted as often as it was shown), "
        f"{record['seconds']:,.0f} s on {record['world_size']:,} training processes, arithmetic in "
        f"`{record.get('precision', 'fp32')}`.",
        f"Parts that started from given weights: {started}."
        if started
        else "All parts started from random weights."
        if "pretrained" not in record and "recipe" in record
        else "",
        f"{replaced:,} damaged samples were replaced." if replaced else "",
    ]
    return [
        " ".join(fact for fact in facts if fact) + "\n",
        _table(("phase", "steps", "first loss", "last loss", "settings of its own"), rows),
        _table(("setting", "value"), _leaves(recipe)) if recipe else "",
    ]


def _loss(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float | int) else "none"


def _data(record: Mapping[str, Any], fingerprint: str) -> str:
    rows = [("this model", f"`{fingerprint}`", "")] if fingerprint else []
    for used in [*record.get("data", []), *record.get("pretrained", {}).get("data", [])]:
        counts = ", ".join(f"{name.replace('_', ' ')} {n:,}" for name, n in used["counts"].items())
        rows.append((used["stage"], f"`{used['fingerprint']}`", counts))
    text = "Fingerprints are sha256 over stage, version, configuration and inputs of what the model was made from.\n\n"
    return text + _table(("artifact", "fingerprint", "counts"), dict.fromkeys(rows)) if rows else "Not recorded.\n"


def _licences(licences: Sequence[Mapping[str, Any]]) -> str:
    if not licences:
        return (
            "Licences of the data are not known to this card; the selection's data card has those that lists state.\n"
        )
    rows = [(_cell(str(row["licence"])), row["pairs"], row["kept"]) for row in licences]
    text = "Licences of the pairs as the lists state them, public sources only:\n\n"
    return text + _table(("licence", "listed pairs", "kept pairs"), rows)


def _scores(scored: Sequence[CardScores]) -> list[str]:
    if not scored:
        return ["None yet: `pairmill export` adds those of all benchmarks that the model was evaluated on.\n"]
    parts = []
    for one in scored:
        asked = {
            name: value
            for name, value in one.protocol.items()
            # Files are named in these, and the model's own fingerprint is above.
            if name not in ("split_sha256", "model") and isinstance(value, str | int | float) and value != ""
        }
        parts += [
            f"### {one.benchmark}\n",
            _table(("score", "value"), [(name, f"{value:.4g}") for name, value in one.scores.items()]),
            f"n = {one.protocol.get('n', 'not recorded')}. Protocol (`evaluate` {one.fingerprint[:12]}): "
            + ", ".join(f"{name} `{_cell(str(value))}`" for name, value in asked.items() if name != "n")
            + ".\n",
        ]
    return parts


def _leaves(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Settings by dotted key; what is null or empty is left out."""
    rows: list[tuple[str, str]] = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            rows += _leaves(value, f"{prefix}{key}.")
        elif value not in (None, "", [], ()):
            shown = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            rows.append((f"`{prefix}{key}`", _cell(shown)))
    return rows


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [f"| {' | '.join(header)} |", f"|{' --- |' * len(header)}"]
    body = [f"| {' | '.join(f'{v:,}' if isinstance(v, int) else str(v) for v in row)} |" for row in rows]
    return "\n".join([*lines, *body, ""]) if body else "Not recorded.\n"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
