from .edge.driver import edge_probes as edge_probes
from .feature_store import FeatureStore as FeatureStore
from .structural.driver import structural_probes as structural_probes
from .structural.training import Probes as Probes
from .structural.training import train_probes as train_probes
from .vectors import WordVectors as WordVectors
from .vectors import extract as extract
