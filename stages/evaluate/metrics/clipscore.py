"""CLIPScore and RefCLIPScore (Hessel et al., EMNLP 2021) by a CLIP model of the user's; published: ViT-B/32."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stages.base.contract import UserError
from stages.imaging.clip_model import ClipModel, check_folder

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

#: Section 3 of the paper: what every text is preceded by, and what a cosine is multiplied by.
PROMPT = "A photo depicts "
WEIGHT = 2.5
#: The protocol of a result describes these scores so.
PROTOCOL = (
    f"raw captions after {PROMPT!r}, cut at the model's length; w = {WEIGHT}; images upright (EXIF), scaled and "
    "cropped by the model's own processor; fp32 (the authors' code: fp16 on GPUs, fp32 on CPUs)"
)
# Part of the definition, not a setting: other batches could change the last digits.
_IMAGES = 32


@dataclass(frozen=True)
class ClipScores:
    """Scores of each image's caption, in the order given; the corpus scores are their means."""

    clip: list[float]
    """CLIPScore: w * max(cos(image, caption), 0), in [0, 2.5]."""
    ref_clip: list[float] | None
    """RefCLIPScore: the harmonic mean of CLIPScore and max(max over references cos(caption, reference), 0), in
    [0, 10/7]; 0 where either is 0. None without references."""


def check(folder: Path) -> None:
    """Raise UserError when the folder obviously has no CLIP model; loads nothing."""
    check_folder(folder, _label(folder))


def clipscore(
    images: Sequence[Path], candidates: Sequence[str], references: Sequence[Sequence[str]] | None, folder: Path
) -> ClipScores:
    """Score raw captions (no tokenization), one candidate per image, by the CLIP model in a local folder.

    `folder` is in Hugging Face format: `config.json`, weights, `preprocessor_config.json` and a tokenizer's files;
    nothing is fetched. Computed in fp32 on the GPU where there is one, in batches of a fixed size. Where the paper and
    the authors' code differ (a caption unlike all its references: the code takes the negative cosine), as in the paper.

    Raises UserError when the folder has no whole CLIP model or an image is missing or broken (naming it), ValueError
    when the arguments differ in length or an image has no reference.
    """
    if len(images) != len(candidates) or (references is not None and len(references) != len(candidates)):
        raise ValueError(f"{len(images)} images, {len(candidates)} candidates: they must be as many")
    for position, refs in enumerate(references or []):
        if not refs:
            raise ValueError(f"image number {position} has no reference caption")
    model = ClipModel(folder, _label(folder))
    if not candidates:
        return ClipScores([], None if references is None else [])

    # The same caption again (a candidate that equals a reference, say) has the very same embedding.
    texts = dict.fromkeys(candidates)
    texts |= dict.fromkeys(reference for refs in references or [] for reference in refs)
    row = {text: number for number, text in enumerate(texts)}
    with _true_fp32():
        embedded = model.embed_texts([PROMPT + text for text in texts]).cpu()  # [text, dimension]
        seen = _embed(model, images)  # [image, dimension]
        clip = [WEIGHT * _cosine(seen[n], embedded[row[text]][None]) for n, text in enumerate(candidates)]
        if references is None:
            return ClipScores(clip, None)
        closest = [
            _cosine(embedded[row[text]], embedded[[row[reference] for reference in refs]])
            for text, refs in zip(candidates, references, strict=True)
        ]
    return ClipScores(clip, [_harmonic_mean(*both) for both in zip(clip, closest, strict=True)])


def _label(folder: Path) -> str:
    return f"CLIP model {folder}"


def _embed(model: ClipModel, images: Sequence[Path]) -> torch.Tensor:
    import torch

    found = []
    for at in range(0, len(images), _IMAGES):
        batch = [model.pixels(_read(at + n, file)) for n, file in enumerate(images[at : at + _IMAGES])]
        found.append(model.embed_images(batch).cpu())
    return torch.cat(found)


def _cosine(one: torch.Tensor, others: torch.Tensor) -> float:
    """The largest cosine of one vector [dimension] and others [n, dimension], all of length 1, in [0, 1]."""
    return min(max(float((others.double() @ one.double()).max()), 0.0), 1.0)


def _harmonic_mean(a: float, b: float) -> float:
    return 2 * a * b / (a + b) if a and b else 0.0


def _read(position: int, file: Path) -> Image:
    from PIL.Image import fromarray

    from stages.train.data.dataset import DamagedSample
    from stages.train.data.decode import decode

    try:
        # Decoded as in training: upright, and 16-bit greys in the same way.
        return fromarray(decode(file.read_bytes()))
    except FileNotFoundError:
        raise UserError(f"image number {position}: no file {file}; check the folder of the images") from None
    except (DamagedSample, OSError) as error:
        raise UserError(f"image number {position}: {file} does not decode ({error}); get it again") from None


@contextmanager
def _true_fp32() -> Iterator[None]:
    """True fp32 on GPUs: TF32 (10 bits of mantissa) may be allowed in this process, and is by default in cuDNN."""
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
