"""The models a defender trains."""
