"""Commands of the package `retrain`: train, retrain, and models."""

from __future__ import annotations

import getpass
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import msgspec
import typer
from rich.table import Column as RichColumn
from rich.table import Table as RichTable

from retrain.training import BuiltIn, Refused, TrainedTask
from streams.cli import session, stderr, stdout
from streams.configuration import masked
from streams.errors import MissingInput, WrongSetting
from streams.events import Mode, rfc3339

if TYPE_CHECKING:
    from retrain.administration import Administration
    from retrain.lifecycle import Run
    from serving.manifest import Manifest
    from serving.repository import Repository
    from streams.events import ModelState

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
NoPublish = Annotated[
    bool,
    typer.Option(
        "--no-publish", help="Change the repository only: the next or a running `driftline retrain` tells Kafka."
    ),
]
AllModels = Annotated[bool, typer.Option("--all", help="Every model, also those that come later.")]
Why = Annotated[str | None, typer.Option("--reason", help="Kept in the audit trail and published.", show_default=False)]
Version = Annotated[int, typer.Argument(show_default=False)]
ModelName = Annotated[str, typer.Argument(metavar="MODEL", show_default=False)]


def mount(app: typer.Typer) -> None:
    """Add this package's commands to the command line."""
    app.command()(train)
    loop = typer.Typer(help="Act on alerts, labels and schedules, or start one run.", invoke_without_command=True)
    loop.callback()(retrain)
    loop.command("run")(start_run)
    app.add_typer(loop, name="retrain")
    models = typer.Typer(help="The model repository: versions, aliases, modes, freezes.", no_args_is_help=True)
    models.command("list")(list_models)
    models.command("show")(show)
    models.command("freeze")(freeze)
    models.command("unfreeze")(unfreeze)
    models.command("mode")(mode)
    models.command("approve")(approve)
    models.command("reject")(reject)
    models.command("promote")(promote)
    models.command("rollback")(rollback)
    models.command("diff")(diff)
    models.command("history")(history)
    models.command("reproduce")(reproduce)
    app.add_typer(models, name="models")


def retrain(
    ctx: typer.Context,
    ready_file: Annotated[Path | None, typer.Option(help="Gets the URL of /metrics once alerts are read.")] = None,
) -> None:
    """Act on alerts, new labels and schedules: train challengers on the newest outcomes, prove the best, promote it."""
    if ctx.invoked_subcommand is not None:
        return
    from retrain.consumer import retrain as run

    run(session(ctx).settings, ready_file)


def start_run(
    ctx: typer.Context,
    model: ModelName,
    reason: Annotated[str | None, typer.Option("--reason", help="Kept with the run.", show_default=False)] = None,
    json: Json = False,
) -> None:
    """Ask for a run now. A `driftline retrain` that shares the repository takes it on, within seconds."""
    from retrain.consumer import now_ms
    from retrain.runs import RunStore
    from retrain.triggers import run_by
    from serving.repository import Repository

    settings = session(ctx).settings
    state, runs = Repository(settings.repository).state(model), RunStore(settings.repository)
    if state is None:
        raise _unknown(model)
    under_way = next((run for run in runs.of(model) if run.at_work), None)
    if under_way is not None and (under_way.state != "triggered" or under_way.kind == "command"):
        raise WrongSetting(
            f"a run of {model} is under way ({under_way.episode}: {under_way.state})",
            f"`driftline models show {model}` tells how it goes on",
        )
    found = run_by("command", state, runs.of(model), now_ms())
    if isinstance(found, str):
        raise WrongSetting(f"{model} is not retrained: {found}", "`driftline models list` shows what there is")
    found = msgspec.structs.replace(found, by=_who(), why=reason)
    if not runs.create(found):
        raise WrongSetting(f"another run of {model} was started at the same time", "that one is yours too")
    if json:
        _print_json(found)
        return
    first = "" if under_way is None else f", behind the run {under_way.episode}, which need not wait any longer"
    stderr().print(
        f"run {found.episode} of {model} is recorded{first}; `driftline models show {model}` tells what comes of it"
    )


