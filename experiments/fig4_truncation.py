"""Figure 4: score of each task by the number of blocks that are left."""

from __future__ import annotations

from experiments.fig3_freezing import RepeatedSweep

EXPERIMENT = RepeatedSweep("truncate", "fig4_truncation", 120)
