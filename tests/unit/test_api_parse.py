"""What a client may say, and which parameter an error names."""

import json
from typing import Any

import pytest
from msgspec import UNSET

from abaco_api.api_errors import TooLarge
from abaco_api.commands import parse
from abaco_api.domain.actor_definition import Defaults, changed
from abaco_api.domain.image_name import is_image
from abaco_api.http.parameters import (
    Parameters,
    _json_object,
    checked_actor_id,
    decode_json,
    execution_ordinal,
    multipart_fields,
    parse_page,
    text_parameters,
)
from abaco_api.routes.message_routes import parse_message
from abaco_proto import names
from abaco_proto.errors import Malformed, Unknown
from abaco_proto.events import Definition, Isolation

DEFAULTS = Defaults(init_count=2, max_workers=4)
ROOM = 131_067


def as_json(**values: Any) -> Parameters:
    return Parameters(values, form=False)


def as_form(**values: str) -> Parameters:
    return Parameters(dict(values), form=True)


def registered(**values: Any) -> Definition:
    said = as_json(image="jstubbs/abaco_test", name="foo", **values)
    return parse.register(said, DEFAULTS).definition


# -- registration --------------------------------------------------------------------------------


def test_an_image_and_a_name_are_enough() -> None:
    assert registered() == Definition(name="foo", image="jstubbs/abaco_test")


def test_a_form_says_the_same_as_json() -> None:
    form = as_form(
        image="a/b",
        name="foo",
        stateless="false",
        min_workers="0",
        default_environment='{"A": "1"}',
    )
    data = as_json(
        image="a/b", name="foo", stateless=False, min_workers=0, default_environment={"A": "1"}
    )
    assert parse.register(form, DEFAULTS) == parse.register(data, DEFAULTS)


@pytest.mark.parametrize(
    ("said", "least", "most"),
    [
        ({}, 2, 4),
        ({"min_workers": 0}, 0, 4),
        ({"min_workers": 9}, 9, 9),
        ({"max_workers": 1}, 1, 1),
        ({"min_workers": 3, "max_workers": 3}, 3, 3),
        ({"stateless": False}, 1, 1),
        ({"stateless": False, "min_workers": 0}, 0, 1),
    ],
)
def test_workers_by_default(said: dict[str, Any], least: int, most: int) -> None:
    definition = registered(**said)
    assert (definition.min_workers, definition.max_workers) == (least, most)


