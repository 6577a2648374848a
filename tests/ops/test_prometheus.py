"""What Prometheus is given: promtool accepts it, its rules are tested, and they speak of metrics that exist."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import yaml
from prometheus_client import CollectorRegistry

from retrain.metrics import RetrainMetrics
from serving.metrics import ServeMetrics
from streams.alerts import ACCURACY_DROPPED, CONCEPT_DRIFT, OUTCOMES_MISSING, OUTCOMES_SLOW, RUNBOOKS
from streams.metrics import WorkerMetrics
from tests.support.server import executable

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "ops" / "prometheus"
RULES = FOLDER / "rules.yml"


def promtool(*arguments: str) -> None:
    """Run promtool; anything that it finds is an error, lint included."""
    done = subprocess.run(
        [executable("promtool", "prometheus"), *arguments], cwd=FOLDER, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def rules() -> list[dict[str, Any]]:
    """Every rule of ours."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def anchors() -> set[str]:
    """The anchors of the runbooks' sections."""
    headings = re.findall(r"^#+ (.+)$", (ROOT / RUNBOOKS).read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def test_promtool_accepts_the_configuration() -> None:
    """Syntax and the file of the rules."""
    promtool("check", "config", "prometheus.yml")


def test_promtool_accepts_the_rules() -> None:
    """Expressions, templates, and no duplicate."""
    promtool("check", "rules", "--lint-fatal", "rules.yml")


def test_the_rules_fire_when_they_should() -> None:
    """The rules' own tests, one for each rule."""
    promtool("test", "rules", "rules_test.yml")
    tested = {
        case["alertname"]
        for test in yaml.safe_load((FOLDER / "rules_test.yml").read_text())["tests"]
        for case in test["alert_rule_test"]
        if case["exp_alerts"]
    }
    assert tested == {rule["alert"] for rule in rules()}


def test_rules_speak_of_metrics_that_exist() -> None:
    """A renamed metric would silence its rule without a word."""
    exported = CollectorRegistry()
    WorkerMetrics(exported)
    names = {
        name
        for registry in (exported, ServeMetrics().registry, RetrainMetrics().registry)
        for family in registry.collect()
        for name in (family.name, f"{family.name}_total")
    }
    used = {name for rule in rules() for name in re.findall(r"\bdriftline_\w+", rule["expr"])}
    assert used
    assert used <= names


def test_every_alert_has_a_section_in_the_runbooks() -> None:
    """Whoever is woken up finds the page: alerts of the topic, and alerts of Prometheus."""
    for name in (CONCEPT_DRIFT, ACCURACY_DROPPED, OUTCOMES_MISSING, OUTCOMES_SLOW):
        assert name.lower() in anchors()
    for rule in rules():
        assert rule["annotations"]["runbook_url"] == f"{RUNBOOKS}#{rule['alert'].lower()}"
        assert rule["alert"].lower() in anchors()
