"""A user's own estimator, really installed: every gate holds for it, and a bad one stops the run with its reason."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from structlog.testing import capture_logs

from retrain.child import perform, perform_in_child
from retrain.consumer import tell_missing_estimators
from retrain.reproduction import reproduce, rows_from_log
from retrain.run import challenge
from retrain.training import Refused, TrainedTask
from tests.unit.retrain.loop import SETTINGS, Loop, new_loop
from tests.unit.retrain.rows import concept, dataset, features
from tests.unit.retrain.test_process import job
from tests.unit.retrain.test_run import PROBLEMS, rows_of

ROOT = Path(__file__).parents[3]
MODULE = Path(__file__).with_name("own_estimators.py")
NAMES = {
    "boosted": "boosted",
    "xgb": "xgb",
    "parallel": "parallel",
    "scaled": "scaled_trees",
    "prior": "Prior",
    "raises_making": "RaisesInTheMaking",
    "raises": "Raises",
    "exits": "Exits",
    "hangs": "Hangs",
    "one_column": "OneColumn",
    "no_probabilities": "NoProbabilities",
    "not_a_number": "NotANumber",
    "fits_nothing": "FitsNothing",
    "converted": "Converted",
    "converted_wrongly": "ConvertedWrongly",
    "other_input": "OtherInput",
    "zipmapped": "ZipMapped",
    "no_graph": "NoGraph",
    "fails_to_convert": "FailsToConvert",
    "not_there": "NotThere",
}


def readme(language: str, having: str) -> str:
    """The one block of the README that has something in it."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    (found,) = [block for block in blocks if having in block]
    return str(found)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two installed packages: the README's example as it stands there, and good and bad ones of ours."""
    folder = tmp_path_factory.mktemp("packages")
    example, ours, target = folder / "example", folder / "ours", folder / "installed"
    example.mkdir()
    (example / "pyproject.toml").write_text(readme("toml", "fraud-scorecard"))
    (example / "scorecard.py").write_text(readme("python", "class Scorecard"))
    ours.mkdir()
    (ours / "their_estimators.py").write_text(MODULE.read_text())
    entries = [f'{name} = "their_estimators:{what}"' for name, what in NAMES.items()]
    entries.append('unimportable = "module_that_is_not_there:Thing"')
    (ours / "pyproject.toml").write_text(
        '[project]\nname = "their-estimators"\nversion = "2.5"\ndependencies = ["scikit-learn", "nothing-such"]\n'
        '[project.entry-points."driftline.estimators"]\n' + "\n".join(entries) + "\n"
        '[tool.setuptools]\npy-modules = ["their_estimators"]\n'
    )
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"),
            *("--no-deps", "--no-build-isolation", "--target", str(target), str(example), str(ours)),
        ],
        check=True,
        capture_output=True,
        env={**os.environ, "PIP_CONFIG_FILE": os.devnull},
    )
    return target


