"""The stand-in's own evaluator of policies: what it must tell apart, and what is no policy at all."""

import json
import unittest

from policy import Asked, Malformed, decide, parse

INSTANCE = "arn:aws:ec2:eu-central-1:111122223333:instance/i-1"


def verdict(statements: object, **asked: object) -> str:
    """What a policy of these statements says of a request."""
    defaults = {"action": "ec2:RebootInstances", "resource": INSTANCE, "context": {}}
    found = parse(json.dumps({"Version": "2012-10-17", "Statement": statements}))
    return decide(found, Asked(**{**defaults, **asked}))


def statement(**members: object) -> dict[str, object]:
    """An Allow of everything, but for what is said otherwise; `None` leaves a member out."""
    found = {"Effect": "Allow", "Action": "*", "Resource": "*", **members}
    return {name: value for name, value in found.items() if value is not None}


def condition(operator: str, values: object, key: str = "aws:PrincipalTag/team") -> dict[str, object]:
    """An Allow under one condition."""
    return statement(Condition={operator: {key: values}})


class Decisions(unittest.TestCase):
    """Requests and statements."""

    def test_nothing_is_allowed_that_no_statement_allows(self) -> None:
        self.assertEqual(verdict(statement(Action="ec2:StopInstances")), "None")
        self.assertEqual(verdict(statement(Resource=INSTANCE[:-1] + "2")), "None")
        self.assertEqual(verdict(statement(Resource=INSTANCE)), "Allow")

    def test_a_deny_wins(self) -> None:
        self.assertEqual(verdict([statement(), statement(Effect="Deny", Action="ec2:Reboot*")]), "Deny")
        self.assertEqual(verdict([statement(Effect="Deny", Action="ec2:Stop*"), statement()]), "Allow")

    def test_not_action_and_not_resource_speak_of_all_others(self) -> None:
        others = statement(Effect="Deny", Action=None, NotAction="ec2:RebootInstances")
        self.assertEqual(verdict([statement(), others]), "Allow")
        self.assertEqual(verdict([statement(), others], action="ec2:StopInstances"), "Deny")
        elsewhere = statement(Effect="Deny", Resource=None, NotResource=[INSTANCE])
        self.assertEqual(verdict([statement(), elsewhere]), "Allow")
        self.assertEqual(verdict([statement(), elsewhere], resource=INSTANCE + "0"), "Deny")

    def test_actions_do_not_tell_case_apart_and_resources_do(self) -> None:
        self.assertEqual(verdict(statement(Action="EC2:rebootinstances".replace("EC2", "ec2"))), "Allow")
        self.assertEqual(verdict(statement(Resource=INSTANCE.replace("i-1", "I-1"))), "None")

    def test_wildcards_and_their_escapes(self) -> None:
        stars = "arn:aws:s3:::b/${*}.txt"
        self.assertEqual(verdict(statement(Resource=stars), resource="arn:aws:s3:::b/*.txt"), "Allow")
        self.assertEqual(verdict(statement(Resource=stars), resource="arn:aws:s3:::b/a.txt"), "None")
        self.assertEqual(verdict(statement(Resource="arn:aws:s3:::b/?"), resource="arn:aws:s3:::b/ab"), "None")
        self.assertEqual(verdict(statement(Resource="arn:aws:s3:::b/*"), resource="arn:aws:s3:::b/a/b\n"), "Allow")

    def test_variables_need_their_value(self) -> None:
        own = statement(Resource="arn:aws:s3:::b/${aws:SourceIdentity}/*")
        mine = {"resource": "arn:aws:s3:::b/alice/x"}
        self.assertEqual(verdict(own, **mine, context={"aws:sourceidentity": "alice"}), "Allow")
        self.assertEqual(verdict(own, **mine, context={"aws:sourceidentity": "bob"}), "None")
        self.assertEqual(verdict(own, **mine, context={"aws:sourceidentity": "*"}), "None")
        self.assertEqual(verdict(own, **mine), "None")

    def test_the_window(self) -> None:
        end = "2026-11-22T01:00:00Z"
        window = [
            condition("DateLessThan", end, "aws:CurrentTime"),
            statement(Effect="Deny", Condition={"DateGreaterThanEquals": {"aws:CurrentTime": end}}),
        ]
        for now, said in (
            ("2026-11-22T00:59:59.999+00:00", "Allow"),
            ("2026-11-22T01:00:00+00:00", "Deny"),
            ("2026-11-22T01:30:00+01:00", "Allow"),
        ):
            self.assertEqual(verdict(window, context={"aws:currenttime": now}), said, now)
        self.assertEqual(verdict(window), "None")