@pytest.mark.parametrize(
    ("parameter", "values"),
    [
        ("image", {"name": "foo"}),
        ("image", {"name": "foo", "image": ""}),
        ("image", {"name": "foo", "image": 5}),
        ("image", {"name": "foo", "image": None}),
        ("image", {"name": "foo", "image": "Upper/Case"}),
        ("image", {"name": "foo", "image": "a\x00b"}),
        ("image", {"name": "foo", "image": "a" * 256}),
        ("name", {"image": "a"}),
        ("name", {"image": "a", "name": ""}),
        ("name", {"image": "a", "name": "x" * 10_000}),
        ("name", {"image": "a", "name": "a.b"}),
        ("name", {"image": "a", "name": "a*"}),
        ("name", {"image": "a", "name": ">"}),
        ("name", {"image": "a", "name": "a b"}),
        ("name", {"image": "a", "name": "😀"}),
        ("name", {"image": "a", "name": "foo\n"}),
        ("name", {"image": "a", "name": ["foo"]}),
        ("description", {"image": "a", "name": "foo", "description": 5}),
        ("description", {"image": "a", "name": "foo", "description": "a\x00"}),
        ("stateless", {"image": "a", "name": "foo", "stateless": "false"}),
        ("min_workers", {"image": "a", "name": "foo", "min_workers": "2"}),
        ("min_workers", {"image": "a", "name": "foo", "min_workers": -1}),
        ("min_workers", {"image": "a", "name": "foo", "min_workers": 1001}),
        ("min_workers", {"image": "a", "name": "foo", "min_workers": 5, "max_workers": 4}),
        ("min_workers", {"image": "a", "name": "foo", "min_workers": 2, "stateless": False}),
        ("max_workers", {"image": "a", "name": "foo", "max_workers": 0}),
        ("max_workers", {"image": "a", "name": "foo", "max_workers": 2, "stateless": False}),
        ("default_environment", {"image": "a", "name": "f", "default_environment": []}),
        ("default_environment", {"image": "a", "name": "f", "default_environment": {"": "x"}}),
        ("default_environment", {"image": "a", "name": "f", "default_environment": {"a=b": "x"}}),
        ("default_environment", {"image": "a", "name": "f", "default_environment": {"a\0": "x"}}),
        ("default_environment", {"image": "a", "name": "f", "default_environment": {"a": "\0"}}),
        ("default_environment", {"image": "a", "name": "f", "default_environment": {"a": 1}}),
        ("default_environment", {"image": "a", "name": "f", "default_environment": {"MSG": "x"}}),
        (
            "default_environment",
            {"image": "a", "name": "f", "default_environment": {"_abaco_x": "x"}},
        ),
        ("imgae", {"image": "a", "name": "foo", "imgae": "b"}),
    ],
)
def test_a_bad_registration_names_its_parameter(parameter: str, values: dict[str, Any]) -> None:
    with pytest.raises(Malformed, match=rf"^{parameter}: "):
        parse.register(Parameters(values, form=False), DEFAULTS)


@pytest.mark.parametrize("text", ["{", "[]", "5", '{"a": 1}', '{"a": "1", "a": "2"}'])
def test_an_environment_in_a_form_is_the_json_text_of_an_object(text: str) -> None:
    with pytest.raises(Malformed):
        parse.register(as_form(image="a", name="foo", default_environment=text), DEFAULTS)


def test_an_environment_that_is_too_large() -> None:
    with pytest.raises(TooLarge, match="default_environment"):
        registered(default_environment={"A": "x" * 131_070})
    with pytest.raises(TooLarge, match="default_environment"):
        registered(default_environment={f"A{n}": "x" * 100_000 for n in range(3)})


@pytest.mark.parametrize(
    "image",
    [
        "busybox",
        "jstubbs/abaco_test",
        "jstubbs/abaco_test:latest",
        "localhost:5000/a/b/c:v1.2-3",
        "[::1]:5000/a",
        "Registry.Example.org/a__b",
        "a@sha256:" + "0" * 64,
        "a:t@sha256:" + "0" * 64,
    ],
)
def test_images(image: str) -> None:
    assert is_image(image)


@pytest.mark.parametrize(
    "image", ["", " ", "A", "a b", "a:", "a:é", "-a", "a//b", "a/", "a@sha256:00", "a:b:c", "é"]
)
def test_no_images(image: str) -> None:
    assert not is_image(image)


# -- limits --------------------------------------------------------------------------------------

LIMITS: dict[str, Any] = {
    "mem_limit": 512 * 1024 * 1024,
    "max_cpus": 1.5,
    "max_processes": 32,
    "max_run_seconds": 0.5,
    "max_log_bytes": 0,
    "max_disk_bytes": 1024 * 1024,
    "log_ex": 60,
}


def test_without_limits_the_host_decides() -> None:
    definition = registered()
    assert [getattr(definition, name) for name in LIMITS] == [None] * len(LIMITS)
    assert not definition.privileged


def test_limits_are_kept_and_a_form_says_the_same_as_json() -> None:
    form = as_form(image="a/b", name="foo", **{n: str(v) for n, v in LIMITS.items()})
    data = as_json(image="a/b", name="foo", **LIMITS)
    definition = parse.register(data, DEFAULTS).definition
    assert {name: getattr(definition, name) for name in LIMITS} == LIMITS
    assert parse.register(form, DEFAULTS).definition == definition


