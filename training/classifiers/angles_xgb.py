"""Gradient-boosted trees (XGBoost, Chen & Guestrin 2016) on joint and stick angles."""

from xgboost import XGBClassifier

from training.classifiers.trees import TreeModel, angle_features

MODEL = TreeModel(
    "angles_xgb",
    angle_features,
    lambda settings: XGBClassifier(
        n_estimators=200, max_depth=4, learning_rate=0.1, subsample=0.8, colsample_bytree=0.8,
        n_jobs=settings.threads, random_state=settings.seed,
    ),
)  # fmt: skip
