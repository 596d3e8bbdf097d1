"""Build `model/data/embedded/` from three Debian packages; its output is committed.

    .venv/bin/python tools/build_embedded_data.py --out model/data/embedded

It downloads (`apt-get download`, no root) fonts-noto-color-emoji, unicode-cldr-core and
unicode-data into a temporary directory, unpacks them with `dpkg -x`, and writes

    sprites.png       every fully-qualified emoji without skin tone, 32x32 each, one PNG-8 sheet
    captions.tsv.xz   one line per column: code points, group, subgroup, then a line per language
    LICENSE-*         the licences of what is inside
    sha256.txt        SHA-256 of the files above and of the BPE, as sha256sum writes it

The byte-level BPE ranks (`bpe-4096.tiktoken`) are made from the captions by
`tools/train_tokenizer.py`, which then refreshes `sha256.txt`. Debian bookworm was used for the
committed files; another font version draws other sprites, hence other digests.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import lzma
import re
import subprocess
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

PACKAGES = ("fonts-noto-color-emoji", "unicode-cldr-core", "unicode-data")
FONT = "usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
EMOJI_TEST = "usr/share/unicode/emoji/emoji-test.txt"
ANNOTATIONS = "usr/share/unicode/cldr/common"
FONT_PIXELS = 109  # the only size in this bitmap font
CANVAS, MARGIN = 160, 12  # pixels around a glyph of about 136 x 128
SPRITE, COLUMNS = 32, 40
VARIATION_SELECTOR = "\ufe0f"

#: The 32 languages that the Reka report names, as CLDR calls them (Norwegian is `no`).
LANGUAGES = (
    *(
        "en",
        "de",
        "zh",
        "ja",
        "fr",
        "ko",
        "es",
        "it",
        "ar",
        "hi",
        "id",
        "vi",
        "th",
        "cs",
        "nl",
        "fi",
    ),
    *(
        "bg",
        "pt",
        "ta",
        "fa",
        "el",
        "ru",
        "tr",
        "te",
        "my",
        "sw",
        "ur",
        "et",
        "ms",
        "eu",
        "sv",
        "no",
    ),
)


@dataclass(frozen=True)
class Emoji:
    """One emoji and where Unicode files it."""

    text: str
    group: str
    subgroup: str

    @property
    def codepoints(self) -> str:
        """Return its code points in hex, joined by '-'."""
        return "-".join(f"{ord(char):X}" for char in self.text)


def main() -> None:
    """Read the arguments and write the directory."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="directory to write")
    parser.add_argument("--root", type=Path, help="where the packages are unpacked already")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.root is not None:
        build(args.root, args.out)
        return
    with tempfile.TemporaryDirectory() as scratch:
        build(unpack(Path(scratch)), args.out)


def unpack(scratch: Path) -> Path:
    """Download and unpack the packages; return the root of their files."""
    subprocess.run(["apt-get", "download", *PACKAGES], cwd=scratch, check=True)
    root = scratch / "root"
    for package in sorted(scratch.glob("*.deb")):
        subprocess.run(["dpkg", "-x", str(package), str(root)], check=True)
    return root


def build(root: Path, out: Path) -> None:
    """Write every file of the directory from the unpacked packages."""
    emojis = list(without_skin_tones(read_emoji_test(root / EMOJI_TEST)))
    (out / "sprites.png").write_bytes(sheet(emojis, root / FONT))
    (out / "captions.tsv.xz").write_bytes(captions(emojis, root / ANNOTATIONS))
    copy_licences(root, out)
    write_sums(out)
    print(f"{len(emojis)} sprites, {len(LANGUAGES)} languages, {total_bytes(out):,} bytes in {out}")


def read_emoji_test(path: Path) -> Iterator[Emoji]:
    """Yield the fully-qualified emoji of Unicode's emoji-test.txt, in its order."""
    group = subgroup = ""
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("# group: "):
            group = line.removeprefix("# group: ")
        elif line.startswith("# subgroup: "):
            subgroup = line.removeprefix("# subgroup: ")
        elif match := re.match(r"([0-9A-F ]+?)\s*; fully-qualified", line):
            yield Emoji("".join(chr(int(code, 16)) for code in match[1].split()), group, subgroup)


