"""Section 3: what crosses the wire is checked once, and precisely."""

from __future__ import annotations

import json
import math
import string
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import caucus
from caucus import (
    ALL,
    CLIENT_ID_MAX,
    CONTENT_MAX,
    FIELDS_MAX,
    LABEL_MAX,
    NAME_MAX,
    OPTION_MAX,
    OPTIONS_MAX,
    PLAINLY,
    REASON_MAX,
    RESERVED,
    TITLE_MAX,
    TOKEN_MAX,
    Field,
    FloorGranted,
    Invalid,
    InvalidForm,
    LossTold,
    Manner,
    Message,
    ModeChanged,
    PeerJoined,
    PeerLeft,
    Question,
    RateChanged,
    Refusal,
    StatusSet,
    TopicSet,
    UnknownAction,
    Usage,
    UsageSet,
    boolean_of,
    channel_of,
    floor_call_of,
    id_of,
    integer_of,
    lane_of,
    notice_of,
    object_of,
    one_line,
    optional_text_of,
    peer_name_of,
    registration_of,
    scope_of,
    seconds_of,
    speech_of,
    text_of,
    token_of,
)

SURROGATES = ["\ud800", "a\udfffb", "\ude00\ud83d"]
NOT_TEXT = [None, True, 7, 7.5, ["a"], {"a": "b"}]


def name_of(name: object) -> str:
    return peer_name_of({"project": name}, "project")


# --- text ---


@pytest.mark.parametrize("value", NOT_TEXT)
def test_only_a_string_is_text(value):
    with pytest.raises(Invalid):
        text_of({"content": value}, "content")


def test_a_missing_text_is_refused_unless_it_has_a_default():
    with pytest.raises(Invalid):
        text_of({}, "content")
    assert text_of({}, "content", default="x") == "x"


@pytest.mark.parametrize("size", [2, 5])
def test_text_may_be_as_short_and_as_long_as_its_bounds(size):
    assert text_of({"k": "é" * size}, "k", 2, 5) == "é" * size


@pytest.mark.parametrize("size", [0, 1, 6])
def test_text_out_of_its_bounds_is_refused(size):
    with pytest.raises(Invalid):
        text_of({"k": "x" * size}, "k", 2, 5)


def test_lengths_count_code_points_not_bytes():
    assert len(text_of({"k": "\U0001f600" * CONTENT_MAX}, "k")) == CONTENT_MAX


@pytest.mark.parametrize("text", SURROGATES)
def test_a_lone_surrogate_is_not_text(text):
    with pytest.raises(Invalid):
        text_of({"k": text}, "k")


def test_text_is_kept_to_the_letter():
    text = "  two\nlines\t\0 \u202e\u200b e\u0301 "
    assert text_of({"k": text}, "k") == text


@pytest.mark.parametrize("value", [None, "", "  \n\t "])
def test_blank_optional_text_counts_as_none(value):
    assert optional_text_of({"k": value}, "k", 9) is None


def test_absent_optional_text_is_none():
    assert optional_text_of({}, "k", 9) is None


def test_optional_text_is_trimmed():
    assert optional_text_of({"k": " why \n"}, "k", 9) == "why"


@pytest.mark.parametrize("value", [*NOT_TEXT[1:], "x" * 10, "\ud800"])
def test_optional_text_is_checked_like_text(value):
    with pytest.raises(Invalid):
        optional_text_of({"k": value}, "k", 9)


def test_a_fault_names_its_field_and_where_it_is():
    with pytest.raises(Invalid) as caught:
        integer_of("x", "limit", 1, 9, "query")
    assert caught.value.body()["field"] == "limit"
    assert caught.value.body()["detail"][0]["loc"] == ["query", "limit"]


def test_a_token_longer_than_the_cap_is_refused_before_it_is_hashed():
    assert token_of({"token": "x" * TOKEN_MAX}) == "x" * TOKEN_MAX
    with pytest.raises(Invalid):
        token_of({"token": "x" * (TOKEN_MAX + 1)})


# --- numbers and booleans ---


@pytest.mark.parametrize("value", [7, 7.0, "7", " 7 ", "+7", "7.0", "07", "7."])
def test_what_plainly_is_an_integer_is_read_as_one(value):
    assert integer_of(value, "seq", 0, 100) == 7


