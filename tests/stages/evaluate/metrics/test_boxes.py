"""IoU as pycocotools has it, and coordinate spaces."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.evaluate.metrics.boxes import hits, iou, to_pixels

NUMBER = st.floats(0, 1000, allow_nan=False)
BOX = st.tuples(NUMBER, NUMBER, NUMBER, NUMBER)


def test_every_golden_box_has_pycocotools_iou(shared):
    golden = json.loads((shared / "golden/rec_iou.json").read_text())
    found = iou(np.array(golden["gt_xywh"]), np.array(golden["pred_xywh"]))
    assert found == pytest.approx(golden["iou"], abs=1e-12)
    scores = hits(found, np.ones(len(found), dtype=bool)).total()
    assert scores["accuracy"] == pytest.approx(100 * golden["acc@0.5_ge"], abs=1e-12)
    assert scores["mean_iou"] == pytest.approx(golden["mean_iou"], abs=1e-12)
    for case in golden["boundary"]:
        # Corners the wrong way round make a box of negative size, which no reader takes for one (tests of the command).
        x1, y1, x2, y2 = case.get("pred_xyxy_reversed", [0] * 4)
        box = case.get("pred_xywh", [x1, y1, x2 - x1, y2 - y1])
        one = iou(np.array([case["gt_xywh"]], dtype=float), np.array([box], dtype=float))
        assert one == pytest.approx([case["iou"]], abs=1e-12)
        assert (hits(one, np.array([True])).total()["accuracy"] == 100) == (case["iou"] >= 0.5)


@given(BOX, BOX)
def test_iou_is_symmetric_between_0_and_1_and_a_number(a, b):
    one, two = np.array([a]), np.array([b])
    value = iou(one, two)[0]
    assert 0 <= value <= 1 + 1e-9
    assert value == pytest.approx(iou(two, one)[0])
    if a[2] * a[3] > 1e-6:
        assert iou(one, one)[0] == pytest.approx(1)


def test_an_answer_that_was_no_box_is_a_miss():
    assert hits(np.array([1.0, 1.0]), np.array([True, False])).total() == {"accuracy": 50, "mean_iou": 0.5}


def test_spaces_are_fractions_and_thousandths_of_width_and_height():
    sizes = np.array([[200.0, 100.0]])
    assert to_pixels(np.array([[0.1, 0.2, 0.5, 0.5]]), sizes, "normalized").tolist() == [[20, 20, 100, 50]]
    assert to_pixels(np.array([[100.0, 200, 500, 500]]), sizes, "thousandths").tolist() == [[20, 20, 100, 50]]
