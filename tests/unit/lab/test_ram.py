"""RAM policies: who may do what, as the cloud would decide it."""

from __future__ import annotations

from typing import Any

import pytest

from certcast_lab.aliyun.ram import Ram, User, is_allowed, parse_policy


def policy(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "1", "Statement": list(statements)}


def statement(effect: str, action: str | list[str], resource: str | list[str], **more: Any) -> dict[str, Any]:
    return {"Effect": effect, "Action": action, "Resource": resource, **more}


def user(*policies: dict[str, Any]) -> User:
    return User("100", "someone", "LTAI", "secret", policies=policies)


def test_nothing_is_allowed_without_a_statement():
    """A new RAM user can do nothing."""
    assert not is_allowed(user(), "alidns:DescribeDomains", "acs:alidns:*:100:domain/*", {})


@pytest.mark.parametrize(
    ("action", "resource", "allowed"),
    [
        ("alidns:AddDomainRecord", "acs:alidns:*:100:domain/example.com", True),
        ("alidns:DeleteDomainRecord", "acs:alidns:*:100:domain/example.com", False),
        ("alidns:AddDomainRecord", "acs:alidns:*:100:domain/example.org", False),
        ("alidns:AddDomainRecord", "acs:alidns:*:100:domain/*", False),
        ("alidns:AddDomainRecord", "acs:alidns:*:200:domain/example.com", False),
        ("alidns:adddomainrecord", "acs:alidns:*:100:domain/example.com", False),
    ],
)
def test_a_statement_allows_its_action_on_its_resource_alone(action, resource, allowed):
    """The least-privilege policy for one zone opens that zone, for that account, and nothing else."""
    someone = user(
        policy(statement("Allow", "alidns:AddDomainRecord", "acs:alidns:*:100:domain/example.com"))
    )
    assert allowed == is_allowed(someone, action, resource, {})


@pytest.mark.parametrize(
    ("pattern", "value", "allowed"),
    [
        ("acs:oss:*:*:bucket/certs/*", "acs:oss:oss-cn-hangzhou:100:bucket/certs/a/manifest", True),
        ("acs:oss:*:*:bucket/certs/*", "acs:oss:oss-cn-hangzhou:100:bucket/hosts/a.json", False),
        ("acs:oss:*:*:bucket", "acs:oss:oss-cn-hangzhou:100:bucket/certs", False),
        ("acs:oss:*:*:bucket/?", "acs:oss:*:100:bucket/a", True),
        ("acs:oss:*:*:bucket/?", "acs:oss:*:100:bucket/ab", False),
        ("acs:oss:*:*:bucket/[ab]", "acs:oss:*:100:bucket/a", False),
        ("acs:oss:*:*:bucket/a.b", "acs:oss:*:100:bucket/aXb", False),
    ],
)
def test_resources_know_two_wildcards(pattern, value, allowed):
    """A star is any text, slashes too, a question mark one character; brackets and dots are themselves."""
    someone = user(policy(statement("Allow", "oss:GetObject", pattern)))
    assert allowed == is_allowed(someone, "oss:GetObject", value, {})


def test_a_deny_outranks_every_allow():
    """What one policy denies, no other policy gives back, whatever their order."""
    everything = policy(statement("Allow", "*", "*"))
    but = policy(statement("Deny", ["oss:Delete*"], "*"))
    for someone in (user(everything, but), user(but, everything)):
        assert is_allowed(someone, "oss:PutObject", "x", {})
        assert not is_allowed(someone, "oss:DeleteObject", "x", {})


@pytest.mark.parametrize(
    ("condition", "context", "met"),
    [
        ({"IpAddress": {"acs:SourceIp": ["203.0.113.7/32"]}}, {"acs:SourceIp": "203.0.113.7"}, True),
        ({"IpAddress": {"acs:SourceIp": "203.0.113.7"}}, {"acs:SourceIp": "203.0.113.7"}, True),
        ({"IpAddress": {"acs:SourceIp": ["203.0.113.7/32"]}}, {"acs:SourceIp": "203.0.113.8"}, False),
        (
            {"IpAddress": {"acs:SourceIp": ["192.0.2.0/24", "203.0.113.0/24"]}},
            {"acs:SourceIp": "203.0.113.8"},
            True,
        ),
        ({"IpAddress": {"acs:SourceIp": ["203.0.113.7/32"]}}, {}, False),
        ({"StringLike": {"oss:Prefix": ["certs/*"]}}, {"oss:Prefix": "certs/a/"}, True),
        ({"StringLike": {"oss:Prefix": ["certs/*"]}}, {"oss:Prefix": ""}, False),
        ({"StringEquals": {"oss:Prefix": "certs/"}}, {"oss:Prefix": "certs/"}, True),
        ({"StringEquals": {"oss:Prefix": "certs/*"}}, {"oss:Prefix": "certs/a"}, False),
        (
            {"StringEquals": {"oss:Prefix": "a"}, "IpAddress": {"acs:SourceIp": "192.0.2.1"}},
            {"oss:Prefix": "a", "acs:SourceIp": "192.0.2.2"},
            False,
        ),
    ],
)
def test_every_condition_has_to_be_met(condition, context, met):
    """Of the values one is enough, of the conditions all count, and what is not said is not met."""
    someone = user(policy(statement("Allow", "*", "*", Condition=condition)))
    assert met == is_allowed(someone, "oss:ListObjects", "x", context)


def test_a_deny_with_a_condition_denies_only_then():
    """A key that must not be used from outside works inside."""
    outside = {"IpAddress": {"acs:SourceIp": "198.51.100.0/24"}}
    someone = user(policy(statement("Allow", "*", "*"), statement("Deny", "*", "*", Condition=outside)))
    assert is_allowed(someone, "a:b", "x", {"acs:SourceIp": "10.0.0.1"})
    assert not is_allowed(someone, "a:b", "x", {"acs:SourceIp": "198.51.100.9"})


@pytest.mark.parametrize(
    "document",
    [
        {"Version": "2012-10-17", "Statement": []},
        policy(statement("Maybe", "*", "*")),
        policy({**statement("Allow", "*", "*"), "NotAction": "oss:*"}),
        policy(statement("Allow", "*", "*", Condition={"NumericLessThan": {"x": 1}})),
    ],
)
def test_a_policy_that_is_not_understood_is_refused(document):
    """The lab never grants more than the cloud would by overlooking part of a policy."""
    with pytest.raises(ValueError, match=r"RAM|Effect"):
        parse_policy(document)
    with pytest.raises(ValueError, match=r"RAM|Effect"):
        Ram().add(user(document))


def test_users_are_found_by_access_key_and_keys_are_unique():
    """Two users never share a key id, and an unknown one is nobody's."""
    ram = Ram()
    someone = ram.add(user())
    assert someone is ram.by_access_key("LTAI")
    assert ram.by_access_key("ltai") is None
    with pytest.raises(ValueError, match="exists already"):
        ram.add(user())


def test_a_user_does_not_print_its_secrets():
    """A failing test or a log line shows who it was, not with what."""
    shown = repr(User("100", "someone", "LTAI", "the-secret", "the-token"))
    assert "the-secret" not in shown
    assert "the-token" not in shown
