"""What a template makes of cells that are text as it stands in the file, and how it still computes."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.client.template_uses import uses_of
from batchrun.client.templates import RenderError, Rendering, Templates


def rendered(template: str, **row: Any) -> str:
    """The text of a template over cells of a CSV file."""
    return Templates([("t", template)], list(row), frozenset(row)).render("t", row)


@pytest.mark.parametrize(
    ("template", "cell", "expected"),
    [
        ("{{ x }}", "3.10", "3.10"),
        ("{{ x }}", "12e3", "12e3"),
        ("{{ x }}", "True", "True"),
        ("{{ x }}", None, ""),
        ("{{ x[:2] }}", "12345", "12"),
        ("{{ x ~ '%' }}", "1.50", "1.50%"),
        ("{{ x == '1.50' }}", "1.50", "True"),
        ("{{ x > 3 }}", "5", "True"),
        ("{{ 3 < x }}", "2.50", "False"),
        ("{{ x + 1 }}", "5", "6"),
        ("{{ x - 1 }}", "5", "4"),
        ("{{- x -}}", "3.10", "3.10"),
        ("{% if x >= 3 %}{{ x }}{% endif %}", "3.10", "3.10"),
        ("{% if row['x'] >= 3 %}{{ row.x }}{% endif %}", "3.10", "3.10"),
        ("{% if x > 3 %}high{% endif %}", "n/a", "high"),
        ("{{ x | round(1) }}", "2.26", "2.3"),
        ("{{ '%.1f' | format(x) }}", "2.26", "2.3"),
        ("{{ x == 5 }}", "5", "True"),
        ("{% if x %}yes{% else %}no{% endif %}", "False", "no"),
        ("{% if x %}yes{% else %}no{% endif %}", "0", "no"),
        ("{% if x %}yes{% else %}no{% endif %}", "true", "yes"),
        ("{% if x %}yes{% else %}no{% endif %}", "3.10", "yes"),
        ("{% if not x %}{{ x }}{% endif %}", "FALSE", "FALSE"),
        ("{% if x == 'False' %}no{% endif %}", "False", "no"),
        ("{% if x|lower == 'false' %}no{% endif %}", "False", "no"),
        ("{{ x | float + 1 }}", "1.50", "2.5"),
        ("{{ x > '3' }}", "5", "True"),
    ],
)
def test_a_cell_is_text_and_a_number_where_the_template_computes(
    template: str, cell: str | None, expected: str
) -> None:
    assert rendered(template, x=cell) == expected


@pytest.mark.parametrize(
    "template", ["<{{ x | trim }}>", "<{{ x | upper | trim }}>", "<{{ x ~ '' }}>", "<{{ x | truncate(3) }}>"]
)
def test_a_null_is_nothing_through_a_filter_too(template: str) -> None:
    assert rendered(template, x=None) == "<>"


def test_a_template_that_asks_for_nulls_gets_them() -> None:
    assert rendered("{% if x is none %}null{% endif %}{{ x | trim }}", x=None) == "null"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ m.b | trim }}|{{ m.a ~ m.b }}|{{ m['b'] ~ '!' }}|{{ 'x' ~ (m.b ~ m.b) }}", "|1|!|x"),
        ("{{ xs | join(',') }}|{{ xs | map('upper') | join(',') }}", 'p,,{"k":null}|P,,{"K":NULL}'),
        ("{{ ms | map(attribute='b') | map('upper') | join(';') }}", "X;"),
        ("{{ ms | join('; ', attribute='b') }}|{{ ms | join(attribute=\"b\") | lower }}", "x; |x"),
        ("{% for x in xs[:2] %}{{ x | upper }}.{% endfor %}", "P.."),
        ("{% set y = m.b %}{{ y | trim }}{{ '%s' | format(y) }}", ""),
        (
            "{{ m | string }} {{ m | truncate(9) }} {{ m ~ '' }}",
            '{"a":1,"b":null} {"a":1... {"a":1,"b":null}',
        ),
        (
            "{{ 'x | trim ~ y' ~ m.b }}{# {{ m.b ~ 1 }} #}{% raw %}{{ m.b ~ 1 }}{% endraw %}",
            "x | trim ~ y{{ m.b ~ 1 }}",
        ),
        ("{{ m.a ~ -1 ~ 2.5 ~ [m.b, 'z'][1] ~ m.get('b') ~ 'o' if m.a else '' }}", "1-12.5zo"),
        ("{{ m.b is none }}{{ m | tojson }}{{ xs | length }}", 'True{"a": 1, "b": null}3'),
    ],
)
def test_a_null_inside_a_list_or_an_object_is_nothing_as_text(template: str, expected: str) -> None:
    row = {"m": {"a": 1, "b": None}, "xs": ["p", None, {"k": None}], "ms": [{"b": "x"}, {"b": None}]}
    assert Templates([("t", template)], list(row)).render("t", row) == expected


@pytest.mark.parametrize(
    "template",
    [
        "{{ s | trim }}{{ s|upper|truncate(3, true) }}{{ s | replace('a', n ~ s) }}{{ s[:2] ~ s[-1] }}",
        "{{ n ~ f ~ b ~ s ~ big ~ (n + 1) ~ 'x|trim' ~ xs[0] ~ m.k ~ m['k'] ~ m.get('k') }}",
        "{{ xs | join }} {{ xs | join(', ') }} {{ xs | map('upper') | join(';') }} {{ s | join('-') }}",
        "{{ ms | map(attribute='k') | map('title') | list | join }} {{ m | join(',') }} {{ m | urlencode }}",
        "{{ ms | join(', ', attribute='k') }}{{ xs | join(d=';') }}",
        "{% for x in xs %}{{ loop.index ~ '. ' ~ x | indent(2) }}{{ ', ' if not loop.last }}{% endfor %}",
        "{% set t = s ~ '!' %}{{ t | title | wordwrap(3) }}{% if s ~ n == 'a text5' %}yes{% endif %}",
        "{{ 'a' ~ ('b' if n > 3 else 'c') ~ [1, 2][n - 5] ~ {'k': s}['k'] ~ -n ~ s | length ~ n }}",
        "{{ '%s-%05.1f' | format(s, f) ~ s.upper() ~ s.split(' ') | last | capitalize }}",
        "{% filter upper %}{{ s | striptags | escape }}{% endfilter %}",
        "{% macro p(a) %}{{ a | trim }}{% endmacro %}{{ p(s) ~ p(n) }}",
        "{{- s | trim -}} {%- if s | lower is string -%} {{ s ~ '}' }} {%- endif -%}",
        '{{ "it\'s | trim" ~ s }}',
    ],
)
def test_without_nulls_and_objects_a_template_renders_as_it_did(template: str) -> None:
    """So no journal of before lacks such a row's request, and nothing is paid for twice."""
    row = {"s": "a text", "n": 5, "f": 1.5, "b": True, "big": 2**70, "xs": ["p", "q"], "m": {"k": "v"}}
    row["ms"] = [{"k": "one"}, {"k": "two"}]
    before, now = (
        Templates([("t", template)], list(row), rendering=rendering).render("t", row)
        for rendering in (Rendering.NESTED_NONE, Rendering.CURRENT)
    )
    assert now == before


