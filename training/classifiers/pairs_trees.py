"""Extremely randomised trees (Geurts et al. 2006) on the differences between all pairs of nodes."""

from sklearn.ensemble import ExtraTreesClassifier

from training.classifiers.trees import TreeModel, pair_features

MODEL = TreeModel(
    "pairs_trees",
    pair_features,
    lambda settings: ExtraTreesClassifier(
        400, max_features=0.3, n_jobs=settings.threads, random_state=settings.seed
    ),
)  # fmt: skip
