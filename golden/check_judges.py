"""Checks that a judge, encoder or decoder, gives the same scores in Kudos and in transformers.

    python golden/check_judges.py JUDGE_DIR --kudos target/release/kudos
    python golden/check_judges.py JUDGE_DIR --kudos BIN --data FILE.jsonl --limit 200

Texts become ids as `reward.json` says (`render`, `max_length`, `truncation`). Without it, an encoder reads
`tokenizer(prompt, response)`. A decoder reads `apply_chat_template(messages, tokenize=True)`, or without a template
prompt, response and the end-of-sequence token as one text.
A template that asks for the date is given `date` of reward.json, or --date.

Without --data it scores made-up rows: short and long texts, emoji, markup, control tokens, and for `chat` lists of
messages. Compared are the scores, and the number of tokens of each row. Rows that Kudos has cut are compared if
transformers has the same rule. Exits with 1 if something differs by more than --tolerance or nothing was compared.
"""

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import jinja2
import torch
import transformers
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import tiny

LONG = "The tide came in, the boats went out, and nobody on the pier could say which was first. " * 60
TEXTS = ["Yes.", "no", ".", "It depends 🙂 on the weather ☔️.", "Café, naïve, Åse, ŁÓDŹ.", "我觉得第二个更好。",
         "def f(x):\n    return x ** 2  # squared", " \n two spaces before, and a line after \n", "a" * 200,
         "<b>bold</b> &amp; </s> <unk> <|im_end|> <|eot_id|> <end_of_turn>", "The tag </think> closes it. Tail",
         LONG[:700], LONG]
PROMPTS = ["Which is better?", " hi \n", "¿Qué hora es? 🕐", LONG[:1500]]
# Without a reward.json. A decoder's limit is then the number of its positions.
ENCODERS = ("bert", "distilbert", "roberta", "xlm-roberta", "mpnet", "modernbert", "deberta-v2", "electra")
MAX_LENGTH = 512


def made_up_rows(render):
    """Pairs of texts, one group, and conversations for a judge of chats."""
    rows = [{"prompt": prompt, "chosen": TEXTS[i], "rejected": TEXTS[(i + j + 1) % len(TEXTS)]}
            for j, prompt in enumerate(PROMPTS) for i in range(len(TEXTS)) if (i + j) % 3 == 0]
    rows.append({"prompt": "One of three?", "responses": TEXTS[:3]})
    if render == "chat":
        turns = [{"role": "user", "content": "One?"}, {"role": "assistant", "content": "1"},
                 {"role": "user", "content": "Two?"}]
        rows.append({"prompt": turns, "chosen": [assistant("2")], "rejected": [assistant("3")]})
        system = [{"role": "system", "content": "Be brief."}, *turns]
        rows.append({"prompt": system, "chosen": [assistant("2")], "rejected": [assistant("3")]})
    return rows


def assistant(text):
    return {"role": "assistant", "content": text}


def read_rows(file, limit=None):
    with open(file, encoding="utf-8-sig") as lines:
        return [json.loads(line) for line in lines if line.strip()][:limit]


def responses_of(row):
    """The responses that a row asks to score, in order."""
    for keys in (("chosen", "rejected"), ("response_a", "response_b")):
        if keys[0] in row:
            return [row[key] for key in keys]
    if "responses" in row:
        return [one["text"] if isinstance(one, dict) else one for one in row["responses"]]
    return [row["response"] if "response" in row else row["answer"]]


def scores_in(row):
    """What `kudos score` wrote into a row, one score for each of `responses_of`."""
    for keys in (("score_chosen", "score_rejected"), ("score_a", "score_b"), ("score",)):
        if keys[0] in row:
            return [row[key] for key in keys]
    return row["scores"]


def messages_of(content, role):
    return content if isinstance(content, list) else [{"role": role, "content": content}]


def positions_of(config):
    """How many tokens a model has positions for. RoBERTa's and MPNet's start after the pad id."""
    after_pad = config.model_type in ("roberta", "xlm-roberta", "mpnet")
    return config.max_position_embeddings - (config.pad_token_id + 1 if after_pad else 0)


class Ids:
    """(prompt, response) → ids as transformers makes them, by a directory's tokenizer and the settings' reward.json."""

    def __init__(self, directory, config, date=None, settings=None):
        file = (settings or directory) / "reward.json"
        settings = json.loads(file.read_text()) if file.exists() else {}
        self.tokenizer = AutoTokenizer.from_pretrained(directory)
        self.render = settings.get("render") or self.default_render(config)
        positions = positions_of(config)
        default = MAX_LENGTH if config.model_type in ENCODERS else positions
        self.max_length = min(settings.get("max_length", default), positions)
        self.keeps_response = settings.get("truncation") == "keep_response"
        date = date or settings.get("date")
        self.date = date and datetime.datetime.fromisoformat(date)

    def default_render(self, config):
        if config.model_type in ENCODERS:
            return "pair"
        return "chat" if self.tokenizer.chat_template else "concat"

    def whole(self, prompt, response):
        """The ids before anything is cut. None where transformers has no such rendering."""
        if self.render == "chat":
            messages = messages_of(prompt, "user") + messages_of(response, "assistant")
            given = {"strftime_now": self.date.strftime} if self.date else {}
            return list(self.tokenizer.apply_chat_template(messages, tokenize=True, **given)["input_ids"])
        if not (isinstance(prompt, str) and isinstance(response, str)):
            return None
        return self.tokenizer(*self.texts(prompt, response))["input_ids"]

    def texts(self, prompt, response):
        """What is given to the tokenizer: two texts, or one that ends in the end-of-sequence token."""
        if self.render == "pair":
            return prompt, response
        end = self.tokenizer.eos_token or ""
        return (prompt + response + ("" if response.endswith(end) else end),)

    def cut(self, prompt, response):
        """The ids that the judge reads. None if the rule by which they are cut is not transformers'."""
        ids = self.whole(prompt, response)
        if ids is None or len(ids) <= self.max_length:
            return ids
        # Of a conversation, Kudos cuts words of the messages and keeps the template's.
        if self.keeps_response or self.render == "chat":
            return None
        return self.tokenizer(*self.texts(prompt, response), truncation=True, max_length=self.max_length)["input_ids"]

    def segments(self, prompt, response):
        """The token types beside `cut` (BERT has two), or nothing."""
        if self.render != "pair" or "token_type_ids" not in self.tokenizer.model_input_names:
            return {}
        given = self.tokenizer(prompt, response, truncation=True, max_length=self.max_length, return_tensors="pt")
        return {"token_type_ids": given["token_type_ids"]}


