"""Answers: the cache changes nothing, tools are called, and bad input says what is wrong."""

from __future__ import annotations

import json
import shutil
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from model import agent, jail, tokenizer, train
from model.__main__ import main
from model.config import PRESETS
from model.data import objectives
from model.data.emoji import select
from model.data.samples import Form, Sample, collate, sample
from model.data.sources.numbers import Numbers
from model.data.sources.pictures import Pictures
from model.decoding import Cache, Sampling, decode
from model.search import Index
from model.transformer import EncoderDecoder, build
from orchestrator.errors import UserError

CONFIG = PRESETS["demo"]
RANKS = tokenizer.load()
FORM = Form(CONFIG, RANKS, prompt_max=512)


@pytest.fixture(scope="module")
def model() -> EncoderDecoder:
    torch.set_num_threads(1)
    return build(CONFIG, seed=3)


def mixed() -> list[Sample]:
    """Prompts of different lengths and kinds."""
    dice = np.random.default_rng(5)
    return [
        Pictures(select("food", ["en"])).sample(3, dice, FORM),
        Numbers().sample(7, dice, FORM),
        sample(FORM, [RANKS.encode("hello")], RANKS.encode("x")),
        objectives.passkey(FORM, 60, 0.5, dice),
    ]


def alone(model: EncoderDecoder, one: Sample, sampling: Sampling) -> list[int]:
    prompt = collate([one], RANKS).prompt
    return decode(model, prompt, RANKS, tokens_max=12, sampling=sampling)[0]


def test_the_cache_gives_the_logits_of_the_whole(model: EncoderDecoder) -> None:
    prompt = collate(mixed(), RANKS).prompt
    answer = torch.randint(0, 4_000, (4, 9), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        memory = model.encode(prompt)
        whole = model.decode(answer, memory)
        cache = Cache(model, memory, 9)
        steps = torch.stack([cache.next_logits(answer[:, at]) for at in range(9)], 1)
    assert torch.allclose(steps, whole, atol=1e-4)


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.8, 0.9, seed=4)])
def test_a_prompt_gets_the_same_answer_in_any_company(
    model: EncoderDecoder, sampling: Sampling
) -> None:
    samples = mixed()
    together = decode(
        model, collate(samples, RANKS).prompt, RANKS, tokens_max=12, sampling=sampling
    )
    assert together == [alone(model, one, sampling) for one in samples]


def test_sampling_follows_its_seed_and_a_small_nucleus_is_greedy(model: EncoderDecoder) -> None:
    one = mixed()[3]
    warm = [alone(model, one, Sampling(1.0, 1.0, seed=seed)) for seed in range(4)]
    assert len({tuple(ids) for ids in warm}) > 1
    assert alone(model, one, Sampling(1.0, 1.0, seed=2)) == warm[2]
    assert alone(model, one, Sampling(1.0, 1e-6, seed=2)) == alone(model, one, Sampling())


# ------------------------------------------------------------------------ tools


class Scripted:
    """Stands for the weights: writes given turns, whatever it reads, through the real decoder."""

    def __init__(self, model: EncoderDecoder, turns: list[list[int]]) -> None:
        self.read: list[str] = []
        self._turns: Iterator[list[int]] = iter(turns)
        self._model = model

    def __call__(self, _model: EncoderDecoder, prompt: object, *_: object, **__: object) -> object:
        tokens = prompt.tokens[0].tolist()  # type: ignore[attr-defined]
        self.read.append(RANKS.decode(tokens))
        return [next(self._turns)]


def call(text: str) -> list[int]:
    return [RANKS.special(agent.OPEN), *RANKS.encode(text), RANKS.special(agent.CLOSE)]


def test_a_tool_is_called_and_its_response_is_read(
    model: EncoderDecoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.md").write_text("The capital of Atlantis is Poseidonis, says Plato.\n\nNo more.")
    turns = [
        call(json.dumps({"name": "search", "arguments": {"query": "capital of Atlantis"}})),
        call(json.dumps({"name": "python", "arguments": {"code": "print(6 * 7)"}})),
        list(RANKS.encode("Poseidonis 42")),
    ]
    scripted = Scripted(model, turns)
    monkeypatch.setattr(agent, "decode", scripted)
    tools = agent.tools_of(["search", "python"], tmp_path)
    said = agent.Session(model, FORM, Sampling(), tools).ask("where?")
    assert said["answer"] == "Poseidonis 42"
    assert "Poseidonis, says Plato" in said["calls"][0]["response"]
    assert said["calls"][1]["response"] == "42\n"
    assert "<tool_response>[a.md] The capital of Atlantis" in scripted.read[1]
    assert scripted.read[2].endswith("<tool_response>42\n</tool_response>")


def test_calls_without_end_are_ended(
    model: EncoderDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = [call('{"name": "python", "arguments": {"code": ""}}')] * 50
    monkeypatch.setattr(agent, "decode", Scripted(model, turns))
    said = agent.Session(model, FORM, Sampling(), {"python": lambda _: "again"}).ask("x")
    assert len(said["calls"]) == agent.CALLS_MAX


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("no json", 'error: expected {"name"'),
        ("[]", 'error: expected {"name"'),
        ('{"name": "fly"}', "error: no tool 'fly'; there are: echo"),
        ('{"name": "echo", "arguments": {}}', "error: the argument 'text' is missing"),
        ('{"name": "echo", "arguments": []}', 'error: expected {"name"'),
        ('{"name": "echo", "arguments": {"text": "hi"}}', "hi"),
    ],
)
def test_a_bad_call_gets_an_error_as_its_response(written: str, says: str) -> None:
    tools = {"echo": lambda arguments: str(arguments["text"])}
    assert agent.perform(written, tools).startswith(says)