def test_a_number_of_a_column_is_the_same_text_through_a_filter_as_before() -> None:
    template = "{{ x ~ ' USD' }} {{ x | string }} {{ 'about ' ~ x }}"
    assert Templates([("t", template)], ["x"]).render("t", {"x": 2.0}) == "2.0 USD 2.0 about 2.0"


@pytest.mark.parametrize("template", ["{{ m.b }}", "{{ m.b | trim }}", "{{ 'x' ~ m.b }}"])
def test_what_is_not_there_is_an_error_through_a_filter_too(template: str) -> None:
    with pytest.raises(RenderError) as error:
        Templates([("t", template)], ["m"]).render("t", {"m": {"a": 1}})
    assert str(error.value) == "t, line 1: `m.b` is undefined"


def test_what_a_template_does_with_one_column_leaves_others_alone() -> None:
    template = "{% if stars > 3 and not spam %}{{ price }} {{ stars }}{% endif %}"
    assert rendered(template, stars="4", spam="0", price="1.50", other="") == "1.50 4"


@pytest.mark.parametrize(
    ("template", "named", "computed", "tested"),
    [
        ("{{ a }} {# b > 1 #} {% raw %}{{ b > 1 }}{% endraw %} b > 1", "a", "", ""),
        ("{{ 'b > 1' }}{{ a.b }}", "a", "", ""),
        ("{{ a[:b] }}", "ab", "", ""),
        ("{{ truncate(a, length=b) }}{{ x(a=1) }}", "ab", "", ""),
        ("{{ a * 2 }}{{ b / a }}", "ab", "ab", ""),
        ("{% if a and not b or c %}{% endif %}", "abc", "", "abc"),
        ("{% if a and a == 'x' %}{% endif %}", "a", "", ""),
        ("{% if a in ['x'] and b is none %}{% endif %}", "ab", "", ""),
        ("{% for c in range(a) %}{% endfor %}", "ac", "a", ""),
        ("{{ a is odd }}{{ b is not none }}", "ab", "a", ""),
        ("{{ a|abs }}{{ b|upper }}", "ab", "a", ""),
    ],
)
def test_uses_are_read_from_the_text_of_a_template(
    template: str, named: str, computed: str, tested: str
) -> None:
    uses = uses_of([template], ["a", "b", "c"])
    assert (uses.named, uses.computed, uses.tested) == (
        frozenset(named),
        frozenset(computed),
        frozenset(tested),
    )


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("ä\n{{ x | trim | upper(3) | lower }}", "t, line 2: upper(3) has too many arguments"),
        ("{{ x.startswith(1, 2, 3) }}", "t, line 1: startswith(1, 2, 3) has too many arguments"),
        ("{{ x | replace('a') }}", "t, line 1: replace('a') has too few arguments"),
    ],
)
def test_an_error_names_the_filter_with_wrong_arguments(template: str, told: str) -> None:
    with pytest.raises(RenderError) as error:
        Templates([("t", template)], ["x"]).render("t", {"x": "a"})
    assert str(error.value) == told