class Judge:
    """A judge in transformers: float32, eager attention, one text at a time. Its parts may come from elsewhere."""

    def __init__(self, directory, date=None, model=None, settings=None):
        self.model = model or load(directory)
        self.ids = Ids(directory, self.model.config, date, settings)

    @torch.no_grad()
    def score(self, prompt, response):
        """(tokens, score), or None where there is nothing to compare with."""
        ids = self.ids.cut(prompt, response)
        if ids is None:
            return None
        types = self.ids.segments(prompt, response)
        return len(ids), self.model(input_ids=torch.tensor([ids]), **types).logits[0, 0].item()


def load(directory):
    """The model of a judge directory, none of whose weights may be made up."""
    model, info = AutoModelForSequenceClassification.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    if info["missing_keys"]:
        raise SystemExit(f"{directory}: transformers fills {sorted(info['missing_keys'])} with random numbers")
    if model.config.num_labels != 1:
        raise SystemExit(f"{directory}: {model.config.num_labels} labels, only judges of one score can be compared")
    return model.eval()


def kudos_rows(kudos, judge, rows, extra=()):
    """`rows` with what `kudos score` adds to them."""
    with tempfile.TemporaryDirectory() as temporary:
        given, out = Path(temporary) / "given.jsonl", Path(temporary) / "out.jsonl"
        given.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        subprocess.run([kudos, "score", given, "--judge", judge, "-o", out, "--precision", "f32", "--quiet", *extra],
                       check=True)
        scored = read_rows(out)
    if len(scored) != len(rows):
        raise SystemExit(f"{len(rows)} rows in, {len(scored)} rows out")
    return scored


def renderable(judge, rows):
    """The rows that the judge's template accepts; the others are named."""
    kept = []
    for row in rows:
        try:
            [judge.ids.whole(row["prompt"], response) for response in responses_of(row)]
            kept.append(row)
        except (jinja2.exceptions.TemplateError, ValueError) as error:
            print(f"left out, the template says: {error}")
    return kept


def compare(judge, rows, scored):
    """(texts compared, largest difference of a score, rows with another number of tokens)"""
    count, worst, other_tokens = 0, 0.0, []
    for row, answer in zip(rows, scored, strict=True):
        expected = [judge.score(row["prompt"], response) for response in responses_of(row)]
        if None in expected:
            continue
        if answer["tokens"] != sum(tokens for tokens, _ in expected):
            other_tokens.append(row)
        for found, (_, score) in zip(scores_in(answer), expected, strict=True):
            count, worst = count + 1, max(worst, abs(found - score))
    return count, worst, other_tokens


def report(judge, rows, scored, tolerance, what):
    """Prints one comparison; whether it is good."""
    count, worst, other_tokens = compare(judge, rows, scored)
    good = count > 0 and worst <= tolerance and not other_tokens
    print(f"{what}: {count} texts, largest difference {worst:.1e} {'ok' if good else 'FAILED'}")
    for row in other_tokens[:3]:
        print(f"  another number of tokens: {json.dumps(row, ensure_ascii=False)[:200]}")
    return good


def main():
    parser = argparse.ArgumentParser(description="Compare a judge's scores: Kudos and transformers.")
    parser.add_argument("judge", type=Path, help="judge directory")
    parser.add_argument("--kudos", required=True, help="the kudos program")
    parser.add_argument("--data", type=Path, help="JSONL of pairs, comparisons, groups or single responses")
    parser.add_argument("--limit", type=int, help="only the first N rows")
    parser.add_argument("--date", help="the day that a template is given, as 2024-07-26")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="largest difference allowed (1e-4)")
    parser.add_argument("--score-args", default="", help="more flags for `kudos score`, in one string")
    arguments = parser.parse_args()
    tiny.assert_pinned("torch", "transformers")
    tiny.deterministic()
    judge = Judge(arguments.judge, arguments.date)
    rows = read_rows(arguments.data, arguments.limit) if arguments.data else made_up_rows(judge.ids.render)
    rows = renderable(judge, rows)
    scored = kudos_rows(arguments.kudos, arguments.judge, rows, arguments.score_args.split())
    good = report(judge, rows, scored, arguments.tolerance, f"{arguments.judge}, render {judge.ids.render}")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
