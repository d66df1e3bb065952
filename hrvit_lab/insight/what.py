"""The names of what ``hrvit-lab insight`` shows, without any slow import."""

from typing import NamedTuple


class What(NamedTuple):
    """A view.

    Attributes:
        says: what it shows.
        reads: the fields of `hrvit_lab.insight.views_command.Subject` that it depends on, besides network and image.
            With other fields changed, it is the same.
    """

    says: str
    reads: tuple[str, ...] = ()


WHAT = {
    "attention": What(
        "where a pixel attends, in every branch and stage, and in every head of one block", ("pixel", "block")
    ),
    "rollout": What("where the tokens of a pixel come from, through the network and through each branch", ("pixel",)),
    "contributions": What("what attention, parallel convolution, shortcut and FFN add to the residual stream"),
    "statistics": What("attention distance, entropy, and diversity of heads"),
    "receptive_field": What("which pixels change the tokens of a pixel, with the areas of 50 and 99 %", ("pixel",)),
    "similarity": What("similarity of branches and stages, also to those of a second network (CKA)", ("beside",)),
    "features": What("features of every branch and stage as colours (PCA)"),
    "evidence": What("where a class is seen, by gradients and by occlusion", ("class_number",)),
    "segments": What("a segmenter's prediction, entropy and errors", ("truth",)),
}
"""Views by name. `hrvit_lab.insight.views_command` has a function for each."""
