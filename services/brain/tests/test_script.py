import pytest

from trunkline.brain.llm import AgentSaid, CallerSaid, Message, SystemNote, ToolAnswered, ToolAsked
from trunkline.brain.script import Problem, Reply, ToolWanted, answer, validate, words_of
from trunkline.proto.agent import Rule, Script, Slot, Tool
from trunkline.proto.ids import ToolCallId

pytestmark = pytest.mark.unit

ID = ToolCallId("t1-1")


def said(script: Script, *messages: Message, tools: frozenset[str] = frozenset({"look"})) -> str:
    return answer(script, messages, tools).say


def caller(*texts: str) -> list[Message]:
    return [CallerSaid(text=text) for text in texts]


def result(json: str = "{}", error: str = "") -> list[Message]:
    asked = ToolAsked(tool_call=ID, name="look", arguments="{}")
    return [asked, ToolAnswered(tool_call=ID, name="look", result=json, error=error)]


def agent(text: str, heard: str | None = None) -> AgentSaid:
    return AgentSaid(text=text, heard=text if heard is None else heard)


def test_words_are_matched_without_case_and_punctuation() -> None:
    assert (
        words_of("At 7:30, please! It\N{RIGHT SINGLE QUOTATION MARK}s for Dr. Who…") == "at 7:30 please it's for dr who"
    )


def test_the_first_rule_that_holds_answers_and_else_the_fallback() -> None:
    script = Script(rules=(Rule(hear="yes", say="One."), Rule(hear="yes|no", say="Two.")), fallback="What?")
    assert said(script, *caller("Yes.")) == "One."
    assert said(script, *caller("No.")) == "Two."
    assert said(script, *caller("Hm.")) == "What?"
    assert answer(script, (), ()) == Reply()


def test_a_slot_is_kept_until_another_value_is_heard_and_the_last_match_counts() -> None:
    slots = {
        "day": Slot(hear=r"\b(friday|sunday)\b", proper=True),
        "size": Slot(hear="for (?P<value>two|2)", values={"two": "2"}),
    }
    script = Script(slots=slots, rules=(Rule(known=("day", "size"), say="{size} {day}"), Rule(say="?")))
    assert said(script, *caller("friday for two")) == "2 Friday"
    assert said(script, *caller("for two on friday", "no not friday sunday")) == "2 Sunday"
    assert said(script, *caller("friday")) == "?"


def test_some_words_count_only_as_an_answer_to_a_question_that_was_heard() -> None:
    slots = {"size": Slot(hear_when_asked="^(two|three)$")}
    rules = (Rule(known=("size",), say="For {size}."), Rule(say="For how many people?", asks=("size",)))
    script = Script(slots=slots, rules=rules)
    question = "For how many people?"
    assert said(script, *caller("two")) == question
    assert said(script, *caller("hello"), agent(question), *caller("two")) == "For two."
    assert said(script, *caller("hello"), agent(question, "For how many"), *caller("two")) == "For two."
    assert said(script, *caller("hello"), agent(question, "For"), *caller("two")) == question


def test_a_question_stays_asked_over_a_fallback() -> None:
    slots = {"size": Slot(hear_when_asked="^two$")}
    rules = (Rule(known=("size",), say="For {size}."), Rule(hear="hello", say="How many?", asks=("size",)))
    script = Script(slots=slots, rules=rules, fallback="Pardon?")
    history = [*caller("hello"), agent("How many?"), *caller("blah"), agent("Pardon?"), *caller("two")]
    assert said(script, *history) == "For two."


def test_a_new_value_makes_others_stale_but_the_same_one_does_not() -> None:
    slots = {"day": Slot(hear="friday|sunday", forgets=("ok",)), "ok": Slot(hear="yes")}
    script = Script(slots=slots, rules=(Rule(known=("ok",), say="Agreed."), Rule(say="Right?")))
    assert said(script, *caller("friday", "yes")) == "Agreed."
    assert said(script, *caller("friday", "yes friday")) == "Agreed."
    assert said(script, *caller("friday", "yes but sunday")) == "Right?"


def test_rules_that_go_on_speak_together_and_remember_and_forget() -> None:
    slots = {"day": Slot(hear="friday"), "other": Slot(hear="x")}
    rules = (
        Rule(hear="hours", say="Six to ten.", goes_on=True),
        Rule(hear="where", say="Here.", goes_on=True),
        Rule(where={"heard": "unclear"}, say="Pardon?", goes_on=True),
        Rule(known=("day",), remember={"other": "{day} night"}, say="{other}?", forget=("day",), goes_on=True),
        Rule(missing=("other",), say="Which day?"),
        Rule(missing=("day",), say="Good."),
    )
    script = Script(slots=slots, rules=rules)
    assert said(script, *caller("what hours and where")) == "Six to ten. Here. Which day?"
    assert said(script, *caller("blah")) == "Pardon? Which day?"
    assert said(script, *caller("friday")) == "friday night? Good."
    assert said(script, *caller("friday"), agent("friday night? Good."), *caller("blah")) == "Pardon? Good."