def train(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="Labelled table: .csv, .csv.gz or .parquet.", show_default=False)],
    model: Annotated[str, typer.Option(help="The model's name.", show_default=False)],
    rows: Annotated[int | None, typer.Option(min=4, help="Only the first so many rows.")] = None,
    label: Annotated[str | None, typer.Option(help="Column of the label; the last one unless said.")] = None,
    task: Annotated[TrainedTask | None, typer.Option(help="Guessed from the label unless said.")] = None,
    positive: Annotated[str | None, typer.Option(help="Positive class of a binary model.")] = None,
    algorithm: Annotated[BuiltIn | None, typer.Option(help="Instead of the setting's.")] = None,
    estimator: Annotated[str | None, typer.Option(help="Your own, by entry point, instead.")] = None,
    mode: Annotated[Mode | None, typer.Option(help="What the loop may do to the model.")] = None,
    no_publish: NoPublish = False,
    json: Json = False,
) -> None:
    """Train a version from a labelled table and register it; the first one becomes the champion."""
    from retrain.tables import file_sha256, read, table

    settings = session(ctx).settings.retrain_of(model)
    if algorithm is not None:
        settings = settings.model_copy(update={"algorithms": [algorithm], "estimator": ""})
    if estimator is not None:
        settings = settings.model_copy(update={"estimator": estimator})
    console = stderr()
    declared = session(ctx).settings.models.get(model)
    with console.status(f"reading {file}") as status, _administration(ctx, publish=not no_publish) as administration:
        if mode is None and declared is not None and administration.repository.state(model) is None:
            mode = declared.mode
        found = table(read(file, rows), model, label=label, task=task, positive=positive)
        manifest, state = administration.register(
            found,
            settings,
            mode=mode,
            trained_from={
                "file": file.name,
                "file_sha256": file_sha256(file),
                "label": found.label,
                "task": found.problem.task,
                "order": "as in the file",
            },
            stage=lambda stage: status.update(f"{stage} ({len(found.rows)} rows)"),
        )
    measured = manifest.baseline
    if json:
        _print_json({"version": manifest.version, "state": state, "metrics": manifest.metrics})
        return
    role = "champion" if state.aliases.get("champion") == str(manifest.version) else "registered"
    score = f"{measured.metric} {measured.value:.4f} ± {measured.standard_error:.4f}" if measured else ""
    console.print(
        f"{model} version {manifest.version} ({role}): {score} on {measured.n if measured else 0} held-out rows"
    )


def list_models(ctx: typer.Context, json: Json = False) -> None:
    """Models with their versions, aliases and modes."""
    from serving.repository import Repository

    repository = Repository(session(ctx).settings.repository)
    states = [(model, repository.state(model), repository.versions(model)) for model in repository.models()]
    frozen = repository.all_frozen()
    if json:
        listed = [{"model": m, "versions": versions, "state": state} for m, state, versions in states]
        _print_json({"all_frozen": frozen, "models": listed})
        return
    if frozen:
        stderr().print("the promotions of all models are stopped: `driftline models unfreeze --all` allows them again")
    if not states:
        where = masked(session(ctx).settings.repository)
        stderr().print(f"no models yet in {where}: `driftline train FILE --model NAME` makes one")
        return
    grid = RichTable("model", "task", "champion", "challenger", "previous", "versions", "mode", "frozen")
    for model, state, versions in states:
        aliases = state.aliases if state else {}
        grid.add_row(
            model,
            state.task if state else "?",
            *(aliases.get(alias, "–") for alias in ("champion", "challenger", "previous")),
            str(len(versions)),
            state.mode if state else "observe",
            "yes" if frozen or (state and state.frozen) else "no",
        )
    stdout().print(grid)


