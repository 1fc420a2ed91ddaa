"""The faults of the web and of its lists, planted where the demonstration can be checked for each of them."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

from stages.world.demo.hosts import DEAD, SLOW, url
from stages.world.demo.listing import DemoLists
from stages.world.demo.photographs import jpeg, photograph
from stages.world.demo.shapes import Split, image

#: Side of the decompression bomb in pixels: 400 million of them in about 50 kB.
_BOMB = 20_000
#: Test images that leak into the training lists: as they are, and saved again as JPEG.
LEAKED_AS_IS, LEAKED_AS_JPEG = (0, 1), (2, 3)


def plant(listing: DemoLists, www: Path, sizes: dict[str, tuple[int, int]], shapes: dict[str, list[int]]) -> None:
    """Plant everything. `sizes` are those of the listed photographs, `shapes` the image ids in each host's list."""
    folder = www / "faults"
    folder.mkdir(parents=True, exist_ok=True)
    _answers(listing, folder)
    _pictures(listing, folder)
    _copies(listing, folder, sizes, shapes)
    _texts(listing, sizes)
    _rows(listing)


def _answers(listing: DemoLists, folder: Path) -> None:
    """What servers do instead of sending a picture."""
    good = jpeg(photograph("ihc.png"))

    def fault(host: str, path: str, caption: str, name: str, reason: str, **route: object) -> None:
        listing.routes[path] = route
        listing.plant(host, url(host, path), caption, name, reason)

    fault("laion", "/faults/missing.jpg", "a sailing boat on a calm lake", "404", "download.http_404", status=404)
    fault("cc3m", "/faults/gone.jpg", "an old wooden bridge over a river", "410", "download.http_410", status=410)
    fault(
        "cc12m",
        "/faults/always_busy.jpg",
        "a crowded market square in summer",
        "429 for ever",
        "download.http_429",
        status=429,
        headers={"Retry-After": "1"},
    )
    (folder / "busy.jpg").write_bytes(jpeg(photograph("coins.png")))
    fault(
        "cc12m",
        "/faults/busy.jpg",
        "rows of ancient coins on a dark cloth",
        "429 then served",
        "",
        file="www/faults/busy.jpg",
        retry_after=1,
    )
    (folder / "moved.jpg").write_bytes(jpeg(photograph("cell.png")))
    listing.routes["/faults/moved_here.jpg"] = {"file": "www/faults/moved.jpg"}
    fault(
        "cc3m",
        "/faults/moved.jpg",
        "a bright round cell under the microscope",
        "redirect",
        "",
        status=301,
        headers={"Location": "/faults/moved_here.jpg"},
    )
    for here, there in (("a", "b"), ("b", "a")):
        listing.routes[f"/faults/loop/{here}"] = {"status": 302, "headers": {"Location": f"/faults/loop/{there}"}}
    listing.plant(
        "laion",
        url("laion", "/faults/loop/a"),
        "a road that winds through the mountains",
        "redirect loop",
        "download.redirect_loop",
    )
    (folder / "good.jpg").write_bytes(good)
    fault(
        "cc12m",
        "/faults/opted_out.jpg",
        "stained tissue under the microscope",
        "opt-out header",
        "download.opt_out",
        file="www/faults/good.jpg",
        headers={"X-Robots-Tag": "noai"},
    )
    (folder / "sorry.html").write_text("<!doctype html><title>Sorry</title><p>This picture is not available.\n" * 4)
    fault(
        "cc3m",
        "/faults/sorry.jpg",
        "a lighthouse on a rocky coast",
        "HTML instead of an image",
        "download.not_an_image",
        file="www/faults/sorry.html",
    )
    (folder / "truncated.jpg").write_bytes(good[: len(good) // 2])
    fault(
        "cc12m",
        "/faults/truncated.jpg",
        "a plate of fruit on a kitchen table",
        "truncated JPEG",
        "download.truncated",
        file="www/faults/truncated.jpg",
    )
    for name, route in (("dribble", {"file": "www/faults/good.jpg", "dribble": 0.2}), ("silent", {"silent": True})):
        listing.routes[f"/faults/{name}.jpg"] = route
        listing.plant(
            "laion",
            url(SLOW, f"/faults/{name}.jpg"),
            f"a train that waits at the station, {name}",
            f"slow host: {name}",
            "download.timeout",
        )
    for number in range(2):
        listing.plant(
            "cc12m",
            url(DEAD, f"/faults/{number}.jpg"),
            f"an empty street at night, number {number}",
            "dead host",
            "download.connection_refused",
        )


def _pictures(listing: DemoLists, folder: Path) -> None:
    """Pictures that are there and unfit, or need care."""
    from PIL import Image

    listing.routes["/faults/bomb.png"] = {"file": "www/faults/bomb.png"}
    (folder / "bomb.png").write_bytes(_bomb())
    listing.plant(
        "laion",
        url("laion", "/faults/bomb.png"),
        "a very large picture of nothing at all",
        "decompression bomb",
        "download.too_many_pixels",
        (_BOMB, _BOMB),
    )
    # Stored lying on its side; tag 6 says "turn clockwise by a quarter to view".
    rocket = photograph("rocket.jpg")
    lying = rocket.transpose(Image.Transpose.ROTATE_90)  # anticlockwise
    (folder / "rotated.jpg").write_bytes(jpeg(lying, orientation=6))
    pictures = {
        "cc3m": ("rotated", "a rocket on its launch pad at dusk", "EXIF-rotated", "", rocket),
        "laion": (
            "tiny",
            "a very small part of a colour wheel",
            "tiny image",
            "rule.min_side",
            photograph("color.png").crop((60, 60, 68, 68)),
        ),
        "cc12m": (
            "narrow",
            "a narrow strip of a drawing of lizards",
            "tiny image",
            "rule.min_side",
            photograph("logo.png").crop((240, 100, 252, 130)),
        ),
        "coco": (
            "wide",
            "a long strip of written formulas",
            "very wide image",
            "rule.max_aspect_ratio",
            photograph("text.png").crop((0, 60, 440, 120)),
        ),
    }
    for host, (name, caption, fault, reason, picture) in pictures.items():
        if name != "rotated":
            (folder / f"{name}.jpg").write_bytes(jpeg(picture))
        listing.routes[f"/faults/{name}.jpg"] = {"file": f"www/faults/{name}.jpg"}
        listing.plant(host, url(host, f"/faults/{name}.jpg"), caption, fault, reason, picture.size)


def _copies(listing: DemoLists, folder: Path, sizes: dict[str, tuple[int, int]], shapes: dict[str, list[int]]) -> None:
    """The same picture twice, and the benchmark's pictures among those to train on."""
    from PIL import Image

    exact = "duplicate.exact"
    copies = (("coffee", "cc3m", "an espresso in a red cup on a table"),)
    for name, host, caption in copies:
        listing.routes[f"/mirror/{name}.jpg"] = {"file": f"www/photos/{name}.jpg"}
        of = url("laion", f"/photos/{name}.jpg")
        listing.plant(
            host, url(host, f"/mirror/{name}.jpg"), caption, "exact duplicate", exact, sizes[name], group=name
        )
        _expect_all(listing, "laion", of, "exact duplicate", exact, name)
    number = shapes["laion"][0]
    listing.routes[f"/mirror/{number}.png"] = {"file": f"images/train/{number}.png"}
    group = f"shape {number}"
    mirror = url("cc12m", f"/mirror/{number}.png")
    listing.plant("cc12m", mirror, "the very same shape once more", "exact duplicate", exact, group=group)
    _expect_all(listing, "laion", url("laion", f"/shapes/{number}.png"), "exact duplicate", exact, group)

    near = "duplicate.near"
    for name, file, home, host, caption in (
        ("astronaut", "astronaut.png", "laion", "cc12m", "portrait of a woman in an orange space suit"),
        ("chelsea", "chelsea.png", "cc3m", "laion", "close view of the face of a cat"),
        ("motorcycle", "motorcycle_left.png", "cc12m", "coco", "a motorcycle stands in a garage"),
    ):
        picture = photograph(file)
        smaller = picture.resize((picture.width * 3 // 5, picture.height * 3 // 5), Image.Resampling.LANCZOS)
        brighter = smaller.point(lambda value: min(255, round(value * 1.04)))
        (folder / f"{name}_again.jpg").write_bytes(jpeg(brighter, quality=75))
        path = f"/faults/{name}_again.jpg"
        listing.routes[path] = {"file": f"www{path}"}
        listing.plant(host, url(host, path), caption, "near duplicate", near, brighter.size, group=name)
        _expect_all(listing, home, url(home, f"/photos/{name}.jpg"), "near duplicate", near, name)

    split: Split = "test"
    for test_id in (*LEAKED_AS_IS, *LEAKED_AS_JPEG):
        host = ("laion", "cc3m", "cc12m", "coco")[test_id % 4]
        as_is = test_id in LEAKED_AS_IS
        path = f"/leaks/{test_id}.{'png' if as_is else 'jpg'}"
        listing.routes[path] = {"file": f"images/test/{test_id}.png" if as_is else f"www/faults/leak_{test_id}.jpg"}
        if not as_is:
            with Image.open(image(split, test_id)) as leaked:
                (folder / f"leak_{test_id}.jpg").write_bytes(jpeg(leaked.convert("RGB"), quality=90))
        fault = "benchmark image, same bytes" if as_is else "benchmark image, saved again"
        caption = f"a shape that belongs to the benchmark, number {test_id}"
        listing.plant(host, url(host, path), caption, fault, "benchmark.demo_vqa")


def _expect_all(listing: DemoLists, host: str, address: str, fault: str, reason: str, group: str) -> None:
    for row in list(listing.rows[host]):
        if row.url == address:
            listing.expect(host, row.url, row.caption, fault, reason, group=group)


def _texts(listing: DemoLists, sizes: dict[str, tuple[int, int]]) -> None:
    """Further captions of photographs that stay: in other languages, too short, quoted, or repeated."""

    def add(host: str, photo: str, caption: str, fault: str, reason: str) -> None:
        listing.plant(host, url(host, f"/photos/{photo}.jpg"), caption, fault, reason, sizes[photo])

    language, words = "rule.language", "rule.min_words"
    add("laion", "moon", "La surface grise de la lune avec un cratère rond", "French caption", language)
    add("cc3m", "brick", "Eine Mauer aus langen Ziegelsteinen", "German caption", language)
    add("cc12m", "grass", "Hierba seca y hojas en el suelo vistas desde arriba", "Spanish caption", language)
    add("coco", "camera", "Мужчина фотографирует в поле", "Russian caption", language)
    add("laion", "phantom", "head phantom", "two-word caption", words)
    add("cc12m", "hubble", "galaxies", "one-word caption", words)
    add("cc3m", "horse", 'a print titled "the black horse on a white ground', "unbalanced quote", "")
    add("cc12m", "grass", '"meadow in late summer, a close view of the ground', "unbalanced quote", "")
    for host, photo in (("laion", "moon"), ("cc3m", "horse"), ("coco", "retina")):
        first = next(row for row in listing.rows[host] if row.url == url(host, f"/photos/{photo}.jpg"))
        add(host, photo, str(first.caption), "listed twice", "")


def _rows(listing: DemoLists) -> None:
    """Rows that are no pairs."""
    listing.plant("laion", None, "a caption without any address", "no URL", "reject.no_url")
    listing.plant("laion", url("laion", "/photos/moon.jpg?size=small"), None, "no caption", "reject.no_caption")
    listing.plant("laion", "data:image/png;base64,AAAA", "a picture in its own address", "not http", "reject.data_url")
    address = url("cc3m", "/photos/brick.jpg").encode()
    listing.plant_raw("cc3m", b"a line without a tab", "one column", "not_two_columns")
    listing.plant_raw("cc3m", b"a caption\twith a tab inside\t" + address, "three columns", "not_two_columns")
    listing.plant_raw("cc3m", b"caf\xe9 in Latin-1\t" + address, "not UTF-8", "not_utf8")
    listing.plant_raw("cc12m", url("cc12m", "/photos/grass.jpg").encode() + b"\t", "no caption", "no_caption")
    listing.plant("coco", None, "an annotation of an image that is not listed", "no image", "reject.no_such_image")


def _bomb() -> bytes:
    """A PNG of one colour, one bit per pixel: enormous to decode, tiny to send."""
    row = b"\0" * (1 + _BOMB // 8)
    compressor = zlib.compressobj(9)
    data = b"".join(compressor.compress(row * 1000) for _ in range(_BOMB // 1000)) + compressor.flush()
    header = struct.pack(">IIBBBBB", _BOMB, _BOMB, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    body = b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body
