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


METHODS = [
    "sku.upper",
    "sku.upper | string",
    "sku.upper | upper",
    "sku.upper ~ ''",
    "'%s' % sku.upper",
    "'%s' | format(sku.upper)",
    "[sku.upper]",
    "{'a': sku.upper}",
    "[sku.upper] | string",
    "[sku.upper] | join(',')",
    "[sku] | join(',', attribute='upper')",
    "[{'a': sku.title}] | join(attribute='a')",
    "words | batch(1) | join(attribute='0.upper')",
    "[sku] | map(attribute='upper') | list",
    "[sku] | groupby('upper') | list",
    "[sku] | map('upper')",
    "[sku] | map('upper') | string",
    "words | reverse",
    "words | map(attribute='nope') | list",
    "words | map(attribute='nope') | join(',')",
    "d.items()",
    "d.keys() | string",
    "self",
    "[[[words | select]]]",
    "(words | batch(2)) ~ 'x'",
    "sku.nope",
    "d.nope",
]


@pytest.mark.parametrize("expression", METHODS)
def test_what_has_no_text_of_its_own_is_a_fault_and_no_prompt(expression: str) -> None:
    """`<built-in method upper of str object at 0x7f...>` was sent, and paid for; at each start it was another job."""
    with pytest.raises(BadTemplate) as refused:
        Template("x {{ " + expression + " }}").fill({"sku": "A7", "words": ["a", "b"], "d": {"k": 1}})
    assert " at 0x" not in str(refused.value)
    with pytest.raises(BadTemplate):
        Template("{% for one in words %}{{ loop }}{% endfor %}").fill({"words": ["a"]})


@pytest.mark.parametrize(
    ("expression", "gives"),
    [
        ("sku.upper()", "A7"),
        ("[sku] | map('lower') | join", "a7"),
        ("[sku] | map('lower') | list", "['a7']"),
        ("words | reverse | join('-')", "b-a"),
        ("nope | default('x')", "x"),
        ("[d, d] | join('-', attribute='k')", "1-1"),
        ("[d] | join('-', 'k')", "1"),
        ("d.items() | list", "[('k', 1)]"),
        ("words | map('upper') | first", "A"),
        ("(words | select('eq', 'a') | list) | length", "1"),
    ],
)
def test_what_has_one_is_filled_in(expression: str, gives: str) -> None:
    assert Template("{{ " + expression + " }}").fill({"sku": "A7", "words": ["a", "b"], "d": {"k": 1}}) == gives


def test_a_choice_by_chance_is_the_rows_own_whenever_it_is_filled_in() -> None:
    template = Template("{{ ['a', 'b', 'c', 'd'] | random }} {{ words | random }}", "inputs.prompt")
    rows: list[dict[str, object]] = [
        {"sku": f"A{n}", "words": ["x", "y", "z"], "index": n, "sample": 1} for n in range(40)
    ]
    first = [template.fill(row) for row in rows]
    assert [template.fill({**row, "index": 77}) for row in rows] == first, "its number does not count"
    assert len(set(first)) > 8, "each row has a choice of its own"
    assert [template.fill({**row, "sample": 2}) for row in rows] != first
    other = Template("{{ ['a', 'b', 'c', 'd'] | random }} {{ words | random }}", "output.name")
    assert [other.fill(row) for row in rows] != first, "and so has each field"
    assert template.fill(rows[0]) == "c y", "not by this interpreter's own chance: job ids count on it"


@pytest.mark.parametrize(
    "body",
    [
        "{{ s | upper | length }}",
        "{{ s | title | length }}",
        "{% if s == t %}x{% endif %}",
        "{% if 'zz' in s %}x{% endif %}",
        "{{ s[::2] | length }}",
        "{% if s is upper %}x{% endif %}",
        "{{ s.count('a') }}",
        "{{ s.find('zz') }}",
        "{{ (s ~ t) | length }}",
        "{{ (s + t) | length }}",
        "{{ s | list | length }}",
        "{{ s | sort | length }}",
        "{{ s | slug | length }}",
        "{{ s.split('a') | length }}",
    ],
)
def test_loops_over_long_texts_end_within_seconds(body: str) -> None:
    """Nested loops with 100,000 turns in all, each going through a text of a megabyte, ran past twenty seconds."""
    begun = time.thread_time()
    text = "{% for a in n %}{% for b in n %}" + body + "{% endfor %}{% endfor %}"
    with pytest.raises(BadTemplate, match=r"in all|turns"):
        Template(text).fill({"s": "a" * 450_000, "t": "a" * 449_999 + "b", "n": list(range(300))})
    assert time.thread_time() - begun < 4