def test_a_boolean_is_read_as_an_integer():
    result = integer_of(True, "seq", 0, 100)
    assert (result, type(result)) == (1, int)


@pytest.mark.parametrize(
    "value", [None, [], {}, "", "x", "7.5", "1e3", "0x10", "1_0", "٣", "9" * 5000, 7.5, math.nan, math.inf, -math.inf]
)
def test_what_is_not_plainly_an_integer_is_refused(value):
    with pytest.raises(Invalid):
        integer_of(value, "seq", 0, 10**30)


@pytest.mark.parametrize("value", [0, 10, "10"])
def test_an_integer_may_be_its_bound(value):
    assert integer_of(value, "seq", 0, 10) == int(value)


@pytest.mark.parametrize("value", [-1, 11, "-1", 10**40, 1e300])
def test_an_integer_out_of_its_bounds_is_refused(value):
    with pytest.raises(Invalid):
        integer_of(value, "seq", 0, 10)


@pytest.mark.parametrize("value", [True, 1, 1.0, "true", "TRUE", " yes ", "on", "1"])
def test_what_plainly_is_true_is_read_as_true(value):
    assert boolean_of({"k": value}, "k") is True


@pytest.mark.parametrize("value", [False, 0, 0.0, "false", "No", "off", "0"])
def test_what_plainly_is_false_is_read_as_false(value):
    assert boolean_of({"k": value}, "k") is False


def test_an_absent_boolean_is_false():
    assert boolean_of({}, "k") is False


@pytest.mark.parametrize("value", [None, 2, -1, 0.5, math.nan, math.inf, "maybe", "", [], {}])
def test_what_is_not_plainly_a_boolean_is_refused(value):
    with pytest.raises(Invalid):
        boolean_of({"k": value}, "k")


@pytest.mark.parametrize(
    ("text", "seconds"), [("7.5", 7.5), ("0", 0.0), ("-3", 0.0), ("99", 25.0), ("inf", 25.0), ("-inf", 0.0)]
)
def test_a_duration_is_clamped_to_what_a_poll_may_last(text, seconds):
    assert seconds_of(text, "timeout", 25.0) == seconds


@pytest.mark.parametrize("text", ["nan", "-NaN", "", "soon", "1,5", "5s"])
def test_a_duration_that_is_no_number_is_refused(text):
    with pytest.raises(Invalid):
        seconds_of(text, "timeout", 25.0)


@pytest.mark.parametrize("value", [None, [], "x", 7, True])
def test_only_an_object_is_an_object(value):
    with pytest.raises(Invalid):
        object_of({"k": value}, "k")


def test_an_object_is_kept_as_it_is():
    assert object_of({"k": {"a": 1}}, "k") == {"a": 1}


# --- names ---


@pytest.mark.parametrize(
    "name",
    [
        *("a", "my repo", "human-2", "systemd", "wall", "a#b", "日本語", "Zoë", "{name}", "😀", "x" * NAME_MAX),
        *("caucus", "сервер", "hubert", "Δ-team", "github", "humanities", "web-1", "operators-guide"),
    ],
)
def test_an_ordinary_name_is_accepted(name):
    assert name_of(name) == name


@pytest.mark.parametrize("name", ["", "x" * (NAME_MAX + 1), *NOT_TEXT, *SURROGATES])
def test_a_name_that_is_no_text_of_its_bounds_is_refused(name):
    with pytest.raises(Invalid):
        name_of(name)


@pytest.mark.parametrize("number", [*range(32), *range(127, 160)])
def test_a_name_cannot_hold_a_control_character(number):
    with pytest.raises(Invalid):
        name_of(f"an{chr(number)}n")


INVISIBLE = {
    "zero-width space": "\u200b",
    "zero-width joiner": "\u200d",
    "byte order mark": "\ufeff",
    "soft hyphen": "\u00ad",
    "word joiner": "\u2060",
    "right-to-left override": "\u202e",
    "isolate": "\u2066",
    "line separator": "\u2028",
    "no-break space": "\u00a0",
    "ideographic space": "\u3000",
    "em space": "\u2003",
    "tag letter": "\U000e0061",
    "hangul filler": "\u3164",
    "half-width hangul filler": "\uffa0",
    "hangul initial filler": "\u115f",
    "hangul medial filler": "\u1160",
    "blank braille cell": "\u2800",
}


