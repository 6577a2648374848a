"""DDM, EDDM, HDDM_A, HDDM_W and FHDDM: River's, each with the fields that are its state and what fires."""

import math
from collections.abc import Callable
from typing import Any, ClassVar

from detectors.river_binary import Field, RiverBinary, between, fill_mean, mean_fields, number
from detectors.river_drift import binary

SAMPLES = ("_total", "_s1_decr", "_s1_incr", "_s2_decr", "_s2_incr")


class Ddm(RiverBinary):
    """Gama et al., "Learning with drift detection", SBIA 2004: error rate and its deviation above their minimum.

    `drift_threshold` is in deviations.
    """

    name: ClassVar[str] = "ddm"

    def __init__(self, warm_start: int = 30, drift_threshold: float = 3.0) -> None:
        between(self.name, "drift_threshold", drift_threshold, 0.0, 1e6)
        between(self.name, "warm_start", warm_start, 0, 1e9)
        super().__init__(binary.DDM(warm_start=warm_start, drift_threshold=drift_threshold), {"warm_start": warm_start})

    def _measured(self) -> tuple[float, float]:
        river = self._river
        rate = river._p.get()
        statistic = rate + math.sqrt(rate * (1.0 - rate) / river._p.n)
        return statistic, river._p_min + river.drift_threshold * river._s_min

    def _fields(self) -> dict[str, Field]:
        river = self._river
        return {
            **mean_fields("p", river._p),
            "p_min": river._p_min,
            "s_min": river._s_min,
            "ps_min": river._ps_min,
        }

    def _filled(self, fields: dict[str, Field]) -> Any:
        river = self._fresh()
        fill_mean(river._p, fields, "p")
        if fields["p_min"] is not None:
            river._p_min, river._s_min = number(fields, "p_min"), number(fields, "s_min")
        river._ps_min = number(fields, "ps_min")
        return river


class Eddm(RiverBinary):
    """Baena-García et al., "Early drift detection method", 2006: the distance between errors shrinks.

    It counts whole errors only, so 0.5 and more is one. It alarms often on stationary errors (17 times in 10,000 at an
    error rate of .1): evidence, not a pager. The statistic is 1 − the distance's share of its maximum.
    """

    name: ClassVar[str] = "eddm"

    def __init__(self, warm_start: int = 30, beta: float = 0.9) -> None:
        between(self.name, "beta", beta, 0.0, 1.0)
        between(self.name, "warm_start", warm_start, 0, 1e9)
        super().__init__(
            binary.EDDM(warm_start=warm_start, alpha=max(0.95, beta), beta=beta), {"warm_start": warm_start}
        )

    def _given(self, error: float) -> float:
        return 1.0 if error >= 0.5 else 0.0

    def _measured(self) -> tuple[float, float]:
        river = self._river
        distance = river._error_distances.mean.get() + 2 * river._error_distances.get() ** 0.5
        return 1.0 - distance / river._p2s_prime_max, 1.0 - river.beta

    def _fields(self) -> dict[str, Field]:
        river = self._river
        return {
            **mean_fields("distance", river._error_distances.mean),
            "distance_squares": river._error_distances._S,
            "n": river._n,
            "last_error": river._last_error,
            "n_errors": river._n_errors,
            "p2s_prime_max": river._p2s_prime_max,
        }

    def _filled(self, fields: dict[str, Field]) -> Any:
        river = self._fresh()
        fill_mean(river._error_distances.mean, fields, "distance")
        river._error_distances._S = number(fields, "distance_squares")
        for name in ("n", "last_error", "n_errors", "p2s_prime_max"):
            setattr(river, f"_{name}", number(fields, name))
        return river


class HddmA(RiverBinary):
    """Frías-Blanco et al., "Online and non-parametric drift detection methods based on Hoeffding's bounds", 2015.

    `drift_confidence` is the chance of a false alarm at one error.
    """

    name: ClassVar[str] = "hddm_a"

    def __init__(self, drift_confidence: float = 0.001) -> None:
        between(self.name, "drift_confidence", drift_confidence, 0.0, 1.0)
        super().__init__(
            binary.HDDMA(  # type: ignore[no-untyped-call]  # River leaves it untyped
                drift_confidence=drift_confidence, warning_confidence=max(0.005, drift_confidence)
            ),
            {},
        )

    def _measured(self) -> tuple[float, float]:
        river = self._river
        whole, least = river._z, river._x_min
        share = (whole.n - least.n) / least.n / whole.n
        return whole.get() - least.get(), math.sqrt(share / 2 * math.log(2.0 / river.drift_confidence))

    def _fields(self) -> dict[str, Field]:
        river = self._river
        fields: dict[str, Field] = {}
        for name in ("x_min", "x_max", "z"):
            fields |= mean_fields(name, getattr(river, f"_{name}"))
        return fields

    def _filled(self, fields: dict[str, Field]) -> Any:
        river = self._fresh()
        for name in ("x_min", "x_max", "z"):
            fill_mean(getattr(river, f"_{name}"), fields, name)
        return river


