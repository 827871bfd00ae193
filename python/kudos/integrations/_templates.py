"""Prompts without their chat template, responses without the tokens that end them: as a judge was trained."""

from __future__ import annotations

import re

from .._data import Text
from ..errors import DataError

#: How the chat templates of model families write a turn, and what opens the turn that is asked for.
_TEMPLATES = [
    (r"<\|im_start\|>(\w+)\n(.*?)<\|im_end\|>\s*", r"<\|im_start\|>assistant\n(?:<think>\s*(?:</think>\s*)?)?"),
    (
        r"<\|start_header_id\|>(\w+)<\|end_header_id\|>\n\n(.*?)<\|eot_id\|>",
        r"<\|start_header_id\|>assistant<\|end_header_id\|>\n\n",
    ),
    (r"<start_of_turn>(\w+)\n(.*?)<end_of_turn>\s*", r"<start_of_turn>model\n"),
]
_STARTS = re.compile(r"(?:<s>|<bos>|<\|begin_of_text\|>|<\|endoftext\|>)*")
_ENDS = re.compile(r"(?:\s*(?:</s>|<eos>|<pad>|<end_of_turn>|<\|(?:im_end|endoftext|eot_id|end_of_text|end)\|>))+\s*\Z")


def response_of(query: str, prompt: str) -> str:
    """The response in a query, without the tokens that end it."""
    if not query.startswith(prompt):
        raise DataError(f"expected a query that begins with its prompt, found {query[:80]!r}: was the prompt cut?")
    return _ENDS.sub("", query[len(prompt) :])


def prompt_of(prompt: str, template: str | None, keep_system: bool) -> Text:
    """The prompt without its template: one question as text, a conversation as messages.

    `template` has `{}` where the prompt stands. Without it, the chat templates of ChatML, Llama 3 and Gemma are read.
    """
    if template is None:
        text = _STARTS.sub("", prompt, count=1)
        read = (_conversation(text, *template, keep_system) for template in _TEMPLATES)
        return next((found for found in read if found), text)
    before, _, after = template.partition("{}")
    if not (prompt.startswith(before) and prompt.endswith(after)):
        raise DataError(f"expected a prompt in the template {template!r}, found {prompt[:80]!r}")
    return prompt[len(before) : len(prompt) - len(after)]


def _conversation(text: str, turn: str, opening: str, keep_system: bool) -> Text | None:
    """The turns, if the text is nothing else."""
    place, turns = 0, []
    while found := re.compile(turn, re.DOTALL).match(text, place):
        turns.append({"role": found[1].replace("model", "assistant"), "content": found[2]})
        place = found.end()
    turns = [one for one in turns if keep_system or one["role"] != "system"]
    if not turns or not re.compile(opening).fullmatch(text, place):
        return None
    return turns[0]["content"] if len(turns) == 1 and turns[0]["role"] == "user" else turns
