"""`pairmill check-shards` as a user runs it: here, on Ray, on a workspace, on a folder of anyone's tars."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from pipelines.compose import load
from pipelines.dag import build
from pipelines.main import main
from pipelines.state import Workspace
from pipelines.store import Store
from stages.base.artifact import file_sha256
from stages.shard.index import IndexRow, checksum, to_table, write_index
from stages.shard.writer import ShardWriter


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    """Three tars of two samples each."""
    from webdataset import TarWriter

    folder = tmp_path / "tars"
    folder.mkdir()
    for shard in range(3):
        with TarWriter(str(folder / f"{shard}.tar"), mtime=0) as tar:
            for n in range(2):
                stored = io.BytesIO()
                Image.effect_noise((30, 20), 60).save(stored, "jpeg")
                tar.write({"__key__": f"{shard}{n}", "jpg": stored.getvalue(), "txt": "secret words"})
    return folder


def check(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipelines.main", "check-shards", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_the_exit_code_says_whether_there_is_damage(tars: Path) -> None:
    done = check(tars)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{tars}: 3 shards, 6 samples, 30,720 bytes: no damage\n"
    path = tars / "1.tar"
    path.write_bytes(path.read_bytes()[:1200])
    done = check(tars)
    assert done.returncode == 1
    line, total = done.stdout.splitlines()
    assert line.startswith("1.tar: at offset ")
    assert "what follows cannot be read" in line
    assert total == f"{tars}: 3 shards, 4 samples, 21,680 bytes: 1 problem"


def test_json_names_shard_sample_and_offset(tars: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from webdataset import TarWriter

    with TarWriter(str(tars / "3.tar"), mtime=0) as tar:
        tar.write({"__key__": "x", "jpg": b"no picture", "txt": "secret words"})
    assert main(["check-shards", "--json", str(tars)]) == 1
    told = json.loads(capsys.readouterr().out)
    (problem,) = told["problems"]
    assert (told["shards"], told["samples"]) == (4, 7)
    assert (problem["file"], problem["uid"], problem["offset"]) == ("3.tar", "x", 512)
    assert "secret" not in json.dumps(told)


def test_many_shards_are_checked_on_ray(
    tars: Path, ray_session: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pipelines.commands.check_shards._LOCAL_BYTES", 0)
    (tars / "0.tar").write_bytes(b"not a tar" * 100)
    assert main(["check-shards", str(tars)]) == 1
    line, total = capsys.readouterr().out.splitlines()
    assert line.startswith("0.tar: at offset 0: not a readable tar")
    assert "3 shards, 4 samples" in total


def test_what_cannot_be_checked_is_the_users_to_mend(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-shards", str(tmp_path / "none")]) == 2
    assert (
        capsys.readouterr().err == f"pairmill: {tmp_path}/none: no such folder; name the folder that holds the shards\n"
    )
    assert main(["check-shards", f"workspace={tmp_path / 'w'}"]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"pairmill: check-shards: the shards of {tmp_path}/w are missing")
    assert "run `pairmill run shard`" in told
    assert main(["check-shards", "one", "two"]) == 2
    assert "one folder or URL at a time" in capsys.readouterr().err


def test_without_a_folder_the_workspaces_shards_are_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["source=demo_coco", f"workspace={tmp_path / 'w'}"]
    config = load(words)
    workspace = Workspace(build(config), Store(config.workspace))
    node = workspace.dag["shard"]
    artifact_dir = workspace.artifact_dir(node)
    folder = Path(artifact_dir.url)
    folder.mkdir(parents=True)
    uid = "a" * 32
    stored = io.BytesIO()
    Image.effect_noise((30, 20), 60).save(stored, "jpeg")
    parts = {"jpg": stored.getvalue(), "txt": b"words", "json": json.dumps({"uid": uid}).encode()}
    with ShardWriter(folder / "train-00000.tar") as shard:
        at = shard.add(uid, parts)
    sums = [checksum(parts[ext]) for ext in ("jpg", "txt", "json")]
    row = IndexRow(uid, uid, "demo_coco", 0, "jpg", *at["jpg"], *at["txt"], *at["json"], 1, *sums)
    write_index(folder / "index.arrow", [to_table([row])])
    listed = [{"name": "train-00000.tar", "samples": 1, "bytes": (folder / "train-00000.tar").stat().st_size}]
    (folder / "dataset.json").write_text(json.dumps({"samples": 1, "shards": listed}))
    files = [{"name": p.name, "size": p.stat().st_size, "sha256": file_sha256(p)} for p in sorted(folder.iterdir())]
    manifest = {"stage": "shard", "fingerprint": workspace.require(node), "counts": {}, "files": files}
    artifact_dir.seal(manifest, {})

    assert main(["check-shards", *words]) == 0
    assert ": 1 shard, 1 sample, " in capsys.readouterr().out
    data = bytearray((folder / "train-00000.tar").read_bytes())
    data[at["jpg"].offset + 5] ^= 1
    (folder / "train-00000.tar").write_bytes(data)
    assert main(["check-shards", *words]) == 1
    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith(f"train-00000.tar: sample {uid} at offset {at['jpg'].offset}: its image is not what was")
    (folder / "dataset.json").write_text(json.dumps({"samples": 1, "shards": listed}, indent=1))
    assert main(["check-shards", "--json", *words]) == 1
    assert [p["file"] for p in json.loads(capsys.readouterr().out)["problems"]] == ["dataset.json", "train-00000.tar"]
