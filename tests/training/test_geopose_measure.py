"""What is said of confidence holds for other people too."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from training.geopose import measure


def test_temperature_brings_confidence_to_accuracy() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 4000)
    honest = rng.normal(0, 1, (4000, 4))
    honest[np.arange(4000), labels] += 1.0
    assert abs(measure.fit_temperature(honest * 3, labels) / measure.fit_temperature(honest, labels) - 3) < 0.1


def test_the_threshold_is_never_below_one_half_so_that_family_and_chamber_agree_with_the_label() -> None:
    probabilities = np.tile([0.9, 0.1], (50, 1))
    assert measure.fit_threshold(probabilities, np.zeros(50, int)) == (0.5, True)


def test_the_threshold_keeps_its_promise_to_people_whom_it_was_not_chosen_by() -> None:
    rng = np.random.default_rng(0)
    kept = []
    for _ in range(200):
        confidence = rng.uniform(0.5, 1.0, 1300)
        right = rng.random(1300) < confidence  # calibrated: confidence is the share that is right
        chosen_by, others = slice(0, 300), slice(300, None)
        probabilities = np.column_stack([confidence, 1 - confidence])
        threshold = measure.fit_threshold(probabilities[chosen_by], (~right[chosen_by]).astype(int)).value
        kept.append(right[others][confidence[others] >= threshold].mean() >= 0.9)
    assert np.mean(kept) > 0.85


def test_a_promise_that_no_threshold_keeps_is_hardly_ever_made() -> None:
    """The luckiest of all thresholds would promise it in a fifth of the trainings."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(300):
        confidence = rng.uniform(0.5, 1.0, 300)
        wrong = rng.random(300) >= 0.895
        made.append(measure.fit_threshold(np.column_stack([confidence, 1 - confidence]), wrong.astype(int)).certain)
    assert np.mean(made) < 0.07


def test_the_promise_is_that_of_the_exact_bound() -> None:
    """Of 72 answers of which nine of ten are right, 69 or more come in 6 % of all cases, 70 or more in 2 %."""
    for hits, certain in ((69, False), (70, True)):
        probabilities = np.tile([0.9, 0.1], (72, 1))
        assert measure.fit_threshold(probabilities, (np.arange(72) >= hits).astype(int)).certain == certain


def test_of_fewer_than_five_people_there_is_no_interval() -> None:
    right = np.arange(40) % 3 > 0
    assert measure.person_interval(right, np.array(["anna", "ben", "cleo", "dan"] * 10)) is None
    assert measure.interval_text(None) == "too few people"
    assert measure.person_interval(right, np.arange(40) % 5) is not None


def test_with_too_few_people_to_be_certain_the_surest_threshold_is_taken() -> None:
    confidence = np.array([0.55, 0.6, 0.65, 0.9, 0.91, 0.92])
    probabilities = np.column_stack([confidence, 1 - confidence])
    value, certain = measure.fit_threshold(probabilities, np.array([1, 1, 1, 0, 0, 0]))
    assert 0.65 <= value <= 0.9 and not certain


def test_where_no_accepted_answer_is_right_the_highest_threshold_is_taken() -> None:
    confidence = np.array([0.55, 0.7, 0.97])
    for sure in (confidence, confidence / 2):  # all wrong, and none accepted
        probabilities = np.column_stack([sure, 1 - sure, 0 * sure])
        assert measure.fit_threshold(probabilities, np.full(3, 2)) == (0.95, False)
