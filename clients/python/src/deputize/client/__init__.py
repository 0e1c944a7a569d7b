"""The verification core."""
