"""Names the pose: GeoPose-Net over the packets that wait, of all streams, with calibrated probabilities.

Family and chamber are the groups with the largest sums of the poses' probabilities. From a confidence of one half on
they are those of the label itself; an accepted answer has those at any threshold, so it never contradicts itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import msgspec
import numpy as np

from engine.errors import UserError
from engine.stage import Context
from stages.cards import Card, ModelName, check_inputs, load_card, load_model_classes
from stages.classes import CLASSES_FILE, NEUTRAL_KIND, ClassFile
from stages.graph import CROP_SIZE_PX, DIRECTED_EDGES, EDGE_FEATURES, NODE_FEATURES
from stages.packets import ArnisPacket, GraphInput, Pose
from stages.runtime import Backend, Device, Network, load_network
from stages.skeleton import NODE_COUNT

INPUTS: dict[str, tuple[str, tuple[int, ...]]] = {
    "nodes": ("float32", (0, NODE_COUNT, len(NODE_FEATURES))),
    "edges": ("float32", (0, len(DIRECTED_EDGES), len(EDGE_FEATURES))),
    "mask": ("float32", (0, NODE_COUNT)),
    "crop": ("uint8", (0, CROP_SIZE_PX, CROP_SIZE_PX, 3)),
    "crop_present": ("float32", (0,)),
}
"""Name, dtype and shape of the network's inputs, 0 for the batch."""