@pytest.mark.parametrize("character", INVISIBLE.values(), ids=INVISIBLE.keys())
def test_a_name_cannot_hold_an_invisible_character_or_odd_space(character):
    with pytest.raises(Invalid):
        name_of(f"an{character}n")


@pytest.mark.parametrize("name", [" ann", "ann ", " "])
def test_a_name_cannot_begin_or_end_with_a_space(name):
    with pytest.raises(Invalid):
        name_of(name)


@pytest.mark.parametrize("name", ["#", "#x", "# x", "#all"])
def test_a_name_cannot_look_like_a_channel(name):
    with pytest.raises(Invalid):
        name_of(name)


DISGUISES = {
    "plain": lambda word: word,
    "upper case": str.upper,
    "title case": str.title,
    "spaced out": " ".join,
    "dotted": ".".join,
    "hyphened": lambda word: f"{word[0]}-{word[1:]}",
    "bracketed": lambda word: f"[{word}]",
    "full width": lambda word: "".join(chr(ord(c) + 0xFEE0) for c in word),
    "circled": lambda word: "".join(chr(ord(c) - ord("a") + ord("ⓐ")) for c in word),
    "mathematical": lambda word: "".join(chr(ord(c) - ord("a") + 0x1D41A) for c in word),
    "trailing variation selector": lambda word: f"{word}\ufe0f",
    "struck through": "\u0336".join,
} | {title: lambda word, c=character: f"{word}{c}" for title, character in INVISIBLE.items()}


@pytest.mark.parametrize("word", sorted(RESERVED))
@pytest.mark.parametrize("disguise", DISGUISES.values(), ids=DISGUISES.keys())
def test_no_peer_bears_a_name_of_the_room_in_any_disguise(word, disguise):
    with pytest.raises(Invalid):
        name_of(disguise(word))


LOOK_ALIKES = (
    *("ʜuman", "humán", "һuman", "нuman", "Ηuman", "hum@n", "hum4n", "оператор", "ОПЕРАТОР", "opérateur", "Mensch"),
    *("օperator", "ꓳperator", "the operator", "The-Hub", "0perator", "0p3rator", "oреrаtоr", "ᴏᴘᴇʀᴀᴛᴏʀ", "øperatør"),
    *("[caucus]", "[CAUCUS] STOP", "bob → all: x", "user ⇒ all", "a1l", "5ystem", "操作员", "人类", "オペレーター"),
    *("operadór", "һub", "ⓗⓤⓑ", "ｈｕｂ"),
)


@pytest.mark.parametrize("name", LOOK_ALIKES)
def test_no_peer_bears_a_name_that_looks_like_the_operators_or_the_hubs(name):
    with pytest.raises(Invalid):
        name_of(name)


@pytest.mark.parametrize("sign", ["\x1b[2J", "\r", "\b", "\x85", "\u2028", "\u200b", "\u202e", "\x9b1A"])
def test_one_line_has_nothing_that_a_terminal_obeys_or_hides(sign):
    assert one_line(f"a{sign}b").isprintable()


def test_one_line_keeps_an_emoji_of_several():
    assert one_line("\U0001f469\u200d\U0001f4bb  at work") == "\U0001f469\u200d\U0001f4bb at work"


def test_both_forms_of_an_accent_are_one_name():
    assert name_of("Zoe\u0308") == name_of("Zoë") == "Zoë"


def test_a_scope_is_brought_to_the_form_that_names_have():
    assert scope_of({"to": "Zoe\u0308"}) == "Zoë"


def test_a_name_is_within_its_bounds_in_the_form_that_others_see():
    grows = "\u0958"  # one code point whose NFC form has two
    with pytest.raises(Invalid):
        name_of(grows * NAME_MAX)


@settings(max_examples=50)
@given(st.text(max_size=70) | st.text(string.ascii_letters + " #-\u0301\u0308\u200b\u00a0", max_size=12))
def test_an_accepted_name_is_stable_bounded_and_visible(text):
    try:
        name = name_of(text)
    except Invalid:
        return
    assert (name_of(name), unicodedata.is_normalized("NFC", name)) == (name, True)
    assert 1 <= len(name) <= NAME_MAX
    assert name.isprintable()


# --- scopes ---


