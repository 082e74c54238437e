"""Against `earlyon` 0.3 on the same network, at equal accuracy (f).

earlyon leaves at the first exit whose highest probability reaches a threshold. It gets the weights
of the run and the thresholds of eenet's max_prob at the budget. At batch 1 eenet runs the same
rule, so accuracy is equal and the ratio is that of the two runtimes: on the very same modules, and
as `from_run` loads them, with batch norms folded away. In larger batches earlyon's
samples leave together, when all are sure; eenet then takes the smallest of a grid of budgets whose
accuracy on the same samples is no lower. `--policy` names the policy that does so; at batch 1 it is
reported too.
"""

import sys

import torch
from common import conditions, cut, interleaved, load, parser, ratio, table
from torch import nn

from eenet.inference import AdaptivePredictor
from eenet.run_folder import RunFolder


class Backbone(nn.Module):
    """The network without its early heads, as earlyon wants it."""

    def __init__(self, net):
        super().__init__()
        self.stages, self.head = net.stages, net.heads[-1]

    def forward(self, x):
        """Logits of the last exit."""
        for stage in self.stages:
            x = stage(x)
        return self.head(x)


def wrapped(net, thresholds, shape):
    """The same network in earlyon, with its heads and thresholds on the highest probability."""
    from earlyon.models.custom import custom_ee

    layers = [f"stages.{k}" for k in range(net.num_exits - 1)]
    wrapper = custom_ee(Backbone(net), layers, net.num_classes, input_shape=(1, *shape))
    for k, threshold in enumerate(thresholds):
        wrapper.exit_heads[f"e{k}"] = net.heads[k]
        wrapper.config.enabled_exits[k] = threshold <= 1
        wrapper.config.confidence_thresholds[k] = min(threshold, 1.0)
    return wrapper.eval()


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 32])
    arguments = options.parse_args()
    try:
        import earlyon
    except ModuleNotFoundError as error:
        sys.exit(f"skipped: {error}; pip install 'earlyon==0.3.0' for this comparison")
    predictor, x, y = load(arguments)
    if not isinstance(x, torch.Tensor):
        sys.exit(
            "skipped: earlyon's runtime passes the backbone one tensor, this network takes more"
        )
    conditions(arguments, predictor)
    print(f"earlyon {earlyon.__version__}\n")
    run = RunFolder(arguments.run_dir)
    net, rival = run.network(), run.policies("max_prob")["max_prob"]
    same = AdaptivePredictor(net, rival, arguments.budget, run.budget_unit, device=arguments.device)
    folded = AdaptivePredictor.from_run(
        arguments.run_dir, arguments.budget, "max_prob", device=arguments.device
    )
    thresholds = [1 + t for t in same.rule.thresholds.tolist()[:-1]]
    wrapper = wrapped(net, thresholds, x.shape[1:])

    def theirs(batches, size):
        if size == 1:
            return torch.cat([wrapper(b, mode="inference").prediction for b in batches])
        return torch.cat([wrapper.forward_inference_batched(b).predictions for b in batches])

    def ours(batches, runtime):
        return torch.cat([runtime.predict(b).predictions for b in batches])

    rows = []
    for size in arguments.batch_sizes:
        some = min(len(y), max(500, len(y) // 10)) if size == 1 else len(y)
        batches, labels = cut(x, some, size), y[:some]

        def accuracy(predictions, labels=labels):
            return 100 * float((predictions.cpu() == labels).float().mean())

        reached = accuracy(theirs(batches, size).argmax(1))
        for budget in torch.linspace(float(predictor.costs[0]), float(predictor.costs[-1]), 41)[1:]:
            try:
                predictor.budget = float(budget)
            except ValueError:
                continue  # a policy that was fitted for some budgets only
            if accuracy(ours(batches, predictor)) >= reached:
                break
        contenders = {predictor.policy.label: predictor}
        if size == 1:
            rules = {"max_prob, same modules": same, "max_prob, as loaded": folded}
            contenders = {**rules, **contenders}
        for name, runtime in contenders.items():
            times = interleaved(
                arguments.rounds,
                earlyon=lambda b=batches, s=size: theirs(b, s),
                eenet=lambda b=batches, r=runtime: ours(b, r),
            )
            found = accuracy(ours(batches, runtime))
            milliseconds = [1e3 * min(t) / some for t in times.values()]
            gain = ratio(times, "earlyon", "eenet")
            rows.append([size, name, reached, found, *milliseconds, gain])
    table(
        [
            "batch",
            "eenet's policy",
            "earlyon acc. %",
            "eenet acc. %",
            "earlyon ms/sample",
            "eenet ms/sample",
            "eenet faster by",
        ],
        rows,
    )


if __name__ == "__main__":
    main()
