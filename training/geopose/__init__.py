"""GeoPose-Net: names the pose from the graph of body and stick and from the picture of the weapon hand.

`training/MODELS.md` tells how the shipped weights were made.
"""