def test_search_finds_the_best_passage_first(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text(
        "A paragraph about apples and pears.\n\nA paragraph about pears, pears and more pears.\n\n"
        "A paragraph about something else."
    )
    index = Index.of(tmp_path)
    assert index.find("pears")[0].text.endswith("more pears.")
    assert index.find("zeppelin") == index.find("!?") == []
    with pytest.raises(UserError, match="there is no such folder"):
        Index.of(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("code", "ended", "output"),
    [
        ("print(1 + 1)", "ok", "2\n"),
        ("raise SystemExit(3)", "exit 3", ""),
        ("while True: pass", "time limit", ""),
        ("x = bytearray(2**31)", "exit 1", "MemoryError"),
        ("print('x' * 100_000)", "ok", "x" * jail.OUTPUT_MAX),
        ("open('big', 'wb').write(bytes(2**22))", "exit 1", "File too large"),
        ("import os; print(sorted(os.environ), os.listdir('.'))", "ok", "[]"),
        ("import torch", "exit 1", "ModuleNotFoundError"),
        ("x" * 50_000, "refused", "at most 20000"),
    ],
)
def test_a_program_in_the_jail_is_bounded(code: str, ended: str, output: str) -> None:
    ran = jail.run(code, seconds=1.0 if "while" in code else jail.SECONDS_MAX)
    assert ran.ended == ended
    assert output in ran.output


def test_nothing_of_a_program_outlives_it(tmp_path: Path) -> None:
    marker = tmp_path / "lives"
    code = (
        "import os, time\n"
        "if os.fork() == 0:\n"
        "    time.sleep(0.5)\n"
        f"    open({str(marker)!r}, 'w').close()\n"
    )
    ran = jail.run(code)
    assert ran.ended == "ok"
    torch.randn(300, 300) @ torch.randn(300, 300)  # something to do meanwhile
    assert not marker.exists()


# ------------------------------------------------------------------------ the command


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a few steps into a vault."""
    folder = tmp_path_factory.mktemp("vault")
    command = ["--preset", "demo", "--steps", "3", "--batch", "4", "--subset", "food"]
    assert train.main([*command, "--checkpoints", str(folder)]) == 0
    return folder


def test_generate_answers_about_all_media_at_once(
    vault: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (200, 90), (9, 99, 9)).save(tmp_path / "a.png")
    frames = [Image.new("RGB", (32, 32), (n * 80, 0, 0)) for n in range(3)]
    frames[0].save(tmp_path / "b.gif", save_all=True, append_images=frames[1:])
    soundfile.write(tmp_path / "c.wav", np.zeros(4_000), 16_000)
    media = ["--image", "a.png", "--video", "b.gif", "--audio", "c.wav"]
    files = [one if one.startswith("--") else str(tmp_path / one) for one in media]
    command = ["generate", "see <image>, watch <video>, hear <audio>?", *files]
    options = ["--checkpoint", str(vault), "--preset", "demo", "-o", "json", "--tokens-max", "5"]
    assert main([*command, *options]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["step"] == 3
    assert isinstance(said["answer"], str)


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        (["--checkpoint", "/nowhere"], 2, "--checkpoint /nowhere: there is no such folder"),
        (["--commit", "99"], 2, "no commit 99 in it"),
        (["--preset", "tiny"], 2, "the checkpoint is not of --preset tiny: embedding.weight"),
        (["--preset", "small"], 2, "--preset small needs a --tokenizer of its own"),
        (["--image", "/nowhere.png"], 2, "/nowhere.png: No such file"),
        (["--image", "{bad}"], 2, "no picture that Pillow can read"),
        (["--audio", "{bad}"], 2, "no sound that libsndfile can read"),
        (["--image", "{empty}"], 2, "0 bytes; expected a picture"),
        (["--video", "{bad}"], 2, "no picture that Pillow can read"),
        (["--audio", "{empty}"], 2, "0 bytes; expected sound"),
        (["--audio", "{slow}"], 2, "sample rate 12 Hz; 4000 to 384000 Hz are read"),
        (["--tokens-max", "0"], 2, "--tokens-max must be at least 1"),
        (["--temperature", "nan"], 2, "--temperature must be 0 (greedy) or above"),
        (["--top-p", "0"], 2, "--top-p must lie between 0 and 1"),
        (["--tool", "search"], 2, "--tool search needs --documents"),
        (["look at <image>"], 2, "the text has a <image> more than there are files"),
        (["word " * 9_000], 2, "positions; this stage reads 4,096"),
    ],
)
def test_generate_says_what_is_wrong(
    vault: Path,
    tmp_path: Path,
    change: list[str],
    status: int,
    says: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bad = tmp_path / "bad.bin"
    bad.write_bytes(b"neither picture nor sound")
    empty, slow = tmp_path / "empty", tmp_path / "slow.wav"
    empty.write_bytes(b"")
    with wave.open(str(slow), "wb") as file:
        file.setparams((1, 2, 12, 0, "NONE", ""))
        file.writeframes(bytes(800))
    changed = [one.format(bad=bad, empty=empty, slow=slow) for one in change]
    options = ["--checkpoint", str(vault), "--preset", "demo"]
    assert main(["generate", *options, *changed]) == status
    assert says in capsys.readouterr().err


def test_a_damaged_checkpoint_is_passed_over_for_its_parent(
    vault: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(vault, copy)
    for path in copy.rglob("*"):
        if path.is_file() and path.stat().st_size > 100_000:
            path.write_bytes(b"x" + path.read_bytes()[1:])
    options = ["generate", "--checkpoint", str(copy), "--preset", "demo"]
    assert main(options) == 1
    assert "no commit verifies" in capsys.readouterr().err
