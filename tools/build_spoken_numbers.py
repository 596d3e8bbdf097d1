"""Build `model/data/embedded/speech/` from Debian's recorded prompts; its output is committed.

    .venv/bin/python tools/build_spoken_numbers.py --out model/data/embedded

It downloads (`apt-get download`, no root) asterisk-core-sounds-{en,es,fr,it,ru} and their -wav
packages, and writes the numbers from 0 to 99 that each speaker recorded:

    speech/LANGUAGE.wav   the clips one after another, silence cut off, GSM 6.10 at 8 kHz
    speech/clips.tsv      language, first sample, samples, number, the words spoken
    speech/LICENSE.txt    Debian's copyright file of the recordings: credits and both licences

English, French and Spanish are CC-BY-SA-3.0, Italian and Russian CC-BY-3.0, hence a folder of their
own. GSM 6.10 is a telephone codec in integers: it decodes to the same numbers everywhere.
"""

from __future__ import annotations

import argparse
import gzip
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from build_embedded_data import write_sums
from numpy.typing import NDArray

LANGUAGES = ("en", "es", "fr", "it", "ru")
SPEAKERS = "usr/share/asterisk/sounds"
RATE = 8_000  # Hz
LOUD = 0.02  # of full scale: quieter than this at the ends is silence
MARGIN = 400  # samples kept before and after
NUMBER_MAX = 99


@dataclass(frozen=True)
class Clip:
    """One recorded number."""

    number: int
    words: str
    samples: NDArray[np.float32]


def main() -> None:
    """Read the arguments and write the directory."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="the embedded directory")
    parser.add_argument("--root", type=Path, help="where the packages are unpacked already")
    args = parser.parse_args()
    if args.root is not None:
        build(args.root, args.out)
        return
    with tempfile.TemporaryDirectory() as scratch:
        build(unpack(Path(scratch)), args.out)


def unpack(scratch: Path) -> Path:
    """Download and unpack the packages; return the root of their files."""
    names = [f"asterisk-core-sounds-{code}{kind}" for code in LANGUAGES for kind in ("", "-wav")]
    subprocess.run(["apt-get", "download", *names], cwd=scratch, check=True)
    root = scratch / "root"
    for package in sorted(scratch.glob("*.deb")):
        subprocess.run(["dpkg", "-x", str(package), str(root)], check=True)
    return root


def build(root: Path, out: Path) -> None:
    """Write every file of the directory from the unpacked packages."""
    folder = out / "speech"
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for language in LANGUAGES:
        clips = list(recorded(root, language))
        start = 0
        for clip in clips:
            rows.append(f"{language}\t{start}\t{len(clip.samples)}\t{clip.number}\t{clip.words}\n")
            start += len(clip.samples)
        whole = np.concatenate([clip.samples for clip in clips])
        soundfile.write(folder / f"{language}.wav", whole, RATE, subtype="GSM610")
    (folder / "clips.tsv").write_text("".join(rows), "utf-8")
    terms = (root / "usr/share/doc/asterisk-core-sounds-it-wav/copyright").read_text("utf-8")
    (folder / "LICENSE.txt").write_text(terms, "utf-8")
    write_sums(out)
    print(f"{len(rows)} clips in {folder}")


def recorded(root: Path, language: str) -> Iterator[Clip]:
    """Yield the numbers of a language, in order."""
    (digits,) = (root / SPEAKERS).glob(f"{language}_*/digits")
    for number, words in sorted(spoken(root, language).items()):
        samples, rate = soundfile.read(digits / f"{number}.wav", dtype="float32")
        if rate != RATE:
            raise SystemExit(f"{digits}/{number}.wav: {rate} Hz, expected {RATE}")
        yield Clip(number, words, trimmed(samples))


def spoken(root: Path, language: str) -> dict[int, str]:
    """Return the words of each number that the package's list names."""
    doc = f"usr/share/doc/asterisk-core-sounds-{language}/core-sounds-{language}.txt.gz"
    text = gzip.decompress((root / doc).read_bytes()).decode("utf-8-sig", "replace")
    words: dict[int, str] = {}
    for number, said in re.findall(r"^digits/(\d{1,2})\s*:\s*(.+?)\s*$", text, re.MULTILINE):
        # the Spanish list calls `diez` a second 0
        words[10 if said == "diez" else int(number)] = said
    return {number: said for number, said in words.items() if number <= NUMBER_MAX}


def trimmed(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cut the silence at both ends."""
    loud = np.flatnonzero(np.abs(samples) > LOUD)
    return samples[max(0, loud[0] - MARGIN) : loud[-1] + MARGIN]


if __name__ == "__main__":
    main()
