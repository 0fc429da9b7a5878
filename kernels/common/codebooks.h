// Magnitudes of the codebooks for N(0,1), as turboquant has them (a test compares every number).
#pragma once
constant float kMagnitudes2[2] = {0.452780f, 1.510418f};
constant float kMagnitudes3[4] = {0.245094f, 0.756005f, 1.343909f, 2.151946f};
constant float kMagnitudes4[8] = {0.128395f, 0.388048f, 0.656759f, 0.942340f,
                                  1.256231f, 1.618046f, 2.069017f, 2.732589f};
constant float kMagnitudes5[16] = {0.065890f, 0.198052f, 0.331378f, 0.466700f, 0.604934f, 0.747136f,
                                   0.894565f, 1.048783f, 1.211804f, 1.386340f, 1.576228f, 1.787233f,
                                   2.028728f, 2.317739f, 2.691120f, 3.260732f};
// tq4: t (1.80381 + .88490 t^2) at t = 1/15, 3/15 .. 1
constant float kMagnitudesCubic[8] = {0.120516196f, 0.367841214f, 0.634044111f, 0.931710064f,
                                      1.27342451f,  1.67177236f,  2.13933921f,  2.68870997f};
