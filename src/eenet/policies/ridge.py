"""Ridge regression, cross-fitted, its penalty chosen by cross-validation."""

from typing import NamedTuple

import torch
from torch import Tensor

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 1e3)
"""In units of the variance of a standardized input; the last one leaves only the spared inputs."""


_SHARE = 0.3
"""Share of the fit on the spared inputs alone in every answer: where many inputs add little, they
add noise, which averaging takes back (measured in experiments/README.md)."""


class CrossFit(NamedTuple):
    """P regressions on the same D inputs."""

    out_of_fold: Tensor
    """`[N, P]`: prediction for each sample by the fit that has not seen it."""
    weight: Tensor
    """`[D, P]`, mean of the folds' fits."""
    bias: Tensor
    """`[P]`; the prediction is `scale * (inputs @ weight + bias)`."""


class CrossFitter:
    """Ridge regressions on the same inputs, on all but one fold each time; float64 inside.

    Args:
        inputs: `[N, D]`; constant ones are ignored.
        folds: `[N]` int64, the fold of each sample; every fold from 0 to the largest has some.
        spared: Number of leading inputs with a small penalty, the largest one included, which
            thus falls back on a function of those alone.
        scale: `[N]`, positive: what the mean and the variance of the targets are proportional to
            (weighted least squares with weights 1 / scale); 1 by default.
    """

    def __init__(
        self, inputs: Tensor, folds: Tensor, spared: int, scale: Tensor | None = None
    ) -> None:
        self._order = folds.argsort(stable=True)
        self._sizes = folds.bincount().tolist()
        x = inputs[self._order].double()
        root = torch.ones_like(x[:, :1]) if scale is None else scale[self._order, None].double()
        self._root = root.sqrt_()
        self._mean, spread = x.mean(0), x.std(0)
        self._unit = torch.where(spread > 1e-6, 1 / spread.clamp_min(1e-6), 0.0)
        x.sub_(self._mean).mul_(self._unit).mul_(root)
        self._parts = torch.split(torch.cat([root, x], 1), self._sizes)
        gram = torch.stack([part.T @ part for part in self._parts])
        penalty = torch.tensor(PENALTIES, dtype=x.dtype)[:, None].repeat(1, gram.shape[1])
        penalty[:, 1 : 1 + spared] = PENALTIES[1]
        penalty[:, 0] = 1e-9
        penalty *= root.square().sum()
        self._factors = torch.linalg.lu_factor(
            (gram.sum(0) - gram) + torch.diag_embed(penalty)[:, None]
        )  # [penalties, folds, 1 + D, 1 + D]

    def fit(self, targets: Tensor) -> CrossFit:
        """Fits targets `[N, P]`; float32 out.

        Each takes the largest penalty whose squared error out of fold is within one standard
        error of the least (Breiman et al. 1984, section 3.4.3), and is then averaged with the fit
        of the largest of all, which is one on the spared inputs.
        """
        y = targets[self._order].double() / self._root
        pairs = zip(self._parts, torch.split(y, self._sizes), strict=True)
        moment = torch.stack([part.T @ target for part, target in pairs])
        others = (moment.sum(0) - moment).expand(len(PENALTIES), -1, -1, -1)
        fits = torch.linalg.lu_solve(*self._factors, others)
        parts = [part @ fits[:, f] for f, part in enumerate(self._parts)]
        predicted = torch.cat(parts, 1)  # [penalties, N, P]
        chosen = _choose((predicted - y).square_())
        each = torch.arange(y.shape[1])
        mean = fits.mean(1)
        fit = torch.lerp(mean[chosen, :, each].T, mean[-1], _SHARE)
        weight = fit[1:] * self._unit[:, None]
        out_of_fold = torch.empty_like(targets, dtype=torch.float32)
        held_out = torch.lerp(predicted[chosen, :, each].T, predicted[-1], _SHARE)
        out_of_fold[self._order] = (held_out * self._root).float()
        bias = fit[0] - self._mean @ weight
        return CrossFit(out_of_fold, weight.float(), bias.float())


def _choose(errors: Tensor) -> Tensor:
    """Index `[P]` of the penalty for each target, from squared errors `[penalties, N, P]`."""
    each = torch.arange(errors.shape[2])
    excess = errors - errors[errors.mean(1).argmin(0), :, each].T
    tolerance = excess.std(1) / errors.shape[1] ** 0.5 + 1e-12
    good = excess.mean(1) <= tolerance
    largest: Tensor = (good * torch.arange(1, len(errors) + 1)[:, None]).argmax(0)
    return largest
