"""Random problems, files and faults: ``python -m fuzz``."""
