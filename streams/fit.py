"""Whether values fit their models: by column with what the catalog says of each ref, and in words for a single one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from streams.catalog import Catalog, is_classification
from streams.columns import NOBODY, Name
from streams.events import Label, ModelState, Value
from streams.records import DeadReason
from streams.values import BOOL, TEXT, Codes, Floats, Kinds, Places

Mask = NDArray[np.bool_]
Problem = tuple[DeadReason, str]

MISSING, NO_ROOM = -1, -2
"""Refs of predictions whose model nobody declared, and of those beyond the bound of names."""
REGRESSION, ANY_CLASS, OF_CLASSES = range(3)


class ModelsView:
    """What the catalog says of each ref, as columns; kept until the catalog or the refs change."""

    def __init__(self, texts: Places[str]) -> None:
        self.tasks = np.empty(0, dtype=np.uint8)
        self.models = np.empty(0, dtype=np.int32)
        """Of each ref, the place of its model's name in the texts."""
        self._texts = texts
        self._class_sets = np.empty(0, dtype=np.int32)
        self._classes: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
        self._of: tuple[int, int] | None = None

    def update(self, refs: Sequence[Name], catalog: Catalog) -> None:
        """Look again if the catalog or the refs have changed."""
        now = (catalog.position, len(refs))
        if now == self._of:
            return
        self._of = now
        self.tasks = np.zeros(len(refs), dtype=np.uint8)
        self.models = np.zeros(len(refs), dtype=np.int32)
        self._class_sets = np.zeros(len(refs), dtype=np.int32)
        sets: Places[tuple[Label, ...]] = Places()
        for ref, (model, _, _) in enumerate(refs):
            self.models[ref] = self._texts.add(model)
            state = catalog.get(model)
            if state is None or not is_classification(state.task):
                self.tasks[ref] = REGRESSION if state is not None else ANY_CLASS
            elif state.classes is None:
                self.tasks[ref] = ANY_CLASS
            else:
                self.tasks[ref] = OF_CLASSES
                self._class_sets[ref] = sets.add(tuple(state.classes))
        self._classes = [self._split(labels) for labels in sets.items]

    def _split(self, labels: Sequence[Label]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(the classes that are numbers, the places of those that are texts)."""
        numbers = [float(label) for label in labels if not isinstance(label, str)]
        texts = [float(self._texts.add(label)) for label in labels if isinstance(label, str)]
        return np.unique(numbers), np.unique(texts)

    def fits(self, kinds: Kinds, numbers: Floats, refs: Codes) -> Mask:
        """Whether each value is one of its ref's model."""
        text = kinds == TEXT
        tasks = self.tasks[refs]
        first = int(tasks[0]) if len(tasks) else REGRESSION
        one = bool((tasks == first).all())
        if one and first == OF_CLASSES:
            return self._among(text, numbers, refs)
        plain = ~text & (kinds != BOOL)
        whole = text | (numbers == np.floor(numbers))
        if one:
            return np.asarray(plain if first == REGRESSION else whole, dtype=np.bool_)
        found: Mask = np.where(tasks == REGRESSION, plain, whole)
        declared = tasks == OF_CLASSES
        found[declared] = self._among(text[declared], numbers[declared], refs[declared])
        return found

    def _among(self, text: Mask, numbers: Floats, refs: Codes) -> Mask:
        sets = self._class_sets[refs]
        found = np.zeros(len(refs), dtype=np.bool_)
        for number in np.unique(sets).tolist():
            known, known_texts = self._classes[number]
            inside = np.where(text, _isin(numbers, known_texts), _isin(numbers, known))
            found |= inside & (sets == number)
        return found

    def claimed(self, claims: Codes, refs: Codes) -> Mask:
        """Whether each outcome's claim of a model is that of the prediction's ref, or none at all."""
        found: Mask = (claims == NOBODY) | (claims == self.models[refs])
        return found


def _isin(numbers: Floats, few: NDArray[np.float64]) -> Mask:
    if len(few) > 8:
        return np.isin(numbers, few)
    found = np.zeros(len(numbers), dtype=np.bool_)
    for one in few.tolist():
        found |= numbers == one
    return found


def misfit(value: Value, model: ModelState) -> Problem | None:
    """Why ``value`` cannot be a prediction or an outcome of ``model``."""
    if not is_classification(model.task):
        if isinstance(value, bool | str):
            return "wrong_task", f"{value!r} is not a number, and {model.model} is a regression"
        return None
    if model.classes is not None and value not in model.classes:
        return "unknown_class", f"{value!r} is none of the classes of {model.model}: {model.classes}"
    if isinstance(value, float) and not value.is_integer():
        return "wrong_task", f"{value!r} is a fraction, and {model.model} predicts classes"
    return None


def contradiction(value: Value, claim: str | None, model: ModelState) -> Problem | None:
    """Why an outcome of ``value`` that is for model ``claim`` cannot be that of a prediction of ``model``."""
    if claim is not None and claim != model.model:
        return "shared_id", f"the outcome is for model {claim!r}, the prediction of this id is of {model.model!r}"
    return misfit(value, model)
