"""The training methods under one protocol. Importing the package registers every method."""

from tract_ray.distillation.denoising import Denoising, DenoisingConfig
from tract_ray.distillation.draws import Draws, derive_seed
from tract_ray.distillation.ema import EMA, EMABank, heuristic_mu
from tract_ray.distillation.method import Batch, Method, MethodConfig, methods
from tract_ray.distillation.phases import Phase, lay_out_phases, parse_time_schedule
from tract_ray.distillation.tract import Tract, TractConfig

__all__ = [
    "EMA",
    "Batch",
    "Denoising",
    "DenoisingConfig",
    "Draws",
    "EMABank",
    "Method",
    "MethodConfig",
    "Phase",
    "Tract",
    "TractConfig",
    "derive_seed",
    "heuristic_mu",
    "lay_out_phases",
    "methods",
    "parse_time_schedule",
]
