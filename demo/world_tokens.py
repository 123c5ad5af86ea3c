"""Token ids of the toy world's words: ``python -m demo.world_tokens`` writes demo/world_tokens.json.

The ids are those of ComfyUI's SD1 tokenizer. The table replaces it where its vocabulary file is missing, on a machine
that trains. The small text encoder has one row for each id in it and one more for every other token.
"""

import functools
import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

TABLE = Path(__file__).resolve().parent / "world_tokens.json"
BEGIN, END = 49406, 49407  # END also fills up, as in SD1.5
LENGTH = 77
_WORD = re.compile(r"[a-z]+|[0-9]|[^\sa-z0-9]+")


@functools.cache
def table() -> dict[str, list[int]]:
    """Word or punctuation mark -> token ids."""
    return json.loads(TABLE.read_text(encoding="ascii"))


@functools.cache
def vocabulary() -> tuple[int, ...]:
    """The token ids with a row of their own, rising; the row after the last is for every other token."""
    return tuple(sorted({BEGIN, END, *(token for tokens in table().values() for token in tokens)}))


@functools.cache
def _rows_of_words() -> dict[str, tuple[int, ...]]:
    rows = {token: row for row, token in enumerate(vocabulary())}
    return {word: tuple(rows[token] for token in tokens) for word, tokens in table().items()}


def token_ids(caption: str) -> list[int]:
    """The 77 token ids of a caption as the SD1 tokenizer gives them, for captions of the toy world's words.

    Raises:
        KeyError: another word.
        ValueError: a caption that needs more than 77 tokens.
    """
    tokens = [token for word in _WORD.findall(caption.lower()) for token in table()[word]]
    if len(tokens) > LENGTH - 2:
        raise ValueError(f"caption: {len(tokens)} tokens, more than {LENGTH - 2}: {caption!r}")
    return [BEGIN, *tokens, *[END] * (LENGTH - 1 - len(tokens))]


def token_rows(captions: Sequence[str]) -> np.ndarray:
    """int16 [len(captions), 77]: rows of the small vocabulary; raises what ``token_ids`` raises."""
    begin, end = vocabulary().index(BEGIN), vocabulary().index(END)
    words = _rows_of_words()
    rows = np.full((len(captions), LENGTH), end, dtype=np.int16)
    rows[:, 0] = begin
    for line, caption in zip(rows, captions, strict=True):
        found = [row for word in _WORD.findall(caption.lower()) for row in words[word]]
        if len(found) > LENGTH - 2:
            raise ValueError(f"caption: {len(found)} tokens, more than {LENGTH - 2}: {caption!r}")
        line[1 : 1 + len(found)] = found
    return rows


def make_table() -> dict[str, list[int]]:
    """The table for today's words, from ComfyUI's tokenizer."""
    from comfy.sd1_clip import SDTokenizer

    from demo.world.captions import WORDS

    tokenizer = SDTokenizer()
    found = {}
    for word in sorted(WORDS):
        tokens = [token for token, _ in tokenizer.tokenize_with_weights(word)[0]]
        found[word] = tokens[1 : tokens.index(END)]
    return found


def main() -> None:
    """Writes the table."""
    from demo.bare_machine import use_host

    use_host()
    lines = ",\n".join(f"{json.dumps(word)}: {json.dumps(tokens)}" for word, tokens in make_table().items())
    TABLE.write_text(f"{{\n{lines}\n}}\n", encoding="ascii")
    print(f"{TABLE}: {lines.count(chr(10)) + 1} words")


if __name__ == "__main__":
    main()
