"""Sweeps: expand, plan, run, keep."""

from mtl.sweep.expand import Hyper, chain, product, sweep, sweeps_of, zipit

__all__ = ["Hyper", "chain", "product", "sweep", "sweeps_of", "zipit"]
