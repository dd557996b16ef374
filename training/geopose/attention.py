"""What the graph's nodes read from one another: the weights of the GATv2 layers, gathered from a model as it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from engine.errors import UserError
from stages.graph import DIRECTED_EDGES, build_graph
from training.geopose.network import DenseGATv2


@dataclass(frozen=True)
class Attention:
    """Of B samples; both heads and layers are averaged, and 1 is what even attention would give."""

    edges: np.ndarray
    """float (B, E), in the order of `DIRECTED_EDGES`: attention of the target to the source, times the number of
    sources that the target has."""
    nodes: np.ndarray
    """float (B, 19): what all nodes together read from this one through all layers, over what they would by even
    attention; 0 where the node is missing."""


def attend(model: nn.Module, keypoints: np.ndarray) -> Attention:
    """Attention over canonical keypoints (B, 19, 3).

    Raises UserError when the model has no attention over the graph.
    """
    if not has_attention(model):
        raise UserError(f"{type(model).__name__} has no attention over the skeleton's edges; choose a geopose model")
    stream = graph_stream(model)
    nodes, edges, mask = (torch.from_numpy(array) for array in build_graph(keypoints))
    seen: list[np.ndarray] = []

    def look(layer: DenseGATv2, given: tuple[Tensor, Tensor, Tensor]) -> None:
        seen.append(edge_attention(layer, *given).numpy())

    hooks = [m.register_forward_pre_hook(look) for m in stream.modules() if isinstance(m, DenseGATv2)]
    try:
        with torch.no_grad():
            stream.eval()(nodes, edges, mask)
    finally:
        for hook in hooks:
            hook.remove()
    even = _even_attention(mask.numpy())
    ratio = np.mean([_ratio(layer, even) for layer in seen], axis=0)
    received, expected = _received(seen, mask.numpy()), _received([even] * len(seen), mask.numpy())
    return Attention(ratio, _ratio(received, expected))


def has_attention(model: nn.Module) -> bool:
    """Whether there is attention over the skeleton's edges to look at."""
    return any(isinstance(module, DenseGATv2) for module in model.modules())


def graph_stream(model: nn.Module) -> nn.Module:
    """The innermost module that holds all graph attention of the model, called with nodes, edges and mask."""
    name = next(name for name, module in model.named_modules() if isinstance(module, DenseGATv2))
    return model.get_submodule(name.rpartition(".")[0])


def edge_attention(layer: DenseGATv2, nodes: Tensor, edges: Tensor, mask: Tensor) -> Tensor:
    """What the layer weighs each edge with, float (B, E), mean of the heads; the arguments are those of its
    `forward`."""
    slots = layer.attention(layer.lin_l(nodes), nodes, edges, mask).mean(-1)
    # Where a node has no present neighbour, the softmax is even over slots that count for nothing.
    used = layer.used * mask[:, layer.source.flatten()].view_as(slots)
    out = slots.new_zeros(len(nodes), edges.shape[1])
    return out.index_add(1, layer.number.flatten(), (slots * used).flatten(1))


def _even_attention(mask: np.ndarray) -> np.ndarray:
    """float (B, E): one over the number of present sources of the edge's target; 0 where the source is missing."""
    source, target = DIRECTED_EDGES.T
    there = mask[:, source]
    count = np.zeros_like(mask)
    np.add.at(count.T, target, there.T)
    return np.divide(there, count[:, target], out=np.zeros_like(there), where=there > 0)


def _received(layers: Sequence[np.ndarray], mask: np.ndarray) -> np.ndarray:
    """float (B, 19): attention that the present nodes pay to each node, multiplied through the layers (attention
    rollout, Abnar & Zuidema 2020; the self-loops are the graph's own)."""
    source, target = DIRECTED_EDGES.T
    paid = mask.copy()
    for layer in reversed(layers):
        through = np.zeros_like(mask)
        np.add.at(through.T, source, (paid[:, target] * layer).T)
        paid = through
    return paid * mask


def _ratio(value: np.ndarray, even: np.ndarray) -> np.ndarray:
    """`value` over `even`, 0 where that is 0."""
    return np.divide(value, even, out=np.zeros_like(value), where=even > 0)
