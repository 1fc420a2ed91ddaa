"""The beam search for the best alignment of two texts (Denkowski and Lavie 2014, section 2)."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

from stages.evaluate.metrics.meteor.matchers import Match, Module

#: The reference's default. It prunes texts with many repeated words, so results depend on it.
BEAM = 40

_cost = itemgetter(0)

#: A partial alignment: (cost, the candidate's words in use as bits, end in the candidate of the match just before or -1
#: after a gap, position in the reference where it is free again, what it took as nested pairs). A bare tuple, because
#: the search makes hundreds of them for a pair of captions.
_Path = tuple[int, int, int, int, Any]


def align(matches: list[list[Match]], candidate_length: int) -> list[Match]:
    """The best alignment: matches that share no word, by position in the reference.

    `matches` is what `find_matches` returns. Among alignments, more matched words win (an exact match counts 1 a side,
    any other half its words, rounded down), then fewer chunks, then less distance, then the first one encountered.
    """
    certain = _certain(matches, candidate_length)
    selected = [match for match in certain if match]
    used = 0
    for match in selected:
        used |= _bits(match)
    busy = {i for match in selected for i in range(match.start, match.start + match.length)}
    open_matches = [
        []
        if i in busy
        else [m for m in local_matches if not used & _bits(m) and busy.isdisjoint(range(i, i + m.length))]
        for i, local_matches in enumerate(matches)
    ]
    if any(open_matches):
        _, _, _, _, chosen = _search(matches, certain, open_matches)
        while chosen:
            chosen, match = chosen
            selected.append(match)
        selected.sort()
    return selected


def _bits(match: Match) -> int:
    return ((1 << match.other_length) - 1) << match.other_start


def _certain(matches: list[list[Match]], candidate_length: int) -> list[Match | None]:
    """Matches, by start, whose words no other match touches."""
    cover = [0] * len(matches)
    other_cover = [0] * candidate_length
    for local_matches in matches:
        for start, length, other_start, other_length, _ in local_matches:
            for i in range(start, start + length):
                cover[i] += 1
            for j in range(other_start, other_start + other_length):
                other_cover[j] += 1
    certain: list[Match | None] = [None] * len(matches)
    for i, local_matches in enumerate(matches):
        if len(local_matches) == 1:
            start, length, other_start, other_length, _ = local_matches[0]
            alone = sum(cover[start : start + length]) == length
            if alone and sum(other_cover[other_start : other_start + other_length]) == other_length:
                certain[i] = local_matches[0]
    return certain


def _search(matches: list[list[Match]], certain: list[Match | None], open_matches: list[list[Match]]) -> _Path:
    """The first of the best paths, by cost. A path's cost packs the criteria into one number: distance in the low
    bits, chunks above it, and matches, negated, on top."""
    distances = sum(abs(m.start - m.other_start) for local_matches in matches for m in local_matches)
    chunk = 1 << (distances + 1).bit_length()
    matched = chunk << (len(matches) + 2).bit_length()
    beam: list[_Path] = [(0, 0, -1, 0, ())]
    for i, local_matches in enumerate(open_matches):
        beam.sort(key=_cost)
        del beam[BEAM:]
        match = certain[i]
        if match:
            cost = _distance(match) - matched * _weight(match)
            start, end, free = match.other_start, match.other_start + match.other_length, i + match.length
            beam = [
                (path[0] + cost + (chunk if path[2] not in (-1, start) else 0), path[1], end, free, path[4])
                for path in beam
            ]
        elif local_matches:
            beam = _branch(beam, i, local_matches, chunk, matched)
        else:
            beam = [
                path if path[3] > i else (path[0] + (chunk if path[2] != -1 else 0), path[1], -1, i + 1, path[4])
                for path in beam
            ]
    beam.sort(key=_cost)
    # An open chunk counts when the text ends.
    return min(((path[0] + (chunk if path[2] != -1 else 0), *path[1:]) for path in beam[:BEAM]), key=_cost)


def _branch(beam: list[_Path], i: int, local_matches: list[Match], chunk: int, matched: int) -> list[_Path]:
    """Every path with each match it can take here, and without one."""
    options = [
        (
            _bits(match),
            match.other_start,
            match.other_start + match.other_length,
            i + match.length,
            -matched * _weight(match),
            _distance(match),
            match,
        )
        for match in local_matches
    ]
    longer: list[_Path] = []
    for path in beam:
        cost, used, last, free, selected = path
        if free > i:
            longer.append(path)
            continue
        closed = cost + chunk if last != -1 else cost
        passed = 0
        for bits, start, end, freed, gain, distance, match in options:
            if used & bits:
                continue
            before = cost if last == start else closed
            longer.append((before + passed + gain, used | bits, end, freed, (selected, match)))
            # The reference charges the distance of a match to the paths that do not take it: those that take a later
            # match here, and the one that takes none.
            passed += distance
        longer.append((closed + passed, used, -1, i + 1, selected))
    return longer


def _distance(match: Match) -> int:
    return abs(match.start - match.other_start)


def _weight(match: Match) -> int:
    if match.module == Module.EXACT:
        return match.length + match.other_length
    return match.length // 2 + match.other_length // 2
