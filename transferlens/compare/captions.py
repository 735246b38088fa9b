"""Titles of figures and tables, and what they show, for the report."""

# Stem of a figure -> its title and what it shows.
FIGURES = {
    "pretrained_vs_scratch": (
        "Question 1: pretrained against random initialisation",
        "Left: accuracy of each fold (dots) with mean and 95 % interval (diamond); hollow dots are the epoch best on "
        "the held-out fold, which is optimistic. Right: held-out accuracy by epoch.",
    ),
    "freeze": (
        "Question 2: frozen blocks",
        "Accuracy if the blocks up to K keep their pretrained weights, and only the others are trained.",
    ),
    "fuse": (
        "Question 2: partial pretrained weights",
        "Accuracy if only the blocks up to K start from pretrained weights, and the others from random ones.",
    ),
    "truncate": (
        "Question 2: truncation",
        "Accuracy of the network cut after Block K, pretrained and from scratch, and against its size.",
    ),
    "statistics": (
        "Features or scale",
        "Accuracy if the blocks up to K start from pretrained weights, and the others from random ones, from the mean "
        "and deviation of the pretrained ones, or from their values in random order.",
    ),
    "reverse": (
        "Later blocks without earlier ones",
        "Accuracy if only the blocks from K on start from pretrained weights, and those before them from random ones.",
    ),
    "surgical": ("One block trained", "Accuracy if only Block K of the pretrained network and the head are trained."),
    "norm": (
        "Normalisation layers alone",
        "Accuracy if only normalisation layers are trained up to Block K, with pretrained and with random filters.",
    ),
    "anomaly": (
        "A pretrained stem before random blocks",
        "Accuracy of ways to start and to train the stem, each less its reference, paired by fold; losses by epoch.",
    ),
    "sources": (
        "Sources of the initial weights",
        "Accuracy with each start, and below the difference to the reference, paired by fold. Permuted values have the "
        "scale of a source and none of its features.",
    ),
    "samples": (
        "How many labelled clips pretraining saves",
        "Accuracy against clips per class, and below how many times the clips training from scratch needs to be as "
        "good as each arm.",
    ),
    "recipes": (
        "Recipes of fine-tuning",
        "Accuracy with each recipe, and below the difference to the plain one, on clean and on corrupted clips, paired "
        "by fold.",
    ),
    "probe": (
        "Question 2: linear probes",
        "Accuracy of a linear head on the output of Block K, with all blocks up to K frozen.",
    ),
    "rank": (
        "Scores without training",
        "LogME and nearest neighbours' accuracy of each block's output; below, against accuracies of finished runs.",
    ),
    "plan_grid": ("Question 2: the plan space", "Accuracy over truncation and pretraining or freezing, by block."),
    "svcca": (
        "Question 2: change of representations",
        "SVCCA of every layer before and after training against depth: 1 is unchanged up to a linear map. The hatched "
        "band is the noise floor of two seeds. Below: the excess over clips that are paired with other clips.",
    ),
    "svcca_matrix": (
        "Question 2: blocks against blocks",
        "Debiased linear CKA of each block's pooled output with every other's, before and after training.",
    ),
    "rewind": (
        "Which blocks needed training",
        "Accuracy with blocks put back to where they started, as is (hollow) and with BatchNorm statistics estimated "
        "anew (full), and what each block needed; below, how far each block moved.",
    ),
    "paths": (
        "Straight lines between networks",
        "Accuracy and loss from the start of a run to its end, between seeds, and between ways of training; thick "
        "lines are means. A hump of the loss is a barrier.",
    ),
    "input_form": (
        "Question 3: the form of the input",
        "Accuracy with other windows, fit and normalisation, and what a resize to one width leaves of time stretching.",
    ),
    "ensemble": (
        "Question 4: ensembles",
        "Accuracy of single networks and ensembles, accuracy against size, where the gain comes from, and calibration.",
    ),
    "robustness": (
        "Question 4: robustness",
        "Accuracy of single networks (dashed) and ensembles (full) as the held-out clips are corrupted.",
    ),
    "classes": (
        "Which classes the networks know",
        "Share of each class that is classified as each; recall by class with its interval, and by how much "
        "pretraining and ensembles change it.",
    ),
    "versus": (
        "Two networks against each other",
        "Learning curves and accuracy; recall by class, and by how much the first is better.",
    ),
    "selection": (
        "Which epoch is reported",
        "Accuracy after the last epoch, at the epoch best on the held-out fold, and at that chosen on an inner fold.",
    ),
    "saliency": (
        "Question 5: what the networks look at",
        "Attributions of held-out clips: red cells speak for the target class, blue ones against it.",
    ),
    "league": (
        "Methods of attribution against known answers",
        "Scores of each method with 95 % intervals, the best first, and the rank correlation of the maps of any two.",
    ),
    "saliency_summary": (
        "Question 5: the claims as numbers",
        "Where attributions lie, whether they are faithful, and what randomising blocks does to them.",
    ),
}
# Stem of a table of `classes` -> its title, and its columns with their heads.
# Of the scores by class where clips have several labels.
LABEL_COLUMNS = {"network": "network", "who": "who", "label": "class", "n_clips": "clips"} | {
    "average_precision": "average precision [%]",
    "average_precision_low": "low [%]",
    "average_precision_high": "high [%]",
}
TABLES = {
    "classes": (
        "Scores by class",
        {"network": "network", "who": "who", "label": "class", "n_clips": "clips"}
        | {name: f"{name} [%]" for name in ("recall", "precision", "f1")},
    ),
    "classes_mistakes": (
        "The surest mistakes",
        {"network": "network", "clip": "clip", "fold": "fold", "label": "class", "predicted": "classified as"}
        | {"confidence": "confidence [%]"},
    ),
}
