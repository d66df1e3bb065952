"""From the images of a data set to what a network reads: one file for classification, one for segmentation."""
