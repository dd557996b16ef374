"""Makes the stick detector: crops from renders and real clips in, `models/stick_*` out.

The shipped weights come from runs of `arnis-train detector`, each beginning with the weights of the one before
(`--init`): 750, 1,000 and 4,000 steps of 16 crops without the body, then 6,000 and 1,500 with it, on 9,576 renders (a
quarter of them at 1280x720; new input channels began as zeros). The last two took 80 minutes on two cores. Told of
wrists, elbows and shoulders, and trained longer, it finds both ends of 1 to 3 sticks in 100 more of unseen people.
What it still misses points nearly at the lens, has its grip behind the body, or is as dark as what is behind it.

Going on from these weights with the same crops changed nothing any more: of sticks drawn into held-out clips 42 in 100
were found before and after 2,400 steps on 2,970 new renders. So they learnt to look from close by: half of the crops
hold what one hand reaches, a third larger to the network's 224 pixels than what both do (`stages.stick_crop`), cut from
crops kept at 512 instead of 352 pixels. 2,100 steps of 16 on 5,040 renders of 560 other people and 534 frames of clips
took 25 minutes. Both ends right, of 306 sticks drawn into held-out clips and of 740 in hard renders of people never
learnt from; sticks seen in these frames without one, and in 375 frames of the clips learnt from:

                                            drawn    renders   none there   learnt from
    both hands' reach, before (0.79)        0.405     0.834      0.016        0.005
    the surest of three, before (0.90)      0.493     0.831      0.016        0.056
    the surest of three, after (0.93)       0.539     0.843      0.016        0.003
    the hand that holds it, after (0.93)    0.503     0.828

In parentheses the presence from which a stick counts. The last was chosen so that the held-out frames show as many that
are not there as before; the card's rate of these is no test of it.

There are three scenes of real people to learn from; and of the eight clips one alone is empty in the median of its
frames, so that backgrounds are photographs.
"""
