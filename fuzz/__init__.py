"""Random faults, found by commands that run longer than tests may."""
