"""transferlens: what ImageNet-pretrained CNNs bring to audio, and where in the network it sits.

``import transferlens as tl``, and then

=======================================================  =============================================================
tl.open_dataset("clips.csv")                             clips with labels and folds: your table, or a known data set
tl.log_mel(y, sr=22050)                                  the features of one clip, three channels
tl.TransferPlan.freeze(2)                                which blocks start pretrained, are frozen, are kept
tl.Study("clips.csv", backbone="resnet18", folds=1)      names runs of a plan and trains those that are missing
tl.list_runs("runs"), tl.load_run(path)                  what has been trained; one `tl.Run`, with its network
tl.svcca(X, Y), tl.pwcca(X, Y), tl.cka(X, Y)             similarity of activations, (n_samples, n_neurons) each
tl.attribute(network, x, targets=..., baseline=...)      Integrated Gradients and other attributions
=======================================================  =============================================================

Every question of the study is a function that trains what is missing and returns a result with ``.table()``,
``.plot()``, ``.summary()`` and ``.write(folder)``:

=======================================================  =============================================================
tl.pretraining("clips.csv")                              pretrained against random initialisation
tl.freeze, tl.fuse, tl.truncate, tl.probe, tl.plan_grid  which blocks hold the knowledge: accuracy by block
tl.statistics, tl.reverse, tl.surgical, tl.norm          features or scale; later blocks, one block, norms alone
tl.sources("clips.csv", source=["a=run.h5", "b=auto"])   which start is best for these clips
tl.samples("clips.csv", backbone="resnet18")             how many labelled clips pretraining saves
tl.recipes("clips.csv")                                  which way of fine-tuning is best, clean and corrupted
tl.rank("clips.csv", against="probe")                    which network and block suits these clips, without training
tl.svcca(run), tl.saliency(run)                          how much layers have changed; what the network looks at
tl.league(runs)                                          which method of attribution can be believed
tl.rewind(runs), tl.paths(runs)                          blocks put back; the line between two networks
tl.ensemble(runs), tl.robustness(runs)                   averaged outputs; corrupted clips
tl.classes(runs), tl.versus([a, b])                      scores by class; two runs or arms against each other
tl.input_form, tl.selection, tl.duplicates               how the input is made; which epoch; near-duplicate clips
tl.train, tl.tables, tl.report                           any plan; the paper's tables; all of it as one page
tl.predict(runs, files=["new/"])                         classes of new files, whole or in windows
tl.embed(run, files=["new/"], block=3)                   the output of any block for new files
=======================================================  =============================================================

``help(tl.truncate)`` explains a question and all its options, whose names are those of the command line: ``--block 2
3`` is ``block=[2, 3]``. Modules are imported when they are first used.
"""

import os as _os

import lazy_loader as _lazy

# Threads that wait for each other leave the core to others, which takes effect if it is set before torch is imported:
# threads that spin make training many times slower as soon as another program runs.
_os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Worker processes get large pages of memory, which training goes through a tenth faster.
_os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")

__version__ = "0.1.0"

# Each question is a module that can be called; __init__.pyi tells type checkers the same.
_QUESTIONS = (
    "classes", "duplicates", "embed", "ensemble", "freeze", "fuse", "input_form", "league", "norm", "paths",
    "plan_grid", "predict", "pretraining", "probe", "rank", "recipes", "report", "reverse", "rewind", "robustness",
    "saliency", "samples", "selection", "sources", "statistics", "surgical", "svcca", "tables", "train", "truncate",
    "versus",
)  # fmt: skip

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=_QUESTIONS,
    submod_attrs={
        "compare.question": ["Result"],
        "data.catalogue": ["open_dataset"],
        "data.clips": ["DataSet"],
        "features.logmel": ["log_mel"],
        "measures.attribution": ["attribute"],
        "measures.similarity": ["cka", "procrustes", "pwcca"],
        "models.plan": ["TransferPlan"],
        "store.listing": ["list_runs"],
        "store.run": ["Run", "load_run", "load_runs"],
        "training.sweep": ["Study"],
    },
)
