"""A question of your own in one file, with all options: python examples/new_question.py --folds 1 --epochs 2"""

import sys
from dataclasses import dataclass, replace

from transferlens import Study, TransferPlan, cli, options
from transferlens.compare.question import Question, Result


@dataclass(frozen=True)
class Answer(Result):
    stem = "learning_rate"
    rows: tuple  # its table() is a DataFrame; with draw(result) in this file it has a figure too


def points(chosen):
    study, plan = Study.of(chosen), TransferPlan.finetune()
    return {lr: study.arm(plan, replace(study.training(plan), lr=lr)) for lr in (1e-4, 1e-3)}


def analyse(runs, chosen):
    rows = [(lr, run) for lr, runs_of_arm in runs.items() for run in runs_of_arm]
    return Answer(tuple({"lr": lr, "fold": run.config.fold, "accuracy": run.accuracy_last} for lr, run in rows))


def summary(result):
    return "\n".join(f"lr {row['lr']:g}, fold {row['fold']}: {row['accuracy']:.1%}" for row in result.rows)


learning_rate = Question("learning_rate", options.QuestionOptions, analyse, points)
if __name__ == "__main__":
    sys.exit(cli.Command("learning_rate", options.QuestionOptions, learning_rate)())
