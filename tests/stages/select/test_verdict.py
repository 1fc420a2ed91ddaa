"""Verdicts over tables made by hand: no Ray, no images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.contract import UserError
from stages.select.config import SelectConfig, SelectionConfig
from stages.select.rules import image_checks, pair_checks
from stages.select.tables import Tables
from stages.select.verdict import decide

SELECTION = SelectionConfig.model_validate(
    {"name": "t", "rules": {"min_side": 32, "min_words": 3}, "duplicates": {"near": {"radius": 4}}}
)


def tables(seed: int, count: int = 40) -> Tables:
    """Two sources of `count` images, of which some failed, some are small and some are copies; two pairs each."""
    random = np.random.default_rng(seed)
    uids = [f"{n:032x}" for n in random.permutation(count)]
    status = random.choice(["success", "success", "success", "http_404", "timeout"], count).tolist()
    fetched = sorted(uid for uid, s in zip(uids, status, strict=True) if s == "success")
    n = len(fetched)
    images = pa.table(
        {
            "image_uid": pa.array(fetched, pa.string()),
            "width": pa.array(random.integers(1, 4, n) * 100, pa.int32()),
            "height": pa.array([100] * n, pa.int32()),
            "bytes": pa.array(random.integers(1, 4, n), pa.int64()),
            "pixel_sha256": pa.array([str(x) for x in random.integers(0, count, n)], pa.string()),
            "phash": pa.array([f"{x:04x}" * 4 for x in random.integers(0, 1 << 7, n).tolist()], pa.string()),
            "thumbnail": pa.array([bytes(192)] * n, pa.binary(192)),
            "failed": pa.array(random.choice([-1, -1, -1, 0, 1], n), pa.int8()),
        }
    )
    listed = sorted((f"{x:032x}", uids[x // 2]) for x in random.permutation(2 * count).tolist())
    home = {uid: place % 2 for place, uid in enumerate(uids)}
    measured = [uid for uid, image in listed if image in set(fetched)]
    return Tables(
        pairs=pa.table(
            {
                "uid": [uid for uid, _ in listed],
                "image_uid": [image for _, image in listed],
                "source": pa.array([home[image] for _, image in listed], pa.int16()),
            }
        ),
        attempts=pa.table({"image_uid": uids, "status": status}),
        images=images,
        captions=pa.table(
            {
                "uid": pa.array(measured, pa.string()),
                "failed": pa.array(random.choice([-1, -1, 0], len(measured)), pa.int8()),
            }
        ),
        sources=["a", "b"],
        image_checks=image_checks(SELECTION.rules),
        pair_checks=pair_checks(SELECTION.rules),
    )


def verdicts(given_tables: Tables, selection: SelectionConfig = SELECTION) -> dict[str, tuple[str, str]]:
    table = decide(given_tables, SelectConfig(selection=selection), {}).verdicts()
    rows = table.to_pylist()
    assert len({row["uid"] for row in rows}) == len(rows) == given_tables.pairs.num_rows
    assert all(row["keep"] == (row["reason"] == "") for row in rows)
    return {row["uid"]: (row["reason"], row["detail"]) for row in rows}


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1 << 30))
def test_verdicts_do_not_depend_on_the_order_of_rows(seed: int) -> None:
    made = tables(seed)
    shuffle = np.random.default_rng(seed + 1).permutation
    mixed = replace(
        made,
        attempts=made.attempts.take(pa.array(shuffle(made.attempts.num_rows))),
        images=made.images.take(pa.array(shuffle(made.images.num_rows))),
        captions=made.captions.take(pa.array(shuffle(made.captions.num_rows))),
    )
    assert verdicts(made) == verdicts(mixed)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1 << 30))
def test_the_survivor_named_by_a_copy_is_really_kept(seed: int) -> None:
    made = tables(seed)
    result = verdicts(made)
    image_of = dict(zip(made.pairs["uid"].to_pylist(), made.pairs["image_uid"].to_pylist(), strict=True))
    kept = {image_of[uid] for uid, (reason, _) in result.items() if reason == ""}
    for reason, detail in result.values():
        assert (detail in kept) if reason.startswith("duplicate.") else detail == ""


def test_a_source_is_capped_by_its_smallest_uids_after_everything_else() -> None:
    made = tables(1, count=80)
    free = verdicts(made)
    capped = verdicts(made, SELECTION.model_copy(update={"max_pairs": {"b": 2, "elsewhere": 0}}))
    source = dict(zip(made.pairs["uid"].to_pylist(), made.pairs["source"].to_pylist(), strict=True))
    kept = sorted(uid for uid, (reason, _) in free.items() if reason == "" and source[uid] == 1)
    assert len(kept) > 2
    assert {uid for uid in free if free[uid] != capped[uid]} == set(kept[2:])
    assert {capped[uid] for uid in kept[2:]} == {("cap", "")}


@pytest.mark.parametrize(
    ("lost", "message"),
    [("attempts", "was never tried"), ("images", "was fetched but not measured"), ("captions", "was not measured")],
)
def test_inputs_that_disagree_are_refused(lost: str, message: str) -> None:
    made = tables(3)
    with pytest.raises(UserError, match=message):
        verdicts(replace(made, **{lost: getattr(made, lost).slice(0, 0)}))


def test_a_pair_listed_twice_is_refused() -> None:
    made = tables(2)
    twice = pa.concat_tables([made.pairs.slice(0, 1), made.pairs])
    with pytest.raises(UserError, match="is listed twice"):
        verdicts(replace(made, pairs=twice))
