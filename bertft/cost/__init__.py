"""What a run would cost before it runs: time, disk and memory of every stage, from a few seconds of the real work."""

from bertft.cost.measure import StageCost
from bertft.cost.study import Estimate, estimate_finetune, estimate_study, estimate_sweep

__all__ = ["Estimate", "StageCost", "estimate_finetune", "estimate_study", "estimate_sweep"]