@pytest.mark.parametrize(
    ("said", "size"),
    [
        ("512m", 512 * 1024**2),
        ("2G", 2 * 1024**3),
        ("6144k", 6 * 1024**2),
        ("6291456", 6 * 1024**2),
        ("6291456b", 6 * 1024**2),
        (6291456, 6 * 1024**2),
        (6291456.0, 6 * 1024**2),
    ],
)
def test_memory_is_a_number_or_a_text(said: Any, size: int) -> None:
    assert registered(mem_limit=said).mem_limit == size
    if not isinstance(said, float):
        form = as_form(image="a", name="foo", mem_limit=str(said))
        assert parse.register(form, DEFAULTS).definition.mem_limit == size


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_can_be_given_back_to_the_host(name: str) -> None:
    assert parse.update("foo_0", as_json(**{name: None}), DEFAULTS).changes == {name: None}
    assert parse.update("foo_0", as_form(**{name: ""}), DEFAULTS).changes == {name: None}
    assert parse.update("foo_0", as_form(**{name: "null"}), DEFAULTS).changes == {name: None}


@pytest.mark.parametrize("form", [False, True])
@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        *[("mem_limit", v) for v in ("5m", 1, -1, "much", "1.5g", "²m", "9" * 16, 2**51, True)],
        *[("max_cpus", v) for v in (0, -1, 0.001, 1025, "two", "nan", "inf")],
        *[("max_processes", v) for v in (0, -1, 1.5, 2**40, "many")],
        *[("max_run_seconds", v) for v in (0, -1, 10**9, "long")],
        *[("max_log_bytes", v) for v in (-1, 64 * 1024 * 1024 + 1, "1m")],
        *[("max_disk_bytes", v) for v in (0, 1024 * 1024 - 1, 2**51, "1g")],
        *[("log_ex", v) for v in (0, -1, 0.5, 10**12)],
        *[("privileged", v) for v in ("perhaps", 2)],
    ],
)
def test_a_bad_limit_names_its_parameter(form: bool, parameter: str, value: Any) -> None:  # noqa: FBT001
    said = {parameter: str(value) if form else value}
    with pytest.raises(Malformed, match=rf"^{parameter}: "):
        parse.update("foo_0", Parameters(said, form=form), DEFAULTS)
    whole = Parameters({**said, "image": "a", "name": "foo"}, form=form)
    with pytest.raises(Malformed, match=rf"^{parameter}: "):
        parse.register(whole, DEFAULTS)


def test_privileged_containers_are_refused_unless_a_setting_allows_them() -> None:
    said = as_json(image="a", name="foo", privileged=True)
    with pytest.raises(Malformed, match=r"^privileged: .*ABACO_ALLOW_PRIVILEGED"):
        parse.register(said, DEFAULTS)
    with pytest.raises(Malformed, match=r"^privileged: "):
        parse.update("foo_0", as_form(privileged="true"), DEFAULTS)
    allowing = Defaults(init_count=2, max_workers=4, allow_privileged=True)
    assert parse.register(said, allowing).definition.privileged
    assert not registered(privileged=False).privileged


def test_new_privileges_are_refused_unless_a_setting_allows_them() -> None:
    said = as_json(image="a", name="foo", no_new_privileges=False)
    with pytest.raises(Malformed, match=r"^no_new_privileges: .*ABACO_ALLOW_NEW_PRIVILEGES"):
        parse.register(said, DEFAULTS)
    with pytest.raises(Malformed, match=r"^no_new_privileges: "):
        parse.update("foo_0", as_form(no_new_privileges="false"), DEFAULTS)
    allowing = Defaults(init_count=2, max_workers=4, allow_new_privileges=True)
    assert not parse.register(said, allowing).definition.no_new_privileges
    assert registered().no_new_privileges
    assert registered(no_new_privileges=True).no_new_privileges


