"""Renders cases.json's templates with Jinja2, set up as transformers' `_compile_jinja_template` does, into golden.json.

    python golden.py          (needs jinja2; written with 3.1.6)

The templates are written for these tests after what Llama 3.1, Qwen2.5, Qwen3 and Mistral v0.3 are published with: the same
constructs, shortened texts.
"""

import json
import pathlib

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


def raise_exception(message):
    raise jinja2.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def render(case):
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    template = env.from_string((HERE / f"{case['template']}.jinja").read_text())
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
        return {"text": text}
    except jinja2.TemplateError as error:
        return {"error": str(error)}


if __name__ == "__main__":
    cases = json.loads((HERE / "cases.json").read_text())
    golden = {case["name"]: render(case) for case in cases}
    (HERE / "golden.json").write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n")
    for name, result in golden.items():
        print(f"--- {name}\n{result.get('text', result)}")
