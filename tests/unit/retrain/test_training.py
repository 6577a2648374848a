"""Training, export and the parity gate."""

from typing import Any

import numpy as np
import onnx
import onnxmltools
import onnxruntime
import pytest
import xgboost
from onnxmltools.convert.common.data_types import FloatTensorType
from sklearn.ensemble import RandomForestClassifier

from retrain.export import convert, export
from retrain.parity import check, probe_rows
from retrain.training import Algorithm, Recipe, Refused, Trained, TrainedTask, train
from tests.unit.retrain.rows import features

TASKS: list[tuple[TrainedTask, int]] = [("binary", 2), ("multiclass", 3), ("regression", 0)]


def target_of(task: TrainedTask, rows: Any) -> Any:
    """A learnable target."""
    filled = np.nan_to_num(rows, nan=0.3)
    if task == "regression":
        return (filled[:, 0] * 1_000 + filled[:, 1] * 100).astype(np.float64)
    if task == "multiclass":
        return np.floor(filled[:, 0] * 3).astype(np.int64)
    return (filled[:, 0] > filled[:, 1]).astype(np.int64)


def trained(task: TrainedTask, classes: int, algorithm: Algorithm, nan: bool = False) -> tuple[Trained, Any]:
    """A small model and its rows."""
    rows = features(600)
    if nan:
        rows[np.random.default_rng(1).random(rows.shape) < 0.05] = np.nan
    return train(task, classes, rows, target_of(task, rows), Recipe(algorithm, 20, 4, 0)), rows


@pytest.mark.parametrize(("task", "classes"), TASKS)
@pytest.mark.parametrize("algorithm", ["xgboost", "random_forest"])
def test_an_export_answers_as_the_trained_model(task: TrainedTask, classes: int, algorithm: Algorithm) -> None:
    """Every allowed kind of model passes the gate, with the parts that the gate promises."""
    model, rows = trained(task, classes, algorithm, nan=algorithm == "xgboost")
    content = export(model, model="loans", version=3, data_sha256="ab")
    report = check(model, content, rows, minimum_rows=2_000, seed=0)
    assert report.passed, report
    assert report.rows >= 2_000
    assert report.real_rows == 600
    assert report.threshold_rows > 0
    assert (report.nan_rows > 0) == (algorithm == "xgboost")
    assert report.single_rows == 200


def test_metadata_name_the_model_its_version_and_its_data() -> None:
    """An ONNX file alone says what it is."""
    model, _ = trained("binary", 2, "xgboost")
    graph = onnx.load_model_from_string(export(model, model="loans", version=3, data_sha256="ab"))
    assert {p.key: p.value for p in graph.metadata_props} == {"model": "loans", "version": "3", "data_sha256": "ab"}
    assert all(opset.version <= 15 for opset in graph.opset_import)


@pytest.fixture
def parallel_trees() -> tuple[xgboost.XGBClassifier, Any]:
    """Two trees a round: the converter of the scikit-learn wrapper drops half of them and says nothing."""
    rows = features(600)
    model = xgboost.XGBClassifier(n_estimators=10, num_parallel_tree=2, subsample=0.5, max_depth=4)
    return model.fit(rows, target_of("binary", rows)), rows


def test_parallel_trees_are_refused_before_they_convert_wrongly(parallel_trees: tuple[Any, Any]) -> None:
    """The allow-list says which setting is at fault."""
    model = Trained("binary", "xgboost", 3, 2, parallel_trees[0].get_booster())
    with pytest.raises(Refused, match="num_parallel_tree 2"):
        export(model, model="loans", version=1, data_sha256="")


def test_the_gate_catches_a_wrong_conversion(parallel_trees: tuple[Any, Any]) -> None:
    """A conversion that is silently wrong does not pass, whatever the allow-list knows."""
    wrapper, rows = parallel_trees
    wrong = onnxmltools.convert_xgboost(wrapper, initial_types=[("features", FloatTensorType([None, 3]))])
    model = Trained("binary", "xgboost", 3, 2, wrapper.get_booster())
    report = check(model, wrong.SerializeToString(), rows, minimum_rows=1_000, seed=0)
    assert not report.passed
    assert report.rows_above > 0
    assert "rows differ" in report.describe()


def test_one_wrong_leaf_is_enough_to_fail() -> None:
    """The gate counts rows, it never averages: a leaf that few rows reach fails the whole model."""
    model, rows = trained("binary", 2, "xgboost")
    graph = convert(model)
    weights = next(a for n in graph.graph.node for a in n.attribute if a.name == "class_weights")
    weights.floats[0] += 0.01
    report = check(model, graph.SerializeToString(), rows, minimum_rows=1_000, seed=0)
    assert 0 < report.rows_above < report.rows
    assert not report.passed


def test_an_export_with_another_shape_fails() -> None:
    """Answers of another shape are no parity, however close their numbers."""
    model, rows = trained("multiclass", 3, "xgboost")
    other, _ = trained("binary", 2, "xgboost")
    report = check(model, export(other, model="m", version=1, data_sha256=""), rows, minimum_rows=500, seed=0)
    assert not report.shapes_right
    assert not report.passed


def test_bytes_that_are_no_model_are_refused() -> None:
    """What ONNX Runtime does not load is no challenger."""
    model, rows = trained("binary", 2, "xgboost")
    with pytest.raises(Refused, match="does not load"):
        check(model, b"nonsense", rows, minimum_rows=500, seed=0)


def test_probe_rows_straddle_every_threshold() -> None:
    """Each split value is asked for exactly, and one float32 step to either side."""
    model, rows = trained("binary", 2, "xgboost")
    probes = probe_rows(model, rows, minimum_rows=100, seed=0).at_thresholds
    thresholds = model.thresholds()
    assert len(probes) == 3 * sum(len(values) for values in thresholds)
    for feature, values in enumerate(thresholds):
        for value in values:
            for near in (np.nextafter(value, np.float32(-np.inf)), value, np.nextafter(value, np.float32(np.inf))):
                assert (probes[:, feature] == near).any()


