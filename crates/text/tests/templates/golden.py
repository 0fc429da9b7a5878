"""Renders templates with Jinja2, set up as transformers' `_compile_jinja_template` does.

    python golden.py                     writes all of the below (needs jinja2; written with 3.1.6)
    python golden.py NAME                prints one of cases.json
    python golden.py FAMILY NUMBER       prints one conversation of the corpus

golden.json: for each of cases.json the 64-bit FNV-1a hash of the text, or what the template raises. corpus.json: the same,
for each template here and in corpus/ and each of conversations.json. expressions.json: what its keys, each a template,
render.

The templates are written for these tests after what the families are published with: the same constructs, shortened texts.
"""

import copy
import datetime
import json
import pathlib
import re
import sys

import jinja2
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

HERE = pathlib.Path(__file__).parent


class Generation(Extension):
    """transformers' `{% generation %}`: its body is rendered as it stands."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("body"), [], [], body).set_lineno(line)

    def body(self, caller):
        return caller()


class Raised(jinja2.TemplateError):
    """What a template refuses by `raise_exception`."""


def raise_exception(message):
    raise Raised(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def strftime_now(format):
    return datetime.datetime.now().strftime(format)


def environment():
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = strftime_now
    return env


def render(case):
    template = environment().from_string((HERE / f"{case['template']}.jinja").read_text())
    try:
        text = template.render(
            messages=case["messages"],
            tools=case.get("tools"),
            documents=None,
            add_generation_prompt=case.get("add_generation_prompt", True),
            bos_token="<s>",
            eos_token="</s>",
            **case.get("kwargs", {}),
        )
        return text
    except Raised as error:
        return f"raises {error}"


# What the expressions find in their context.
VARIABLES = {
    "text": " Hallo Wörld ",
    "map": {"a": 1, "b": {"c": ["x", 2, None]}, "f": 1.5, "t": True, "n": None},
    "lists": {"a": [[1, 2], []]},
    "nothing": None,
}


def expression(source):
    """What a line of expressions.txt renders to; it must render."""
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    given = dict(tools=None, documents=None, add_generation_prompt=True, bos_token="<s>", eos_token="</s>")
    return environment().from_string(source).render(messages=messages, **given, **VARIABLES)


def text_of(content):
    """A content as a template for texts is given it."""
    return "\n".join(part["text"] for part in content) if isinstance(content, list) else content


def shows_late_system(source):
    """Whether the template shows system messages where they stand."""
    contents = ["needle0", "needle1", "needle2"]
    messages = [dict(role=role, content=text) for role, text in zip(("system", "user", "system"), contents)]
    more = dict(bos_token="<s>", eos_token="</s>", tools=None, documents=None, add_generation_prompt=False)
    try:
        rendered = environment().from_string(source).render(messages=messages, **more)
    except Exception:
        return False
    places = [rendered.find(text) for text in contents]
    return -1 not in places and places == sorted(places)


def with_late_system_as_user(messages):
    """The messages as a template is given them that does not: system messages behind others are the user's."""
    settled = []
    for message in messages:
        late = message["role"] == "system" and settled and settled[-1]["role"] != "system"
        role = "user" if late else message["role"]
        last = settled[-1] if settled else {}
        if role == last.get("role") and (role == "system" or role == "user" and (late or last.get("late"))):
            last["content"] += "\n" + message["content"]
            last["late"] = last.get("late") or late
        else:
            settled.append({**message, "role": role, "late": late} if late else {**message, "role": role})
    return [{key: value for key, value in message.items() if key != "late"} for message in settled]


def given(conversation, source, arguments_as_text, empty_content):
    """The messages as the template of `source` is given them, with one choice of two where clients leave two."""
    messages = copy.deepcopy(conversation["messages"])
    for message in messages:
        if message["role"] == "developer" and "'developer'" not in source and '"developer"' not in source:
            message["role"] = "system"
        if "content" in message:
            message["content"] = text_of(message["content"])
        if message.get("content") is None and empty_content:
            message["content"] = ""
        for call in message.get("tool_calls", []):
            if not arguments_as_text:
                call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return messages if shows_late_system(source) else with_late_system_as_user(messages)


def shown(conversation, source):
    """The text of a conversation: arguments are objects, and a missing content is missing, unless the template then fails,
    says None, or writes an object as Python does."""
    tools = json.loads((HERE / "tools.json").read_text()) if conversation.get("tools") else None
    prompt = conversation.get("add_generation_prompt", True)
    more = dict(bos_token="<s>", eos_token="</s>", **conversation.get("kwargs", {}))

    def text(arguments_as_text, empty_content):
        messages = given(conversation, source, arguments_as_text, empty_content)
        template = environment().from_string(source)
        return template.render(messages=messages, tools=tools, documents=None, add_generation_prompt=prompt, **more)

    refusal = None
    for empty_content in (False, True):
        for arguments_as_text in (False, True):
            try:
                rendered = text(arguments_as_text, empty_content)
                says_none = not empty_content and rendered.count("None") > text(arguments_as_text, True).count("None")
            except Raised as raised:
                refusal = f"raises {raised}"
                continue
            except Exception:
                continue
            if not says_none and not re.search(r"\{'(city|code)': ['\"]", rendered):
                return rendered
    return refusal


def fnv(text):
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = (value ^ byte) * 0x100000001B3 % (1 << 64)
    return f"{value:016x}"


def entry(text):
    return "fails" if text is None else text if text.startswith("raises ") else fnv(text)


def templates():
    # blocks.jinja is no family's: it has the blocks that transformers adds to Jinja.
    families = [path for path in HERE.glob("**/*.jinja") if path.stem != "blocks"]
    return sorted(families, key=lambda path: path.stem)


def write_all():
    cases = json.loads((HERE / "cases.json").read_text())
    golden = {case["name"]: entry(render(case)) for case in cases}
    (HERE / "golden.json").write_text(json.dumps(golden, indent=0, ensure_ascii=False) + "\n")
    lines = json.loads((HERE / "expressions.json").read_text())["rendered"]
    expressions = {"variables": VARIABLES, "rendered": {line: expression(line) for line in lines}}
    (HERE / "expressions.json").write_text(json.dumps(expressions, indent=0, ensure_ascii=False) + "\n")
    conversations = json.loads((HERE / "conversations.json").read_text())
    sources = {path.stem: path.read_text() for path in templates()}
    corpus = {name: [entry(shown(c, source)) for c in conversations] for name, source in sources.items()}
    (HERE / "corpus.json").write_text(json.dumps(corpus, indent=0, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    if len(sys.argv) == 2:
        cases = json.loads((HERE / "cases.json").read_text())
        print(render(next(case for case in cases if case["name"] == sys.argv[1])), end="")
    elif len(sys.argv) == 3:
        family, number = sys.argv[1:]
        conversation = json.loads((HERE / "conversations.json").read_text())[int(number)]
        source = next(path.read_text() for path in templates() if path.stem == family)
        print(shown(conversation, source), end="")
    else:
        write_all()
