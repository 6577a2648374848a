"""What a file says about features, label and task."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from retrain.tables import as_labels, guess_task, read, table
from streams.errors import MissingInput, WrongSetting


def frame(label: list[Any], **columns: list[Any]) -> pd.DataFrame:
    """A table whose last column is `y`."""
    return pd.DataFrame({**(columns or {"x": list(range(len(label)))}), "y": label})


@pytest.mark.parametrize(
    ("label", "task", "classes"),
    [
        ([0, 1, 0, 1], "binary", (0, 1)),
        ([0.0, 1.0, 0.0], "binary", (0, 1)),
        ([1, 2, 3], "multiclass", (1, 2, 3)),
        (["no", "yes", "no"], "binary", ("no", "yes")),
        ([True, False], "binary", (False, True)),
        ([0.5, 1.0, 2.0], "regression", ()),
        (list(range(30)), "regression", ()),
    ],
)
def test_the_task_is_guessed_from_the_label(label: list[Any], task: str, classes: tuple[Any, ...]) -> None:
    """Text and few whole numbers are classes; fractions and many numbers are a regression's target."""
    found = table(frame(label), "m")
    assert found.problem.task == task
    assert found.problem.classes == classes
    assert [type(label) for label in found.problem.classes] == [type(label) for label in classes]
    assert guess_task(frame(label)["y"]) == task


def test_the_last_class_is_the_positive_one_unless_named() -> None:
    """1, true and the last text; `--positive` is compared as it is typed."""
    assert table(frame([0, 1]), "m").problem.positive == 1
    assert table(frame([True, False]), "m", positive="false").problem.positive is False
    assert table(frame(["bad", "good"]), "m", positive="bad").problem.positive_index == 0
    with pytest.raises(WrongSetting, match="the classes are 0, 1"):
        table(frame([0, 1]), "m", positive="2")


def test_text_columns_are_categories() -> None:
    """A text column becomes codes whose meaning the manifest carries; an absent text is a missing value."""
    found = table(frame([0, 1, 0], colour=["red", "blue", None], amount=[1, None, 3]), "m")
    colour, amount = found.problem.features
    assert (colour.kind, colour.categories, amount.kind) == ("categorical", ["blue", "red"], "numeric")
    np.testing.assert_array_equal(found.rows.features, np.asarray([[1, 1], [0, np.nan], [np.nan, 3]], np.float32))


def test_any_column_can_be_the_label() -> None:
    """The last one unless named."""
    found = table(pd.DataFrame({"y": [0, 1], "x": [1.5, 2.5]}), "m", label="y")
    assert [feature.name for feature in found.problem.features] == ["x"]


@pytest.mark.parametrize(
    ("made", "options", "reason"),
    [
        (frame([0, 1]), {"label": "z"}, "no column z"),
        (frame([0, None, 1]), {}, "without a label"),
        (frame([1, 1]), {}, "one class only"),
        (frame([1, 2, 3]), {"task": "binary"}, "3 classes, not two"),
        (frame([1.5, 2.5]), {"task": "binary"}, "fractions"),
        (frame([1.5, 2.5, 3.5]), {"positive": "1"}, "no positive class"),
        (frame(["a", "b"]), {"task": "regression"}, "no regression label"),
        (pd.DataFrame({"y": [0, 1]}), {}, "no feature"),
        (frame([0, 1], when=pd.to_datetime(["2026-01-01", "2026-01-02"]).tolist()), {}, "neither numbers nor text"),
        (frame([0, 1], x=[1.0, float("inf")]), {}, "infinite"),
    ],
)
def test_a_table_that_cannot_be_learnt_from_says_why(made: pd.DataFrame, options: dict[str, Any], reason: str) -> None:
    """Each mistake has a message of one line, never a traceback."""
    with pytest.raises(WrongSetting, match=reason):
        table(made, "m", **options)


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet"])
def test_the_first_rows_of_each_format(tmp_path: Path, suffix: str) -> None:
    """The three formats read alike."""
    path = tmp_path / f"t{suffix}"
    made = frame([0, 1, 0, 1])
    if suffix == ".parquet":
        made.to_parquet(path)
    else:
        made.to_csv(path, index=False)
    assert read(path, 3)["y"].tolist() == [0, 1, 0]
    assert len(read(path)) == 4


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    """Missing, of another kind, damaged, or empty: one line each."""
    with pytest.raises(MissingInput, match="does not exist"):
        read(tmp_path / "none.csv")
    for name, content, reason in (
        ("t.txt", b"x", "no table"),
        ("t.csv.gz", b"not gzip", "cannot be read"),
        ("t.parquet", b"not parquet", "cannot be read"),
        ("t.csv", b"", "cannot be read"),
        ("header.csv", b"x,y\n", "no rows"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WrongSetting, match=reason):
            read(tmp_path / name)


def test_labels_are_json_values() -> None:
    """No numpy scalar reaches a state or an event."""
    assert as_labels(pd.Series([1.0, 2.0]), "multiclass") == [1, 2]
    assert {type(v) for v in as_labels(pd.Series([1.0, 2.0]), "multiclass")} == {int}
    assert {type(v) for v in as_labels(pd.Series([1, 2]), "regression")} == {float}
