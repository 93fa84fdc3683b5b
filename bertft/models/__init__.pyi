from .encoder import Encoder as Encoder
from .finetuning.evaluation import load_finetuned as load_finetuned
from .finetuning.run import FinetuneConfig as FinetuneConfig
from .finetuning.run import FinetuneResult as FinetuneResult
from .finetuning.run import finetune as finetune
