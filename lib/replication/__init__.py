"""Parameters, notebook runs, units of work, provenance and claims."""