_CELLS = st.one_of(
    st.text(max_size=5),
    st.sampled_from(["", "0", "false", "%s", "{{ a }}", "1.0"]),
    st.integers(-(2**63), 2**64 - 1),
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.lists(st.text(max_size=2), max_size=2),
)


@given(
    st.sampled_from(
        [
            "{{ a }}",
            "100% of {{ a }} and {{b}}: {{ a }}\n",
            "\r\n{{- a -}}\n {{ row.b }}",
            "}} {{ a }} %d %% {",
            "{{ a }}{# not this #}",
            "{{ true }}{{ none }}",
            "{{ row['a'] }}",
            "{{ a }}{{ a|upper }}",
        ]
    ),
    st.fixed_dictionaries({"a": _CELLS, "b": _CELLS, "true": _CELLS, "none": _CELLS}),
)
def test_a_template_that_only_prints_renders_as_the_engine_does(template: str, row: dict[str, Any]) -> None:
    templates = Templates([("prompt", template)], list(row))
    rendered = outcome_of(templates, row)
    templates._formats.clear()
    assert rendered == outcome_of(templates, row)


def outcome_of(templates: Templates, row: dict[str, Any]) -> str:
    try:
        return templates.render("prompt", row)
    except RenderError as error:
        return f"error: {error}"


def test_a_template_that_only_prints_has_a_format() -> None:
    templates = Templates([("prompt", "5 % {{ a }}{{ row.b }}")], ["a", "b"])
    assert templates._formats == {"prompt": ("5 %% %s%s", ("a", "b"))}
