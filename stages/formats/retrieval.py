"""Score matrices (NumPy's .npy) and the map from texts to images (JSON)."""

from __future__ import annotations

import tokenize
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.base.contract import UserError
from stages.formats.json_file import read_json
from stages.formats.problems import ProblemLog, Problems


def read_scores(file: Path) -> np.ndarray:
    """A matrix of real numbers, memory-mapped. Raises UserError for anything else."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of a header that Python 2 wrote
            found = np.load(file, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{file}: no such file; name a .npy file with the scores") from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror or error}); name a readable .npy file") from None
    except (ValueError, EOFError, OverflowError, SyntaxError, tokenize.TokenError, zipfile.BadZipFile):
        # numpy's message about a broken header quotes the file over several lines.
        raise UserError(f"{file}: not a whole .npy array of numbers; write it with numpy.save") from None
    if not isinstance(found, np.ndarray):
        raise UserError(f"{file}: an archive of several arrays; write one array with numpy.save")
    if found.ndim != 2 or not found.size or found.dtype.kind not in "fiu":
        raise UserError(f"{file}: {found.dtype} of shape {found.shape}; expected real numbers [images, texts]")
    return found


@dataclass(frozen=True)
class TextToImage:
    """Which image each text belongs to."""

    image: np.ndarray
    """int64 [texts]: the row of each text's image in the score matrix; -1 for a text without one."""
    problems: Problems


def read_text_to_image(file: Path, images: int, texts: int) -> TextToImage:
    """The map for a score matrix [images, texts].

    The file holds a list (entry i is text i's image) or an object (``{"0": 0, "1": 0, ...}``), numbers counted from 0.
    Raises UserError.
    """
    content = read_json(file)
    if isinstance(content, list):
        content = dict(enumerate(content))
    if not isinstance(content, dict):
        raise UserError(f"{file}: neither a list nor an object; write [0, 0, 1, ...], the image of every text")
    found = np.full(texts, -1, dtype=np.int64)
    log = ProblemLog(file)
    for key, image in content.items():
        text = _whole(key)
        if text is None or not 0 <= text < texts:
            log.add("unknown", "text", key, f"the scores have {texts:,} columns, counted from 0")
        elif found[text] >= 0:
            log.add("duplicate", "text", text)
        elif _whole(image) is None:
            log.add("malformed", "image of text", text, "not a whole number")
        elif not 0 <= int(image) < images:
            log.add("unknown", "image of text", text, f"the scores have {images:,} rows, counted from 0")
        else:
            found[text] = int(image)
    log.add_all("missing", "image of text", np.flatnonzero(found < 0).tolist())
    without = np.flatnonzero(np.bincount(found[found >= 0], minlength=images) == 0)
    log.add_all("missing", "text of image", without.tolist())
    if not (found >= 0).any():
        raise UserError(f"{file}: no text in it has an image; is it the right file?")
    return TextToImage(found, log.problems())


def _whole(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    try:
        return int(value)
    except ValueError:
        return None
