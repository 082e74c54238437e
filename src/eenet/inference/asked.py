"""Which of a run's policies serves, and at which budget: what was asked for."""

from collections.abc import Iterable
from typing import Literal

from eenet.metrics.asking import Asked, least_budget
from eenet.outputs.exit_outputs import mean_costs
from eenet.policies import Policy
from eenet.run_folder import RunFolder


def choose(
    run: RunFolder,
    policy: str | None,
    budget: float | None,
    max_loss: float | None,
    max_disagreement: float | None,
    delta: float,
) -> tuple[Policy, float, Asked | None]:
    """The policy, its budget in the run's unit, and how that was found if by quality.

    Args:
        run: A finished run.
        policy: Label of one of its policies; by default the first that serves the budget, otherwise
            the first with nested rules, which is fixed before the samples are seen.
        budget: Average cost per sample; by default 0.5.
        max_loss: Largest loss of quality against the full network, in place of a budget.
        max_disagreement: Largest share of answers that are not the full network's, in place of it.
        delta: Probability of breaking that promise, where the run has a calibration split.

    Raises:
        ValueError: If several are given, or nothing serves; the message says what to do.
    """
    if not 0 < delta < 1:
        raise ValueError(f"delta={delta}: a probability of breaking the promise is between 0 and 1")
    policies, fraction = run.policies(policy), run.budget_unit == "fraction"
    limits = {"budget": budget, "max_loss": max_loss, "max_disagreement": max_disagreement}
    given = {name: limit for name, limit in limits.items() if limit is not None}
    if len(given) > 1:
        raise ValueError(
            f"{' and '.join(f'{x}={y:g}' for x, y in given.items())}: give one of them"
        )
    if max_loss is None and max_disagreement is None:
        budget = given.get("budget", 0.5)
        return _first_serving(policies.values(), budget, fraction), budget, None
    fitted = min(policies.values(), key=lambda policy: not policy.nested)
    promised = run.stage1.outputs_file("cal").is_file()
    outputs = run.outputs("cal" if promised else "test")
    (limit,) = given.values()
    of: Literal["loss", "disagreement"] = "disagreement" if max_loss is None else "loss"
    asked = least_budget(fitted, outputs, limit, delta if promised else None, of)
    full = 1.0 if fraction else float(mean_costs(fitted.calibration_costs)[-1])
    return fitted, asked.budget * full, asked


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
