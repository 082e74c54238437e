"""Which training of the exits lifts the curve at low budgets? Recipes of stage 1 side by side.

python experiments/training_for_budget.py train cifar10 data/cifar-10 uniform 0 runs/recipes
python experiments/training_for_budget.py table runs/recipes

`train` takes one network (ResNet-14, four exits, images halved to 16 x 16 or 14 x 14, so that two
cores do) through one recipe and seed; all recipes see the same images in the same order, the same
initial weights and the same number of epochs. Budgets are 0.2 to 0.6 of the full network, policies
are fitted on 6,000 validation images and reported on the 10,000 test images.
"""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F

from eenet.data import CIFAR10, FashionMNIST
from eenet.data.tensor_images import mirror, shift
from eenet.metrics.curve_maths import quality_at
from eenet.models import CifarResNet
from eenet.models.costs import measure_costs
from eenet.modules import losses
from eenet.modules.optim import WarmupCosine
from eenet.outputs import ExitOutputs, load_outputs, save_outputs
from eenet.policies import EENetPlus, MaxProbability
from eenet.policies.base import decide_all

SETS = {"cifar10": CIFAR10, "fashion-mnist": FashionMNIST}
BUDGETS, EPOCHS, BATCH = (0.2, 0.3, 0.4, 0.5, 0.6), 6, 128
# weights, weight of distillation, from which part of the epochs, teacher
RECIPES = {
    "paper": ("linear", 0.01, 0.75, "last"),
    "uniform": ("uniform", 0.01, 0.75, "last"),
    "early": ((4, 3, 2, 1), 0.01, 0.75, "last"),
    "distilled": ("uniform", 0.3, 0.2, "last"),
    "distilled-linear": ("linear", 1.0, 0.2, "last"),
    "ensemble": ("uniform", 0.3, 0.2, "ensemble"),
    "equilibrium": ("uniform", 0.01, 0.75, "last"),  # gradients rescaled in `forward`
    "routed": ("uniform", 0.01, 0.75, "last"),  # half of each sample's weight where it leaves
}


def images_of(name, root):
    """Images of half the size, of zero mean and unit variance; labels; train, val and test."""
    data = SETS[name](root=root, val_size=6000)
    data.setup()
    parts = {}
    for split in ("train", "val", "test"):
        images, labels = data.dataset(split, training=False).tensors
        small = [F.avg_pool2d(data.normalize(chunk), 2) for chunk in images.split(5000)]
        parts[split] = (torch.cat(small), labels)
    return parts


def forward(net, images, equilibrium=False):
    """Logits of all exits; at equilibrium every stage gets gradients of one size.

    Li et al. 2019 (Improved Techniques for Training Adaptive Deep Networks, section 3.1): what
    flows back from head k counts 1 / (E - k + 1), what flows back from later stages the rest.
    """
    if not equilibrium:
        return net(images)
    state, logits = net.begin(images), []
    for k in range(net.num_exits):
        state, share = net.stages[k](state), 1 / (net.num_exits - k)
        logits.append(net.heads[k](scaled(state, share)))
        state = scaled(state, 1 - share)
    return torch.stack(logits)


def scaled(value, factor):
    """The same value with its gradient scaled."""
    return value * factor + (value * (1 - factor)).detach()


def ensemble_distillation(logits, weights, temperature=3.0):
    """Pulls every exit towards the mean of all exits' log-probabilities."""
    logs = F.log_softmax(logits / temperature, dim=2)
    teacher = logs.detach().mean(0).log_softmax(1)
    divergence = (teacher.exp() * (teacher - logs)).sum(2).mean(1)
    return temperature**2 * (divergence * weights).sum()


def training_loss(logits, labels, weights, recipe, progress, routes):
    """The loss of one batch; `routes` say where the present network's samples leave."""
    _, alpha, start, teacher = RECIPES[recipe]
    if routes is None:
        loss = losses.multi_exit_cross_entropy(logits, labels, weights)
    else:
        each = torch.stack([F.cross_entropy(z, labels, reduction="none") for z in logits])
        loss = (each * (0.5 * weights[:, None] + 0.5 * routes(logits.detach()))).sum(0).mean()
    if progress >= start:
        distil = ensemble_distillation if teacher == "ensemble" else losses.self_distillation
        loss = loss + alpha * distil(logits, weights)
    return loss


