from .config import StudyConfig as StudyConfig
from .reader import read_study as read_study
from .run import run_study as run_study
from .run import study_stages as study_stages
