"""Export a finished run for other libraries: timm, onnxruntime, torch alone.

    python -m transferlens.export --ckpt runs/mine/RUN.h5 --to mine

A new folder with the network in each format that is available for it, each checked against the run, and a model card
(``model.md``) that says how to load them. Other formats are named with the reason.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from transferlens import cli
from transferlens.store import export
from transferlens.store.run import load_run
from transferlens.util.fields import Fields
from transferlens.util.terminal import say
from transferlens.util.text import table


@dataclass(frozen=True, kw_only=True)
class Options(Fields):
    """Write a run as files that other libraries load, with a model card."""

    ckpt: Path
    """The run file."""
    to: Path
    """Folder for the files; it must be new, or empty."""
    format: tuple[export.Format, ...] = ()
    """timm: safetensors and config.json in the layout of timm's hub. onnx: for onnxruntime, from features and from
    waveforms. pt2: the same two as programs of torch.export. Default: all that are available."""


def work(options: Options) -> int:
    """Write the files, and print what each is."""
    exported = export.write(load_run(options.ckpt), options.to, options.format)
    rows = [(file.name, file.format, f"{file.difference:.1e}") for file in exported.files]
    say(table([("file", "format", "largest difference of logits"), *rows]))
    for name, why in exported.left_out.items():
        say(f"left out: {name}: {why}")
    say(f"written: {exported.folder}; model.md says how to load each file")
    return cli.DONE


main = cli.command("export", Options, work)

if __name__ == "__main__":
    sys.exit(main())
