"""A run's contest: archived versions and several freshly trained challengers against the champion, on the same rows.

What a round may spend of the run's significance on archived versions, and on trained challengers, is shared by all
of them (Hommel), on all test rows and on newest stretches of them (`retrain/lately.py`): it promotes something that is
no better with at most the probability that it was given, however many it weighs.

Trained challengers are tested by rolling origin (`retrain/rolling.py`); the test rows come in blocks, each half as long
as the one before.

Whoever wins has to pass the same gates, old or new. Parts of the rows, segments and groups, are judged on all of the
test rows: those by which it won are often too few to show a small one. What cannot be told yet is no refusal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from retrain.comparison import Comparison
from retrain.dataset import Dataset, Problem
from retrain.gates import Group, TooFewRows, groups_of, require_cheap, require_enough, require_fair, require_missing
from retrain.lately import judged, require_no_worse_lately, telling
from retrain.rolling import BLOCKS, Rolled, rolled
from retrain.run import Answers, Challenger, Stage, absolute_errors, finished, metric_of, recipes
from retrain.segments import SIGNIFICANCE, Segment, require_no_loser, segments_of
from retrain.sources import Source, blocks, sources
from retrain.training import Recipe, Refused
from serving.manifest import Slice
from streams.settings import RetrainSettings

Errors = npt.NDArray[np.float64]
Part = TypeVar("Part", Segment, Group)


@dataclass(frozen=True, slots=True)
class Archived:
    """A version of the archive: its answers, since when (stream time) no row had a part in it, and its model."""

    version: int
    answers: Answers
    fresh_ms: int
    onnx: bytes
    accepts_missing: bool


@dataclass(frozen=True, slots=True)
class Rival:
    """One that was weighed: what it is called, and how it did against the champion."""

    name: str
    comparison: Comparison

    def describe(self) -> str:
        """One line for a person."""
        return f"{self.name}: {self.comparison.describe()}"


@dataclass(frozen=True, slots=True)
class Contest:
    """What came of a round: at most one of ``challenger`` (a new version) and ``archived`` (an old one) won.

    ``rivals`` are all that were weighed, the best first; ``refused`` says why others could not be, or may not win, and
    ``left_out`` why archived versions could not even be asked.
    """

    rivals: tuple[Rival, ...]
    refused: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    challenger: Challenger | None = None
    archived: int | None = None
    trained: bool = False
    """Whether challengers were trained for it."""

    @property
    def verdict(self) -> str:
        """One line for a person: the winner's comparison; if nobody won, the best one's and why others were refused."""
        if self.challenger is not None or self.archived is not None:
            return self.rivals[0].describe()
        told = [rival.describe() for rival in self.rivals[:1]] + [*self.refused, *self.left_out]
        return "; ".join(told) or "there was nobody to compare with"


def contest(
    dataset: Dataset,
    problem: Problem,
    *,
    version: int,
    settings: RetrainSettings,
    significance: float,
    archive_significance: float,
    champion: Answers,
    fresh: int,
    change: int | None,
    archive: Sequence[Archived] = (),
    left_out: Sequence[str] = (),
    missing: str | None = None,
    trains: bool = True,
    stage: Callable[[Stage], None] = lambda _: None,
) -> Contest:
    """Weigh everybody on the rows from ``fresh`` on, which neither the champion nor an older concept had a part in.

    ``change`` is the row of the estimated change, if one is known. An archived version that is proven better wins
    without anything being trained. ``left_out`` says why others of the archive are not asked, ``missing`` why whoever
    wins must accept missing values, if it must. One that has groups of too few rows stays among the rivals, with the
    reason beside it. Raises :class:`Refused` if nobody could be weighed.
    """
    stage("training")
    ring = _Ring(dataset, problem, settings, champion, fresh)
    refused: list[str] = []
    waiting: list[Rival] = []
    returning, unable = ring.archived(archive, archive_significance)
    left = (*left_out, *unable)
    old = [rival for rival, _ in returning]
    while (best := _best(old)) is not None:
        veteran = next(each for rival, each in returning if rival is best)
        try:
            require_missing(veteran.archived.accepts_missing, missing)
            ring.judge(veteran.said, veteran.errors, best.comparison.rows)
            require_cheap(veteran.archived.onnx, dataset.features, settings)
        except Refused as refusal:
            _drop(best, refusal, old, waiting, refused)
            continue
        stage("exporting")
        stage("verifying")
        return Contest(_first(best, [*old, *waiting]), tuple(refused), left, archived=veteran.archived.version)
    old += waiting
    if not trains:
        return Contest(tuple(_ranked(old)), tuple(refused), left)
    found, untrained = ring.trained(change, significance)
    refused += untrained
    if not found and not old:
        raise Refused("; ".join(dict.fromkeys([*refused, *left])) or "no row is left to test on")
    rivals = [rival for rival, _ in found]
    waiting = []
    stage("exporting")
    while (best := _best(rivals)) is not None:
        candidate = next(each for rival, each in found if rival is best)
        try:
            require_missing(candidate.rolled.model.takes_nan, missing)
            told_by = telling(candidate.errors, best.comparison.rows)
            segments, groups = ring.judge(
                candidate.rolled.answers, candidate.errors, best.comparison.rows, told_by=len(told_by)
            )
            challenger = finished(
                dataset,
                problem,
                candidate.recipe,
                candidate.rolled.model,
                version=version,
                settings=settings,
                start=candidate.source.start,
                end=candidate.rolled.end,
                errors=told_by,
                comparison=best.comparison,
                stage=stage,
                source=best.name,
                change=candidate.source.change,
            )
            require_cheap(challenger.onnx, dataset.features, settings)
        except Refused as refusal:  # by a gate: the next best may convert
            _drop(best, refusal, rivals, waiting, refused)
            continue
        told = replace(challenger, segments=_by_segment(segments), groups=_by_group(groups))
        return Contest(_first(best, [*rivals, *waiting, *old]), tuple(refused), left, challenger=told)
    stage("verifying")
    rivals += [*waiting, *old]
    if not rivals:
        raise Refused("; ".join([*refused, *left]))
    return Contest(tuple(_ranked(rivals)), tuple(refused), left)


def _drop(rival: Rival, refusal: Refused, rivals: list[Rival], waiting: list[Rival], refused: list[str]) -> None:
    """A gate refused it, so the next best is asked; who only lacks rows waits for them."""
    refused.append(f"{rival.name}: {refusal}")
    rivals.remove(rival)
    if isinstance(refusal, TooFewRows):
        waiting.append(rival)


@dataclass(frozen=True, slots=True)
class _Candidate:
    name: str
    recipe: Recipe
    source: Source
    rolled: Rolled
    errors: Errors
    """Of the test rows."""


@dataclass(frozen=True, slots=True)
class _Veteran:
    archived: Archived
    said: Errors
    """Its answers to the rows that it had no part in, and its errors there."""
    errors: Errors


class _Ring:
    """Where they meet: the rows, and the champion's errors on them."""

    def __init__(
        self, dataset: Dataset, problem: Problem, settings: RetrainSettings, champion: Answers, fresh: int
    ) -> None:
        self._dataset = dataset
        self._problem = problem
        self._settings = settings
        self._fresh = fresh
        self._metric = metric_of(problem)
        self._said = self._asked(champion, fresh)
        self._champion = self._errors(self._said)

    def _asked(self, answers: Answers, start: int) -> Errors:
        rows = self._dataset.features[start:]
        return answers(rows) if len(rows) else np.zeros(0)

    def _errors(self, said: Errors) -> Errors:
        """Of answers to the newest rows."""
        return absolute_errors(self._metric, said, self._dataset.target[len(self._dataset) - len(said) :])

    def _tells(self, start: int) -> bool:
        return self._problem.task == "regression" or len(np.unique(self._dataset.target[start:])) > 1

    def _judged(self, rivals: Sequence[Errors], significance: float) -> list[Comparison]:
        return judged(self._champion, rivals, self._metric, significance, self._settings.minimum_gain)

    def judge(
        self, said: Errors, errors: Errors, won_on: int, told_by: int | None = None
    ) -> tuple[list[Segment], list[Group]]:
        """How one that won by the newest ``won_on`` of its test rows did in their segments and groups, of the newest
        ``told_by`` (all by default). ``said`` and ``errors`` are of all of its test rows.

        Raises :class:`Refused` for a newest stretch, a segment or a group that loses, and :class:`TooFewRows` for a
        group that has few rows, or for a part that loses on all of them while those by which it won cannot tell.
        """
        champion = self._champion[-won_on:]
        require_no_worse_lately(champion, errors[-won_on:], self._metric)
        newest = self._segments(errors[-won_on:]), self._groups(said[-won_on:])
        whole = self._segments(errors), self._groups(said)
        self._require_no_part_loses(*newest)
        try:
            self._require_no_part_loses(_older_aside(whole[0], newest[0]), _older_aside(whole[1], newest[1]))
        except Refused as refusal:
            few = f"the newest {won_on:,} rows, by which it won, are too few to say that it does no longer"
            raise TooFewRows(f"{refusal}; {few}") from None
        require_enough(self._dataset.features[-len(said) :], self._problem, self._settings)
        return whole if told_by is None or told_by == len(errors) else newest

    def _require_no_part_loses(self, segments: Sequence[Segment], groups: Sequence[Group]) -> None:
        require_no_loser(segments, self._metric, self._settings.segment_loss)
        require_fair(groups, self._problem, self._settings)

    def _segments(self, errors: Errors) -> list[Segment]:
        n = len(errors)
        return segments_of(self._dataset.segments[-n:], self._champion[-n:], errors, self._metric)

    def _groups(self, said: Errors) -> list[Group]:
        dataset, n = self._dataset, len(said)
        if not self._settings.groups:
            return []
        rows, target = dataset.features[-n:], dataset.target[-n:]
        return groups_of(rows, target, self._said[-n:], said, self._problem, self._settings.groups)

    def archived(
        self, archive: Sequence[Archived], significance: float
    ) -> tuple[list[tuple[Rival, _Veteran]], list[str]]:
        """Every version that has not been trained on all of the rows, on those that it has not been trained on, and why
        others cannot be asked: one of them that is damaged says nothing against the others.

        None on outcomes of one class: a feed that has lost the others would bring back whoever always says that one.
        """
        found: list[_Veteran] = []
        unable: list[str] = []
        for each in archive:
            start = max(self._fresh, self._dataset.row_after(each.fresh_ms - 1))
            if start >= len(self._dataset) or not self._tells(start):
                continue
            try:
                said = self._asked(each.answers, start)
            except Refused as refusal:
                unable.append(str(refusal))
                continue
            if np.isfinite(said).all():
                found.append(_Veteran(each, said, self._errors(said)))
            else:
                unable.append(f"version {each.version} cannot answer: it says what is no number, or no class")
        compared = self._judged([each.errors for each in found], significance)
        return [
            (Rival(f"version {each.archived.version}", comparison), each)
            for each, comparison in zip(found, compared, strict=True)
        ], unable

    def trained(self, change: int | None, significance: float) -> tuple[list[tuple[Rival, _Candidate]], list[str]]:
        """A challenger of each source by each algorithm, and why others cannot be trained."""
        dataset, settings = self._dataset, self._settings
        tested = blocks(self._fresh, len(dataset), settings.test_share, BLOCKS)
        if not tested:
            return [], ["no row is left to test on"]
        if not self._tells(tested[0][0]):
            only = self._problem.classes[int(dataset.target[-1])]
            return [], [f"the outcomes to test on have one class only, {only!r}: does the feed report the others?"]
        made: list[_Candidate] = []
        refused: list[str] = []
        newest = [rows for rows in settings.recent_rows if rows >= settings.minimum_rows]
        choices = [each for each in sources(len(dataset), change, newest) if each.start < tested[0][0]]
        ways = recipes(settings)
        for source, recipe in product(choices, ways):
            name = source.name if len(ways) == 1 else f"{source.name}, {recipe}"
            try:
                made.append(self._rolled(name, recipe, source, tested))
            except Refused as refusal:
                refused.append(f"{name}: {refusal}")
        compared = self._judged([each.errors for each in made], significance)
        return [(Rival(each.name, comparison), each) for each, comparison in zip(made, compared, strict=True)], refused

    def _rolled(self, name: str, recipe: Recipe, source: Source, tested: Sequence[tuple[int, int]]) -> _Candidate:
        found = rolled(self._dataset, self._problem, recipe, source, tested)
        errors = absolute_errors(self._metric, found.answers, self._dataset.target[tested[0][0] :])
        return _Candidate(name, recipe, source, found, errors)


