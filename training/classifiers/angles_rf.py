"""Random forest (Breiman 2001) on joint and stick angles."""

from sklearn.ensemble import RandomForestClassifier

from training.classifiers.trees import TreeModel, angle_features

MODEL = TreeModel(
    "angles_rf",
    angle_features,
    lambda settings: RandomForestClassifier(
        300, min_samples_leaf=2, n_jobs=settings.threads, random_state=settings.seed
    ),
)
