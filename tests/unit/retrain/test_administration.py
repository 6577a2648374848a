"""What a person does to models, through the repository and, as commands, through the command line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from retrain.administration import Administration
from retrain.commands import mount
from retrain.dataset import Problem
from retrain.tables import Table, table
from serving.manifest import Feature
from serving.repository import Repository
from streams.cli import Session
from streams.errors import DriftlineError, MissingInput, WrongSetting
from streams.settings import ModelSettings, Settings
from tests.unit.retrain.loop import SETTINGS, Loop, new_loop
from tests.unit.retrain.rows import PROBLEM, MemoryAnnouncer, concept, dataset, features


@pytest.fixture
def loop(tmp_path: Path) -> Loop:
    """A repository with version 1 of `loans`."""
    return new_loop(tmp_path)


def again(loop: Loop) -> None:
    """Register another version of `loans`."""
    rows = features(300, seed=5)
    made = Table(PROBLEM, dataset(rows, concept(rows, changed=True)))
    loop.administration.register(made, SETTINGS, trained_from={})


def test_the_first_version_is_the_champion_and_later_ones_are_not(loop: Loop) -> None:
    """Registering is not promoting."""
    again(loop)
    assert loop.state.aliases == {"champion": "1"}
    assert set(loop.state.baselines) == set(loop.state.profiles) == {"1", "2"}
    assert [event.alias for event in loop.announcer.events] == ["champion", None]
    assert loop.announcer.events[0].sha256 == loop.repository.manifest("loans", 1).sha256


def test_a_table_of_another_task_is_no_version_of_the_model(loop: Loop) -> None:
    """Versions of a model answer the same question."""
    rows = features(100)
    other = Problem("loans", "regression", tuple(Feature(name) for name in "abc"), ())
    with pytest.raises(WrongSetting, match="is binary with classes"):
        loop.administration.register(
            Table(other, dataset(rows, rows[:, 0].astype(np.float64))), SETTINGS, trained_from={}
        )
    assert loop.repository.versions("loans") == [1]


def test_a_promotion_by_hand_and_back(loop: Loop) -> None:
    """Any complete version can serve; `previous` names the way back."""
    again(loop)
    assert loop.administration.promote("loans", 2).aliases == {"champion": "2", "previous": "1"}
    assert loop.administration.promote("loans", 1).aliases == {"champion": "1", "previous": "2"}
    assert [event.kind for event in loop.announcer.events[-2:]] == ["promoted", "promoted"]


def test_only_what_exists_is_promoted(loop: Loop, tmp_path: Path) -> None:
    """No model, no version, no challenger, a damaged file: each says what is wrong, and nothing changes."""
    again(loop)
    (tmp_path / "loans" / "2" / "model.onnx").write_bytes(b"damaged")
    before = loop.state
    with pytest.raises(MissingInput, match="no model cards"):
        loop.administration.promote("cards", 1)
    with pytest.raises(MissingInput, match="no version 9"):
        loop.administration.promote("loans", 9)
    with pytest.raises(WrongSetting, match="no challenger"):
        loop.administration.approve("loans")
    with pytest.raises(DriftlineError, match="SHA-256"):
        loop.administration.promote("loans", 2)
    assert loop.state == before


def test_both_freezes_are_told_and_lifted_apart(loop: Loop) -> None:
    """A model's own freeze outlives that of all, and the other way round."""
    administration = loop.administration
    assert administration.frozen() == []
    administration.freeze_all(True)
    administration.freeze("loans", True)
    administration.freeze_all(False)
    assert administration.frozen() == ["loans"]
    administration.freeze_all(True)
    administration.freeze("loans", False)
    assert administration.frozen() == ["loans"]
    administration.freeze_all(False)
    assert administration.frozen() == []


def test_a_freeze_also_stops_people(loop: Loop) -> None:
    """A freeze stops all promotions until it is lifted."""
    again(loop)
    loop.administration.freeze_all(True)
    with pytest.raises(WrongSetting, match="frozen"):
        loop.administration.promote("loans", 2)
    loop.administration.freeze_all(False)
    loop.administration.freeze("loans", True)
    with pytest.raises(WrongSetting, match="frozen"):
        loop.administration.promote("loans", 2)
    loop.administration.freeze("loans", False)
    assert loop.administration.promote("loans", 2).aliases["champion"] == "2"


def test_every_change_is_told(loop: Loop) -> None:
    """Mode and freeze are events with the whole state, so that a reader needs no other source."""
    loop.administration.set_mode("loans", "recommend")
    loop.administration.freeze("loans", True)
    told = [(event.detail, event.state.mode, event.state.frozen) for event in loop.announcer.events[-2:]]
    assert told == [("mode", "recommend", False), ("freeze", "recommend", True)]


@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_other_tasks_register_too(tmp_path: Path, task: str) -> None:
    """Three classes and a number go the same way."""
    rows = pd.DataFrame(features(300), columns=["a", "b", "c"])
    rows["y"] = np.floor(rows["a"] * 3).astype(int) if task == "multiclass" else rows["a"] * 100
    repository = Repository(str(tmp_path))
    manifest, state = Administration(repository, MemoryAnnouncer(), lambda: 0).register(
        table(rows, "m"), SETTINGS, trained_from={}
    )
    assert (manifest.task, state.task) == (task, task)
    assert manifest.baseline is not None
    assert manifest.baseline.metric == ("mae" if task == "regression" else "accuracy")
    assert manifest.profile is not None
    assert manifest.profile.rows == 278
    assert bool(manifest.profile.predicted) == (task == "multiclass")


