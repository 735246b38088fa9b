"""Decode audio files: the one place that reads them, by blocks, and that trusts no header.

- `load`: the waveform of a file at some rate, `stream`: the same by blocks; `decode`: at the rate of the file;
  `examine`: and how it is encoded
- `length`: how many frames a file really has, also without decoding all of it
- `naming_memory`: a MemoryError becomes an error that names the clip
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from transferlens.util.errors import DataError, MachineError

BLOCK = 2**22  # samples that are decoded at once
LONGEST = 3600.0  # default of the longest clip that is decoded [s]
LOUDEST = 1e6  # largest magnitude of a sample whose power is in the range of float32
RATES = (1000, 768_000)  # [Hz]
OF_MACHINE = {errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOMEM}  # errors that are not of a file
UNKNOWN = 2**62  # [frames], libsndfile reports more if a header does not state the length
FLOATS = ("FLOAT", "DOUBLE")
# Of names of sound files.
ENDINGS = frozenset(f".{name.lower()}" for name in soundfile.available_formats()) | {".oga", ".opus", ".aif", ".aifc"}
QUIETEST = 1e-8  # power of a channel below which it is as good as silent
SLACK = 0.1  # [s], error of a length that libsndfile estimates, as of an mp3 without one
HINTS = {"jazz.00054": " (known to be damaged in the popular copy of GTZAN)"}

# What libsndfile notes about a file: frames that its header states; lengths [bytes] that the header states and the file
# has; a stream without its end.
FRAMES = re.compile(r"^\s*(?:Frames|(?:Rows : \d+\s+)?Cols)\s*:\s*(\d+)", re.MULTILINE)
LENGTHS = re.compile(
    r"^\s*(?:data :|BODY :|riff :|Data Size\s*:|Data length) (\d+) \(?should be ([1-9]\d*)", re.MULTILINE
)
LACKS_END = re.compile(r"Last page lacks an end-of-stream bit|truncated file")
STREAMED = 0x7FFF0000  # [bytes], programs that write to a pipe state this length or more


class _Stream(soundfile.SoundFile):
    """An audio file that is read once, from its beginning to its end.

    After every read of a file that can seek, soundfile seeks, which changes the samples of an mp3 and can fail in a
    damaged file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(_name(path))
        if not RATES[0] <= self.samplerate <= RATES[1]:
            raise DataError(f"{path} has a rate of {self.samplerate} Hz: {RATES[0]} to {RATES[1]} Hz are allowed")
        self._seeks = super().seekable()
        if self._seeks:
            self.seek(0)  # as soundfile.read: it changes the samples of some mp3

    def seekable(self) -> bool:
        return False

    def ends(self) -> bool:
        """Return whether the last frames that the header states can be decoded; do not read the file afterwards."""
        if self._seeks and 0 < self.frames < UNKNOWN:
            with contextlib.suppress(soundfile.SoundFileError):
                self.seek(max(0, self.frames - 1 - round(SLACK * self.samplerate)))
                return len(self.read(1)) == 1
        return False

    def blocks(self, path: Path, longest: float) -> Iterator[np.ndarray]:
        """Decode block by block [shape=(n, channels), float32]; raise DataError for what cannot be used."""
        most, left = longest * self.samplerate, self.frames
        if most < self.frames and _ends(path):
            raise _too_long(path, longest)
        while left and len(y := self.read(min(left, BLOCK // self.channels), "float32", always_2d=True)):
            left -= len(y)
            if self.frames - left > most:
                raise _too_long(path, longest)
            _check(path, y)
            yield y
        if left == self.frames:
            raise DataError(f"{path} is empty: it has no samples{_hint(path)}")


def sound_files(folder: Path) -> list[Path]:
    """Return the files below a folder that end like sound files, except hidden ones, such as those that macOS adds."""
    found = (file for file in folder.rglob("*") if file.suffix.lower() in ENDINGS and file.is_file())
    return [file for file in found if not any(map(_is_hidden, file.relative_to(folder).parts))]


def _is_hidden(part: str) -> bool:
    return part.startswith(".") or part == "__MACOSX"


def _name(path: Path) -> str | bytes:
    return str(path) if sys.platform == "win32" else os.fsencode(path)  # names may not be valid text


def _hint(path: Path) -> str:
    return HINTS.get(path.stem, "")


def _too_long(path: Path, longest: float) -> DataError:
    return DataError(f"{path} is longer than {longest:g} s, the longest that is allowed: cut it, or raise longest")


def _check(path: Path, y: np.ndarray) -> None:
    if not np.isfinite(y).all():
        raise DataError(f"{path} has NaN or infinite samples{_hint(path)}")
    if max(y.max(), -y.min()) > LOUDEST:
        raise DataError(f"{path} has samples larger than {LOUDEST:g}: full scale is 1{_hint(path)}")


def _ends(path: Path) -> bool:
    with _Stream(path) as file:
        return file.ends()


@contextlib.contextmanager
def naming_memory(clip: Path | str) -> Iterator[None]:
    """Raise MachineError, which names a clip, if there is too little memory for what is done inside."""
    try:
        yield
    except MemoryError as error:
        raise MachineError(
            f"{clip} needs more memory than there is: free some, or cut the clip into shorter ones"
        ) from error


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Raise DataError, which names a file, for any error inside: decoders raise errors of many types."""
    try:
        with naming_memory(path):
            yield
    except DataError:
        raise
    except OSError as error:
        if error.errno in OF_MACHINE:
            raise MachineError(f"{path} cannot be read: {error.strerror}: the file may be whole, try again") from error
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:
        reason = " ".join((getattr(error, "error_string", None) or str(error) or type(error).__name__).split())
        raise DataError(f"{path} cannot be decoded{_hint(path)}: {reason.rstrip('.')}") from error


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[_Stream]:
    with _naming(path):
        if not os.path.isfile(path):  # noqa: PTH113  # Path.is_file raises if a folder may not be read
            raise DataError(f"{path} does not exist{_hint(path)}")
        with path.open("rb"):  # libsndfile does not say why a file cannot be opened
            pass
        with _Stream(path) as file:
            yield file


def _mono(y: np.ndarray) -> np.ndarray:
    return y.mean(axis=1, dtype=np.float32)


def _joined(blocks: Iterable[np.ndarray]) -> np.ndarray:
    """Join waveforms, without a second copy of all of them."""
    y = np.empty(0, np.float32)
    for block in blocks:
        start = len(y)
        y.resize(start + len(block), refcheck=False)
        y[start:] = block
    return y


def resampled(blocks: Iterable[np.ndarray], native: int, sr: int) -> Iterator[np.ndarray]:
    """Yield the blocks of a waveform, resampled as librosa.resample does with res_type="soxr_hq".

    Threads cannot import librosa at the same time.
    """
    if native == sr:
        yield from blocks
        return
    stream, n, missing = soxr.ResampleStream(native, sr, 1, dtype="float32", quality="HQ"), 0, 0
    for block in blocks:
        n += len(block)
        y = stream.resample_chunk(block)
        missing -= len(y)
        yield y
    missing += -(-n * sr // native)
    y = stream.resample_chunk(np.empty(0, np.float32), last=True)[:missing]
    yield np.pad(y, (0, missing - len(y)))  # zeros follow if it is shorter


def resample(blocks: Iterable[np.ndarray], native: int, sr: int) -> np.ndarray:
    """Join the blocks of a waveform, resampled as of `resampled`."""
    return _joined(resampled(blocks, native, sr))


def decode(path: Path, *, longest: float = LONGEST) -> tuple[np.ndarray, int]:
    """Decode a file: its mono waveform [shape=(n,), float32], and its rate [Hz]; errors as in `DataSet.decode`."""
    with _opened(path) as file:
        return _joined(map(_mono, file.blocks(path, longest))), file.samplerate


def load(path: Path, *, sr: int, longest: float = LONGEST) -> np.ndarray:
    """Decode a file and resample it to `sr` [shape=(n,), float32]; errors as in `DataSet.decode`."""
    return _joined(stream(path, sr=sr, longest=longest))


def stream(path: Path, *, sr: int, longest: float = LONGEST) -> Iterator[np.ndarray]:
    """Yield the blocks of a file, mixed to mono and resampled to `sr` [shape=(n,)]; errors as in `DataSet.decode`."""
    with _opened(path) as file:
        yield from resampled(map(_mono, file.blocks(path, longest)), file.samplerate, sr)


def length(path: Path, *, longest: float = LONGEST, whole: bool = False) -> tuple[int, int]:
    """Return the number of frames that a file decodes to, and its rate [Hz]; errors as in `DataSet.decode`.

    If its last frames can be decoded, those before them are only if `whole`: else, damage in the middle is not found.
    """
    if not whole:
        with _opened(path) as file:
            if file.frames <= longest * file.samplerate and file.ends():
                return file.frames, file.samplerate
    with _opened(path) as file:
        return sum(map(len, file.blocks(path, longest))), file.samplerate


@dataclass(frozen=True)
class Properties:
    """How a file is encoded.

    Attributes
    ----------
    encoding : str
        Container and encoding of the samples, such as "WAV PCM_16"; empty for a built-in clip.
    channels : int > 0
    is_float : bool
        Whether samples may lie beyond full scale.
    cancelled_db : float [dB]
        By how much the mean of the channels is quieter than the channels, without offsets; 0 for one channel.
    stated : float [s]
        Duration that the header states; 0 if it states none.
    lacks_end : bool
        Whether the stream has no end, as if the file was cut.
    """

    encoding: str = ""
    channels: int = 1
    is_float: bool = False
    cancelled_db: float = 0.0
    stated: float = 0.0
    lacks_end: bool = False


def examine(path: Path, *, longest: float = LONGEST) -> tuple[np.ndarray, int, Properties]:
    """Decode a file as `decode` does; return its waveform, its rate [Hz], and how it is encoded."""
    with _opened(path) as file:
        # Before decoding, which adds to what libsndfile notes.
        stated, lacks_end = _stated(path, file) / file.samplerate, LACKS_END.search(file.extra_info) is not None
        moments: list[np.ndarray] = []
        y = _joined(_mixed(file.blocks(path, longest), moments))
        cancelled_db = _cancelled_db(np.sum(moments, axis=0) / len(y)) if moments else 0.0
        encoding, is_float = f"{file.format} {file.subtype}", file.subtype in FLOATS
        return y, file.samplerate, Properties(encoding, file.channels, is_float, cancelled_db, stated, lacks_end)


def _mixed(blocks: Iterable[np.ndarray], moments: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Mix blocks to mono; append the sums of several channels and of their mean, and those of the squares."""
    for y in blocks:
        mono = _mono(y)
        if y.shape[1] > 1:
            both = np.concatenate([y, mono[:, np.newaxis]], axis=1, dtype=np.float64)
            moments.append(np.array([both.sum(axis=0), np.square(both).sum(axis=0)]))
        yield mono


def _cancelled_db(moments: np.ndarray) -> float:
    """Return by how much the mean of the channels, the last item of each moment, is quieter than the channels [dB]."""
    power = np.maximum(moments[1] - moments[0] ** 2, QUIETEST)
    return float(10 * np.log10(power[:-1].mean() / power[-1]))


def _start(path: Path, n_bytes: int) -> bytes:
    with path.open("rb") as content:
        return content.read(n_bytes)


def _stated(path: Path, file: _Stream) -> float:
    """Return the number of frames that a header states, 0 if it states none."""
    if file.frames >= UNKNOWN:
        return 0
    if file.format == "MP3" and not re.search(rb"Xing|Info|VBRI", _start(path, 2**20)):  # libsndfile estimates it
        return 0
    sample_count = re.findall(rb"sample_count -i (\d+)", _start(path, 1024)) if file.format == "NIST" else []
    frames = [file.frames, *map(int, sample_count), *map(int, FRAMES.findall(file.extra_info))]
    for stated, real in LENGTHS.findall(file.extra_info):
        if int(stated) < STREAMED:
            frames.append(file.frames * int(stated) / int(real))
    return max(n for n in frames if n < UNKNOWN)
