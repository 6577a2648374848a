"""A run's contest: archived versions and several freshly trained challengers against the champion, on the same rows.

What a round may spend of the run's significance on archived versions, and on trained challengers, is shared by all
of them (Hommel), on all test rows and on newest stretches of them (`retrain/lately.py`): it promotes something that is
no better with at most the probability that it was given, however many it weighs.

Trained challengers are tested by rolling origin (`retrain/rolling.py`); the test rows come in blocks, each half as long
as the one before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import numpy.typing as npt

from retrain.comparison import Comparison
from retrain.dataset import Dataset, Problem
from retrain.gates import Group, groups_of, require_cheap, require_fair
from retrain.lately import judged, require_no_worse_lately, telling
from retrain.rolling import BLOCKS, Rolled, rolled
from retrain.run import Answers, Challenger, Stage, absolute_errors, finished, metric_of, recipes
from retrain.segments import Segment, require_no_loser, segments_of
from retrain.sources import Source, blocks, sources
from retrain.training import Recipe, Refused
from serving.manifest import Slice
from streams.settings import RetrainSettings

Errors = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Archived:
    """A version of the archive: its answers, and since when (stream time) no row had a part in it."""

    version: int
    answers: Answers
    fresh_ms: int


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

    ``rivals`` are all that were weighed, the best first; ``refused`` says why others could not be, and ``left_out`` why
    archived versions could not even be asked.
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
    trains: bool = True,
    stage: Callable[[Stage], None] = lambda _: None,
) -> Contest:
    """Weigh everybody on the rows from ``fresh`` on, which neither the champion nor an older concept had a part in.

    ``change`` is the row of the estimated change, if one is known. An archived version that is proven better wins
    without anything being trained. ``left_out`` says why others of the archive are not asked. Raises :class:`Refused`
    if nobody could be weighed.
    """
    stage("training")
    ring = _Ring(dataset, problem, settings, champion, fresh)
    refused: list[str] = []
    returning, unable = ring.archived(archive, archive_significance)
    left = (*left_out, *unable)
    old = [rival for rival, _ in returning]
    while (best := _best(old)) is not None:
        try:
            ring.require_no_loser(_compared_on(best, next(errors for rival, errors in returning if rival is best)))
        except Refused as refusal:
            refused.append(f"{best.name}: {refusal}")
            old.remove(best)
            continue
        stage("exporting")
        stage("verifying")
        return Contest(_first(best, old), tuple(refused), left, archived=int(best.name.split()[-1]))
    if not trains:
        return Contest(tuple(_ranked(old)), tuple(refused), left)
    found, untrained = ring.trained(change, significance)
    refused += untrained
    if not found and not old:
        raise Refused("; ".join(dict.fromkeys([*refused, *left])) or "no row is left to test on")
    rivals = [rival for rival, _ in found]
    stage("exporting")
    while (best := _best(rivals)) is not None:
        candidate = next(each for rival, each in found if rival is best)
        try:
            errors = _compared_on(best, candidate.errors)
            segments = ring.require_no_loser(errors)
            challenger = finished(
                dataset,
                problem,
                candidate.recipe,
                candidate.rolled.model,
                version=version,
                settings=settings,
                start=candidate.source.start,
                end=candidate.rolled.end,
                errors=telling(candidate.errors, best.comparison.rows),
                comparison=best.comparison,
                stage=stage,
                source=best.name,
                change=candidate.source.change,
            )
            require_cheap(challenger.onnx, dataset.features, settings)
            groups = ring.require_fair(candidate.rolled.answers[-len(errors) :])
        except Refused as refusal:  # by a gate: the next best may convert
            refused.append(f"{best.name}: {refusal}")
            rivals.remove(best)
            continue
        told = replace(challenger, segments=_by_segment(segments), groups=_by_group(groups))
        return Contest(_first(best, [*rivals, *old]), tuple(refused), left, challenger=told)
    stage("verifying")
    if not rivals and not old:
        raise Refused("; ".join([*refused, *left]))
    return Contest(tuple(_ranked([*rivals, *old])), tuple(refused), left)


@dataclass(frozen=True, slots=True)
class _Candidate:
    name: str
    recipe: Recipe
    source: Source
    rolled: Rolled
    errors: Errors
    """Of the test rows."""


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
        self._answers = champion
        self._champion = self._errors(champion, fresh)

    def _errors(self, answers: Answers, start: int) -> Errors:
        """Of the rows from ``start`` on. Raises :class:`Refused` for one that cannot answer them."""
        dataset = self._dataset
        if start >= len(dataset):
            return np.zeros(0)
        return absolute_errors(self._metric, answers(dataset.features[start:]), dataset.target[start:])

    def _tells(self, start: int) -> bool:
        return self._problem.task == "regression" or len(np.unique(self._dataset.target[start:])) > 1

    def _judged(self, rivals: Sequence[Errors], significance: float) -> list[Comparison]:
        return judged(self._champion, rivals, self._metric, significance, self._settings.minimum_gain)

    def require_no_loser(self, errors: Errors) -> list[Segment]:
        """The segments of the rows that ``errors`` are of, the newest. Raises :class:`Refused` for one that loses, or
        for a newest stretch that does.
        """
        champion = self._champion[-len(errors) :]
        require_no_worse_lately(champion, errors, self._metric)
        names = self._dataset.segments[-len(errors) :]
        found = segments_of(names, champion, errors, self._metric)
        require_no_loser(found, self._metric, self._settings.segment_loss)
        return found

    def require_fair(self, answers: Errors) -> list[Group]:
        """The groups of the rows that ``answers`` are of, the newest. Raises :class:`Refused` for one that loses."""
        dataset, settings, n = self._dataset, self._settings, len(answers)
        if not settings.groups:
            return []
        rows, target = dataset.features[-n:], dataset.target[-n:]
        found = groups_of(rows, target, self._answers(rows), answers, self._problem, settings.groups)
        require_fair(found, self._problem, settings)
        return found

    def archived(
        self, archive: Sequence[Archived], significance: float
    ) -> tuple[list[tuple[Rival, Errors]], list[str]]:
        """Every version that has not been trained on all of the rows, on those that it has not been trained on, and why
        others cannot be asked: one of them that is damaged says nothing against the others.

        None on outcomes of one class: a feed that has lost the others would bring back whoever always says that one.
        """
        found: list[tuple[int, Errors]] = []
        unable: list[str] = []
        for each in archive:
            start = max(self._fresh, self._dataset.row_after(each.fresh_ms - 1))
            if start >= len(self._dataset) or not self._tells(start):
                continue
            try:
                errors = self._errors(each.answers, start)
            except Refused as refusal:
                unable.append(str(refusal))
                continue
            if np.isfinite(errors).all():
                found.append((each.version, errors))
            else:
                unable.append(f"version {each.version} cannot answer: it says what is no number")
        compared = self._judged([errors for _, errors in found], significance)
        return [
            (Rival(f"version {version}", comparison), errors)
            for (version, errors), comparison in zip(found, compared, strict=True)
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


def _compared_on(rival: Rival, errors: Errors) -> Errors:
    """Those of its errors that its comparison is of: the newest."""
    return errors[-rival.comparison.rows :]


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