def _older_aside(whole: Sequence[Part], newest: Sequence[Part]) -> list[Part]:
    """Each part by all of the rows, but one that surely gains on the newest of them by those.

    What it loses before is of an older concept, which whoever knows the new one must get wrong.
    """
    gaining = {each.name: each for each in newest if each.gain_p_value < SIGNIFICANCE / len(newest)}
    return [gaining.get(each.name, each) for each in whole]


def _by_segment(segments: Sequence[Segment]) -> dict[str, Slice]:
    return {each.name: Slice(each.rows, each.challenger, each.champion) for each in segments}


def _by_group(groups: Sequence[Group]) -> dict[str, Slice]:
    return {each.name: Slice(each.rows, each.challenger, each.champion, each.selected, each.found) for each in groups}


def _ranked(rivals: Sequence[Rival]) -> list[Rival]:
    return sorted(rivals, key=lambda rival: (rival.comparison.p_value, -rival.comparison.gain))


def _best(rivals: Sequence[Rival]) -> Rival | None:
    """The one of those that passed that gains most."""
    better = [rival for rival in rivals if rival.comparison.better]
    return max(better, key=lambda rival: rival.comparison.gain, default=None)


def _first(best: Rival, rivals: Sequence[Rival]) -> tuple[Rival, ...]:
    return (best, *_ranked([rival for rival in rivals if rival is not best]))