class HddmW(RiverBinary):
    """The same authors' test on exponentially weighted means.

    `drift_confidence` as in HDDM_A; `lambda_val`, the weight of the newest error, shapes the statistic.
    """

    name: ClassVar[str] = "hddm_w"

    def __init__(self, drift_confidence: float = 0.001, lambda_val: float = 0.05) -> None:
        between(self.name, "drift_confidence", drift_confidence, 0.0, 1.0)
        between(self.name, "lambda_val", lambda_val, 0.0, 1.0)
        river = binary.HDDMW(  # type: ignore[no-untyped-call]  # River leaves it untyped
            drift_confidence=drift_confidence,
            warning_confidence=max(0.005, drift_confidence),
            lambda_val=lambda_val,
        )
        super().__init__(river, {"lambda_val": lambda_val})

    def _measured(self) -> tuple[float, float]:
        river = self._river
        older, newer = river._s1_incr, river._s2_incr
        return newer.ewma - older.ewma, river._mcdiarmid_bound(older.ibc + newer.ibc, river.drift_confidence)

    def _fields(self) -> dict[str, Field]:
        river = self._river
        fields: dict[str, Field] = {"incr_cutpoint": river._incr_cutpoint, "decr_cutpoint": river._decr_cutpoint}
        for name in SAMPLES:
            sample = getattr(river, name)
            fields[f"{name}.ewma"] = sample.ewma if sample.is_init else None
            fields[f"{name}.ibc"] = sample.ibc
        return fields

    def _filled(self, fields: dict[str, Field]) -> Any:
        river = self._fresh()
        river._incr_cutpoint, river._decr_cutpoint = number(fields, "incr_cutpoint"), number(fields, "decr_cutpoint")
        for name in SAMPLES:
            sample = getattr(river, name)
            if fields[f"{name}.ewma"] is not None:
                # Its state is inside Rust, but the first value given to it is its mean.
                sample.update(number(fields, f"{name}.ewma"))
            sample._ibc = number(fields, f"{name}.ibc")
        return river


class Fhddm(RiverBinary):
    """Pesaranghader and Viktor, "Fast Hoeffding drift detection method", ECML 2016: accuracy falls.

    River's documentation says that 1 is an error, but its code fires when the mean *falls*: it is given 1 − error.
    `confidence_level` is the chance of a false alarm; `sliding_window_size` shapes the statistic.
    """

    name: ClassVar[str] = "fhddm"

    def __init__(self, sliding_window_size: int = 100, confidence_level: float = 1e-6) -> None:
        between(self.name, "sliding_window_size", sliding_window_size, 1, 1e6)
        between(self.name, "confidence_level", confidence_level, 0.0, 1.0)
        super().__init__(
            binary.FHDDM(sliding_window_size=sliding_window_size, confidence_level=confidence_level),
            {"sliding_window_size": sliding_window_size},
        )

    def _given(self, error: float) -> float:
        return 1.0 - error

    def _before(self, error: float) -> Callable[[], tuple[float, float]]:
        # Once it has fired, River has already taken the oldest out of the sum.
        right = self._river.n_one + (1.0 - error)

        def measured() -> tuple[float, float]:
            river = self._river
            return river._u_max - right / river.sliding_window_size, river._epsilon

        return measured

    def _fields(self) -> dict[str, Field]:
        river = self._river
        return {"n_one": river.n_one, "u_max": river._u_max, "window": list(river._sliding_window)}

    def _filled(self, fields: dict[str, Field]) -> Any:
        river = self._fresh()
        window = fields["window"]
        if not isinstance(window, list) or len(window) > river.sliding_window_size:
            raise ValueError("the window is not one of this size")
        river.n_one, river._u_max = number(fields, "n_one"), number(fields, "u_max")
        river._sliding_window.extend(window)
        return river
