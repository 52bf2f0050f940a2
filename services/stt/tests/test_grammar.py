import pytest

from trunkline.stt.providers.grammar import problem_of

pytestmark = pytest.mark.unit

HEAD = "#JSGF V1.0;\ngrammar g;\n"
WORDS = {"yes", "no", "please", "one", "two"}


def judge(text):
    return problem_of(text, WORDS.__contains__)


@pytest.mark.parametrize(
    "rules",
    [
        "public <a> = yes | no;",
        "public <a> = [please] <b> {tag} (one | /3/ two)+ ; <b> = yes * ;",
        "// public <c> = what;\npublic <a> = yes; /* <d> = \n never; */",
        'public <a> = "yes" | <NULL>;',
    ],
)
def test_a_good_grammar_has_no_problem(rules):
    assert judge(HEAD + rules) is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("public <a> = yes;", "must begin with '#JSGF V1.0;'"),
        ("#JSGF V1.0; public <a> = yes;", "'grammar <name>;'"),
        (HEAD, "has no 'public"),
        (HEAD + "<a> = yes;", "has no 'public"),
        (HEAD + "public <a> = yes", "cannot be read from 'public <a> = yes'"),
        (HEAD + "public <a> = yes; what is this;", "cannot be read from 'what is this;'"),
        (HEAD + "public <a> = <b> | <c>; <c> = no;", "refers to <b>, which it does not define"),
        (HEAD + "public <a> = yes xqzzt 7;", "words the dictionary lacks: 7, xqzzt"),
    ],
)
def test_what_is_wrong_is_said(text, problem):
    found = judge(text)
    assert found is not None
    assert problem in found
