from . import cli as cli
from . import data as data
from . import models as models
from . import ops as ops
from . import probes as probes
from . import report as report
from . import runs as runs
from . import similarity as similarity
from . import study as study
from .errors import BertftError as BertftError
from .models.encoder import Encoder as Encoder
from .models.finetuning.config import FinetuneConfig as FinetuneConfig
from .models.finetuning.evaluation import load_finetuned as load_finetuned
from .runs.rows import Row as Row
from .runs.rows import Rows as Rows
from .runs.rows import read_results as read_results
from .runs.rows import to_arrow as to_arrow
from .runs.rows import to_pandas as to_pandas
from .runs.rows import write_results as write_results
from .study.config import StudyConfig as StudyConfig
from .study.diff.result import Difference as Difference
from .study.diff.run import diff as diff
from .study.run import run_study as run_study

__version__: str