@pytest.mark.parametrize("value", ["", "null"])
def test_an_isolation_is_chosen_or_left_to_the_host(value: str) -> None:
    assert registered().isolation is UNSET
    assert registered(isolation=None).isolation is UNSET
    assert registered(isolation="container").isolation is Isolation.CONTAINER
    form = as_form(image="a", name="foo", isolation="sandbox")
    assert parse.register(form, DEFAULTS).definition.isolation is Isolation.SANDBOX

    kept = parse.update("foo_0", as_form(stateless="true"), DEFAULTS).changes
    assert "isolation" not in kept
    back = parse.update("foo_0", as_form(isolation=value), DEFAULTS).changes
    chosen = Definition(name="foo", image="a", isolation=Isolation.CONTAINER)
    assert changed(chosen, kept).isolation is Isolation.CONTAINER
    assert changed(chosen, back).isolation is UNSET


@pytest.mark.parametrize("value", ["vm", "Sandbox", "container ", "sandbox,container"])
@pytest.mark.parametrize("form", [False, True])
def test_an_unknown_isolation_is_refused_with_the_known_ones(form: bool, value: str) -> None:  # noqa: FBT001
    parameters = Parameters({"isolation": value}, form=form)
    with pytest.raises(Malformed, match=r"^isolation: expected sandbox or container, or null$"):
        parse.update("foo_0", parameters, DEFAULTS)
    with pytest.raises(Malformed, match=r"^isolation: expected `str \| null`, got `int`$"):
        parse.update("foo_0", as_json(isolation=3), DEFAULTS)


# -- messages ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text", "kind"),
    [
        ("hi", "hi", "text/plain"),
        ("", "", "text/plain"),
        ({"a": [1, None]}, '{"a":[1,null]}', "application/json"),
        (None, "null", "application/json"),
        (0, "0", "application/json"),
        (False, "false", "application/json"),
    ],
)
def test_a_message_is_a_text_or_the_text_of_a_value(value: Any, text: str, kind: str) -> None:
    command = parse_message("foo_0", as_json(message=value), {})
    assert (command.message, command.content_type) == (text, kind)


def sent_as(text: str) -> Parameters:
    """A JSON body whose one value is this text."""
    name, value = text.split(":", 1)
    return Parameters(_json_object(f'{{ "{name}" : {value} }}'.encode()), form=False)


@pytest.mark.parametrize(
    "text",
    [
        "100000000000000000000.01",
        "1e400",
        "-1E-400",
        "-0",
        "1.0",
        "1.50e+02",
        "9" * 5_000,
        "0.1000000000000000055511151231257827",
        '{"b" : 1.0,\n "a":\t[1e400, -0, "\\u00e9\\/é"] }',
        "[]",
        "null",
        "true",
    ],
)
def test_the_text_of_a_json_message_stays_as_it_was_sent(text: str) -> None:
    command = parse_message("foo_0", sent_as(f"message:{text}"), {})
    assert (command.message, command.content_type) == (text, "application/json")


def test_a_json_string_is_a_text() -> None:
    command = parse_message("foo_0", sent_as('message:"\\u00e9\\n1.0"'), {})
    assert (command.message, command.content_type) == ("é\n1.0", "text/plain")


@pytest.mark.parametrize("number", ["100000000000000000000.01", "0.12345678901234567890", "1e400"])
def test_a_number_that_a_state_cannot_keep_is_refused(number: str) -> None:
    for value in (number, f'{{"a": ["7", "\\"9", {number}]}}'):
        with pytest.raises(Malformed, match=r"^state: "):
            parse.set_state("foo_0", sent_as(f"state:{value}"))


@pytest.mark.parametrize(
    "number", ["0.1", "0.10000000000000001", "1e2", "1.0", "-0", "1" + "0" * 30, "1.00000e5"]
)
def test_a_number_that_a_state_can_keep(number: str) -> None:
    command = parse.set_state("foo_0", sent_as(f'state:{{"1e500 \\" 5": {number}}}'))
    assert command.state == {'1e500 " 5': json.loads(number)}


