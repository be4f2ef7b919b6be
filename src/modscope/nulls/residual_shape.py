"""How are the logs of a layer's weights spread around the scales of their units?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

N_QUANTILES = 300  # of the residuals, that the shape is fitted to
N_LOOKED_AT = 100_000  # residuals that these quantiles are taken of
NARROW = 1e-6  # standard deviation of log residuals below which there are none
PRIOR = 1e-3  # weight of the start in the fit: it decides where the residuals leave a parameter open
BOUND = 3.0  # of log parameters, in units of the residuals' spread


@dataclass(frozen=True)
class ResidualShape:
    """Density of a log residual: a logarithm that rises with slope `left`, bends around `centre`, falls with `right`.

    f(e) is proportional to exp(left u) / (1 + exp(bend u))^((left + right) / bend), u = e - centre. Sizes with normal,
    exponential, log-normal and Student t weights are members or limits of this family.

    Source: Prentice 1975 (the generalised F distribution, of the logarithm).
    """

    left: float
    right: float
    bend: float
    centre: float

    def score(self, residuals: Float[np.ndarray, " entries"]) -> Float[np.ndarray, " entries"]:
        """-(log f)': how far, and which way, a log residual pulls the scale of its unit. Between -left and right."""
        score: np.ndarray = (self.left + self.right) * self._share(residuals) - self.left
        return score

    def slope(self, residuals: Float[np.ndarray, " entries"]) -> Float[np.ndarray, " entries"]:
        """Derivative of the score, > 0."""
        share = self._share(residuals)
        slope: np.ndarray = (self.left + self.right) * self.bend * share * (1 - share)
        return slope

    @property
    def information(self) -> float:
        """Mean of the slope: one entry tells the log scale of its unit with a variance of 1 / information."""
        return self.left * self.right * self.bend / (self.left + self.right + self.bend)

    def _share(self, residuals: Float[np.ndarray, " entries"]) -> Float[np.ndarray, " entries"]:
        from scipy.special import expit

        share: np.ndarray = expit(residuals.dtype.type(self.bend) * (residuals - residuals.dtype.type(self.centre)))
        return share


def fitted_shape(residuals: Float[np.ndarray, " entries"]) -> ResidualShape | None:
    """The member of the family that these log residuals most likely come from; None if they hardly differ.

    Maximum likelihood on `N_QUANTILES` of their quantiles, in units of their spread, with a weak pull to the start.

    Args:
        residuals: log r of a layer's entries; more than `N_LOOKED_AT` are thinned out evenly.

    Source: Prentice 1975 for the likelihood in these four parameters.
    """
    from scipy.optimize import minimize

    some = residuals[:: max(1, len(residuals) // N_LOOKED_AT)]
    spread = float(some.std())
    if spread < NARROW:
        return None
    points = np.quantile(some.astype(np.float64), (np.arange(N_QUANTILES) + 0.5) / N_QUANTILES)
    middle = float(points.mean())
    start = np.array([np.log(2.0), np.log(2.0), 0.0, 0.0])  # left, right, bend (logs), centre
    found = minimize(
        _loss,
        start,
        args=((points - middle) / spread, start),
        jac=True,
        method="L-BFGS-B",
        bounds=[(-BOUND, BOUND)] * 4,
        options={"maxiter": 60},
    )
    left, right, bend = np.exp(found.x[:3]) / spread
    return ResidualShape(float(left), float(right), float(bend), middle + spread * float(found.x[3]))


def _loss(
    parameters: Float[np.ndarray, "4"], points: Float[np.ndarray, " quantiles"], start: Float[np.ndarray, "4"]
) -> tuple[float, Float[np.ndarray, "4"]]:
    """Mean of -log f with a weak pull to the start, and its gradient."""
    from scipy.special import betaln, digamma, expit

    left, right, bend = np.exp(parameters[:3])
    both = left + right
    u = points - parameters[3]
    soft, share = np.logaddexp(0, bend * u), expit(bend * u)
    loss = -(left * u - both / bend * soft).mean() + betaln(left / bend, right / bend) - np.log(bend)
    at_left, at_right, at_both = digamma(np.array([left, right, both]) / bend)
    gradient = np.array(
        [
            left * (-(u - soft / bend).mean() + (at_left - at_both) / bend),
            right * ((soft / bend).mean() + (at_right - at_both) / bend),
            both * (u * share - soft / bend).mean() - (left * at_left + right * at_right - both * at_both) / bend - 1,
            left - both * share.mean(),
        ]
    )
    pull = np.where([True, True, True, False], parameters - start, 0.0)
    return float(loss + PRIOR * (pull**2).sum()), gradient + 2 * PRIOR * pull