def without_skin_tones(emojis: Iterable[Emoji]) -> Iterator[Emoji]:
    """Drop the variants with a Fitzpatrick modifier (U+1F3FB to U+1F3FF)."""
    return (e for e in emojis if not re.search("[\U0001f3fb-\U0001f3ff]", e.text))


def sheet(emojis: list[Emoji], font_path: Path) -> bytes:
    """Draw every emoji at 32x32 and return the sheet as an 8-bit PNG."""
    font = ImageFont.truetype(str(font_path), FONT_PIXELS)
    rows = -(-len(emojis) // COLUMNS)
    image = Image.new("RGBA", (COLUMNS * SPRITE, rows * SPRITE))
    for index, emoji in enumerate(emojis):
        row, column = divmod(index, COLUMNS)
        image.paste(draw(emoji, font), (column * SPRITE, row * SPRITE))
    buffer = io.BytesIO()
    palette = image.quantize(256, method=Image.Quantize.FASTOCTREE)
    palette.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def draw(emoji: Emoji, font: ImageFont.FreeTypeFont) -> Image.Image:
    """Return one sprite; raise if the font has no single glyph for the sequence."""
    image = Image.new("RGBA", (CANVAS, CANVAS))
    pen = ImageDraw.Draw(image)
    left, top, right, bottom = pen.textbbox((0, 0), emoji.text, font=font, embedded_color=True)
    if not 20 <= right - left <= 150:  # a missing glyph, or a sequence drawn as several
        raise SystemExit(f"the font cannot draw {emoji.codepoints}; is Pillow built with Raqm?")
    corner = (CANVAS / 2 - (left + right) / 2, CANVAS / 2 - (top + bottom) / 2)
    pen.text(corner, emoji.text, font=font, embedded_color=True)
    square = image.crop((MARGIN, MARGIN, CANVAS - MARGIN, CANVAS - MARGIN))
    return square.resize((SPRITE, SPRITE), Image.Resampling.LANCZOS)


def captions(emojis: list[Emoji], annotations: Path) -> bytes:
    """Return the caption table, column by column (it packs better than row by row)."""
    columns = [
        ["codepoints", *(e.codepoints for e in emojis)],
        ["group", *(e.group for e in emojis)],
        ["subgroup", *(e.subgroup for e in emojis)],
    ]
    for language in LANGUAGES:
        names = short_names(annotations, language)
        keys = (e.text.replace(VARIATION_SELECTOR, "") for e in emojis)
        columns.append([language, *(names.get(key, "").strip() for key in keys)])
    table = "".join("\t".join(column) + "\n" for column in columns)
    return lzma.compress(table.encode(), preset=9 | lzma.PRESET_EXTREME)


def short_names(annotations: Path, language: str) -> dict[str, str]:
    """Return CLDR's short name (`type="tts"`) of every sequence it names in a language."""
    names: dict[str, str] = {}
    for folder in ("annotations", "annotationsDerived"):
        for node in ET.parse(annotations / folder / f"{language}.xml").iter("annotation"):
            if node.get("type") == "tts" and node.text:
                names[(node.get("cp") or "").replace(VARIATION_SELECTOR, "")] = node.text
    return names


def copy_licences(root: Path, out: Path) -> None:
    """Put the licences of the art and of the captions beside them."""
    doc = root / "usr/share/doc"
    credit = (
        "Sprites rendered from Noto Emoji, Copyright 2013-2017 Google Inc., whose art is under:\n"
    )
    apache = Path("/usr/share/common-licenses/Apache-2.0").read_text("utf-8")
    (out / "LICENSE-sprites.txt").write_text(f"{credit}\n{apache}", "utf-8")
    unicode_terms = (doc / "unicode-cldr-core/copyright").read_text("utf-8")
    (out / "LICENSE-captions.txt").write_text(unicode_terms, "utf-8")


def write_sums(out: Path) -> None:
    """Write sha256.txt over the other files."""
    skipped = {"sha256.txt", "__init__.py"}
    data = (p for p in out.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    names = sorted(p.relative_to(out).as_posix() for p in data if p.name not in skipped)
    sums = (f"{hashlib.sha256((out / name).read_bytes()).hexdigest()}  {name}\n" for name in names)
    (out / "sha256.txt").write_text("".join(sums))


def total_bytes(out: Path) -> int:
    """Return the size of the directory's files."""
    return sum(path.stat().st_size for path in out.rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