def class_probabilities(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Softmax of float (B, classes) divided by the temperature of the model's card (Guo et al. 2017); float64."""
    scaled = logits.astype(np.float64) / temperature
    weights: np.ndarray = np.exp(scaled - scaled.max(1, keepdims=True))
    probabilities: np.ndarray = weights / weights.sum(1, keepdims=True)
    return probabilities


def network_inputs(graphs: Sequence[GraphInput]) -> list[np.ndarray]:
    """The arrays of one batch, in the order of `INPUTS`; a missing crop is black and marked absent."""
    crops = np.zeros((len(graphs), CROP_SIZE_PX, CROP_SIZE_PX, 3), np.uint8)
    present = np.zeros(len(graphs), np.float32)
    for i, graph in enumerate(graphs):
        if graph.crop is not None:
            crops[i], present[i] = graph.crop, 1
    nodes, edges, mask = (np.stack([getattr(graph, name) for graph in graphs]) for name in ("nodes", "edges", "mask"))
    return [nodes, edges, mask, crops, present]


def name_pose(probabilities: np.ndarray, classes: ClassFile, threshold: float) -> Pose:
    """The answer for one row (classes,) of probabilities; accepted from `threshold` on, `neutral` included, and else
    narrowed to two poses that reach it together, where there are such."""
    best, second = np.argsort(-probabilities, kind="stable")[:2].tolist()
    chosen, other = classes.classes[best], classes.classes[second]
    accepted = bool(probabilities[best] >= threshold)
    # Of two classes alone it is always one of the two.
    narrowed = not accepted and len(classes.classes) > 2 and NEUTRAL_KIND not in (chosen.kind, other.kind)
    is_either = narrowed and bool(probabilities[best] + probabilities[second] >= threshold)
    return Pose(
        label=chosen.name,
        confidence=float(probabilities[best]),
        accepted=accepted,
        family=chosen.family if accepted else _likeliest([c.family for c in classes.classes], probabilities),
        chamber=chosen.chamber if accepted else _likeliest([c.chamber for c in classes.classes], probabilities),
        alternative=other.name if is_either else None,
        probabilities={c.name: float(p) for c, p in zip(classes.classes, probabilities, strict=True)},
    )


def check_card(card: Card, classes: ClassFile, model: str) -> None:
    """Raises UserError unless the card is that of a pose classifier for these inputs and classes."""
    if card.task != "pose_classifier":
        raise UserError(f"model {model} is made for the task {card.task}, not pose_classifier; choose another")
    if [(i.name, (i.dtype, i.shape)) for i in card.inputs] != list(INPUTS.items()):
        raise UserError(f"model {model} takes other inputs than this program builds; run `arnis-train export` again")
    if card.classes != classes.names or card.classes_sha256 != classes.digest():
        raise UserError(
            f"model {model} was trained for other classes; put the class file that it was trained with into its folder "
            f"as {CLASSES_FILE}, or train it anew"
        )


class ClassifySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section [classify]; `config.toml` says what each means, and its unit."""

    model: ModelName = "geopose"
    backend: Backend = "auto"
    device: Device = "auto"
    threads: Annotated[int, msgspec.Meta(ge=0, le=64)] = 1
    threshold: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    max_batch: Annotated[int, msgspec.Meta(ge=1, le=64)] = 8
    max_wait_ms: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 0.0


class Classify:
    """Adds the pose, and sets the status: ok when it is accepted, unsure otherwise."""

    name: ClassVar[str] = "classify"
    settings_type: ClassVar[type[msgspec.Struct]] = ClassifySettings
    stateless: ClassVar[bool] = True

    def __init__(self, settings: ClassifySettings) -> None:
        self._settings = settings
        self.max_batch, self.max_wait_ms = settings.max_batch, settings.max_wait_ms

    def open(self, context: Context) -> None:
        self._classes = load_model_classes(self._settings.model)
        card, file = load_card(self._settings.model)
        check_card(card, self._classes, self._settings.model)
        shapes = [tuple(size or 1 for size in shape) for _, shape in INPUTS.values()]
        asked = self._settings
        self._network: Network = load_network(file, asked.backend, asked.threads, device=asked.device, shapes=shapes)
        check_inputs(card, self._network.inputs, asked.model)
        given, wanted = self._network.outputs[0].shape, len(card.classes)
        if given and given[-1] not in (0, wanted):
            raise UserError(
                f"model {asked.model}: its card names {wanted} classes, but {card.file} gives {given[-1]} answers; "
                "correct the card or export it anew"
            )
        self._temperature = card.temperature
        self._threshold = threshold_of(self._settings, card)

    def has_work(self, packet: ArnisPacket) -> bool:
        return packet.graph is not None

    def process(self, packet: ArnisPacket) -> ArnisPacket:
        return self.process_batch([packet])[0]

    def process_batch(self, packets: list[ArnisPacket]) -> list[ArnisPacket]:
        """Classify those that have a graph; the others pass unchanged."""
        chosen = [(packet, packet.graph) for packet in packets if packet.graph is not None]
        if not chosen:
            return packets
        logits = self._network(*network_inputs([graph for _, graph in chosen]))[0]
        for (packet, _), row in zip(chosen, class_probabilities(logits, self._temperature), strict=True):
            packet.pose = name_pose(row, self._classes, self._threshold)
            packet.status = "ok" if packet.pose.accepted else "unsure"
        return packets

    def describe(self) -> dict[str, str]:
        return {"model": self._settings.model, "runtime": self._network.describe()}


def threshold_of(settings: ClassifySettings, card: Card) -> float:
    """The confidence from which a pose is accepted: the user's, or else the one that the model's card promises by."""
    return settings.threshold or card.threshold or 0.0


def classes_of(sections: Mapping[str, Any]) -> ClassFile:
    """The classes that a program with these settings tells apart; raises UserError as `load_model_classes`."""
    return load_model_classes(settings_of(sections).model)


def settings_of(sections: Mapping[str, Any]) -> ClassifySettings:
    """Section [classify] of a program's settings, be they Structs or plain values."""
    return msgspec.convert(msgspec.to_builtins(sections.get(Classify.name, {})), ClassifySettings)


def _likeliest(groups: Sequence[str], probabilities: np.ndarray) -> str:
    """The group whose classes have the largest sum of probabilities."""
    sums: dict[str, float] = {}
    for group, probability in zip(groups, probabilities, strict=True):
        sums[group] = sums.get(group, 0.0) + float(probability)
    return max(sums, key=lambda group: sums[group])