def show(
    ctx: typer.Context,
    model: ModelName,
    version: Annotated[int | None, typer.Argument(show_default=False)] = None,
    json: Json = False,
) -> None:
    """One model: its state, its versions and its retrain runs. With VERSION: its card, and who made it serve."""
    from retrain.runs import RunStore
    from serving.repository import Repository

    settings = session(ctx).settings
    repository = Repository(settings.repository)
    state = repository.state(model)
    if state is None:
        raise _unknown(model)
    if version is not None:
        _show_version(repository, model, version, json)
        return
    versions = [repository.manifest(model, version) for version in repository.versions(model)]
    runs = RunStore(settings.repository).of(model)
    if json:
        plain = [
            {"version": v.version, "created_at": v.created_at, "metrics": v.metrics, "trigger": v.trigger}
            for v in versions
        ]
        _print_json({"state": state, "all_frozen": repository.all_frozen(), "versions": plain, "runs": runs})
        return
    console = stdout()
    classes = f" of {', '.join(map(str, state.classes))}" if state.classes else ""
    frozen = ", frozen" if state.frozen or repository.all_frozen() else ""
    console.print(f"{model}: {state.task}{classes}, mode {state.mode}{frozen}, revision {state.revision}")
    names: dict[str, str] = {}
    for alias, of in state.aliases.items():  # a shadow is the challenger too
        names[of] = f"{names[of]}, {alias}" if of in names else alias
    grid = RichTable("version", "alias", RichColumn("made", no_wrap=True), "metric", "± s.e.", "why")
    for v in versions:
        b = v.baseline
        grid.add_row(
            str(v.version),
            names.get(str(v.version), "taken back" if str(v.version) in state.barred else "–"),
            _seconds(v.created_at),
            f"{b.metric} {b.value:.4f}" if b else "–",
            f"{b.standard_error:.4f}" if b else "–",
            v.trigger.get("alertname") or v.trigger.get("kind", "by hand"),
        )
    console.print(grid)
    for run in runs:
        since = (
            f"since {_seconds(run.starts_at)}" if run.kind == "alert" else f"at {_seconds(rfc3339(run.triggered_ms))}"
        )
        console.print(f"run {run.episode}: {run.cause} {since} → {run.state} {_stands(run)}", soft_wrap=True)


def _show_version(repository: Repository, model: str, version: int, json: bool) -> None:
    from retrain.approvals import approvals

    manifest = _manifest(repository, model, version)
    found = approvals(repository.history(model), str(version))
    if json:
        _print_json({"manifest": manifest, "approvals": found})
        return
    console = stdout()
    console.print(repository.card(model, version), markup=False, highlight=False)
    console.print("## Who made it serve")
    if not found:
        console.print("nobody: it has never been the champion")
    now = repository.manifest_hash(model, version)
    for each in found:
        of = "" if each.manifest_sha256 in (None, now) else f" (of another manifest, {each.manifest_sha256})"
        console.print(
            f"{each.at or 'at an unknown time'} {each.by}: {each.what}{of}. {each.reason or 'No reason was given.'}",
            markup=False,
            highlight=False,
        )


def _stands(run: Run) -> str:
    """Why a run ended or waits, what it proposes, or how its live shadow or its probation stands."""
    if run.state in ("awaiting_approval", "recommended"):
        return f"{run.verdict}: `driftline models approve {run.model} {run.version}`"
    if run.state == "shadowing":
        found = run.shadow_evidence.get("better")
        return f"version {run.version} beside version {run.champion}: " + (
            f"mean errors {found['reference_error']:.4f} and {found['watched_error']:.4f} on {found['rows']} live rows"
            if found
            else "no row with both answers has its label yet"
        )
    if not run.on_probation:
        said = [each for each in (run.reason, run.verdict) if each]
        return "; ".join(said if run.better else said[:1])
    return ", ".join(
        f"version {version} would have been wrong by {found['reference_error']:.4f} on average, it was by"
        f" {found['watched_error']:.4f}, on {found['rows']} rows"
        for version, found in run.probation.items()
    )


def diff(ctx: typer.Context, model: ModelName, first: Version, second: Version, json: Json = False) -> None:
    """What differs between two versions: data, parameters, libraries, metrics, parity."""
    from retrain.difference import differences
    from serving.repository import Repository

    repository = Repository(session(ctx).settings.repository)
    found = differences(_manifest(repository, model, first), _manifest(repository, model, second))
    if json:
        _print_json(found)
        return
    if not found:
        stdout().print(f"versions {first} and {second} of {model} do not differ")
        return
    grid = RichTable("what", f"version {first}", f"version {second}")
    for line in found:
        grid.add_row(line.name, *("–" if value is None else str(value) for value in (line.first, line.second)))
    stdout().print(grid)