@pytest.mark.parametrize("scope", [ALL, "#x", "ann", "", "#", "nobody here", "hub"])
def test_any_printable_scope_may_be_written_to(scope):
    assert scope_of({"to": scope}) == scope


@pytest.mark.parametrize("scope", ["a\nb", "#x\0", "ann\u200b", "\ud800", "x" * (NAME_MAX + 1), None, 7])
def test_a_scope_that_no_name_could_be_is_refused(scope):
    with pytest.raises(Invalid):
        scope_of({"to": scope})


@pytest.mark.parametrize("channel", ["#x", "#" + "x" * (NAME_MAX - 1), "##", "#two words", "#日本"])
def test_a_channel_is_a_hash_sign_and_a_name(channel):
    assert channel_of({"channel": channel}) == channel


@pytest.mark.parametrize(
    "channel", ["", "#", "x", "xx", " #x", "#x ", "#\n", "#a\u200bb", "#\ud800", "#" + "x" * NAME_MAX, None, 7, ["#x"]]
)
def test_what_is_not_a_channel_is_refused(channel):
    with pytest.raises(Invalid):
        channel_of({"channel": channel})


@pytest.mark.parametrize("lane", [ALL, "#x"])
def test_a_lane_is_all_or_a_channel(lane):
    assert lane_of({"scope": lane}, "scope") == lane


def test_an_absent_lane_is_its_default():
    assert lane_of({}, "scope", ALL) == ALL


@pytest.mark.parametrize("lane", ["", "ann", "ALL", "#", None, 7, ["#x"], {"#x": 1}, "#\n", "\ud800"])
def test_what_is_not_a_lane_is_refused(lane):
    with pytest.raises(Invalid):
        lane_of({"scope": lane}, "scope", ALL)


# --- requests ---


def test_a_registration_needs_only_a_name():
    assert registration_of({"project": "ann"}) == ("ann", None, None)


def test_a_registration_reads_version_and_token():
    body = {"project": "ann", "protocol_version": "25", "token": "t", "unknown": "ignored"}
    assert registration_of(body) == ("ann", 25, "t")


@pytest.mark.parametrize("fault", [{"project": "hub"}, {"token": 7}, {"token": "\ud800"}, {"protocol_version": "new"}])
def test_a_registration_with_a_fault_is_refused(fault):
    with pytest.raises(Invalid):
        registration_of({"project": "ann"} | fault)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"reply_to": 7}, Manner(7)),
        ({"reply_to": "7"}, Manner(7)),
        ({"reply_to": "00000000001f"}, Manner("00000000001f")),
        ({"reply_to": None}, Manner()),
        ({"declines": 7}, Manner(7, "declined")),
        ({"settles": 7}, Manner(7, "settled")),
        ({"reply_to": 7, "expects_answer": True}, Manner(7, "", True)),
        ({"expects_answer": "yes", "client_id": "x" * CLIENT_ID_MAX}, Manner(0, "", True, "x" * CLIENT_ID_MAX)),
        ({"child": "reviewer 1"}, Manner(child="reviewer 1")),
    ],
)
def test_what_stands_beside_the_words_is_read(more, expected):
    assert speech_of({"token": "t", "to": "all", "content": "hi", **more}) == ("t", "all", "hi", expected)


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"reply_to": 0}, "reply_to"),
        ({"reply_to": "soon"}, "reply_to"),
        ({"reply_to": [7]}, "reply_to"),
        ({"settles": -1}, "settles"),
        ({"reply_to": 7, "declines": 7}, "declines"),
        ({"declines": 7, "settles": 8}, "settles"),
        ({"declines": 7, "expects_answer": True}, "expects_answer"),
        ({"expects_answer": "perhaps"}, "expects_answer"),
        ({"client_id": ""}, "client_id"),
        ({"client_id": "x" * (CLIENT_ID_MAX + 1)}, "client_id"),
        ({"client_id": 7}, "client_id"),
    ],
)
def test_what_stands_beside_the_words_is_refused_by_its_name(more, field):
    with pytest.raises(Invalid) as refused:
        speech_of({"token": "t", "to": "all", "content": "hi", **more})
    assert refused.value.extra["field"] == field


