"""The training methods under one protocol. Importing the package registers every method."""

from tract_ray.distillation.base import Distillation, DistillationConfig
from tract_ray.distillation.consistency import Consistency, ConsistencyConfig
from tract_ray.distillation.denoising import Denoising, DenoisingConfig
from tract_ray.distillation.draws import Draws, PartOfDraws, derive_seed
from tract_ray.distillation.ema import EMA, heuristic_mu
from tract_ray.distillation.initialisation import copy_shared_layers
from tract_ray.distillation.method import Batch, Method, MethodConfig, methods, num_classes
from tract_ray.distillation.moment_matching import MomentMatching, MomentMatchingConfig
from tract_ray.distillation.moment_matching_instant import InstantMomentMatching, InstantMomentMatchingConfig
from tract_ray.distillation.phases import Phase, lay_out_phases, parse_time_schedule, phase_at
from tract_ray.distillation.progressive import Progressive, ProgressiveConfig
from tract_ray.distillation.reconstruction import Snapshot, coefficients, predicted_error, propose, reconstruct
from tract_ray.distillation.recorder import AverageFolder, AverageRecorder
from tract_ray.distillation.regression import Regression, RegressionConfig
from tract_ray.distillation.tract import Tract, TractConfig, TractEDM, TractEDMConfig

__all__ = [
    "EMA",
    "AverageFolder",
    "AverageRecorder",
    "Batch",
    "Consistency",
    "ConsistencyConfig",
    "Denoising",
    "DenoisingConfig",
    "Distillation",
    "DistillationConfig",
    "Draws",
    "InstantMomentMatching",
    "InstantMomentMatchingConfig",
    "Method",
    "MethodConfig",
    "MomentMatching",
    "MomentMatchingConfig",
    "PartOfDraws",
    "Phase",
    "Progressive",
    "ProgressiveConfig",
    "Regression",
    "RegressionConfig",
    "Snapshot",
    "Tract",
    "TractConfig",
    "TractEDM",
    "TractEDMConfig",
    "coefficients",
    "copy_shared_layers",
    "derive_seed",
    "heuristic_mu",
    "lay_out_phases",
    "methods",
    "num_classes",
    "parse_time_schedule",
    "phase_at",
    "predicted_error",
    "propose",
    "reconstruct",
]