def history(ctx: typer.Context, model: ModelName, json: Json = False) -> None:
    """The audit trail: every change of the model with who, when and why, and the runs of the loop.

    Of runs that nobody asked for and that came to nothing only the newest are kept.
    """
    from retrain.audit_trail import trail
    from retrain.runs import RunStore
    from serving.repository import Repository

    settings = session(ctx).settings
    revisions = Repository(settings.repository).history(model)
    if not revisions:
        raise _unknown(model)
    entries = trail(revisions, RunStore(settings.repository).of(model))
    if json:
        _print_json(entries)
        return
    for entry in entries:
        of = "" if entry.version is None else f" version {entry.version}"
        serves = "" if entry.champion is None else f" (version {entry.champion} serves)"
        why = "" if entry.reason is None else f": {entry.reason}"
        line = f"{_seconds(entry.at) or 'at an unknown time'}  {entry.by}  {entry.what}{of}{serves}{why}"
        stdout().print(line, markup=False, soft_wrap=True)


def reproduce(
    ctx: typer.Context,
    model: ModelName,
    version: Version,
    file: Annotated[Path | None, typer.Option(help="The table that it was trained on.", show_default=False)] = None,
    label: Annotated[str | None, typer.Option(help="Column of the label; that of the manifest unless said.")] = None,
    json: Json = False,
) -> None:
    """Train a version again: the same bytes, or what differs. Exit code 1 if the bytes are others."""
    from retrain import reproduction
    from retrain.log import KafkaLog
    from retrain.tables import file_sha256, read, table
    from serving.repository import Repository

    settings = session(ctx).settings
    manifest = _manifest(Repository(settings.repository), model, version)
    with stderr().status(f"training version {version} of {model} again"):
        try:
            if file is None:
                rows, hashed = reproduction.rows_from_log(manifest, KafkaLog(settings)), None
            else:
                frame, hashed = read(file, manifest.trained_from.get("rows")), file_sha256(file)
                label = label or manifest.trained_from.get("label")
                positive = None if manifest.positive is None else str(manifest.positive)
                task = cast(TrainedTask, manifest.task)
                rows = table(frame, model, label=label, task=task, positive=positive).rows
            found = reproduction.reproduce(manifest, rows, hashed)
        except Refused as error:
            raise MissingInput(f"version {version} of {model} cannot be trained again: {error}") from None
    if json:
        _print_json(found)
    else:
        console = stdout()
        console.print(f"version {version} of {model}: {'the same bytes' if found.same else 'other bytes'}")
        for line in found.differences:
            console.print(f"  {line.name}: {line.first} then, {line.second} now")
    if not found.same:
        raise typer.Exit(1)


def freeze(
    ctx: typer.Context,
    model: Annotated[str | None, typer.Argument(show_default=False)] = None,
    every: AllModels = False,
    reason: Why = None,
    no_publish: NoPublish = False,
) -> None:
    """Stop the promotions of a model, or of all. A rollback is none."""
    _freeze(ctx, model, every, True, reason, publish=not no_publish)


def unfreeze(
    ctx: typer.Context,
    model: Annotated[str | None, typer.Argument(show_default=False)] = None,
    every: AllModels = False,
    reason: Why = None,
    no_publish: NoPublish = False,
) -> None:
    """Allow the promotions of a model, or of all, again."""
    _freeze(ctx, model, every, False, reason, publish=not no_publish)


def _freeze(
    ctx: typer.Context, model: str | None, every: bool, frozen: bool, reason: str | None, *, publish: bool
) -> None:
    if (model is None) == (not every):
        raise WrongSetting("name one model, or --all", "for example `driftline models freeze --all`")
    with _administration(ctx, publish=publish) as administration:
        if model is None:
            administration.freeze_all(frozen, reason)
        else:
            administration.freeze(model, frozen, reason)
        still = [m for m in administration.frozen() if model in (None, m)]
    stderr().print(f"{model or 'all models'}: {'frozen' if frozen else 'promotions are allowed again'}")
    if still and not frozen:
        stderr().print(f"still frozen: {', '.join(still)} (a model's own freeze, or --all, is lifted as it was set)")


