"""The command line of the training program."""

from __future__ import annotations

import pytest

from model.settings import parse
from model.train import main
from orchestrator.errors import UserError


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--steps", "0"], "--steps must be at least 1"),
        (["--checkpoint-every", "0"], "--checkpoint-every must be at least 1"),
        (["--data-seed", "-1"], "--data-seed must not be negative"),
        (["--lr", "3"], "--lr must lie between 0 and 1"),
        (["--text-share", "2"], "--text-share must lie between 0 and 1"),
        (["--subset", "cars"], "unknown group 'cars'; choose from: all smileys"),
        (["--languages", "en,xx"], "unknown language 'xx'; choose from: en de"),
        (["--preset", "edge-7b"], "--preset edge-7b has 100352 token ids"),
        (["--clip", "0"], "--clip must be above 0"),
        (["--curriculum", "nothing"], "known ones: "),
        (["--curriculum", "pictures", "--steps", "3"], "--steps and --curriculum exclude"),
    ],
)
def test_a_mistake_ends_with_2_and_says_what_to_do(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--stepz", "3"], ["--steps", "many"], ["--preset", "x"]])
def test_what_is_no_flag_at_all_ends_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(arguments)
    assert ended.value.code == 2


def test_the_learning_rate_rises_stays_and_falls() -> None:
    settings = parse(["--steps", "100", "--lr", "0.01"])
    rates = [settings.learning_rate_at(step) for step in range(1, 101)]
    assert rates[0] == pytest.approx(0.001)
    assert rates[9] == rates[40] == pytest.approx(0.01)
    assert rates[99] == pytest.approx(0.0005)
    assert rates[50:] == sorted(rates[50:], reverse=True)


def test_the_digest_knows_what_decides_the_weights_and_nothing_else() -> None:
    one = parse([]).digest()
    assert parse(["--evaluate", "5", "--checkpoint-every", "3"]).digest() == one
    assert parse(["--data-seed", "1"]).digest() != one


def test_a_bad_subset_is_a_users_mistake() -> None:
    with pytest.raises(UserError):
        parse(["--subset", ""])
