"""GeoPose-Net: names the pose from the graph of body and stick and from the picture of the weapon hand.

The README's commands made the shipped model: one training of 22 epochs on 1,330 rendered people as the detectors see
them and 40,000 drawn samples an epoch. An epoch took 123 seconds (median) on two cores, so that the whole takes three
quarters of an hour. It took the place of one that had taken seven rounds from weights to weights:

    top-1                                 seven rounds    one training
    1,170 plain renders, as seen             0.684           0.682
    900 hard renders, as seen                0.627           0.631
    real keypoints, 12 poses (1,690)         0.679           0.664

Of the surer half of its answers fewer are wrong on all three tables: of plain renders 10.6 % instead of 11.5, of hard
ones 12.4 instead of 12.9, of real keypoints 13.2 instead of 13.7. Of the surest quarter that holds for plain ones only.
"""