def test_silence_and_noise_are_told_apart() -> None:
    script = Script(
        rules=(Rule(where={"heard": "nothing"}, say="Hello?"), Rule(where={"heard": "unclear"}, say="What?"))
    )
    assert said(script, *caller("")) == "Hello?"
    assert said(script, *caller("blah")) == "What?"


LOOK = Script(
    slots={"day": Slot(hear="friday|sunday", forgets=("free", "other"))},
    rules=(
        Rule(after="look", where={"failed": "yes"}, say="It does not work."),
        Rule(after="look", where={"free": "yes"}, say="It is free.", goes_on=True),
        Rule(after="look", goes_on=True),
        Rule(known=("other",), where={"free": "no"}, say="{other} is free."),
        Rule(hear="thanks", say="You are welcome."),
        Rule(known=("day",), missing=("free",), say="Let me see.", tool="look", arguments={"day": "{day}"}),
        Rule(known=("day",), say="Anything else?"),
    ),
)


def test_a_tool_is_asked_for_and_its_result_decides() -> None:
    reply = answer(LOOK, caller("friday"), {"look"})
    assert reply == Reply(say="Let me see.", tool=ToolWanted(name="look", arguments={"day": "friday"}))
    before = [*caller("friday"), agent("Let me see.")]
    assert said(LOOK, *before, *result('{"free": true}')) == "It is free. Anything else?"
    assert said(LOOK, *before, *result('{"free": false, "other": ["six", "seven"]}')) == "six and seven is free."
    assert said(LOOK, *before, *result(error="It took too long.")) == "It does not work."


def test_when_the_words_before_a_tool_come_late_in_the_history_nothing_changes() -> None:
    early = [
        *caller("friday"),
        agent("Let me see."),
        *result('{"free": true}'),
        agent("It is free."),
        *caller("thanks"),
    ]
    late = [*caller("friday"), *result('{"free": true}'), agent("Let me see."), agent("It is free."), *caller("thanks")]
    assert said(LOOK, *early) == said(LOOK, *late) == "You are welcome."
    assert said(LOOK, *late[:4]) == "It is free. Anything else?"


def test_a_result_replaces_the_one_before() -> None:
    first = [*caller("friday"), *result('{"free": false, "other": "sunday"}'), agent("sunday is free.")]
    assert answer(LOOK, [*first, *caller("sunday then")], {"look"}).tool is not None
    again = [*first, *caller("sunday then"), *result('{"free": true}')]
    assert said(LOOK, *again) == "It is free. Anything else?"


def test_words_that_came_while_a_tool_ran_are_answered_with_its_result() -> None:
    history = [*caller("friday"), *result('{"free": true}'), *caller("no sunday")]
    assert answer(LOOK, history, {"look"}).tool == ToolWanted(name="look", arguments={"day": "sunday"})
    assert said(LOOK, *caller("friday"), *result('{"free": true}'), *caller("thanks")) == "It is free. You are welcome."


def test_a_tool_that_may_not_be_asked_for_is_not() -> None:
    assert answer(LOOK, caller("friday"), ()) == Reply(say="Anything else?")


def test_results_that_are_no_object_and_fields_that_cannot_be_said_are_left_out() -> None:
    for odd in ("nonsense", "[1]", '{"free": {"deep": 1}}', '{"free": null}', '{"day": "monday"}'):
        before = [*caller("friday"), *result(odd)]
        assert answer(LOOK, before, {"look"}).tool == ToolWanted(name="look", arguments={"day": "friday"})


def test_words_that_nobody_answered_are_answered_with_those_that_follow() -> None:
    assert said(LOOK, *caller("thanks", "hm")) == "You are welcome."
    assert said(LOOK, *caller("thanks"), agent("You are welcome."), *caller("hm")) != "You are welcome."


def keys(pressed: str) -> SystemNote:
    return SystemNote(text=f"The caller pressed the keys {pressed}")


def test_keys_are_heard_like_words() -> None:
    script = Script(
        slots={"pin": Slot(hear="pressed (?P<value>.+) hash")},
        rules=(
            Rule(known=("pin",), say="Your number is {pin}."),
            Rule(hear="^pressed zero$", say="One moment."),
            Rule(hear="^pressed star d$", say="Secret."),
        ),
        fallback="Pardon?",
    )
    assert said(script, keys("0")) == "One moment."
    assert said(script, *caller("hello"), agent("Pardon?"), keys("0")) == "One moment."
    assert said(script, keys("12#")) == "Your number is one two."
    assert said(script, keys("*D")) == "Secret."