def test_only_an_answer_may_leave_out_whom_it_is_for():
    assert speech_of({"token": "t", "content": "hi", "reply_to": 7}) == ("t", "", "hi", Manner(7))
    with pytest.raises(Invalid):
        speech_of({"token": "t", "content": "hi"})


def test_speech_keeps_its_content_to_the_letter():
    assert speech_of({"token": "t", "to": "all", "content": " hi\n"}) == ("t", "all", " hi\n", PLAINLY)


@pytest.mark.parametrize("content", ["x", "x" * CONTENT_MAX])
def test_content_may_have_its_bounds(content):
    assert speech_of({"token": "t", "to": "all", "content": content})[2] == content


@pytest.mark.parametrize(
    "fault", [{"content": ""}, {"content": "x" * (CONTENT_MAX + 1)}, {"content": None}, {"to": None}, {"token": None}]
)
def test_speech_with_a_fault_is_refused(fault):
    with pytest.raises(Invalid):
        speech_of({"token": "t", "to": "all", "content": "x"} | fault)


def test_speech_must_say_where_it_goes():
    with pytest.raises(Invalid):
        speech_of({"token": "t", "content": "x"})


def test_the_floor_is_that_of_all_unless_told():
    assert floor_call_of({"token": "t", "action": "take"}) == ("t", "take", ALL, None)


def test_a_reason_is_trimmed():
    assert floor_call_of({"token": "t", "action": "take", "reason": " why "})[3] == "why"


@pytest.mark.parametrize("action", ["", "clear", "quit", "TAKE", "grab", "x" * 5000])
def test_a_floor_action_that_does_not_exist_is_refused(action):
    with pytest.raises(UnknownAction):
        floor_call_of({"token": "t", "action": action[:CONTENT_MAX]})


@pytest.mark.parametrize(
    "fault", [{"action": None}, {"scope": "ann"}, {"reason": "x" * (REASON_MAX + 1)}, {"reason": 7}]
)
def test_a_floor_call_with_a_fault_is_refused(fault):
    with pytest.raises(Invalid):
        floor_call_of({"token": "t", "action": "take"} | fault)


def asked(**changes: object) -> dict[str, object]:
    return {"key": "go", "label": "Go?", "type": "radio", "options": ["yes", "no"]} | changes


def test_a_field_shows_all_six_keys_whatever_was_left_out():
    field = Field.parse(asked())
    assert field.to_json() == asked(required=False, allow_other=False)


def test_a_free_field_needs_no_options():
    assert Field.parse({"key": "k", "label": "L", "type": "text"}).options == ()


@pytest.mark.parametrize("kind", ["radio", "checkbox"])
@pytest.mark.parametrize("options", [[], None])
def test_a_choice_without_options_is_refused(kind, options):
    with pytest.raises(InvalidForm):
        Field.parse(asked(type=kind, options=options))


def test_a_choice_that_leaves_its_options_out_is_refused():
    with pytest.raises(InvalidForm):
        Field.parse({"key": "k", "label": "L", "type": "radio"})


@pytest.mark.parametrize("kind", ["text", "textarea"])
def test_a_free_field_with_options_is_refused(kind):
    with pytest.raises(InvalidForm):
        Field.parse(asked(type=kind))


@pytest.mark.parametrize(
    "fault",
    [
        {"key": ""},
        {"key": "x" * (NAME_MAX + 1)},
        {"label": ""},
        {"label": "x" * (LABEL_MAX + 1)},
        {"type": "slider"},
        {"type": ["radio"]},
        {"type": None},
        {"options": "yes"},
        {"options": {"yes": 1}},
        {"options": [""]},
        {"options": [7]},
        {"options": ["\ud800"]},
        {"options": ["x" * (OPTION_MAX + 1)]},
        {"options": ["yes", "yes"]},
        {"options": [str(n) for n in range(OPTIONS_MAX + 1)]},
        {"required": "maybe"},
        {"allow_other": None},
    ],
)
def test_a_field_with_a_fault_is_refused(fault):
    with pytest.raises(Invalid):
        Field.parse(asked(**fault))


def test_a_question_goes_to_all_unless_told():
    question = Question.parse({"token": "t", "title": "T", "fields": [asked()]})
    assert (question.to, question.title, len(question.fields)) == (ALL, "T", 1)


