"""Downloads from a local server: complete, interrupted and resumed, altered, hostile, out of reach."""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import io
import tarfile
import threading
import zipfile

import numpy as np
import pytest
import soundfile

from transferlens import datasets
from transferlens.data import downloads
from transferlens.data.manifest import manifest
from transferlens.util.errors import DataError, ParameterError


class Server(http.server.BaseHTTPRequestHandler):
    """Sends `content` from the byte that is requested; stops after `most` bytes."""

    content, most, asked = b"", None, []

    def do_GET(self):  # noqa: N802
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        self.asked.append(start)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(self.content) - start))
        self.end_headers()
        self.wfile.write(self.content[start:][: self.most])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    class Mine(Server):
        asked = []

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mine)
    threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    Mine.address = f"http://127.0.0.1:{running.server_port}"
    yield Mine
    running.shutdown()


def zipped(files):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        for name, content in files.items():
            file.writestr(name, content)
    return made.getvalue()


def tarred(files, **member):
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as file:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for field, value in member.items():
                setattr(info, field, value)
            file.addfile(info, io.BytesIO(content))
    return made.getvalue()


def row(server, content, name="data.zip"):
    server.content = content
    checksum = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return dataclasses.replace(manifest()["esc50"], archive=f"{server.address}/{name}", checksum=checksum)


def content_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("pack", "name"), [(zipped, "data.zip"), (tarred, "data.tar.gz")])
def test_whole_and_once(server, tmp_path, pack, name):
    files = {"ESC/meta.csv": b"a,b", "ESC/audio/1.wav": bytes(1000)}
    made = row(server, pack(files), name)
    target = downloads.fetch(made, tmp_path)
    assert target == tmp_path / "esc50"
    assert content_of(target) == files
    assert [path.name for path in tmp_path.iterdir()] == ["esc50"]  # neither archive nor parts
    assert downloads.fetch(made, tmp_path) == target
    assert server.asked == [0]


def test_what_broke_off_goes_on_where_it_was(server, tmp_path):
    files = {"a.bin": np.random.default_rng(0).bytes(100_000)}
    made = row(server, zipped(files))
    server.most = 40_000
    for _ in range(2):
        with pytest.raises(
            DataError, match=r"cannot be downloaded .*resumes where it stopped; or get it from https.*--root"
        ):
            downloads.fetch(made, tmp_path)
    assert not (tmp_path / "esc50").exists()
    server.most = None
    assert content_of(downloads.fetch(made, tmp_path)) == files
    first, second, third = server.asked
    assert first == 0
    assert 40_000 - downloads.CHUNK < second <= 40_000
    assert second + 40_000 - downloads.CHUNK < third <= second + 40_000


def test_another_file_than_the_known_one_is_refused(server, tmp_path):
    made = row(server, zipped({"a": b"1"}))
    server.content = zipped({"a": b"2"})
    with pytest.raises(DataError, match="does not have the checksum sha256:"):
        downloads.fetch(made, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("pack", "name"), [(zipped, "data.zip"), (tarred, "data.tar.gz")])
def test_damage_is_seen_where_no_checksum_is_known(server, tmp_path, pack, name):
    noise = np.random.default_rng(0)
    content = bytearray(pack({f"{i}.bin": noise.bytes(20_000) for i in range(5)}))
    content[50_000:50_400] = bytes(400)
    made = dataclasses.replace(row(server, bytes(content), name), checksum="")
    with pytest.raises(DataError, match="was damaged while downloading, and is deleted: try again"):
        downloads.fetch(made, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"no archive", zipped({"a": bytes(9999)})[:-300], b""])
def test_a_damaged_archive_is_deleted(server, tmp_path, content):
    with pytest.raises(DataError, match="was damaged while downloading, and is deleted"):
        downloads.fetch(row(server, content), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_names_in_archives_lead_nowhere_else(server, tmp_path):
    inside = tmp_path / "inside"
    target = downloads.fetch(row(server, zipped({"../../out.txt": b"x", "/abs.txt": b"y"})), inside)
    assert sorted(content_of(target)) == ["abs.txt", "out.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["inside"]
    for bad in (tarred({"../out.txt": b"x"}), tarred({"link": b""}, type=tarfile.SYMTYPE, linkname="/etc/passwd")):
        with pytest.raises(DataError, match="was damaged while downloading"):
            downloads.fetch(row(server, bad, "data.tar.gz"), tmp_path / "tar")
        assert list((tmp_path / "tar").iterdir()) == []


def test_more_than_the_disk_holds_is_not_begun(server, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1.02e6})())
    with pytest.raises(DataError, match="MB free: make room"):
        downloads.fetch(row(server, zipped({"a": bytes(10**6)})), tmp_path)
    assert not (tmp_path / "esc50").exists()


def test_out_of_reach(tmp_path):
    made = dataclasses.replace(manifest()["esc50"], archive="http://127.0.0.1:9/esc50.zip")
    with pytest.raises(
        DataError, match=r"127.0.0.1:9/esc50.zip cannot be downloaded \(ConnectionError: .*--dataset esc50 --root"
    ):
        downloads.fetch(made, tmp_path)


def test_the_built_in_set_is_not_downloaded(tmp_path):
    with pytest.raises(ParameterError, match="is generated by code"):
        downloads.fetch(manifest()["synth"], tmp_path)


def test_command(server, tmp_path, monkeypatch, capsys):
    wav = io.BytesIO()
    soundfile.write(wav, np.zeros(100), 44100, format="WAV")
    table = "filename,fold,target,category,esc10,src_file,take\n" + "".join(
        f"{n}.wav,{1 + n % 5},{n},class {n},True,{n},A\n" for n in range(50)
    )
    files = {"ESC-50-master/meta/esc50.csv": table.encode()}
    files |= {f"ESC-50-master/audio/{n}.wav": wav.getvalue() for n in range(50)}
    made = row(server, zipped(files))
    monkeypatch.setattr(datasets, "manifest", lambda: manifest() | {"esc50": made})
    assert datasets.main(["--download", "esc50", "--to", str(tmp_path / "data")]) == 0
    root = tmp_path / "data" / "esc50" / "ESC-50-master"
    assert f"50 clips: use them with --dataset esc50 --root {root}" in capsys.readouterr().out
    assert datasets.main(["--download", "esc51"]) == 2
    assert "download='esc51' must be one of esc50, esc10, urbansound8k, gtzan" in capsys.readouterr().err
    assert datasets.main(["--download", "tau2020"]) == 2
    assert "speechcommands: get it from https://zenodo.org/records/3819968" in capsys.readouterr().err