def test_an_id_that_is_too_long_is_not_remembered() -> None:
    before = names.execution_ordinal.cache_info().currsize
    for n in range(10):
        with pytest.raises(Unknown, match="execution_id"):
            execution_ordinal("foo_0", f"foo_0_exc_{n}" + "1" * 10_000)
    assert names.execution_ordinal.cache_info().currsize == before


def test_a_message_fits_into_msg_or_is_refused() -> None:
    parse_message("foo_0", as_json(message="x" * ROOM), {})
    parse_message("foo_0", as_form(message="x" * ROOM), {})
    for value in ("x" * (ROOM + 1), "é" * (ROOM // 2 + 1), ["x" * (ROOM - 3)]):
        with pytest.raises(TooLarge, match=r"^message: .*131067"):
            parse_message("foo_0", as_json(message=value), {})


@pytest.mark.parametrize("values", [{}, {"message": "a\0"}])
def test_a_bad_message_is_named(values: dict[str, Any]) -> None:
    with pytest.raises(Malformed, match=r"^message: "):
        parse_message("foo_0", Parameters(values, form=False), {})


@pytest.mark.parametrize("name", ["MSG", "_abaco_x", "a=b", "a\0"])
def test_a_variable_that_cannot_be_set_is_named(name: str) -> None:
    with pytest.raises(Malformed):
        parse_message("foo_0", as_json(message="hi"), {name: "x"})


def test_a_variable_that_is_too_long() -> None:
    with pytest.raises(TooLarge, match=r"^LONG: "):
        parse_message("foo_0", as_json(message="hi"), {"LONG": "x" * ROOM})


# -- the others ----------------------------------------------------------------------------------


def test_an_update_holds_what_was_said() -> None:
    command = parse.update("foo_0", as_json(description=None, max_workers=3), DEFAULTS)
    assert command.changes == {"description": None, "max_workers": 3}
    assert parse.update("foo_0", as_json(), DEFAULTS).changes == {}


def test_a_state_is_any_value_without_nul_that_fits() -> None:
    assert parse.set_state("foo_0", as_json(state={"a": 2**80})).state == {"a": 2**80}
    assert parse.set_state("foo_0", as_form(state="x")).state == "x"
    for bad in ("\0", ["\0"], {"\0": 1}):
        with pytest.raises(Malformed, match=r"^state: "):
            parse.set_state("foo_0", as_json(state=bad))
    with pytest.raises(TooLarge, match=r"^state: "):
        parse.set_state("foo_0", as_json(state="x" * 131_071))


def test_one_worker_unless_a_number_is_named() -> None:
    assert parse.scale("foo_0", as_json()).num == 1
    assert parse.scale("foo_0", as_form(num="3")).num == 3
    for bad in ("x", 1.5, -1, True, 2**70):
        with pytest.raises(Malformed, match=r"^num: "):
            parse.scale("foo_0", as_json(num=bad))


@pytest.mark.parametrize("pattern", ["", "a b", "a\0", "x" * 256, 5])
def test_a_bad_pattern_is_named(pattern: Any) -> None:
    with pytest.raises(Malformed, match=r"^event_pattern: "):
        parse.subscribe("foo_0", as_json(event_pattern=pattern))


@pytest.mark.parametrize(
    "text", ["foo", "foo_", "*", "a.b_0", ">", "foo_0\n", "_0", "foo_00", "\0"]
)
def test_what_cannot_be_an_actor_id_names_nothing(text: str) -> None:
    with pytest.raises(Unknown, match="actor_id"):
        checked_actor_id(text)


@pytest.mark.parametrize("text", ["foo_0", "bar_0_exc_0", "foo_0_exc_", "foo_0_exc_01", "*"])
def test_what_cannot_be_an_execution_id_names_nothing(text: str) -> None:
    with pytest.raises(Unknown, match="execution_id"):
        execution_ordinal("foo_0", text)


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "10001"}, "limit"),
        ({"limit": "ten"}, "limit"),
        ({"limit": "٣"}, "limit"),
        ({"offset": "-1"}, "offset"),
        ({"offset": "9" * 30}, "offset"),
        ({"limmit": "1"}, "limmit"),
    ],
)
def test_a_bad_page_is_named(query: dict[str, str], named: str) -> None:
    with pytest.raises(Malformed, match=rf"^{named}: "):
        parse_page(query, default=1000)


