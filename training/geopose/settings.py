"""How a classifier is trained: one record that travels into its checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta

from engine.errors import UserError
from training.geopose.augment import changed_faults

Count = Annotated[int, Meta(ge=1)]
Share = Annotated[float, Meta(ge=0, lt=1)]
Weight = Annotated[float, Meta(ge=0)]
Backbone = Literal["mobilenet_v3_small", "efficientnet_lite0"]


@dataclass(frozen=True)
class FitSettings:
    """Shared by all classifiers; trees read only `seed` and `threads`. Shares and rates are 0..1, angles radians."""

    start: str = ""
    """Weights to begin with: a run's `best.pt`, a model folder or a shipped model's name; empty: random ones."""
    epochs: Count = 100
    batch: Count = 64
    learning_rate: Annotated[float, Meta(gt=0, le=1)] = 3e-4
    weight_decay: Weight = 0.01
    patience: Count = 15
    """Epochs without a better loss on inner people after which it stops."""
    restarts: Annotated[int, Meta(ge=0, le=10)] = 0
    """Warm restarts of the cosine (Loshchilov & Hutter 2017); each cycle is twice as long as the one before."""
    family_weight: Weight = 0.3
    chamber_weight: Weight = 0.3
    geometry_weight: Weight = 0.1
    smoothing: Share = 0.0
    """Of labels. It makes rejection worse (Xia et al. 2025), so it is off."""
    arcface: Weight = 0.0
    """Weight of an ArcFace loss (Deng et al. 2019) on the graph's embedding."""
    arcface_margin: Annotated[float, Meta(ge=0, le=3)] = 0.2
    """Radians, reached in steps between a tenth and half of the epochs."""
    arcface_scale: Annotated[float, Meta(gt=0)] = 12.0
    mixup: Weight = 0.0
    """Alpha of the Beta distribution of shares, within a view (Zhang et al. 2018); 0: none."""
    drop_edge: Share = 0.1
    """Share of the edges of the body that a step leaves out (Rong et al. 2020); the stick's edge stays."""
    edge_noise: Weight = 0.02
    """Standard deviation of what is added to edge features."""
    hard_negatives: Share = 0.0
    """Share of the samples that get the stick of another pose and the label neutral."""
    without: tuple[str, ...] = ()
    """Names of keypoint faults (fields of KeypointFaults) that are left out."""
    strengths: tuple[str, ...] = ()
    """Keypoint faults of another strength for all samples, such as `node_dropout:0.1`."""
    crop_faults: bool = True
    """Crops are shifted, turned, recoloured, blurred and partly hidden."""
    faults: str = "mild"
    """What a table's own keypoints suffer: mild (a detector's faults are in them already), full or none."""
    averaging: Share = 0.99
    """Decay of the running mean of the weights, which is what gets validated and shipped."""
    backbone: Backbone = "mobilenet_v3_small"
    """Of the crop."""
    pretrained: bool = False
    """Begin with ImageNet weights: they learn at a tenth of the rate, after `frozen_epochs`."""
    frozen_epochs: Annotated[int, Meta(ge=0)] = 20
    threads: Count = 2
    seed: Annotated[int, Meta(ge=0)] = 0

    def changed(self, changes: Sequence[str]) -> FitSettings:
        """With changes such as `mixup=0.4` or `without=jitter,shear`, which adds to a list; raises UserError for one
        that makes no sense."""
        values: dict[str, Any] = asdict(self)
        for change in changes:
            name, sign, value = change.partition("=")
            if not sign or name not in values:
                known = ", ".join(field.name for field in fields(self))
                raise UserError(f"{change!r} is not a setting of the training; write NAME=VALUE, NAME one of {known}")
            several = isinstance(values[name], (tuple, list))
            values[name] = [*values[name], *filter(None, value.split(","))] if several else value
            try:
                msgspec.convert(values, type=FitSettings, strict=False)
            except msgspec.ValidationError as error:
                choice = f"; there are {', '.join(get_args(Backbone))}" if name == "backbone" else ""
                raise UserError(f"{change!r} makes no sense: {str(error).partition(' - at ')[0]}{choice}") from None
        settings = msgspec.convert(values, type=FitSettings, strict=False)
        changed_faults(settings.without, settings.strengths)
        return settings
