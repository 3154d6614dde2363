"""The `tract-ray` command and the command line of sweep scripts; one file a group of commands."""
