"""The mixture: the largest set with the given shares, and pairs shown several times an epoch."""

from __future__ import annotations

import hashlib
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from stages.base.contract import UserError
from stages.select.config import Portion, SelectConfig, SelectionConfig
from stages.select.mixture import epoch_samples, shown
from tests.stages.select.selecting import select


def mixed(index, **selection: object) -> list[dict]:
    config = SelectConfig(selection=SelectionConfig.model_validate({"name": "t", **selection}))
    return select(index, config).verdicts().to_pylist()


@pytest.fixture(scope="session")
def two_sources(make_index):
    """100 good pairs of `web` and 40 of `coco`, with uids as they really are."""
    rows = sorted((hashlib.md5(f"{n}".encode()).hexdigest(), n) for n in range(140))
    images = [{"source": int(n >= 100)} for n in range(140)]
    return make_index(images, [{"uid": uid, "image": n} for uid, n in rows], {"web": False, "coco": False})


def kept(rows: list[dict]) -> Counter[str]:
    return Counter(row["source"] for row in rows if row["keep"])


def test_shares_give_the_largest_set_that_has_them(two_sources) -> None:
    assert kept(mixed(two_sources, mixture={"coco": {"share": 0.2}, "web": {"share": 0.8}})) == {"web": 100, "coco": 25}
    assert kept(mixed(two_sources, mixture={"coco": {"share": 0.5}, "web": {"share": 0.5}})) == {"web": 40, "coco": 40}
    assert kept(mixed(two_sources, mixture={"coco": {"share": 0.5}})) == {"web": 40, "coco": 40}
    assert kept(mixed(two_sources, mixture={"coco": {"weight": 1}, "web": {"weight": 4}})) == {"web": 100, "coco": 25}
    assert kept(mixed(two_sources, mixture={"coco": {"share": 0}})) == {"web": 100}


def test_what_is_too_much_is_dropped_as_mixture_and_a_larger_share_only_adds(two_sources) -> None:
    less = mixed(two_sources, mixture={"coco": {"share": 0.1}})
    more = mixed(two_sources, mixture={"coco": {"share": 0.2}})
    assert {row["reason"] for row in less} == {"", "mixture"}
    chosen = [{row["uid"] for row in rows if row["keep"] and row["source"] == "coco"} for rows in (less, more)]
    assert len(chosen[0]) == 11
    assert chosen[0] < chosen[1]


def test_caps_come_first_so_that_the_shares_hold(two_sources) -> None:
    rows = mixed(two_sources, max_pairs={"web": 30}, mixture={"coco": {"share": 0.5}})
    assert kept(rows) == {"web": 30, "coco": 30}
    assert Counter(row["reason"] for row in rows) == {"": 60, "cap": 70, "mixture": 10}


def test_epochs_show_pairs_whole_times_chosen_by_uid(two_sources) -> None:
    rows = mixed(two_sources, mixture={"coco": {"epochs": 2.5}})
    assert Counter(row["repeats"] for row in rows if row["source"] == "coco") == {2: 20, 3: 20}
    assert Counter(row["repeats"] for row in rows if row["source"] == "web") == {1: 100}
    again = mixed(two_sources, mixture={"coco": {"epochs": 2.75}})
    often = [{row["uid"] for row in found if row["repeats"] == 3} for found in (rows, again)]
    assert len(often[1]) == 30
    assert often[0] < often[1]
    assert often[0] != set(sorted(row["uid"] for row in rows if row["source"] == "coco")[:20])
    half = mixed(two_sources, mixture={"coco": {"epochs": 0.5}})
    assert kept(half) == {"web": 100, "coco": 20}
    assert {row["reason"] for row in half} == {"", "mixture"}


def test_a_share_is_of_what_an_epoch_shows(two_sources) -> None:
    rows = mixed(two_sources, mixture={"coco": {"share": 0.5, "epochs": 2}})
    assert kept(rows) == {"web": 80, "coco": 40}
    shows: Counter[str] = Counter()
    for row in rows:
        shows[row["source"]] += row["repeats"]
    assert shows == {"web": 80, "coco": 80}


portions = st.builds(
    Portion,
    share=st.none() | st.sampled_from([0, 0.1, 0.25, 0.3]),
    epochs=st.sampled_from([0.3, 0.5, 1, 1.5, 2.5, 7]),
)


@settings(max_examples=300, deadline=None)
@given(counts=st.lists(st.integers(1, 300), min_size=1, max_size=3), drawn=st.lists(portions, max_size=3))
def test_no_source_is_shown_more_than_it_has_and_shares_hold_to_the_last_sample(
    counts: list[int], drawn: list[Portion]
) -> None:
    names = ["a", "b", "c"][: len(counts)]
    mixture = dict(zip(names, drawn, strict=False))
    shares = {name: Fraction(str(part.share)) for name, part in mixture.items() if part.share is not None}
    rest = [name for name in names if name not in shares]
    if shares and not rest:
        return  # shares of everything would have to add up to 1
    number = epoch_samples(counts, names, mixture)
    times = [Fraction(str(mixture[name].epochs)) if name in mixture else Fraction(1) for name in names]
    most = [count * each for count, each in zip(counts, times, strict=True)]
    assert all(0 <= mine <= top for mine, top in zip(number, most, strict=True))
    if not shares:
        assert number == [int(top) for top in most]
        return
    left = 1 - sum(shares.values())
    together = sum(most[names.index(name)] for name in rest)
    total = min([together / left, *(most[names.index(n)] / share for n, share in shares.items() if share)])
    for name, mine in zip(names, number, strict=True):
        target = total * shares[name] if name in shares else total * left * most[names.index(name)] / together
        assert mine == int(target)


@settings(max_examples=100, deadline=None)
@given(count=st.integers(0, 80), times=st.sampled_from([0.4, 1, 1.3, 2, 2.5, 9.99]), number=st.integers(0, 900))
def test_repeats_show_the_given_number_of_samples_if_there_are_enough(count: int, times: float, number: int) -> None:
    plan = shown(times, number, count)
    samples = plan.pairs * plan.each + plan.once_more
    assert samples <= number
    enough = int(Fraction(str(times)) * count)
    if number >= enough and times >= 1:
        assert samples == enough
    assert plan.each == max(1, int(times))
    assert 0 <= plan.once_more <= plan.pairs <= count


@pytest.mark.parametrize(
    ("mixture", "message"),
    [
        ({"flickr": {"share": 0.5}}, r"mixture\.flickr: no such source in this run \(sources: web, coco\)"),
        ({"web": {"share": 1}}, "leaves nothing for coco"),
        ({"web": {"weight": 1}}, "coco has no weight"),
    ],
)
def test_a_mixture_that_does_not_fit_the_sources_is_refused(two_sources, mixture: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        mixed(two_sources, mixture=mixture)


def test_a_share_of_a_source_of_which_nothing_is_kept_is_refused(two_sources) -> None:
    with pytest.raises(UserError, match=r"mixture\.coco: its share is 0\.2, but none of its pairs are kept"):
        mixed(two_sources, max_pairs={"coco": 0}, mixture={"coco": {"share": 0.2}})


@pytest.mark.parametrize(
    "wrong",
    [
        {"a": {"share": 1.1}},
        {"a": {"share": 0.6}, "b": {"share": 0.6}},
        {"a": {"share": 0.6}, "b": {"weight": 2}},
        {"a": {"weight": 0}},
        {"a": {"epochs": 0}},
    ],
)
def test_a_mixture_that_makes_no_sense_is_refused(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        SelectionConfig.model_validate({"name": "t", "mixture": wrong})
