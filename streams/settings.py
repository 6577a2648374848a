"""Settings: a TOML file, then DRIFTLINE_* environment variables, then flags; the last one that speaks wins."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from detectors.burn_rate import Pair
from detectors.names import CALIBRATED, NAMES
from native.library import SWITCH
from streams.errors import WrongSetting
from streams.events import Label, Mode, Task

ENVIRONMENT_PREFIX = "DRIFTLINE_"
DEFAULT_FILE = "driftline.toml"
MOST_SEGMENTS = 20
SECRETS = ("password", "key_password")
"""Names of settings that are taken as they are written, never shown, and refused as flags."""
QUIET_HOURS = r"^$|^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$"
RESERVED_ENVIRONMENT = (
    "DRIFTLINE_CONFIG",
    "DRIFTLINE_DATA",
    "DRIFTLINE_KAFKA_LIBS",
    "DRIFTLINE_REDIS_SERVER",
    SWITCH,
)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Credentials(_Section):
    """What both servers take to trust them and to be trusted; :mod:`streams.credentials` reads it."""

    ca_file: str = Field("", description="certificates (PEM) of the authorities to trust; empty: those of the system")
    certificate_file: str = Field("", description="our own certificate (PEM), for mutual TLS")
    key_file: str = Field("", description="its key (PEM), unless it is in the same file")
    key_password: SecretStr = Field(SecretStr(""), description="opens the key, if it is encrypted; not as a flag")
    key_password_file: str = Field("", description="a file that holds it instead")
    username: str = Field("", description="the user to log in as")
    password: SecretStr = Field(SecretStr(""), description="the user's password; not as a flag, which others can see")
    password_file: str = Field("", description="a file that holds it instead")
    allow_plaintext_credentials: bool = Field(
        False, description="accept credentials without TLS: whoever can listen may read them"
    )


class _Broker(_Section):
    """Where the broker is, and how we use it."""

    bootstrap: str = Field("127.0.0.1:9092", description="host:port of one or more brokers, comma separated")
    topic_prefix: str = Field("", description="put before every topic's name")
    partitions: int = Field(
        4, ge=1, le=1024, description="partitions of predictions, outcomes and summaries when created"
    )
    replication: int = Field(1, ge=1, description="replicas of each topic when created")
    accept_create_time: bool = Field(False, description="accept topics that keep the producer's timestamp")
    linger_ms: float = Field(5.0, ge=0, description="how long a producer gathers records into a batch")
    session_timeout_s: float = Field(10.0, gt=0, le=90, description="a worker silent for so long loses its partitions")
    heartbeat_s: float = Field(3.0, gt=0, description="a third of the session timeout, or less")
    request_timeout_s: float = Field(30.0, gt=0, description="how long a request to the broker may take")


class KafkaSettings(_Credentials, _Broker):
    """The broker and the topics on it."""

    security_protocol: Literal["auto", "PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "auto", description="of the listener; auto: SASL_SSL with a username, SSL with a certificate, else PLAINTEXT"
    )
    sasl_mechanism: Literal["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"] = Field(
        "SCRAM-SHA-512", description="how the user proves to know the password"
    )


class _Store(_Section):
    """Where the store is, and how we use it."""

    url: str = Field("redis://127.0.0.1:6379/0", repr=False, description="redis://, rediss:// (TLS) or unix://")
    prefix: str = Field("driftline", min_length=1, description="put before every key: one per deployment")
    allow_volatile: bool = Field(False, description="accept a store without append-only file or that may evict")


class RedisSettings(_Credentials, _Store):
    """The store of the join's and the monitor's state."""


class WorkerSettings(_Section):
    """The stream worker."""

    group: str = Field("driftline", min_length=1, description="consumer group: one per deployment")
    checkpoint_s: float = Field(1.0, gt=0, le=60, description="a checkpoint at least so often")
    checkpoint_events: int = Field(50_000, ge=1, description="a checkpoint after so many events at the latest")
    http: str = Field("127.0.0.1:9464", description="host:port of /metrics; port 0 picks one")
    horizon_s: float = Field(7 * 86_400, gt=0, description="how long an outcome may take (the label horizon)")
    dedupe_s: float = Field(3_600, ge=0, description="how long a joined id is remembered")
    dedupe_rows: int = Field(100_000, ge=0, description="joined ids remembered per partition, at most")
    max_pending: int = Field(1_000_000, ge=1, description="rows that wait per partition; above it the oldest expire")
    max_undeclared_models: int = Field(1_000, ge=0, description="names nobody declared that are still monitored")
    skew_s: float = Field(60.0, gt=0, description="how far one input may be read ahead of another, in stream time")
    garbage_share: float = Field(0.5, gt=0, le=1, description="stop when so much of an input cannot be decoded")
    garbage_records: int = Field(1_000, ge=1, description="the share is taken over at least so many records")
    allow_garbage: bool = Field(False, description="dead-letter everything that cannot be decoded and never stop")
    watchdog_s: float = Field(120.0, gt=0, description="exit when there is lag and nothing moves for so long")


class MonitorSettings(_Section):
    """Windows, detectors and the alert policy."""

    false_alarms_per_week: float = Field(
        0.25, gt=0, description="false alarms accepted of a model in a week, from all detectors that page together"
    )
    detectors: list[str] = Field(
        ["e_detector"],
        description="detectors that page, and share false_alarms_per_week: e_detector, adwin, page_hinkley",
    )
    evidence: list[str] = Field(
        ["adwin", "page_hinkley"], description="others that run beside them: what they find is shown in the alert"
    )
    rates: list[Literal["recall", "specificity", "precision", "npv"]] = Field(
        ["recall", "specificity", "precision", "npv"],
        description="rates of binary models that page too, on half of false_alarms_per_week; none: []",
    )
    segments: list[str] = Field(
        [],
        max_length=MOST_SEGMENTS,
        description="segments of the events whose errors page too, each on its own, on a quarter of "
        "false_alarms_per_week",
    )
    minimum_accuracy: float = Field(
        0.90, ge=0, le=1, description="accuracy below it pages; what is left to 1 is the error budget"
    )
    baseline_drop: float = Field(0.05, gt=0, le=1, description="points of accuracy (or share of MAE) lost that page")
    baseline_outcomes: int = Field(5_000, ge=30, description="outcomes that an unregistered version learns from")
    baseline_hours: float = Field(
        0,
        ge=0,
        le=168,
        description="hours of the stream that detectors learn from at least; 24 where labels come nightly",
    )
    by_hour: Literal["", "day", "week"] = Field(
        "",
        description="learn how errors swing by the hour of the day or week (UTC), and do not take that for a drift",
    )
    burn_rates: list[tuple[int, int, float]] = Field(
        [(1, 5, 2.4), (3, 15, 1.6)],
        description="windows in minutes (short, long) and how many times too fast both burn the budget to page at once",
    )
    window_minutes: int = Field(60, ge=1, description="window in which the budget must not burn faster than allowed")
    minimum_outcomes: int = Field(500, ge=1, description="outcomes in the window before an accuracy rule speaks")
    for_minutes: int = Field(5, ge=0, description="how long an accuracy rule must hold before it fires")
    clean_minutes: int = Field(15, ge=1, le=43_200, description="minutes without cause before an alert resolves")
    repeat_minutes: int = Field(240, ge=0, description="a firing alert is sent again so often; 0: never")
    cooldown_minutes: int = Field(30, ge=0, description="a rule broken again so soon goes on with the resolved episode")
    flap_episodes: int = Field(4, ge=0, description="an alert that fires so often within flap_minutes flaps; 0: never")
    flap_minutes: int = Field(240, ge=1, description="the while in which firings are counted")
    outcomes_missing_minutes: int = Field(1_440, ge=1, description="predictions but no outcome for so long: alert")
    outcomes_slow_share: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="alert when the labelled share falls below so much of its worst usual hour; 0: never",
    )

    outcomes_one_sided: float = Field(
        0.10,
        gt=0,
        le=1,
        description="withhold the verdict, and alert, when of a predicted class so much less is labelled than of the "
        "others (a share of theirs); 1: never",
    )

    @field_validator("detectors")
    @classmethod
    def _have_a_run_length(cls, names: list[str]) -> list[str]:
        for name in _distinct(names):
            if name not in CALIBRATED:
                raise ValueError(f"nobody knows how often {name} alarms falsely: name it in monitor.evidence instead")
        return names

    @field_validator("rates")
    @classmethod
    def _are_distinct(cls, names: list[str]) -> list[str]:
        if len(set(names)) < len(names):
            raise ValueError("a rate is named twice")
        return names

    @field_validator("segments")
    @classmethod
    def _are_segments(cls, names: list[str]) -> list[str]:
        return _named_once(names)

    @field_validator("evidence")
    @classmethod
    def _exist(cls, names: list[str]) -> list[str]:
        return _distinct(names)

    @field_validator("burn_rates")
    @classmethod
    def _are_pairs(cls, asked: list[tuple[int, int, float]]) -> list[tuple[int, int, float]]:
        for short, long, rate in asked:
            Pair(short, long, rate)  # raises
        return asked

    @field_validator("flap_episodes")
    @classmethod
    def _once_is_not_flapping(cls, episodes: int) -> int:
        if episodes == 1:
            raise ValueError("one firing is not flapping: give 0 for never, or 2 or more")
        return episodes


def _named_once(segments: list[str]) -> list[str]:
    """Names of segments, each once; raises ValueError."""
    if "" in segments:
        raise ValueError("a segment has no name: outcomes without one are watched with all others")
    if len(set(segments)) < len(segments):
        raise ValueError("a segment is named twice")
    return segments


def _distinct(names: list[str]) -> list[str]:
    """Names of detectors, each once; raises ValueError."""
    for place, name in enumerate(names):
        if name not in NAMES:
            raise ValueError(f"no detector is called {name!r}: choose of {', '.join(NAMES)}")
        if name in names[:place]:
            raise ValueError(f"{name} is named twice")
    return names


def _have_an_end(hours: str | None) -> str | None:
    """Quiet hours that end at another time than they begin, or none; raises ValueError."""
    start, _, end = (hours or "").partition("-")
    if hours and start == end:
        raise ValueError(
            f"{hours} begins where it ends, which may be no time or all day. Leave it empty for no quiet hours; to keep"
            " a model as it is all day set its mode to observe, or to recommend"
        )
    return hours


def _require_room(retrain: RetrainSettings) -> None:
    """Raise ValueError for rows that are needed and never kept."""
    if retrain.minimum_rows > retrain.maximum_rows:
        raise ValueError(
            f"minimum_rows {retrain.minimum_rows} is more than maximum_rows {retrain.maximum_rows}: so many rows are"
            " never there at once, and nothing would be trained. Lower minimum_rows or raise maximum_rows"
        )


class ServeSettings(_Section):
    """The inference server."""

    http: str = Field("127.0.0.1:8080", description="host:port of the inference server; port 0 picks one")
    max_request_bytes: int = Field(16_000_000, ge=1_000)
    max_in_flight: int = Field(
        100_000, ge=1, description="predictions waiting for Kafka before requests are refused (503)"
    )
    publish_features: bool = Field(True, description="put features into predictions: retraining needs them")
    threads: int = Field(1, ge=1, description="ONNX Runtime threads a model")


class RetrainSettings(_Section):
    """The retrain loop."""

    http: str = Field("127.0.0.1:9465", description="host:port of /metrics; port 0 picks one")
    group: str = Field("driftline-retrain", min_length=1, description="consumer group of the alerts")
    algorithms: list[Literal["xgboost", "random_forest"]] = Field(
        ["xgboost", "random_forest"],
        min_length=1,
        description="what versions are: of each run's rows one of each is trained, and the better one may win",
    )
    estimator: str = Field(
        "", description="instead of the algorithms: your own, a name in the entry point group driftline.estimators"
    )
    training_s: float = Field(1_800, gt=0, description="a run whose training takes longer is ended")
    trees: int = Field(60, ge=1, le=5_000, description="trees of a challenger")
    depth: int = Field(5, ge=1, le=20, description="their greatest depth")
    alerts: list[str] = Field(
        ["ConceptDriftDetected", "ModelAccuracyDropped"], description="alertnames that start a run"
    )
    severities: list[Literal["info", "warning", "critical"]] = Field(
        ["warning", "critical"], description="severities that start a run"
    )
    segment_alerts: bool = Field(True, description="alerts about a segment of monitor.segments start a run too")
    labels: int = Field(100, ge=0, description="a run after so many new labels, sooner after one of few rows; 0: never")
    labels_share: float = Field(
        0.02, ge=0, le=1, description="and after this share of the rows that the last run had, if that is more"
    )
    schedule_s: float = Field(0.0, ge=0, description="a run so long after the last one ended; 0: never")
    cooldown_s: float = Field(60.0, ge=0, description="no run by labels or schedule so soon after another run")
    quiet_hours: str = Field(
        "",
        pattern=QUIET_HOURS,
        description="HH:MM-HH:MM in UTC: runs that nobody asked for wait until it is over",
    )
    minimum_rows: int = Field(200, ge=50, description="labelled rows since the change point before training")
    maximum_rows: int = Field(20_000, ge=100, description="newest labelled rows used")
    test_share: float = Field(0.3, gt=0, lt=1, description="newest share of the rows held out for the comparison")
    significance: float = Field(
        0.05,
        gt=0,
        lt=0.5,
        description="of a run's tests that one is better; a quarter of it after each further rollback in a row",
    )
    minimum_gain: float = Field(0.0, ge=0, lt=1, description="accuracy (or share of the MAE) that it must gain")
    label_errors: float = Field(
        0.2,
        gt=0,
        le=1,
        description="share of labels that look wrong, beyond the champion's own rows', that stops a run; 1: none does",
    )
    dropped: float = Field(
        0.2, gt=0, le=1, description="share of the new rows that cannot be used, above which a run stops; 1: never"
    )
    outcomes_one_sided: float = Field(
        0.5,
        gt=0,
        le=1,
        description="a run stops when of a predicted class so much less is labelled than of the others (a share of "
        "theirs); 1: never",
    )
    outcome_scale: float = Field(
        10.0,
        gt=1,
        description="a regression's run stops when outcomes are so many times larger, or smaller, than predictions",
    )
    recent_rows: list[int] = Field(
        [200, 500, 1_000, 2_000, 4_000],
        description="challengers are trained on so many newest rows, one each, if that is minimum_rows or more",
    )
    archive_rows: int = Field(60, ge=20, description="labelled rows on which archived versions are looked at")
    archive_versions: int = Field(20, ge=0, description="newest archived versions that may come back; 0: none")
    maximum_model_mb: float = Field(100.0, gt=0, description="size of a challenger's model file, at most")
    maximum_latency_ms: float = Field(20.0, gt=0, description="what a challenger may take for one row, in the median")
    groups: list[str] = Field(
        [],
        description="features whose values are groups that no version may treat worse; it waits for 50 rows of each",
    )
    group_loss: float = Field(0.05, ge=0, description="accuracy (or share of the MAE) that a group may lose")
    group_difference: float = Field(
        1.0, ge=0, le=1, description="between groups, of selection rates and of true positive rates, at most"
    )
    segment_loss: float = Field(
        0.05,
        ge=0,
        description="accuracy (or share of the MAE) that a segment of the events may lose, where it surely does",
    )
    parity_rows: int = Field(10_000, ge=100, description="rows on which ONNX must agree with the original")
    wait_s: float = Field(3_600, gt=0, description="how long to wait for enough labelled rows")
    shadow: bool = Field(
        False, description="a challenger that won answers beside the champion first, and must do better on live rows"
    )
    shadow_rows: int = Field(2_000, ge=1, description="labelled rows within which a live shadow must be found better")
    shadow_s: float = Field(604_800, gt=0, description="how long a live shadow lasts, at most")
    shadow_significance: float = Field(
        0.05, gt=0, lt=0.5, description="chance that a shadow that is no better is found better"
    )
    approval_s: float = Field(604_800, gt=0, description="how long a challenger waits for a person, at most")
    max_promotions_per_week: int = Field(50, ge=0, description="automatic promotions of one model, at most")
    seed: int = Field(0, description="of training and of perturbed rows")
    probation_rows: int = Field(2_000, ge=1, description="labelled rows on which a promoted version must do no worse")
    probation_s: float = Field(604_800, gt=0, description="how long a promoted version is watched, at most")
    probation_significance: float = Field(0.05, gt=0, lt=0.5, description="chance that a good version is rolled back")
    rollback_cooldown_s: float = Field(21_600, ge=0, description="no automatic promotion so soon after a rollback")

    @field_validator("quiet_hours")
    @classmethod
    def _end(cls, hours: str) -> str:
        _have_an_end(hours)
        return hours

    @model_validator(mode="after")
    def _fit(self) -> Self:
        _require_room(self)
        return self


class ModelRetrainSettings(_Section):
    """What a model has otherwise than ``[retrain]`` says; the same names."""

    alerts: list[str] | None = None
    severities: list[Literal["info", "warning", "critical"]] | None = None
    segment_alerts: bool | None = None
    labels: int | None = Field(None, ge=0)
    labels_share: float | None = Field(None, ge=0, le=1)
    schedule_s: float | None = Field(None, ge=0)
    cooldown_s: float | None = Field(None, ge=0)
    quiet_hours: str | None = Field(None, pattern=QUIET_HOURS)
    algorithms: list[Literal["xgboost", "random_forest"]] | None = Field(None, min_length=1)
    estimator: str | None = None
    training_s: float | None = Field(None, gt=0)
    minimum_rows: int | None = Field(None, ge=50)
    maximum_rows: int | None = Field(None, ge=100)
    significance: float | None = Field(None, gt=0, lt=0.5)
    minimum_gain: float | None = Field(None, ge=0, lt=1)
    label_errors: float | None = Field(None, gt=0, le=1)
    approval_s: float | None = Field(None, gt=0)
    dropped: float | None = Field(None, gt=0, le=1)
    outcomes_one_sided: float | None = Field(None, gt=0, le=1)
    outcome_scale: float | None = Field(None, gt=1)
    max_promotions_per_week: int | None = Field(None, ge=0)
    groups: list[str] | None = None
    group_loss: float | None = Field(None, ge=0)
    segment_loss: float | None = Field(None, ge=0)
    group_difference: float | None = Field(None, ge=0, le=1)
    shadow: bool | None = None
    shadow_rows: int | None = Field(None, ge=1)
    shadow_s: float | None = Field(None, gt=0)
    shadow_significance: float | None = Field(None, gt=0, lt=0.5)
    probation_rows: int | None = Field(None, ge=1)
    probation_s: float | None = Field(None, gt=0)
    probation_significance: float | None = Field(None, gt=0, lt=0.5)
    rollback_cooldown_s: float | None = Field(None, ge=0)

    @field_validator("quiet_hours")
    @classmethod
    def _end(cls, hours: str | None) -> str | None:
        return _have_an_end(hours)


class ModelSettings(_Section):
    """What the configuration declares of one model."""

    task: Task | None = None
    classes: list[Label] | None = None
    positive: Label | None = None
    minimum_accuracy: float | None = Field(None, ge=0, le=1)
    false_alarms_per_week: float | None = Field(None, gt=0)
    outcomes_one_sided: float | None = Field(None, gt=0, le=1)
    segments: list[str] | None = Field(None, max_length=MOST_SEGMENTS)
    by_hour: Literal["", "day", "week"] | None = None
    cost_per_error: float | None = Field(None, ge=0)
    critical_cost_per_day: float | None = Field(None, gt=0)
    mode: Mode | None = None
    retrain: ModelRetrainSettings = ModelRetrainSettings()

    @field_validator("segments")
    @classmethod
    def _are_segments(cls, names: list[str] | None) -> list[str] | None:
        return None if names is None else _named_once(names)


def _with_own(common: RetrainSettings, own: ModelRetrainSettings) -> RetrainSettings:
    return common.model_copy(update=own.model_dump(exclude_none=True))


class Settings(BaseSettings):
    """All settings of a deployment."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True)

    kafka: KafkaSettings = KafkaSettings()
    redis: RedisSettings = RedisSettings()
    worker: WorkerSettings = WorkerSettings()
    monitor: MonitorSettings = MonitorSettings()
    serve: ServeSettings = ServeSettings()
    retrain: RetrainSettings = RetrainSettings()
    repository: str = Field("models", description="the model repository: a folder or an fsspec URL")
    models: dict[str, ModelSettings] = {}

    @field_validator("models")
    @classmethod
    def _fit(cls, models: dict[str, ModelSettings], info: ValidationInfo) -> dict[str, ModelSettings]:
        common = info.data.get("retrain")
        if common is None:
            return models  # it was refused itself
        for model, declared in models.items():
            try:
                _require_room(_with_own(common, declared.retrain))
            except ValueError as error:
                raise ValueError(f"of {model}, {error}") from None
        return models

    def retrain_of(self, model: str) -> RetrainSettings:
        """The loop's settings of one model: those of ``[models.NAME.retrain]`` before those of ``[retrain]``."""
        declared = self.models.get(model)
        return self.retrain if declared is None else _with_own(self.retrain, declared.retrain)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what :func:`load` merged: it knows where each value came from."""
        return (init_settings,)


def load(
    file: Path | None = None, environ: Mapping[str, str] | None = None, flags: Mapping[str, str] | None = None
) -> tuple[Settings, dict[str, str]]:
    """The settings, and where each value that is not a default came from (dotted name → source).

    ``flags`` are dotted names, ``kafka.bootstrap`` → value. Raises :class:`WrongSetting` for an unknown name or a value
    out of range, naming the source.
    """
    environ = os.environ if environ is None else environ
    merged: dict[str, Any] = {}
    origin: dict[str, str] = {}
    named = file or (Path(environ["DRIFTLINE_CONFIG"]) if environ.get("DRIFTLINE_CONFIG") else None)
    if named is not None and not named.is_file():
        raise WrongSetting(f"the configuration file {named} does not exist", "check --config or DRIFTLINE_CONFIG")
    path = named or Path(DEFAULT_FILE)
    if path.is_file():
        _merge(merged, origin, _read_toml(path), str(path))
    _merge(merged, origin, _environment(environ), "environment")
    for name, value in (flags or {}).items():
        *sections, leaf = name.split(".")
        nested: dict[str, Any] = {leaf: _parse(value)}
        for section in reversed(sections):
            nested = {section: nested}
        _merge(merged, origin, nested, "flag")
    try:
        return Settings(**merged), origin
    except ValidationError as error:
        raise _explain(error, origin) from None


def nested(flags: Mapping[str, str]) -> dict[str, Any]:
    """Dotted names → values, as sections within sections."""
    found: dict[str, Any] = {}
    for name, value in flags.items():
        *sections, leaf = name.split(".")
        inner: dict[str, Any] = {leaf: _parse(value)}
        for section in reversed(sections):
            inner = {section: inner}
        _merge(found, {}, inner, "")
    return found


def overlaid(settings: Settings, values: Mapping[str, Any], source: str) -> Settings:
    """``settings`` with ``values`` (sections within sections) laid over them.

    Raises :class:`WrongSetting` for an unknown name or a value out of range, naming ``source``.
    """
    merged, origin = settings.model_dump(), dict[str, str]()
    _merge(merged, origin, values, source)
    try:
        return Settings(**merged)
    except ValidationError as error:
        raise _explain(error, origin) from None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise WrongSetting(f"{path} is not TOML: {error}", "see `driftline config show` for the names") from None
    except OSError as error:
        raise WrongSetting(f"{path} cannot be read: {error.strerror}", "let the user of this process read it") from None


def _environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """DRIFTLINE_KAFKA__BOOTSTRAP → {"kafka": {"bootstrap": …}}."""
    nested: dict[str, Any] = {}
    for name, value in sorted(environ.items()):  # a section's own name comes before the names in it
        if not name.startswith(ENVIRONMENT_PREFIX) or name in RESERVED_ENVIRONMENT:
            continue
        *sections, leaf = name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
        at = nested
        for depth, section in enumerate(sections, 1):
            at = at.setdefault(section, {})
            if not isinstance(at, dict):
                raise WrongSetting(
                    f"{'.'.join(sections[:depth])} (from environment) is a section, and has a value",
                    f"unset {ENVIRONMENT_PREFIX}{'__'.join(sections[:depth]).upper()}",
                )
        at[leaf] = value if leaf in SECRETS else _parse(value)
    return nested


def _parse(text: str) -> Any:
    """Lists and tables are written as TOML; anything else is left to the field's own type."""
    if text[:1] in "[{":
        try:
            return tomllib.loads(f"x = {text}")["x"]
        except tomllib.TOMLDecodeError:
            return text
    return text


def _merge(into: dict[str, Any], origin: dict[str, str], values: Mapping[str, Any], source: str, at: str = "") -> None:
    for key, value in values.items():
        name = f"{at}{key}"
        if isinstance(value, Mapping):
            section = into.setdefault(key, {})
            if isinstance(section, dict):
                _merge(section, origin, value, source, f"{name}.")
                continue
        into[key] = value
        origin[name] = source


def _source(name: str, origin: Mapping[str, str]) -> str:
    """Where ``name`` came from: its own value, one inside it (a section), or the one it is part of (a list)."""
    inside = (source for known, source in origin.items() if known.startswith(f"{name}."))
    around = (source for known, source in origin.items() if name.startswith(f"{known}."))
    return origin.get(name) or next(inside, None) or next(around, "the configuration")


def _explain(error: ValidationError, origin: Mapping[str, str]) -> WrongSetting:
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    source = _source(name, origin)
    if first["type"] == "extra_forbidden":
        return WrongSetting(f"{name} (from {source}) is not a setting", "`driftline config show` lists them all")
    return WrongSetting(f"{name} (from {source}): {first['msg']}", "`driftline config show` lists the defaults")