@pytest.fixture(autouse=True)
def importable(installed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if they were in this environment."""
    monkeypatch.syspath_prepend(str(installed))
    yield
    for name in ("their_estimators", "scorecard"):
        sys.modules.pop(name, None)


def of_scorecard(task: TrainedTask = "binary", estimator: str = "scorecard") -> Any:
    """A first version."""
    settings = SETTINGS.model_copy(update={"estimator": estimator})
    return challenge(rows_of(task, changed=False, seed=0), PROBLEMS[task], version=1, settings=settings)


@pytest.mark.parametrize("estimator", ["scorecard", "converted", "boosted", "xgb"])
def test_an_estimator_wins_its_contest_and_passes_parity(tmp_path: Path, estimator: str) -> None:
    """By its own conversion or by the converters', in the process that trains; the README's example is one of them."""
    found = perform_in_child(job(new_loop(tmp_path), estimator=estimator), lambda _: None, lambda: None)
    made = found.challenger
    assert made is not None, (found.verdict, found.refused)
    assert made.parity.passed
    assert made.accepts_missing == (estimator == "xgb")
    graph = onnx.load_model_from_string(made.onnx)
    assert {entry.key: entry.value for entry in graph.metadata_props}["model"] == "loans"
    assert len(made.outputs) == 2


@pytest.mark.parametrize("task", PROBLEMS)
def test_parity_is_checked_where_the_trees_within_split(task: TrainedTask) -> None:
    """Every task: numbers, two classes, three."""
    made = of_scorecard(task, "boosted")
    assert made.parity.passed
    assert made.parity.threshold_rows > 0
    assert len(made.outputs) == (1 if task == "regression" else 2)


def promoted(tmp_path: Path) -> Loop:
    """A loop whose version 2 is the README's."""
    loop = new_loop(tmp_path)
    loop.live(changed=True)
    own = {"loans": SETTINGS.model_copy(update={"estimator": "scorecard"})}
    run = loop.finish(loop.alerted(), own_settings=own)
    assert run.state == "promoted", run.reason
    return loop


def test_a_model_that_names_it_is_retrained_by_it(tmp_path: Path) -> None:
    """The manifest and the card name estimator, package and version; its requirements are there too."""
    loop = promoted(tmp_path)
    manifest = loop.repository.manifest("loans", 2)
    assert manifest.parameters["estimator"] == "scorecard"
    assert manifest.libraries["fraud-scorecard"] == "1.0"
    assert "scikit-learn" in manifest.libraries
    assert "The estimator scorecard of fraud-scorecard 1.0, seed 0." in loop.repository.card("loans", 2)
    loop.serve(SETTINGS.probation_rows, wrong_labels=True)  # the changed concept
    (run,) = loop.retrainer().on_probation()
    assert loop.watch(run).state == "confirmed"


def test_its_versions_are_made_again(tmp_path: Path) -> None:
    """The same bytes; another version of its package is named."""
    loop = promoted(tmp_path)
    manifest = loop.repository.manifest("loans", 2)
    again = reproduce(manifest, rows_from_log(manifest, loop.log))
    assert again.same
    assert again.differences == []
    manifest.libraries["fraud-scorecard"] = "0.9"
    (difference,) = reproduce(manifest, rows_from_log(manifest, loop.log)).differences
    assert (difference.name, difference.first, difference.second) == ("fraud-scorecard", "0.9", "1.0")


REASONS = {
    "nobody": r"no installed package has an entry point nobody in the group driftline\.estimators \(boosted, ",
    "not_there": "failed, importing their_estimators:NotThere: AttributeError",
    "unimportable": "failed, importing module_that_is_not_there:Thing: ModuleNotFoundError",
    "raises_making": "failed, making it: ValueError: no licence",
    "raises": "failed, fit: MemoryError: too many rows",
    "exits": "failed, fit: SystemExit: 3",
    "fits_nothing": "the estimator fits_nothing has no fit",
    "one_column": r"answered \(60, 1\) for 60 rows, not \(60, 2\)",
    "no_probabilities": "answered probabilities that do not add up to 1",
    "not_a_number": "answered something that is no number",
    "parallel": "num_parallel_tree 2 converts wrongly and silently",
    "scaled": "a pipeline before RandomForestClassifier converts wrongly and silently",
    "converted_wrongly": "the exported model is not the trained one: .* labels differ",
    "other_input": r"the ONNX of the estimator other_input takes X: tensor\(float\), not one features",
    "zipmapped": r"the ONNX of the estimator zipmapped answers tensor\(int64\), seq",
    "no_graph": "made str in to_onnx, not an onnx.ModelProto or bytes",
    "fails_to_convert": "failed, to_onnx: RuntimeError: unsupported operator",
}


@pytest.mark.parametrize(("estimator", "reason"), REASONS.items())
def test_a_bad_one_is_refused_with_what_went_wrong(tmp_path: Path, estimator: str, reason: str) -> None:
    """Missing, broken, of wrong shapes, or not convertible exactly: in the words of what is at fault."""
    with pytest.raises(Refused, match=reason):
        perform(job(new_loop(tmp_path), estimator=estimator), lambda _: None)


def test_one_that_nobody_converts_is_refused(tmp_path: Path) -> None:
    """No conversion of its own, and not of a kind that the converters know."""
    settings = SETTINGS.model_copy(update={"estimator": "prior"})
    rows = features(600)
    with pytest.raises(Refused, match="the estimator prior has no to_onnx, and the converters do not know it"):
        challenge(dataset(rows, concept(rows, changed=False)), PROBLEMS["binary"], version=1, settings=settings)


def test_one_that_hangs_is_ended_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """It runs in a process of its own, which may take so long and no longer."""
    stuck = job(new_loop(tmp_path), estimator="hangs", training_s=3.0)
    with pytest.raises(Refused, match=r"training was not over after 3 s \(retrain\.training_s\), and was ended"):
        perform_in_child(stuck, lambda _: None, lambda: None)


def test_a_bad_one_leaves_the_champion_where_it_is(tmp_path: Path) -> None:
    """The run ends rejected, and everybody is told why."""
    loop = new_loop(tmp_path)
    loop.live(changed=True)
    own = {"loans": SETTINGS.model_copy(update={"estimator": "raises"})}
    ended = loop.finish(loop.alerted(), own_settings=own)
    assert ended.state == "rejected"
    assert "the estimator raises failed, fit: MemoryError: too many rows" in (ended.reason or "")
    assert loop.announcer.events[-1].reason == ended.reason
    assert loop.state.aliases == {"champion": "1"}
    assert loop.repository.versions("loans") == [1]


def test_a_missing_one_is_told_when_the_process_starts(tmp_path: Path) -> None:
    """Not only by the run that fails for it, perhaps at night; nothing of it is imported for that."""
    loop = new_loop(tmp_path)
    with capture_logs() as told:
        for estimator in ("nobody", "unimportable", ""):
            own = {"loans": SETTINGS.model_copy(update={"estimator": estimator})}
            tell_missing_estimators(loop.retrainer(own_settings=own), loop.repository)
    assert [(line["model"], line["reason"].split(" (")[0]) for line in told] == [
        ("loans", "no installed package has an entry point nobody in the group driftline.estimators")
    ]
    assert "their_estimators" not in sys.modules


def test_missing_values_need_an_estimator_that_says_it_takes_them() -> None:
    """NaN would be silently a number to one that does not know it."""
    rows = features(600)
    rows[5, 1] = np.nan
    made = dataset(rows, concept(rows, changed=False))
    for estimator, accepted in (("boosted", False), ("xgb", True)):
        settings = SETTINGS.model_copy(update={"estimator": estimator})
        if accepted:
            assert challenge(made, PROBLEMS["binary"], version=1, settings=settings).accepts_missing
        else:
            with pytest.raises(Refused, match="does not say that it accepts missing values, and the rows have some"):
                challenge(made, PROBLEMS["binary"], version=1, settings=settings)
