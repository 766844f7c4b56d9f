"""Files are written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from foldproof.cli.output import Output
from foldproof.errors import FoldproofError


def test_writes_beside_the_target_and_renames(tmp_path: Path) -> None:
    seen = []

    def write(path: Path) -> None:
        seen.append(path)
        path.write_text("new")

    target = tmp_path / "out.pt2"
    Output(target).write(write)
    assert (seen[0].parent, seen[0].suffix) == (tmp_path, ".pt2")
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("any"), KeyboardInterrupt()])
def test_a_failed_write_keeps_the_older_file(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "out.pt2"
    target.write_text("older")

    def write(path: Path) -> None:
        path.write_text("half")
        raise error

    expected = FoldproofError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected):
        Output(target).write(write)
    assert target.read_text() == "older"
    assert list(tmp_path.iterdir()) == [target]


def test_checking_leaves_no_trace(tmp_path: Path) -> None:
    Output(tmp_path / "out.pt2")
    assert list(tmp_path.iterdir()) == []


def test_new_files_have_the_users_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    Output(tmp_path / "out.pt2").write(Path.touch)
    assert (tmp_path / "out.pt2").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real.pt2").touch()
    (tmp_path / "link.pt2").symlink_to("real.pt2")
    Output(tmp_path / "link.pt2").write(lambda path: path.write_text("new"))
    assert (tmp_path / "link.pt2").is_symlink()
    assert (tmp_path / "real.pt2").read_text() == "new"


def test_refuses_what_it_can_not_write(tmp_path: Path) -> None:
    with pytest.raises(FoldproofError, match="is not a folder"):
        Output(tmp_path / "missing" / "out.pt2")
    with pytest.raises(FoldproofError, match="is not a regular file"):
        Output(tmp_path)
    with pytest.raises(FoldproofError, match="is not a regular file"):
        Output(Path(os.devnull))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_refuses_read_only_files_and_folders(tmp_path: Path) -> None:
    target = tmp_path / "out.pt2"
    target.touch()
    target.chmod(0o444)
    with pytest.raises(FoldproofError, match="read-only"):
        Output(target)
    tmp_path.chmod(0o555)
    with pytest.raises(FoldproofError, match="Permission denied"):
        Output(tmp_path / "other.pt2")


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a folder that refuses even root")
def test_refuses_a_folder_that_takes_no_files() -> None:
    with pytest.raises(FoldproofError, match="can't be written"):
        Output(Path("/proc/out.pt2"))
