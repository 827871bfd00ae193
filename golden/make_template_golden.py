"""Makes golden/templates: what transformers renders of small chat templates, and what Python makes of dates.

    python golden/make_template_golden.py

cases.json      [{template, messages, expected}], expected is null where transformers raises an error
dates.json      [[seconds since 1970 in UTC, format, text]], with 1234 microseconds

The templates go through all that templates use of Python: methods of strings with every kind of white space, filters,
`%` formatting, `tojson` with its arguments. `crates/kudos/src/text/{chat,dates}.rs` read the result.
"""

import datetime
import json
import locale
import pathlib

import transformers
from transformers.utils.chat_template_utils import _compile_jinja_template

OUT = pathlib.Path(__file__).parent / "templates"
VERSION = "5.23.0"

# Every character that Python or Unicode takes for white space, and some that only look like it.
SPACES = "\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2007\u200a\u2028\u2029\u202f\u205f\u3000"
NEAR_SPACES = "\x08\x0e\x1b\x7f\u180e\u200b\u2060\ufeff"
TEXTS = (
    [f"{space}a{space}{space}b{space}" for space in SPACES]
    + [f"{space}a" for space in NEAR_SPACES]
    + ["", " ", "\x1c\x1f", "one two", " a  b\tc\n", "a\r\nb\rc\n\nd", "x,y,,z", "don't STOP me", "ǆ ß ΑΣ σας İ ŉ", "e\u0301a_b-c 12½ Ⅷ", "नमस्ते दुनिया", "日本語 テキスト"]
)
METHODS = [
    "strip()", "lstrip()", "rstrip()", "strip(' a')", "lstrip('a')", "rstrip('b ')", "split()", "split(none, 1)", "split(maxsplit=1)",
    "split(sep=',')", "split(',')", "split(',', 1)", "split('a', 0)", "rsplit()", "rsplit(none, 1)", "rsplit(',', 1)", "splitlines()",
    "splitlines(true)", "splitlines(keepends=true)", "isspace()", "title()", "partition(',')", "rpartition(',')", "removeprefix('one')",
    "removesuffix('z')",
]
FILTERS = ["trim", "trim('a ')", "wordcount", "length", "upper", "replace('a', 'b')"]

VALUES = "{'b': [1, 2.5, -0.0, 1e300, 1e16, 1e15, 0.0001, 1e-7, 1.5e-300], 'a': {'é': none, 'x<': true}, 'c': 'q\"\\\\\\n\\u2028😀\\x7f/', 'd': [], 'e': {}}"
TOJSON = [
    "tojson", "tojson(indent=2)", "tojson(indent=0)", "tojson(indent=none)", "tojson(indent='--')", "tojson(sort_keys=true)",
    "tojson(separators=(',', ':'))", "tojson(separators=[',', ':'])", "tojson(separators=(' ; ', ' = '), indent=1)", "tojson(ensure_ascii=true)",
    "tojson(ensure_ascii=false, sort_keys=true, indent=4)", "tojson(separators=('a',))", "tojson(unknown=1)",
]

PERCENT = [
    "'%s' % 'x'", "'%s' % 3", "'%s' % 2.5", "'%s' % none", "'%s' % true", "'%s' % [1, 'a']", "'%s' % ({'a': 1},)", "'%d' % 42",
    "'%s and %s' % ('a', 'b')", "'%5s|%-5s|' % ('a', 'b')", "'%05d' % 42", "'%.2f' % 3.14159", "'%x %X %o' % (255, 255, 8)", "'%e' % 12345.678",
    "'%g' % 0.00001", "'%%'  % ()", "'100%% %s' % 'x'", "'%(a)s-%(b)d' % {'a': 'x', 'b': 2}", "'%c' % 'x'", "'%+d' % 5", "'%s' % messages[0].content",
    "'%s' % messages[0]['content'] | upper", "('%s' % 'a') ~ 'b'", "'%s' % 'a' ~ 'b'", "'%s: %s' % (messages[0].role, messages[0]['content'].strip())", "'%s' % ('<%s>' % 'x')",
    "'%s %s' % 'a'", "'%s' % ('a', 'b')", "'a' % 'b'", "'a' % {'b': 1}", "'a' % [1]", "'%s' % ()", "'%%' % 'a'", "'%d' % 'x'", "7 % 3", "-7 % 3", "'%s' % -3", "'%s' % (7 % 3)", "'%q' % 1", "'%s' | format('x')", "'%d of %d' | format(1, 2)",
]

