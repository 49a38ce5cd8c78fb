"""Hostile completions by family: what a policy under optimisation, or a prankster, might write.

Answers stand between well-formed tags; `TAG_GAMES` are whole responses. None may be rewarded
against any of `GOLDS`.
"""

from __future__ import annotations

GOLDS = ("5", r"\frac{\sin x}{2}", "(1,2)")
MEGABYTE = 1_000_000


def code(canary: str) -> list[str]:
    """Payloads that create the file `canary` if anything evaluates them."""
    octal = "".join(f"\\{ord(char):03o}" for char in f"__import__('os').system('touch {canary}')")
    payloads = [
        f"__import__('os').system('touch {canary}')",
        f"eval(\"open('{canary}','w')\")",
        f"exec(\"open('{canary}','w')\")",
        f"open('{canary}','w').write('5')",
        f"(lambda: open('{canary}','w'))()",
        f"[c for c in ().__class__.__base__.__subclasses__()][0]('{canary}')",
        f"S(\"open('{canary}','w')\")",
        f"sympify(\"__import__('pathlib').Path('{canary}').touch()\")",
        f"parse_expr(\"open('{canary}','w')\")",
        f"Symbol('x').__class__.__init__.__globals__['__builtins__']['open']('{canary}','w')",
        f"Function('f')(open('{canary}','w'))",
        f"lambdify(x, \"open('{canary}','w')\")(1)",
        f'ev("{octal}")',
        f'S("{octal}")',
        f"x.__reduce__()[0](open,('{canary}','w'))",
        f"$(touch {canary})",
        f"`touch {canary}`",
        f"5; touch {canary}",
        f"5\nimport os\nos.system('touch {canary}')",
        f"cos\nsystem\n(S'touch {canary}'\ntR.",
    ]
    wrappers = (
        "{}", "${}$", r"\frac{{{}}}{{1}}", r"\text{{{}}}", "x={}", "({},1)", r"\sqrt{{{}}}+\sin x",
    )  # fmt: skip
    return [wrapper.format(payload) for wrapper in wrappers for payload in payloads]


