"""What is private stays inside: planted words and a picture that would be known anywhere are in nothing that leaves."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image, ImageDraw, ImageFont

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]

#: Each is planted in one kind of place, so that a leak says where it comes from. None is an ordinary word.
PLANTED = {
    "folder name": "Quellbrunn",
    "file name": "Wexelberg",
    "DICOM tag": "Ostrowitz",
    "caption": "vermiljonite",
    "head of a report": "Tabergsson",
    "name of the list of reports": "Ymirsholm",
    "caption of a private folder": "zanzibarite",
    "file name in a private folder": "Kolvarstad",
    "printed on the pixels": "GRUNDVIK",
}
DICOM = Path(pydicom.__file__).parent / "data" / "test_files" / "MR_small.dcm"
#: Stages whose artifacts are the private data's own place: pairs, pixels, measurements, shards and their tokens.
INSIDE = {"ingest", "download", "signals", "shard", "tokens"}


def _known(width: int = 240, height: int = 200) -> Image.Image:
    """Broad bars of colours that no other picture here has."""
    bars = Image.new("RGB", (width, height))
    pen = ImageDraw.Draw(bars)
    for number, colour in enumerate(((230, 0, 230), (0, 230, 40), (250, 250, 0), (0, 20, 240))):
        pen.rectangle((number * width // 4, 0, (number + 1) * width // 4, height), fill=colour)
    return bars


def _dicom(path: Path, study: str, image: Image.Image) -> None:
    dataset = pydicom.dcmread(DICOM)
    dataset.Rows, dataset.Columns = image.height, image.width
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation, dataset.PixelData = 7, 0, image.tobytes()
    dataset["PixelData"].VR = "OB"
    dataset.StudyInstanceUID = study
    dataset.PatientName = f"{PLANTED['DICOM tag']}^Anna"
    dataset.InstitutionName = f"{PLANTED['DICOM tag']} Clinic"
    dataset.StudyDescription = f"CT of {PLANTED['DICOM tag']}"
    dataset.save_as(path, enforce_file_format=True)


@pytest.fixture
def sources(tmp_path: Path) -> list[str]:
    """A ward and a private folder full of planted words, and a public folder; as overrides of the configuration."""
    random = np.random.default_rng(1)
    ward = tmp_path / "ward" / PLANTED["folder name"]
    ward.mkdir(parents=True)
    rows = ["study,report"]
    for number in range(6):
        image = _known(240 + 8 * number, 200)
        pen = ImageDraw.Draw(image)
        pen.text((30, 150), PLANTED["printed on the pixels"], fill=(0, 0, 0), font=ImageFont.load_default(28))
        _dicom(ward / f"{PLANTED['file name']}_{number}.dcm", f"1.2.{number}", image)
        report = f"a small {PLANTED['caption']} nodule of the lung number {number} was seen again"
        if number != 4:  # one image has no report
            head = PLANTED["head of a report"]
            rows.append(f'1.2.{number},"PATIENT NAME: {head}, Anna\nFINDINGS: {report} by {head.lower()}.\n"')
    broken = (ward / f"{PLANTED['file name']}_5.dcm").read_bytes()
    (ward / f"{PLANTED['file name']}_5.dcm").write_bytes(broken[: len(broken) // 2])
    (ward / f"{PLANTED['file name']}.dcm").write_bytes(b"no DICOM " * 40)
    reports = tmp_path / f"{PLANTED['name of the list of reports']}.csv"
    reports.write_text("\n".join(rows), encoding="utf-8")

    album = tmp_path / "album" / PLANTED["folder name"]
    public = tmp_path / "public"
    for folder, word in ((album, PLANTED["caption of a private folder"]), (public, "meadow")):
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(6):
            stem = f"{PLANTED['file name in a private folder']}_{number}" if folder == album else f"picture_{number}"
            noise = Image.fromarray(random.integers(90, 160, (6, 6), dtype=np.uint8)).resize((260, 220))
            (_known(200, 180 + number) if folder == album else noise.convert("RGB")).save(folder / f"{stem}.png")
            (folder / f"{stem}.txt").write_text(f"a quiet {word} under a wide sky, number {number}", encoding="utf-8")
        (folder / f"{PLANTED['file name in a private folder'] if folder == album else 'picture'}_9.png").write_bytes(
            b"?"
        )
        text = folder / f"{PLANTED['file name in a private folder'] if folder == album else 'picture'}_9.txt"
        text.write_text(f"a broken {word}", encoding="utf-8")
    return [
        "source=[]",
        "world=[]",
        "task=[]",
        "benchmark=[]",
        "held_out=[]",
        "tokenizer.text=[]",
        "tokenizer.allow_smaller=true",
        "selection.rules.languages=null",
        "selection.duplicates.near=null",
        f"sources.ward={{kind:medical,paths:['{tmp_path / 'ward'}'],reports:['{reports}'],burned_in_text:mask}}",
        f"sources.album={{kind:folder,private:true,paths:['{tmp_path / 'album'}']}}",
        f"sources.open={{kind:folder,paths:['{public}']}}",
    ]


class Command:
    """The installed command on one workspace; all that it ever says is kept."""

    def __init__(self, workspace: Path, overrides: list[str]) -> None:
        self.workspace = workspace
        self.overrides = overrides
        self.said: list[tuple[str, str]] = []

    def __call__(self, *words: str, changed: str = "") -> int:
        command = [sys.executable, "-m", "pipelines.main", *words, *self.overrides, f"workspace={self.workspace}"]
        command += [changed] if changed else []
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=300, env={**os.environ, "COLUMNS": "200"}, check=False
        )
        self.said.append((" ".join(words), done.stdout + done.stderr))
        return done.returncode


def _readable(path: Path) -> str:
    """A file's content as text: tables row by row, for they are compressed; databases and all else as they lie."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.suffix == ".parquet":
        return json.dumps(pq.read_table(path).to_pylist(), default=str, ensure_ascii=False)
    if path.suffix == ".arrow":
        with pa.memory_map(str(path)) as mapped:
            return json.dumps(pa.ipc.open_file(mapped).read_all().to_pylist(), default=str, ensure_ascii=False)
    return path.read_bytes().decode("utf-8", "replace")