def mode(
    ctx: typer.Context,
    model: ModelName,
    mode: Annotated[Mode, typer.Argument(show_default=False)],
    reason: Why = None,
    no_publish: NoPublish = False,
) -> None:
    """Set what the loop may do: observe, recommend, approve or auto."""
    with _administration(ctx, publish=not no_publish) as administration:
        administration.set_mode(model, mode, reason)
    stderr().print(f"{model}: mode {mode}")


def approve(
    ctx: typer.Context,
    model: ModelName,
    version: Annotated[int | None, typer.Argument(show_default=False)] = None,
    reason: Why = None,
    force: Annotated[bool, typer.Option("--force", help="Also if it has beaten another version than serves.")] = False,
    no_publish: NoPublish = False,
) -> None:
    """Promote the challenger that waits for a person."""
    with _administration(ctx, publish=not no_publish) as administration:
        _report_champion(administration.approve(model, version, reason, force=force))


def reject(
    ctx: typer.Context,
    model: ModelName,
    version: Annotated[int | None, typer.Argument(show_default=False)] = None,
    reason: Why = None,
    no_publish: NoPublish = False,
) -> None:
    """Send the challenger away; a run that waits for an approval ends."""
    with _administration(ctx, publish=not no_publish) as administration:
        before = administration.repository.state(model)
        state = administration.reject(model, version, reason)
    rejected = before.aliases.get("challenger") if before is not None else None
    stderr().print(f"{model}: version {rejected or '–'} is rejected, version {state.aliases['champion']} serves")


def promote(
    ctx: typer.Context, model: ModelName, version: Version, reason: Why = None, no_publish: NoPublish = False
) -> None:
    """Make any version the champion."""
    with _administration(ctx, publish=not no_publish) as administration:
        _report_champion(administration.promote(model, version, reason))


def rollback(
    ctx: typer.Context,
    model: ModelName,
    to: Annotated[int | None, typer.Option(help="This version, not the previous one.", show_default=False)] = None,
    reason: Why = None,
    no_publish: NoPublish = False,
) -> None:
    """Make the previous version the champion again; a freeze does not stop it."""
    with _administration(ctx, publish=not no_publish) as administration:
        _report_champion(administration.rollback(model, to, reason))


def _seconds(at: str) -> str:
    """A time in RFC 3339 without its fraction, which nobody reads."""
    return re.sub(r"\.\d+", "", at)


def _unknown(model: str) -> MissingInput:
    return MissingInput(f"there is no model {model}", "`driftline models list` shows what there is")


def _manifest(repository: Repository, model: str, version: int) -> Manifest:
    """Raises :class:`MissingInput` for a model or a version that does not exist."""
    if version not in repository.versions(model):
        if model not in repository.models():
            raise _unknown(model)
        raise MissingInput(f"{model} has no version {version}", f"see `driftline models show {model}`")
    return repository.manifest(model, version)


def _report_champion(state: ModelState) -> None:
    aliases = state.aliases
    stderr().print(f"{state.model}: version {aliases['champion']} serves, previous {aliases.get('previous', 'none')}")


@contextmanager
def _administration(ctx: typer.Context, *, publish: bool) -> Iterator[Administration]:
    from retrain.administration import Administration
    from retrain.announce import KafkaAnnouncer
    from retrain.runs import RunStore
    from serving.repository import Repository

    settings = session(ctx).settings
    announcer = KafkaAnnouncer(settings) if publish else None
    try:
        if announcer is not None:
            announcer.check()
        repository, say = Repository(settings.repository), stderr().print
        runs = RunStore(settings.repository)
        yield Administration(repository, announcer, lambda: time.time_ns() // 1_000_000, _who(), say, runs)
    finally:
        if announcer is not None:
            announcer.close()


def _who() -> str:
    return f"{getpass.getuser()}@{socket.gethostname()}"


def _print_json(value: Any) -> None:
    typer.echo(msgspec.json.encode(value).decode())