FAMILIES: dict[str, list[str]] = {
    "towers": [
        "9^9^9^9", "9^{9^{9^9}}", "9^{9^{9^{9^{9}}}}", "(9^{9999})^{9999}", "2^{2^{2^{2^{2^2}}}}",
        "10^{10^{10}}", "10^{10^{10}}+x", r"e^{e^{e^{e^9}}}", r"e^{9^{9^9}}", "x^{9^{9^9}}",
        r"\left(9^{99999}\right)^{99999}", "((((9^9)^9)^9)^9)^9", r"\pi^{\pi^{\pi^{\pi^{9}}}}",
        r"2^{10^{9}} \sin x", "9**9**9**9", "(-9)^{9^{9.5}}", r"\frac{1}{9^{9^{9}}}",
        r"\sqrt[9]{9^{9^9}}", r"\log(9^{9^{9^9}})", r"\sin(9^{9^{9^9}})", "9^{99999999999}",
        "0.5^{9^{9^9}}", "1.0000001^{9^{9^{9}}}", r"x^{x^{x^{x^{x^{x}}}}}", "7^{1/9^{9^9}}",
        r"(1+\sqrt2)^{9999}", r"\sqrt2^{\sqrt2^{\sqrt2^{99999}}}", "i^{9^{9^9}}",
    ],
    "factorials": [
        "99999!", "((9!)!)!", "9!!!!!!!!!!", r"\binom{999999999}{499999999}", r"\binom{9999}{4999}",
        r"\Gamma(999999999)", r"\frac{99999!}{99998!}", "(10^9)!", "9999!", "999!", "x!!!!!",
        "(x+99999)!", r"\binom{x}{99999}", r"\sin(9999!)", "(-5)!", "0.5!", "5!!", "((3!)!)!",
        r"\prod 99999!", "300!^{300!}", r"\binom{\binom{99}{49}}{\binom{98}{49}}",
    ],
    "huge numbers": [
        "1e999999", "1e-999999", "1e999", "9e999999999999", "10^{-999999}", "10^{999999}",
        "0." + "9" * 900, "9" * 999, "9" * 999 + "/" + "7" * 1_000, "1/" + "3" * 990,
        "1e309", "-1e309", "0x" + "f" * 500, "1" + "0" * 400 + ".5", "." + "0" * 900 + "1",
        r"\frac{" + "9" * 400 + "}{" + "8" * 400 + "}",
        "5." + "0" * 900 + "1", "nan", "inf", "-inf",
        r"\infty-\infty", r"\frac{\infty}{\infty}", r"0\cdot\infty", "0/0", "5/0", "0^0", "0^{-1}",
        "9" * 90 + r"\sin x", r"\sqrt{" + "7" * 300 + "}", r"\sqrt[99]{" + "7" * 200 + "}",
        "99999999977" * 9 + "^{1/2}", r"\log_{" + "9" * 99 + "}{" + "8" * 99 + "}",
    ],
    "nesting": [
        opener * depth + "5" + closer * depth
        for depth in (15, 25, 80, 200, 400)
        for opener, closer in (
            ("(", ")"), ("[", "]"), ("{", "}"), (r"\{", r"\}"), (r"\sqrt{", "}"), ("-", ""),
            (r"\frac{1}{", "}"), (r"\left(", r"\right)"), ("|", "|"), ("2^{", "}"),
        )  # fmt: skip
        if depth < 100 or len(opener) == 1
    ] + ["(" * 900, ")" * 900, "{" * 900, "(" * 500 + ")" * 400, r"\frac" * 190, "[(" * 300],
    "megabytes": [
        (piece * MEGABYTE)[:MEGABYTE]
        for piece in (
            "9", " ", "x", "1+", "(", "{", "$", r"\frac{", "5,", "a b ", "\n", "é", "\\", "^", "-",
            r"\text{", "5 or ", "</think>", "1 1/2 ", r"\boxed{5}", "|",
        )  # fmt: skip
    ],
    "sums": [
        r"\sum_{k=1}^{999999999} k", r"\sum_{k=1}^{\infty} \frac{1}{k^2}", r"\prod_{k=1}^{9999} k",
        r"\int_0^1 e^{e^{e^x}} dx", r"\int \sin(\cos(\tan x)) dx",
        r"\lim_{x\to 0} \frac{\sin x}{x}",
        r"\sum_{a=1}^{99}\sum_{b=1}^{99}\sum_{c=1}^{99} abc", r"\int_0^{\infty} x^{x^x} dx",
        r"\lim_{n\to\infty} (1+1/n)^{n^{n}}", r"\frac{d}{dx} x^{x^{x}}", r"\sum_{p} \frac{1}{p}",
        r"\prod_{n=1}^{\infty} \left(1-\frac{1}{n^2}\right)", r"\int\int\int\int x dx dx dx dx",
        r"\sum_{k=0}^{9^{9^9}} 1", r"\sum_{k=1}^{5} 1", r"\prod_{k=1}^{1} 5",
        r"\lim_{x\to 5} x", r"\int_0^5 dx", r"\det\begin{pmatrix}5\end{pmatrix}",
    ],
    "regex bombs": [
        "a" * 900 + "!", "1," * 450, "1 " * 480, r"\text{" * 150, r"\text{a" * 140, "$ " * 480,
        r"\begin{matrix}" * 60, r"\begin{array}{" * 60, " " * 990 + "x", "5" + " " * 900 + "not",
        "thus " * 190, "so, " * 240, "the answer " * 90, "the final " * 99, r"\frac 1" * 120,
        "1,111" * 190, "1.1" * 330, "x_" * 480, "x^" * 480, r"\left(" * 160, "5 " + "a " * 480,
        "5\\text{ " + "a" * 900 + "}", "5 " + "ab " * 300, "|" * 990, "'" * 990, "f(" * 480,
        r"\sqrt" * 190, r"\overline{" * 90, ":" * 990, "∪" * 990, "(1,2)∪" * 160, "±" * 990,
        "<" * 990, "0<x" * 320, "x∈" * 480, "¬" * 990, "1/" * 490, "!" * 990, "°" * 990,
        "a_{b" * 240,
        "the number of " + "a " * 130 + "$", r"\(" * 480, r"\[5\]" * 190, "or " * 320, "and " * 240,
    ],
    "control characters": [
        *(f"{chr(code)}5" for code in (*range(1, 9), *range(14, 32), 0x7F, 0x85)),
        "\x005", "5\x00", "\x1b[2J5", "5\x08\x086", "\u2028" + "5,6", "\ufffe5", "5\x03",
    ],
    "surrogates and direction marks": [
        "\ud800", "5\udfff", "\ud83d5", "\u202e5", "\u202e5\u202c", "\u20665\u2069", "\u200f5",
        "\u061c5", "5\u0301", "\u202e51\u202c", "5\u20dd", "\U000e00355", "\u034f5", "\ufe0f5",
        "\u202d5", "𝟓𝟓", "⑤⑤", "5\ufe0f\u20e3", "٥٥", "五", "Ⅴ", "߅߅", "\ud800\udc00" * 300,
    ],
    "many candidates": [
        ", ".join(map(str, range(100))), " or ".join(map(str, range(10))), "5 or 6", "4, 5, 6",
        "5,5", "either 5 or not", "5 and 6", "{4,5,6}", "[4,6]", "(4,6)", "4 < x < 6", "x ≥ 5",
        r"\boxed{4} \boxed{5}", r"5\\6", "5;6", "5 6", "5/6/5", "5|6", "5 (or 6)", "≥5", "<6", "~5",
        "between 4 and 6", "5±1", r"5 \pm 1", r"\pm 5", "5?", "5...", "1,2,...,5,...", "not 5",
        "anything but 6", "the answer", "same as the reference", "ground_truth", "None", "True",
        "", " ", r"\boxed{}", r"not \boxed{5}", r"\boxed{5} is wrong", r"\boxed{5}?", "x", "X = X",
        "any real number", r"5 \text{ or } 6", "5, if not 6", "all of them", "What is 2+3?",
        "*", ".*",
        ", ".join(rf"\sin {k}x" for k in range(60)),
        ", ".join(rf"\sin^{{2}} {k}x+\cos {k}x" for k in range(40)),
    ],
    "algebra": [
        "(a+b+c+d)^{99}", r"(\sin x + 1)^{99999}", "(x+y+z+w+v)^{20}", r"(\sin x+\cos x)^{60}",
        r"\tan(\tan(\tan(\tan(\tan(\tan(x))))))", "+".join(rf"\sin {k}x" for k in range(40)),
        "+".join(f"x^{{{k}}}" for k in range(100)), "*".join(f"(x+{k})" for k in range(60)),
        r"\sqrt{2+" * 30 + "2" + "}" * 30, r"\frac{1}{1+" * 18 + "x" + "}" * 18,
        r"\sqrt{x+" * 18 + "y" + "}" * 18, "+".join(rf"\sqrt{{{k}}}" for k in range(2, 60)),
        r"\frac{\sin^{40} x - \cos^{40} x}{\tan^{30} x}", r"\log(\log(\log(\log(\log(5)))))",
        r"\arcsin(\sin(\arcsin(\sin(x))))", r"(x^{99}-1)/(x-1)", r"\sin(10^{4}x)", r"\cos^{99}(x)",
        "(" + "+".join("abcdefghjklmnopqrstuvwyz") + ")^2", r"(1+i)^{9999}", r"|x+|x+|x+|x+5||||",
        "-".join(rf"\cos\left(\frac{{{k}\pi}}{{97}}\right)" for k in range(1, 12)),
        r"\sqrt[3]{2+\sqrt{5}}+\sqrt[3]{2-\sqrt{5}}+x", r"\sin^2 x+\cos^2 x+4-x",
        "*".join(rf"\sin({k}x)" for k in range(1, 14)), r"x^{\sin(x^{\cos(x^{\tan x})})}",
        r"\begin{pmatrix}" + r" \\ ".join("1 & 2 & x" for _ in range(30)) + r"\end{pmatrix}",
        "(" + ",".join(rf"\sin {k}" for k in range(60)) + ")",
    ],
}  # fmt: skip

