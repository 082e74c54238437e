"""Where a network that is one module can be cut into stages, and the stages."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

from eenet.models.costs import on_meta

Size = tuple[int, ...]
"""Shape of one sample."""


class Place(NamedTuple):
    """A module that all features pass through, so that an exit can stand behind it."""

    name: str
    macs: float
    """Multiply-accumulate operations per sample up to there."""
    shape: Size
    """Of the features of one sample."""


class _Tracer(fx.Tracer):
    """Traces into the modules around the exits and into no others."""

    def __init__(self, exits: Sequence[str]) -> None:
        super().__init__(param_shapes_constant=True)
        self.exits = exits

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not any(name.startswith(f"{module_qualified_name}.") for name in self.exits)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        value = super().getattr(attr, attr_val, parameter_proxy_cache)
        if isinstance(value, fx.Proxy):  # some compare the types of weights and input
            value.dtype = attr_val.dtype  # type: ignore[attr-defined]
        return value

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> Any:
        batch = self.create_proxy("placeholder", "x", (), {})
        batch.dtype = torch.float32  # type: ignore[attr-defined]

        def logits(root: nn.Module, x: Any) -> Any:
            result = root_fn(root, x)  # with all other arguments at their defaults
            return result["logits"] if isinstance(result, dict) else result  # transformers

        return logits, [self.root, batch]


class _Run(fx.Interpreter):
    """Runs a graph without computing anything; keeps the value of each node and what it costs."""

    def __init__(self, model: nn.Module, graph: fx.Graph, size: Size, samples: int) -> None:
        super().__init__(model, graph=graph)
        self.values: dict[fx.Node, Any] = {}
        self.macs: dict[fx.Node, float] = {}
        self.samples, self.flops = samples, FlopCounterMode(display=False)
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), self.flops:  # see costs.count_macs
            self.run(torch.empty(samples, *size, device="meta"))

    def run_node(self, n: fx.Node) -> Any:
        before = self.flops.get_total_flops()
        value = self.values[n] = super().run_node(n)
        self.macs[n] = (self.flops.get_total_flops() - before) / 2 / self.samples
        return value


class Graph:
    """A network as a graph of the modules that it calls.

    Args:
        model: The network, which stays as it is.
        size: Shape of one sample.
        exits: The modules around these are part of the graph, all others are its nodes.

    Raises:
        ValueError: If the network cannot be traced, or takes no such sample.
    """

    def __init__(self, model: nn.Module, size: Size, exits: Sequence[str] = ()) -> None:
        kind, training = type(model).__name__, model.training
        names = [name for name, _ in model.named_modules() if name and name.count(".") < 2]
        fault = f"cannot be traced by torch.fx. Its modules are {names}: write a MultiExitNetwork "
        fault += "of them, or move what depends on values into a module of its own"
        try:
            # In evaluation mode what only training returns is left out (GoogLeNet, Inception).
            graph = _Tracer(exits).trace(model.eval())
            graph = fx.GraphModule(model, graph).graph  # which knows the modules that it calls
            graph.eliminate_dead_code()
            fault = f"takes no sample of input_size={list(size)}; give the shape of one"
            runs = [_Run(on_meta(model), graph, size, samples) for samples in (2, 3)]
        except Exception as error:  # whatever a network does with what stands for a tensor
            reason = str(error).strip().partition("\n")[0]
            raise ValueError(f"model: {kind} {fault} ({reason})") from error
        finally:
            model.train(training)
        self.model, self.nodes = model, list[fx.Node](graph.nodes)
        self.position = {node: k for k, node in enumerate(self.nodes)}
        self.calls = [node for node in self.nodes if node.op == "call_module"]
        weighted = [n for n in self.calls if [*model.get_submodule(str(n.target)).parameters()]]
        self.classifier = weighted[-1]
        """The last module with weights that runs."""
        self.macs, self.values = runs[0].macs, runs[0].values
        pairs = {node: [run.values[node] for run in runs] for node in self.nodes}
        self.batches = {n for n, pair in pairs.items() if [*map(_rows, pair)] == [2, 3]}
        # What depends only on the shape of a sample is known to every stage.
        self.constants = {n for n, (x, y) in pairs.items() if not _has_tensor(x) and x == y}
        self.dependent: set[fx.Node] = set()
        for n in self.nodes:
            depends = n.op == "placeholder" or self.dependent & {*n.all_input_nodes}
            if depends and n not in self.constants:
                self.dependent.add(n)

    def shape(self, node: fx.Node) -> Size:
        """Shape of a node's value for one sample."""
        return tuple(self.values[node].shape[1:])

    def end(self, call: fx.Node) -> fx.Node:
        """The node of a module's features: its result, or the first of several."""
        firsts = [n for n in call.users if n.args[1:] == (0,) and n in self.batches]
        return call if call in self.batches or not firsts else firsts[0]

    def bypassing(self, end: fx.Node) -> list[fx.Node]:
        """The nodes whose values are needed behind `end` without coming through it."""
        place = self.position[end]
        return [
            n
            for n in self.nodes[:place]
            if n in self.dependent
            and any(self.position[u] > place and u not in self.constants for u in n.users)
        ]


