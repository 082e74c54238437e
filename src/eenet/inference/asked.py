"""Which of a run's policies serves, and at which budget: what was asked for."""

from collections.abc import Iterable

import torch
from torch import Tensor

from eenet.metrics.asking import Asked, budget_within_ms, least_budget
from eenet.models.costs import device_name
from eenet.outputs.exit_outputs import mean_costs
from eenet.policies import Policy
from eenet.run_folder import RunFolder


def choose(
    run: RunFolder,
    policy: str | None,
    budget: float | None,
    max_loss: float | None,
    max_disagreement: float | None,
    max_ms: float | None,
    tail: float,
    delta: float,
) -> tuple[Policy, float, Asked | None]:
    """The policy, its budget in the run's unit, and how that was found if not by a budget.

    Args:
        run: A finished run.
        policy: Label of one of its policies; by default the first that serves the budget, otherwise
            the first with nested rules, which is fixed before the samples are seen.
        budget: Average cost per sample; by default 0.5.
        max_loss: Largest loss of quality against the full network, in place of a budget.
        max_disagreement: Largest share of answers that are not the full network's, in place of it.
        max_ms: Latency that all but a share `tail` of the samples keep, in place of it, one by one
            on the device that the run's `costs.json` was measured on.
        tail: That share.
        delta: Probability of breaking that promise, where the run has a calibration split.

    Raises:
        ValueError: If several are given, or nothing serves; the message says what to do.
    """
    if not 0 < delta < 1:
        raise ValueError(f"delta={delta}: a probability of breaking the promise is between 0 and 1")
    policies, fraction = run.policies(policy), run.budget_unit == "fraction"
    limits = {
        "budget": budget,
        "max_loss": max_loss,
        "max_disagreement": max_disagreement,
        "max_ms": max_ms,
    }
    given = {name: limit for name, limit in limits.items() if limit is not None}
    if len(given) > 1:
        raise ValueError(
            f"{' and '.join(f'{x}={y:g}' for x, y in given.items())}: give one of them"
        )
    if budget is not None or not given:
        budget = given.get("budget", 0.5)
        return _first_serving(policies.values(), budget, fraction), budget, None
    fitted = min(policies.values(), key=lambda policy: not policy.nested)
    promised = run.stage1.outputs_file("cal").is_file()
    outputs = run.outputs("cal" if promised else "test")
    risk = delta if promised else None
    if max_ms is not None:
        asked = budget_within_ms(fitted, outputs, _late_ms(run), max_ms, tail, risk)
    elif max_loss is not None:
        asked = least_budget(fitted, outputs, max_loss, risk)
    else:
        asked = least_budget(fitted, outputs, given["max_disagreement"], risk, "disagreement")
    full = 1.0 if fraction else float(mean_costs(fitted.calibration_costs)[-1])
    return fitted, asked.budget * full, asked


def check_device(run: RunFolder, device: torch.device) -> None:
    """Raises a ValueError if the run's latencies were not measured on this kind of device."""
    measured = (run.stage1.read_json(run.stage1.costs_file) or {}).get("device")
    here = device_name(device)
    if measured != here:
        raise ValueError(
            f"max_ms: the run's latencies are those of {measured!r}, not of {here!r}; "
            "collect them there, or use measure and within_tail (docs/budgets.md)"
        )


def _late_ms(run: RunFolder) -> Tensor:
    """99% quantiles of the milliseconds to each exit, `[E]`, as stage 1 measured them."""
    file = run.stage1.costs_file
    ms = (run.stage1.read_json(file) or {}).get("ms_p99")
    if not ms:
        raise ValueError(f"max_ms: {file} holds no latencies (ms_p99); run stage 1 again")
    return torch.tensor(ms, dtype=torch.float64)


def _first_serving(policies: Iterable[Policy], budget: float, fraction: bool) -> Policy:
    """The first policy that serves a budget.

    Args:
        policies: Fitted policies.
        budget: Average cost per sample.
        fraction: Whether it is a fraction of the full cost, or in the unit of the costs.

    Raises:
        ValueError: The last one's reason, if none does.
    """
    reason = ValueError("policies: there is none")
    for policy in policies:
        try:
            (policy.at_fraction if fraction else policy.at)(budget)
        except ValueError as error:
            reason = error
        else:
            return policy
    raise reason
