"""GeoPose-Net: names the pose from the graph of body and stick and from the picture of the weapon hand.

The shipped model was made in this order (minutes on two shared cores in brackets):

    arnis-train see DATA --out truth --truth                                             (1)
    arnis-train see DATA --out seen --processes 2                                        (8)
    arnis-train fit --seen truth --graph-only --run first --epochs 24 --batch 128 --rate 3e-3 --drawn 9000   (20)
    arnis-train fit --seen seen --exact truth --start first/best.pt --run second ...     (25)
    arnis-train export --seen seen --run second
"""
