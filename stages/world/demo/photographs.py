"""Photographs that scikit-image carries, with captions written for them."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from stages.world.plugin import package_folder

if TYPE_CHECKING:
    from PIL import Image

#: name -> (file of skimage/data, host of the list it is in, captions)
LISTED: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "astronaut": (
        "astronaut.png",
        "laion",
        ("a smiling astronaut in an orange space suit in front of a flag and a model of the space shuttle",),
    ),
    "coffee": ("coffee.png", "laion", ("a cup of espresso on a red saucer with a spoon on a wooden table",)),
    "moon": ("moon.png", "laion", ("the grey surface of the moon with a round crater",)),
    "phantom": ("phantom.png", "laion", ("a drawing of the head used to test the reconstruction of scanners",)),
    "chelsea": ("chelsea.png", "cc3m", ("a tabby cat with green eyes looks past the camera",)),
    "brick": ("brick.png", "cc3m", ("a wall of long bricks seen in perspective",)),
    "horse": ("horse.png", "cc3m", ("the black silhouette of a standing horse on white",)),
    "motorcycle": (
        "motorcycle_left.png",
        "cc12m",
        ("a red motorcycle parked in a garage full of boxes and tools",),
    ),
    "grass": ("grass.png", "cc12m", ("dry grass and leaves on the ground seen from above",)),
    "hubble": (
        "hubble_deep_field.jpg",
        "cc12m",
        ("thousands of distant galaxies in the dark sky seen by a telescope",),
    ),
    "camera": (
        "camera.png",
        "coco",
        (
            "a man in a dark coat looks through a camera on a tripod",
            "a photographer bends over his camera in an open field",
            "black and white picture of a man taking a photograph",
        ),
    ),
    "retina": (
        "retina.jpg",
        "coco",
        ("the back of a human eye with its blood vessels", "a round red picture of the inside of an eye"),
    ),
    "page": (
        "page.png",
        "coco",
        ("a page of printed text photographed at an angle", "some lines of black text on white paper"),
    ),
}


@cache
def photograph(file: str) -> Image.Image:
    """One of skimage's pictures as RGB, transparency on white."""
    from PIL import Image

    from stages.imaging.decode import to_rgb

    folder = package_folder("skimage", "scikit-image==0.26.0") / "data"
    with Image.open(folder / file) as opened:
        return to_rgb(opened)


def jpeg(image: Image.Image, quality: int = 92, orientation: int | None = None) -> bytes:
    """JPEG bytes; with `orientation`, an EXIF tag says how the viewer has to turn the picture."""
    from PIL import Image

    buffer = io.BytesIO()
    exif = Image.Exif()
    if orientation is not None:
        exif[274] = orientation
    image.save(buffer, "JPEG", quality=quality, exif=exif)
    return buffer.getvalue()


def write_listed(out: Path) -> dict[str, tuple[int, int]]:
    """Write `<name>.jpg` of all listed photographs; returns their sizes (width, height)."""
    out.mkdir(parents=True, exist_ok=True)
    sizes = {}
    for name, (file, _, _) in LISTED.items():
        picture = photograph(file)
        sizes[name] = picture.size
        (out / f"{name}.jpg").write_bytes(jpeg(picture))
    return sizes
