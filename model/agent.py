"""A conversation in which the model may call functions: search a folder, run Python in a jail.

The encoder reads the whole conversation so far, the decoder writes one turn. A turn that ends in
`<tool_call>{"name": ..., "arguments": {...}}</tool_call>` is carried out, and the result, between
`<tool_response>` and `</tool_response>`, is read with the next turn. A call that is no JSON, names
no tool or lacks an argument gets an error as its response: the model may mend it. After `CALLS_MAX`
calls the last turn is the answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from model import inputs, jail
from model.data.samples import Form, Sample, collate
from model.decoding import Sampling, decode
from model.inputs import Asked
from model.search import Index
from model.transformer import EncoderDecoder
from orchestrator.errors import UserError

CALLS_MAX = 4
RESPONSE_MAX = 2_000  #: characters of a tool's answer that the model reads
OPEN, CLOSE = "<tool_call>", "</tool_call>"
OPEN_RESPONSE, CLOSE_RESPONSE = "<tool_response>", "</tool_response>"

Tool = Callable[[Mapping[str, Any]], str]


@dataclass(frozen=True, slots=True)
class Call:
    """One function call and what came of it."""

    written: str  #: what stood between the tokens
    response: str


@dataclass(frozen=True)
class Session:
    """A model and its tools."""

    model: EncoderDecoder
    form: Form
    sampling: Sampling
    tools: Mapping[str, Tool]

    def ask(self, text: str, files: Sequence[Asked] = ()) -> dict[str, Any]:
        """Return the answer and the calls made on the way to it."""
        turn = inputs.prompt(self.form, text, files)
        calls: list[Call] = []
        written = self._turn(turn)
        while self.tools and len(calls) < CALLS_MAX:
            wanted = self._called(written)
            if wanted is None:
                break
            call = Call(wanted, perform(wanted, self.tools))
            calls.append(call)
            turn = self._with(turn, written, call)
            written = self._turn(turn)
        said = [{"call": one.written, "response": one.response} for one in calls]
        return {"answer": self.form.tokenizer.text(written), "calls": said}

    def _turn(self, turn: Sample) -> list[int]:
        prompt = collate([turn], self.form.tokenizer).prompt.to(self.model.device)
        (ids,) = decode(
            self.model,
            prompt,
            self.form.tokenizer,
            tokens_max=self.form.answer_max,
            sampling=self.sampling,
            until=(CLOSE,),
        )
        return ids

    def _called(self, ids: list[int]) -> str | None:
        """Return what stands between the tool-call tokens of a turn, or None."""
        special = self.form.tokenizer.special
        opening, closing = special(OPEN), special(CLOSE)
        if opening not in ids or ids[-1] != closing:
            return None
        return self.form.tokenizer.text(ids[ids.index(opening) + 1 : -1])

    def _with(self, turn: Sample, written: list[int], call: Call) -> Sample:
        special = self.form.tokenizer.special
        response = self.form.tokenizer.encode(call.response)
        added = (*written, special(OPEN_RESPONSE), *response, special(CLOSE_RESPONSE))
        prompt, kinds = (*turn.prompt, *added), (*turn.kinds, *[0] * len(added))
        if len(prompt) > self.form.prompt_max:
            raise UserError(f"the conversation has grown over {self.form.prompt_max:,} positions")
        return replace(turn, prompt=prompt, kinds=kinds)


def perform(written: str, tools: Mapping[str, Tool]) -> str:
    """Carry out a call as the model wrote it; whatever is wrong becomes the response."""
    try:
        call = json.loads(written)
        name, arguments = call["name"], call.get("arguments", {})
        if not isinstance(arguments, dict):
            raise TypeError("arguments")
    except (ValueError, KeyError, TypeError, AttributeError):
        return 'error: expected {"name": ..., "arguments": {...}}'
    if name not in tools:
        return f"error: no tool {name!r}; there are: {', '.join(tools) or 'none'}"
    try:
        return tools[name](arguments)[:RESPONSE_MAX]
    except KeyError as error:
        return f"error: the argument {error} is missing"


def tools_of(names: Sequence[str], documents: Path | None) -> dict[str, Tool]:
    """Return the tools of the command line. Raises UserError if search has no folder."""
    tools: dict[str, Tool] = {}
    if "search" in names:
        if documents is None:
            raise UserError("--tool search needs --documents FOLDER")
        tools["search"] = _search(Index.of(documents))
    if "python" in names:
        tools["python"] = _python
    return tools


def _search(index: Index) -> Tool:
    def search(arguments: Mapping[str, Any]) -> str:
        found = index.find(str(arguments["query"]))
        return "\n".join(f"[{one.source}] {one.text}" for one in found) or "nothing found"

    return search


def _python(arguments: Mapping[str, Any]) -> str:
    ran = jail.run(str(arguments["code"]))
    return ran.output if ran.ended == "ok" else f"{ran.output}({ran.ended})"
