"""Checks that make a node work: only where no job runs, one after another.

They need torch, and use GPUs where it finds some, else the CPU, so that everything but the figures
is the same on both. What a figure should be stands in `catalog/expected.yaml` by the GPU's name, or
in the cluster's file; without either it is told and not judged, but for a GPU that falls behind its
neighbours on the same node.
"""
