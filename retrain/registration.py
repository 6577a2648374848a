"""What the repository keeps of a new version: its manifest and its model card."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from retrain.data_checks import SUSPECTED
from retrain.dataset import Problem
from retrain.estimators import packages
from retrain.export import INPUT
from retrain.reproduction import parameters_of, versions_here
from retrain.run import Challenger
from retrain.training import Recipe
from serving.manifest import Manifest, Signature


def metrics_of(challenger: Challenger) -> dict[str, float]:
    """The numbers that manifests and model events carry."""
    measured = challenger.baseline
    metrics = {
        measured.metric: measured.value,
        f"{measured.metric}_standard_error": measured.standard_error,
        "train_rows": float(challenger.train_rows),
        "test_rows": float(challenger.test_rows),
    }
    if challenger.suspected is not None:
        metrics[SUSPECTED] = challenger.suspected
    if (comparison := challenger.comparison) is not None:
        metrics[f"champion_{measured.metric}"] = comparison.champion
        metrics["p_value"] = comparison.p_value
    return metrics


def parity_of(challenger: Challenger) -> dict[str, Any]:
    """The parity report as plain values."""
    report: dict[str, Any] = msgspec.to_builtins(challenger.parity)
    return {**report, "passed": challenger.parity.passed}


def manifest_of(
    challenger: Challenger,
    problem: Problem,
    version: int,
    *,
    created_at: str,
    trained_from: dict[str, Any],
    trigger: dict[str, str],
    parent: int | None,
) -> Manifest:
    """The manifest of a challenger."""
    end = challenger.first_row + challenger.train_rows
    regression = problem.task == "regression"
    names = challenger.outputs
    return Manifest(
        model=problem.model,
        version=version,
        sha256=hashlib.sha256(challenger.onnx).hexdigest(),
        size_bytes=len(challenger.onnx),
        created_at=created_at,
        task=problem.task,
        signature=Signature(
            features=list(problem.features),
            input=INPUT,
            label=None if regression else names[0],
            probabilities=None if regression else names[1],
            value=names[0] if regression else None,
            accepts_missing=challenger.accepts_missing,
        ),
        classes=list(problem.classes),
        positive=problem.positive if problem.task == "binary" else None,
        baseline=challenger.baseline,
        profile=challenger.profile,
        trained_from=trained_from,
        metrics=metrics_of(challenger),
        segments=dict(challenger.segments),
        groups=dict(challenger.groups),
        parity=parity_of(challenger),
        parameters=parameters_of(challenger.recipe, challenger.first_row, end, challenger.change_row),
        libraries=versions_here(challenger.recipe.estimator),
        trigger=trigger,
        parent=parent,
    )


def _source(trigger: dict[str, str]) -> str:
    if not trigger:
        return "registered by a person"
    if "alertname" in trigger:
        return f"alert {trigger['alertname']} `{trigger.get('fingerprint')}`, episode of {trigger.get('startsAt')}"
    return {"labels": "new labels", "schedule": "the schedule"}.get(trigger.get("kind", ""), "a person's command")


def _recipe(recipe: Recipe) -> str:
    if recipe.estimator:
        return f"The estimator {recipe.estimator} of {' '.join(next(iter(packages(recipe.estimator).items()), ()))}"
    return f"{recipe}, {recipe.trees} trees of depth {recipe.depth}"


def _lineage(trained_from: Mapping[str, Any]) -> str:
    """Where its rows came from, a line each; of `labelled` in words."""
    return "\n".join(
        f"- {name}: {_read_of_labelled(value) if name == 'labelled' else value}" for name, value in trained_from.items()
    )


def _read_of_labelled(read: Mapping[str, Any]) -> str:
    ranges = ", ".join(f"[{start}, {end}) of partition {p}" for p, (start, end) in read["partitions"].items())
    return (
        f"topic {read['topic']} was read at the offsets {ranges}; labels that came or were corrected since do not count"
        " when it is trained again"
    )


def _trained(challenger: Challenger) -> str:
    trained, tested = challenger.train_rows, challenger.test_rows
    return (
        f"Trained on {trained} rows ({challenger.source}). Measured on the newest {tested} in blocks:\n"
        "each block by a model that was trained in the same way on what came before it. The last of these models,\n"
        "which has not seen the newest block, is this one; it was not fitted again."
    )


def _for_whom(challenger: Challenger) -> str:
    """Its errors by segment and by group, beside the champion's; nothing if there are neither."""
    found = [("segment", name, each) for name, each in challenger.segments.items()]
    found += [("group", name, each) for name, each in challenger.groups.items()]
    if not found:
        return ""
    what = "share wrong" if challenger.baseline.metric == "accuracy" else "mean absolute error"
    lines = [
        "",
        f"| by | which | rows | {what} | the champion's | selected | positives found |",
        "|---|---|---|---|---|---|---|",
    ]
    for by, name, each in found:
        numbers = (each.error, each.champion_error, each.selected, each.found)
        shown = " | ".join("–" if number is None else f"{number:.4f}" for number in numbers)
        lines.append(f"| {by} | {name.replace('|', '/')} | {each.rows} | {shown} |")
    return "\n".join(lines) + "\n"


def card_of(manifest: Manifest, challenger: Challenger) -> str:
    """The model card: for a person who asks where this version came from and whether to trust it."""
    measured = challenger.baseline
    source = _source(manifest.trigger)
    comparison = challenger.comparison
    data = _lineage(manifest.trained_from)
    verdict = comparison.describe() if comparison else "a first version: there was no champion to compare with"
    parity = challenger.parity
    suspected = (
        "How many of its labels are probably wrong is not told of so few rows, of one class, or of numbers."
        if challenger.suspected is None
        else f"{challenger.suspected:.1%} of the labels it was trained on are probably wrong, or cannot be told."
    )
    missing = "Any feature may be null: a missing value." if challenger.accepts_missing else "No feature may be null."
    classes = ", ".join(str(label) for label in manifest.classes)
    return f"""# {manifest.model}, version {manifest.version}

{manifest.task}{f" ({classes})" if classes else ""}, {len(manifest.signature.features)} features.
Made {manifest.created_at}.

## Why it was made
{source}; its parent is {f"version {manifest.parent}" if manifest.parent else "none"}.

## How it was made
{_recipe(challenger.recipe)}, seed {challenger.recipe.seed}.
{_trained(challenger)}

{data}

Train it again, or see what differs: `driftline models reproduce {manifest.model} {manifest.version}`.
Who made it serve, when and why: `driftline models show {manifest.model} {manifest.version}`.

## How good it is
{measured.metric} {measured.value:.4f} ± {measured.standard_error:.4f} (standard error, {measured.n} rows).
Against the champion: {verdict}.
{suspected}
{_for_whom(challenger)}
## Is the exported model the trained one?
{parity.describe()}: {parity.real_rows} real, {parity.threshold_rows} at a split's threshold,
{parity.nan_rows} with missing values, {parity.unseen_rows} beyond every range, the others perturbed real ones;
{parity.single_rows} were asked for one at a time too.

## Limits
- It knows only what its rows show: values outside of their ranges (`manifest.json`, profile) are guesses.
- {missing}
- The comparison takes the rows as independent; outcomes that come in clusters make it look surer than it is.
"""
