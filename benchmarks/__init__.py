"""Measurements, each beside a BEAM's in the same run. They assert nothing."""
