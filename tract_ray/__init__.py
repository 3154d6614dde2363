"""Few-step diffusion samplers by transitive closure time-distillation, searched on a Ray cluster."""

__version__ = "0.1.0"