def routes_of(net, part, costs):
    """Gives the share of the budgets at which max probability sends a sample to each exit."""
    policy = MaxProbability().fit(collect(net, part, costs))
    rules = [policy.at_fraction(budget) for budget in BUDGETS]

    def routes(logits):
        evidence = ExitOutputs(costs=costs, logits=logits).evidence()
        exits = decide_all(rules, evidence)
        return F.one_hot(exits, len(costs)).float().mean(0).T

    return routes


@torch.inference_mode()
def collect(net, part, costs):
    net.eval()
    logits = torch.cat([net(images) for images in part[0].split(500)], dim=1)
    net.train()
    return ExitOutputs(costs=costs, logits=logits, labels=part[1])


def reached(policy, val, test):
    """Test accuracy at `BUDGETS`, brought to exactly that cost along the policy's own curve."""
    policy.fit(val)
    full = test.costs[-1].item()
    evidence, quality = test.evidence(), test.answer_quality()
    cheapest = test.costs[0].item() / full
    grid = torch.linspace(cheapest + 1e-6, 0.8, 60).tolist()
    exits = torch.stack([policy.at_fraction(budget).decide(evidence) for budget in grid])
    cost = (test.costs[exits] / full).mean(1)
    mean = torch.stack([quality.gather(0, e[None]).mean() for e in exits])
    ends = torch.tensor([cheapest]), quality[0].mean()[None]
    cost, mean = torch.cat([ends[0].double(), cost]), torch.cat([ends[1], mean])
    return quality_at(cost, mean, torch.tensor(BUDGETS)).tolist()


def train(name, root, recipe, seed, folder):
    parts = images_of(name, root)
    (images, labels), size = parts["train"], parts["train"][0].shape[2]
    torch.manual_seed(seed)
    net = CifarResNet(depth=14, exits=[1, 2, 4, 6], in_channels=images.shape[1])
    costs = torch.tensor(measure_costs(net, images[:1]).macs, dtype=torch.float64)
    weights = losses.exit_weights(RECIPES[recipe][0], net.num_exits)
    optimizer = torch.optim.SGD(
        net.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    steps = len(images) // BATCH
    schedule = WarmupCosine(optimizer, warmup=0.2)
    schedule.total_steps = EPOCHS * steps
    routes = None
    for epoch in range(EPOCHS):
        if recipe == "routed" and epoch >= EPOCHS // 2:
            routes = routes_of(net, parts["val"], costs)
        order = torch.randperm(len(images))
        for step in range(steps):
            index = order[step * BATCH : (step + 1) * BATCH]
            batch = mirror(shift(images[index], size // 8))
            logits = forward(net, batch, recipe == "equilibrium")
            loss = training_loss(logits, labels[index], weights, recipe, epoch / EPOCHS, routes)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    target = Path(folder) / f"{name}-{recipe}-{seed}"
    target.mkdir(parents=True, exist_ok=True)
    for split in ("val", "test"):
        save_outputs(collect(net, parts[split], costs), target / f"{split}.safetensors")


def table(folder):
    """Mean and spread over the seeds of what each recipe reaches; a row each."""
    rows = {}
    for run in sorted(Path(folder).iterdir()):
        name, seed = run.name.rsplit("-", 1)
        val, test = (load_outputs(run / f"{split}.safetensors") for split in ("val", "test"))
        numbers = [test.answer_quality().mean(1)]
        for policy in (EENetPlus(), MaxProbability()):
            at = torch.tensor(reached(policy, val, test))
            numbers += [at, at.mean()[None]]
        rows.setdefault(name, {})[seed] = 100 * torch.cat(numbers)
    head = [f"exit {k}" for k in (1, 2, 3, 4)]
    for label in ("eenet+", "max_prob"):
        head += [f"{label} at {budget:g}" for budget in BUDGETS] + [f"{label} mean"]
    print("| set, recipe | seeds | " + " | ".join(head) + " |")
    print("|---" * (len(head) + 2) + "|")
    for name, seeds in rows.items():
        values = torch.stack(list(seeds.values()))
        spread = values.std(0) if len(values) > 1 else torch.zeros_like(values[0])
        cells = [f"{m:.2f} ± {s:.2f}" for m, s in zip(values.mean(0), spread, strict=True)]
        print(f"| {name} | {len(values)} | " + " | ".join(cells) + " |")


def main(command, *arguments):
    if command == "train":
        name, root, recipe, seed, folder = arguments
        train(name, root, recipe, int(seed), folder)
    else:
        table(*arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])
