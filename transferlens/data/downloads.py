"""Data sets from where they are published: downloaded once, checked, resumed where it broke off, unpacked safely."""

from __future__ import annotations

import contextlib
import gzip
import lzma
import shutil
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transferlens.util.errors import DataError, ParameterError
from transferlens.util.files import check_space
from transferlens.util.lazy import pooch, requests, tqdm

if TYPE_CHECKING:
    from transferlens.data.manifest import ManifestRow

__all__ = ["fetch"]

# Seconds without an answer, and bytes that are written at once.
TIMEOUT, CHUNK = 30, 2**14


def fetch(row: ManifestRow, folder: Path) -> Path:
    """Download a data set and unpack it; what is there already is left as it is.

    Parameters
    ----------
    row : ManifestRow
    folder : Path
        The data set goes to a folder of its name in here.

    Returns
    -------
    target : Path
        ``folder / row.name``, complete.

    Raises
    ------
    ParameterError
        Where the data set is not downloaded but made.
    DataError
        Where its place cannot be reached, or what came is damaged or does not fit on the disk.
    """
    if not row.archive:
        raise ParameterError(f"download={row.name!r} is made by code: there is nothing to download")
    target = folder / row.name
    if target.exists():
        return target
    by_hand = f"get it from {row.homepage}, unpack it, and name its folder with --dataset {row.name} --root"
    name = f"{row.name}-{row.archive.rsplit('/', 1)[-1]}"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        pooch.utils.get_logger().setLevel("ERROR")
        pooch.retrieve(row.archive, row.checksum or None, fname=name, path=folder, downloader=_resuming(folder / name))
    except requests.exceptions.RequestException as error:
        reason = f"{type(error).__name__}: {error}"[:200]
        raise DataError(
            f"{row.archive} cannot be had ({reason}): try again, it goes on where it broke off; or {by_hand}"
        ) from error
    except ValueError as error:
        (folder / name).unlink(missing_ok=True)
        raise DataError(
            f"{row.archive} is not the file that is known by {row.checksum}: try again, or {by_hand}"
        ) from error
    beside = folder / f".{row.name}.unpacking"
    shutil.rmtree(beside, ignore_errors=True)
    try:
        _unpack(folder / name, beside)
        beside.rename(target)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, RuntimeError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        (folder / name).unlink()
        raise DataError(f"{folder / name} was damaged on its way, and is deleted: try again, or {by_hand}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    (folder / name).unlink()
    return target


def _resuming(path: Path) -> Any:
    """A downloader for pooch that keeps what has come, and asks for the rest."""

    def download(url: str, output_file: str, pooch: Any, check_only: bool = False) -> None:
        partial = path.with_name(f"{path.name}.part")
        there = partial.stat().st_size if partial.exists() else 0
        asked = {"Range": f"bytes={there}-"} if there else {}
        with requests.get(url, stream=True, timeout=TIMEOUT, headers=asked) as response:
            if response.status_code == requests.codes.requested_range_not_satisfiable:
                partial.unlink()  # it is of another file
            response.raise_for_status()
            goes_on = response.status_code == requests.codes.partial_content
            there = there if goes_on else 0
            rest = int(response.headers.get("Content-Length", 0))
            check_space(partial, rest)
            bar = tqdm.tqdm(
                total=there + rest or None, initial=there, unit="B", unit_scale=True, desc=path.name, disable=None
            )
            with bar, partial.open("ab" if goes_on else "wb") as file:
                for chunk in response.iter_content(CHUNK):
                    file.write(chunk)
                    bar.update(len(chunk))
        if rest and partial.stat().st_size < there + rest:
            raise requests.exceptions.ConnectionError("the connection broke off")
        shutil.move(partial, output_file)

    return download


def _check_to_the_end(archive: Path) -> None:
    """Read all of a gzip, so that its own checksum is looked at: tarfile takes damage for the archive's end."""
    with archive.open("rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
    if is_gzip:
        with gzip.open(archive) as file:
            while file.read(CHUNK):
                pass


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack without a file outside of the folder, and not beyond the disk."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            check_space(folder, sum(entry.file_size for entry in file.infolist()))
            file.extractall(folder)  # takes ".." and the roots of names away
    else:
        _check_to_the_end(archive)
        with contextlib.closing(tarfile.open(archive)) as file:
            check_space(folder, sum(entry.size for entry in file.getmembers()))
            file.extractall(folder, filter="data")  # refuses links and names that lead outside
