"""Which alert an alert is: its identity, and the fingerprint that Alertmanager would give it."""

from collections.abc import Mapping
from dataclasses import dataclass

FNV_OFFSET = 0xCBF29CE484222325
FNV_PRIME = 0x100000001B3
SEPARATOR = 0xFF  # no byte of UTF-8, so names and values cannot run into each other


def fingerprint(labels: Mapping[str, str]) -> str:
    """Prometheus' fingerprint of a label set in 16 hexadecimal digits: FNV-1a over the sorted names and values.

    The same as `LabelSet.Fingerprint` of github.com/prometheus/common/model. An empty value is no label, as in
    Alertmanager's API.
    """
    hashed = FNV_OFFSET
    for name in sorted(labels):
        if labels[name] == "":
            continue
        for part in (name, labels[name]):
            for byte in (*part.encode(), SEPARATOR):
                hashed = ((hashed ^ byte) * FNV_PRIME) & 0xFFFFFFFFFFFFFFFF
    return f"{hashed:016x}"


@dataclass(frozen=True, slots=True, order=True)
class Identity:
    """What makes two alerts the same. Severity, versions and measured values are not in it, or fingerprints churn."""

    alertname: str
    model: str
    segment: str = ""
    feature: str = ""

    def __post_init__(self) -> None:
        if not self.alertname or not self.model:
            raise ValueError(f"an alert needs a name and a model, got {self.alertname!r} and {self.model!r}")

    @property
    def labels(self) -> dict[str, str]:
        """The labels that identify it, without the empty ones."""
        every = {"alertname": self.alertname, "model": self.model, "segment": self.segment, "feature": self.feature}
        return {name: value for name, value in every.items() if value}

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.labels)
