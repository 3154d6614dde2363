"""What a run of a trial is called."""


def trial_name(number: int, repeat: int = 0) -> str:
    """`trial-0007`, with its second seed `trial-0007.1`: the name of its folder and of its MLflow run."""
    return f"trial-{number:04d}" + (f".{repeat}" if repeat else "")
