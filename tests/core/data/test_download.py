"""Downloads from a hub on loopback: whole, resumed, checked, pinned, from the cache; and what is said when it fails."""

import fcntl
import hashlib
import socket
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import orjson
import pytest
from huggingface_hub import constants

from gymrail.data import download as module
from gymrail.data.download import LOCK, download_dataset, download_file
from gymrail.data.fetch import fetch
from gymrail.errors import GymrailError, InputError
from tests.core.data.stand_in_hub import COMMIT, TOKEN, StandInHub, serving

BIG = b"".join(b'{"question": "%d?"}\n' % number for number in range(200_000))
FILES = {
    "train.jsonl": BIG,
    "data/more.jsonl": b'{"question": "more?"}\n',
    "README.md": b"# Quiz\n",
    ".gitattributes": b"",
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)


@pytest.fixture
def hub() -> Iterator[StandInHub]:
    with serving(StandInHub(files={"org/quiz": dict(FILES)})) as hub:
        yield hub


def get(hub: StandInHub, output: Path, **options) -> module.Downloaded:
    return download_dataset("org/quiz", output, endpoint=hub.url, pause_seconds=0, **options)


def test_a_dataset_comes_whole_with_the_checksums_of_its_files(hub: StandInHub, tmp_path: Path) -> None:
    made = get(hub, tmp_path / "quiz")
    assert sorted(made.fetched) == ["README.md", "data/more.jsonl", "train.jsonl"]
    assert (tmp_path / "quiz/train.jsonl").read_bytes() == BIG
    lock = orjson.loads((tmp_path / "quiz" / LOCK).read_bytes())["sources"]["org/quiz"]
    assert (lock["commit"], lock["revision"]) == (COMMIT, "main")
    entry = lock["files"]["train.jsonl"]
    assert (entry["sha256"], entry["size"]) == (hashlib.sha256(BIG).hexdigest(), len(BIG))
    assert entry["etag"] == f'"{entry["sha256"]}"'
    assert [path.name for path in (tmp_path / "quiz").iterdir() if path.name.endswith(".partial")] == []


def test_what_is_here_is_not_fetched_again_and_stays_at_its_commit(hub: StandInHub, tmp_path: Path) -> None:
    get(hub, tmp_path)
    hub.commit, hub.files["org/quiz"]["train.jsonl"] = "c" * 40, b'{"question": "new?"}\n'
    hub.requests.clear()
    again = get(hub, tmp_path)
    assert (again.fetched, sorted(again.unchanged)) == ([], ["README.md", "data/more.jsonl", "train.jsonl"])
    assert hub.requests == []
    newest = get(hub, tmp_path, overwrite=True)
    assert newest.commit == "c" * 40
    assert (tmp_path / "train.jsonl").read_bytes() == b'{"question": "new?"}\n'


def test_a_connection_that_is_cut_goes_on_from_where_it_broke_off(hub: StandInHub, tmp_path: Path) -> None:
    hub.cut_after = [1_000_000, 500_000, 0]
    get(hub, tmp_path, files=["train.jsonl"])
    assert (tmp_path / "train.jsonl").read_bytes() == BIG
    starts = [int((asked or "bytes=0-").removeprefix("bytes=").rstrip("-")) for _, asked in hub.gets()]
    assert len(starts) == 4
    assert starts[0] == 0
    assert starts[1:] == sorted(starts[1:])
    assert starts[1] > 0


def test_a_process_that_gave_up_is_followed_by_one_that_goes_on(hub: StandInHub, tmp_path: Path) -> None:
    hub.cut_after = [1_000_000, 0, 0, 0, 0, 0]
    with pytest.raises(GymrailError, match=r"The same command goes on from [\d,]+ bytes"):
        get(hub, tmp_path, files=["train.jsonl"])
    assert not (tmp_path / "train.jsonl").exists()
    hub.cut_after, before = [], len(hub.gets())
    get(hub, tmp_path, files=["train.jsonl"])
    ((_, asked),) = hub.gets()[before:]
    assert asked is not None
    assert int(asked.removeprefix("bytes=").rstrip("-")) > 0
    assert (tmp_path / "train.jsonl").read_bytes() == BIG


def test_a_file_that_changed_in_between_is_fetched_from_its_start(hub: StandInHub, tmp_path: Path) -> None:
    url = f"{hub.url}/cdn/org/quiz/train.jsonl"
    hub.cut_after = [1_000_000, 0, 0, 0, 0, 0]
    with pytest.raises(GymrailError, match="cannot be read"):
        fetch(url, tmp_path / "train.jsonl", pause_seconds=0)
    hub.cut_after, hub.files["org/quiz"]["train.jsonl"] = [], BIG[::-1]
    assert fetch(url, tmp_path / "train.jsonl", pause_seconds=0).size == len(BIG)
    assert (tmp_path / "train.jsonl").read_bytes() == BIG[::-1]


def test_without_an_etag_nothing_is_resumed(hub: StandInHub, tmp_path: Path) -> None:
    hub.etags, hub.cut_after = False, [1_000_000]
    fetch(f"{hub.url}/cdn/org/quiz/train.jsonl", tmp_path / "train.jsonl", pause_seconds=0)
    assert [asked for _, asked in hub.gets()] == [None, None]
    assert (tmp_path / "train.jsonl").read_bytes() == BIG


