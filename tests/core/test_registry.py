"""Finding environments by name, folder, file and class."""

import pickle
from pathlib import Path

import pytest

from gymrail.errors import InputError
from gymrail.registry import environment_folders, find, find_tool_server, name_of

SOURCE = '''
from gymrail import Environment, Task, tool

class Mine(Environment[Task]):
    """{description}"""

    class Config(Environment.Config):
        depth: int = 1

    @tool
    def look(self) -> str:
        return "{description}"

    def verify(self, rollout: object) -> float:
        return 1.0
'''


def write(folder: Path, description: str, manifest: str = "", name: str = "environment.py") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(SOURCE.format(description=description), encoding="utf-8")
    if manifest:
        (folder / Path(name).with_suffix(".yaml")).write_text(manifest, encoding="utf-8")
    return folder


def test_an_environment_is_found_by_folder_by_file_and_by_class(tmp_path: Path) -> None:
    folder = write(tmp_path / "maze", "A maze", "description: From the manifest\nconfig: {depth: 3}\n")
    spec = find(str(folder))
    assert (spec.name, spec.description, spec.config.depth) == ("maze", "From the manifest", 3)
    assert spec.with_config({"depth": 4}).with_config({}).config.depth == 4
    file = write(tmp_path, "A file", name="single.py") / "single.py"
    assert (find(str(file)).name, find(str(file)).description) == ("single", "A file")
    assert find(f"{file}:Mine").cls is find(str(file)).cls


def test_two_files_of_the_same_name_do_not_mix(tmp_path: Path) -> None:
    one, two = (find(str(write(tmp_path / parent / "maze", parent))) for parent in ("one", "two"))
    assert (one.name, two.name) == ("maze", "maze")
    assert (one.description, two.description) == ("one", "two")
    assert one.cls is not two.cls
    assert pickle.loads(pickle.dumps(one.cls)) is one.cls


def test_a_folder_may_import_its_own_modules_and_is_read_again_once_edited(tmp_path: Path) -> None:
    folder = write(tmp_path / "maze", "A maze")
    (folder / "verify.py").write_text("ANSWER = 1\n", encoding="utf-8")
    source = (folder / "environment.py").read_text(encoding="utf-8")
    (folder / "environment.py").write_text("from .verify import ANSWER\n" + source, encoding="utf-8")
    first = find(str(folder))
    assert find(str(folder)).cls is first.cls
    (folder / "verify.py").write_text("ANSWER = 12345\n", encoding="utf-8")
    second = find(str(folder))
    assert second.cls is not first.cls
    assert second.cls.verify.__globals__["ANSWER"] == 12345  # type: ignore[attr-defined]
    file = write(tmp_path, "Old", name="single.py") / "single.py"
    assert find(str(file)).description == "Old"
    write(tmp_path, "Newer text", name="single.py")
    assert find(str(file)).description == "Newer text"


def test_errors_name_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"No environment at '.*nowhere'"):
        find(str(tmp_path / "nowhere"))
    file = write(tmp_path, "x", name="single.py") / "single.py"
    with pytest.raises(InputError, match=r"has no Environment named 'Mined'. Did you mean 'Mine'"):
        find(f"{file}:Mined")
    file.write_text(
        SOURCE.format(description="x") + SOURCE.format(description="y").replace("Mine", "Other"), encoding="utf-8"
    )
    with pytest.raises(InputError, match=r"defines Mine, Other; it must define one Environment"):
        find(str(file))
    (tmp_path / "empty.py").write_text("", encoding="utf-8")
    with pytest.raises(InputError, match="defines none"):
        find(str(tmp_path / "empty.py"))
    with pytest.raises(InputError, match="No tool server named 'zzz'"):
        find_tool_server("zzz")


def test_a_module_that_breaks_while_it_loads_can_be_mended(tmp_path: Path) -> None:
    file = tmp_path / "single.py"
    file.write_text("raise OSError('disk')", encoding="utf-8")
    with pytest.raises(OSError, match="disk"):
        find(str(file))
    write(tmp_path, "Mended", name="single.py")
    assert find(str(file)).description == "Mended"


@pytest.mark.parametrize(
    ("manifest", "text"),
    [
        ("descripton: x\n", "unknown key 'descripton'. Did you mean 'description'?"),
        ("properties: {verificaton: code}\n", "unknown key 'properties.verificaton'. Did you mean 'verification'?"),
        ("datasets: [{name: a, split: train, sise: 3}]\n", "unknown key 'datasets.0.sise'. Did you mean 'size'?"),
        ("datasets: [{name: a, split: trian}]\n", "'datasets.0.split' is 'trian'"),
        ("datasets: [{split: train}]\n", "'datasets.0.name' is required"),
        ("agent: {max_steps: 0}\n", "'agent.max_steps' is 0"),
        ("description: [\n", "not valid YAML"),
    ],
)
def test_a_broken_manifest_names_the_file_the_key_and_the_nearest(tmp_path: Path, manifest: str, text: str) -> None:
    folder = write(tmp_path / "maze", "x", manifest)
    with pytest.raises(InputError) as error:
        find(str(folder))
    assert str(folder / "environment.yaml") in str(error.value)
    assert text in str(error.value)


def test_a_setting_that_does_not_exist_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Settings of maze: unknown key 'dept'. Did you mean 'depth'\?"):
        find(str(write(tmp_path / "maze", "x", "config: {dept: 3}\n")))


def test_installed_environments_are_found_by_name_though_a_folder_of_that_name_is_near(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = environment_folders()
    assert known
    name = sorted(known)[0]
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    assert find(name).name == name
    with pytest.raises(InputError, match=f"Did you mean '{name}'"):
        find(name + "x")


def test_a_bridged_environment_is_called_by_its_own_name_and_others_by_their_file() -> None:
    assert name_of("gymnasium:FrozenLake-v1?is_slippery=false") == "FrozenLake-v1"
    assert [name_of(source) for source in ("word_math", "./a/fruit_basket", "my_env.py:Mine")] == [
        "word_math", "fruit_basket", "my_env",
    ]  # fmt: skip
