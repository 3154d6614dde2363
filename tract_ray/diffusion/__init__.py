"""Noise schedules, the x0 view of a network, step functions and samplers; plain torch."""

from tract_ray.diffusion.denoiser import PRECISIONS, Denoiser, predictions
from tract_ray.diffusion.gaussian import GaussianDenoiser
from tract_ray.diffusion.guidance import NO_CLASS, GuidedDenoiser
from tract_ray.diffusion.heun import sample_heun
from tract_ray.diffusion.samplers import Sampler, check_options, samplers, teacher_sampling
from tract_ray.diffusion.sampling import initial_state, sample_ancestral, sample_ddim, sample_euler
from tract_ray.diffusion.schedules import CosineVP, KarrasVE, NoiseSchedule, build_schedule, schedules
from tract_ray.diffusion.steps import add_noise, ancestral_step, ddim_step, heun_step, invert_ddim_step
from tract_ray.diffusion.weighting import loss_weight, weightings

__all__ = [
    "NO_CLASS",
    "PRECISIONS",
    "CosineVP",
    "Denoiser",
    "GaussianDenoiser",
    "GuidedDenoiser",
    "KarrasVE",
    "NoiseSchedule",
    "Sampler",
    "add_noise",
    "ancestral_step",
    "build_schedule",
    "check_options",
    "ddim_step",
    "heun_step",
    "initial_state",
    "invert_ddim_step",
    "loss_weight",
    "predictions",
    "sample_ancestral",
    "sample_ddim",
    "sample_euler",
    "sample_heun",
    "samplers",
    "schedules",
    "teacher_sampling",
    "weightings",
]
