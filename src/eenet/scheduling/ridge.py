"""Ridge regression, cross-fitted, its penalty chosen by cross-validation."""

from typing import NamedTuple

import torch
from torch import Tensor

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 1e3)
"""In units of the variance of a standardised input; the last one leaves only the spared inputs."""


class CrossFit(NamedTuple):
    """P regressions on the same D inputs."""

    out_of_fold: Tensor
    """`[N, P]`: prediction for each sample by the fit that has not seen it."""
    weight: Tensor
    """`[D, P]`, mean of the folds' fits."""
    bias: Tensor
    """`[P]`; the prediction is `scale * (inputs @ weight + bias)`."""


def cross_fit(
    inputs: Tensor, targets: Tensor, folds: Tensor, spared: int, scale: Tensor | None = None
) -> CrossFit:
    """Fits P ridge regressions on all but one fold each time; float32 out, float64 inside.

    Each target takes the largest penalty whose squared error out of fold is within one standard
    error of the least (Breiman et al. 1984, section 3.4.3). The first `spared` inputs are hardly
    penalised, so the largest penalty falls back on a function of those alone.

    Args:
        inputs: `[N, D]`; constant ones are ignored.
        targets: `[N, P]`.
        folds: `[N]` int64, the fold of each sample; every fold from 0 to the largest has some.
        spared: Number of leading inputs with a small penalty.
        scale: `[N]`, positive: what the mean and the variance of the targets are proportional to
            (weighted least squares with weights 1 / scale); 1 by default.
    """
    x, y = inputs.double(), targets.double()
    root = torch.ones_like(x[:, :1]) if scale is None else scale.double()[:, None].sqrt()
    mean, spread = x.mean(0), x.std(0)
    unit = torch.where(spread > 1e-6, 1 / spread.clamp_min(1e-6), 0.0)
    x = root * torch.cat([torch.ones_like(root), (x - mean) * unit], 1)
    y = y / root
    members = [folds == f for f in range(int(folds.max()) + 1)]
    gram = torch.stack([x[m].T @ x[m] for m in members])
    moment = torch.stack([x[m].T @ y[m] for m in members])
    penalty = torch.tensor(PENALTIES, dtype=x.dtype)[:, None].repeat(1, x.shape[1])
    penalty[:, 1 : 1 + spared] = PENALTIES[1]
    penalty[:, 0] = 1e-9
    fits = torch.linalg.solve(
        (gram.sum(0) - gram) + torch.diag_embed(penalty * root.square().sum())[:, None],
        moment.sum(0) - moment,
    )  # [penalties, folds, 1 + D, P]
    predicted = torch.empty(len(PENALTIES), *y.shape, dtype=y.dtype)
    for f, m in enumerate(members):
        predicted[:, m] = x[m] @ fits[:, f]
    chosen = _choose((predicted - y).square())
    each = torch.arange(y.shape[1])
    fit = fits.mean(1)[chosen, :, each].T
    weight = fit[1:] * unit[:, None]
    return CrossFit(
        (predicted[chosen, :, each].T * root).float(),
        weight.float(),
        (fit[0] - mean @ weight).float(),
    )


def _choose(errors: Tensor) -> Tensor:
    """Index `[P]` of the penalty for each target, from squared errors `[penalties, N, P]`."""
    each = torch.arange(errors.shape[2])
    excess = errors - errors[errors.mean(1).argmin(0), :, each].T
    tolerance = excess.std(1) / errors.shape[1] ** 0.5 + 1e-12
    good = excess.mean(1) <= tolerance
    largest: Tensor = (good * torch.arange(1, len(errors) + 1)[:, None]).argmax(0)
    return largest