def cut(graph: Graph, exits: list[str]) -> tuple[list[nn.Module], nn.Module, list[Size]]:
    """Cuts a network behind each exit and before its classifier.

    Returns:
        The stages, the classifier as a head of the last, and the shapes of what stages leave.

    Raises:
        ValueError: If an exit is not a module of the network, is out of order or is bypassed.
    """
    order = [str(node.target) for node in graph.calls]
    last = graph.classifier.all_input_nodes[0]
    ends = [*(graph.end(node) for node in graph.calls if node.target in exits), last]
    places = [graph.position[end] + 1 for end in ends]
    if [name for name in order if name in exits] != exits or places != sorted(set(places)):
        raise ValueError(
            f"exits={exits} must be modules that run in this order, none inside another, each once "
            f"and before the classifier; the modules run as {order}"
        )
    for end, name in zip(ends, [*exits, "the last module before the classifier"], strict=True):
        bypassing = graph.bypassing(end)
        if bypassing or end not in graph.batches:
            what = f"{bypassing[-1].name!r} bypasses" if bypassing else "no tensor [samples] leaves"
            raise ValueError(f"exits: {what} {name!r}; choose one that everything passes through")
        for user in end.users.keys() & {*graph.calls}:
            module: Any = graph.model.get_submodule(str(user.target))
            if hasattr(module, "inplace"):
                module.inplace = False  # the head, too, needs what it would change
    if graph.nodes[-1] not in graph.batches or len(graph.shape(graph.nodes[-1])) != 1:
        raise ValueError(
            f"model: {type(graph.model).__name__} must take one tensor and return logits "
            f"[samples, classes], got {type(graph.values[graph.nodes[-1]]).__name__}"
        )
    parts = [graph.nodes[a:b] for a, b in pairwise([0, *places, len(graph.nodes)])]
    pieces = [_part(graph, *pair) for pair in zip([None, *ends], parts, strict=True)]
    return pieces[:-1], pieces[-1], [graph.shape(end) for end in ends]


def _part(graph: Graph, start: fx.Node | None, nodes: list[fx.Node]) -> nn.Module:
    """Some nodes as a module, which takes the value of the node `start` as its input."""
    part = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    if start is not None:
        copies[start] = part.placeholder("state")

    def copied(node: fx.Node) -> Any:
        if node in graph.constants and node not in copies:
            return graph.values[node]
        if node not in copies:  # the same for every input
            copies[node] = part.node_copy(node, copied)
        return copies[node]

    for node in nodes:
        if node not in graph.constants or copies.keys() >= {*node.all_input_nodes}:
            copies[node] = part.node_copy(node, copied)
    if nodes[-1].op != "output":
        part.output(copies[nodes[-1]])
    return fx.GraphModule(graph.model, part)


def find_places(model: nn.Module, size: Size) -> tuple[list[Place], float]:
    """The modules behind which exits can stand, in order, one for each cost.

    Args:
        model: The network, which stays as it is.
        size: Shape of one sample.

    Returns:
        The places, and the MACs of the whole network.

    Raises:
        ValueError: If the network cannot be traced, or takes no such sample.
    """
    dry = on_meta(model)
    graph = Graph(dry, size, _openable(dry))
    targets, last = [n.target for n in graph.calls], graph.position[graph.classifier]
    places, macs = list[Place](), 0.0
    for node in graph.nodes[:last]:
        macs += graph.macs[node]
        name, end = str(node.target), graph.end(node)
        if targets.count(node.target) != 1 or end not in graph.batches or graph.bypassing(end):
            continue
        place = Place(name, macs, graph.shape(end))
        if not places or places[-1].macs < macs:
            places.append(place)
        elif places[-1].name.rpartition(".")[0] == name.rpartition(".")[0]:
            places[-1] = place  # an activation or pooling follows
    total = macs + sum(graph.macs[node] for node in graph.nodes[last:])
    return [place for place in places if place.macs < macs], total


def _openable(model: nn.Module) -> list[str]:
    """The modules, a dot behind each, that hold lists of others and can be traced."""
    opened: list[str] = []
    closed: list[str] = []
    for name, module in model.named_modules():
        if not name or isinstance(module, nn.ModuleList) or name.startswith(tuple(closed)):
            continue
        opened.append(f"{name}.")
        try:
            opens = _holds_blocks(module) and bool(_Tracer(opened).trace(model))
        except Exception:  # whatever a module does with what stands for a tensor
            opens = False
        if not opens:
            closed.append(opened.pop())
    return opened


def _holds_blocks(module: nn.Module) -> bool:
    """Whether a module is a list, or holds one of blocks: of modules that have parts.

    What blocks hold are often lists, too (a convolution, its norm and activation, three times).
    """
    lists = [m for m in module.modules() if isinstance(m, (nn.Sequential, nn.ModuleList))]
    deep = (sum(_depth(m) > isinstance(parts, nn.Sequential) for m in parts) for parts in lists)
    return isinstance(module, nn.Sequential) or any(number > 1 for number in deep)


def _depth(module: nn.Module) -> int:
    return max((1 + _depth(part) for part in module.children()), default=0)


def _has_tensor(value: Any) -> bool:
    return any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(value))


def _rows(value: Any) -> int | None:
    return len(value) if isinstance(value, Tensor) and value.dim() else None