def _outside(workspace: Path) -> Iterator[Path]:
    """Every file of a workspace but those of the stages that hold private data by their nature."""
    for path in sorted(workspace.rglob("*")):
        artifact_dir = path.relative_to(workspace).parts
        # The table of digests of inputs is named by where they lie, like the inputs themselves.
        if (
            path.is_file()
            and not (artifact_dir[0] == "artifacts" and artifact_dir[1] in INSIDE)
            and artifact_dir[:2] != (".cache", "files.json")
        ):
            yield path


def _pictures(path: Path) -> Iterator[Image.Image]:
    """Images a file is or embeds."""
    content = path.read_bytes()
    embedded = re.findall(rb"data:image/[a-z+]+;base64,([A-Za-z0-9+/=]+)", content)
    for data in [*map(base64.b64decode, embedded), content]:
        try:
            with Image.open(io.BytesIO(data)) as image:
                yield image.convert("RGB")
        except (OSError, ValueError, SyntaxError):
            continue


def test_words_and_pictures_of_private_sources_are_in_nothing_that_leaves(sources: list[str], tmp_path: Path) -> None:
    command = Command(tmp_path / "workspace", sources)
    assert command("run", "-v", "tokens") == 0, command.said[-1][1][-4000:]
    (select,) = (command.workspace / "artifacts" / "select").glob("*")
    counts = json.loads((select / "manifest.json").read_text())["counts"]
    assert counts["kept"] >= 8  # private pairs among them: there is something to keep inside
    uids = _private_uids(command.workspace)
    assert len(uids) >= 9

    # The tools of this test see what is there to be seen.
    inside = [path for path in (command.workspace / "artifacts" / "ingest").rglob("*") if path.is_file()]
    assert any(PLANTED["caption"] in _readable(path) for path in inside)
    assert any(_is_known(image) for path in inside if path.suffix == ".png" for image in _pictures(path))

    # What else says something of samples, and what goes wrong. (`show` prints its owner's configuration, paths too.)
    command("status")
    command("report")
    for uid in sorted(uids)[:3]:
        command("why", uid)
    wrong = f"sources.ward.reports=['{tmp_path / PLANTED['folder name']}/nothing*.txt']"
    assert command("run", "-v", "ingest", changed=wrong) != 0
    no_column = "sources.ward.study_column=patient"
    assert command("run", "-v", "ingest", changed=no_column) != 0

    leaks = []
    for source, text in [
        *command.said,
        *((str(p.relative_to(tmp_path)), _readable(p)) for p in _outside(command.workspace)),
    ]:
        for artifact_dir, word in PLANTED.items():
            if word.lower() in text.lower():
                at = text.lower().index(word.lower())
                leaks.append(f"{artifact_dir} in {source}: …{text[max(0, at - 80) : at + 60]!r}")
    assert leaks == []

    seen = 0
    for path in _outside(command.workspace):
        for image in _pictures(path):
            seen += 1
            assert not _is_known(image), f"a private picture in {path.relative_to(tmp_path)}"
    assert seen > 0, "the report shows no picture at all: the public ones should be there"


def _private_uids(workspace: Path) -> set[str]:
    import pyarrow.parquet as pq

    found = set()
    for folder in (workspace / "artifacts" / "ingest").glob("*"):
        for file in folder.glob("pairs-*.parquet"):
            table = pq.read_table(file, columns=["uid", "source"]).to_pylist()
            found |= {row["uid"] for row in table if row["source"] in ("ward", "album")}
    return found


def _is_known(image: Image.Image) -> bool:
    """Whether an image has the bars' colours, at any size."""
    small = np.asarray(image.resize((4, 1), Image.Resampling.BOX)).astype(int)[0]
    return bool((np.abs(small - np.asarray(_known().resize((4, 1), Image.Resampling.BOX)).astype(int)[0]) < 60).all())