# -- bodies --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"\xff",
        b'{"a": "\\ud800"}',
        b'{"a": 1, "a": 2}',
        b'{"a": {"b": 1, "b": 2}}',
        b"[1e999]",
        b"NaN",
        b"[" * 100 + b"]" * 100,
        b"[" * 100_000 + b"]" * 100_000,
        b"9" * 5_000,
        b'{"a": "\\ud800 and more"}',
        b'{"a": "\xed\xa0\x80"}',
        '{"a": 1}'.encode("utf-16"),
    ],
)
def test_what_is_not_strict_json_is_refused(raw: bytes) -> None:
    with pytest.raises(Malformed):
        decode_json(raw, "the body")


@pytest.mark.parametrize(
    "raw",
    [
        b"[]",
        b"5",
        b"null",
        b'"text"',
        b"NaN",
        b'{"a": NaN}',
        b'{"a": [Infinity]}',
        b'{"a": "\xff"}',
        b'{"a": "\xed\xa0\x80"}',
        b'{"a": "\\ud800"}',
        b'{"a": "\\ud800 and more"}',
        b'{"a": "\x01"}',
        b'{"a": 01}',
        b'{"a": [1,]}',
        b'{"a": 1} x',
        b'{"a": 1, "a": 2}',
        b'{"a": {"b": 1, "b": 2}}',
        b'{"a": ' + b"[" * 65 + b"]" * 65 + b"}",
        b'{"a": ' + b"[" * 100_000,
        b'\xef\xbb\xbf{"a": 1}',
        '{"a": 1}'.encode("utf-16"),
    ],
)
def test_a_body_that_is_no_strict_json_object_is_refused(raw: bytes) -> None:
    with pytest.raises(Malformed):
        _json_object(raw)


def test_json_is_nested_within_reason() -> None:
    deep: Any = "x"
    for _ in range(60):
        deep = [deep]
    assert decode_json(json.dumps(deep), "the body") == deep


@pytest.mark.parametrize("raw", [b"a=%ff", b"a=\xff", b"a=%ed%a0%80", b"a=1&a=2", b"a=1&" * 2000])
def test_what_is_not_a_strict_form_is_refused(raw: bytes) -> None:
    with pytest.raises(Malformed):
        text_parameters(raw)


def part(head: str, value: bytes) -> bytes:
    return (
        b"--x\r\nContent-Disposition: form-data; " + head.encode() + b"\r\n\r\n" + value + b"\r\n"
    )


def test_a_multipart_form_holds_texts() -> None:
    raw = part('name="a"', "é".encode()) + part('name="b"', b"") + b"--x--\r\n"
    assert multipart_fields("multipart/form-data; boundary=x", raw) == [("a", "é"), ("b", "")]


@pytest.mark.parametrize(
    ("content_type", "raw"),
    [
        ("multipart/form-data", b"--x--\r\n"),
        ("multipart/form-data; boundary=x", b"nonsense"),
        ("multipart/form-data; boundary=x", part('name="a"', b"\xff") + b"--x--\r\n"),
        ("multipart/form-data; boundary=x", part('name="a"; filename="f"', b"") + b"--x--\r\n"),
    ],
)
def test_a_bad_multipart_form_is_refused(content_type: str, raw: bytes) -> None:
    with pytest.raises(Malformed):
        multipart_fields(content_type, raw)
