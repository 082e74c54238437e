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
    limits: dict[str, float | None],
    tail: float,
    delta: float,
    control: float | None = None,
) -> tuple[Policy, float, Asked | None]:
    """The policy, its budget in the run's unit, and how that was found if not by a budget.

    Args:
        run: A finished run.
        policy: Label of one of its policies; by default the first that serves the budget, otherwise
            the first with nested rules, which is fixed before the samples are seen.
        budget: Average cost per sample; by default 0.5.
        limits: "max_loss", "max_disagreement" and "max_ms" in place of a budget, all but one None:
            see `AdaptivePredictor.from_run`.
        tail: Share of the samples that may exceed "max_ms".
        delta: Probability of breaking a promise, where the run has a calibration split.
        control: Step size of online control, which allows no limit.

    Raises:
        ValueError: If several are given, or nothing serves; the message says what to do.
    """
    if not 0 < delta < 1:
        raise ValueError(f"delta={delta}: a probability of breaking the promise is between 0 and 1")
    policies, fraction = run.policies(policy), run.budget_unit == "fraction"
    asked_for = {"budget": budget, **limits}
    given = {name: limit for name, limit in asked_for.items() if limit is not None}
    if len(given) > 1:
        raise ValueError(
            f"{' and '.join(f'{x}={y:g}' for x, y in given.items())}: give one of them"
        )
    if control is not None and given.keys() - {"budget"}:
        words = " or ".join(limits)
        raise ValueError(f"control moves the rule that {words} asks for; give one of them")
    if budget is not None or not given:
        budget = given.get("budget", 0.5)
        return _first_serving(policies.values(), budget, fraction), budget, None
    fitted = min(policies.values(), key=lambda policy: not policy.nested)
    promised = run.stage1.outputs_file("cal").is_file()
    outputs = run.outputs("cal" if promised else "test")
    risk = delta if promised else None
    ((name, limit),) = given.items()
    if name == "max_ms":
        asked = budget_within_ms(fitted, outputs, _late_ms(run), limit, tail, risk)
    elif name == "max_loss":
        asked = least_budget(fitted, outputs, limit, risk)
    else:
        asked = least_budget(fitted, outputs, limit, risk, "disagreement")
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
