"""What the stream knows of each model: the model events up to an offset, folded into one state a model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from streams.events import Label, ModelEvent, ModelState, Silence, Task, Value


class Catalog:
    """The models known after the model events up to ``position`` (the next offset to apply).

    The highest revision of a model wins; among equal ones the first in the log, so that two partitions that meet an
    undeclared model at once agree.
    """

    def __init__(self) -> None:
        self.position = 0
        self.undeclared = 0
        self.silences: dict[str, Silence] = {}
        """The newest silence of each model, over or not."""
        self._models: dict[str, ModelState] = {}

    def apply(self, offset: int, event: ModelEvent | None) -> None:
        """Take in the model event at ``offset``; ``None`` is one that could not be decoded."""
        self.position = max(self.position, offset + 1)
        if event is None:
            return
        state = event.state
        if event.silence is not None:
            self.silences[state.model] = event.silence
        known = self._models.get(state.model)
        if known is not None and known.revision >= state.revision:
            return
        self._models[state.model] = state
        self.undeclared = sum(m.revision == 0 for m in self._models.values())

    def get(self, model: str) -> ModelState | None:
        """The model's state, or None for a name never seen."""
        return self._models.get(model)

    def __iter__(self) -> Iterator[ModelState]:
        return iter(self._models.values())

    def __len__(self) -> int:
        return len(self._models)


def guess_task(prediction: Value) -> Task:
    """The task of a model that nobody declared, from the JSON type of its first prediction."""
    return "regression" if isinstance(prediction, float) else "classification"


@dataclass(frozen=True, slots=True)
class Positive:
    """The positive class of a model, by its spelling. ``declared``: somebody said so; else labels other than 0 and 1
    prove it wrong.
    """

    label: Label
    declared: bool

    @property
    def text(self) -> str:
        """As windows spell it."""
        return label_text(self.label)


ASSUMED = Positive(1, declared=False)


def positive_class(state: ModelState | None) -> Positive | None:
    """What is declared as ``positive``; else 1 of the labels 0 and 1 (false and true); else none.

    A classification of which no classes are known is one of 0 and 1 until another label is seen.
    """
    if state is None:
        return ASSUMED
    if not is_classification(state.task):
        return None
    if state.positive is not None:
        return Positive(state.positive, declared=True)
    if state.task == "multiclass":
        return None
    if state.classes is None:
        return ASSUMED
    return ASSUMED if {label_text(each) for each in state.classes} == {"0", "1"} else None


def is_classification(task: Task) -> bool:
    """Whether predictions of this task are classes."""
    return task != "regression"


def label_text(label: Label | Value) -> str:
    """The one spelling of a class: ``true``, ``1`` and ``1.0`` are ``"1"``; the string ``"1"`` is ``"'1'"``."""
    if isinstance(label, str):
        return repr(label) if label.startswith(("'", '"')) or _looks_numeric(label) else label
    return str(int(label)) if float(label).is_integer() else repr(float(label))


def _looks_numeric(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
