"""Training a network: `fit` makes `best.pt`, `load_trained` and `predict` use it.

The loop itself is Lightning's (`training.geopose.loop`), which is imported only when something is trained.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.errors import UserError
from engine.revision import git_revision
from stages.classes import ClassFile
from training.classifiers import NETWORKS, network_model
from training.classifiers.crops import EfficientNet
from training.geopose.batches import Batch, Mixture, graphs_with_crops, training_batches
from training.geopose.checkpoint import is_finished, plain, read_checkpoint, weights_hash
from training.geopose.data import PoseTable
from training.geopose.network import answers, together
from training.geopose.people import people_facts
from training.geopose.settings import FitSettings
from training.perceptron import Perceptron
from training.weights import weights_file

log = logging.getLogger(__name__)


def fit(
    classes: ClassFile,
    mixture: Mixture,
    validation: PoseTable,
    settings: FitSettings,
    run: Path,
    model: str = "geopose",
) -> Path:
    """Train, and return the file of the best weights, `run`/best.pt; goes on from `run`/last.ckpt where there is one.

    Raises UserError when `run` holds another training.
    """
    from training.geopose.loop import Task, train

    declared, settings = network_model(model), settings_used(model, settings)
    mixture = mixture.with_faults_of(settings)
    lent = mixture.errors()  # refuses a truth of no use before anything is begun
    if lent is not None and mixture.table is not None:
        log.info("the errors made of %d of %d samples are lent", len(lent), len(mixture.table))
    begun = read_checkpoint(weights_file(settings.start)) if settings.start else {}
    facts = {
        "network": model, "classes": list(classes.names), "classes_sha256": classes.digest(),
        "settings": plain(asdict(settings)), "start_sha256": weights_hash(begun), "mixture": mixture.facts(),
        "data_sha256": data_hash(mixture, validation), "revision": git_revision(),
        **people_facts(mixture, validation, begun),
    }  # fmt: skip
    best = run / "best.pt"
    if is_finished(best, facts):
        log.info("%s is trained already", best)
        return best
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    # Where weights are here, none need be fetched.
    network = declared.build(len(classes.classes), replace(settings, pretrained=False) if settings.start else settings)
    _standardise(network, mixture, settings)
    if settings.start:
        begin_with(network, weights_file(settings.start), classes.names)
    else:
        _refuse_random_backbone(network, settings)
    run.mkdir(parents=True, exist_ok=True)
    told = mixture.facts()
    log.info("%s: %d samples an epoch from the table, %d with exact keypoints, %d drawn; at most %d epochs, each tells "
             "its end", run, told["samples"], told["exact"], told["drawn"], settings.epochs)  # fmt: skip
    train(Task(network.train(), classes, mixture, validation, settings), settings, run, facts)
    return best


def _refuse_random_backbone(network: nn.Module, settings: FitSettings) -> None:
    """Random weights, of which the first blocks never learn, make the same of every picture."""
    if not settings.pretrained and any(isinstance(part, EfficientNet) for part in network.modules()):
        raise UserError(f"backbone {settings.backbone} learns nothing from random weights; add --pretrained or --start")


def load_trained(file: Path, classes: ClassFile) -> tuple[nn.Module, dict[str, Any]]:
    """The network of a `best.pt`, ready to predict, and the checkpoint; raises UserError when there is none, or when
    it was trained for other classes."""
    state = read_checkpoint(file)
    # Older checkpoints know only the names.
    known = state.get("classes_sha256", classes.digest())
    if state["classes"] != list(classes.names) or known != classes.digest():
        raise UserError(f"weights {file} were trained for other classes, or these in another order, family or chamber; "
                        "give the class file of the training with --classes, or train anew")  # fmt: skip
    # The weights are here: none need be fetched.
    settings = FitSettings(**state["settings"] | {"pretrained": False})
    network = network_model(state["network"]).build(len(state["classes"]), settings)
    if not any(name.startswith("opinions.") for name in state["weights"]):
        network.opinions = None  # older ones answer by their head alone
    network.load_state_dict(state["weights"])
    return network.eval(), state


def settings_used(model: str, settings: FitSettings) -> FitSettings:
    """What a training of this classifier really has of the settings that it is given."""
    return network_model(model).with_overrides(with_start(settings)) if model in NETWORKS else settings


def with_start(settings: FitSettings) -> FitSettings:
    """The settings with the backbone that the weights to begin with have; pretrained ones stand still for
    `frozen_epochs` here too.

    Raises UserError when there are no such weights.
    """
    if not settings.start:
        return settings
    theirs = read_checkpoint(weights_file(settings.start))["settings"]
    return replace(settings, backbone=theirs["backbone"], pretrained=theirs["pretrained"])


@torch.no_grad()
def begin_with(network: nn.Module, file: Path, class_names: Sequence[str]) -> None:
    """Give a network the weights of a `best.pt`, which may be of other classes: what says which class it is goes over
    class by class, new classes keep their random weights. Between networks with and without a picture of the hand, or
    with and without further opinions, all that they share goes over, so that one without a picture begins by answering
    as the other does where it sees none.

    Raises UserError when there is no such file or it holds a network that makes something else of the graph.
    """
    state = read_checkpoint(file)
    new = [row for row, name in enumerate(class_names) if name in state["classes"]]
    old = [state["classes"].index(class_names[row]) for row in new]
    own, given = network.state_dict(), state["weights"]
    first, last = _outer_layers(network)
    if own.keys() != given.keys():
        needed = {name for name in own if name.startswith(("skeleton.", "head."))}
        if not needed <= given.keys() or not any(name.startswith("skeleton.") for name in needed):
            raise UserError(f"weights {file} are of the network {state['network']}; choose --model {state['network']}")
    for name in own.keys() & given.keys():
        tensor, theirs = own[name], given[name]
        if name in last:
            tensor[new] = theirs[old]
        elif name in first and len(tensor) == len(theirs):
            shared = min(tensor.shape[1], theirs.shape[1])  # the graph comes first, the hand, if any, behind it
            tensor[:, :shared] = theirs[:, :shared]
        elif tensor.shape != theirs.shape:
            raise UserError(f"weights {file} do not fit at {name}; train them anew with this version and its settings")
        else:
            tensor.copy_(theirs)


def _outer_layers(network: nn.Module) -> tuple[set[str], set[str]]:
    """Names of the weights that join the graph and the hand, and of what has a row for each class."""
    first, last = set(), set()
    answering = {"head": network.head} | {name: m for name, m in network.named_modules() if isinstance(m, Perceptron)}
    for path, module in answering.items():
        linear = [f"{path}.{name}".removesuffix(".") for name, m in module.named_modules() if isinstance(m, nn.Linear)]
        first.add(f"{linear[0]}.weight")
        last |= {f"{linear[-1]}.weight", f"{linear[-1]}.bias"}
    return first - last, last


@torch.no_grad()
def predict(network: nn.Module, table: PoseTable) -> tuple[Tensor, Tensor]:
    """Logits (N, classes) and labels (N,) of a table."""
    network.eval()
    logits = [together(streams(network, batch)[0]) for batch in graphs_with_crops(table)]
    return torch.cat(logits), torch.from_numpy(table.labels)


def streams(network: Any, batch: Batch) -> tuple[Tensor, Tensor, Tensor | None]:
    """Logits of each opinion (M, B, classes), the graph's embedding (B, ...), and the loss of the shaft told from the
    crops, if there are any; only the crops that are there run through their stream."""
    nodes, edges, mask = (torch.from_numpy(array) for array in (batch.nodes, batch.edges, batch.mask))
    present = torch.from_numpy(batch.crop_present)
    graph, geometry = network.skeleton(nodes, edges, mask), None
    if network.hand is None:
        return answers(network, nodes, edges, graph, nodes, present), graph, None
    seen = torch.zeros(len(nodes), *network.hand.shape)
    if len(batch.crop):
        inner = network.hand(torch.from_numpy(batch.crop))
        seen = seen.index_copy(0, present.nonzero().squeeze(1), inner)
        shaft = torch.from_numpy(batch.shaft)[present > 0]
        error = functional.smooth_l1_loss(network.crop_geometry(inner), shaft[:, :2], reduction="none").sum(1)
        geometry = (error * shaft[:, 2]).sum() / shaft[:, 2].sum().clamp(min=1)
    return answers(network, nodes, edges, graph, seen, present), graph, geometry


def data_hash(mixture: Mixture, validation: PoseTable) -> str:
    """SHA-256 over everything that decides what is learnt from: samples, statistics and how they are mixed."""
    digest = hashlib.sha256()
    for table in (mixture.table, mixture.exact, validation):
        if table is not None:
            names = (table.people.astype("U"), table.views.astype("U"))
            for array in (table.keypoints, table.labels, table.crop_present, table.wrong_hand, table.crops, *names):
                digest.update(np.ascontiguousarray(array).tobytes())
    if mixture.truth is not None:
        digest.update(np.ascontiguousarray(mixture.truth).tobytes())
    if mixture.statistics and mixture.drawn:
        for array in mixture.statistics.draw(64, np.random.default_rng(0)):
            digest.update(array.tobytes())
    digest.update(repr((mixture.drawn, mixture.crop_dropout, mixture.hand_known)).encode())
    return digest.hexdigest()


def _standardise(network: nn.Module, mixture: Mixture, settings: FitSettings) -> None:
    """Set the network's own normalisation from one batch of what it will be trained on; where it looks at nodes one by
    one, over present ones only."""
    batch = next(training_batches(mixture, replace(settings, batch=4096), np.random.default_rng(settings.seed)))
    nodes = batch.nodes[batch.mask > 0]
    for module in network.modules():
        if hasattr(module, "node_shift"):
            module.node_shift.copy_(torch.from_numpy(nodes.mean(0)))
            module.node_scale.copy_(torch.from_numpy(1 / np.maximum(nodes.std(0), 0.1)))
        elif isinstance(module, Perceptron):
            module.measure(torch.from_numpy(batch.nodes), torch.from_numpy(batch.edges))
