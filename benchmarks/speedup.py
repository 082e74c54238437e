"""Adaptive inference against the full network: wall time, and what costs and latency predict.

(a) The test set at several batch sizes and in throughput mode. "Predicted" is the full network's
time over the mean, over the samples, of the time to the exit each took, clocked during the full
network's own passes on the same batches; "attained" is the measured speed-up over the predicted.
Ratios are medians over the rounds, milliseconds per sample those of the fastest round, and the
quantiles those of single calls in all rounds.
"""

import time

import torch
from common import conditions, cut, interleaved, load, parser, ratio, synchronize, table


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 32, 256])
    arguments = options.parse_args()
    predictor, x, y = load(arguments)
    samples = len(y)
    conditions(arguments, predictor)
    rows = []

    def full(batches, clock, calls):
        """Answers of the last exit; adds the seconds to each exit to a row of `clock`."""
        spent, answers = torch.zeros(predictor.net.num_exits, dtype=torch.float64), []
        with torch.inference_mode():
            for batch in batches:
                start = time.perf_counter()
                state = predictor.net.begin(batch)
                for k in range(predictor.net.num_exits):
                    logits, state = predictor.net.step(k, state)
                    synchronize()
                    spent[k] += time.perf_counter() - start
                calls.append(time.perf_counter() - start)
                answers.append(logits.argmax(1).cpu())
        clock.append(spent)
        return torch.cat(answers)

    def adaptive(batches, calls):
        answers = []
        for batch in batches:
            start = time.perf_counter()
            answers.append(predictor.predict(batch))
            synchronize()
            calls.append(time.perf_counter() - start)
        return answers

    def stream(batches, size):
        return list(predictor.predict_stream(batches, size))

    for size in arguments.batch_sizes:
        # One sample at a time takes long: a tenth of the set, at least 500.
        some = min(samples, max(500, samples // 10)) if size == 1 else samples
        batches = cut(x, some, size)
        clock, calls = [], {"full": [], "adaptive": []}
        tasks = {
            "full": lambda b=batches, c=clock, t=calls: full(b, c, t["full"]),
            "adaptive": lambda b=batches, t=calls: adaptive(b, t["adaptive"]),
        }
        if size == max(arguments.batch_sizes):
            tasks["stream"] = lambda b=batches, s=size: stream(b, s)
        times = interleaved(arguments.rounds, **tasks)
        latency = torch.stack(clock[1:]).quantile(0.5, dim=0)
        exact = float((full(batches, [], []) == y[:some]).float().mean())
        for name in list(tasks)[1:]:
            answers = adaptive(batches, []) if name == "adaptive" else stream(batches, size)
            exits = torch.cat([a.exits for a in answers]).cpu()
            right = torch.cat([a.predictions for a in answers]).cpu() == y[:some]
            by_macs = float(predictor.costs[-1] / predictor.costs.cpu()[exits].mean())
            predicted = float(latency[-1] / latency[exits].mean())
            measured = ratio(times, "full", name)
            label = f"{size}, throughput mode" if name == "stream" else str(size)
            accuracy = 100 * float(right.float().mean())
            milliseconds = [1e3 * min(times[task]) / some for task in ("full", name)]
            rows.append([label, some, 100 * exact, accuracy, *milliseconds])
            rows[-1] += [by_macs, predicted, measured, f"{100 * measured / predicted:.0f} %"]
            rows[-1] += [quantiles(calls["full"]), quantiles(calls.get(name, []))]
    table(
        [
            "batch",
            "samples",
            "full acc. %",
            "adaptive acc. %",
            "full ms/sample",
            "adaptive ms/sample",
            "speed-up by costs",
            "predicted",
            "measured",
            "attained",
            "full call, ms: p50 / p95 / p99",
            "adaptive call",
        ],
        rows,
    )


def quantiles(seconds):
    """The median and the 95% and 99% quantiles of calls, in milliseconds."""
    if not seconds:
        return "-"
    ms = 1e3 * torch.tensor(seconds).quantile(torch.tensor([0.5, 0.95, 0.99]))
    return " / ".join(f"{value:.3g}" for value in ms.tolist())


if __name__ == "__main__":
    main()
