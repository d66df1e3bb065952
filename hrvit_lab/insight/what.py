"""The names of what ``hrvit-lab insight`` shows, without any slow import."""

WHAT = {
    "attention": "where a pixel attends, in every branch and stage, and in every head of one block",
    "rollout": "where the tokens of a pixel come from, through all blocks and fusions",
    "contributions": "what attention, parallel convolution, shortcut and FFN add to the residual stream",
    "statistics": "attention distance, entropy, and diversity of heads",
    "receptive_field": "which pixels change a token, with the areas of 50 and 99 %",
    "similarity": "similarity of branches and stages (CKA)",
    "features": "features of every branch and stage as colours (PCA)",
    "evidence": "where a class is seen, by gradients and by occlusion",
    "segments": "a segmenter's prediction, entropy and errors",
}
"""Names and descriptions. `hrvit_lab.insight.views_command` has a function for each."""
