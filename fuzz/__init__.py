"""Random problems and files, each tried by what a user would see: ``make fuzz``."""
