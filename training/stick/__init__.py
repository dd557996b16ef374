"""Makes the stick detector: crops from renders and real clips in, `models/stick_*` out.

The shipped weights come from runs of `arnis-train detector`, each beginning with the weights of the one before
(`--init`): 750, 1,000 and 4,000 steps of 16 crops without the body, then 6,000 and 1,500 with it, on 9,576 renders (a
quarter of them at 1280x720; new input channels began as zeros). The last two took 80 minutes on two cores. Told of
wrists, elbows and shoulders, and trained longer, it finds both ends of 1 to 3 sticks in 100 more of unseen people.
What it still misses points nearly at the lens, has its grip behind the body, or is as dark as what is behind it.

Going on from these weights changes nothing any more. 2,400 steps on 2,970 new renders, the hardest third drawn twice as
often, and 40 instead of 25 % of clips with sticks drawn in, compared where before and after see as many sticks that are
not there (in 1.6 % of the frames of held-out clips): both ends are right in 42 and 42 % of the sticks that were drawn
into held-out clips (another draw than the card's, which gives 37), in 83 and 84 % of those of one set of renders of
unseen people and in 85 and 84 % of another. There are three scenes of real people to learn from; and of the eight clips
one alone is empty in the median of its frames, so that backgrounds are photographs.
"""