def test_keys_and_notes_that_no_rule_hears_are_answered_by_the_fallback_not_by_the_last_answer() -> None:
    script = Script(rules=(Rule(hear="hello", say="Good evening."),), fallback="Pardon?")
    history = [*caller("hello"), agent("Good evening.")]
    assert said(script, *history, keys("12#")) == "Pardon?"
    assert said(script, *history, SystemNote(text="The transfer failed")) == "Pardon?"
    assert said(script, keys("1")) == "Pardon?"


def test_what_answers_a_question_is_not_looked_for_among_keys() -> None:
    slots = {"name": Slot(hear_when_asked=r"^(?P<value>\w+ \w+)", proper=True)}
    rules = (Rule(known=("name",), say="Thank you, {name}."), Rule(say="And your name?", asks=("name",)))
    asked = [*caller("hello"), agent("And your name?")]
    assert said(Script(slots=slots, rules=rules), *asked, keys("1")) == "And your name?"
    later = [*asked, keys("1"), agent("And your name?"), *caller("anna miller")]
    assert said(Script(slots=slots, rules=rules), *later) == "Thank you, Anna Miller."


def test_a_note_that_nobody_answered_is_answered_with_the_words_that_follow() -> None:
    assert said(LOOK, agent("Welcome!"), keys("1"), *caller("thanks")) == "You are welcome."


TOOLS = (Tool(name="look", parameters={"required": ["day"]}, returns=("free", "other")),)


def problems(*rules: Rule, **slots: Slot) -> list[Problem]:
    return validate(Script(slots={"day": Slot(hear="friday"), **slots}, rules=rules), TOOLS)


@pytest.mark.parametrize(
    ("rule", "path", "text"),
    [
        (Rule(hear="("), "hear", "no regular expression"),
        (Rule(known=("dya",)), "known", "there is no slot or result field 'dya'"),
        (Rule(missing=("dya",)), "missing", "there is no slot or result field 'dya'"),
        (Rule(where={"dya": "x"}), "where", "there is no slot or result field 'dya'"),
        (Rule(forget=("dya",)), "forget", "there is no slot or result field 'dya'"),
        (Rule(asks=("free",)), "asks", "there is no slot 'free'"),
        (Rule(remember={"free": "x"}), "remember", "there is no slot 'free'"),
        (Rule(after="lok"), "after", "the agent has no tool 'lok'"),
        (Rule(tool="lok"), "tool", "the agent has no tool 'lok'"),
        (Rule(tool="look"), "arguments", "look needs day"),
        (Rule(arguments={"day": "x"}), "arguments", "there is no tool to give them to"),
        (Rule(say="On {day}."), "say", "{day} may be unknown here"),
        (Rule(say="On {day."), "say", "a brace without its other half"),
        (Rule(known=("day",), missing=("free",), say="{free}"), "say", "{free} may be unknown here"),
        (Rule(remember={"day": "{other}"}), "remember.day", "{other} may be unknown here"),
        (Rule(tool="look", arguments={"day": "{day}"}), "arguments.day", "{day} may be unknown here"),
    ],
)
def test_what_would_fail_in_a_call_is_found_before_it(rule: Rule, path: str, text: str) -> None:
    found = problems(rule)
    assert [problem.path for problem in found] == [f"llm.script.rules[0].{path}"]
    assert found[0].text.startswith(text)


def test_slots_are_checked_too() -> None:
    assert [problem.path for problem in problems(Day=Slot(hear="x"))] == ["llm.script.slots.Day"]
    assert [problem.path for problem in problems(heard=Slot(hear="x"))] == ["llm.script.slots.heard"]
    assert [problem.path for problem in problems(bad=Slot(hear="("))] == ["llm.script.slots.bad.hear"]
    assert [problem.path for problem in problems(yes=Slot(hear_when_asked="x"))] == [
        "llm.script.slots.yes.hear_when_asked"
    ]
    assert [problem.path for problem in problems(a=Slot(hear="x", forgets=("b",)))] == ["llm.script.slots.a.forgets"]
    assert [problem.path for problem in problems(free=Slot(hear="x"))] == ["tools[0].returns"]
    script = Script(fallback="On {day}?")
    assert [problem.path for problem in validate(script, ())] == ["llm.script.fallback"]


def test_names_that_are_sure_may_be_said() -> None:
    rule = Rule(known=("day",), where={"free": "yes"}, remember={"slot": "{day}"}, say="{day} {free} {slot} {heard}")
    assert problems(rule, slot=Slot(hear="x")) == []