class Conditions(unittest.TestCase):
    """Operators, and keys that are missing or have several values."""

    def test_missing_keys(self) -> None:
        for operator, said in (
            ("StringEquals", "None"),
            ("StringNotEquals", "Allow"),
            ("StringEqualsIfExists", "Allow"),
            ("ForAllValues:StringEquals", "Allow"),
            ("ForAnyValue:StringEquals", "None"),
            ("ForAnyValue:StringNotEquals", "None"),
        ):
            self.assertEqual(verdict(condition(operator, "x")), said, operator)
        self.assertEqual(verdict(condition("Null", "true")), "Allow")
        self.assertEqual(verdict(condition("Null", "false")), "None")

    def test_several_values(self) -> None:
        key, two = "dynamodb:LeadingKeys", {"dynamodb:leadingkeys": ["a", "b"]}
        for operator, values, said in (
            ("ForAllValues:StringEquals", ["a"], "None"),
            ("ForAllValues:StringEquals", ["a", "b"], "Allow"),
            ("ForAnyValue:StringEquals", ["b"], "Allow"),
            ("ForAnyValue:StringNotEquals", ["b"], "Allow"),
            ("ForAllValues:StringNotEquals", ["b"], "None"),
            ("StringEquals", ["a"], "Allow"),
        ):
            self.assertEqual(verdict(condition(operator, values, key), context=two), said, (operator, values))

    def test_comparisons(self) -> None:
        for operator, actual, expected, said in (
            ("StringEquals", "Ops", "ops", "None"),
            ("StringEqualsIgnoreCase", "Ops", "ops", "Allow"),
            ("StringEquals", "a*", "a*", "Allow"),
            ("StringEquals", "ab", "a*", "None"),
            ("StringLike", "ab", "a*", "Allow"),
            ("StringNotLike", "ab", ["x", "a*"], "None"),
            ("NumericLessThanEquals", "10", "9", "None"),
            ("NumericLessThanEquals", "9", "10", "Allow"),
            ("NumericLessThanEquals", "nine", "10", "None"),
            ("Bool", "true", True, "Allow"),
            ("IpAddress", "10.1.2.3", "10.0.0.0/8", "Allow"),
            ("NotIpAddress", "10.1.2.3", "10.0.0.0/8", "None"),
        ):
            context = {"aws:principaltag/team": actual}
            self.assertEqual(verdict(condition(operator, expected), context=context), said, (operator, actual))

    def test_all_conditions_must_hold(self) -> None:
        both = statement(Condition={"StringEquals": {"aws:PrincipalTag/a": "1", "aws:PrincipalTag/b": "2"}})
        self.assertEqual(verdict(both, context={"aws:principaltag/a": "1", "aws:principaltag/b": "2"}), "Allow")
        self.assertEqual(verdict(both, context={"aws:principaltag/a": "1"}), "None")


class Grammar(unittest.TestCase):
    """Documents that are no policies."""

    def test_malformed_statements(self) -> None:
        for members in (
            {"Effect": "allow"},
            {"Effect": None},
            {"Action": None},
            {"NotAction": "ec2:*"},
            {"NotResource": "*"},
            {"Resource": None},
            {"Resource": []},
            {"Resource": "instance/i-1"},
            {"Resource": "arn:aws:s3"},
            {"Resource": "arn:aws:s3:::b/${unfinished"},
            {"Resource": "arn:aws:s3:::b/${nonsense}"},
            {"Action": "RebootInstances"},
            {"Action": 7},
            {"Principal": {"AWS": "*"}},
            {"Comment": "no such member"},
            {"Sid": "not alpha-numeric"},
            {"Condition": {"StringIs": {"aws:SourceIp": "x"}}},
            {"Condition": {"StringEquals": {"nocolon": "x"}}},
            {"Condition": {"StringEquals": {"aws:SourceIp": []}}},
            {"Condition": {"DateLessThan": {"aws:CurrentTime": "tomorrow"}}},
            {"Condition": "x"},
        ):
            with self.subTest(members), self.assertRaises(Malformed):
                verdict(statement(**members))

    def test_malformed_documents(self) -> None:
        good = json.dumps(statement())
        for text in (
            "",
            "[]",
            "{}",
            "{" * 5000,
            '{"Version":"2012-10-17","Statement":[]}',
            '{"Version":"2026-01-01","Statement":' + good + "}",
            '{"Version":"2012-10-17","Statement":' + good + ',"Note":"x"}',
            '{"Version":"2012-10-17","Statement":' + good + ',"Statement":' + good + "}",
            '{"Version":"2012-10-17","Statement":[{"Sid":"a",' + good[1:] + ',{"Sid":"a",' + good[1:] + "]}",
        ):
            with self.subTest(text[:80]), self.assertRaises(Malformed):
                parse(text)


if __name__ == "__main__":
    unittest.main()
