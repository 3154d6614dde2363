"""Networks by named preset. Each is called as `network(x, logsnr, labels)` and returns what it predicts."""

from tract_ray.networks.presets import NetworkPreset, build_network, count_parameters, presets
from tract_ray.networks.unet import UNet

__all__ = ["NetworkPreset", "UNet", "build_network", "count_parameters", "presets"]
