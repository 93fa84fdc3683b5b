"""Former home of `load_finetuned`, kept because written model cards name it."""

from bertft.models.finetuning.evaluation import load_finetuned as load_finetuned
