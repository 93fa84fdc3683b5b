from .encoder import Encoder as Encoder
from .finetuning.config import FinetuneConfig as FinetuneConfig
from .finetuning.evaluation import load_finetuned as load_finetuned
from .finetuning.run import FinetuneResult as FinetuneResult
from .finetuning.run import finetune as finetune
from .names import resolve_model as resolve_model
