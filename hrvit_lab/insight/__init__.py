"""Look inside a network: attention maps, contributions of parts, receptive fields, similarity, features, evidence.

Functions take a network and an image and return numpy arrays or small frozen dataclasses. Nothing here draws; the
figures are in ``hrvit_lab/plots/insight``. Networks are read through forward hooks on named places, in evaluation mode,
with the fused attention kernels.
"""
