"""Makes the stick detector: crops from renders and real clips in, `models/stick_*` out.

The shipped weights come from runs of `arnis-train detector`, each beginning with the weights of the one before
(`--init`): 750, 1,000 and 4,000 steps of 16 crops without the body, then 6,000 and 1,500 with it, on 9,576 renders (a
quarter of them at 1280x720; new input channels began as zeros). The last two took 80 minutes on two cores. Told of
wrists, elbows and shoulders, and trained longer, it finds both ends of 1 to 3 sticks in 100 more of unseen people.
What it still misses points nearly at the lens, has its grip behind the body, or is as dark as what is behind it.

Going on from these weights with the same crops changed nothing any more: of sticks drawn into held-out clips 42 in 100
were found before and after 2,400 steps on 2,970 new renders. So they learnt to look from close by: half of the crops
hold what one hand reaches, which comes out larger (by a third in the held-out clips, by a half in portrait ones, by 4
to 7 % in renders, where the hands are close together), cut from crops kept at 512 instead of 352 pixels. 2,100 steps
of 16 on 5,040 renders of 560 other people and 534 frames of clips took 25 minutes. Both ends right and sticks reported
wrong, of 306 drawn into held-out clips and of 740 in hard renders of people never learnt from; sticks seen in these
frames of clips without one, and in 375 frames of the clips learnt from:

                                              drawn         renders      none there   learnt from
    before, what both hands reach (0.79)   0.405  0.069   0.834  0.073     0.016        0.005
    before, the surest of three (0.90)     0.493  0.075   0.831  0.086     0.016        0.056
    after, what both hands reach (0.93)    0.340  0.056   0.830  0.066     0.003        0.000
    after, the surest of three             0.539  0.065   0.843  0.081     0.016        0.003
    after, the hand with it, else both     0.536  0.039   0.843  0.072
    after, the hand with it alone          0.503  0.033   0.828  0.068

In parentheses the presence from which a stick counts. The last was chosen so that the held-out frames show as many that
are not there as before; the card's rate of these is no test of it. The program takes three looks at somebody new, that
of the hand alone in movement; in a hold another at what both reach where the hand shows none (always both: 0.529 and
0.846, at 2 looks in place of 1.5 and 1.1).

There are three scenes of real people to learn from; and of the eight clips one alone is empty in the median of its
frames, so that backgrounds are photographs.
"""
