"""Random problems, files and faults, each judged by what a user would see: ``make fuzz``."""
