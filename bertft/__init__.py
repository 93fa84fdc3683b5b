"""bertft: what did fine-tuning change inside my model?

The public names are listed in ``__init__.pyi`` and imported on first use, so that ``import bertft`` costs nothing.
"""

import sys
import types

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]

# Written model cards name `bertft.evaluation.load_finetuned`.
sys.modules["bertft.evaluation"] = evaluation = types.ModuleType("bertft.evaluation")
evaluation.__getattr__, _, _ = lazy_loader.attach(__name__, None, {"models.finetuning.evaluation": ["load_finetuned"]})

# Trainers look for callbacks in a module of integrations.
sys.modules["bertft.integrations"] = integrations = types.ModuleType("bertft.integrations")
integrations.__getattr__, _, _ = lazy_loader.attach(__name__, None, {"study.drift": ["DriftCallback"]})
