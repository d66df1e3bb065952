"""One supernet over a space: the weights of its largest network, of which all others use parts.

Sources: arXiv 1908.09791 (Once-for-All), section 3; arXiv 2003.11142 (BigNAS), section 3, whose sandwich rule is
arXiv 1903.05134's.
"""
