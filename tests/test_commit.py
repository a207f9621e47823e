import errno
import os
from pathlib import Path

import pytest

from spirit import commit


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    commit.text(path, "one")
    with pytest.raises(RuntimeError), commit.file(path) as partial:  # noqa: PT012
        partial.write_text("half")
        raise RuntimeError
    assert path.read_text() == "one"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_a_folder_replaces_the_older_one_whole(tmp_path):
    path = tmp_path / "model"
    for content in ("one", "two"):
        with commit.folder(path) as partial:
            (partial / "w").mkdir()
            (partial / "w" / "x").write_text(content)
    assert (path / "w" / "x").read_text() == "two"
    with pytest.raises(OSError, match="full"), commit.folder(path) as partial:  # noqa: PT012
        (partial / "y").write_text("three")
        raise OSError(errno.ENOSPC, "disk full")
    assert (path / "w" / "x").read_text() == "two"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_folder_that_could_not_be_replaced_is_still_there(tmp_path, monkeypatch):
    path = tmp_path / "model"
    commit.text(path / "x", "one")
    rename = Path.replace

    def interrupted(self, target):
        if self.name.endswith(".partial"):
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt), commit.folder(path) as partial:
        (partial / "x").write_text("two")
    assert (path / "x").read_text() == "one"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_others_may_read_what_a_library_kept_to_its_owner(tmp_path):
    def keep(path):
        path.write_text("weights")
        path.chmod(0o600)

    mask = os.umask(0o027)
    try:
        with commit.file(tmp_path / "a") as partial:
            keep(partial)
        with commit.folder(tmp_path / "b") as partial:
            (partial / "in").mkdir(mode=0o700)
            keep(partial / "in" / "c")
    finally:
        os.umask(mask)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert modes == {"a": 0o640, "b": 0o750, "in": 0o750, "c": 0o640}


def test_a_file_never_takes_the_place_of_a_pipe_or_a_folder(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(ValueError, match="not a plain file"):
            commit.text(tmp_path / name, "one")
    assert (tmp_path / "pipe").is_fifo()


def test_sha256_is_that_of_the_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert commit.sha256(tmp_path / "a") == expected
