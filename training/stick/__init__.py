"""Makes the stick detector: crops from renders and real clips in, `models/stick_*` out.

The shipped weights come from three runs of `arnis-train detector`, each beginning with the weights of the one before
(`--init`): 750, 1,000 and 4,000 steps of 16 crops, the last in 70 minutes on two busy cores (`--epochs 10
--samples 6400`). Both ends right on test people, at any threshold: 0.80 after the second, 0.81 after the last. More
training hardly helps: a stick is 1 to 3 pixels thick in the network's 224, and of people whose torso measures up to 80,
up to 120 and over 120 pixels 0.75, 0.80 and 0.86 are right. A fourth run of 2,100 steps, with 2,400 pictures at
1280x720 beside the 7,200 of before, moved nothing (0.87 to 0.86 on other people at that size) and is not shipped.
"""
