"""What NVML says of every GPU: one probe reads it all, a dozen checks think about it.

Only readings; nothing here touches a GPU's work. The checks share the probe, and the runner asks
it once for all of them.
"""
