"""Transforms from images of a data set to inputs of a network, for classification and segmentation."""