WHOLE = [
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content | trim }}<|end|>\n{% endfor %}",
    "{%- for m in messages -%}[{{ m['content'].strip() }}]{%- endfor -%}",
    "{% if messages[0].content.split() | length > 1 %}{{ '%d words' % messages[0].content.split() | length }}{% endif %}",
    "{%- set head = '%s|%s' % (messages[0].role, 'x') -%}{{ head }}{% raw %}{{ '%s' % x }}{% endraw %}{# '%s' % x #}",
    "100 % of {{ '100 %' }} {% if 4 % 2 == 0 %}even{% endif %}",
    "{{ undefined_thing | tojson }}",
    "{{ messages | tojson }}",
    "{{ undefined_thing | trim }}|{{ none | trim }}|{{ 5 | trim }}|{{ 5 | wordcount }}",
]


def literal(text):
    """A string of the template language that stands for the text."""
    return json.dumps(text)


# minijinja writes the texts of a list with fewer escapes than Python, so parts are shown like this.
JOINED = " | join('|')"


def gives_parts(method):
    return method.split("(")[0] in ("split", "rsplit", "splitlines", "partition", "rpartition")


def cases():
    for template in WHOLE:
        yield template, "\x1c hi there\x1f\u2003"
        yield template, "plain"
    for text in TEXTS:
        calls = [f"{{{{ messages[0].content.{method}{JOINED if gives_parts(method) else ''} }}}}" for method in METHODS]
        filters = [f"{{{{ messages[0].content | {name} }}}}" for name in FILTERS]
        yield "\n".join(calls + filters), text
    for arguments in TOJSON:
        yield f"{{{{ {VALUES} | {arguments} }}}}", "x"
        yield f"{{{{ messages | {arguments} }}}}", "é\x7f\u2028"
    for expression in PERCENT:
        yield f"{{{{ {expression} }}}}", " a "
    yield "{{ 'a'.split('') }}", "x"
    yield "{{ 'a'.partition('') }}", "x"


def render(template, content):
    messages = [{"role": "user", "content": content}]
    try:
        compiled = _compile_jinja_template(template)
        expected = compiled.render(messages=messages, tools=None, documents=None, add_generation_prompt=False)
    except Exception:
        expected = None
    return {"template": template, "messages": messages, "expected": expected}


MOMENTS = [0, 86399, 43199, 43200, 951782400, 1735689599, 1735689600, 1609459199, 1609459200, 1199145600, 4107542400, 1798761599]
FIELDS = [f"%{letter}" for letter in "YyGgCmdejHkIlMSfsuwUWVBbhAapPZzntFTDRrcxX%"]
FLAGS = ["%-d", "%-m", "%-H", "%-I", "%-M", "%-S", "%-j", "%-y", "%_d", "%_H", "%0e", "%^a", "%^B", "%-d %B %Y", "%d %b %Y, %H:%M"]


def dates():
    for seconds in MOMENTS:
        moment = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).replace(tzinfo=None, microsecond=1234)
        for form in FIELDS + FLAGS:
            if form == "%s":
                yield [seconds, form, str(seconds)]
                continue
            yield [seconds, form, moment.strftime(form)]


def main():
    if transformers.__version__ != VERSION:
        raise SystemExit(f"transformers: expected {VERSION}, found {transformers.__version__}; adjust VERSION and look at the diff")
    locale.setlocale(locale.LC_ALL, "C")
    rows = [render(template, content) for template, content in cases()]
    lines = ",\n".join(json.dumps(row) for row in rows)
    (OUT / "cases.json").write_text(f"[\n{lines}\n]\n")
    lines = ",\n".join(json.dumps(row) for row in dates())
    (OUT / "dates.json").write_text(f"[\n{lines}\n]\n")
    print(f"{len(rows)} templates, {sum(row['expected'] is None for row in rows)} of them refused")


if __name__ == "__main__":
    main()
