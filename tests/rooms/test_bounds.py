"""Templates are bounded in time and memory, and do what templates do within that."""

import resource
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis.strategies import integers, sampled_from, text

from batcher.manifest.templates import BadTemplate, Condition, Template

BOMBS = [
    "{{ 'a' * 10**10 }}",
    "{{ [1] * 10**9 }}",
    "{{ 10**(10**8) }}",
    "{{ 2**99999999 }}",
    "{{ (10**5000) * (10**5000) * (10**5000) }}",
    "{{ '%999999999d' % 1 }}",
    "{{ '%*d' % (999999999, 1) }}",
    "{{ '%999999999d' | format(1) }}",
    "{{ 'x' | center(10**9) }}",
    "{{ 'x'.ljust(10**9) }}",
    "{{ 'x'.zfill(width=10**9) }}",
    "{{ '{:>999999999}'.format(1) }}",
    "{{ '{a:>999999999}'.format_map({'a': 1}) }}",
    "{{ 'a\nb' | indent(10**9) }}",
    "{{ ('a' * 1000000) | replace('a', 'a' * 1000000) }}",
    "{{ ('a' * 1000000).replace('a', 'a' * 1000000) }}",
    "{{ ['a' * 1000] * 1000 | join('b' * 1000000) }}",
    "{{ ('b' * 1000000).join(['a'] * 1000) }}",
    "{{ [[0] * 1000] * 100000 }}",
    "{% set a = ['x'] %}" + "{% set a = [a, a] %}" * 60 + "{{ a }}",
    "{% set a = 'x' %}" + "{% set a = a ~ a %}" * 60 + "{{ a }}",
    "{% set a = 'x' %}" + "{% set a = a + a %}" * 60 + "{{ a }}",
    "{% set a = ['x'] %}" + "{% set a = a + a %}" * 60 + "{{ a | string }}",
    "{% for a in words %}{% for b in words %}{% for c in words %}{% for d in words %}{% endfor %}{% endfor %}{% endfor %}{% endfor %}",
    "{% for a in 'x' * 1000000 %}{% for b in 'x' * 1000000 %}{% endfor %}{% endfor %}",
    "{% macro m(n) %}{{ m(n) }}{{ m(n) }}{% endmacro %}{{ m(1) }}",
    "{% for a in [[[]]] recursive %}{{ loop(a) }}{{ loop(a) }}{% endfor %}",
    "{{ ([[1]] * 100000) | sum(start=[]) }}",
    "{{ lists | sum(start=[]) }}",
    "{{ ''.__class__.__mro__ }}",
    "{{ words.__class__ }}",
    "{% include '/etc/passwd' %}",
    '{{ "%(a)50000000s" % {"a": 1} }}',
    "{{ ('\\t' * 20000).expandtabs(10000) }}",
    "{{ ('\\n' * 200000) | indent(9000) }}",
    "{{ lists | tojson(indent=9000) }}",
    "{{ 'x' | batch(10**9, 'y') | list }}",
    "{{ 'x' | wordwrap(1, wrapstring='y' * 1000000) }}",
]


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Leave room for 1.5 GB more than is taken; what asks for more fails at once."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    with Path("/proc/self/statm").open() as file:
        taken = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + 1_500_000_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.usefixtures("little_memory")
def test_a_bomb_is_a_fault_and_costs_little(bomb: str) -> None:
    begun = time.thread_time()
    with pytest.raises(BadTemplate):
        Template(bomb).fill({"words": ["w"] * 200, "lists": [[1]] * 100_000})
    assert time.thread_time() - begun < 3


def test_a_bomb_in_a_condition_is_a_fault_too() -> None:
    for bomb in ("'a' * 10**10 == 'b'", "2**99999999 > 1", "'x'.ljust(10**9) == ''"):
        with pytest.raises(BadTemplate):
            Condition(bomb).holds({})


@pytest.mark.parametrize(
    ("template", "gives"),
    [
        ("{{ a ~ '-' ~ n }}", "Mug-7"),
        ("{{ a | upper | center(9) }}", "   MUG   "),
        ("{{ '%03d' | format(n) }} {{ '%05.2f' % 3.14159 }}", "007 03.14"),
        ("{{ words | join(', ') }}", "x, y"),
        ("{% for w in words %}{{ loop.index }}{{ w }}{% if not loop.last %};{% endif %}{% endfor %}", "1x;2y"),
        ("{{ words | map('upper') | list }}", "['X', 'Y']"),
        ("{{ a | replace('M', 'm') }} {{ a.replace('g', 'd') }} {{ a.zfill(5) }}", "mug Mud 00Mug"),
        ("{{ n * 3 + 2 ** 5 - 1 }} {{ a * 2 }} {{ n % 4 }} {{ n // 2 }}", "52 MugMug 3 3"),
        (
            "{{ 3.75 | round(1) }} {{ n | round }} {{ words | batch(2) | list }} {{ words | tojson(indent=1) | length }}",
            "3.8 7 [['x', 'y']] 14",
        ),
        ("{{ 'a\\tb'.expandtabs(4) }} {{ '%(k)5s' % {'k': n} }}", "a   b     7"),
        ("{{ [1, 2, 3] | sum }} {{ words | length }} {{ words[0] }}", "6 2 x"),
        ("{% set b = a ~ '!' %}{{ b | indent(2) }} {{ {'k': 1} | tojson }}", 'Mug! {"k": 1}'),
        ("{{ a | truncate(2, True, '.', 0) }} {{ a | default('z') }} {{ a | slug }}", "M. Mug mug"),
    ],
)
def test_what_templates_are_for_works(template: str, gives: str) -> None:
    assert Template(template).fill({"a": "Mug", "n": 7, "words": ["x", "y"]}) == gives


@given(text(max_size=60), integers(-(10**12), 10**12), sampled_from(["*", "+", "%", "**", "~", "//", "-"]))
def test_any_operation_on_anything_ends(word: str, number: int, operator: str) -> None:
    for left, right in (("w", "n"), ("n", "w"), ("n", "n"), ("w", "w")):
        try:
            filled = Template(f"{{{{ {left} {operator} {right} }}}}").fill({"w": word, "n": number})
        except BadTemplate:
            continue
        assert len(filled) <= 1_000_000