def test_a_question_may_have_as_many_fields_as_the_cap():
    fields = [asked(key=str(n)) for n in range(FIELDS_MAX)]
    assert len(Question.parse({"token": "t", "title": "T", "fields": fields}).fields) == FIELDS_MAX


@pytest.mark.parametrize(
    "fault",
    [
        {"title": ""},
        {"title": "x" * (TITLE_MAX + 1)},
        {"to": "ann"},
        {"fields": []},
        {"fields": None},
        {"fields": {"a": 1}},
        {"fields": ["go"]},
        {"fields": [asked(key=str(n)) for n in range(FIELDS_MAX + 1)]},
    ],
)
def test_a_question_with_a_fault_is_refused(fault):
    with pytest.raises(Invalid):
        Question.parse({"token": "t", "title": "T", "fields": [asked()]} | fault)


def test_two_fields_cannot_share_a_key():
    with pytest.raises(InvalidForm):
        Question.parse({"token": "t", "title": "T", "fields": [asked(), asked()]})


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None), max_size=9)
    | st.sampled_from([ALL, "#x", "ann", "take", "radio"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(sorted(asked())), inner, max_size=5),
    max_leaves=6,
)
KEYS = ["token", "project", "protocol_version", "to", "content", "action", "scope", "reason", "title", "fields"]


@settings(max_examples=60)
@given(
    body=st.dictionaries(st.sampled_from(KEYS), JSON),
    read=st.sampled_from([registration_of, speech_of, floor_call_of, Question.parse]),
)
def test_whatever_json_comes_it_is_read_or_refused(body, read):
    try:
        parsed = read(body)
    except Refusal as refusal:
        json.dumps(refusal.body()).encode()
    else:
        assert isinstance(parsed, tuple | Question)


# --- messages and events ---


def message(**changes: object) -> Message:
    known = {"id": id_of(1), "sender": "ann", "recipient": ALL, "content": "hi", "kind": "message", "ts": 1.5}
    return Message(**(known | {"seq": 7, "origin": "agent"} | changes))


@pytest.mark.parametrize("text", ["hi", 'quo"te', "back\\slash", "two\nlines\t\0\x1b", "é😀\u2028", "</script>", ""])
def test_the_wire_form_of_a_message_is_its_json(text):
    sent = message(sender=text, recipient=text, content=text)
    shown = ("id", "sender", "recipient", "content", "kind", "ts", "seq", "origin")
    assert json.loads(sent.wire) == {key: getattr(sent, key) for key in shown}


@pytest.mark.parametrize("ts", [0.0, 1e-7, 1_700_000_000.123456, 1e22])
def test_the_wire_form_keeps_a_stamp_exactly(ts):
    assert json.loads(message(ts=ts).wire)["ts"] == ts


def test_the_wire_form_of_an_answer_has_its_meta():
    sent = message(kind="answer", meta=json.dumps({"answers": {"go": ["é"]}}))
    assert json.loads(sent.wire)["meta"] == {"answers": {"go": ["é"]}}


def test_the_wire_form_of_a_message_without_meta_has_no_such_key():
    assert "meta" not in json.loads(message().wire)


def test_an_id_is_twelve_hex_digits_however_large_the_serial():
    assert [id_of(n) for n in (0, 255, 2**48 + 1)] == ["0" * 12, "0000000000ff", "000000000001"]


# --- usage ---

USAGE = {"model": "claude", "turns": 12, "input_tokens": 45_000, "output_tokens": 3_123, "cost_usd": 0.31}
COUNTS = ("turns", "input_tokens", "output_tokens")


@pytest.mark.parametrize("usage", [
    USAGE,
    {**USAGE, "cost_usd": None},
    {**USAGE, "model": "", **dict.fromkeys(COUNTS, 0), "cost_usd": 0.0},
    {**USAGE, "model": "m" * NAME_MAX, **dict.fromkeys(COUNTS, Usage.MAX), "cost_usd": float(Usage.MAX)},
])
def test_a_usage_goes_out_as_it_came_in(usage):
    assert Usage.parse(usage).to_json() == usage


def test_a_usage_without_a_price_has_none():
    assert Usage.parse({key: value for key, value in USAGE.items() if key != "cost_usd"}).cost_usd is None


