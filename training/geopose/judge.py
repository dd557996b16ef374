"""Calibrates a network on people it was not trained on and takes its figures on people it has never met."""

from __future__ import annotations

import logging
from typing import Any

from torch import nn

from stages.classes import ClassFile
from stages.classify import class_probabilities
from training.geopose import measure
from training.geopose.data import PoseTable
from training.geopose.fit import predict

log = logging.getLogger(__name__)


def calibrate(model: nn.Module, validation: PoseTable) -> tuple[float, measure.Threshold]:
    """Temperature and threshold, from people who were not trained on."""
    logits, labels = (t.numpy() for t in predict(model, validation.mirrored(validation.wrong_hand)))
    temperature = measure.fit_temperature(logits, labels)
    threshold = measure.fit_threshold(class_probabilities(logits, temperature), labels)
    log.info("temperature %.3f, threshold %.2f", temperature, threshold.value)
    if not threshold.certain:
        log.warning("%d validation pictures are too few, or too often mistaken, to show with 95 %% certainty that nine "
                    "of ten accepted answers are right: the surest threshold was taken; picture more people",
                    len(labels))  # fmt: skip
    return temperature, threshold


def judge(
    model: nn.Module, test: PoseTable, classes: ClassFile, temperature: float, threshold: float
) -> dict[str, Any]:
    """All figures on test people, with the crops and without; with the hand known, as votes over a video make it, and
    as one picture tells it."""
    single, labels = (t.numpy() for t in predict(model, test))
    known = test.mirrored(test.wrong_hand)
    alone = predict(model, known.without_crops())[0].numpy()
    return {
        **figures_of(model, known, classes, temperature, threshold),
        "top1_hand_from_one_picture": float((single.argmax(1) == labels).mean()),
        "hand_mistaken": float(test.wrong_hand.mean()),
        "top1_without_crop": float((alone.argmax(1) == labels).mean()),
    }


def figures_of(
    model: nn.Module, table: PoseTable, classes: ClassFile, temperature: float, threshold: float
) -> dict[str, Any]:
    """`measure.report` of a table as it is."""
    logits, labels = (t.numpy() for t in predict(model, table))
    probabilities = class_probabilities(logits, temperature)
    return measure.report(probabilities, labels, table.people, table.views, classes, threshold)