def commands(folder: Path, **settings_of: Any) -> typer.Typer:
    """The package's commands on a repository."""
    app = typer.Typer()
    mount(app)

    @app.callback()
    def settings(ctx: typer.Context) -> None:
        ctx.obj = Session.of(Settings(repository=str(folder), **settings_of), {}, arguments=())

    return app


def command(folder: Path, *arguments: str, exit_code: int = 0) -> str:
    """What a command prints; it must end with ``exit_code``."""
    done = CliRunner().invoke(commands(folder), list(arguments), catch_exceptions=False)
    assert done.exit_code == exit_code, done.output
    return done.stdout


def test_a_model_begins_with_the_mode_that_is_declared(csv: Path, tmp_path: Path) -> None:
    """A command that says another comes first, and so does what a person set since."""
    declared = {name: ModelSettings(mode="observe") for name in ("loans", "cards")}
    app = commands(tmp_path / "models", models=declared)

    def mode_of(model: str, *arguments: str) -> str:
        args = ["train", str(csv), "--model", model, "--no-publish", "--json", *arguments]
        done = CliRunner().invoke(app, args, catch_exceptions=False)
        return str(json.loads(done.stdout)["state"].get("mode", "auto"))

    assert mode_of("loans") == "observe"
    assert mode_of("cards", "--mode", "approve") == "approve"
    assert mode_of("cards") == "approve"
    assert mode_of("others") == "auto"


def test_commands_name_what_is_not_there(loop: Loop, tmp_path: Path) -> None:
    for arguments in (["diff", "loans", "1", "9"], ["reproduce", "loans", "9"], ["show", "loans", "9"]):
        with pytest.raises(DriftlineError, match="loans has no version 9"):
            command(tmp_path, "models", *arguments)
    assert "do not differ" in command(tmp_path, "models", "diff", "loans", "1", "1")
    with pytest.raises(DriftlineError, match="version 1 of loans serves already"):
        loop.administration.promote("loans", 1)
    assert len(loop.repository.history("loans")) == 1


def test_a_freeze_of_all_is_told_without_a_model(tmp_path: Path) -> None:
    Repository(str(tmp_path)).freeze_all(True)
    done = CliRunner().invoke(commands(tmp_path), ["models", "list"], catch_exceptions=False)
    assert "the promotions of all models are stopped" in done.stderr
    assert f"no models yet in {tmp_path}" in done.stderr.replace("\n", "")


def test_a_person_s_run_may_queue_behind_one_that_waits(tmp_path: Path) -> None:
    """Not behind one that is at work, and not twice."""
    loop = new_loop(tmp_path)
    run = loop.alerted()
    command(tmp_path, "retrain", "run", "loans")
    assert [each.kind for each in loop.runs.of("loans")] == ["alert", "command"]
    loop.retrainer().record(run, lambda: None).move("collecting")
    with pytest.raises(DriftlineError, match=r"under way .*collecting"):
        command(tmp_path, "retrain", "run", "loans")


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    """A labelled file."""
    rows = pd.DataFrame(features(300), columns=["a", "b", "c"])
    rows["label"] = np.where(rows["a"] > 0.5, "good", "bad")
    rows.to_csv(tmp_path / "loans.csv", index=False)
    return tmp_path / "loans.csv"


def test_the_commands_from_a_file_to_a_promotion(csv: Path, tmp_path: Path) -> None:
    """train, list, show, mode, freeze, unfreeze and promote, offline."""
    models = tmp_path / "models"
    made = json.loads(command(models, "train", str(csv), "--model", "loans", "--rows", "200", "--no-publish", "--json"))
    assert made["version"] == 1
    assert made["state"]["positive"] == "good"
    forest = ("--algorithm", "random_forest", "--mode", "approve", "--positive", "good")
    command(models, "train", str(csv), "--model", "loans", "--no-publish", *forest)
    command(models, "models", "promote", "loans", "2", "--no-publish")
    command(models, "models", "freeze", "--all", "--no-publish")
    listed = json.loads(command(models, "models", "list", "--json"))
    assert listed["all_frozen"]
    assert listed["models"][0]["state"]["aliases"] == {"champion": "2", "previous": "1"}
    command(models, "models", "unfreeze", "--all", "--no-publish")
    command(models, "models", "mode", "loans", "observe", "--no-publish")
    shown = json.loads(command(models, "models", "show", "loans", "--json"))
    assert shown["state"]["mode"] == "observe"
    assert not shown["all_frozen"]
    assert [v["version"] for v in shown["versions"]] == [1, 2]
    assert "loans" in command(models, "models", "list")
    assert "champion" in command(models, "models", "show", "loans")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["models", "show", "cards"], "no model cards"),
        (["models", "freeze", "--no-publish"], "name one model, or --all"),
        (["models", "freeze", "cards", "--all", "--no-publish"], "name one model, or --all"),
        (["models", "mode", "cards", "auto", "--no-publish"], "no model cards"),
        (["models", "diff", "cards", "1", "2"], "no model cards"),
        (["models", "reproduce", "cards", "1"], "no model cards"),
        (["retrain", "run", "cards"], "no model cards"),
        (["train", "none.csv", "--model", "m", "--no-publish"], "does not exist"),
    ],
)
def test_a_wrong_command_says_what_is_wrong(tmp_path: Path, arguments: list[str], reason: str) -> None:
    """An error of ours, which the command line prints as one line."""
    with pytest.raises(DriftlineError, match=reason):
        CliRunner().invoke(commands(tmp_path), arguments, catch_exceptions=False)
