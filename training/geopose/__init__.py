"""GeoPose-Net: names the pose from the graph of body and stick and from the picture of the weapon hand.

The shipped model was made in seven rounds, each beginning with the weights of the one before (`--start`); minutes on
one busy core in brackets. All had `--pretrained --set backbone=efficientnet_lite0`; `exact` and `seen` are what `see`
wrote of 1,000 people, with `--truth` and without; `again` is `seen` with the stick detector of now.

    fit --seen exact --epochs 10 --batch 128 --rate 1e-3 --drawn 12000 --set frozen_epochs=1 --set averaging=0.995  (27)
    fit --seen seen --epochs 7 --batch 128 --rate 5e-4 --drawn 12000 --set frozen_epochs=0 --set averaging=0.995    (19)
    fit --seen seen --epochs 5 --batch 256 --rate 6e-4 --drawn 40000 --set frozen_epochs=5    (stopped after 4; 9)
    fit --seen seen --epochs 7 --batch 256 --rate 1e-3 --drawn 60000 --graph-only                                    (6)
    fit --seen seen --epochs 2 --batch 256 --rate 6e-4 --drawn 50000 --set frozen_epochs=3 --crop-dropout 0.2        (6)
    fit --seen again --epochs 4 --batch 256 --rate 8e-4 --drawn 40000 --set frozen_epochs=0 --set averaging=0.99     (7)
    fit --seen again --epochs 3 --batch 256 --rate 6e-4 --drawn 50000 --set frozen_epochs=3 --set averaging=0.99     (7)

`--crop-dropout` was 0.25 in the rounds before the fifth, 0.2 from there on. Top-1 of 12 poses on real keypoints, and of
13 classes on rendered test people as seen: 0.618 and 0.645 after the second round, 0.665 (real) after the fourth, 0.672
and 0.674 after the fifth, 0.679 and 0.674 (as seen again) after the last: real keypoints have no pictures, only many
drawn samples teach the graph alone. A stick detector that finds five sticks more in a hundred hardly shows.
"""