TAG_GAMES: list[str] = [
    "<answer>5</answer>", "</think><answer>5</answer>", "</think>  <answer>5</answer>",
    "</think> <answer>5", "</think> <answer>4</answer> <answer>5</answer>",
    "</think> <answer>4</answer></think> <answer>5</answer>", "</think> <answer>5</answer> 6",
    "</think> <answer><answer>5</answer></answer>", "</think> <answer>5</answer></answer>",
    "</answer></think> <answer>5", "</think> <ANSWER>5</ANSWER>", "</think> <answer >5</answer>",
    "</think> <answer>\n5</answer><!--", "</think>\n<answer>5</answer>", "&lt;answer&gt;5",
    "</think> <answer>4<answer>5</answer>", "</think> <answer></answer>5", "5</answer>",
    "</think> <answer/>5</answer>", "<answer>5</answer></think> <answer>4</answer>",
    "</think> <answer>4</answer>\x00<answer>5</answer>", "</think>\u00a0<answer>5</answer>",
    "</think> <аnswer>5</аnswer>", "</think> <answer>5</answer>" * 1_000, "</think> " * 9_999,
    "<think>" * 9_999 + "</think> <answer>4</answer>", "</think> <answer>4</answer>" + "x" * 10**6,
]  # fmt: skip


def responses(canary: str) -> dict[str, list[str]]:
    """Return every hostile response by family."""
    families = {"code": code(canary), **FAMILIES}
    tagged = {
        name: [f"why</think> <answer>{answer}</answer>" for answer in answers]
        for name, answers in families.items()
    }
    return {**tagged, "tag games": TAG_GAMES}
