"""Section 7: questions to the operator, and answers that fit them."""

from __future__ import annotations

import json

import pytest

from caucus import ANSWER_MAX, OPTIONS_MAX, Field, Form, InvalidForm


def field(kind: str = "text", *options: str, key: str = "k", required: bool = False, other: bool = False) -> Field:
    return Field(key, f"Label {key}", kind, options, required, other)


def form(*fields: Field, title: str = "Deploy?") -> Form:
    return Form("f1", title, "ann", "all", fields or (field(),), 5.0)


def answered(value: object, *fields: Field) -> object:
    """Give what is kept of `value` as the answer to the first field."""
    return form(*fields).validate({"k": value}).get("k")


def test_a_free_answer_is_kept_to_the_letter():
    assert answered(" two\nlines ") == " two\nlines "


@pytest.mark.parametrize("blank", [None, "", "  \n"])
@pytest.mark.parametrize("kind", ["text", "checkbox"])
def test_a_blank_answer_counts_as_none(kind, blank):
    assert answered(blank, field(kind)) is None


@pytest.mark.parametrize("blank", [[], [""], [" ", "\n"]])
def test_a_list_of_blanks_counts_as_none(blank):
    assert answered(blank, field("checkbox", "a")) is None


def test_an_answer_may_be_left_out():
    assert form().validate({}) == {}


@pytest.mark.parametrize("kind", ["radio", "checkbox"])
def test_one_of_the_options_is_an_answer(kind):
    assert answered("yes", field(kind, "yes", "no")) in ("yes", ["yes"])


def test_a_checkbox_takes_several_options():
    assert answered(["a", "c"], field("checkbox", "a", "b", "c")) == ["a", "c"]


def test_a_checkbox_with_one_choice_is_kept_as_a_list():
    assert answered("a", field("checkbox", "a", "b")) == ["a"]


@pytest.mark.parametrize("kind", ["radio", "checkbox"])
def test_an_answer_outside_the_options_is_refused(kind):
    with pytest.raises(InvalidForm):
        answered("maybe", field(kind, "yes", "no"))


def test_an_answer_outside_the_options_is_welcome_where_others_are_allowed():
    assert answered("maybe", field("radio", "yes", "no", other=True)) == "maybe"


@pytest.mark.parametrize("kind", ["radio", "text", "textarea"])
def test_a_list_is_no_answer_to_a_field_of_one(kind):
    with pytest.raises(InvalidForm):
        answered(["a"], field(kind, *(["a"] if kind == "radio" else [])))


@pytest.mark.parametrize("value", [7, True, {"a": 1}, ["a", 7], [["a"]], "x" * (ANSWER_MAX + 1), "\ud800", ["\udfff"]])
def test_an_answer_that_is_no_text_of_its_bounds_is_refused(value):
    with pytest.raises(InvalidForm):
        answered(value, field("checkbox", "a", other=True))


def test_an_answer_may_be_as_long_as_the_cap():
    assert answered("x" * ANSWER_MAX) == "x" * ANSWER_MAX


def test_the_same_choice_twice_is_refused():
    with pytest.raises(InvalidForm):
        answered(["a", "a"], field("checkbox", "a"))


def test_more_choices_than_there_are_options_and_one_other_are_refused():
    with pytest.raises(InvalidForm):
        answered([str(n) for n in range(OPTIONS_MAX + 2)], field("checkbox", "a", other=True))


@pytest.mark.parametrize("answers", [{}, {"k": None}, {"k": "  "}])
def test_a_required_answer_is_required(answers):
    with pytest.raises(InvalidForm):
        form(field(required=True)).validate(answers)


def test_an_empty_list_does_not_answer_a_required_checkbox():
    with pytest.raises(InvalidForm):
        form(field("checkbox", "a", required=True)).validate({"k": []})


@pytest.mark.parametrize("answers", [None, [], "yes", 7, True])
def test_answers_that_are_no_object_are_refused(answers):
    with pytest.raises(InvalidForm):
        form().validate(answers)


def test_an_answer_to_no_field_is_refused_by_name():
    with pytest.raises(InvalidForm) as caught:
        form().validate({"k": "a", "zz": "b"})
    assert caught.value.body()["field"] == "zz"


def test_a_refused_answer_names_its_field():
    with pytest.raises(InvalidForm) as caught:
        form(field(key="a"), field(key="b", required=True)).validate({"a": "x"})
    assert caught.value.body()["field"] == "b"


def test_answers_are_kept_in_the_order_of_the_fields():
    assert [*form(field(key="a"), field(key="b")).validate({"b": "2", "a": "1"})] == ["a", "b"]


def test_a_refusal_of_hostile_answers_can_be_sent():
    with pytest.raises(InvalidForm) as caught:
        form().validate({"\ud800": "x"})
    assert json.dumps(caught.value.body()).encode()


def test_the_recap_has_the_title_and_one_line_per_field():
    asked = form(field(key="a"), field("checkbox", "x", "y", key="b"), field(key="c"))
    assert asked.recap({"a": "1", "b": ["x", "y"]}) == (
        "Deploy?\n- Label a: 1\n- Label b: x, y\n- Label c: (no answer)"
    )


def test_the_recap_of_a_cancelled_form_says_so():
    assert form().recap(None) == "Deploy?: cancelled by the operator"


def test_the_summary_is_one_line_whatever_the_answer():
    assert form(field(key="a"), field(key="b")).summarise({"a": "1\n2", "b": "3"}) == "Label a: 1 2 · Label b: 3"


def test_the_summary_of_a_cancelled_form_says_so():
    assert form().summarise(None) == "cancelled"


def test_the_summary_is_one_line_whatever_the_label():
    asked = form(Field("k", "one\ntwo", "text", (), False, False))
    assert "\n" not in asked.summarise({"k": "x"})


def test_an_asker_cannot_forge_an_answer_by_a_line_break_in_the_title():
    asked = form(title="Deploy?\n- Label k: yes, to production")
    assert len(asked.recap({"k": "no"}).splitlines()) == 2


def test_an_asker_cannot_forge_an_answer_by_a_line_break_in_a_label():
    asked = form(Field("k", "Why\n- Approved: yes", "text", (), False, False))
    assert len(asked.recap({"k": "no"}).splitlines()) == 2


def test_a_pending_form_shows_its_fields_and_no_answers():
    shown = form().to_json()
    assert shown == {
        "id": "f1",
        "title": "Deploy?",
        "asker": "ann",
        "to": "all",
        "fields": [field().to_json()],
        "status": "pending",
        "answers": None,
        "ts": 5.0,
        "seq": 0,
    }


def test_what_is_encoded_of_a_pending_form_is_what_it_shows():
    assert json.loads(form().wire) == form().to_json()
