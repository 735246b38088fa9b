"""A question of your own in one file, with all options: python examples/new_question.py --folds 1 --epochs 2"""

import sys
from dataclasses import dataclass, replace

from transferlens import Study, TransferPlan, cli, options
from transferlens.compare.question import Question, Result


@dataclass(frozen=True)
class Answer(Result):
    stem = "learning_rate"
    rows: tuple  # table() is made of them; a function draw(result) would add a figure


def points(chosen):
    study, plan = Study.of(chosen), TransferPlan.finetune()
    return {lr: study.arm(plan, replace(study.training(plan), lr=lr)) for lr in (1e-4, 1e-3)}


def analyse(runs, chosen):
    return Answer(tuple({"lr": lr, "accuracy": run.accuracy_last} for lr, each in runs.items() for run in each))


def summary(result):
    return result.table().groupby("lr").accuracy.agg(["mean", "count"]).to_string()


ask = Question("learning_rate", options.QuestionOptions, analyse, points)
if __name__ == "__main__":
    sys.exit(cli.Command("learning_rate", options.QuestionOptions, ask)())