def test_a_busy_server_is_asked_again_and_a_down_one_is_given_up(hub: StandInHub, tmp_path: Path) -> None:
    hub.failures = [503, 429]
    get(hub, tmp_path / "one", files=["README.md"])
    hub.failures = [500] * 5
    with pytest.raises(GymrailError, match=r"answers 500 \(5 attempts\)"):
        get(hub, tmp_path / "two", files=["README.md"])


def test_bytes_that_are_not_what_the_hub_says_are_not_kept(hub: StandInHub, tmp_path: Path) -> None:
    hub.corrupt = True
    for name in ("train.jsonl", "README.md"):
        with pytest.raises(GymrailError, match="is not what it should be"):
            get(hub, tmp_path, files=[name])
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == []


def test_a_file_that_was_changed_here_is_not_replaced_unasked(hub: StandInHub, tmp_path: Path) -> None:
    get(hub, tmp_path)
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(InputError, match=r"was changed since it was fetched; --overwrite"):
        get(hub, tmp_path)
    get(hub, tmp_path, overwrite=True)
    assert (tmp_path / "README.md").read_bytes() == b"# Quiz\n"


def test_a_file_of_somebody_else_is_not_replaced_unasked(hub: StandInHub, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(InputError, match="exists already and was not fetched from there"):
        get(hub, tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"files": ["trian.jsonl"]}, "has no file 'trian.jsonl'. Did you mean 'train.jsonl'?"),
        ({"revision": "v9"}, "has no revision 'v9'"),
    ],
)
def test_what_a_dataset_does_not_have_is_said(hub: StandInHub, tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(InputError) as refused:
        get(hub, tmp_path, **options)
    assert message in str(refused.value)


def test_unknown_and_malformed_datasets_are_said(hub: StandInHub, tmp_path: Path) -> None:
    for name, message in [("org/quizz", "is private: set HF_TOKEN"), ("a/b/c", "is no dataset id")]:
        with pytest.raises(InputError, match=message):
            download_dataset(name, tmp_path, endpoint=hub.url)


def test_a_gated_dataset_says_where_to_ask_and_comes_with_a_token(hub: StandInHub, tmp_path: Path) -> None:
    hub.gated.add("org/quiz")
    with pytest.raises(InputError, match=r"is gated: accept its terms on http://127.*/datasets/org/quiz"):
        get(hub, tmp_path)
    assert get(hub, tmp_path, token=TOKEN, files=["README.md"]).fetched == ["README.md"]


def test_without_a_network_the_message_names_the_cache(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{taken.getsockname()[1]}"
    with pytest.raises(GymrailError, match="HF_HUB_OFFLINE=1 takes what the cache has"):
        download_dataset("org/quiz", tmp_path, endpoint=closed)
    with pytest.raises(GymrailError, match=r"onnection refused.*\(5 attempts\)"):
        download_file(f"{closed}/tasks.jsonl", tmp_path, pause_seconds=0)


def test_the_cache_is_used_and_offline_nothing_else(hub: StandInHub, tmp_path: Path, monkeypatch) -> None:
    snapshot = tmp_path / "cache/datasets--org--quiz/snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs/main").write_text(COMMIT)
    (snapshot / "README.md").write_bytes(FILES["README.md"])
    made = get(hub, tmp_path / "online")
    assert (made.from_cache, sorted(made.fetched)) == (["README.md"], ["data/more.jsonl", "train.jsonl"])
    hub.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    made = get(hub, tmp_path / "offline")
    assert (made.commit, made.from_cache) == (COMMIT, ["README.md"])
    with pytest.raises(InputError, match="HF_HUB_OFFLINE is set, and the cache has no dataset 'org/other'"):
        download_dataset("org/other", tmp_path / "other", endpoint=hub.url)
    assert hub.requests == []


def test_a_url_is_fetched_once_under_its_own_name(hub: StandInHub, tmp_path: Path) -> None:
    url = f"{hub.url}/cdn/org/quiz/data/more.jsonl?signature=secret"
    made = download_file(url, tmp_path)
    assert made.fetched == ["more.jsonl"]
    assert "secret" not in (tmp_path / LOCK).read_text()
    assert download_file(url, tmp_path).unchanged == ["more.jsonl"]
    assert len(hub.gets()) == 1


def test_a_url_with_another_checksum_leaves_nothing(hub: StandInHub, tmp_path: Path) -> None:
    with pytest.raises(GymrailError, match="is not what it should be"):
        download_file(f"{hub.url}/cdn/org/quiz/README.md", tmp_path, sha256="0" * 64)
    assert list(tmp_path.iterdir()) == []


def test_a_url_that_is_none_or_leads_nowhere_is_said(hub: StandInHub, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no address of a file"):
        download_file("ftp://example.org/a.jsonl", tmp_path)
    with pytest.raises(InputError, match=r"There is no file at http.*\(status 404\)"):
        download_file(f"{hub.url}/cdn/org/quiz/none.jsonl", tmp_path)


def test_a_file_name_that_leads_out_of_the_folder_is_refused(hub: StandInHub, tmp_path: Path) -> None:
    hub.files["org/quiz"]["../evil.jsonl"] = b"{}\n"
    with pytest.raises(GymrailError, match="lies outside the folder"):
        get(hub, tmp_path / "in")
    assert not (tmp_path / "evil.jsonl").exists()


def test_two_processes_do_not_write_one_file(hub: StandInHub, tmp_path: Path) -> None:
    url = f"{hub.url}/cdn/org/quiz/README.md"
    with (tmp_path / ".README.md.partial").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="Another process is fetching"):
            fetch(url, tmp_path / "README.md")
    assert fetch(url, tmp_path / "README.md").size == 7
