"""Figure 4: task scores by the number of blocks left."""

from __future__ import annotations

from experiments.fig3_freezing import RepeatedSweep

EXPERIMENT = RepeatedSweep("truncate", "fig4_truncation", 120)