def test_probe_rows_leave_every_feature_s_range() -> None:
    """A category that nobody has seen, a number beyond all others: below and above, for each feature."""
    model, rows = trained("binary", 2, "xgboost", nan=True)
    unseen = probe_rows(model, rows, minimum_rows=100, seed=0).unseen
    for feature in range(3):
        assert (unseen[:, feature] < np.nanmin(rows[:, feature])).any()
        assert (unseen[:, feature] > np.nanmax(rows[:, feature])).any()


@pytest.mark.parametrize("algorithm", ["xgboost", "random_forest"])
def test_thresholds_are_those_of_the_converted_trees(algorithm: Algorithm) -> None:
    """Thresholds read from the library equal those in the ONNX graph."""
    model, _ = trained("binary", 2, algorithm)
    graph = onnx.load_model_from_string(export(model, model="m", version=1, data_sha256=""))
    tree = next(n for n in graph.graph.node if n.op_type == "TreeEnsembleClassifier")
    values = {a.name: a for a in tree.attribute}
    modes = [mode.decode() for mode in values["nodes_modes"].strings]
    in_graph = {
        (feature, np.float32(value))
        for feature, value, mode in zip(
            values["nodes_featureids"].ints, values["nodes_values"].floats, modes, strict=True
        )
        if mode != "LEAF"
    }
    ours = {(feature, value) for feature, found in enumerate(model.thresholds()) for value in found}
    assert {(f, round(float(v), 5)) for f, v in ours} == {(f, round(float(v), 5)) for f, v in in_graph}


def test_a_forest_refuses_missing_values() -> None:
    """A forest trained with NaN converts wrongly and silently."""
    rows = features(100)
    rows[0, 0] = np.nan
    with pytest.raises(Refused, match="missing values"):
        train("binary", 2, rows, target_of("binary", rows), Recipe("random_forest", 5, 3, 0))


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_a_tree_of_a_forest_draws_as_many_rows_as_its_leaves_can_tell_apart(task: TrainedTask) -> None:
    """64 for each leaf, however many there are; all of them where there are fewer."""

    def drawn(rows: int, depth: int) -> int:
        table = features(rows)
        forest = train(task, 2, table, target_of(task, table), Recipe("random_forest", 3, depth, 0)).native
        return int(max(tree.tree_.weighted_n_node_samples[0] for tree in forest.estimators_))

    assert (drawn(2_000, 3), drawn(2_000, 4), drawn(2_000, 8)) == (512, 1_024, 2_000)


def test_a_forest_needs_every_class() -> None:
    """A forest without rows of a class answers with fewer columns than the model has classes."""
    rows = features(100)
    with pytest.raises(Refused, match="every class"):
        train("multiclass", 4, rows, target_of("multiclass", rows), Recipe("random_forest", 5, 3, 0))


def test_boosting_takes_a_class_without_rows() -> None:
    """A rare class may be missing since the change; the model still has its column."""
    rows = features(300)
    model = train("multiclass", 4, rows, target_of("multiclass", rows), Recipe("xgboost", 5, 3, 0))
    assert model.predict(rows).shape == (300, 4)
    content = export(model, model="m", version=1, data_sha256="")
    assert check(model, content, rows, minimum_rows=500, seed=0).passed


@pytest.mark.parametrize(
    ("rows", "target", "reason"),
    [
        (features(10), np.zeros(10), "one class only"),
        (features(1), np.zeros(1), "too few"),
        (np.full((4, 3), np.inf, dtype=np.float32), np.asarray([0, 1, 0, 1]), "infinite"),
        (features(10).astype(np.float64), np.zeros(10), "float32"),
        (features(10), np.asarray([0, 1, 2, 0, 1, 2, 0, 1, 2, 0]), "do not fit"),
    ],
)
def test_rows_that_cannot_be_learnt_from_are_refused(rows: Any, target: Any, reason: str) -> None:
    """Each refusal says what is wrong with the rows."""
    with pytest.raises(Refused, match=reason):
        train("binary", 2, rows, target, Recipe("xgboost", 5, 3, 0))


def test_a_booster_of_another_kind_is_refused() -> None:
    """dart and gblinear do not convert."""
    rows = features(100)
    booster = xgboost.train(
        {"objective": "binary:logistic", "booster": "dart"},
        xgboost.DMatrix(rows, label=target_of("binary", rows)),
        num_boost_round=2,
    )
    with pytest.raises(Refused, match="booster dart"):
        export(Trained("binary", "xgboost", 3, 2, booster), model="m", version=1, data_sha256="")


def test_a_forest_trained_with_nan_elsewhere_is_caught_by_the_gate() -> None:
    """Had somebody trained it anyway: missing values among the real rows show the difference, or nothing does harm."""
    rows = features(600)
    rows[np.random.default_rng(1).random(rows.shape) < 0.3] = np.nan
    forest = RandomForestClassifier(20, max_depth=6, random_state=0).fit(rows, target_of("binary", rows))
    model = Trained("binary", "random_forest", 3, 2, forest)
    report = check(model, convert(model).SerializeToString(), rows, minimum_rows=1_000, seed=0)
    assert not report.passed


def test_the_exported_graph_takes_any_number_of_rows() -> None:
    """The batch is a free dimension."""
    model, rows = trained("binary", 2, "xgboost")
    session = onnxruntime.InferenceSession(export(model, model="m", version=1, data_sha256=""))
    for count in (1, 7, 600):
        assert session.run(None, {"features": rows[:count]})[1].shape == (count, 2)
