"""What goes to MLflow. Runs write their record to files; this room ships it, and waits while the server is away."""

from tract_ray.tracking.moved import mend_moved
from tract_ray.tracking.provenance import provenance
from tract_ray.tracking.redaction import error_line, redact
from tract_ray.tracking.shipper import Shipper
from tract_ray.tracking.store import MlflowStore, check_reachable, tracking_uri, ui_command

__all__ = [
    "MlflowStore",
    "Shipper",
    "check_reachable",
    "error_line",
    "mend_moved",
    "provenance",
    "redact",
    "tracking_uri",
    "ui_command",
]
