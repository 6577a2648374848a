"""What a version's ``manifest.json`` says: how to call the model, what it was made of, and how it behaved then."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from streams.events import Baseline, Label, Task

FORMAT = 1
"""Written into every manifest; a reader refuses a newer one."""

QUANTILE_LEVELS = [0.0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0]


class Feature(msgspec.Struct, frozen=True, omit_defaults=True):
    """One column of the input tensor.

    A categorical feature arrives as its code, or as text that is its code's position in ``categories``.
    """

    name: str
    kind: Literal["numeric", "categorical"] = "numeric"
    categories: list[str] = []


class Signature(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the ONNX graph is called.

    ``input`` is its one tensor, [rows, len(features)] of ``dtype``. A classifier names its ``probabilities`` output,
    whose columns follow the manifest's ``classes``, or else only its ``label`` output; a regression names ``value``.
    ``accepts_missing`` says whether NaN means "missing" to this model: a random forest's export gets that wrong.
    """

    features: list[Feature]
    input: str = "input"
    dtype: Literal["float32"] = "float32"
    label: str | None = None
    probabilities: str | None = None
    value: str | None = None
    accepts_missing: bool = False

    @property
    def names(self) -> list[str]:
        """The features' names in the tensor's order."""
        return [feature.name for feature in self.features]


class FeatureProfile(msgspec.Struct, frozen=True, omit_defaults=True):
    """How one feature was distributed in the training rows.

    ``quantiles`` are at the profile's levels (numeric); ``categories`` are the most frequent ones with their counts.
    """

    name: str
    kind: Literal["numeric", "categorical"]
    count: int
    missing: int = 0
    mean: float | None = None
    std: float | None = None
    quantiles: list[float] = []
    categories: dict[str, int] = {}


class ReferenceProfile(msgspec.Struct, frozen=True, omit_defaults=True):
    """The distributions that drift is measured against: features, scores, and how often each class was predicted."""

    rows: int
    levels: list[float]
    features: list[FeatureProfile]
    score_quantiles: list[float] = []
    predicted: dict[str, int] = {}


class Slice(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a version did on a part of the rows that it was tested on: its share wrong, or its mean absolute error.

    ``champion_error`` is the error of the version that it was compared with. Of a group of a binary model, ``selected``
    is the share that it puts into the positive class, and ``found`` the share of the positive rows that it puts there.
    """

    rows: int
    error: float
    champion_error: float | None = None
    selected: float | None = None
    found: float | None = None


class Manifest(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Everything about one immutable version.

    ``sha256`` and ``size_bytes`` are of ``model.onnx``; ``created_at`` is RFC 3339. ``trained_from`` names the source:
    a file, with its hash and how it was read, and its rows, or ranges of offsets by topic and partition: of
    `predictions`, and of `labelled` how far it had been read. ``parameters`` (with the seed) and ``libraries``
    (with Python and Driftline) are what it takes to train the same bytes again. ``trigger`` is the alert's fingerprint
    and start. ``segments`` and ``groups`` are metrics by the events' segment and by the features in ``retrain.groups``.
    """

    format: int = FORMAT
    model: str
    version: int
    sha256: str
    size_bytes: int
    created_at: str
    task: Task
    signature: Signature
    classes: list[Label] = []
    positive: Label | None = None
    baseline: Baseline | None = None
    profile: ReferenceProfile | None = None
    trained_from: dict[str, Any] = {}
    metrics: dict[str, float] = {}
    segments: dict[str, Slice] = {}
    groups: dict[str, Slice] = {}
    parity: dict[str, Any] = {}
    parameters: dict[str, Any] = {}
    libraries: dict[str, str] = {}
    trigger: dict[str, str] = {}
    parent: int | None = None


def encode(manifest: Manifest) -> bytes:
    """The manifest as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def decode(data: bytes) -> Manifest:
    """The manifest in ``data``. Raises ``ValueError`` saying what is wrong with it."""
    manifest = msgspec.json.decode(data, type=Manifest)
    check(manifest)
    return manifest


def check(manifest: Manifest) -> None:
    """Raise ``ValueError`` for a manifest that contradicts itself."""
    signature = manifest.signature
    if manifest.format > FORMAT:
        raise ValueError(f"its format {manifest.format} is newer than this program's ({FORMAT})")
    if not signature.features or len(set(signature.names)) != len(signature.names):
        raise ValueError("its signature needs features with names that differ")
    if manifest.task == "regression":
        if signature.value is None:
            raise ValueError("its signature names no value output, which a regression needs")
        return
    if len(manifest.classes) < 2 or len(set(map(repr, manifest.classes))) != len(manifest.classes):
        raise ValueError("its classes are fewer than two, or repeat")
    if signature.probabilities is None and signature.label is None:
        raise ValueError("its signature names neither a probabilities nor a label output")
    if len({type(label) for label in manifest.classes}) > 1:
        raise ValueError("its classes are of different types")
    if manifest.task == "binary" and (len(manifest.classes) != 2 or manifest.positive not in manifest.classes):
        raise ValueError("a binary model needs two classes, one of which is the positive one")