@pytest.mark.parametrize(("cost", "kept"), [(1, "1.0"), (-0.0, "0.0"), (1e-9, "1e-09")])
def test_a_cost_is_a_number_without_a_sign(cost, kept):
    assert repr(Usage.parse({**USAGE, "cost_usd": cost}).cost_usd) == kept


def test_the_name_of_a_model_is_one_line():
    assert Usage.parse({**USAGE, "model": " a\n b "}).model == "a b"


@pytest.mark.parametrize("key", ["model", *COUNTS])
def test_a_usage_is_refused_when_it_lacks(key):
    with pytest.raises(Invalid) as caught:
        Usage.parse({name: value for name, value in USAGE.items() if name != key})
    assert caught.value.extra["field"] == key


@pytest.mark.parametrize("key", COUNTS)
@pytest.mark.parametrize("value", [None, -1, 1.0, 1.5, "1", True, [1], Usage.MAX + 1, 10**400])
def test_a_count_is_an_integer_and_nothing_like_one(key, value):
    with pytest.raises(Invalid) as caught:
        Usage.parse({**USAGE, key: value})
    assert caught.value.extra["field"] == key


@pytest.mark.parametrize("value", [-0.01, math.nan, math.inf, -math.inf, "0.31", True, [0.31], 10**400])
def test_a_cost_is_a_finite_number_of_dollars(value):
    with pytest.raises(Invalid) as caught:
        Usage.parse({**USAGE, "cost_usd": value})
    assert caught.value.extra["field"] == "cost_usd"


@pytest.mark.parametrize("model", [None, 7, "m" * (NAME_MAX + 1), "\ud800"])
def test_the_name_of_a_model_is_a_short_text(model):
    with pytest.raises(Invalid):
        Usage.parse({**USAGE, "model": model})


class Point(caucus.Record):
    """A record with a default."""

    x: int
    y: int = 7


@pytest.mark.parametrize("made", [Point(1), Point(1, 7), Point(x=1), Point(1, y=7), Point(2).but(x=1)])
def test_a_record_is_what_its_fields_are(made):
    assert made == Point(1, 7)
    assert hash(made) == hash(Point(1))
    assert (made.values(), repr(made)) == ((1, 7), "Point(1, 7)")


@pytest.mark.parametrize("make", [
    Point, lambda: Point(1, 2, 3), lambda: Point(1, z=3), lambda: Point(1, x=3), lambda: Point(y=3),
])
def test_a_record_refuses_what_does_not_fit_its_fields(make):
    with pytest.raises(TypeError, match=r"__init__\(\)"):
        make()


def test_records_of_different_kinds_are_different_though_they_hold_the_same():
    assert caucus.FloorPassed(1, 2.0, 3.0, "#x", "ann") != caucus.FloorReleased(1, 2.0, 3.0, "#x", "ann")


NOTICES = {
    PeerJoined(1, 0.0, 2.0, "ann", "hash"): "ann joined",
    PeerLeft(1, 0.0, 2.0, "{x}", "left"): "{x} left",
    TopicSet(1, 0.0, 2.0, "ann", "#x", None): "ann set the topic of #x: none",
    LossTold(1, 0.0, 2.0, "ann", 4, 3, "cid"): "ann's mailbox is full: 4 lost, the latest is message 3 from cid",
    ModeChanged(1, 0.0, 2.0, "paused"): "control: paused",
    RateChanged(1, 0.0, 2.0, 0.5, 3.0): "rate: 0.5 messages per second, bursts of 3",
}


@pytest.mark.parametrize("event", NOTICES, ids=lambda event: type(event).__name__)
def test_an_event_reads_as_a_line(event):
    assert notice_of(event).content == NOTICES[event]


def test_a_notice_is_the_hubs_and_has_no_seq():
    notice = notice_of(PeerJoined(1, 0.0, 2.0, "ann", "hash"))
    assert (notice.seq, notice.origin, notice.sender, notice.kind, notice.ts) == (0, "hub", "hub", "system", 2.0)


@pytest.mark.parametrize("event", [
    StatusSet(1, 0.0, 2.0, "ann", "busy"),
    UsageSet(1, 0.0, 2.0, "ann", Usage("", 1, 2, 3, None)),
    FloorGranted(1, 0.0, 2.0, ALL, "ann", None),
])
def test_an_event_that_is_shown_otherwise_makes_no_notice(event):
    assert notice_of(event) is None
